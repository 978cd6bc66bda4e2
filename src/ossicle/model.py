"""A model: front end + backbone + read-out + head, joined so that they cannot come apart.

B batch, C channels, F bands, T frames, N samples; time is last. A clip of any length is one item:
`ClipPolicy` says how it is cut, pooling joins the parts.
"""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.backbones import BACKBONES, FAMILIES, WEIGHTS, Backbone, is_family, open_family
from ossicle.backbones.clip_policy import ClipPolicy, Patches
from ossicle.backbones.folding import Folded, folded
from ossicle.backbones.layer_names import layers_asked
from ossicle.calibrated import CalibrationTable
from ossicle.errors import OssicleError
from ossicle.frontend import FrontEnd, create_frontend
from ossicle.heads import (
    ACTIVATIONS,
    POOLINGS,
    Head,
    check_poolings,
    combine,
    count_parameters,
    pool,
    pooled_size,
)
from ossicle.novelty import Novelty, entropy


class Model(nn.Module):
    """Front end, backbone, and where there is one, read-out and head.

    Args:
        frontend: waveform (B, N) -> (B, 1, F, T).
        backbone: -> layer maps.
        clip: how clips are cut and filled.
        patches: how the head hears a clip, where it is on patches; None: as features are made.
        readout: the blocks "LAYER/POOLING" that the head reads, in order; empty without a head.
        head: (B, D) -> (B, K) logits; None for a bare representation.
        classes: names of the K outputs, in order.
        task: "classes", "multilabel" or "regression".
        info: what else belongs on the label: name, licence, training data, scores.

    Raises:
        OssicleError: an unknown task or block, a block read twice, a head whose width is not the
            read-out's, or outputs that are not the classes'.
    """

    framewise = False  # whether scores come from frames, as a Detector's do, not the read-out

    def __init__(
        self,
        frontend: FrontEnd,
        backbone: Backbone,
        *,
        clip: ClipPolicy,
        patches: Patches | None = None,
        readout: Sequence[str] = (),
        head: Head | None = None,
        classes: Sequence[str] = (),
        task: str = "classes",
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.frontend, self.backbone, self.head = frontend, backbone, head
        self.patches = patches
        self.clip, self.readout = clip, tuple(readout)
        self.classes, self.task = tuple(classes), task
        self.info = dict(info or {})
        self.calibration: CalibrationTable | None = None  # what the head's scores go through
        self.novelty: Novelty | None = None  # how unlike all that was learnt from a read-out is
        self._folded: Folded | None = None
        if task not in ACTIVATIONS:
            raise OssicleError(f"unknown task {task!r}: choose one of {', '.join(ACTIVATIONS)}")
        width = sum(self.block_sizes(self.readout).values())
        if len(set(self.readout)) != len(self.readout):
            raise OssicleError("the head reads a block twice")
        if head is not None:
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

    @property
    def device(self) -> torch.device:
        """Where the numbers are; `.to(device)` moves them, clips follow by themselves."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def __getstate__(self) -> dict[str, Any]:
        """What copies carry: all but the folded backbone, which each copy makes for itself."""
        return {**self.__dict__, "_folded": None}

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

    def select_layers(self, layers: str | int | Sequence[str | int] = "all") -> tuple[str, ...]:
        """Layer names from "all", "last", names, integers (negative from the end) or "a-b" ranges.

        A string may hold several, with commas: "1-5,last". Integers count from 1. Whatever the
        order asked for, names come shallow to deep, each once.

        Raises:
            OssicleError: no such layer, or none at all.
        """
        return layers_asked(self.layers, layers)

    def forward_layers(self, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) waveforms at `sample_rate` -> every layer's map (B, C, F', T').

        In training mode batch norms use, and learn from, the batch, as torch has it.
        """
        live = self.training or any(p.requires_grad for p in self.backbone.parameters())
        # An exported graph folds by itself, and its tensors have no addresses.
        live = live or torch.compiler.is_compiling() or torch.jit.is_tracing()
        picture = channels_last(self.frontend(waveform))
        return self.backbone(picture) if live else self._folded_backbone()(picture)

    def _folded_backbone(self) -> nn.Module:
        """The backbone for inference, whatever mode the model is in; made when weights change."""
        # Not a child: it must not be saved or moved twice.
        object.__setattr__(self, "_folded", folded(self.backbone, self._folded))
        assert self._folded is not None
        return self._folded.network

    def pooled(
        self, waveform: Tensor, layers: Sequence[str], poolings: Sequence[str]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
        """(B, N) -> {layer: {pooling: (B, dims)}}, and T' of each layer."""
        return _pool(self.forward_layers(waveform), layers, poolings)

    @torch.inference_mode()
    def clip_features(
        self,
        samples: np.ndarray,
        layers: Sequence[str] | None = None,
        poolings: Sequence[str] | None = None,
    ) -> OrderedDict[str, np.ndarray]:
        """One clip's blocks; the same numbers whatever is processed before, after or beside it.

        Batch norms use their stored statistics, also in training mode.

        Args:
            samples: (N,) float32 at `sample_rate`.
            layers: names; None is all.
            poolings: names; None is the backbone's own.

        Returns:
            "LAYER/POOLING" -> (dims,) float32, by layer from shallow to deep.

        Raises:
            OssicleError: the samples are not (N,), or a pooling is unknown.
        """
        if np.ndim(samples) != 1:
            raise OssicleError(f"one clip is (N,) samples, not {np.shape(samples)}")
        spans = self.clip.segments(len(samples), self.sample_rate)
        return self.join_features((samples[a:b] for a, b in spans), layers, poolings)

    @torch.inference_mode()
    def join_features(
        self,
        parts: Iterable[np.ndarray],
        layers: Sequence[str] | None = None,
        poolings: Sequence[str] | None = None,
    ) -> OrderedDict[str, np.ndarray]:
        """One clip's blocks from its parts in order, as ``clip.segments`` cuts them.

        Memory holds one part, however long the clip is. Arguments and result otherwise as for
        ``clip_features``.
        """
        layers = self.layers if layers is None else tuple(layers)
        poolings = check_poolings(self.backbone.poolings if poolings is None else poolings)
        asked = poolings if "std" not in poolings else tuple(dict.fromkeys(("mean", *poolings)))
        backbone, device = self._folded_backbone(), self.device
        whole: dict[str, dict[str, Tensor]] = {}
        weight: dict[str, float] = {}
        for samples in parts:
            part = self.clip.filled(samples, self.sample_rate)
            batch = torch.from_numpy(np.array(part, np.float32)).to(device)[None]
            blocks, frames = _pool(backbone(channels_last(self.frontend(batch))), layers, asked)
            # Frames of a part that was filled up stand for its own samples alone.
            own = len(samples) / max(len(part), 1)
            for layer, number in frames.items():
                before, share = weight.get(layer, 0.0), own * number
                pair = [whole[layer], blocks[layer]] if layer in whole else [blocks[layer]]
                whole[layer] = combine(pair, [before, share][-len(pair) :])
                weight[layer] = before + share
        result: OrderedDict[str, np.ndarray] = OrderedDict()
        for layer in (name for name in self.layers if name in set(layers)):
            for pooling in poolings:
                result[f"{layer}/{pooling}"] = whole[layer][pooling][0].cpu().numpy()
        return result

    @torch.inference_mode()
    def clip_scores(self, samples: np.ndarray) -> np.ndarray:
        """(N,) float32 at `sample_rate` -> (K,): probabilities, or values for a regression.

        Raises:
            OssicleError: the model has no head.
        """
        if self.patches is None:
            return self.scores_from_blocks(self.clip_features(samples, *self.readout_parts()))
        patches = self.patches.cut(samples, self.sample_rate)
        features = [self.clip_features(patch, *self.readout_parts()) for patch in patches]
        return np.mean([self.scores_from_blocks(blocks) for blocks in features], axis=0)

    def readout_parts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(layers, poolings) that hold every block of the read-out."""
        pairs = [name.rpartition("/")[::2] for name in self.readout]
        return tuple(dict.fromkeys(p[0] for p in pairs)), tuple(dict.fromkeys(p[1] for p in pairs))

    @torch.inference_mode()
    def scores_from_blocks(self, blocks: dict[str, np.ndarray]) -> np.ndarray:
        """Blocks "LAYER/POOLING" of one clip (dims,) -> (K,), as ``scores_from_vectors`` has it."""
        return self.scores_from_vectors(self._vector(blocks))[0]

    def _vector(self, blocks: dict[str, np.ndarray]) -> Tensor:
        """(1, D): the blocks of one clip in the order of ``readout``."""
        vector = np.concatenate([np.empty(0, np.float32), *(blocks[n] for n in self.readout)])
        return torch.from_numpy(vector)[None]

    @torch.inference_mode()
    def scores_from_vectors(self, vectors: Tensor) -> np.ndarray:
        """Read-outs (B, D), blocks in the order of ``readout`` -> (B, K) scores.

        Raises:
            OssicleError: the model has no head.
        """
        if self.head is None:
            raise OssicleError("this model has no head: train one with `ossicle train`")
        logits = self.head(vectors.to(self.device))
        scores = ACTIVATIONS[self.task](logits).cpu().numpy()
        return scores if self.calibration is None else self.calibration(scores)

    def novelty_from_blocks(self, blocks: dict[str, np.ndarray]) -> float:
        """Blocks "LAYER/POOLING" of one clip (dims,) -> as ``novelty_from_vectors`` has it."""
        return float(self.novelty_from_vectors(self._vector(blocks))[0])

    @torch.inference_mode()
    def novelty_from_vectors(self, vectors: Tensor) -> np.ndarray:
        """Read-outs (B, D) -> (B,) in [0, 1): how unlike what was learnt from, see ``Novelty``.

        Raises:
            OssicleError: the model was made without it.
        """
        if self.novelty is None:
            raise OssicleError("this model cannot tell what it has never heard: train it anew")
        vectors = vectors.to(self.device)
        doubt = None if self.head is None else entropy(self.head(vectors), self.task)
        return self.novelty(vectors, doubt).cpu().numpy()

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, N) waveforms, from `min_s` to `window_s` of the clip policy -> (B, K) logits.

        A head that hears patches is given one: N = the patch's length.

        Raises:
            OssicleError: the model has no head.
        """
        if self.head is None:
            raise OssicleError("this model has no head: train one with `ossicle train`")
        layers, poolings = self.readout_parts()
        blocks, _ = self.pooled(waveform, layers, poolings)
        columns = [blocks[layer][p] for layer, _, p in (n.rpartition("/") for n in self.readout)]
        return self.head(torch.cat(columns, 1))


def channels_last(x: Tensor) -> Tensor:
    """The same tensor in the memory format in which convolutions are fastest on CPUs."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _pool(
    maps: OrderedDict[str, Tensor], layers: Sequence[str], poolings: Sequence[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    names = set(layers)
    wanted = [(name, x) for name, x in maps.items() if name in names]
    return {name: pool(x, poolings) for name, x in wanted}, {n: x.shape[-1] for n, x in wanted}


def create_model(name: str, pretrained: bool = False, *, seed: int = 0, **config: Any) -> Model:
    """Build the model called ``name`` with the front end it was trained with.

    Args:
        name: one of ``list_models()``, or one of a family, such as "hf:FOLDER".
        pretrained: load published weights (fetched once into the cache), with the classifier of
            their source task as head where its classes are named; otherwise weights are drawn at
            random from ``seed``.
        seed: of the random weights.
        config: keywords of the backbone's constructor.

    Raises:
        OssicleError: the name or a keyword is unknown, or the network has no published weights.
        DownloadError: the weights are not to be had.
    """
    if is_family(name):
        backbone, info = open_family(name, pretrained, seed, config)
        front, clip = create_frontend(**backbone.frontend), ClipPolicy(**backbone.clip)
        return Model(front, backbone, clip=clip, info=info).eval().requires_grad_(False)
    if name not in BACKBONES:
        known = ", ".join([*list_models(), *(f.usage for f in FAMILIES.values())])
        raise OssicleError(f"unknown backbone {name!r}: choose one of {known}")
    if pretrained and name not in WEIGHTS:
        known = ", ".join(WEIGHTS)
        raise OssicleError(
            f"{name} has no published weights: pass pretrained=False (those that have: {known})"
        )
    with torch.random.fork_rng(devices=[]):  # torch's constructors draw; the caller's numbers stay
        try:
            backbone = BACKBONES[name](**config)
        except TypeError as error:  # an unknown keyword
            raise OssicleError(f"backbone {name!r}: {error}") from error
    info = {"name": name, "pretrained": pretrained, "source": backbone.source}
    readout: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    head = None
    if pretrained:
        weights = WEIGHTS[name].load()
        backbone.load_state_dict(weights.state)
        if weights.head is not None:
            head, classes = Head.from_layers([*weights.hidden, weights.head]), weights.classes
            readout = weights.readout or (f"{backbone.layers[-1]}/mean",)
        info["weights"] = WEIGHTS[name].description
        info["licence"] = WEIGHTS[name].licence
        info["origin"] = WEIGHTS[name].origin
    else:
        backbone.draw_weights(torch.Generator().manual_seed(seed))
        info["weights"] = f"random, seed {seed}" if count_parameters(backbone) else "none"
        info["licence"] = "none needed"
    # The published taggers score each class by itself.
    model = Model(
        create_frontend(**backbone.frontend),
        backbone,
        clip=ClipPolicy(**backbone.clip),
        patches=Patches(**backbone.patches) if head is not None and backbone.patches else None,
        readout=readout,
        head=head,
        classes=classes,
        task="multilabel" if head is not None else "classes",
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
