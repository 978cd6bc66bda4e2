"""DenseNet-121: the published sizes, and the paper's equation written out in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ossicle.backbones.densenet import DenseNet121
from ossicle.backbones.folding import folded
from ossicle.backbones.layers import he_normal_
from ossicle.heads import count_parameters
from ossicle.model import create_model

# Huang et al. 2017, table 1: dense layers of each block; the growth rate, section 4.2.
DEPTHS, GROWTH = (6, 12, 24, 16), 32
# Of the network for pictures: three colours, and a classifier of 1,000 classes behind it.
PUBLISHED = 7_978_856


def lively(multiscale: bool = False) -> DenseNet121:
    """Random weights, and batch norms that do something."""
    network = DenseNet121(multiscale=multiscale).eval()
    generator = torch.Generator().manual_seed(0)
    he_normal_(network, generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.2),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                torch.nn.init.uniform_(tensor, low, high, generator=generator)
    return network


def test_parameters_are_the_published_ones():
    without = PUBLISHED - (1024 * 1000 + 1000)
    # One picture instead of three colours: two channels fewer for 64 kernels of 7 by 7.
    assert count_parameters(DenseNet121()) == without - 2 * 64 * 7 * 7
    # Four scales instead of three colours, and the four kernels of 9 weights and a bias.
    assert count_parameters(DenseNet121(multiscale=True)) == without + 64 * 7 * 7 + 4 * 10


def test_parameters_by_hand():
    """Counted from table 1 and section 3, so that the published total itself is checked."""
    total, channels = 49 * 64 + 2 * 64, 64
    for block, depth in enumerate(DEPTHS):
        for _ in range(depth):
            total += 2 * channels + channels * 128 + 2 * 128 + 9 * 128 * 32
            channels += 32
        if block < 3:  # a transition halves the channels
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    assert channels == 1024
    assert count_parameters(DenseNet121()) == total + 2 * channels


@pytest.mark.parametrize("frames", [1, 2, 31, 32, 33, 97])
def test_maps_have_the_sizes_of_table_1(frames):
    network = DenseNet121().eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 1, 64, frames))
    want = {"conv1": (1, 64, 32, -(-frames // 2))}
    after_transition = {2: 128, 3: 256, 4: 512}
    for block, depth in enumerate(DEPTHS, start=1):
        size = (64 // 2 ** (block + 1), -(-frames // 2 ** (block + 1)))
        if block > 1:
            want[f"transition{block - 1}"] = (1, after_transition[block], *size)
        for number in range(1, depth + 1):
            want[f"dense{block}_{number}"] = (1, GROWTH, *size)
    want["final"] = (1, 1024, *size)
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == want
    assert list(maps) == list(want)
    assert len([name for name in maps if name.startswith("dense")]) == 58
    for info in network.feature_info:
        assert (1, info.channels, info.bands, -(-frames // info.stride)) == want[info.name]


def test_every_dense_layer_reads_all_before_it():
    """Shapes of the weights: layer l of a block reads k0 + 32 (l - 1) channels (section 3)."""
    network = DenseNet121()
    for block, (depth, first) in enumerate(zip(DEPTHS, (64, 128, 256, 512), strict=True), 1):
        for number in range(1, depth + 1):
            layer = network.blocks[f"dense{block}_{number}"]
            shapes = [tuple(m.weight.shape) for m in layer if isinstance(m, torch.nn.Conv2d)]
            assert shapes == [(128, first + 32 * (number - 1), 1, 1), (32, 128, 3, 3)]


def slow_maps(network: DenseNet121, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """x_l = H_l([x_0, ..., x_(l-1)]), eq. 2, from the weights alone, in float64."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}

    def norm_relu(x, name):
        mean, var, gain, shift = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (gain * (x - mean) / (var + 1e-5).sqrt() + shift).clamp(min=0)

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def halved(x):
        """Means of two by two; of what is there at an odd end."""
        frames = -(-x.shape[3] // 2)
        columns = [x[..., 2 * t : 2 * t + 2].mean(-1) for t in range(frames)]
        wide = torch.stack(columns, -1)
        return (wide[:, :, ::2] + wide[:, :, 1::2]) / 2

    maps = {"conv1": norm_relu(conv(x.double(), "blocks.conv1.0", 2), "blocks.conv1.1")}
    x = F.max_pool2d(F.pad(maps["conv1"], (1, 1, 1, 1)), 3, 2)  # all are at least 0, as the pad is
    for block, depth in enumerate(DEPTHS, start=1):
        if block > 1:
            name = f"transition{block - 1}"
            x = norm_relu(x, f"blocks.{name}.0")
            maps[name] = x = halved(conv(x, f"blocks.{name}.2"))
        before = [x]
        for number in range(1, depth + 1):
            name = f"dense{block}_{number}"
            y = conv(norm_relu(torch.cat(before, 1), f"blocks.{name}.0"), f"blocks.{name}.2")
            maps[name] = conv(norm_relu(y, f"blocks.{name}.3"), f"blocks.{name}.5")
            before.append(maps[name])
        x = torch.cat(before, 1)
    maps["final"] = norm_relu(x, "blocks.final.0")
    return maps


@pytest.mark.parametrize("frames", [64, 45])
def test_every_map_is_the_papers_equation(frames):
    network = lively()
    x = torch.randn(1, 1, 64, frames, generator=torch.Generator().manual_seed(1))
    want = slow_maps(network, x)
    with torch.inference_mode():
        ours = network(x)
    assert list(ours) == list(want)
    for name, map_ in ours.items():
        assert (map_ - want[name]).abs().max() <= 1e-4 * want[name].abs().max(), name


def test_the_inference_copy_has_the_same_maps():
    network = lively(multiscale=True)
    copy = folded(network, None).network
    # Those behind a convolution are folded: the first one, and the second of each dense layer.
    left = [m for m in copy.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(left) == 58 + 3 + 1
    x = torch.randn(1, 1, 64, 45, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        want = network(x)
        got = copy(x.contiguous(memory_format=torch.channels_last))
    for name, map_ in want.items():
        assert (got[name] - map_).abs().max() <= 1e-4 * map_.abs().max(), name


def test_gradients_reach_every_parameter():
    network = DenseNet121(multiscale=True).train()
    last = list(network(torch.randn(2, 1, 64, 64)).values())[-1]
    last.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_last_layer_is_the_usual_embedding():
    model = create_model("densenet121")
    assert model.backbone.num_features == 1024
    assert model.select_layers("last") == ("final",)
