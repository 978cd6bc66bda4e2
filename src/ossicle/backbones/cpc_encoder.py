"""The raw-waveform encoder of contrastive predictive coding, and its context network.

van den Oord et al. 2018 (arXiv 1807.03748), section 3.1: five strided convolutions, 160 samples a
frame at 16 kHz, then a GRU whose output is the published feature. In two directions: Kawakami et
al. 2020 (arXiv 2001.11128). B batch, C channels, N samples, T frames of 10 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import draw_recurrent_weights, he_normal_
from ossicle.errors import OssicleError

SAMPLE_RATE = 16_000
STRIDES = (5, 4, 2, 2, 2)
KERNELS = (10, 8, 4, 4, 4)
# Ours, as the paper gives none: a map of N samples has floor((N + 1) / stride) frames.
PADDINGS = (3, 2, 1, 1, 1)
HOP = 160
CHANNELS = 512
HIDDEN = 256


class CPCEncoder(Backbone):
    """Waveform to features: (B, 1, N) -> conv1 to conv5 and context, all (B, C, T').

    The last two have T' = max(1, floor((N + 1) / 160)).

    Args:
        width: factor on the 512 channels of the convolutions and the 256 of the context.
        bidirectional: a second GRU runs backwards; "context" then has the forward one's channels
            before the backward one's.

    Raises:
        OssicleError: the width leaves no channels.
    """

    frontend: ClassVar[dict[str, Any]] = {"name": "waveform", "sample_rate": SAMPLE_RATE}
    # A frame hears 465 samples, 29 ms.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.03, "fill": "none"}
    source: ClassVar[str] = "van den Oord et al. 2018, arXiv 1807.03748; no weights"

    def __init__(self, width: float = 1.0, bidirectional: bool = False) -> None:
        super().__init__()
        channels, hidden = round(CHANNELS * width), round(HIDDEN * width)
        if hidden < 1:
            raise OssicleError(f"width {width}: choose 1 for the published sizes, at least 1/256")
        self.width, self.bidirectional, self.hidden = width, bidirectional, hidden
        self.convolutions = nn.ModuleDict()
        info, stride = [], 1
        for i, (kernel, step, padding) in enumerate(zip(KERNELS, STRIDES, PADDINGS, strict=True)):
            name, before = f"conv{i + 1}", channels if i else 1
            self.convolutions[name] = nn.Conv1d(before, channels, kernel, step, padding)
            stride *= step
            info.append(LayerInfo(name, channels, 0, stride))
        self.context = nn.GRU(channels, hidden, batch_first=True, bidirectional=bidirectional)
        info.append(LayerInfo("context", hidden * (2 if bidirectional else 1), 0, stride))
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {"width": self.width, "bidirectional": self.bidirectional}

    def draw_weights(self, generator: torch.Generator) -> None:
        """He's for the convolutions, ``draw_recurrent_weights`` for the GRUs."""
        he_normal_(self, generator)
        draw_recurrent_weights(self, generator)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, N) -> every layer's map (B, C, T') by name, shallow to deep."""
        if x.shape[-1] < HOP:
            x = F.pad(x, (0, HOP - x.shape[-1]))
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, convolution in self.convolutions.items():
            x = maps[name] = F.relu(convolution(x))
        maps["context"] = self.context(x.transpose(1, 2))[0].transpose(1, 2)
        return maps
