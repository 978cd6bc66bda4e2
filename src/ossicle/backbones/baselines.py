"""Backbones without weights: the front end itself as the only layer (the baselines).

A representation that does not beat these has learned nothing of use.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.yamnet import YAMNet


class MFCCStatistics(Backbone):
    """20 MFCC with first and second differences: (B, 1, 60, T) -> {"mfcc": (B, 60, T)}.

    Pooled by mean and deviation over time it is the 120-dimensional baseline of Choi et al. 2017,
    section 3.3 (librosa's defaults at 12 kHz).
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "mfcc",
        "sample_rate": 12_000,
        "n_mfcc": 20,
        "n_fft": 2048,
        "hop_length": 512,
        "n_mels": 128,
        "deltas": 2,
        "delta": "difference",
    }
    clip: ClassVar[dict[str, Any]] = {"window_s": 30.0, "min_s": 0.0, "fill": "none"}
    poolings: ClassVar[tuple[str, ...]] = ("mean", "std")
    source: ClassVar[str] = "Choi et al. 2017, arXiv 1703.09179, section 3.3; no weights"

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = (LayerInfo("mfcc", 60, 0, 1),)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 60, T) -> {"mfcc": (B, 60, T)}."""
        return OrderedDict(mfcc=x.squeeze(1))


class MelStatistics(Backbone):
    """Log-mel bands as they are: (B, 1, 64, T) -> {"mel": (B, 64, T)}, YAMNet's front end."""

    frontend: ClassVar[dict[str, Any]] = YAMNet.frontend
    clip: ClassVar[dict[str, Any]] = {"window_s": 30.0, "min_s": 0.0, "fill": "none"}
    poolings: ClassVar[tuple[str, ...]] = ("mean", "std", "max")
    source: ClassVar[str] = "log-mel bands; no weights"

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = (LayerInfo("mel", 64, 0, 1),)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> {"mel": (B, 64, T)}."""
        return OrderedDict(mel=x.squeeze(1))
