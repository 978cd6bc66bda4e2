"""DenseNet-121 on log-mels (Huang et al. 2017, arXiv 1608.06993, table 1).

Every dense layer reads all maps before it in its block and adds 32 channels. Those 32 are its
layer here: the running concatenation would repeat each of them up to 23 times. F = 64 bands.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.multiscale import DILATIONS, MultiscaleInput
from ossicle.backbones.yamnet import YAMNet

GROWTH = 32
BOTTLENECK = 4  # channels between the two convolutions of a dense layer, over the growth
STEM_CHANNELS = 2 * GROWTH
DEPTHS = (6, 12, 24, 16)


class DenseLayer(nn.Sequential):
    """BN, ReLU, Conv 1, BN, ReLU, Conv 3: (B, C, F, T) -> (B, 32, F, T), the new channels alone.

    Huang et al. 2017, section 3, "Bottleneck layers". The inference copy folds the second batch
    norm into the convolution before it; the first has none before it.
    """

    def __init__(self, in_channels: int) -> None:
        width = BOTTLENECK * GROWTH
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, GROWTH, 3, padding=1, bias=False),
        )


def _transition(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        # The last frame of an odd number is kept, as its own mean: no part of a clip is lost.
        nn.AvgPool2d(2, ceil_mode=True),
    )


class DenseNet121(Backbone):
    """58 dense layers in 4 blocks: (B, 1, 64, T) -> 63 maps, the last (B, 1024, 2, ceil(T / 32)).

    The layers are conv1, then each dense layer's 32 new channels, the three transitions, and
    "final": all channels of the last block after the last batch norm and ReLU, which is what the
    published classifier reads.

    Args:
        multiscale: put the input block of McMahan & Rao 2018 before the network; it is then the
            first layer.
    """

    # McMahan & Rao's settings are not to be had. YAMNet's are ours: a comparison of the networks
    # is then not one of front ends.
    frontend: ClassVar[dict[str, Any]] = YAMNet.frontend
    # 0.335 s are 32 frames: one of the deepest layers. 4 s is the longest clip of UrbanSound8K,
    # the longest sound that McMahan & Rao trained on.
    clip: ClassVar[dict[str, Any]] = {"window_s": 4.0, "min_s": 0.335, "fill": "none"}
    source: ClassVar[str] = (
        "Huang et al. 2017, arXiv 1608.06993, table 1; on sound: McMahan & Rao 2018, "
        "arXiv 1710.08377; no weights"
    )

    def __init__(self, multiscale: bool = False) -> None:
        super().__init__()
        self.multiscale = multiscale
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        info = []
        channels, bands, stride = 1, YAMNet.frontend["n_mels"], 1
        if self.multiscale:
            channels = len(DILATIONS)
            blocks["multiscale"] = MultiscaleInput()
            info.append(LayerInfo("multiscale", channels, bands, stride))
        blocks["conv1"] = nn.Sequential(
            nn.Conv2d(channels, STEM_CHANNELS, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(inplace=True),
        )
        channels, bands, stride = STEM_CHANNELS, bands // 2, 2
        info.append(LayerInfo("conv1", channels, bands, stride))
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        for block, depth in enumerate(DEPTHS, start=1):
            # Bands and frames halve before each block: by the max-pool, then by the transitions.
            bands, stride = bands // 2, 2 * stride
            if block > 1:
                blocks[f"transition{block - 1}"] = _transition(channels, channels // 2)
                channels //= 2
                info.append(LayerInfo(f"transition{block - 1}", channels, bands, stride))
            for number in range(1, depth + 1):
                blocks[f"dense{block}_{number}"] = DenseLayer(channels)
                channels += GROWTH
                info.append(LayerInfo(f"dense{block}_{number}", GROWTH, bands, stride))
        blocks["final"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        info.append(LayerInfo("final", channels, bands, stride))
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {"multiscale": self.multiscale}

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> maps (B, C, F', ceil(T / stride)), shallow to deep."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            maps[name] = new = block(x)
            if isinstance(block, DenseLayer):
                x = torch.cat([x, new], 1)
            else:
                x = self.pool(new) if name == "conv1" else new
        return maps
