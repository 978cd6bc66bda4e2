"""ResNet-18 and ResNet-50 on log-mels (He et al. 2016, arXiv 1512.03385, table 1).

Layer names are the paper's: conv1, then conv2_1 to conv5_x, one for each residual block. The stride
of a bottleneck lies on its 3 by 3 convolution, where no value is skipped; the paper has it on the
1 by 1 before. F = 64 bands.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.multiscale import DILATIONS, MultiscaleInput
from ossicle.backbones.yamnet import YAMNet
from ossicle.errors import OssicleError

STEM_CHANNELS = 64
WIDTHS = (64, 128, 256, 512)
WIDTH_FACTORS = (1.0, 0.5, 0.25, 0.125, 0.0625)
EXPANSION = 4  # a bottleneck's output channels over its width


def _conv_norm(in_channels: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # A convolution and the batch norm behind it, in that order: the inference copy folds them.
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)): (B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride)).

    He et al. 2016, eq. 1 and 2, and figure 5.

    Args:
        in_channels: C.
        width: channels inside the block; C' is as many, or four times as many in a bottleneck.
        stride: of bands and frames.
        bottleneck: three convolutions 1, 3, 1 instead of two of 3.
    """

    def __init__(self, in_channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            channels = EXPANSION * width
            self.residual = nn.Sequential(
                *_conv_norm(in_channels, width, 1),
                nn.ReLU(inplace=True),
                *_conv_norm(width, width, 3, stride),
                nn.ReLU(inplace=True),
                *_conv_norm(width, channels, 1),
            )
        else:
            channels = width
            self.residual = nn.Sequential(
                *_conv_norm(in_channels, width, 3, stride),
                nn.ReLU(inplace=True),
                *_conv_norm(width, channels, 3),
            )
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Sequential(
            *([] if same else _conv_norm(in_channels, channels, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride))."""
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class ResNet(Backbone):
    """A residual network: (B, 1, 64, T) -> conv1 and every residual block, T at least 1.

    Args:
        multiscale: put the input block of McMahan & Rao 2018 before the network; it is then the
            first layer.
        width: factor on all channels but those of the multiscale block: 1, the published network,
            1/2, 1/4, 1/8 or 1/16.

    Raises:
        OssicleError: the width is none of these.
    """

    # McMahan & Rao's settings are not to be had. YAMNet's are ours: a comparison of the networks
    # is then not one of front ends.
    frontend: ClassVar[dict[str, Any]] = YAMNet.frontend
    # 0.335 s are 32 frames: one of the deepest layers. 4 s is the longest clip of UrbanSound8K,
    # the longest sound that McMahan & Rao trained on.
    clip: ClassVar[dict[str, Any]] = {"window_s": 4.0, "min_s": 0.335, "fill": "none"}
    depths: ClassVar[tuple[int, ...]]
    bottleneck: ClassVar[bool]

    def __init__(self, multiscale: bool = False, width: float = 1.0) -> None:
        super().__init__()
        if width not in WIDTH_FACTORS:
            known = ", ".join(f"{factor:g}" for factor in WIDTH_FACTORS)
            raise OssicleError(f"width is {width!r}: choose one of {known}")
        self.multiscale, self.width = multiscale, float(width)
        stem = round(STEM_CHANNELS * width)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        info = []
        channels, bands, stride = 1, YAMNet.frontend["n_mels"], 1
        if self.multiscale:
            channels = len(DILATIONS)
            blocks["multiscale"] = MultiscaleInput()
            info.append(LayerInfo("multiscale", channels, bands, stride))
        blocks["conv1"] = nn.Sequential(*_conv_norm(channels, stem, 7, 2), nn.ReLU(inplace=True))
        channels, bands, stride = stem, bands // 2, 2
        info.append(LayerInfo("conv1", channels, bands, stride))
        for stage, (depth, full) in enumerate(zip(self.depths, WIDTHS, strict=True), start=2):
            inside = round(full * width)
            # Every stage halves bands and frames: the first by a max-pool, others by their stride.
            bands, stride = bands // 2, 2 * stride
            for number in range(1, depth + 1):
                step = 2 if number == 1 and stage > 2 else 1
                block: nn.Module = ResidualBlock(channels, inside, step, self.bottleneck)
                if stage == 2 and number == 1:
                    block = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), block)
                channels = inside * (EXPANSION if self.bottleneck else 1)
                blocks[f"conv{stage}_{number}"] = block
                info.append(LayerInfo(f"conv{stage}_{number}", channels, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        # Left out at its default, so that releases without the keyword read such a bundle too.
        narrow = {} if self.width == 1.0 else {"width": self.width}
        return {"multiscale": self.multiscale, **narrow}

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> maps (B, C, F', ceil(T / stride)), shallow to deep."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps


class ResNet18(ResNet):
    """Eight blocks of two convolutions: (B, 1, 64, T) -> 9 maps, the last (B, 512 width, 2, T')."""

    source: ClassVar[str] = "He et al. 2016, arXiv 1512.03385, table 1 (18 layers); no weights"
    depths: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    bottleneck: ClassVar[bool] = False


class ResNet50(ResNet):
    """Sixteen bottlenecks: (B, 1, 64, T) -> 17 maps, the last (B, 2048 width, 2, T')."""

    source: ClassVar[str] = "He et al. 2016, arXiv 1512.03385, table 1 (50 layers); no weights"
    depths: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    bottleneck: ClassVar[bool] = True
