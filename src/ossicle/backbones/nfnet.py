"""NFNet-F0 on log-mels (Brock et al. 2021, arXiv 2102.06171), a network without normalisation.

Layers: stem, block1_1 to block4_3, final. No statistic crosses items, so it trains with any batch
and needs no stored statistics. F = 64 bands.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.normaliser_free import (
    NFBlock,
    NFStem,
    ScaledGELU,
    WSConv2d,
    expected_deviations,
)
from ossicle.backbones.yamnet import YAMNet
from ossicle.errors import OssicleError

WIDTHS = (256, 512, 1536, 1536)
DEPTHS = (1, 2, 6, 3)
STRIDES = (1, 2, 2, 2)
GROUP_WIDTH = 128
# Group widths are halved with the network; below an eighth the fast path's would be no whole
# number.
WIDTH_FACTORS = (1.0, 0.5, 0.25, 0.125)
# YAMNet's mels, brought to about mean 0 and deviation 1 over speech, music and noises: without
# batch norm nothing else in the network would.
FRONTEND: dict[str, Any] = {**YAMNet.frontend, "shift": 2.4, "scale": 0.35}


def check_width(width: float) -> float:
    """The factor on all channels, if it is one of ``WIDTH_FACTORS``.

    Raises:
        OssicleError: it is not.
    """
    if width not in WIDTH_FACTORS:
        known = ", ".join(f"{factor:g}" for factor in WIDTH_FACTORS)
        raise OssicleError(f"width is {width!r}: choose one of {known}")
    return width


class NFNetF0(Backbone):
    """NFNet-F0: (B, 1, 64, T) -> 14 maps, the last (B, 3072 width, 2, ceil(T / 32)).

    Args:
        width: factor on all channels and group widths: 1, 1/2, 1/4 or 1/8.
        drop_rate: of stochastic depth at the last block; it grows from 0 by the block.
        skip_gain: where the gains of residual branches start; at 0, as published, a new network is
            its shortcuts alone, and a poor baseline.

    Raises:
        OssicleError: the width is none of these.
    """

    frontend: ClassVar[dict[str, Any]] = FRONTEND
    # 0.335 s are 32 frames: one of the deepest layers.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.335, "fill": "none"}
    source: ClassVar[str] = "Brock et al. 2021, arXiv 2102.06171, NFNet-F0; no weights"

    def __init__(self, width: float = 1.0, drop_rate: float = 0.25, skip_gain: float = 0.0) -> None:
        super().__init__()
        self.width, self.drop_rate = check_width(width), drop_rate
        self.skip_gain = skip_gain
        group = round(GROUP_WIDTH * width)
        channels = round(WIDTHS[0] * width) // 2
        bands, stride = -(-int(self.frontend["n_mels"]) // 4), 4
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        blocks["stem"] = NFStem(channels, [(3, 3)] * 4)
        info = [LayerInfo("stem", channels, bands, stride)]
        deviations = expected_deviations(DEPTHS)
        for stage, (base, depth, step) in enumerate(zip(WIDTHS, DEPTHS, STRIDES, strict=True)):
            bands, stride = -(-bands // step), stride * step
            for number in range(depth):
                index = sum(DEPTHS[:stage]) + number
                name, out = f"block{stage + 1}_{number + 1}", round(base * width)
                blocks[name] = NFBlock(
                    channels,
                    out,
                    group_width=group,
                    kernels=[(3, 3), (3, 3)],
                    stride=(step, step) if number == 0 else (1, 1),
                    beta=1 / deviations[index],
                    drop_rate=drop_rate * index / sum(DEPTHS),
                    skip_gain=skip_gain,
                )
                channels = out
                info.append(LayerInfo(name, channels, bands, stride))
        blocks["final"] = nn.Sequential(WSConv2d(channels, 2 * channels), ScaledGELU())
        info.append(LayerInfo("final", 2 * channels, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {
            "width": self.width,
            "drop_rate": self.drop_rate,
            "skip_gain": self.skip_gain,
        }

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> maps (B, C, F', ceil(T / stride)), shallow to deep."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps
