"""Recordings of noise alone and noisy ones: read, split by groups, decoded, dealt out.

No clean recording is asked for anywhere. b items, N samples; time is last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ossicle.datasets.clips import Clips, class_members, read_clips
from ossicle.datasets.groups import UnionFind, assign_groups
from ossicle.datasets.layouts import read_text_table
from ossicle.datasets.unlabelled import MANIFESTS, unlabelled_clips
from ossicle.denoise.matching import matched
from ossicle.errors import DataError, OssicleError
from ossicle.features import Progress
from ossicle.pretrain.waveforms import Waveforms, decode_cached
from ossicle.train import Batch, step_seed

# Streams of random numbers.
DRAWN, SPLIT, PAIRS = 31, 32, 33
LOUDER_DB = 2.0  # of noise made like that in a recording, at most
_RMS_FLOOR = 1e-5  # of a stretch that has any sound


@dataclass
class Recordings:
    """Noisy recordings and recordings of noise alone, each in a part to learn from and one not.

    Attributes:
        noisy, noise: all of them.
        train: (noisy rows, noise rows) to learn from.
        valid: (noisy rows, noise rows) of other groups, to choose by.
        notes: what was inferred or left out, for the user.
    """

    noisy: Clips
    noise: Clips
    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    notes: list[str] = field(default_factory=list)


def read_recordings(
    clips: str | Path,
    *,
    noise: str | Path | None = None,
    noise_labels: Sequence[str] = (),
    groups: str | None = None,
    validation: float = 0.2,
    seed: int = 0,
) -> Recordings:
    """Noisy recordings and noise, from two places or from one table with labels.

    Args:
        clips: noisy recordings (a file, a folder or a manifest); with ``noise_labels``, a labelled
            clips table or folder a class.
        noise: recordings of noise alone, likewise.
        noise_labels: classes that are noise alone; all others are noisy recordings.
        groups: a column, "/regex/", "runs:K" or "none": what must not straddle the split.
        validation: share of the groups that is kept to choose by.
        seed: of the split, where the table has none.

    Raises:
        DataError: a place cannot be read, a label is unknown, one of the two is empty, a recording
            is in both, or there are too few groups.
    """
    if (noise is None) == (not noise_labels):
        raise DataError(
            "say which recordings are noise alone: a second place (--noise), or labels of the "
            "first (--noise-label); one of the two"
        )
    if noise is not None:
        one, other = _unlabelled(clips, groups), _unlabelled(noise, groups)
        both = set(one.table["path"]) & set(other.table["path"])
        if both:
            raise DataError(f"{min(both)}: is given as noisy and as noise alone; which is it?")
    else:
        table = read_clips(clips, groups=groups)
        one, other = _by_label(table, noise_labels)
    notes = list(dict.fromkeys([*one.notes, *other.notes]))
    train, valid = _split(one, other, validation, seed)
    return Recordings(one, other, train, valid, notes)


class Decoded(NamedTuple):
    """Waveforms of one part.

    Attributes:
        noisy, noise: at the model's rate.
    """

    noisy: Waveforms
    noise: Waveforms


def decode(
    recordings: Recordings,
    sample_rate: int,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Decoded, Decoded]:
    """The parts to learn from and to choose by, decoded once into the cache.

    Raises:
        DataError: none of a kind of recordings can be used.
    """
    noisy = decode_cached(recordings.noisy, sample_rate, workers, progress)
    noise = decode_cached(recordings.noise, sample_rate, workers, progress)
    train = Decoded(noisy.only(recordings.train[0]), noise.only(recordings.train[1]))
    valid = Decoded(noisy.only(recordings.valid[0]), noise.only(recordings.valid[1]))
    for name, part in (("to learn from", train), ("to choose by", valid)):
        for kind, waveforms in zip(("noisy recordings", "noise alone"), part, strict=True):
            if not len(waveforms):
                raise DataError(f"no {kind} {name} could be decoded: give more recordings")
    return train, valid


class RecordingBatches:
    """Batch ``step`` of a recording and noise to add (b, 2, N), and whether the first is noisy.

    Every fourth item is noise alone, as the noisy ones have more to tell. The noise to add is from
    another recording. What is shorter than N comes over and over. Long recordings are drawn from
    more often.

    Args:
        part: waveforms to draw from.
        batch_size: b, of all processes.
        crop_s: N, in seconds.
        gain_db: both are turned up or down together by up to this, so that no level is learnt.
        match: the noise to add is made like that in the recording (`matching.matched`), and up to
            2 dB louder: if they differ, rather too little is kept than too much.
        foregrounds: of the noisy recordings, as a teacher hears them: they are given in the place
            of the recordings.
        seed: of all that is drawn.

    Attributes:
        seconds_per_item: of audio.

    Raises:
        OssicleError: a size is not above zero, or the batch has no room for both kinds.
    """

    def __init__(
        self,
        part: Decoded,
        *,
        batch_size: int,
        crop_s: float,
        gain_db: float = 6.0,
        match: bool = True,
        foregrounds: Waveforms | None = None,
        seed: int = 0,
    ) -> None:
        self.crop = round(crop_s * part.noisy.sample_rate) if math.isfinite(crop_s) else 0
        if batch_size < 4 or self.crop < 1 or not 0 <= gain_db <= 60:
            raise OssicleError("a batch needs 4 items, its crop some samples, gain_db 0 to 60")
        self.part, self.batch_size, self.gain_db, self.seed = part, batch_size, gain_db, seed
        self.seconds_per_item = self.crop / part.noisy.sample_rate
        self.match, self.foregrounds = match, foregrounds
        self._weights = [_weights(waveforms, self.crop) for waveforms in part]

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` among ``world`` in the batch of ``step``.

        Raises:
            OssicleError: the batch cannot be dealt out in equal parts.
        """
        if self.batch_size % world:
            raise OssicleError(
                f"a batch of {self.batch_size} items cannot be dealt out to {world} processes"
            )
        size = self.batch_size // world
        mine = range(rank * size, (rank + 1) * size)
        waveforms, names, targets = [], [], []
        for i in mine:
            rng = np.random.default_rng([step_seed(self.seed, step, DRAWN), i])
            pair, name = self._drawn(rng, noisy=_is_noisy(i))
            waveforms.append(pair)
            names.append(name)
            targets.append(int(_is_noisy(i)))
        return Batch(
            torch.from_numpy(np.stack(waveforms)),
            names,
            slice(mine.start, mine.stop),
            self.batch_size,
            targets=torch.tensor(targets),
        )

    def _drawn(self, rng: np.random.Generator, *, noisy: bool) -> tuple[np.ndarray, str]:
        kind = 0 if noisy else 1
        item = int(rng.choice(len(self.part[kind]), p=self._weights[kind]))
        added = int(rng.choice(len(self.part.noise), p=self._weights[1]))
        if not noisy and added == item:
            added = (item + 1) % len(self.part.noise)
        gain = np.float32(10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20))
        place = int(rng.integers(2**31))
        recording = stretch(self.part[kind], item, self.crop, np.random.default_rng(place))
        noise = stretch(self.part.noise, added, self.crop, rng)
        if self.match:
            louder = 10 ** (rng.uniform(0, LOUDER_DB) / 20)
            rate = self.part.noisy.sample_rate
            noise = matched(recording, noise, rate) * np.float32(louder)
        if noisy and self.foregrounds is not None:
            # The same stretch of it.
            place_again = np.random.default_rng(place)
            recording = stretch(self.foregrounds, item, self.crop, place_again)
        return np.stack([recording, noise]) * gain, self.part[kind].names[item]


