"""The compact convnet of Choi et al., ISMIR 2017 (arXiv 1703.09179, section 3.1).

Five blocks of 32 channels on 96 mel bands; with 29 s at 12 kHz and a hop of 256 samples, the
pools leave one value a channel at the end. F = 96 bands, T = 1,360 frames. Shorter excerpts, with
smaller pools over time, are not of the paper but of this project.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.errors import OssicleError

# (bands, frames) of the five max-pools for 96 mel bands.
POOLS = ((2, 4), (3, 4), (2, 5), (2, 4), (4, 4))
CHANNELS = 32
N_BANDS = 96
SAMPLE_RATE = 12_000
HOP_LENGTH = 256
# What an excerpt may be long, s: some frames at least, and no more than memory holds.
EXCERPT_S = (0.1, 600.0)


def time_pools(n_frames: int) -> tuple[int, ...]:
    """The five max-pools over time for T = ``n_frames``: the published ones, or smaller.

    Of all pools none of which is larger than the published one, those with the largest product
    that leaves a frame of T; among these the evenest (the least sum), then the earliest. 1,280
    frames and more give the published (4, 4, 5, 4, 4).
    """
    sizes = itertools.product(*(range(1, most + 1) for _, most in POOLS))
    fitting = [(total, pools) for pools in sizes if (total := math.prod(pools)) <= n_frames]
    return max(fitting, key=lambda entry: (entry[0], -sum(entry[1]), entry[1]))[1]


class ChoiConvNet(Backbone):
    """Choi's convnet: (B, 1, 96, T) -> five maps, each after its max-pool; T at least 1,280.

    The published features used the batch's own statistics and the batch's loudest bin as the
    decibel reference; here normalisation uses stored statistics and the reference is the clip's,
    so that a clip's features do not depend on its neighbours.

    Args:
        excerpt_s: what it hears at once, in seconds. Not of the paper: a network for short clips
            need not repeat them up to 29 s. Only the pools over time follow, see ``time_pools``,
            and with them the least T; weights have the same shapes for all lengths.

    Raises:
        OssicleError: ``excerpt_s`` is not from 0.1 to 600 s.
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": SAMPLE_RATE,
        "n_fft": 512,
        "win_length": 512,
        "hop_length": HOP_LENGTH,
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

    def __init__(self, excerpt_s: float = 29.0) -> None:
        super().__init__()
        if not EXCERPT_S[0] <= excerpt_s <= EXCERPT_S[1]:
            raise OssicleError(
                f"excerpt_s is {excerpt_s}: it must be from {EXCERPT_S[0]:g} to {EXCERPT_S[1]:g} s"
            )
        self.excerpt_s = float(excerpt_s)
        self.clip = {  # type: ignore[misc]
            **type(self).clip,
            "window_s": self.excerpt_s,
            "min_s": self.excerpt_s,
        }
        # The front end's frames are centred: one more than there are whole hops.
        frames = round(self.excerpt_s * SAMPLE_RATE) // HOP_LENGTH + 1
        pools = zip(POOLS, time_pools(frames), strict=True)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        info = []
        channels, bands, stride = 1, N_BANDS, 1
        for number, ((bands_pool, _), frames_pool) in enumerate(pools, start=1):
            blocks[f"block{number}"] = nn.Sequential(
                nn.Conv2d(channels, CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS, eps=1e-3),
                nn.ELU(inplace=True),
                nn.MaxPool2d((bands_pool, frames_pool)),
            )
            channels, bands, stride = CHANNELS, bands // bands_pool, stride * frames_pool
            info.append(LayerInfo(f"block{number}", CHANNELS, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network."""
        return {"excerpt_s": self.excerpt_s}

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 96, T) -> five maps (B, 32, F', T')."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps
