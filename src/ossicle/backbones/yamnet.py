"""YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet (Plakal & Ellis 2020).

Layer numbers are those of the published network: 1 is the plain convolution, 2 to 14 are the
separable ones, each with a depthwise and a pointwise map. All activations are ReLU6, as in the
TFLite release. F = 64 bands, one frame each 10 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import SameConv2d

# (stride, output channels) of the separable layers 2 to 14.
SEPARABLE = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)
BATCH_NORM_EPS = 1e-4
N_BANDS = 64


def _block(in_channels: int, channels: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        SameConv2d(in_channels, channels, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS),
        nn.ReLU6(inplace=True),
    )


class YAMNet(Backbone):
    """YAMNet's 27 convolutions: (B, 1, 64, T) -> 27 maps, the last (B, 1024, 2, ceil(T / 32)).

    The published model sees patches of 96 frames; being convolutional, this one takes any T, so
    that a clip is read whole: no patch borders inside it and no padding of short clips.
    """

    frontend: ClassVar[dict[str, Any]] = {
        "name": "log_mel",
        "sample_rate": 16_000,
        "n_fft": 512,
        "win_length": 400,
        "hop_length": 160,
        "n_mels": N_BANDS,
        "fmin": 125.0,
        "fmax": 7_500.0,
        "mel_scale": "htk",
        "triangles": "mel",
        "norm": None,
        "power": 1.0,
        "scaling": "log",
        "offset": 0.001,
        "center": False,
        "window_align": "left",
    }
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.975, "fill": "none"}
    # 96 frames every 48.
    # The sum of (kernel - 1) * stride so far, all on the right where 'same' padding puts it there.
    reach: ClassVar[int | None] = 314
    patches: ClassVar[dict[str, Any] | None] = {"window_s": 0.975, "hop_s": 0.48}
    source: ClassVar[str] = (
        "YAMNet, tensorflow/models research/audioset/yamnet (Apache-2.0), trained on AudioSet"
    )

    def __init__(self) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        info = []
        channels, bands, stride = 32, N_BANDS // 2, 2
        blocks["conv1"] = _block(1, channels, 3, 2, 1)
        info.append(LayerInfo("conv1", channels, bands, stride))
        for number, (step, out_channels) in enumerate(SEPARABLE, start=2):
            bands, stride = -(-bands // step), stride * step
            blocks[f"depthwise{number}"] = _block(channels, channels, 3, step, channels)
            info.append(LayerInfo(f"depthwise{number}", channels, bands, stride))
            blocks[f"pointwise{number}"] = _block(channels, out_channels, 1, 1, 1)
            info.append(LayerInfo(f"pointwise{number}", out_channels, bands, stride))
            channels = out_channels
        self.blocks = nn.ModuleDict(blocks)
        self.feature_info = tuple(info)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, 64, T) -> 27 maps (B, C, F', ceil(T / stride)), shallow to deep."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, block in self.blocks.items():
            x = block(x)
            maps[name] = x
        return maps
