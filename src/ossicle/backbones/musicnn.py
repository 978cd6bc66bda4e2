"""musicnn: filters shaped after music, then three dense layers (Pons & Serra 2019, 1909.06654).

The front end has the shapes of Pons et al. 2018 (arXiv 1711.02520, section 3): timbral filters,
tall, of which only the strongest band counts, so that pitch does not matter; and temporal filters,
long, one band high. The middle is three convolutions over time, each reading all channels, with
residual connections. F = 96 bands, one frame each 16 ms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import SameConv2d

SAMPLE_RATE = 16_000
N_FFT = 512
HOP_LENGTH = 256
N_BANDS = 96
# The network was trained on patches of so many frames.
PATCH_FRAMES = 187
PATCH_S = (N_FFT + (PATCH_FRAMES - 1) * HOP_LENGTH) / SAMPLE_RATE
# Bands of the timbral filters (0.4 and 0.7 of all), all of 7 frames; frames of the temporal ones.
TIMBRAL_BANDS = (38, 67)
TIMBRAL_FRAMES = 7
TEMPORAL_FRAMES = (128, 64, 32)
TIMBRAL_CHANNELS = 204
TEMPORAL_CHANNELS = 51
DENSE_CHANNELS = 64
DENSE_FRAMES = 7
BATCH_NORM_EPS = 1e-3


class FilterBranch(nn.Module):
    """Filters of one shape, and the strongest band of each: (B, 1, F, T) -> (B, C, T).

    Args:
        conv: the filters, which keep T.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # The norm comes behind the ReLU, here and in the middle.
        self.layers = nn.Sequential(
            conv, nn.ReLU(inplace=True), nn.BatchNorm2d(conv.out_channels, eps=BATCH_NORM_EPS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) -> (B, C, T)."""
        # With the channels side by side in memory, as they come, the maximum is 20 times as fast.
        return self.layers(x).permute(0, 2, 3, 1).amax(1).transpose(1, 2)


class MusiCNN(Backbone):
    """musicnn, trained on MagnaTagATune: (B, 1, 96, T) -> five maps (B, C, T).

    The published model sees patches of 187 frames; being convolutional up to its pooling over
    time, this one takes any T, so that a clip's features are those of the clip read whole.
    """

    # log10(10000 x + 1) of the power in each band, x.
    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "win_length": N_FFT,
        "hop_length": HOP_LENGTH,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 8_000.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 2.0,
        "scaling": "log",
        "offset": 1e-4,
        "shift": math.log(1e4),
        "scale": 1 / math.log(10),
        # The published patches are cut out of a recording's frames; cut out of its samples, none
        # of theirs may reach over an edge.
        "center": False,
    }
    # What is shorter than a patch was repeated in training ("pad_short" of the published settings).
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": PATCH_S, "fill": "repeat"}
    # A patch begins at the frame after the last of the one before.
    patches: ClassVar[dict[str, Any] | None] = {
        "window_s": PATCH_S,
        "hop_s": PATCH_FRAMES * HOP_LENGTH / SAMPLE_RATE,
        "last": "overlap",
    }
    # Those of the published classifier; the maps have no bands.
    poolings: ClassVar[tuple[str, ...]] = ("mean", "max")
    source: ClassVar[str] = (
        "musicnn, Pons & Serra 2019, arXiv 1909.06654 (ISC), trained on MagnaTagATune"
    )

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
        around = (0, TIMBRAL_FRAMES // 2)
        self.timbral = nn.ModuleList(
            FilterBranch(nn.Conv2d(1, TIMBRAL_CHANNELS, (bands, TIMBRAL_FRAMES), padding=around))
            for bands in TIMBRAL_BANDS
        )
        self.temporal = nn.ModuleList(
            FilterBranch(SameConv2d(1, TEMPORAL_CHANNELS, (1, frames)))
            for frames in TEMPORAL_FRAMES
        )
        timbral = len(TIMBRAL_BANDS) * TIMBRAL_CHANNELS
        temporal = len(TEMPORAL_FRAMES) * TEMPORAL_CHANNELS
        self.dense = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, DENSE_CHANNELS, DENSE_FRAMES, padding=DENSE_FRAMES // 2),
                nn.ReLU(inplace=True),
                nn.BatchNorm1d(DENSE_CHANNELS, eps=BATCH_NORM_EPS),
            )
            for channels in (timbral + temporal, DENSE_CHANNELS, DENSE_CHANNELS)
        )
        self.feature_info = (
            LayerInfo("timbral", timbral, 0, 1),
            LayerInfo("temporal", temporal, 0, 1),
            *(LayerInfo(f"cnn{i}", DENSE_CHANNELS, 0, 1) for i in (1, 2, 3)),
        )

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 96, T) -> five maps (B, C, T), shallow to deep."""
        x = self.input_norm(x)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        maps["timbral"] = torch.cat([branch(x) for branch in self.timbral], 1)
        maps["temporal"] = torch.cat([branch(x) for branch in self.temporal], 1)
        first, second, third = self.dense
        maps["cnn1"] = first(torch.cat([maps["timbral"], maps["temporal"]], 1))
        maps["cnn2"] = second(maps["cnn1"]) + maps["cnn1"]
        maps["cnn3"] = third(maps["cnn2"]) + maps["cnn2"]
        return maps


class MusiCNNMSD(MusiCNN):
    """The same network, trained on the Million Song Dataset."""

    source: ClassVar[str] = (
        "musicnn, Pons & Serra 2019, arXiv 1909.06654 (ISC), trained on the Million Song Dataset"
    )
