"""NFNet-F0 and SlowFast NFNet-F0: published sizes, variance, slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.backbones.layers import he_normal_
from ossicle.backbones.nfnet import NFNetF0
from ossicle.backbones.normaliser_free import (
    GELU_GAIN,
    NFBlock,
    ScaledGELU,
    SqueezeExcite,
    StochasticDepth,
    WSConv2d,
    expected_deviations,
    standardised_weight,
)
from ossicle.backbones.slowfast_nfnet import SlowFastNFNetF0
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters
from ossicle.model import create_model


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    he_normal_(module, torch.Generator().manual_seed(seed))
    return module


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "millions"), [(1.0, 62.97), (0.25, 3.96), (0.125, 1.00)])
def test_slowfast_has_the_published_number_of_parameters(width, millions):
    with torch.device("meta"):
        network = SlowFastNFNetF0(width=width)
    assert round(count_parameters(network) / 1e6, 2) == millions


def test_the_paths_of_slowfast_have_theirs():
    with torch.device("meta"):
        network = SlowFastNFNetF0()
    fusions = count_parameters(network.fusions)
    slow = sum(p.numel() for name, p in network.named_parameters() if "slow" in name)
    rest = count_parameters(network) - fusions - slow
    assert [round(n / 1e6, 2) for n in (slow, rest, fusions)] == [60.40, 0.90, 1.67]
    fused = [(conv.in_channels, conv.out_channels) for conv in network.fusions]
    assert fused == [(16, 64), (32, 256), (64, 512), (192, 1024)]
    first = [network.blocks[f"slow{stage}_1"].conv0.in_channels for stage in (1, 2, 3, 4)]
    assert first == [192, 512, 1024, 2560]


def test_nfnet_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = NFNetF0()
    # The published 71.5 M have three colours in and a classifier of 1,000 classes behind.
    colours, classifier = 2 * 16 * 9, 3072 * 1000 + 1000
    assert round((count_parameters(network) + colours + classifier) / 1e6, 1) == 71.5


@pytest.mark.parametrize("kind", [NFNetF0, SlowFastNFNetF0])
def test_an_unknown_width_is_refused(kind):
    with pytest.raises(OssicleError, match=r"0\.3: choose one of 1, 0\.5, 0\.25, 0\.125"):
        kind(width=0.3)


@pytest.mark.parametrize("frames", [32, 33, 47, 128, 400])
def test_fusion_meets_the_slow_path_at_any_length(frames):
    network = SlowFastNFNetF0(width=0.125).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 1, 64, frames))
    slow, fast = math.ceil(frames / 16), math.ceil(frames / 4)
    for name, map_ in maps.items():
        assert map_.shape[-1] == (fast if "fast" in name else slow), name
    # Only bands are strided after the stem: 16, 16, 8, 4, 2.
    bands = [maps[f"slow{stage}_1"].shape[2] for stage in (1, 2, 3, 4)]
    assert bands == [16, 8, 4, 2]


def test_the_published_embedding_is_the_last_layers_mean():
    """In the unit test of the published code: 3,456 values from 400 frames."""
    network = drawn(SlowFastNFNetF0(width=0.125)).eval()
    assert network.num_features == 3456 // 8
    x = torch.randn(1, 1, 64, 400, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network(x)
        ends = [network.finals["slow"](maps["slow4_3"]), network.finals["fast"](maps["fast4_3"])]
        expected = torch.cat(
            [nn.functional.gelu(e, approximate="tanh").mean((2, 3)) for e in ends], 1
        )
    torch.testing.assert_close(maps["final"].mean(2), expected, rtol=1e-4, atol=1e-5)


# --- weight standardisation -------------------------------------------------------------------


def test_standardised_weights_follow_the_slow_definition():
    rng = np.random.default_rng(0)
    weight, gain = rng.normal(size=(6, 4, 3, 2)), rng.uniform(0.5, 2, size=6)
    weight[2] = 0.25  # no variance at all
    expected = np.empty_like(weight)
    for unit in range(6):
        values = [float(v) for v in weight[unit].ravel()]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        scale = gain[unit] / math.sqrt(max(len(values) * variance, 1e-4))
        expected[unit] = [[[(v - mean) * scale for v in r] for r in c] for c in weight[unit]]
    got = standardised_weight(torch.from_numpy(weight), torch.from_numpy(gain))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_a_grouped_convolution_counts_its_groups_fan_in():
    conv = drawn(WSConv2d(8, 8, (1, 3), groups=4))
    weight = standardised_weight(conv.weight, conv.gain)
    assert weight.shape == (8, 2, 1, 3)
    torch.testing.assert_close(weight.flatten(1).square().sum(1), torch.ones(8))
    torch.testing.assert_close(weight.flatten(1).mean(1), torch.zeros(8), atol=1e-7, rtol=0)


def test_plain_convolutions_are_the_same_function():
    conv = drawn(WSConv2d(6, 9, (3, 3), (2, 1), groups=3))
    with torch.no_grad():
        conv.bias.normal_()
        conv.gain.uniform_(0.5, 2)
        x = torch.randn(2, 6, 7, 11)
        torch.testing.assert_close(conv.plain()(x), conv(x))


def test_the_inference_copy_has_standardised_once():
    model = create_model("slowfast_nfnet_f0", width=0.125)
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if name.endswith(("skip_gain", "gain", "bias")):
                parameter.uniform_(0.3, 1)
    folded = model._folded_backbone()
    assert not any(isinstance(module, WSConv2d) for module in folded.modules())
    waveform = torch.randn(1, 16_000) * 0.1
    plain = model.backbone(model.frontend(waveform))
    for name, map_ in model.forward_layers(waveform).items():
        scale = plain[name].abs().max()
        assert (map_ - plain[name]).abs().max() <= 2e-5 * scale, name


# --- signal variance --------------------------------------------------------------------------


def test_the_activation_keeps_unit_variance():
    # By quadrature in float64: the deviation of gelu(N(0, 1)) is one over the published constant.
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    y = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) * GELU_GAIN
    step = x[1] - x[0]
    mean = (y * density).sum() * step
    assert ((y - mean) ** 2 * density).sum() * step == pytest.approx(1, abs=2e-3)
    values = torch.linspace(-3, 3, 7, dtype=torch.float64)
    expected = np.interp(values.numpy(), x, y)
    np.testing.assert_allclose(ScaledGELU()(values).numpy(), expected, atol=1e-6)


def with_open_gains(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, NFBlock):
                module.skip_gain.fill_(1)
    return network.eval()


def deviation(map_: torch.Tensor) -> float:
    """Root of the mean variance of a channel."""
    return float(map_.var((0, 2, 3)).mean().sqrt())


def test_variance_grows_by_alpha_squared_with_each_block():
    """On white noise, at one resolution, with the skip gains at 1: as each block is told."""
    expected = expected_deviations((7,))
    blocks = [
        NFBlock(
            64 if i == 0 else 96,
            96,
            group_width=16,
            kernels=[(3, 1), (1, 3)],
            stride=(1, 1),
            beta=1 / expected[i],
            drop_rate=0,
        )
        for i in range(6)
    ]
    x = torch.randn(8, 64, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, block in enumerate(blocks):
            x = with_open_gains(drawn(block, i))(x)
            # Zeros at the borders take a little of it.
            assert deviation(x) == pytest.approx(expected[i + 1], rel=0.06), i


@pytest.mark.parametrize("kind", [NFNetF0, SlowFastNFNetF0])
def test_signals_live_through_depth_at_initialisation(kind):
    """A strided stage averages up to four neighbours, which halves white noise; no more is lost.

    The slow path begins lower: the largest of four normal values has a deviation of 0.70.
    """
    network = with_open_gains(drawn(kind(width=0.25)))
    x = torch.randn(4, 1, 64, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps = network(x)
    for name, map_ in maps.items():
        if name == "final":
            continue
        stage = 0 if name.startswith("stem") else int(name[-3])  # "slow3_2"
        strided = max(stage - 1, 0)
        assert 0.55 * 0.5**strided < deviation(map_) < 2.5, (name, deviation(map_))


def test_expected_deviations_follow_the_definition():
    got = expected_deviations((1, 2, 6))
    second = math.sqrt(1 + 0.04)
    # A stage's first block is told what the stage before grew to; its own start is 1 again.
    assert got[0] == 1.0
    assert got[1] == pytest.approx(second)
    assert got[2] == pytest.approx(second)
    assert got[3] == pytest.approx(math.sqrt(1 + 2 * 0.04))
    assert got[-1] == pytest.approx(math.sqrt(1 + 5 * 0.04))


# --- blocks -----------------------------------------------------------------------------------


def test_a_new_block_is_its_shortcut():
    block = NFBlock(
        8, 8, group_width=2, kernels=[(1, 3), (3, 1)], stride=(1, 1), beta=1, drop_rate=0
    )
    x = torch.randn(2, 8, 6, 5)
    assert torch.equal(block(x), x)


def test_a_block_follows_the_slow_definition():
    block = drawn(
        NFBlock(6, 8, group_width=2, kernels=[(1, 3), (3, 1)], stride=(2, 1), beta=0.9, drop_rate=0)
    ).double()
    with torch.no_grad():
        block.skip_gain.fill_(0.7)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)

    def act(v):
        inner = math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)
        return 0.5 * v * (1 + torch.tanh(inner)) * GELU_GAIN

    def conv(layer, v, padding):
        weight = standardised_weight(layer.weight, layer.gain)
        stride, groups = layer.stride, layer.groups
        return nn.functional.conv2d(v, weight, layer.bias, stride, padding, 1, groups)

    active = act(x) * 0.9
    pooled = (active[:, :, 0::2] + active[:, :, 1::2]) / 2
    residual = conv(block.conv0, active, 0)
    residual = conv(block.conv1, act(residual), (0, 1))
    residual = conv(block.conv1b, act(residual), (1, 0))
    residual = conv(block.conv2, act(residual), 0)
    squeezed = torch.relu(block.excite.squeeze(residual.mean((2, 3))))
    factor = 2 / (1 + torch.exp(-block.excite.excite(squeezed)))
    expected = 0.2 * 0.7 * residual * factor[:, :, None, None] + conv(block.shortcut, pooled, 0)
    torch.testing.assert_close(block(x), expected)


def test_squeeze_and_excite_halves_the_channels_inside():
    assert SqueezeExcite(10).squeeze.out_features == 5
    assert SqueezeExcite(1).squeeze.out_features == 1


def test_stochastic_depth_drops_whole_items_in_training_alone():
    torch.manual_seed(0)
    drop = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3, 4)
    y = drop.train()(x)
    per_item = y.flatten(1)
    assert ((per_item == 0).all(1) | (per_item == 1).all(1)).all()
    assert (per_item[:, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert drop.eval()(x) is x
