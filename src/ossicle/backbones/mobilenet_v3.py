"""MobileNetV3-Large on log-mel bands, as EfficientAT trains it on AudioSet.

Network: Howard et al. 2019, "Searching for MobileNetV3" (arXiv 1905.02244), table 1. Training:
Schmid, Koutini, Widmer 2023, "Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation" (arXiv 2211.04772); their mnXX_as are this network at a width of XX / 10.
F = 128 bands, one frame each 10 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.errors import OssicleError

N_BANDS = 128
BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 16
LAST_FACTOR = 6
SQUEEZE_FACTOR = 4
# The widest that is published, mn40, has 68 million parameters.
MAX_WIDTH = 4.0


class BlockSpec(NamedTuple):
    """One row of the table, at width 1.

    Attributes:
        kernel: side of the depthwise convolution.
        expanded: channels inside the block.
        channels: channels that it gives.
        squeeze: whether it has a squeeze-and-excitation.
        activation: inside the block; what it gives is linear.
        stride: of the depthwise convolution.
    """

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


BLOCKS = (
    BlockSpec(3, 16, 16, False, nn.ReLU, 1),
    BlockSpec(3, 64, 24, False, nn.ReLU, 2),
    BlockSpec(3, 72, 24, False, nn.ReLU, 1),
    BlockSpec(5, 72, 40, True, nn.ReLU, 2),
    BlockSpec(5, 120, 40, True, nn.ReLU, 1),
    BlockSpec(5, 120, 40, True, nn.ReLU, 1),
    BlockSpec(3, 240, 80, False, nn.Hardswish, 2),
    BlockSpec(3, 200, 80, False, nn.Hardswish, 1),
    BlockSpec(3, 184, 80, False, nn.Hardswish, 1),
    BlockSpec(3, 184, 80, False, nn.Hardswish, 1),
    BlockSpec(3, 480, 112, True, nn.Hardswish, 1),
    BlockSpec(3, 672, 112, True, nn.Hardswish, 1),
    BlockSpec(5, 672, 160, True, nn.Hardswish, 2),
    BlockSpec(5, 960, 160, True, nn.Hardswish, 1),
    BlockSpec(5, 960, 160, True, nn.Hardswish, 1),
)


def rounded_channels(channels: float) -> int:
    """The multiple of 8 next to a number of channels, at least 8 and never below 9/10 of it.

    >>> [rounded_channels(0.4 * c) for c in (16, 24, 72, 112, 672)]
    [8, 16, 32, 48, 272]
    """
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def _convolution(
    in_channels: int,
    channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    padding = (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Weigh channels by what the whole map holds (Hu et al. 2018, arXiv 1709.01507, section 3).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = rounded_channels(channels // SQUEEZE_FACTOR)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F, T)."""
        weights = self.fc2(self.fc1(x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, weigh, project; the input is added where the shapes agree.

    Args:
        in_channels: C.
        expanded: channels inside.
        channels: C'.
        spec: kernel, stride, activation and whether to squeeze.
    """

    def __init__(self, in_channels: int, expanded: int, channels: int, spec: BlockSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers.append(_convolution(in_channels, expanded, activation=spec.activation))
        layers.append(
            _convolution(expanded, expanded, spec.kernel, spec.stride, expanded, spec.activation)
        )
        if spec.squeeze:
            layers.append(SqueezeExcitation(expanded))
        layers.append(_convolution(expanded, channels))
        self.layers = nn.Sequential(*layers)
        self.residual = spec.stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride))."""
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNetV3(Backbone):
    """(B, 1, 128, T) -> 17 maps: "stem", "block1" to "block15" and "last".

    Blocks give linear projections, of either sign; stem and last end in hardswish. Squeeze and
    excitation look at all frames that are read at once, so a window is what was trained with.

    Args:
        width: factor on all numbers of channels; EfficientAT's mn04 has 0.4, mn10 has 1.0.

    Raises:
        OssicleError: the width is out of its range.
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 32_000,
        "n_fft": 1024,
        "win_length": 800,
        "hop_length": 320,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 15_000.0,
        # Kaldi's mel banks: triangles even on 1127 ln(1 + f / 700).
        "mel_scale": "htk",
        "triangles": "mel",
        "norm": None,
        "power": 2.0,
        "scaling": "log",
        "offset": 1e-5,
        "shift": 4.5,
        "scale": 0.2,
        "center": True,
        "pad_mode": "reflect",
        "window": "hann_symmetric",
        "preemphasis": 0.97,
    }
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 1.0, "fill": "none"}
    source: ClassVar[str] = (
        "EfficientAT, Schmid et al. 2023, arXiv 2211.04772 (MIT, (c) 2022 Florian Schmid), "
        "trained on AudioSet"
    )

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 0 < width <= MAX_WIDTH:
            raise OssicleError(f"width is {width!r}: it must be above 0 and at most {MAX_WIDTH:g}")
        self.width = width
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        channels = rounded_channels(width * STEM_CHANNELS)
        bands, stride = N_BANDS // 2, 2
        blocks["stem"] = _convolution(1, channels, 3, 2, activation=nn.Hardswish)
        info = [LayerInfo("stem", channels, bands, stride)]
        for number, spec in enumerate(BLOCKS, start=1):
            expanded, out = (rounded_channels(width * c) for c in (spec.expanded, spec.channels))
            blocks[f"block{number}"] = InvertedResidual(channels, expanded, out, spec)
            channels, bands, stride = out, bands // spec.stride, stride * spec.stride
            info.append(LayerInfo(f"block{number}", channels, bands, stride))
        last = LAST_FACTOR * channels
        blocks["last"] = _convolution(channels, last, activation=nn.Hardswish)
        info.append(LayerInfo("last", last, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """The width."""
        return {"width": self.width}

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 128, T) -> 17 maps (B, C, F', ceil(T / stride)), shallow to deep."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps


class EfficientATMN04(MobileNetV3):
    """EfficientAT's mn04: ``MobileNetV3`` at a width of 0.4; 516,128 parameters."""

    def __init__(self, width: float = 0.4) -> None:
        super().__init__(width)
