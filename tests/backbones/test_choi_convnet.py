"""Choi's convnet: the published sizes, and a slow definition of its arithmetic."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from ossicle import bundle
from ossicle.backbones.choi_convnet import POOLS, ChoiConvNet, time_pools
from ossicle.backbones.layers import he_normal_
from ossicle.errors import OssicleError
from ossicle.frontend import create_frontend
from ossicle.heads import Head, count_parameters
from ossicle.model import create_model

# Bands and frames after each block for 29 s at 12 kHz (Choi et al. 2017, figure 1).
PUBLISHED_MAPS = [(48, 340), (16, 85), (8, 17), (4, 4), (1, 1)]


def test_trainable_parameters_are_the_published_ones():
    network = ChoiConvNet()
    by_kind = {"conv": 0, "norm": 0}
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            by_kind["conv"] += sum(p.numel() for p in module.parameters())
        if isinstance(module, torch.nn.BatchNorm2d):
            by_kind["norm"] += sum(p.numel() for p in module.parameters())
    assert by_kind == {"conv": 320 + 4 * 9_248, "norm": 5 * 2 * 32}
    tagger = Head([32, 50])
    assert count_parameters(tagger) == 1_650
    assert count_parameters(network) + count_parameters(tagger) == 39_282


def test_maps_of_29_seconds_are_the_published_ones():
    frontend = create_frontend(**ChoiConvNet.frontend)
    with torch.inference_mode():
        picture = frontend(torch.zeros(1, 29 * 12_000))
        maps = ChoiConvNet().eval()(picture)
    assert picture.shape == (1, 1, 96, 1360)
    assert [tuple(m.shape[2:]) for m in maps.values()] == PUBLISHED_MAPS
    assert [m.shape[1] for m in maps.values()] == [32] * 5
    assert [(i.bands, 1360 // i.stride) for i in ChoiConvNet().feature_info] == PUBLISHED_MAPS


@pytest.mark.parametrize("frames", [1280, 1281, 1360, 2560, 4000])
def test_feature_info_is_what_comes_out(frames):
    network = ChoiConvNet().eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 1, 96, frames))
    for info, (name, map_) in zip(network.feature_info, maps.items(), strict=True):
        assert info.name == name
        assert map_.shape == (1, info.channels, info.bands, frames // info.stride)


def slow_blocks(network: ChoiConvNet, picture: np.ndarray) -> list[np.ndarray]:
    """(96, T) -> the five maps (32, F', T') by the definition of each step, in float64."""
    state = {k: v.double().numpy() for k, v in network.state_dict().items()}
    maps, x = [], picture[None]
    for number, (f, t) in enumerate(POOLS, start=1):
        get = {k.split(".", 2)[2]: v for k, v in state.items() if f"block{number}." in k}
        out = np.stack(
            [
                sum(correlate2d(x[c], kernel[c], mode="same") for c in range(len(x))) + bias
                for kernel, bias in zip(get["0.weight"], get["0.bias"], strict=True)
            ]
        )
        scale = get["1.weight"] / np.sqrt(get["1.running_var"] + 1e-3)  # Keras's epsilon
        out = (out - get["1.running_mean"][:, None, None]) * scale[:, None, None]
        out += get["1.bias"][:, None, None]
        out = np.where(out > 0, out, np.expm1(np.minimum(out, 0)))  # ELU
        bands, frames = out.shape[1] // f, out.shape[2] // t
        out = out[:, : bands * f, : frames * t].reshape(len(out), bands, f, frames, t)
        x = out.max((2, 4))
        maps.append(x)
    return maps


def test_forward_is_the_slow_definition():
    generator = torch.Generator().manual_seed(0)
    network = ChoiConvNet().eval()
    he_normal_(network, generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2.0, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-1.0, 1.0, generator=generator)
    picture = torch.randn(1, 1, 96, 1280, generator=generator)
    with torch.inference_mode():
        maps = network(picture)
    expected = slow_blocks(network, picture[0, 0].double().numpy())
    for (name, map_), want in zip(maps.items(), expected, strict=True):
        assert np.allclose(map_[0].numpy(), want, rtol=1e-4, atol=1e-4), name


def test_random_weights_are_he_normal():
    network = create_model("choi_convnet", seed=3).backbone
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 5
    for conv in convolutions[1:]:
        # N(0, 2 / fan_in), fan_in = 32 x 9; 9,216 draws: the deviation is good to .8 %.
        values = conv.weight.flatten()
        assert abs(values.std().item() / (2 / 288) ** 0.5 - 1) < 0.04
        assert abs(values.mean().item()) < 4 * (2 / 288) ** 0.5 / 9216**0.5
        # A normal law: 4.6 % beyond two deviations (a uniform one has none there).
        beyond = (values.abs() > 2 * (2 / 288) ** 0.5).float().mean().item()
        assert 0.035 < beyond < 0.057
        assert not conv.bias.any()
    assert abs(convolutions[0].weight.std().item() / (2 / 9) ** 0.5 - 1) < 0.2


def test_decibel_reference_is_the_clips_own():
    frontend = create_frontend(**ChoiConvNet.frontend)
    noise = torch.randn(1, 12_000, generator=torch.Generator().manual_seed(1))
    quiet, loud = 0.01 * noise, 0.5 * noise.flip(-1)
    together = frontend(torch.cat([quiet, loud]))
    assert torch.equal(together[:1], frontend(quiet))
    # The maximum of each is 0 dB: loudness is not in the picture.
    assert torch.allclose(together.amax((-2, -1)), torch.zeros(2, 1))
    assert torch.allclose(frontend(quiet), frontend(50 * quiet), atol=2e-3)


# --- Excerpts shorter than the paper's, which are this project's own ---------------------------


def fits(pools: tuple[int, ...], frames: int) -> bool:
    """Whether a map of that many frames has one left after the pools, taken one by one."""
    for pool in pools:
        frames //= pool
    return frames >= 1


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 12, 47, 95, 235, 300, 1279])
def test_short_excerpts_are_pooled_as_far_as_they_can_be(frames):
    published = [t for _, t in POOLS]
    pools = time_pools(frames)
    assert all(1 <= pool <= most for pool, most in zip(pools, published, strict=True))
    assert fits(pools, frames)
    # No other choice within the published pools pools more and leaves a frame.
    every = list(itertools.product(*(range(1, most + 1) for most in published)))
    assert np.prod(pools) == max(np.prod(other) for other in every if fits(other, frames))


def test_published_excerpt_has_the_published_pools():
    assert time_pools(1360) == time_pools(1280) == time_pools(10**6) == (4, 4, 5, 4, 4)
    default, asked = ChoiConvNet(), ChoiConvNet(excerpt_s=29)
    assert default.feature_info == asked.feature_info
    assert default.clip == asked.clip == ChoiConvNet.clip
    assert default.clip == {"window_s": 29.0, "min_s": 29.0, "fill": "repeat"}


@pytest.mark.parametrize("excerpt_s", [0.1, 0.5, 1, 2.56, 5.0, 10.0])
def test_an_excerpt_ends_in_one_frame_and_has_the_same_weights(excerpt_s):
    torch.manual_seed(0)
    network = ChoiConvNet(excerpt_s=excerpt_s).eval()
    assert network.clip == {"window_s": excerpt_s, "min_s": excerpt_s, "fill": "repeat"}
    assert ChoiConvNet.clip["window_s"] == 29.0
    assert count_parameters(network) == count_parameters(ChoiConvNet())
    picture = create_frontend(**network.frontend)(torch.randn(1, round(12_000 * excerpt_s)))
    with torch.inference_mode():
        maps = network(picture)
    for info, (name, map_) in zip(network.feature_info, maps.items(), strict=True):
        frames = picture.shape[-1] // info.stride
        assert (name, map_.shape) == (info.name, (1, info.channels, info.bands, frames))
    # A frame more than one would be pooled, where the published pools allow it.
    assert maps["block5"].shape[-1] == 1
    assert [i.bands for i in network.feature_info] == [bands for bands, _ in PUBLISHED_MAPS]


def test_a_bundle_keeps_the_excerpt(tmp_path):
    model = create_model("choi_convnet", seed=1, excerpt_s=0.5)
    loaded = bundle.load(bundle.save(model, tmp_path / "short"))
    assert json.loads((tmp_path / "short/config.json").read_text())["backbone"] == {
        "name": "choi_convnet",
        "config": {"excerpt_s": 0.5},
    }
    assert loaded.clip == model.clip
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 8_000).astype(np.float32)
    before, after = model.clip_features(noise), loaded.clip_features(noise)
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # Half a second is one frame of the last map: its maximum is its mean.
    pooled = model.clip_features(noise[:6_000], ["block5"], ["mean", "max"])
    assert np.array_equal(pooled["block5/mean"], pooled["block5/max"])


@pytest.mark.parametrize("excerpt_s", [0, -1.0, 0.05, 601, float("nan"), float("inf")])
def test_impossible_excerpts_are_refused(excerpt_s):
    with pytest.raises(OssicleError, match="excerpt_s"):
        ChoiConvNet(excerpt_s=excerpt_s)
