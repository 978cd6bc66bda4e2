"""SlowFast NFNet-F0 on log-mels (Wang et al. 2022, HARES, arXiv 2111.12124, section 3.3).

A slow path hears a quarter of the frames with eight times the channels of the fast one; before
every stage what the fast path knows is joined to the slow one (Feichtenhofer et al. 2019, arXiv
1812.03982; for audio Kazakos et al. 2021, arXiv 2103.03516). Time is strided in the stem alone.
Layers: stem_slow, stem_fast, slow1_1, fast1_1, ... slow4_3, fast4_3, final. F = 64 bands.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.nfnet import DEPTHS, FRONTEND, GROUP_WIDTH, WIDTHS, check_width
from ossicle.backbones.normaliser_free import NFBlock, NFStem, WSConv2d, expected_deviations

PATHS = ("slow", "fast")
TIME_RATIO = 4  # frames of the fast path for each of the slow one
CHANNEL_RATIO = 8  # channels of the slow path for each of the fast one
FUSED_CHANNELS = (64, 256, 512, 1024)  # that each stage of the slow path gets from the fast one
FUSION_FRAMES = 7
BAND_STRIDES = (1, 2, 2, 2)
# Kernels are (bands, frames).
STEM_KERNELS = {"slow": [(3, 1), (3, 1), (3, 1), (3, 3)], "fast": [(3, 3), (3, 1), (3, 1), (3, 3)]}
FRAME_KERNELS = {"slow": (1, 1, 3, 3), "fast": (3, 3, 3, 3)}


class SlowFastNFNetF0(Backbone):
    """SlowFast NFNet-F0: (B, 1, 64, T) -> 27 maps, the last (B, 3456 width, ceil(T / 16)).

    The last map is both paths' final convolution, averaged over bands, the fast one's frames
    averaged in fours; its mean over time is the published embedding.

    Args:
        width: factor on all channels and group widths: 1, 1/2, 1/4 or 1/8.
        drop_rate: of stochastic depth at the last block; it grows from 0 by the block.
        skip_gain: where the gains of residual branches start; at 0, as published, a new network is
            its shortcuts alone, and a poor baseline.

    Raises:
        OssicleError: the width is none of these.
    """

    frontend: ClassVar[dict[str, Any]] = FRONTEND
    # 0.335 s are 32 frames, two of the slow path.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.335, "fill": "none"}
    source: ClassVar[str] = "Wang et al. 2022, arXiv 2111.12124 (HARES); no weights"

    def __init__(self, width: float = 1.0, drop_rate: float = 0.1, skip_gain: float = 0.0) -> None:
        super().__init__()
        self.width, self.drop_rate = check_width(width), drop_rate
        self.skip_gain = skip_gain
        widths = {
            "slow": [round(w * width) for w in WIDTHS],
            "fast": [round(w * width) // CHANNEL_RATIO for w in WIDTHS],
        }
        groups = {"slow": round(GROUP_WIDTH * width)}
        groups["fast"] = groups["slow"] // CHANNEL_RATIO
        strides = {"slow": 4 * TIME_RATIO, "fast": 4}
        bands = -(-int(self.frontend["n_mels"]) // 4)
        channels = {path: widths[path][0] // 2 for path in PATHS}
        info = [LayerInfo(f"stem_{p}", channels[p], bands, strides[p]) for p in PATHS]
        self.stems = nn.ModuleDict({p: NFStem(channels[p], STEM_KERNELS[p]) for p in PATHS})
        self.fusions = nn.ModuleList()
        self.blocks = nn.ModuleDict()
        deviations = expected_deviations(DEPTHS)
        for stage, depth in enumerate(DEPTHS):
            fused = round(FUSED_CHANNELS[stage] * width)
            fusion = WSConv2d(channels["fast"], fused, (1, FUSION_FRAMES), (1, TIME_RATIO))
            self.fusions.append(fusion)
            channels["slow"] += fused
            bands = -(-bands // BAND_STRIDES[stage])
            for number in range(depth):
                index = sum(DEPTHS[:stage]) + number
                for path in PATHS:
                    name = f"{path}{stage + 1}_{number + 1}"
                    out = widths[path][stage]
                    self.blocks[name] = NFBlock(
                        channels[path],
                        out,
                        group_width=groups[path],
                        kernels=[(1, FRAME_KERNELS[path][stage]), (3, 1)],
                        stride=(BAND_STRIDES[stage], 1) if number == 0 else (1, 1),
                        beta=1 / deviations[index],
                        drop_rate=drop_rate * index / sum(DEPTHS),
                        skip_gain=skip_gain,
                    )
                    channels[path] = out
                    info.append(LayerInfo(name, out, bands, strides[path]))
        self.finals = nn.ModuleDict({p: WSConv2d(channels[p], 2 * channels[p]) for p in PATHS})
        info.append(LayerInfo("final", 2 * sum(channels.values()), 0, strides["slow"]))
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {
            "width": self.width,
            "drop_rate": self.drop_rate,
            "skip_gain": self.skip_gain,
        }

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> maps (B, C, F', T'), shallow to deep, the last without bands."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        # A last group of fewer frames is a frame of its own: all of the clip is heard.
        slow = F.max_pool2d(x, (1, TIME_RATIO), ceil_mode=True)
        now = {"slow": self.stems["slow"](slow), "fast": self.stems["fast"](x)}
        maps.update({f"stem_{path}": now[path] for path in PATHS})
        for stage, depth in enumerate(DEPTHS):
            # Unscaled GELU here and at the end, as published.
            fused = F.gelu(self.fusions[stage](now["fast"]), approximate="tanh")
            now["slow"] = torch.cat([now["slow"], fused], 1)
            for number in range(depth):
                for path in PATHS:
                    name = f"{path}{stage + 1}_{number + 1}"
                    now[path] = maps[name] = self.blocks[name](now[path])
        finals = [F.gelu(self.finals[p](now[p]), approximate="tanh").mean(2) for p in PATHS]
        finals[1] = F.avg_pool1d(finals[1], TIME_RATIO, ceil_mode=True, count_include_pad=False)
        maps["final"] = torch.cat(finals, 1)
        return maps
