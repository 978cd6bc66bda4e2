"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), trained on photographs: ImageNet.

A network for pictures reads the log-mel spectrogram as one. Modules have the names of the
published checkpoint (torchvision's), so that its state is this network's. F = 128 bands, one frame
each 10 ms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo

# (expansion, output channels, blocks, stride of the first of them): table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
N_BANDS = 128
TOP_DB = 80.0
# Mean and deviation of ImageNet's red, green and blue in [0, 1], which it was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _conv(in_channels: int, channels: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: (B, C, F, T) -> (B, C', F / stride, T / stride).

    Section 3.3 of the paper. Nothing clips the projection, and where shapes allow the input is
    added to it.

    Args:
        in_channels: C.
        channels: C'.
        stride: 1 or 2.
        expansion: hidden channels for each of the input's.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.adds = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *([_conv(in_channels, hidden, 1, 1, 1)] if expansion > 1 else []),
            _conv(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride))."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 without its classifier: (B, 1, 128, T) -> 19 maps, the last (B, 1280, 4, T / 32).

    The front end gives decibels from -80 to 0, 0 being the clip's loudest. The first step maps them
    to [0, 1], as a grey picture, the same in all three channels, and standardises each channel as
    photographs were. Three other pictures (other windows, deltas) would need a front end more, and
    the first layer, which was trained to see colour, would take them for colour.
    """

    # The network divides both axes by 32 and was trained on 224 x 224: with 128 bands, four rows
    # are left at the end, and a transform of 1,024 at 16 kHz leaves no band empty. At 10 ms a frame
    # a clip of 1 to 5 s is a picture of 128 x 100 to 128 x 500, a quarter of a trained one to 1.3
    # of it. The window is 25 ms, as 64 ms would blur six columns into each other, and show more of
    # what MP3 and Ogg leave out beside a steady tone.
    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 16_000,
        "n_fft": 1024,
        "win_length": 400,
        "hop_length": 160,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 8_000.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 2.0,
        "scaling": "db",
        "reference": "max",
        "top_db": TOP_DB,
        "center": True,
        "pad_mode": "constant",
    }
    # Under a second the picture would be narrower than four columns of the last map.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 1.0, "fill": "none"}
    source: ClassVar[str] = (
        "MobileNetV2, Sandler et al. 2018, arXiv 1801.04381; torchvision's weights, trained on "
        "ImageNet"
    )

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, STEM_CHANNELS, 3, 2, 1)]
        channels, bands, stride = STEM_CHANNELS, N_BANDS // 2, 2
        info = [LayerInfo("stem", channels, bands, stride)]
        for expansion, out_channels, blocks, first_stride in STAGES:
            for number in range(blocks):
                step = first_stride if number == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, step, expansion))
                channels, bands, stride = out_channels, -(-bands // step), stride * step
                info.append(LayerInfo(f"block{len(info)}", channels, bands, stride))
        layers.append(_conv(channels, LAST_CHANNELS, 1, 1, 1))
        info.append(LayerInfo("last", LAST_CHANNELS, bands, stride))
        self.features = nn.Sequential(*layers)
        self.feature_info = tuple(info)
        self._calm_projections()

    def _calm_projections(self) -> None:
        """Start values of the projections' gains, for random weights; a checkpoint brings its own.

        He's variance makes up for the half that a ReLU cuts off. After a projection nothing is cut
        off, so that the next expansion would double the variance, and each sum doubles it again,
        until ReLU6 clips up to a fifth of the deep values. Hence a half, and for the R blocks that
        add a share of 1 / R, as De and Smith 2020 (arXiv 2002.10444) do without batch norm.
        """
        blocks = [m for m in self.features if isinstance(m, InvertedResidual)]
        summands = sum(block.adds for block in blocks)
        for block in blocks:
            gain = math.sqrt(0.5 / (summands if block.adds else 1))
            nn.init.constant_(block.conv[-1].weight, gain)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 128, T) decibels in [-80, 0] -> 19 maps (B, C, F', ceil(T / stride))."""
        # Plain numbers, not buffers: they are constants of the network, in no checkpoint.
        channels = zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
        x = torch.cat([x * (1 / (TOP_DB * std)) + (1 - mean) / std for mean, std in channels], 1)
        # Spreading one channel to three loses the layout in which convolutions are fastest.
        x = x.contiguous(memory_format=torch.channels_last)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, layer in zip(self.layers, self.features, strict=True):
            x = layer(x)
            maps[name] = x
        return maps
