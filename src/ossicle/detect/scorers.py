"""Scores of a block of sound: a clip model slid over it, or a frame-level detector.

Three ways, one contract: ``layout`` says what a block must hold, the call gives the parts of the
block that were judged, and their scores. Nothing depends on the blocks before.

* `EachWindow`: every window is a clip of its own, with the score that `predict` gives it.
* `SharedMaps`: a convolutional network runs once over a stretch, every window is read out of the
  same maps (`window_pooling`). Overlap is nearly free, but a window hears what is beside it.
* `EachFrame`: a `Detector` scores its own frames.

K classes, D values of the read-out, n windows or frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ossicle.detect.blocks import Block, Layout
from ossicle.detect.grid import Grid
from ossicle.detect.window_pooling import pool_windows, window_frames
from ossicle.detector import Detector
from ossicle.errors import OssicleError
from ossicle.features import SILENCE
from ossicle.model import Model
from ossicle.novelty import unknown_label
from ossicle.predict import check_unknown

# Long beside the reach of a network, short beside the cache's patience.
CORE_S = 30.0
# Seconds of windows that run together where each is a clip of its own: what a cache holds.
BATCH_S = 16.0
# Read-outs that are held at once where windows share their maps: 64 MB of yamnet's.
AT_ONCE = 256
# Windows of a detector that follow the first one of a block.
WINDOWS = 4


class Part(NamedTuple):
    """Stretches of a recording with their scores, in units of 1 / ``scale`` seconds.

    Attributes:
        onsets, offsets: (n,) int64, both ascending.
        scores: (K, n) float32; 0 where there is nothing to hear.
    """

    onsets: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray


class Scorer(Protocol):
    """What `stream` runs over blocks."""

    layout: Layout
    scale: int
    sample_rate: int

    def __call__(self, block: Block) -> Part:
        """The stretches that begin within the block's own part, with their scores."""


def create_scorer(
    model: Model, grid: Grid | None, unknown: float | None = None, *, shared: bool = False
) -> Scorer:
    """What scores a model's windows or frames.

    Args:
        model: with a head, of classes or of several labels a clip; it is put into evaluation.
        grid: of the windows; None for a `Detector`, which has frames.
        unknown: a further row of scores, for what the model has never heard: windows whose novelty
            is above this (`ossicle.novelty`) have that as its score, and 0 for all classes.
        shared: read windows out of shared maps.

    Raises:
        OssicleError: the model has no head, is of a regression, cannot tell the unknown, or cannot
            share its maps.
    """
    if model.head is None:
        raise OssicleError("this model has no head: train one with `ossicle train`")
    if model.task == "regression":
        raise OssicleError("this model gives a number, not classes: nothing to detect")
    if unknown is not None:
        check_unknown(model, unknown)
    model.eval()
    if isinstance(model, Detector):
        return EachFrame(model)
    assert grid is not None
    if not shared:
        return EachWindow(model, grid, unknown)
    if model.patches is not None or model.backbone.reach is None or not _hears_locally(model):
        raise OssicleError(
            "windows share maps only of convolutional networks on absolute pictures, such as yamnet"
        )
    return SharedMaps(model, grid, unknown)


def rows_of(model: Model, unknown: float | None = None) -> tuple[str, ...]:
    """Names of the rows of a scorer's scores."""
    return model.classes if unknown is None else (*model.classes, unknown_label(model.classes))


def _hears_locally(model: Model) -> bool:
    """Whether a frame of the picture depends on its own samples alone, and begins where it says."""
    config = model.frontend.config()
    absolute = config.get("scaling") in ("log", "linear") or (
        config.get("reference") != "max" and config.get("top_db", 0) is None
    )
    relative = config.get("standardise_per_frequency") or config.get("standardise_per_sample")
    return "hop_length" in config and config.get("center") is False and absolute and not relative


class SomeRows:
    """Another scorer's scores, of some of its classes alone.

    Args:
        scorer: of all classes.
        rows: which of its rows, in the order wanted.
    """

    def __init__(self, scorer: Scorer, rows: Sequence[int]) -> None:
        self.scorer, self.rows = scorer, np.array(rows, np.int64)
        self.layout, self.scale = scorer.layout, scorer.scale
        self.sample_rate = scorer.sample_rate

    def __call__(self, block: Block) -> Part:
        """As of the other scorer, fewer rows."""
        part = self.scorer(block)
        return part._replace(scores=np.ascontiguousarray(part.scores[self.rows]))


class _Windows:
    """What the two sliding scorers share: the grid, and scores from read-outs."""

    def __init__(self, model: Model, grid: Grid, unknown: float | None = None) -> None:
        self.model, self.grid, self.unknown = model, grid, unknown
        self.scale, self.sample_rate = grid.scale, model.sample_rate
        self.layers, self.poolings = model.readout_parts()
        self.units = grid.scale // model.sample_rate  # in a sample

    def spans(self, block: Block) -> list[tuple[int, int]]:
        end = None if block.end is None else block.end * self.units
        return self.grid.between(block.begin * self.units, block.stop * self.units, end)

    def cut(self, block: Block, span: tuple[int, int]) -> np.ndarray:
        first, last = (self.grid.samples(units, self.sample_rate) for units in span)
        return block.samples[first - block.start : last - block.start]

    def judged(self, vectors: torch.Tensor) -> np.ndarray:
        """Read-outs (n, D) -> scores (n, K), or (n, K + 1) where the unknown is asked for."""
        scores = self.model.scores_from_vectors(vectors)
        if self.unknown is None:
            return scores
        novelty = self.model.novelty_from_vectors(vectors)[:, None]
        strange = novelty > self.unknown
        return np.concatenate([np.where(strange, 0, scores), np.where(strange, novelty, 0)], 1)

    def judged_clip(self, samples: np.ndarray) -> np.ndarray:
        """(N,) -> (1, K or K + 1), as `predict` hears a clip."""
        if self.unknown is None:
            return self.model.clip_scores(samples)[None]
        blocks = self.model.clip_features(samples, self.layers, self.poolings)
        vector = np.concatenate([blocks[name] for name in self.model.readout])
        return self.judged(torch.from_numpy(vector)[None])

    def part(self, block: Block, spans: list[tuple[int, int]], scores: np.ndarray) -> Part:
        """Scores (n, K) of the spans; nothing is heard in windows that are silent."""
        silent = [np.ptp(self.cut(block, span)) < SILENCE for span in spans]
        scores = np.where(np.array(silent, bool)[:, None], np.float32(0), scores)
        edges = np.array(spans, np.int64).reshape(-1, 2)
        return Part(edges[:, 0], edges[:, 1], np.ascontiguousarray(scores.T, np.float32))

    def empty(self) -> Part:
        nothing = np.zeros(0, np.int64)
        return Part(
            nothing, nothing, np.zeros((len(rows_of(self.model, self.unknown)), 0), np.float32)
        )


