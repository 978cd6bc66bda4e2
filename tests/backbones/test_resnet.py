"""ResNet-18 and -50: the published sizes, and the paper's equations written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ossicle import bundle
from ossicle.backbones.folding import folded
from ossicle.backbones.layers import he_normal_
from ossicle.backbones.resnet import ResNet, ResNet18, ResNet50
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters
from ossicle.keywords import parse_keywords
from ossicle.model import create_model

# He et al. 2016, table 1: blocks in each stage, and channels after it.
TABLE = {
    ResNet18: ((2, 2, 2, 2), (64, 128, 256, 512)),
    ResNet50: ((3, 4, 6, 3), (256, 512, 1024, 2048)),
}
# Of the network for pictures: three colours, and a classifier of 1,000 classes behind it.
PUBLISHED = {ResNet18: 11_689_512, ResNet50: 25_557_032}
KINDS = sorted(TABLE, key=lambda kind: kind.__name__)


def lively(kind: type[ResNet], multiscale: bool = False, width: float = 1.0) -> ResNet:
    """Random weights, and batch norms that do something."""
    network = kind(multiscale=multiscale, width=width).eval()
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


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_published_ones(kind):
    classifier = TABLE[kind][1][-1] * 1000 + 1000
    without = PUBLISHED[kind] - classifier
    # One picture instead of three colours: two channels fewer for 64 kernels of 7 by 7.
    one_channel = without - 2 * 64 * 7 * 7
    # Four scales instead of three colours, and the four kernels of 9 weights and a bias.
    four_channels = without + 64 * 7 * 7 + 4 * 10
    assert count_parameters(kind()) == one_channel
    assert count_parameters(kind(multiscale=True)) == four_channels


@pytest.mark.parametrize("narrow", [1, 2, 4, 8, 16])
def test_parameters_by_hand(narrow):
    """Counted from table 1, so that the published totals themselves are checked."""
    for kind, (depths, outs) in TABLE.items():
        stem = 64 // narrow
        total, channels = stem * 49 + 2 * stem, stem
        for stage, (depth, out) in enumerate(zip(depths, outs, strict=True)):
            width, out = stem * 2**stage, out // narrow
            for block in range(depth):
                if kind is ResNet50:
                    weights = [channels * width, 9 * width * width, width * out]
                    norms = 2 * (width + width + out)
                else:
                    weights, norms = [9 * channels * out, 9 * out * out], 2 * (out + out)
                if block == 0 and channels != out:  # the shortcut's projection, eq. 2
                    weights, norms = [*weights, channels * out], norms + 2 * out
                total, channels = total + sum(weights) + norms, out
        assert count_parameters(kind(width=1 / narrow)) == total


@pytest.mark.parametrize("width", [0.3, 0, -1, 2, 1 / 32])
def test_other_widths_are_refused(width):
    with pytest.raises(OssicleError, match="width is"):
        ResNet18(width=width)


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_network_survives_a_bundle(kind, tmp_path):
    name = {ResNet18: "resnet18", ResNet50: "resnet50"}[kind]
    config = parse_keywords(["width=1/16", "multiscale=true"], kind, name)
    assert config == {"width": 0.0625, "multiscale": True}
    model = create_model(name, seed=3, **config)
    loaded = bundle.load(bundle.save(model, tmp_path / "narrow"))
    assert loaded.backbone.config() == model.backbone.config() == config
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, 8000).astype(np.float32)
    ours, theirs = model.clip_features(samples), loaded.clip_features(samples)
    assert len(ours[f"{model.layers[-1]}/mean"]) == TABLE[kind][1][-1] // 16
    assert all((ours[block] == theirs[block]).all() for block in ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 2, 31, 32, 33, 97])
def test_maps_have_the_sizes_of_table_1(kind, frames):
    network = kind().eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 1, 64, frames))
    want = {"conv1": (1, 64, 32, -(-frames // 2))}
    for stage, (depth, out) in enumerate(zip(*TABLE[kind], strict=True), start=2):
        for number in range(1, depth + 1):
            size = (64 // 2**stage, -(-frames // 2**stage))
            want[f"conv{stage}_{number}"] = (1, out, *size)
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == want
    assert list(maps) == list(want)
    for info in network.feature_info:
        assert (1, info.channels, info.bands, -(-frames // info.stride)) == want[info.name]


def slow_maps(network: ResNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The paper's network from its weights alone, in float64, step by step."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    bottleneck = type(network) is ResNet50

    def conv_norm(x, name, stride=1):
        """The convolution of that name, and the norm that follows it, by their definitions."""
        parent, _, position = name.rpartition(".")
        norm = f"{parent}.{int(position) + 1}"
        weight = state[f"{name}.weight"]
        y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, gain, shift = (
            state[f"{norm}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return gain * (y - mean) / (var + 1e-5).sqrt() + shift

    maps = {"conv1": conv_norm(x.double(), "blocks.conv1.0", 2).clamp(min=0)}
    x = F.max_pool2d(F.pad(maps["conv1"], (1, 1, 1, 1)), 3, 2)  # all are at least 0, as the pad is
    for stage, depth in enumerate(TABLE[type(network)][0], start=2):
        for number in range(1, depth + 1):
            name = f"blocks.conv{stage}_{number}"
            name += ".1" if (stage, number) == (2, 1) else ""
            stride = 2 if stage > 2 and number == 1 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for i, step in enumerate(strides):
                y = conv_norm(y.clamp(min=0) if i else y, f"{name}.residual.{3 * i}", step)
            if f"{name}.shortcut.0.weight" in state:
                x = conv_norm(x, f"{name}.shortcut.0", stride)
            x = (x + y).clamp(min=0)
            maps[f"conv{stage}_{number}"] = x
    return maps


@pytest.mark.parametrize("width", [1.0, 0.125])
@pytest.mark.parametrize("kind", KINDS)
def test_every_map_is_the_papers_equation(kind, width):
    network = lively(kind, width=width)
    x = torch.randn(1, 1, 64, 45, generator=torch.Generator().manual_seed(1))
    want = slow_maps(network, x)
    with torch.inference_mode():
        ours = network(x)
    assert list(ours) == list(want)
    for name, map_ in ours.items():
        assert (map_ - want[name]).abs().max() <= 1e-4 * want[name].abs().max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_inference_copy_has_no_batch_norm_and_the_same_maps(kind):
    network = lively(kind, multiscale=True)
    copy = folded(network, None).network
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copy.modules())
    x = torch.randn(1, 1, 64, 45, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        want = network(x)
        got = copy(x.contiguous(memory_format=torch.channels_last))
    for name, map_ in want.items():
        assert (got[name] - map_).abs().max() <= 1e-4 * map_.abs().max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    network = kind(multiscale=True).train()
    last = list(network(torch.randn(2, 1, 64, 64)).values())[-1]
    last.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
