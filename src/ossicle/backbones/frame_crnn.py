"""A convolutional recurrent network over the frames of a frozen one: what sounds when.

After the baseline of DCASE 2023 and 2024 task 4 (github.com/DCASE-REPO/DESED_task, CRNN.py): a
small convolutional network on the log-mel picture and the frame embeddings of a pre-trained
network, which is not trained on, side by side into two recurrent layers. There the embeddings are
BEATs's and pooled to the frames; here they are the layers of a convolutional network, and laid on
the frames by where in time they were made. B batch, C channels, F bands, T frames of the front end,
T' of the network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.layers import draw_recurrent_weights, he_normal_
from ossicle.backbones.mobilenet_v2 import MobileNetV2
from ossicle.backbones.resnet import ResNet18, ResNet50
from ossicle.backbones.yamnet import SEPARABLE, YAMNet
from ossicle.errors import OssicleError

HOPS = (1, 2, 4, 8)
FIRST_CHANNELS = 16
MAX_WIDTH, MAX_LAYERS = 4096, 8
# What never moves in the recordings tells nothing, and is not blown up.
LEAST_DEVIATION = 1e-4


class Base(NamedTuple):
    """A network whose frames can be read.

    Attributes:
        network: convolutional, of odd kernels with the same padding on both sides of an odd number
            of frames: frame i of a map with stride s is centred on frame i s of the picture. None
            of its layers hears all of the time at once.
        layers: those that are read where none are named.
    """

    network: type[Backbone]
    layers: tuple[str, ...]


BASES: dict[str, Base] = {
    "mobilenet_v2": Base(MobileNetV2, ()),
    "resnet18": Base(ResNet18, ()),
    "resnet50": Base(ResNet50, ()),
    "yamnet": Base(YAMNet, tuple(f"pointwise{n}" for n in range(2, 2 + len(SEPARABLE)))),
}


class FrameCRNN(Backbone):
    """Frozen frames and convolutions, then GRUs: (B, 1, F, T) -> maps, the last (B, 2 H, T').

    T' = ceil(T / hop_frames); frame j of the last map stands for the frames j h to (j + 1) h of the
    front end, h = hop_frames. A score for each comes from a head on the last map, ``Head.frames``.

    The frozen branch is in every state dict: whoever takes the network has all of it. No gradient
    reaches it, and its batch norms keep their stored statistics in training mode. Each of its
    layers is averaged over bands to ``base_bands`` of them, standardised by stored statistics
    (``fit_statistics``), mapped linearly to ``width``, and laid on the frames (``on_frames``); the
    sum over layers is the branch's output. As a linear map and an interpolation can change places,
    that is a linear map of all layers' interpolated frames side by side, in a fraction of the time.

    Args:
        base: one of ``BASES``; None for the log-mel picture alone.
        base_layers: of it, names with commas between them, or "all"; None: those of ``BASES``, of
            which () is all.
        base_bands: into how many coarse bands each of those is averaged.
        width: C of the frozen branch's output.
        mel: with a convolutional branch on the picture.
        channels: C of its last layers; the first has 16, each the double of the one before.
        hidden: H of a recurrent layer, of each of its two directions.
        recurrent_layers: how many.
        dropout: share of values that is dropped, in training mode only, before each recurrent layer
            and after the last.
        hop_frames: h, 1, 2, 4 or 8.

    Raises:
        OssicleError: an argument is out of its range, or nothing is left to listen to.
    """

    # Without a base, what the usual base hears: the two then differ in the base alone.
    frontend: ClassVar[dict[str, Any]] = dict(YAMNet.frontend)
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.1, "fill": "none"}
    source: ClassVar[str] = (
        "after the baseline of DCASE 2023 task 4, github.com/DCASE-REPO/DESED_task; no weights"
    )

    mel_mean: Tensor
    mel_std: Tensor
    base_mean: Tensor
    base_std: Tensor

    def __init__(
        self,
        base: str | None = None,
        base_layers: str | None = None,
        base_bands: int = 1,
        width: int = 128,
        mel: bool = True,
        channels: int = 128,
        hidden: int = 128,
        recurrent_layers: int = 2,
        dropout: float = 0.5,
        hop_frames: int = 4,
    ) -> None:
        super().__init__()
        sizes = {"base_bands": base_bands, "width": width, "channels": channels, "hidden": hidden}
        for name, size in sizes.items():
            if not 1 <= size <= MAX_WIDTH:
                raise OssicleError(f"{name} must be 1 to {MAX_WIDTH}, got {size}")
        if not 1 <= recurrent_layers <= MAX_LAYERS:
            raise OssicleError(f"recurrent_layers must be 1 to {MAX_LAYERS}")
        if not 0 <= dropout < 1:
            raise OssicleError(f"dropout must be at least 0 and below 1, got {dropout}")
        if hop_frames not in HOPS:
            raise OssicleError(f"hop_frames must be one of {HOPS}, got {hop_frames}")
        if base is None and (not mel or base_layers is not None):
            raise OssicleError("without a base there must be mel, and there are no base_layers")
        if base is not None and base not in BASES:
            raise OssicleError(f"unknown base {base!r}: choose one of {', '.join(BASES)}")
        self.base_name, self.base_bands, self.width = base, base_bands, width
        self.mel, self.channels, self.hidden = mel, channels, hidden
        self.dropout, self.hop_frames = dropout, hop_frames
        self.base: Backbone | None = None
        if base is not None:
            self.base = BASES[base].network().eval().requires_grad_(False)
            self.frontend = dict(self.base.frontend)  # type: ignore[misc]
            self.clip = dict(self.base.clip)  # type: ignore[misc]
            self.source = f"{FrameCRNN.source} of its own; base: {self.base.source}"  # type: ignore[misc]
        self.base_parts = self._base_parts(base_layers)
        info: list[LayerInfo] = []
        self.convolutions = self._convolutions(info)
        if self.base_parts:
            dims = sum(part.channels for part in self.base_parts)
            self.register_buffer("base_mean", torch.zeros(dims))
            self.register_buffer("base_std", torch.ones(dims))
            self.projection = nn.Linear(dims, width)
            info.append(LayerInfo("base", width, 0, hop_frames))
        joined = (channels if mel else 0) + (width if self.base_parts else 0)
        recurrent: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, recurrent_layers + 1):
            inputs = joined if number == 1 else 2 * hidden
            recurrent[f"gru{number}"] = nn.GRU(inputs, hidden, batch_first=True, bidirectional=True)
            info.append(LayerInfo(f"gru{number}", 2 * hidden, 0, hop_frames))
        self.recurrent = nn.ModuleDict(recurrent)
        self.drop = nn.Dropout(dropout)
        self.feature_info = tuple(info)

    def _base_parts(self, names: str | None) -> tuple[LayerInfo, ...]:
        """What is read of the base: its layers, with C K for channels and K for bands."""
        if self.base is None or self.base_name is None:
            return ()
        wanted = BASES[self.base_name].layers if names is None else tuple(names.split(","))
        if names == "all" or not wanted:
            wanted = self.base.layers
        unknown = [name for name in wanted if name not in self.base.layers]
        if unknown or len(set(wanted)) != len(wanted):
            raise OssicleError(
                f"base_layers {names!r:.80}: each once, with commas, of "
                f"{', '.join(self.base.layers)}"
            )
        parts = [part for part in self.base.feature_info if part.name in wanted]
        bands = [min(max(part.bands, 1), self.base_bands) for part in parts]
        return tuple(
            part._replace(channels=part.channels * k, bands=k)
            for part, k in zip(parts, bands, strict=True)
        )

    def _convolutions(self, info: list[LayerInfo]) -> nn.ModuleDict:
        """Blocks that halve the bands until one is left, the first ones the frames too."""
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        bands, stride, before = int(self.frontend["n_mels"]), 1, 1
        if self.mel:
            self.register_buffer("mel_mean", torch.zeros(bands))
            self.register_buffer("mel_std", torch.ones(bands))
        while self.mel and (bands > 1 or stride < self.hop_frames):
            number = len(blocks) + 1
            step = 2 if stride < self.hop_frames else 1
            last = bands <= 2 and stride * step == self.hop_frames
            wide = self.channels if last else FIRST_CHANNELS * 2 ** (number - 1)
            wide = min(wide, self.channels)
            blocks[f"conv{number}"] = nn.Sequential(
                nn.Conv2d(before, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
                nn.AvgPool2d((min(bands, 2), step), ceil_mode=True, count_include_pad=False),
            )
            bands, stride, before = -(-bands // 2), stride * step, wide
            info.append(LayerInfo(f"conv{number}", wide, bands, stride))
        return nn.ModuleDict(blocks)

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        layers = ",".join(part.name for part in self.base_parts)
        return {
            "base": self.base_name,
            "base_layers": layers or None,
            "base_bands": self.base_bands,
            "width": self.width,
            "mel": self.mel,
            "channels": self.channels,
            "hidden": self.hidden,
            "recurrent_layers": len(self.recurrent),
            "dropout": self.dropout,
            "hop_frames": self.hop_frames,
        }

    def draw_weights(self, generator: torch.Generator) -> None:
        """The base's own, He's for what is linear, ``draw_recurrent_weights`` for the GRUs."""
        if self.base is not None:
            self.base.draw_weights(generator)
            he_normal_(self.projection, generator)
        he_normal_(self.convolutions, generator)
        draw_recurrent_weights(self.recurrent, generator)

    def train(self, mode: bool = True) -> FrameCRNN:
        """As for any module, but for the base, which stays in evaluation."""
        super().train(mode)
        if self.base is not None:
            self.base.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> FrameCRNN:
        """As for any module, but for the base, which stays frozen."""
        super().requires_grad_(requires_grad)
        if self.base is not None:
            self.base.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, F, T) -> conv1, ... (B, C, F', T''), base and gru1, ... (B, C, T')."""
        return self.learned(self.frozen(x))

    def frozen(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """What training does not change, to be kept instead of made anew at every epoch.

        Args:
            x: (B, 1, F, T).

        Returns:
            "mel", the picture itself, then the base's layers (B, C K, 1 + ceil((T - 1) / s)) with
            s their stride: frame i is centred on frame i s of the picture, which is continued with
            its last frame up to where the deepest map's last frame lies.
        """
        parts = OrderedDict(mel=x)
        if self.base is None:
            return parts
        step = max(part.stride for part in self.base_parts)
        extra = (1 - x.shape[-1]) % step
        with torch.no_grad():
            maps = self.base(F.pad(x, (0, extra, 0, 0), mode="replicate") if extra else x)
            for part in self.base_parts:
                needed = 1 - (1 - x.shape[-1]) // part.stride
                parts[part.name] = _coarse(maps[part.name], part.bands)[..., :needed]
        return parts

    def learned(self, parts: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """The maps, from what ``frozen`` gives."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x, branches = parts["mel"], []
        frames = -(-x.shape[-1] // self.hop_frames)
        if self.mel:
            y = (x - self.mel_mean[:, None]) / self.mel_std[:, None]
            for name, block in self.convolutions.items():
                y = maps[name] = block(y)
            branches.append(y.flatten(1, 2))
        if self.base_parts:
            maps["base"] = self._projected(parts, frames)
            branches.append(maps["base"])
        y = torch.cat(branches, 1).transpose(1, 2)
        for name, layer in self.recurrent.items():
            y, _ = layer(self.drop(y))
            maps[name] = y.transpose(1, 2)
        maps[name] = self.drop(y).transpose(1, 2)
        return maps

    def _projected(self, parts: Mapping[str, Tensor], frames: int) -> Tensor:
        """(B, width, T')."""
        sizes = [part.channels for part in self.base_parts]
        statistics = zip(
            self.base_mean.split(sizes),
            self.base_std.split(sizes),
            self.projection.weight.split(sizes, 1),
            strict=True,
        )
        total: Tensor | None = None
        for part, (mean, std, weight) in zip(self.base_parts, statistics, strict=True):
            y = F.linear((parts[part.name].transpose(1, 2) - mean) / std, weight)
            y = on_frames(y.transpose(1, 2), part.stride, self.hop_frames, frames)
            total = y if total is None else total + y
        assert total is not None
        return total + self.projection.bias[:, None]

    @torch.no_grad()
    def fit_statistics(self, parts: Iterable[Mapping[str, Tensor]]) -> None:
        """Set mean and deviation of the bands and of the base's channels, by which both are scaled.

        Args:
            parts: what ``frozen`` gives for training recordings, one or a batch at a time; of test
                recordings never.

        Raises:
            OssicleError: there are none.
        """
        sums: dict[str, Tensor] = {}
        for batch in parts:
            for name, values in batch.items():
                x = values.double().movedim(-1, 0).flatten(0, 1).flatten(1)  # (T B, channels)
                new = torch.stack([torch.full_like(x[0], len(x)), x.sum(0), x.square().sum(0)])
                sums[name] = sums.get(name, torch.zeros_like(new)) + new
        if not sums:
            raise OssicleError("no recordings to fit statistics on")
        means = {name: total / count for name, (count, total, _) in sums.items()}
        deviations = {
            name: (squares / count - means[name].square()).clamp(min=0).sqrt()
            for name, (count, _, squares) in sums.items()
        }
        if self.mel:
            self.mel_mean.copy_(means["mel"])
            self.mel_std.copy_(_usable(deviations["mel"]))
        if self.base_parts:
            names = [part.name for part in self.base_parts]
            self.base_mean.copy_(torch.cat([means[name] for name in names]))
            self.base_std.copy_(_usable(torch.cat([deviations[name] for name in names])))


def on_frames(maps: Tensor, stride: int, hop: int, frames: int) -> Tensor:
    """A map on the frames of the network: (B, C, T'') -> (B, C, frames).

    Frame i of the map is centred on frame i s of the picture, frame j of the network on
    j h + (h - 1) / 2. Where h is a multiple of s, a frame is the mean of those h / s of the map
    that are centred in it; else it lies between two, linearly: with u = (j h + (h - 1) / 2) / s
    and i = floor(u), y[j] = (1 - (u - i)) x[i] + (u - i) x[i + 1], and the last of the map stays.

    Args:
        maps: of the base.
        stride: s, frames of the picture from one to the next.
        hop: h.
        frames: T'.
    """
    if hop % stride == 0:
        step = hop // stride
        pooled = F.avg_pool1d(maps, step, ceil_mode=True, count_include_pad=False)
        return pooled[..., :frames]
    at = (torch.arange(frames, device=maps.device) * hop + (hop - 1) / 2) / stride
    last = maps.shape[-1] - 1
    before = at.long().clamp(max=last)
    share = (at - before).clamp(max=1).to(maps.dtype)
    x = maps.transpose(1, 2)
    y = torch.lerp(x[:, before], x[:, (before + 1).clamp(max=last)], share[:, None])
    return y.transpose(1, 2)


def _coarse(maps: Tensor, bands: int) -> Tensor:
    """(B, C, F', T'') or (B, C, T'') -> (B, C K, T''), channel by channel."""
    if maps.dim() == 3:
        return maps
    if bands == 1:
        return maps.mean(2)
    return F.adaptive_avg_pool2d(maps, (bands, maps.shape[-1])).flatten(1, 2)


def _usable(deviation: Tensor) -> Tensor:
    return torch.where(deviation > LEAST_DEVIATION, deviation, torch.ones_like(deviation))
