"""stapes: ossicle's own network, small, and made to be read out at every layer.

Named after the smallest of the ossicles. Plain 3 x 3 convolutions: at these widths a CPU computes
them several times as fast as depthwise ones of as many operations. Two things serve the read-out.
The log-mels themselves are the first layer (Schmid et al. 2023, "Low-complexity audio embedding
extractors", section III). And "words" sees all bands of a middle stage at once, whose frames are
short yet: so it tells formants and their changes apart, as the speech networks that teach it do.

B batch, C channels, F bands, T frames of 10 ms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.errors import OssicleError

N_BANDS = 96
STEM = 16
# (channels, convolutions) of the stages; the first one of each halves bands and frames.
STAGES = ((40, 1), (80, 3), (160, 3), (192, 2))
# The stage that "words" is read from, whose frames are 80 ms apart.
WORDS_FROM = "stage2_3"
WORDS = 160


class Convolution(nn.Module):
    """3 x 3 convolution, batch norm, ReLU; what comes in is added where its shape is the same."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.adds = in_channels == channels and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F', T')."""
        y = self.norm(self.conv(x))
        return F.relu(x + y if self.adds else y)


class Stapes(Backbone):
    """(B, 1, 96, T) -> the bands, the stem, nine convolutions and "words".

    "bands" has the log-mels, (B, 96, T), with the bands as channels. "words" (B, 160, T / 8) sees
    all bands of the second stage at once.

    Args:
        width: times that the channels are multiplied by.

    Raises:
        OssicleError: the width is not above zero.
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 16_000,
        "n_fft": 512,
        "win_length": 512,
        "hop_length": 160,
        "n_mels": N_BANDS,
        "fmin": 50.0,
        "fmax": 7_800.0,
        "mel_scale": "slaney",
        "triangles": "hz",
        "norm": None,
        "power": 1.0,
        "scaling": "log",
        "offset": 0.001,
        "center": False,
        "window_align": "left",
    }
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 1.0, "fill": "none"}
    # 1 of the stem, then of each convolution the frames between those that it finds.
    reach: ClassVar[int | None] = 111
    source: ClassVar[str] = "ossicle's own, by distillation of published networks"
    seedless_layers: ClassVar[tuple[str, ...]] = ("bands",)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 0 < width < math.inf:
            raise OssicleError(f"width {width}: choose it above 0")
        self.width = width
        channels = self._scaled(STEM)
        # Zero, which padding adds, is then a usual level.
        self.level = nn.BatchNorm2d(1)
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, (7, 3), (3, 2), padding=(3, 1), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        bands, stride = N_BANDS // 3, 2
        info = [LayerInfo("bands", N_BANDS, 0, 1), LayerInfo("stem", channels, bands, stride)]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (wide, depth) in enumerate(STAGES, start=1):
            for place in range(1, depth + 1):
                step = 2 if place == 1 else 1
                bands, stride = bands // step, stride * step
                name = f"stage{number}_{place}"
                blocks[name] = Convolution(channels, self._scaled(wide), step)
                channels = self._scaled(wide)
                info.append(LayerInfo(name, channels, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        words = self._scaled(WORDS)
        heard = next(layer for layer in info if layer.name == WORDS_FROM)
        self.words = nn.Sequential(
            nn.Conv1d(heard.channels * heard.bands, words, 1, bias=False),
            nn.BatchNorm1d(words),
            nn.ReLU(inplace=True),
        )
        info.append(LayerInfo("words", words, 0, heard.stride))
        self.feature_info = tuple(info)

    def _scaled(self, channels: int) -> int:
        return max(8, round(channels * self.width / 8) * 8)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {"width": self.width}

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 96, T) -> 12 maps by name."""
        maps = OrderedDict({"bands": x[:, 0]})
        x = self.stem(self.level(x))
        maps["stem"] = x
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        maps["words"] = self.words(maps[WORDS_FROM].flatten(1, 2))
        return maps
