"""The compact convnet of Choi et al., ISMIR 2017 (arXiv 1703.09179, section 3.1).

Five blocks of 32 channels on 96 mel bands; with 29 s at 12 kHz and a hop of 256 samples, the
pools leave one value a channel at the end. F = 96 bands, T = 1,360 frames.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo

# (bands, frames) of the five max-pools for 96 mel bands.
POOLS = ((2, 4), (3, 4), (2, 5), (2, 4), (4, 4))
CHANNELS = 32
N_BANDS = 96


class ChoiConvNet(Backbone):
    """Choi's convnet: (B, 1, 96, T) -> five maps, each after its max-pool; T at least 1,280.

    The published features used the batch's own statistics and the batch's loudest bin as the
    decibel reference; here normalisation uses stored statistics and the reference is the clip's,
    so that a clip's features do not depend on its neighbours.
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 12_000,
        "n_fft": 512,
        "win_length": 512,
        "hop_length": 256,
        "n_mels": N_BANDS,
        "fmin": 0.0,
        "fmax": 6_000.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 2.0,
        "scaling": "db",
        "reference": "max",
        "top_db": 80.0,
        "center": True,
        "pad_mode": "constant",
    }
    clip: ClassVar[dict[str, Any]] = {"window_s": 29.0, "min_s": 29.0, "fill": "repeat"}
    poolings: ClassVar[tuple[str, ...]] = ("mean",)
    source: ClassVar[str] = "Choi et al. 2017, arXiv 1703.09179, section 3.1"

    def __init__(self) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        info = []
        channels, bands, stride = 1, N_BANDS, 1
        for number, pool in enumerate(POOLS, start=1):
            blocks[f"block{number}"] = nn.Sequential(
                nn.Conv2d(channels, CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS, eps=1e-3),
                nn.ELU(inplace=True),
                nn.MaxPool2d(pool),
            )
            channels, bands, stride = CHANNELS, bands // pool[0], stride * pool[1]
            info.append(LayerInfo(f"block{number}", CHANNELS, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 96, T) -> five maps (B, 32, F', T')."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps
