"""Batches of random stretches of recordings, each known from its number alone.

Recordings are cut into segments, so that an hour of music is heard as often as an hour of words.
An epoch goes once through all segments in a random order. With ``neighbours`` above 1 the order is
one of blocks of segments of one folder: a batch then holds sounds that are alike in speaker, room
and equipment, and what tells them apart is what they say or are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ossicle.errors import DataError, OssicleError
from ossicle.pretrain.waveforms import Waveforms
from ossicle.train import Batch, step_seed

SEGMENT_S = 10.0
ORDER, CROPS = 11, 12  # streams of random numbers


class CropBatches:
    """Batch ``step`` of views (b, V, N): V crops of each item's segment.

    Args:
        waveforms: decoded recordings.
        batch_size: items of the joint batch of all processes.
        crop_s: N, in seconds; what is shorter is filled.
        views: V.
        jitter_s: how far two views of an item lie apart at most; None: anywhere in the segment.
        partners: give each view another recording's stretch to mix with.
        neighbours: segments of one folder that come together.
        targets: (n,) class numbers or (n, K) 0/1 for each recording of ``waveforms``; None: none.
        fill: "none" (what is too short lies at random within zeros) or "repeat" (it comes over
            and over), as the network's clip policy has it.
        balance: draw every class equally often, instead of going through all segments.
        seed: of order and crops.

    Attributes:
        seconds_per_item: of audio, all views.
        steps_per_epoch: whole batches; what is left of an epoch begins the next.

    Raises:
        DataError: there are no recordings, or fewer than a batch has items.
        OssicleError: a size is not above zero.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        *,
        batch_size: int,
        crop_s: float,
        views: int = 2,
        jitter_s: float | None = None,
        partners: bool = False,
        neighbours: int = 1,
        targets: np.ndarray | None = None,
        balance: bool = False,
        fill: str = "none",
        seed: int = 0,
    ) -> None:
        one_sample_s = 1 / waveforms.sample_rate
        if min(batch_size, views, neighbours) < 1 or not one_sample_s <= crop_s < math.inf:
            raise OssicleError("batch size, views, neighbours and crop must be above zero")
        self.waveforms, self.batch_size, self.views = waveforms, batch_size, views
        self.crop = round(crop_s * waveforms.sample_rate)
        self.jitter = None if jitter_s is None else round(jitter_s * waveforms.sample_rate)
        self.partners, self.neighbours, self.seed = partners, neighbours, seed
        self.fill = fill
        self.targets = targets
        self.items, self.starts, self.ends = _segments(waveforms, max(SEGMENT_S, crop_s))
        self.folders = _folders([waveforms.names[item] for item in self.items])
        self.weights = _class_weights(targets, self.items) if balance else None
        if len(self.items) < batch_size:
            raise DataError(
                f"a batch has {batch_size} items, the recordings have {len(self.items)} segments "
                f"of {SEGMENT_S:g} s: choose a smaller batch"
            )
        self.seconds_per_item = views * self.crop / waveforms.sample_rate
        self.steps_per_epoch = len(self.items) // batch_size
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._lock = threading.Lock()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` among ``world`` in the batch of ``step``.

        Raises:
            OssicleError: the batch cannot be dealt out in equal parts.
        """
        if self.batch_size % world:
            raise OssicleError(
                f"a batch of {self.batch_size} items cannot be dealt out to {world} processes"
            )
        share = self.batch_size // world
        rows = slice(rank * share, (rank + 1) * share)
        rng = np.random.default_rng(step_seed(self.seed, step, CROPS))
        chosen = self._chosen(step, rng)
        # Numbers for the joint batch: every process draws the same and keeps its rows.
        where = rng.random((self.batch_size, self.views + 1))
        others = rng.integers(len(self.items), size=(self.batch_size, self.views))
        places = rng.random((self.batch_size, self.views))
        mine = range(self.batch_size)[rows]
        views = np.stack([self._views(int(chosen[i]), where[i]) for i in mine])
        partners = None
        if self.partners:
            drawn = [
                [self._crop(int(k), place) for k, place in zip(others[i], places[i], strict=True)]
                for i in mine
            ]
            partners = torch.from_numpy(np.stack([np.stack(pair) for pair in drawn]))
        items = [int(self.items[chosen[i]]) for i in mine]
        targets = None if self.targets is None else torch.from_numpy(self.targets[items])
        names = [self.waveforms.names[item] for item in items]
        return Batch(torch.from_numpy(views), names, rows, self.batch_size, partners, targets)

    def _chosen(self, step: int, rng: np.random.Generator) -> np.ndarray:
        """(batch_size,) segments of a step."""
        if self.weights is not None:
            return rng.choice(len(self.items), self.batch_size, p=self.weights)
        epoch, place = divmod(step, self.steps_per_epoch)
        with self._lock:  # of several loaders
            if self._epoch[0] != epoch:
                self._epoch = (epoch, self._order(epoch))
            order = self._epoch[1]
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        """(segments,) the order of an epoch: blocks of neighbours, shuffled inside and out."""
        rng = np.random.default_rng(step_seed(self.seed, epoch, ORDER))
        shuffled = rng.permutation(len(self.items))
        if self.neighbours == 1:
            return shuffled
        together = shuffled[np.argsort(self.folders[shuffled], kind="stable")]
        borders = np.flatnonzero(np.diff(self.folders[together])) + 1
        blocks = [
            folder[i : i + self.neighbours]
            for folder in np.split(together, borders)
            for i in range(0, len(folder), self.neighbours)
        ]
        return np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])

    def _views(self, segment: int, where: np.ndarray) -> np.ndarray:
        """(V, N): the first number says where the item lies, the others where its views do."""
        if self.jitter is None:
            return np.stack([self._crop(segment, place) for place in where[1:]])
        spare = self._spare(segment)
        low, high = min(spare, 0), max(spare, 0)
        middle = low + where[0] * (high - low)
        shifts = (where[1:] - 0.5) * self.jitter
        starts = np.clip(np.round(middle + shifts), low, high).astype(np.int64)
        return np.stack([self._read(segment, int(start)) for start in starts])

    def _crop(self, segment: int, place: float) -> np.ndarray:
        spare = self._spare(segment)
        return self._read(segment, round(place * spare))

    def _spare(self, segment: int) -> int:
        """Samples that a crop can move by; negative where it is longer than the segment."""
        return int(self.ends[segment] - self.starts[segment]) - self.crop

    def _read(self, segment: int, offset: int) -> np.ndarray:
        item, start = int(self.items[segment]), int(self.starts[segment])
        length = int(self.ends[segment]) - start
        if self.fill == "repeat" and length < self.crop:
            return np.resize(self.waveforms.read(item, start, length), self.crop)
        return self.waveforms.read(item, start + offset, self.crop)


def _segments(waveforms: Waveforms, longest_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(segments,) recording, first sample and end in it: equal parts of at most ``longest_s``."""
    longest = round(longest_s * waveforms.sample_rate)
    items, starts, ends = [], [], []
    for item, length in enumerate(waveforms.lengths.tolist()):
        parts = -(-length // longest)
        edges = np.linspace(0, length, parts + 1).round().astype(np.int64)
        items += [item] * parts
        starts += edges[:-1].tolist()
        ends += edges[1:].tolist()
    return np.array(items), np.array(starts, np.int64), np.array(ends, np.int64)


def _folders(names: Sequence[str]) -> np.ndarray:
    """(n,) a number for the folder of each path."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(str(Path(name).parent), len(numbers)) for name in names])


def _class_weights(targets: np.ndarray | None, items: np.ndarray) -> np.ndarray:
    """(segments,) probability of each: draw a class, all alike, then a segment that has it.

    With several labels a segment, those without any are a class of their own. Segments that have
    not been labelled (-1, or NaN) keep their share of all.
    """
    if targets is None:
        raise OssicleError("classes cannot be balanced where there are none")
    chosen = targets[items]
    if chosen.ndim == 1:
        if chosen.dtype.kind not in "iu":
            raise OssicleError("labels that are numbers have no classes to balance")
        known = chosen >= 0
        of_class = 1 / np.maximum(np.bincount(chosen[known], minlength=1), 1)
        weights = np.where(known, of_class[chosen], 0.0)
    else:
        known = ~np.isnan(chosen).all(1)
        has = np.column_stack([chosen > 0, known & ~(chosen > 0).any(1)])
        weights = has @ (1 / np.maximum(has.sum(0), 1))
    if not known.any():
        return np.full(len(items), 1 / len(items))
    weights *= known.sum() / weights.sum()
    weights[~known] = 1.0
    return weights / len(items)
