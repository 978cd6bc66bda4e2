"""A voice encoder: three LSTMs whose last state says who speaks.

Wan et al. 2018, "Generalized end-to-end loss for speaker verification" (arXiv 1710.10467), as the
project Resemblyzer trains it. F = 40 bands, one frame each 10 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import draw_recurrent_weights, he_normal_

SAMPLE_RATE = 16_000
WINDOW_LENGTH = 400
HOP_LENGTH = 160
N_BANDS = 40
HIDDEN = 256
LSTMS = ("lstm1", "lstm2", "lstm3")
# A vector is made of so many frames, every so many.
PARTIAL_FRAMES = 160
PARTIAL_HOP = 80
# RMS level that quieter sounds are raised to, dB below full scale.
LEAST_DB = -30.0


class SpeakerEncoder(Backbone):
    """The published LSTMs: (B, 1, 40, T) -> lstm1 to lstm3 (B, 256, T), embedding (B, 256, T').

    The LSTMs' maps are those of the clip read whole. The embedding is made of partials of 160
    frames, every 80, on which the LSTMs begin anew: the state after the last frame, a linear
    layer, ReLU, length 1. T' = max(1, T // 80): the last partial has at least 80 frames of the
    clip, or is the only one, and is filled up with silence. The published embedding of a clip is
    the mean over T', brought to length 1.
    """

    # The powers themselves, no logarithm.
    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": SAMPLE_RATE,
        "n_fft": WINDOW_LENGTH,
        "hop_length": HOP_LENGTH,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 8_000.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 2.0,
        "scaling": "linear",
        "center": True,
        "pad_mode": "constant",
        "least_db": LEAST_DB,
    }
    # What is shorter than a partial is filled up by the network.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.025, "fill": "none"}
    patches: ClassVar[dict[str, Any] | None] = {
        "window_s": PARTIAL_FRAMES * HOP_LENGTH / SAMPLE_RATE,
        "hop_s": PARTIAL_HOP * HOP_LENGTH / SAMPLE_RATE,
    }
    # The maps have no bands.
    poolings: ClassVar[tuple[str, ...]] = ("mean", "max")
    source: ClassVar[str] = (
        "Resemblyzer's voice encoder (Apache-2.0); Wan et al. 2018, arXiv 1710.10467"
    )

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleDict(
            {
                name: nn.LSTM(HIDDEN if i else N_BANDS, HIDDEN, batch_first=True)
                for i, name in enumerate(LSTMS)
            }
        )
        self.linear = nn.Linear(HIDDEN, HIDDEN)
        self.feature_info = (
            *(LayerInfo(name, HIDDEN, 0, 1) for name in LSTMS),
            LayerInfo("embedding", HIDDEN, 0, PARTIAL_HOP),
        )

    def draw_weights(self, generator: torch.Generator) -> None:
        """He's for the linear layer, ``draw_recurrent_weights`` for the LSTMs."""
        he_normal_(self, generator)
        draw_recurrent_weights(self, generator)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 40, T) -> lstm1 to lstm3 (B, 256, T) and embedding (B, 256, max(1, T // 80))."""
        x = x.squeeze(1)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        y = x.transpose(1, 2)
        for name in LSTMS:
            y = self.lstms[name](y)[0]
            maps[name] = y.transpose(1, 2)
        maps["embedding"] = self._partials(x)
        return maps

    def _partials(self, x: Tensor) -> Tensor:
        """(B, 40, T) -> (B, 256, max(1, T // 80))."""
        number = max(1, x.shape[-1] // PARTIAL_HOP)
        missing = (number - 1) * PARTIAL_HOP + PARTIAL_FRAMES - x.shape[-1]
        x = F.pad(x, (0, max(0, missing)))
        parts = x.unfold(-1, PARTIAL_FRAMES, PARTIAL_HOP)[:, :, :number]
        y = parts.permute(0, 2, 3, 1).flatten(0, 1)  # (B T', 160, 40)
        for name in LSTMS:
            y, (state, _) = self.lstms[name](y)
        vectors = F.normalize(F.relu(self.linear(state[-1])), dim=1)
        return vectors.unflatten(0, (len(x), number)).transpose(1, 2)
