"""Stapes: every map against its definition in float64, what it reaches, and what "order" tells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones.stapes import Stapes, spans
from ossicle.errors import OssicleError
from ossicle.heads import POOLINGS, count_parameters, pool
from ossicle.model import create_model

# (name, channels in, channels, stride over bands and time), as the docstring draws it.
CONVOLUTIONS = (
    ("stage1_1", 24, 48, 2),
    ("stage1_2", 48, 48, 1),
    ("stage2_1", 48, 96, 2),
    ("stage2_2", 96, 96, 1),
    ("stage2_3", 96, 96, 1),
    ("stage3_1", 96, 224, 2),
    ("stage3_2", 224, 224, 1),
    ("stage3_3", 224, 224, 1),
    ("stage3_4", 224, 224, 1),
)
BANDS = {"stem": 32, "stage1": 16, "stage2": 8, "stage3": 4}
STRIDES = {"bands": 1, "stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "words": 8}
LAYERS = ("bands", "stem", *(row[0] for row in CONVOLUTIONS), "words", "order")


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
    maps["order"] = torch.from_numpy(slow_spans(maps["words"].numpy()))
    return maps


def slow_spans(x: np.ndarray) -> np.ndarray:
    """(B, C, T) -> (B, C, 8, 1): span i from frame i T / 8, rounded down, to (i + 1) T / 8, up."""
    frames = x.shape[-1]
    out = np.zeros((*x.shape[:2], 8, 1))
    for i in range(8):
        first, end = i * frames // 8, -(-(i + 1) * frames // 8)
        if frames < 8:  # no frame is shared: each is heard several times
            end = first + 1
        for b in range(x.shape[0]):
            for c in range(x.shape[1]):
                out[b, c, i, 0] = sum(x[b, c, t] for t in range(first, end)) / (end - first)
    return out


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


@pytest.mark.parametrize("frames", [1, 2, 5, 7, 8, 9, 15, 16, 23, 64, 125])
def test_spans_are_means_of_what_lies_in_them(frames):
    x = np.random.default_rng(frames).normal(size=(2, 3, frames))
    got = spans(torch.from_numpy(x)).numpy()
    assert got.shape == (2, 3, 8, 1)
    assert np.allclose(got, slow_spans(x), rtol=1e-6, atol=1e-6)
    if frames % 8 == 0:
        assert np.allclose(got[..., 0].mean(-1), x.mean(-1))


# --- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 98, 199])
def test_shapes_are_those_told(frames):
    network = lively()
    with torch.inference_mode():
        maps = network(picture(frames, 3))
    for info in network.feature_info:
        y = maps[info.name]
        if info.name == "order":
            assert y.shape == (3, info.channels, 8, 1)
            assert info.bands == 8
            continue
        stage = info.name.partition("_")[0]
        assert info.stride == STRIDES[stage]
        assert y.shape[-1] == math.ceil(frames / info.stride)
        assert info.bands == BANDS.get(stage, 0)
        assert y.shape[:-1] == (3, info.channels, *([info.bands] if info.bands else []))
        assert y.isfinite().all()
    # One frame for the longest clip that is heard at once: its maps are never cut.
    assert network.feature_info[-1].stride == Stapes.clip["window_s"] * 100


def test_size_at_width_1():
    """Counted by hand, and at most the 2 million that a bundle of 4 MB in 16 bits holds."""
    want = 2 + 24 * 7 * 3 + 2 * 24  # level, stem
    want += sum(9 * a * b + 2 * b for _, a, b, _ in CONVOLUTIONS)
    want += 96 * 8 * 192 + 2 * 192  # words
    network = Stapes()
    assert count_parameters(network) == want <= 2_000_000
    values = sum(tensor.numel() for tensor in network.state_dict().values())
    assert 2 * values < 4_000_000
    assert [info.channels for info in network.feature_info] == [
        *(96, 24, 48, 48, 96, 96, 96, 224, 224, 224, 224, 192, 192)
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


@pytest.mark.parametrize(("layer", "reach"), [("stem", 3), ("stage1_2", 15), ("words", 55)])
def test_reach_in_frames(layer, reach):
    """3 of the stem, then 2 (k - 1) times the stride that each convolution finds: .55 s."""
    network = Stapes(1 / 8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)  # so that no ReLU closes, and nothing cancels
    x = torch.ones(1, 1, 96, 160, requires_grad=True)
    y = network(x)[layer]
    stride = STRIDES[layer.partition("_")[0]]
    middle = 80 // stride
    y[..., middle].sum().backward()
    heard = x.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert heard.tolist() == list(range(80 - reach // 2, 80 + reach // 2 + 1))
    assert (x.grad[0, 0].abs().sum(1) > 0).all()  # of all bands


def test_only_order_tells_what_came_first():
    """Kernels alike in both directions: backwards, every other number read out is the same."""
    network = lively().double()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 4:
                tensor.copy_((tensor + tensor.flip(-1)) / 2)
    # 16 n + 1 frames: strides then meet the same ones from both ends. Louder and louder.
    x = picture(129).double() * torch.linspace(0.1, 5.0, 129, dtype=torch.float64)
    with torch.inference_mode():
        there, back = network(x), network(x.flip(-1))
    for name in network.layers:
        for pooling in ("mean", "max", "band", "std"):
            a, b = POOLINGS[pooling](there[name]), POOLINGS[pooling](back[name])
            if (name, pooling) == ("order", "band"):
                backwards = a.unflatten(1, (-1, 8)).flip(-1).flatten(1)
                assert torch.allclose(backwards, b, atol=1e-9)
                assert (a - b).abs().max() > 0.1 * a.abs().max()
            else:
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), (name, pooling)


def test_an_event_is_in_its_own_span():
    """A burst in the k-th eighth of a clip changes the k-th number of "order" the most."""
    network = lively()

    def order(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return pool(network(x)["order"], ["band"])["band"].view(-1, 8)

    quiet = torch.zeros(1, 1, 96, 640)
    for k in range(8):
        x = quiet.clone()
        x[..., 80 * k + 30 : 80 * k + 50] = 3.0
        change = (order(x) - order(quiet)).abs().sum(0)
        assert change.argmax() == k
        assert change[k] > 0.9 * change.sum()  # the reach is less than a span


def test_the_first_layer_is_the_front_end():
    """So it is the same for all random weights; of the others none is."""
    sound = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    models = [create_model("stapes", seed=seed, width=1 / 8) for seed in (0, 1)]
    first, second = (model.forward_layers(sound) for model in models)
    assert torch.equal(first["bands"], models[0].frontend(sound)[:, 0])
    same = tuple(name for name in first if torch.equal(first[name], second[name]))
    assert same == ("bands",) == Stapes.seedless_layers
