"""Google's speech embedding: a small convnet that heads for keywords are trained on.

Lin et al. 2020, "Training keyword spotters with limited and synthesized speech data" (arXiv
2002.01322), section 3.2: 20 convolutions, over bands and over time by turns, trained to tell 5,000
keywords apart in groups. One vector of 96 values for 76 frames, every 8. F = 32 bands, one frame
each 10 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo

SAMPLE_RATE = 16_000
N_FFT = 512
HOP_LENGTH = 160
N_BANDS = 32
# Frames that one published vector is made of, and from one vector to the next.
WINDOW_FRAMES = 76
HOP_FRAMES = 8
CHANNELS = 96
# Frames on either side with which a clip of T has one vector for every 8 of its own frames, the
# frames in the middle of what the vector hears.
AROUND = (WINDOW_FRAMES - HOP_FRAMES) // 2
# (channels, kernel (bands, frames)) of the convolutions, and by number the pooling that follows.
CONVOLUTIONS: tuple[tuple[int, tuple[int, int]], ...] = (
    (24, (3, 3)),
    (24, (3, 1)),
    (24, (1, 3)),
    *((48, kernel) for kernel in ((3, 1), (1, 3)) * 2),
    *((72, kernel) for kernel in ((3, 1), (1, 3)) * 2),
    *((96, kernel) for kernel in ((3, 1), (1, 3)) * 4),
)
POOLED = {3: (2, 2), 7: (2, 1), 11: (2, 2), 15: (2, 1), 19: (2, 2)}


class FlooredLeakyReLU(nn.Module):
    """max(leaky ReLU of slope 0.2, -0.4), of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        return F.leaky_relu(x, 0.2).clamp(min=-0.4)


class SpeechEmbedding(Backbone):
    """The published convolutions: (B, 1, 32, T) -> 20 maps, the last (B, 96, max(1, T // 8)).

    The published network hears windows of 76 frames, every 8, and nothing of a clip's first and
    last 34 frames is ever in the middle of one. Here the first and the last frame stand on beyond
    the clip for 34 more, so that every frame is heard; frame i of the last map is, to the bit of
    rounding, the published vector of the frames 8 i - 34 to 8 i + 42. The other maps are cut to the
    clip's own frames.
    """

    # Decibels / 10 + 2, as what the published weights are run behind.
    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "win_length": 400,
        "hop_length": HOP_LENGTH,
        "n_mels": N_BANDS,
        "fmin": 60.0,
        "fmax": 3_800.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 2.0,
        "scaling": "db",
        "offset": 1e-10,
        "reference": 1.0,
        "top_db": 80.0,
        "shift": 20.0,
        "scale": 0.1,
        "center": False,
    }
    clip: ClassVar[dict[str, Any]] = {
        "window_s": 10.0,
        "min_s": (N_FFT + (WINDOW_FRAMES - 1) * HOP_LENGTH) / SAMPLE_RATE,
        "fill": "none",
    }
    patches: ClassVar[dict[str, Any] | None] = {
        "window_s": (N_FFT + (WINDOW_FRAMES - 1) * HOP_LENGTH) / SAMPLE_RATE,
        "hop_s": HOP_FRAMES * HOP_LENGTH / SAMPLE_RATE,
    }
    source: ClassVar[str] = (
        "speech_embedding, Lin et al. 2020, arXiv 2002.01322 (Apache-2.0), trained on keywords"
    )

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()
        info, first = [], []
        channels, bands, stride, lost = 1, N_BANDS, 1, 0
        for number, (out_channels, kernel) in enumerate(CONVOLUTIONS, start=1):
            name = f"conv{number}"
            # Zeros beside the bands, none beside the frames.
            conv = nn.Conv2d(channels, out_channels, kernel, padding=(kernel[0] // 2, 0))
            self.blocks[name] = nn.Sequential(conv, FlooredLeakyReLU())
            channels = out_channels
            lost += kernel[1] // 2 * stride
            info.append(LayerInfo(name, channels, bands, stride))
            first.append((AROUND - lost) // stride)
            pool_bands, pool_frames = POOLED.get(number, (1, 1))
            bands, stride = bands // pool_bands, stride * pool_frames
        self.embedding = nn.Conv2d(channels, CHANNELS, (1, 3), bias=False)
        info.append(LayerInfo("embedding", CHANNELS, 0, stride))
        self._first = tuple(first)
        self.feature_info = tuple(info)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 32, T) -> 20 maps (B, C, F', max(1, T // stride)), the last without F'."""
        frames = x.shape[-1]
        after = max(AROUND, WINDOW_FRAMES - AROUND - frames)
        x = F.pad(x, (AROUND, after, 0, 0), mode="replicate")
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for number, (name, block) in enumerate(self.blocks.items(), start=1):
            x = block(x)
            own = max(1, frames // self.feature_info[number - 1].stride)
            maps[name] = x[..., self._first[number - 1] :][..., :own]
            if number in POOLED:
                x = F.max_pool2d(x, POOLED[number])
        maps["embedding"] = self.embedding(x).squeeze(2)
        return maps