class SharedMaps(_Windows):
    """One pass of a convolutional network over a stretch, many windows read out of its maps.

    A recording no longer than a window is heard as `predict` hears it.
    """

    def __init__(self, model: Model, grid: Grid, unknown: float | None = None) -> None:
        super().__init__(model, grid, unknown)
        strides = {i.name: i.stride for i in model.backbone.feature_info}
        self.strides = {name: strides[name] for name in self.layers}
        self.frame = math.lcm(*strides.values())  # in front-end frames
        self.hop = int(model.frontend.config()["hop_length"])
        unit = self.frame * self.hop
        reach = model.backbone.reach
        assert reach is not None
        around = -(-reach // self.frame) * unit
        width = -(-grid.width * model.sample_rate // grid.scale)
        core_s = max(CORE_S, min(4 * width / model.sample_rate, 2 * CORE_S))
        core = -(-round(core_s * model.sample_rate) // unit) * unit
        self.layout = Layout(core, around, around + width + unit)

    @torch.inference_mode()
    def __call__(self, block: Block) -> Part:
        """The windows that begin within the block's own part, with their scores."""
        spans = self.spans(block)
        if not spans:
            return self.empty()
        if spans[0] == (0, (block.end or 0) * self.units):
            return self.part(block, spans, self.judged_clip(block.samples))
        front = self.model.frontend
        frames = front.num_frames(len(block.samples))
        # Whole frames of the deepest layer: 'same' padding then falls alike in every block.
        missing = -frames % self.frame
        samples = np.pad(block.samples, (0, missing * self.hop))
        maps = self.model.forward_layers(torch.from_numpy(samples)[None])
        rows = [
            self._windows(block, spans[at : at + AT_ONCE], maps)
            for at in range(0, len(spans), AT_ONCE)
        ]
        return self.part(block, spans, np.concatenate(rows))

    def _windows(
        self, block: Block, spans: list[tuple[int, int]], maps: Mapping[str, torch.Tensor]
    ) -> np.ndarray:
        """Scores (n, K) of some windows of a block."""
        ends = np.array([[self.grid.samples(u, self.sample_rate) for u in s] for s in spans])
        onsets = (ends[:, 0] - block.start) / self.hop
        lengths = np.array([self.model.frontend.num_frames(int(b - a)) for a, b in ends])
        vectors: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            first, last = window_frames(onsets, lengths, self.strides[layer], maps[layer].shape[-1])
            for name, values in pool_windows(maps[layer], first, last, self.poolings).items():
                vectors[f"{layer}/{name}"] = values
        return self.judged(torch.cat([vectors[name] for name in self.model.readout], 1))


class EachWindow(_Windows):
    """Every window as a clip of its own; those of one length run together."""

    def __init__(self, model: Model, grid: Grid, unknown: float | None = None) -> None:
        super().__init__(model, grid, unknown)
        width = -(-grid.width * model.sample_rate // grid.scale)
        # Right: one sample more, as ends are rounded.
        self.layout = Layout(round(CORE_S * model.sample_rate), 0, width + 1)

    @torch.inference_mode()
    def __call__(self, block: Block) -> Part:
        """The windows that begin within the block's own part, with their scores."""
        spans = self.spans(block)
        if not spans:
            return self.empty()
        rate = self.sample_rate
        clips = [self.cut(block, span) for span in spans]
        most = max(len(clip) for clip in clips) / rate
        batch = max(1, int(BATCH_S / max(most, self.model.clip.min_s)))
        rows: list[np.ndarray] = []
        for at in range(0, len(clips), batch):
            rows += self._scores(clips[at : at + batch])
        return self.part(block, spans, np.stack(rows))

    def _scores(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        policy, rate = self.model.clip, self.sample_rate
        sizes = {len(clip) for clip in clips}
        cut = max(sizes) > policy.window_s * rate
        if self.model.patches is not None or cut or len(sizes) > 1:
            return [self.judged_clip(clip)[0] for clip in clips]
        filled = np.stack([policy.filled(clip, rate) for clip in clips])
        blocks, _ = self.model.pooled(
            torch.from_numpy(filled.astype(np.float32, copy=False)), self.layers, self.poolings
        )
        pairs = (name.rpartition("/") for name in self.model.readout)
        matrix = torch.cat([blocks[layer][pooling] for layer, _, pooling in pairs], 1)
        return list(self.judged(matrix))


class EachFrame:
    """A detector's frames; a block is heard with the sound around it."""

    def __init__(self, model: Detector) -> None:
        self.model, self.sample_rate = model, model.sample_rate
        self.scale = model.sample_rate
        self.hop = round(model.frame_hop_s * model.sample_rate)
        around = -(-round(model.context_s * self.scale) // self.hop) * self.hop
        # So long that the detector's own windows fit into the stretch without a rest.
        window = round(model.clip.window_s * self.scale)
        whole = max(0, window - 2 * around) + WINDOWS * (window - around)
        core = max(self.hop, whole // self.hop * self.hop)
        self.layout = Layout(core, around, around)

    def __call__(self, block: Block) -> Part:
        """The frames of the block's own part, with their scores."""
        frames = self.model.frame_scores(block.samples).scores
        onsets = block.start + self.hop * np.arange(frames.shape[1], dtype=np.int64)
        ends = onsets + self.hop
        if block.end is not None:
            ends = np.minimum(ends, block.end)
        inside = (onsets >= block.begin) & (onsets < min(block.stop, ends.max(initial=0)))
        return Part(onsets[inside], ends[inside], np.ascontiguousarray(frames[:, inside]))
