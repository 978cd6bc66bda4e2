"""The convolutional recurrent network for sound event detection, with a value for every frame.

Cakir et al. 2017 (arXiv 1702.06286), in the sizes of the open SEDnet
(github.com/sharathadavanne/sed-crnn): three convolutions that pool over bands only, two recurrent
layers, one dense layer. B batch, C channels, F bands, T frames; T is kept from first to last.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import draw_recurrent_weights, he_normal_

N_BANDS = 40
# Bands that each of the three max-pools joins.
POOLS = (5, 2, 2)
RECURRENT_LAYERS = 2


class FrameGRU(nn.Module):
    """A recurrent layer, (B, T, C) -> (B, T, H); of two directions the product is taken.

    Args:
        in_channels: C.
        hidden: H.
        causal: forwards only: frame t depends on frames up to t.
    """

    def __init__(self, in_channels: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(in_channels, hidden, batch_first=True, bidirectional=not causal)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, H)."""
        y, _ = self.gru(x)
        if not self.gru.bidirectional:
            return y
        forwards, backwards = y.chunk(2, -1)
        return forwards * backwards


class CRNN(Backbone):
    """Conv x 3, GRU x 2, dense: (B, 1, 40, T) -> six maps, the last (B, 32, T); T at least 1.

    A score for every frame comes from a head on the last map, ``Head.frames``.

    Args:
        causal: pad convolutions on the left in time only, and run the recurrent layers forwards
            only: frame t of every map then depends on frames up to t of the input.
        channels: C of the convolutions.
        hidden: C of the recurrent layers.
        dense: C of the dense layer.
        dropout: share of values that is dropped, in training mode only, at the entrance of every
            layer but the first.
    """

    # 40 bands of 40 ms that overlap by half are the paper's. Scale, shift and offset are ours:
    # they stand for the training set's mean and deviation, and bring the logarithms of the carried
    # clips to about 0 and 1.
    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 16_000,
        "n_fft": 1024,
        "win_length": 640,
        "hop_length": 320,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 8_000.0,
        "mel_scale": "slaney",
        "norm": None,
        "power": 1.0,
        "scaling": "log",
        "offset": 0.01,
        "shift": 1.0,
        "scale": 0.4,
        "center": False,
        "window_align": "left",
    }
    # 40 ms are one frame.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.04, "fill": "none"}
    source: ClassVar[str] = "Cakir et al. 2017, arXiv 1702.06286, sizes of SEDnet; no weights"

    def __init__(
        self,
        causal: bool = False,
        channels: int = 128,
        hidden: int = 32,
        dense: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.causal, self.channels, self.hidden = causal, channels, hidden
        self.dense_channels, self.dropout = dense, dropout
        convolutions: OrderedDict[str, nn.Module] = OrderedDict()
        info, bands = [], N_BANDS
        for number, pool in enumerate(POOLS, start=1):
            bands //= pool
            convolutions[f"conv{number}"] = nn.Sequential(
                nn.ZeroPad2d((2, 0, 0, 0)) if causal else nn.Identity(),
                nn.Conv2d(
                    1 if number == 1 else channels, channels, 3, padding=(1, 0 if causal else 1)
                ),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d((pool, 1)),
            )
            info.append(LayerInfo(f"conv{number}", channels, bands, 1))
        self.convolutions = nn.ModuleDict(convolutions)
        recurrent: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, RECURRENT_LAYERS + 1):
            width = channels * bands if number == 1 else hidden
            recurrent[f"gru{number}"] = FrameGRU(width, hidden, causal)
            info.append(LayerInfo(f"gru{number}", hidden, 0, 1))
        self.recurrent = nn.ModuleDict(recurrent)
        self.dense = nn.Linear(hidden, dense)
        info.append(LayerInfo("dense", dense, 0, 1))
        self.drop = nn.Dropout(dropout)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {
            "causal": self.causal,
            "channels": self.channels,
            "hidden": self.hidden,
            "dense": self.dense_channels,
            "dropout": self.dropout,
        }

    def draw_weights(self, generator: torch.Generator) -> None:
        """He's for convolutions and the dense layer, ``draw_recurrent_weights`` for the GRUs."""
        he_normal_(self, generator)
        draw_recurrent_weights(self, generator)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 40, T) -> conv1 to conv3 (B, C, F', T); gru1, gru2 and dense (B, C, T)."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.convolutions.items():
            x = block(self.drop(x) if maps else x)
            maps[name] = x
        x = x.permute(0, 3, 1, 2).flatten(2)  # (B, T, C * F'), channel by channel
        for name, layer in self.recurrent.items():
            x = layer(self.drop(x))
            maps[name] = x.transpose(1, 2)
        maps["dense"] = self.dense(self.drop(x)).transpose(1, 2)
        return maps
