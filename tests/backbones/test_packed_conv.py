"""The convolutions for inference: the numbers of the plain ones, whatever the shape."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from ossicle.backbones import packed_conv
from ossicle.backbones.layers import SameConv2d
from ossicle.backbones.packed_conv import PackedConv2d, pack_convolutions


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    "activation",
    [None, nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.ELU()],
    ids=lambda a: type(a).__name__,
)
def test_same_numbers_as_the_plain_convolution(groups, kernel, stride, same, activation):
    torch.manual_seed(0)
    kind = SameConv2d if same else nn.Conv2d
    padding = {} if same else {"padding": kernel // 2}
    conv = frozen(kind(8, 16, kernel, stride, groups=groups, **padding))
    packed = PackedConv2d(conv, activation)
    with torch.inference_mode():
        for shape in ((1, 8, 32, 96), (1, 8, 31, 5), (3, 8, 2, 1), (1, 8, 32, 500)):
            x = 4 * torch.randn(shape)
            want = conv(x) if activation is None else activation(conv(x))
            got = packed(x)
            assert packed._packed is not None, "the fast way was not taken"
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
            fast = packed(x.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(fast, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [(512, 1024), (1024, 1024)])
def test_a_convolution_over_one_place_is_quick_for_every_length(channels):
    """Laid out as a convolution's for one length, weights take 50 times as long for another."""
    conv = frozen(nn.Conv2d(*channels, 1))
    inputs = [
        torch.randn(1, channels[0], 2, frames).contiguous(memory_format=torch.channels_last)
        for frames in (31, 32, 7, 94)
    ]

    def seconds(packed: PackedConv2d, x: torch.Tensor) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            packed(x)
            best = min(best, time.perf_counter() - start)
        return best

    with torch.inference_mode():
        for first in inputs:
            packed = PackedConv2d(conv, nn.ReLU6())
            packed(first)
            for x in inputs:
                own = PackedConv2d(conv, nn.ReLU6())
                own(x)
                assert seconds(packed, x) < 8 * seconds(own, x)


def test_other_tensors_take_the_plain_way():
    conv = frozen(SameConv2d(2, 4, 3))
    packed = PackedConv2d(conv, nn.ReLU())
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    packed(x).sum().backward()
    assert x.grad is not None and packed._packed is None
    assert packed(torch.zeros(1, 2, 8, 8)).shape == (1, 4, 8, 8)
    double = PackedConv2d(frozen(SameConv2d(2, 4, 3).double()))
    assert double(torch.zeros(1, 2, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_activations_are_taken_in_once_and_identities_passed_over():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Identity(),
        nn.ReLU6(),
        nn.Conv2d(4, 4, 1),
        nn.MaxPool2d(2),
    )
    x = 9 * torch.randn(2, 1, 16, 16)
    with torch.inference_mode():
        want = frozen(network)(x)
        packed = pack_convolutions(network)
        torch.testing.assert_close(packed(x), want, rtol=1e-5, atol=1e-5)
    kinds = [type(module).__name__ for module in packed]
    assert kinds == ["PackedConv2d", "Identity", "Identity", "PackedConv2d", "MaxPool2d"]


def test_a_torch_without_the_operators_keeps_the_plain_network(monkeypatch):
    def missing(*arguments):
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_conv, "_pack", missing)
    network = frozen(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))
    assert type(pack_convolutions(network)[0]) is nn.Conv2d
