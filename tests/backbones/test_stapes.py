"""Stapes: every map against its definition in float64, shapes, and what it reaches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones.stapes import Stapes
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters
from ossicle.model import create_model

# (name, channels in, channels, stride over bands and time), as the docstring draws it.
CONVOLUTIONS = (
    ("stage1_1", 16, 40, 2),
    ("stage2_1", 40, 80, 2),
    ("stage2_2", 80, 80, 1),
    ("stage2_3", 80, 80, 1),
    ("stage3_1", 80, 160, 2),
    ("stage3_2", 160, 160, 1),
    ("stage3_3", 160, 160, 1),
    ("stage4_1", 160, 192, 2),
    ("stage4_2", 192, 192, 1),
)
BANDS = {"stem": 32, "stage1": 16, "stage2": 8, "stage3": 4, "stage4": 2}
STRIDES = {"bands": 1, "stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32, "words": 8}
LAYERS = ("bands", "stem", *(row[0] for row in CONVOLUTIONS), "words")


def picture(frames: int, items: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(items, 1, 96, frames, generator=torch.Generator().manual_seed(seed))


def lively(width: float = 1 / 8, seed: int = 0) -> Stapes:
    """Random weights everywhere: in the norms and their statistics too."""
    network = Stapes(width).eval()
    generator = torch.Generator().manual_seed(seed)
    network.draw_weights(generator)
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:  # of norms
            about = 1.0 if name.endswith(("weight", "var")) else 0.0
            tensor.uniform_(about - 0.5, about + 0.5, generator=generator)
    return network


# --- the definition --------------------------------------------------------------------------


def slow(state: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The network again, in float64, from the names and shapes of its tensors alone."""
    weights = {name: tensor.double() for name, tensor in state.items()}

    def norm(y: Tensor, name: str) -> Tensor:
        one = [1, -1] + [1] * (y.dim() - 2)
        mean, var, scale, shift = (
            weights[f"{name}.{part}"].view(one)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-5).sqrt() * scale + shift

    maps = {"bands": x.double()[:, 0]}
    y = norm(x.double(), "level")
    y = norm(F.conv2d(y, weights["stem.0.weight"], stride=(3, 2), padding=(3, 1)), "stem.1")
    y = maps["stem"] = y.clamp(min=0)
    for name, _, _, stride in CONVOLUTIONS:
        kernel = weights[f"blocks.{name}.conv.weight"]
        z = norm(F.conv2d(y, kernel, stride=stride, padding=1), f"blocks.{name}.norm")
        if stride == 1:  # here alone nothing changes its shape
            z = z + y
        y = maps[name] = z.clamp(min=0)
    heard = maps["stage2_3"]
    n, channels, bands, frames = heard.shape
    flat = heard.reshape(n, channels * bands, frames)
    z = torch.einsum("oi,nit->not", weights["words.0.weight"][:, :, 0], flat)
    maps["words"] = norm(z, "words.1").clamp(min=0)
    return maps


@pytest.mark.parametrize("frames", [64, 98, 131])
def test_every_map_is_as_defined(frames):
    network = lively().double()
    x = picture(frames).double()
    with torch.inference_mode():
        got = network(x)
        want = slow(network.state_dict(), x)
    assert tuple(got) == LAYERS == network.layers
    for name, y in want.items():
        assert y.abs().max() > 0.1, name
        assert torch.allclose(got[name], y, rtol=1e-9, atol=1e-9), name


def test_at_full_width_too():
    network = lively(1.0)
    x = picture(32, 1)
    with torch.inference_mode():
        got, want = network(x), slow(network.state_dict(), x)
    for name, y in want.items():
        assert (got[name] - y).abs().max() < 1e-4 * y.abs().max(), name


# --- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 98, 199])
def test_shapes_are_those_told(frames):
    network = lively()
    with torch.inference_mode():
        maps = network(picture(frames, 3))
    for info in network.feature_info:
        y = maps[info.name]
        stage = info.name.partition("_")[0]
        assert info.stride == STRIDES[stage]
        assert y.shape[-1] == math.ceil(frames / info.stride)
        assert info.bands == BANDS.get(stage, 0)
        assert y.shape[:-1] == (3, info.channels, *([info.bands] if info.bands else []))
        assert y.isfinite().all()


def test_size_at_width_1():
    """Counted by hand, and few enough for a file of 3 MB in 16 bits."""
    want = 2 + 16 * 7 * 3 + 2 * 16  # level, stem
    want += sum(9 * a * b + 2 * b for _, a, b, _ in CONVOLUTIONS)
    want += 80 * 8 * 160 + 2 * 160  # words
    network = Stapes()
    assert count_parameters(network) == want <= 1_500_000
    values = sum(tensor.numel() for tensor in network.state_dict().values())
    assert 2 * values < 3_000_000
    assert [info.channels for info in network.feature_info] == [
        *(96, 16, 40, 80, 80, 80, 160, 160, 160, 192, 192, 160)
    ]


@pytest.mark.parametrize("width", [1e-3, 1 / 8, 0.5, 0.7, 2.0])
def test_width_multiplies_channels(width):
    """To the nearest multiple of eight, which vector instructions like, but none below eight."""
    network = Stapes(width)
    for info, full in zip(network.feature_info, Stapes().feature_info, strict=True):
        if info.name == "bands":
            assert info.channels == 96
            continue
        assert info.channels % 8 == 0
        assert info.channels == 8 or abs(info.channels - width * full.channels) <= 4
        assert info[2:] == full[2:]
    again = Stapes(**network.config())
    shapes = [{n: t.shape for n, t in net.state_dict().items()} for net in (network, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(OssicleError, match="width .*: choose it above 0"):
        Stapes(width)


def test_all_weights_learn():
    network = lively().train().requires_grad_(True)
    maps = network(picture(40))
    sum(y.square().mean() for y in maps.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


# --- what it hears ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "reach"),
    [("stem", 1), ("stage1_1", 3), ("words", 23), ("stage3_3", 63), ("stage4_2", Stapes.reach)],
)
def test_reach_in_frames(layer, reach):
    """1 of the stem, then of each convolution the frames between those that it finds, both ways."""
    network = Stapes(1 / 8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)  # so that no ReLU closes, and nothing cancels
    x = torch.ones(1, 1, 96, 320, requires_grad=True)
    y = network(x)[layer]
    middle = 160 // STRIDES[layer.partition("_")[0]]
    y[..., middle].sum().backward()
    heard = x.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert heard.tolist() == list(range(160 - reach, 160 + reach + 1))
    assert (x.grad[0, 0].abs().sum(1) > 0).all()  # of all bands


def test_the_first_layer_is_the_front_end():
    """So it is the same for all random weights; of the others none is."""
    sound = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    models = [create_model("stapes", seed=seed, width=1 / 8) for seed in (0, 1)]
    first, second = (model.forward_layers(sound) for model in models)
    assert torch.equal(first["bands"], models[0].frontend(sound)[:, 0])
    same = tuple(name for name in first if torch.equal(first[name], second[name]))
    assert same == ("bands",) == Stapes.seedless_layers
