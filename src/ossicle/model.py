"""A model: front end + backbone + read-out + head, joined so that they cannot come apart.

B batch, C channels, F bands, T frames, N samples; time is last. A clip of any length is one item:
`ClipPolicy` says how it is cut, pooling joins the parts.
"""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.backbones import BACKBONES, WEIGHTS, Backbone
from ossicle.backbones.layers import fold_batch_norm, he_normal_
from ossicle.errors import OssicleError
from ossicle.frontend import FrontEnd, create_frontend
from ossicle.heads import (
    ACTIVATIONS,
    POOLINGS,
    Head,
    check_poolings,
    combine,
    count_parameters,
    pooled_size,
)


class ClipPolicy(NamedTuple):
    """How a clip of any length meets a network; every sample is used once.

    Attributes:
        window_s: the longest stretch that the network sees at once, in seconds.
        min_s: the shortest; what is shorter is filled up.
        fill: "none" (zeros up to `min_s`) or "repeat" (the clip over and over up to `min_s`).
    """

    window_s: float
    min_s: float
    fill: str = "none"

    def segments(self, n_samples: int, sample_rate: int) -> list[tuple[int, int]]:
        """(start, end) in samples; the last two of several share what is left in equal parts.

        >>> ClipPolicy(10, 1).segments(25, 1)
        [(0, 10), (10, 18), (18, 25)]
        """
        window = max(1, round(self.window_s * sample_rate))
        starts = list(range(0, n_samples, window)) or [0]
        if len(starts) > 1 and n_samples - starts[-1] < window:
            starts[-1] = starts[-2] + -(-(n_samples - starts[-2]) // 2)
        return list(zip(starts, [*starts[1:], n_samples], strict=True))

    def filled(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """(N,) -> (max(N, min_s * sample_rate),)."""
        least = round(self.min_s * sample_rate)
        if len(samples) >= least:
            return samples
        if self.fill == "repeat":
            return np.resize(samples, least)
        return np.pad(samples, (0, least - len(samples)))

    def describe(self, sample_rate: int) -> str:
        """The policy in words, for reports."""
        short = "repeated" if self.fill == "repeat" else "filled with zeros"
        return (
            f"every second of a clip is used, once, at {sample_rate} Hz: read whole up to "
            f"{self.window_s:g} s, longer ones in parts whose statistics are joined; clips under "
            f"{self.min_s:g} s are {short} up to that"
        )


class Model(nn.Module):
    """Front end, backbone, and where there is one, read-out and head.

    Args:
        frontend: waveform (B, N) -> (B, 1, F, T).
        backbone: -> layer maps.
        clip: how clips are cut and filled.
        readout: the blocks "LAYER/POOLING" that the head reads, in order; empty without a head.
        head: (B, D) -> (B, K) logits; None for a bare representation.
        classes: names of the K outputs, in order.
        task: "classes", "multilabel" or "regression".
        info: what else belongs on the label: name, licence, training data, scores.

    Raises:
        OssicleError: the head's width is not the read-out's, or the outputs are not the classes'.
    """

    def __init__(
        self,
        frontend: FrontEnd,
        backbone: Backbone,
        *,
        clip: ClipPolicy,
        readout: Sequence[str] = (),
        head: Head | None = None,
        classes: Sequence[str] = (),
        task: str = "classes",
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.frontend, self.backbone, self.head = frontend, backbone, head
        self.clip, self.readout = clip, tuple(readout)
        self.classes, self.task = tuple(classes), task
        self.info = dict(info or {})
        self._folded: nn.Module | None = None
        if task not in ACTIVATIONS:
            raise OssicleError(f"unknown task {task!r}: choose one of {', '.join(ACTIVATIONS)}")
        if head is not None:
            width = sum(self.block_sizes(self.readout).values())
            if head.sizes[0] != width:
                raise OssicleError(
                    f"the head reads {head.sizes[0]} values, the blocks give {width}"
                )
            if task != "regression" and head.sizes[-1] != len(self.classes):
                raise OssicleError(
                    f"the head has {head.sizes[-1]} outputs for {len(self.classes)} classes"
                )

    @property
    def sample_rate(self) -> int:
        """Hz; audio of any other rate is resampled to it."""
        return int(self.frontend.sample_rate)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the backbone's layers, shallow to deep."""
        return self.backbone.layers

    @property
    def num_parameters(self) -> int:
        """Parameters of backbone and head."""
        return count_parameters(self)

    def train(self, mode: bool = True) -> Model:
        """As in torch; leaving evaluation forgets the folded copy, whose weights may grow stale."""
        self._folded = None
        return super().train(mode)

    def block_sizes(self, names: Sequence[str]) -> OrderedDict[str, int]:
        """Length of each block "LAYER/POOLING".

        Raises:
            OssicleError: there is no such layer or pooling.
        """
        by_name = {info.name: info for info in self.backbone.feature_info}
        sizes: OrderedDict[str, int] = OrderedDict()
        for name in names:
            layer, _, pooling = name.rpartition("/")
            if layer not in by_name or pooling not in POOLINGS:
                raise OssicleError(
                    f"unknown block {name!r}: LAYER/POOLING, see `ossicle backbones`"
                )
            sizes[name] = pooled_size(by_name[layer].channels, by_name[layer].bands, pooling)
        return sizes

    def select_layers(self, layers: str | Sequence[str | int] = "all") -> tuple[str, ...]:
        """Layer names from "all", "last", names, integers (negative from the end) or "a-b" ranges.

        A string may hold several, with commas: "1-5,last". Integers count from 1.

        Raises:
            OssicleError: no such layer.
        """
        parts = layers.split(",") if isinstance(layers, str) else list(layers)
        chosen: set[int] = set()
        for part in parts:
            chosen.update(self._layer_range(str(part).strip()))
        return tuple(self.layers[i] for i in sorted(chosen))

    def _layer_range(self, text: str) -> range:
        names, n = self.layers, len(self.layers)
        if text == "all":
            return range(n)
        if text == "last":
            return range(n - 1, n)
        if text in names:
            return range(names.index(text), names.index(text) + 1)
        first, dash, last = text.partition("-") if not text.startswith("-") else (text, "", "")
        try:
            a = int(first)
            b = int(last) if dash else a
        except ValueError:
            a = b = 0
        if a < 0:
            a = b = n + 1 + a
        if not 1 <= a <= b <= n:
            shown = ", ".join(names if n <= 8 else [*names[:3], "...", *names[-3:]])
            raise OssicleError(f"no layer {text!r}: 1 to {n}, all, last, or a name ({shown})")
        return range(a - 1, b)

    def forward_layers(self, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) waveforms at `sample_rate` -> every layer's map (B, C, F', T')."""
        return self._inference_backbone()(self.frontend(waveform))

    def _inference_backbone(self) -> nn.Module:
        if self.training or any(p.requires_grad for p in self.backbone.parameters()):
            return self.backbone
        if self._folded is None:
            # Kept out of the module's children: it must not be saved or moved twice.
            object.__setattr__(self, "_folded", fold_batch_norm(self.backbone))
        assert self._folded is not None
        return self._folded

    def pooled(
        self, waveform: Tensor, layers: Sequence[str], poolings: Sequence[str]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
        """(B, N) -> {layer: {pooling: (B, dims)}}, and T' of each layer."""
        wanted = set(layers)
        blocks, frames = {}, {}
        for name, maps in self.forward_layers(waveform).items():
            if name in wanted:
                blocks[name] = {p: POOLINGS[p](maps) for p in poolings}
                frames[name] = maps.shape[-1]
        return blocks, frames

    @torch.inference_mode()
    def clip_features(
        self,
        samples: np.ndarray,
        layers: Sequence[str] | None = None,
        poolings: Sequence[str] | None = None,
    ) -> OrderedDict[str, np.ndarray]:
        """One clip's blocks; the same numbers whatever is processed before, after or beside it.

        Args:
            samples: (N,) float32 at `sample_rate`.
            layers: names; None is all.
            poolings: names; None is the backbone's own.

        Returns:
            "LAYER/POOLING" -> (dims,) float32, by layer from shallow to deep.
        """
        layers = self.layers if layers is None else tuple(layers)
        poolings = check_poolings(self.backbone.poolings if poolings is None else poolings)
        asked = poolings if "std" not in poolings else tuple(dict.fromkeys(("mean", *poolings)))
        parts, frames = [], []
        for start, end in self.clip.segments(len(samples), self.sample_rate):
            part = self.clip.filled(samples[start:end], self.sample_rate)
            blocks, lengths = self.pooled(torch.from_numpy(part)[None], layers, asked)
            parts.append(blocks)
            frames.append(lengths)
        result: OrderedDict[str, np.ndarray] = OrderedDict()
        for layer in (name for name in self.layers if name in set(layers)):
            whole = combine([p[layer] for p in parts], [f[layer] for f in frames])
            for pooling in poolings:
                result[f"{layer}/{pooling}"] = whole[pooling][0].numpy()
        return result

    @torch.inference_mode()
    def clip_scores(self, samples: np.ndarray) -> np.ndarray:
        """(N,) float32 at `sample_rate` -> (K,): probabilities, or values for a regression.

        Raises:
            OssicleError: the model has no head.
        """
        return self.scores_from_blocks(self.clip_features(samples, *self.readout_parts()))

    def readout_parts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(layers, poolings) that hold every block of the read-out."""
        pairs = [name.rpartition("/")[::2] for name in self.readout]
        return tuple(dict.fromkeys(p[0] for p in pairs)), tuple(dict.fromkeys(p[1] for p in pairs))

    @torch.inference_mode()
    def scores_from_blocks(self, blocks: dict[str, np.ndarray]) -> np.ndarray:
        """Blocks "LAYER/POOLING" of one clip (dims,) -> (K,) scores.

        Raises:
            OssicleError: the model has no head.
        """
        if self.head is None:
            raise OssicleError("this model has no head: train one with `ossicle train`")
        vector = np.concatenate([blocks[name] for name in self.readout])
        return ACTIVATIONS[self.task](self.head(torch.from_numpy(vector)[None]))[0].numpy()

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, N) waveforms, no longer than the clip policy's window -> (B, K) logits."""
        if self.head is None:
            raise OssicleError("this model has no head: train one with `ossicle train`")
        layers, poolings = self.readout_parts()
        blocks, _ = self.pooled(waveform, layers, poolings)
        columns = [blocks[layer][p] for layer, _, p in (n.rpartition("/") for n in self.readout)]
        return self.head(torch.cat(columns, 1))


def create_model(name: str, pretrained: bool = False, *, seed: int = 0, **config: Any) -> Model:
    """Build the model called ``name`` with the front end it was trained with.

    Args:
        name: one of ``list_models()``.
        pretrained: load published weights (fetched once into the cache), with the classifier of
            their source task as head; otherwise weights are drawn at random from ``seed``.
        seed: of the random weights.
        config: keywords of the backbone's constructor.

    Raises:
        OssicleError: the name is unknown, or the network has no published weights.
        DownloadError: the weights are not to be had.
    """
    if name not in BACKBONES:
        raise OssicleError(f"unknown backbone {name!r}: choose one of {', '.join(list_models())}")
    if pretrained and name not in WEIGHTS:
        known = ", ".join(WEIGHTS)
        raise OssicleError(f"{name} has no published weights (those that have: {known})")
    backbone = BACKBONES[name](**config)
    info = {"name": name, "pretrained": pretrained, "source": backbone.source}
    readout: tuple[str, ...] = ()
    head, classes = None, ()
    if pretrained:
        weights = WEIGHTS[name].load()
        backbone.load_state_dict(weights.state)
        head, classes = Head.from_layers([weights.head]), weights.classes
        readout = (f"{backbone.layers[-1]}/mean",)
        info["weights"] = WEIGHTS[name].description
        info["licence"] = WEIGHTS[name].licence
    else:
        he_normal_(backbone, torch.Generator().manual_seed(seed))
        info["weights"] = f"random, seed {seed}" if count_parameters(backbone) else "none"
        info["licence"] = "none needed"
    # The published taggers score each class by itself.
    model = Model(
        create_frontend(**backbone.frontend),
        backbone,
        clip=ClipPolicy(**backbone.clip),
        readout=readout,
        head=head,
        classes=classes,
        task="multilabel" if pretrained else "classes",
        info=info,
    )
    return model.eval().requires_grad_(False)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that match a pattern with wildcards, in alphabetical order.

    Args:
        pattern: such as "*net*".
        pretrained: only those with published weights.
    """
    names = WEIGHTS if pretrained else BACKBONES
    return sorted(fnmatch.filter(names, pattern))