def stretch(
    waveforms: Waveforms, item: int, n_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """(n_samples,) float32 from a random place; a shorter recording comes over and over."""
    length = int(waveforms.lengths[item])
    if length < n_samples:
        return np.roll(
            np.resize(waveforms.read(item, 0, length), n_samples), int(rng.integers(n_samples))
        )
    return waveforms.read(item, int(rng.integers(length - n_samples + 1)), n_samples)


def pairs(
    part: Decoded, n_pairs: int, seconds: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy stretches and noise to add to them, (n, N) each, the same at each call.

    Args:
        part: of the validation.
        n_pairs: n, at most; noisy recordings are taken in turn, spread evenly.
        seconds: N.
        seed: of places and noise.
    """
    n_samples = round(seconds * part.noisy.sample_rate)
    rng = np.random.default_rng([step_seed(seed, 0, PAIRS)])
    items = np.linspace(0, len(part.noisy) - 1, n_pairs).round().astype(int)
    noisy, noise = [], []
    for item in items:
        recording = stretch(part.noisy, int(item), n_samples, rng)
        added = stretch(part.noise, int(rng.integers(len(part.noise))), n_samples, rng)
        # Where one of them is silent nothing can be told.
        if min(np.abs(recording).max(), np.abs(added).max()) > _RMS_FLOOR:
            noisy.append(recording)
            noise.append(added)
    if not noisy:
        raise DataError("the recordings kept to choose by are silent: give others")
    return np.stack(noisy), np.stack(noise)


def _unlabelled(source: str | Path, groups: str | None) -> Clips:
    found = unlabelled_clips([source])
    table, path = found.table.drop(columns="group"), Path(source)
    if path.is_file() and path.suffix.lower() in MANIFESTS:
        given = read_text_table(path)  # row by row what it was read from
        for column in given.columns:
            if column not in table or column in ("split", "fold"):
                table[column] = [value or None for value in given[column]]
    names, where, notes = assign_groups(table, found.root, groups, {"": list(range(len(table)))})
    table["group"] = names
    return Clips(table, found.task, found.classes, found.root, [*found.notes, *notes], where)


def _by_label(clips: Clips, labels: Sequence[str]) -> tuple[Clips, Clips]:
    if clips.task == "regression":
        raise DataError(f"{clips.root}: has numbers as labels, no class is noise alone")
    unknown = [label for label in labels if label not in clips.classes]
    if unknown:
        known = ", ".join(clips.classes)
        raise DataError(f"{clips.root}: has no class {unknown[0]!r}; there are {known}")
    of_noise = np.zeros(len(clips), bool)
    for name, rows in class_members(clips.task, list(clips.table["label"])).items():
        if name in labels:
            of_noise[rows] = True
    if clips.task == "multilabel":  # with any other label there is more in it than noise
        of_noise &= np.array([set(names) <= set(labels) for names in clips.table["label"]])
    if of_noise.all() or not of_noise.any():
        kind = "noisy recording" if of_noise.all() else "recording of noise alone"
        raise DataError(f"{clips.root}: there is no {kind} with these labels")
    return clips.subset(~of_noise), clips.subset(of_noise)


def _split(
    noisy: Clips, noise: Clips, share: float, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Rows of both to learn from, and to choose by; a group (or file) of both is on one side."""
    if not 0 < share < 1:
        raise DataError(f"validation {share}: choose a share above 0 and below 1")
    tables = (noisy, noise)
    given = [list(clips.table["split"]) for clips in tables]
    if all({"train", "valid"} <= set(splits) for splits in given):
        sides = [np.array(splits, object) for splits in given]
        train, valid = ([np.flatnonzero(s == name) for s in sides] for name in ("train", "valid"))
        return (train[0], train[1]), (valid[0], valid[1])
    sets = UnionFind()
    keys = [[f"group {group}" for group in clips.groups()] for clips in tables]
    for clips, names in zip(tables, keys, strict=True):
        for path, key in zip(clips.table["path"], names, strict=True):
            sets.union(f"file {path}", key)
    keys = [[str(sets.find(key)) for key in names] for names in keys]
    rng = np.random.default_rng([step_seed(seed, 0, SPLIT)])
    kept: set[str] = set()
    for names, kind in zip(keys, ("noisy recordings", "noise alone"), strict=True):
        distinct = sorted(set(names))
        if len(distinct) < 2:
            raise DataError(
                f"{kind}: all are of one group, and other groups are needed to choose by; give "
                "more, or --groups none if they are recordings of their own"
            )
        already = len(kept & set(distinct))
        wanted = min(len(distinct) - 1, max(1, round(share * len(distinct))))
        rest = [name for name in distinct if name not in kept]
        kept |= set(rng.permutation(rest)[: max(0, wanted - already)].tolist())
    held = [np.array([name in kept for name in names]) for names in keys]
    if any(side.all() for side in held):
        raise DataError("noisy recordings and noise share too few groups to keep some to choose by")
    train, valid = ([np.flatnonzero(side == which) for side in held] for which in (False, True))
    return (train[0], train[1]), (valid[0], valid[1])


def _is_noisy(item: int) -> bool:
    return item % 4 != 3


def _weights(waveforms: Waveforms, crop: int) -> np.ndarray:
    """(n,) chance of each recording: by its length, and the same for all that are shorter."""
    lengths = np.maximum(waveforms.lengths, crop).astype(np.float64)
    weights: np.ndarray = lengths / lengths.sum()
    return weights
