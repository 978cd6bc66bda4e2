"""Blocks of normaliser-free networks: no batch statistics anywhere, variance kept by construction.

Brock et al. 2021 (NFNets, arXiv 2102.06171), Brock et al. 2021 (scaled weight standardisation,
arXiv 2101.08692). B batch, C channels, F bands, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.layers import SameConv2d

# Under N(0, 1) input a GELU has a deviation of one over this (2101.08692, section 3; the published
# constant of the tanh form, which is used here too).
GELU_GAIN = 1.7015043497085571
ALPHA = 0.2  # share of every residual branch in its block's sum (2102.06171, section 2)
SQUEEZE_RATIO = 0.5
SQUEEZE_GAIN = 2.0  # a sigmoid is a half on average (2102.06171, appendix)
SMALLEST_VARIANCE = 1e-4


def standardised_weight(weight: Tensor, gain: Tensor) -> Tensor:
    """gain * (W - mean W) / sqrt(max(N var W, 1e-4)) for each output channel, N its fan-in.

    (C', C / groups, ...) and (C',) -> (C', C / groups, ...); 2101.08692, eq. 1, with a learnt gain.
    """
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    fan_in = weight[0].numel()
    scale = torch.rsqrt((variance * fan_in).clamp(min=SMALLEST_VARIANCE))
    return (weight - mean) * (scale * gain.view(-1, 1, 1, 1))


class WSConv2d(SameConv2d):
    """Convolution with scaled weight standardisation, "SAME" padding, gain and bias.

    (B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride)). Unit-variance input that does not
    correlate gives unit-variance output at initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups)
        self.gain = nn.Parameter(torch.ones(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride))."""
        x, padding = self.padded(x)
        weight = standardised_weight(self.weight, self.gain)
        return F.conv2d(x, weight, self.bias, self.stride, padding, (1, 1), self.groups)

    def plain(self) -> SameConv2d:
        """The same function with its weights standardised once, for inference."""
        size = (self.kernel_size[0], self.kernel_size[1])
        stride = (self.stride[0], self.stride[1])
        with torch.device("meta"):
            conv = SameConv2d(self.in_channels, self.out_channels, size, stride, groups=self.groups)
        conv.weight = nn.Parameter(standardised_weight(self.weight, self.gain).detach())
        conv.bias = self.bias
        return conv


class ScaledGELU(nn.Module):
    """GELU in its tanh form times a constant that keeps unit variance; shape kept."""

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        return F.gelu(x, approximate="tanh") * GELU_GAIN


class SqueezeExcite(nn.Module):
    """2 sigmoid(W relu(V mean(x))): a factor for each channel; (B, C, F, T) kept.

    Hu et al. 2018 (arXiv 1709.01507), eq. 2 to 4, with the factor 2 of 2102.06171.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, int(channels * SQUEEZE_RATIO))
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> the same."""
        factor = self.excite(F.relu(self.squeeze(x.mean((2, 3)))))
        return x * (SQUEEZE_GAIN * torch.sigmoid(factor))[:, :, None, None]


class StochasticDepth(nn.Module):
    """In training, whole items are zeroed with probability ``rate``, without rescaling.

    Huang et al. 2016 (arXiv 1603.09382); (B, C, F, T) kept. The published NFNets do not rescale.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> the same."""
        if not self.training or self.rate == 0:
            return x
        # Drawn on the CPU, whose numbers the seed of each step fixes on every device.
        keep = torch.rand(len(x)).ge(self.rate).to(x.device, x.dtype)
        return x * keep.view(-1, 1, 1, 1)


class NFBlock(nn.Module):
    """y = alpha gain f(phi(x) beta) + shortcut, f: 1 x 1, two grouped convolutions, 1 x 1.

    (B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride)); 2102.06171, section 3 and
    figure 5. Where the gain starts at 0, a new network is its shortcuts alone (SkipInit, De & Smith
    2020, arXiv 2002.10444).

    Args:
        in_channels: C.
        channels: C'; half as many inside.
        group_width: channels of a group of the middle convolutions.
        kernels: of the two middle convolutions, (bands, frames).
        stride: of the first of them, and of the shortcut's average.
        beta: one over the deviation that the input is expected to have.
        drop_rate: of stochastic depth.
        skip_gain: where the gain starts.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        group_width: int,
        kernels: Sequence[tuple[int, int]],
        stride: tuple[int, int],
        beta: float,
        drop_rate: float,
        skip_gain: float = 0.0,
    ) -> None:
        super().__init__()
        groups = max(1, channels // 2 // group_width)
        inside = groups * group_width
        self.beta, self.stride = beta, stride
        self.act = ScaledGELU()
        self.conv0 = WSConv2d(in_channels, inside)
        self.conv1 = WSConv2d(inside, inside, kernels[0], stride, groups)
        self.conv1b = WSConv2d(inside, inside, kernels[1], 1, groups)
        self.conv2 = WSConv2d(inside, channels)
        changes = in_channels != channels or math.prod(stride) > 1
        self.shortcut = WSConv2d(in_channels, channels) if changes else None
        self.excite = SqueezeExcite(channels)
        self.drop = StochasticDepth(drop_rate)
        self.skip_gain = nn.Parameter(torch.full((), skip_gain))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F', T')."""
        active = self.act(x) * self.beta
        residual = self.conv0(active)
        residual = self.conv1(self.act(residual))
        residual = self.conv1b(self.act(residual))
        residual = self.conv2(self.act(residual))
        residual = self.drop(self.excite(residual))
        return residual * (ALPHA * self.skip_gain) + self._shortcut(x, active)

    def _shortcut(self, x: Tensor, active: Tensor) -> Tensor:
        if self.shortcut is None:
            return x
        if math.prod(self.stride) > 1:
            # A last odd frame or band is averaged with nothing, not with zeros.
            active = F.avg_pool2d(active, self.stride, ceil_mode=True, count_include_pad=False)
        return self.shortcut(active)


class NFStem(nn.Sequential):
    """Four convolutions to C channels over a quarter of bands and frames, GELU between them.

    (B, 1, F, T) -> (B, C, ceil(F / 4), ceil(T / 4)).
    """

    def __init__(self, channels: int, kernels: Sequence[tuple[int, int]]) -> None:
        layers: list[nn.Module] = []
        before = 1
        for divisor, kernel, stride in zip((8, 4, 2, 1), kernels, (2, 1, 1, 2), strict=True):
            layers += [ScaledGELU()] if layers else []
            after = max(1, channels // divisor)
            layers.append(WSConv2d(before, after, kernel, stride))
            before = after
        super().__init__(*layers)


def expected_deviations(depths: Sequence[int]) -> list[float]:
    """The deviation that each block's input is expected to have at initialisation, in order.

    1 for a stage's first block; its shortcut is a convolution of the scaled activation, so that
    variance starts at 1 again and grows by alpha squared with every block (2101.08692, section 3).
    """
    deviations, now = [], 1.0
    for depth in depths:
        for block in range(depth):
            deviations.append(now)
            now = math.sqrt((1.0 if block == 0 else now**2) + ALPHA**2)
    return deviations
