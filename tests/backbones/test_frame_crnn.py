"""The frame CRNN: its equations in NumPy, where in time its frames lie, and what stays frozen."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.backbones.folding import folded
from ossicle.backbones.frame_crnn import BASES, FrameCRNN, on_frames
from ossicle.backbones.yamnet import YAMNet
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters

SMALL = {"channels": 6, "hidden": 3, "width": 5}


def lively(seed: int = 0, **config) -> FrameCRNN:
    """Random weights, and batch norms, biases and statistics that do something."""
    network = FrameCRNN(**{**SMALL, **config}).eval()
    generator = torch.Generator().manual_seed(seed)
    network.draw_weights(generator)
    for name, tensor in network.state_dict().items():
        if name.startswith("base."):
            continue
        if name.endswith(("running_var", "_std")) or (tensor.dim() == 1 and "weight" in name):
            torch.nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, -0.3, 0.3, generator=generator)
    return network


def picture(frames: int, seed: int = 1, items: int = 1) -> torch.Tensor:
    return torch.randn(items, 1, 64, frames, generator=torch.Generator().manual_seed(seed))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_gru(x: np.ndarray, state: dict[str, np.ndarray], layer: str, back: str) -> np.ndarray:
    """(T, C) -> (T, H), Cho et al. 2014 with the reset gate on the product."""
    w_in, w_state, b_in, b_state = (
        state[f"recurrent.{layer}.{part}_l0{back}"]
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    memory, outputs = np.zeros(w_state.shape[1]), []
    for frame in x[::-1] if back else x:
        r_in, z_in, n_in = np.split(w_in @ frame + b_in, 3)
        r_state, z_state, n_state = np.split(w_state @ memory + b_state, 3)
        reset, update = sigmoid(r_in + r_state), sigmoid(z_in + z_state)
        memory = (1 - update) * np.tanh(n_in + reset * n_state) + update * memory
        outputs.append(memory)
    return np.array(outputs[::-1] if back else outputs)


def slow_convolutions(x: np.ndarray, state: dict[str, np.ndarray], hop: int) -> list[np.ndarray]:
    """(F, T) -> the maps (C, F', T')."""
    y = ((x - state["mel_mean"][:, None]) / state["mel_std"][:, None])[None]
    maps, stride, number = [], 1, 1
    while f"convolutions.conv{number}.0.weight" in state:
        at = f"convolutions.conv{number}."
        weight = state[at + "0.weight"]
        padded = np.pad(y, ((0, 0), (1, 1), (1, 1)))
        _, bands, frames = y.shape
        y = np.zeros((len(weight), bands, frames))
        for i in range(3):
            for j in range(3):
                part = padded[:, i : i + bands, j : j + frames]
                y += np.einsum("oc,cft->oft", weight[:, :, i, j], part)
        mean, var = state[at + "1.running_mean"], state[at + "1.running_var"]
        y = (y - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
        gain, shift = state[at + "1.weight"], state[at + "1.bias"]
        y = np.maximum(y * gain[:, None, None] + shift[:, None, None], 0)
        step = 2 if stride < hop else 1
        high = 2 if bands > 1 else 1
        y = np.stack([y[:, f : f + high].mean(1) for f in range(0, bands, high)], 1)
        y = np.stack([y[..., t : t + step].mean(-1) for t in range(0, frames, step)], -1)
        maps.append(y)
        stride, number = stride * step, number + 1
    return maps


def slow_base(network: FrameCRNN, x: torch.Tensor, hop: int, bands: int) -> np.ndarray:
    """(1, 1, F, T) -> (width, T'): every layer on the frames, side by side, then one linear map."""
    step = max(part.stride for part in network.base_parts)
    frames = x.shape[-1]
    x = torch.cat([x, *[x[..., -1:]] * (-(frames - 1) % step)], -1)
    maps = network.base(x)
    columns = []
    for part in network.base_parts:
        # Up to the first that is centred on the last frame or after it.
        map_ = maps[part.name][0].double().numpy()[..., : 1 + -(-(frames - 1) // part.stride)]
        split = np.array_split(map_, min(bands, map_.shape[1]), 1)
        rows = np.stack([piece.mean(1) for piece in split], 1).reshape(-1, map_.shape[-1])
        centres = np.arange(map_.shape[-1]) * part.stride
        for row in rows:
            values = []
            for j in range(-(-frames // hop)):
                own = row[(centres >= j * hop) & (centres < (j + 1) * hop)]
                middle = j * hop + (hop - 1) / 2
                inside = part.stride <= hop and len(own)
                values.append(own.mean() if inside else np.interp(middle, centres, row))
            columns.append(values)
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    scaled = (np.array(columns) - state["base_mean"][:, None]) / state["base_std"][:, None]
    return state["projection.weight"] @ scaled + state["projection.bias"][:, None]


@pytest.mark.parametrize("frames", [1, 2, 7, 33, 50])
@pytest.mark.parametrize(
    "config",
    [
        {"hop_frames": 1},
        {"hop_frames": 4, "recurrent_layers": 1},
        {"hop_frames": 2, "base": "yamnet", "base_bands": 2},
        {"hop_frames": 8, "base": "yamnet", "base_layers": "conv1,depthwise7,pointwise14"},
        {"hop_frames": 4, "base": "yamnet", "mel": False},
    ],
    ids=["h1", "h4 one GRU", "h2 yamnet", "h8 three layers", "base alone"],
)
def test_maps_are_the_equations(config, frames):
    network = lively(**config)
    x, hop = picture(frames), config["hop_frames"]
    with torch.no_grad():
        maps = network(x)
        state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
        expected: dict[str, np.ndarray] = {}
        joined = []
        if config.get("mel", True):
            convolved = slow_convolutions(x[0, 0].double().numpy(), state, hop)
            expected |= {f"conv{i}": y for i, y in enumerate(convolved, start=1)}
            joined.append(convolved[-1].reshape(-1, convolved[-1].shape[-1]))
        if "base" in config:
            expected["base"] = slow_base(network, x, hop, config.get("base_bands", 1))
            joined.append(expected["base"])
    y = np.concatenate(joined).T
    for number in range(1, config.get("recurrent_layers", 2) + 1):
        layer = f"gru{number}"
        y = np.concatenate([slow_gru(y, state, layer, back) for back in ("", "_reverse")], 1)
        expected[layer] = y.T
    assert list(maps) == list(expected) == [info.name for info in network.feature_info]
    for name, want in expected.items():
        assert maps[name][0].shape == want.shape, name
        assert np.abs(maps[name][0].numpy() - want).max() < 1e-4 * max(1, np.abs(want).max()), name


def test_its_size_is_that_counted_by_hand():
    """3 x 3 convolutions without bias, two values a batch norm; GRUs 3 (C H + H H + 2 H) a way."""
    widths = [1, 16, 32, 64, 128, 128, 128]
    convolutions = sum(9 * a * b + 2 * b for a, b in zip(widths[:-1], widths[1:], strict=True))
    grus = sum(2 * 3 * (c * 128 + 128 * 128 + 2 * 128) for c in (128, 256))
    assert count_parameters(FrameCRNN()) == convolutions + grus
    dims = 64 + 2 * 128 + 2 * 256 + 6 * 512 + 2 * 1024
    more = 2 * 3 * 128 * 128 + (dims + 1) * 128 + count_parameters(YAMNet())
    assert count_parameters(FrameCRNN(base="yamnet")) == convolutions + grus + more
    assert len(FrameCRNN(base="yamnet").base_mean) == dims


# --- where in time ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("frames", [1025, 1009, 998])
def test_frames_of_a_base_are_centred_where_they_are_said_to_be(base, frames):
    """What frame i of a layer depends on lies evenly around frame i s of the picture."""
    network = FrameCRNN(base=base, base_layers="all")
    network.draw_weights(torch.Generator().manual_seed(0))
    bands = network.frontend["n_mels"]
    x = torch.randn(1, 1, bands, frames, generator=torch.Generator().manual_seed(0)).double()
    x.requires_grad_(True)
    step = max(part.stride for part in network.base_parts)
    padded = torch.cat([x, x[..., -1:].expand(-1, -1, -1, -(frames - 1) % step)], -1)
    maps = network.base.double()(padded)
    for part in (network.base_parts[0], network.base_parts[-1]):
        middle = 512 // part.stride
        map_ = maps[part.name]
        (gradient,) = torch.autograd.grad(map_[..., middle].sum(), x, retain_graph=True)
        heard = torch.nonzero(gradient.abs().sum((0, 1, 2)))[:, 0]
        assert heard.min() > 0
        assert heard.max() < frames - 2
        assert (heard.min() + heard.max()) / 2 == middle * part.stride


def test_a_frame_is_the_same_however_long_the_rest_is():
    """Networks whose padding follows the length would be moved by up to half a deep frame."""
    network = lively(base="yamnet", hop_frames=4)
    x = picture(800)
    with torch.no_grad():
        whole = network(x)["base"]
        for frames in range(737, 770):
            part = network(x[..., :frames])["base"]
            known = (frames - 320) // 4  # YAMNet's frames hear 314 to either side
            assert torch.allclose(part[..., :known], whole[..., :known], atol=1e-4)
            assert not torch.allclose(part[..., -1], whole[..., part.shape[-1] - 1], atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("hop", [1, 2, 4, 8])
def test_a_line_in_time_stays_a_line(stride, hop):
    """x(t) = t, taken at the map's centres, comes out as the frames' centres, inside the map."""
    maps = (stride * torch.arange(40.0))[None, None]
    frames = 39 * stride // hop
    got = on_frames(maps, stride, hop, frames)[0, 0].numpy()
    middle = np.arange(frames) * hop + (hop - 1) / 2
    # A mean of frames that begin with their cell is early by what their own half is.
    early = (stride - 1) / 2 if stride <= hop else 0
    assert np.allclose(got, np.minimum(middle - early, 39 * stride), atol=1e-4)


# --- what is frozen --------------------------------------------------------------------------


def test_the_base_is_neither_trained_nor_moved():
    network = lively(base="yamnet")
    network.train().requires_grad_(True)
    assert network.training
    assert not any(module.training for module in network.base.modules())
    assert not any(p.requires_grad for p in network.base.parameters())
    # Nor where somebody asks for all gradients, and for weights that decay.
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    maps = network(picture(70, items=2))
    maps["gru2"].square().mean().backward()
    optimiser.step()
    moved = {n for n, tensor in network.state_dict().items() if not torch.equal(tensor, before[n])}
    frozen = {
        name for name in before if name.startswith("base") or name.endswith(("_mean", "_std"))
    }
    frozen -= {name for name in before if "running" in name and not name.startswith("base.")}
    assert {name for name in before if name not in frozen} == moved
    assert any(name.startswith("base.blocks") for name in before)


def test_dropout_is_in_training_alone():
    torch.manual_seed(0)
    network = lively(base="yamnet", base_layers="conv1", hidden=30, dropout=0.5)
    x = picture(200)
    with torch.no_grad():
        assert torch.equal(network(x)["gru2"], network(x)["gru2"])
        network.train()
        first, second = network(x)["gru2"], network(x)["gru2"]
        assert not torch.equal(first, second)
        assert (first == 0).float().mean() == pytest.approx(0.5, abs=0.05)
        assert torch.equal(network(x)["base"], network(x)["base"])


def test_in_two_steps_as_in_one():
    network = lively(base="yamnet", base_bands=2)
    x = picture(90, items=2)
    with torch.no_grad():
        parts = network.frozen(x)
        assert {name: tuple(part.shape[1:]) for name, part in parts.items()} == {
            "mel": (1, 64, 90),
            **{
                part.name: (part.channels, 1 + -(-89 // part.stride)) for part in network.base_parts
            },
        }
        again = network.learned(parts)
        for name, map_ in network(x).items():
            assert torch.equal(map_, again[name]), name


def test_the_folded_copy_is_the_same_network():
    network = lively(base="yamnet").requires_grad_(False)
    x = picture(100)
    fast = folded(network, None).network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    with torch.inference_mode():
        for name, map_ in network(x).items():
            assert torch.allclose(fast(x)[name], map_, atol=1e-4), name
    again = copy.deepcopy(network)
    with torch.inference_mode():
        assert torch.equal(again(x)["gru2"], network(x)["gru2"])


# --- statistics ------------------------------------------------------------------------------


def test_statistics_are_those_of_all_frames():
    network = lively(base="yamnet", base_layers="conv1,pointwise14")
    clips = [
        3 * picture(frames, seed, items) - 2 for frames, seed, items in ((40, 1, 2), (9, 2, 1))
    ]
    for clip in clips:
        clip[:, :, 5] = -6.9  # a band in which nothing ever is
    parts = [network.frozen(clip) for clip in clips]
    network.fit_statistics(iter(parts))
    mel = np.concatenate(
        [p["mel"].numpy()[:, 0].transpose(1, 0, 2).reshape(64, -1) for p in parts], 1
    )
    assert np.allclose(network.mel_mean, mel.mean(1), atol=1e-5)
    assert np.allclose(np.delete(network.mel_std.numpy(), 5), np.delete(mel.std(1), 5), rtol=1e-5)
    assert network.mel_std[5] == 1
    frames = [
        np.concatenate(
            [np.moveaxis(p[n].numpy(), 1, 0).reshape(p[n].shape[1], -1) for p in parts], 1
        )
        for n in ("conv1", "pointwise14")
    ]
    mean = np.concatenate([values.mean(1) for values in frames])
    deviation = np.concatenate([values.std(1) for values in frames])
    assert np.allclose(network.base_mean, mean, atol=1e-5)
    alive = deviation > 1e-3
    assert alive.mean() > 0.3
    assert np.allclose(network.base_std[alive], deviation[alive], rtol=1e-4)
    with pytest.raises(OssicleError, match="no recordings"):
        network.fit_statistics([])


def test_a_picture_with_other_levels_is_the_same_after_its_own_statistics():
    network, other = lively(), lively()
    x = picture(60)
    network.fit_statistics([network.frozen(x)])
    other.fit_statistics([other.frozen(5 * x - 40)])
    with torch.no_grad():
        assert torch.allclose(network(x)["gru2"], other(5 * x - 40)["gru2"], atol=1e-4)


# --- what can be asked for -------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"base": "yamnet"},
        {"base": "yamnet", "base_layers": "pointwise9,conv1", "base_bands": 4, "mel": False},
        {"base": "resnet18", "recurrent_layers": 1, "hop_frames": 1},
    ],
)
def test_a_config_makes_the_same_network(config):
    network = FrameCRNN(**{**SMALL, **config})
    again = FrameCRNN(**json.loads(json.dumps(network.config())))
    assert again.config() == network.config()
    assert again.feature_info == network.feature_info
    assert again.frontend == network.frontend
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes


def test_it_hears_what_its_base_hears():
    assert FrameCRNN(base="resnet18").frontend == BASES["resnet18"].network.frontend
    assert FrameCRNN(base="yamnet").clip == YAMNet.clip
    assert FrameCRNN().frontend == YAMNet.frontend
    # The class itself stays as it was.
    assert FrameCRNN.frontend == YAMNet.frontend
    assert FrameCRNN.clip["min_s"] == 0.1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"base": "yamnet2"}, "unknown base 'yamnet2'.*yamnet"),
        ({"base": "crnn"}, "unknown base"),
        ({"mel": False}, "without a base"),
        ({"base_layers": "conv1"}, "without a base"),
        ({"base": "yamnet", "base_layers": "conv1,nowhere"}, "base_layers.*conv1"),
        ({"base": "yamnet", "base_layers": "conv1,conv1"}, "each once"),
        ({"base": "yamnet", "base_layers": ""}, "base_layers"),
        ({"hop_frames": 3}, "hop_frames"),
        ({"hidden": 0}, "hidden"),
        ({"channels": 1_000_000}, "channels"),
        ({"width": -1}, "width"),
        ({"base_bands": 0}, "base_bands"),
        ({"recurrent_layers": 0}, "recurrent_layers"),
        ({"recurrent_layers": 1_000_000}, "recurrent_layers"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused(config, says):
    with pytest.raises(OssicleError, match=says) as caught:
        FrameCRNN(**config)
    assert "\n" not in str(caught.value)
