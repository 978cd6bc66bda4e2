"""Stretches of recordings that a teacher and its student hear alike, and batches of them.

What a teacher says of a stretch holds for that stretch alone: so stretches are fixed once, a few
lengths of them, and not drawn anew each time as crops are. The same with what is made of them: a
teacher can be asked about a mixture, as long as the student hears that very mixture.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ossicle.audio import resample
from ossicle.errors import DataError, OssicleError
from ossicle.pretrain import places
from ossicle.pretrain.waveforms import FULL_SCALE, Waveforms
from ossicle.train import Batch, step_seed

LENGTHS_S = (1.0, 2.0, 4.0)
ORDER, CUT, MIX = 21, 22, 23  # streams of random numbers
# A rest of this share of a window is heard as a window of its own.
REST = 0.25
NOTHING = -1  # in place of what is mixed in
MIXED = 0.7  # probability that something is mixed in
LEVEL_DB = (-5.0, 20.0)
OCTAVES = (-0.5, 0.5)  # faster or slower, and with it higher or lower


class Windows(NamedTuple):
    """Stretches of recordings, as they are or changed; a row each.

    Attributes:
        items: (n,) recording of the waveforms.
        starts: (n,) first sample.
        lengths: (n,) samples; beyond the recording's end there are zeros.
        other_items, other_starts: (n,) what is mixed in; -1: nothing.
        levels_db: (n,) how much louder the first is than what is mixed in.
        speeds: (n,) times that the first is faster and higher.
        places: (n,) number of where all that is recorded, see ``places``; -1: nowhere else.
        kept: (n,) first of its samples in ``Waveforms.made``, see ``made``; -1: it is not there.
    """

    items: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    other_items: np.ndarray
    other_starts: np.ndarray
    levels_db: np.ndarray
    speeds: np.ndarray
    places: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    @property
    def changed(self) -> np.ndarray:
        """(n,) whether a window is not a recording's as it is."""
        return (self.other_items != NOTHING) | (self.speeds != 1) | (self.places != NOTHING)

    def some(self, rows: np.ndarray) -> Windows:
        """Those of some rows."""
        return Windows(*(column[rows] for column in self))


def as_they_are(items: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Windows:
    """Windows that nothing is done to."""
    n = len(items)
    nothing = np.full(n, NOTHING, np.int64)
    unmixed = nothing.copy(), nothing.copy(), np.zeros(n), np.ones(n)
    return Windows(items, starts, lengths, *unmixed, nothing, nothing.copy())


def with_mixtures(windows: Windows, share: float, seed: int = 0) -> Windows:
    """Windows, and behind them made ones: faster or slower, most with another mixed in, each in a
    place of its own.

    Args:
        windows: as they are.
        share: made ones for each that there is.
        seed: of what is made.

    Raises:
        OssicleError: the share is below 0.
    """
    if not 0 <= share < np.inf:
        raise OssicleError(f"mixtures {share}: give 0 or more for each window")
    n = len(windows)
    made = round(share * n)
    rng = np.random.default_rng(step_seed(seed, 0, MIX))
    first, other = rng.integers(n, size=made), rng.integers(n, size=made)
    mixed = rng.random(made) < MIXED
    new = Windows(
        *windows.some(first)[:3],
        other_items=np.where(mixed, windows.items[other], NOTHING),
        other_starts=np.where(mixed, windows.starts[other], NOTHING),
        levels_db=rng.uniform(*LEVEL_DB, made),
        speeds=2 ** rng.uniform(*OCTAVES, made),
        places=rng.integers(2**31, size=made),
        kept=np.full(made, NOTHING, np.int64),
    )
    return Windows(*(np.concatenate(pair) for pair in zip(windows, new, strict=True)))


def mixtures_key(share: float) -> str:
    """What tells windows made as ``with_mixtures`` does from those made otherwise."""
    return json.dumps([float(share), MIXED, LEVEL_DB, OCTAVES, places.KEY, FULL_SCALE])


def hear(waveforms: Waveforms, windows: Windows, row: int) -> np.ndarray:
    """(N,) float32: the sound of a window, the same whenever it is heard."""
    kept = int(windows.kept[row])
    if kept != NOTHING and waveforms.made is not None:
        codes = waveforms.made[kept : kept + int(windows.lengths[row])]
        return codes / np.float32(FULL_SCALE)
    sound = _mixed(waveforms, windows, row)
    place = int(windows.places[row])
    return sound if place == NOTHING else places.placed(sound, waveforms.sample_rate, place)


def _mixed(waveforms: Waveforms, windows: Windows, row: int) -> np.ndarray:
    item, start, length = (int(column[row]) for column in windows[:3])
    speed = float(windows.speeds[row])
    if speed == 1:
        sound = waveforms.read(item, start, length)
    else:
        rate = round(waveforms.sample_rate * speed)
        whole = waveforms.read(item, start, round(length * speed) + 1)
        sound = _fitted(resample(whole, rate, waveforms.sample_rate), length)
    if windows.other_items[row] == NOTHING:
        return sound
    other = waveforms.read(int(windows.other_items[row]), int(windows.other_starts[row]), length)
    own, beside = float(np.square(sound).mean()), float(np.square(other).mean())
    if own == 0 or beside == 0:
        return sound
    sound = sound + other * np.float32((own / beside * 10 ** (-windows.levels_db[row] / 10)) ** 0.5)
    return sound / np.float32(max(1.0, np.abs(sound).max()))


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def cut_windows(
    waveforms: Waveforms, lengths_s: Sequence[float] = LENGTHS_S, seed: int = 0
) -> Windows:
    """Cut every recording into windows of one length, drawn among those that it fills.

    What is shorter than the shortest is one window of that, with zeros behind. Windows of a
    recording lie evenly from its beginning to its end; they overlap by as much as is needed.

    Args:
        waveforms: decoded recordings.
        lengths_s: in seconds.
        seed: of the lengths.

    Raises:
        OssicleError: a length is not above zero, or there is none.
    """
    if not lengths_s or min(lengths_s) <= 0:
        raise OssicleError("give one length of windows or more, in seconds, above 0")
    sizes = sorted(round(s * waveforms.sample_rate) for s in lengths_s)
    rng = np.random.default_rng(step_seed(seed, 0, CUT))
    items, starts, lengths = [], [], []
    for item, own in enumerate(waveforms.lengths.tolist()):
        fitting = [size for size in sizes if size <= own] or sizes[:1]
        size = fitting[int(rng.integers(len(fitting)))]
        count = max(1, int(np.ceil(own / size - REST)))
        places = np.linspace(0, max(own - size, 0), count).round().astype(np.int64)
        items += [item] * count
        starts += places.tolist()
        lengths += [size] * count
    columns = np.array(items, np.int64), np.array(starts, np.int64), np.array(lengths, np.int64)
    return as_they_are(*columns)


class Rows(Protocol):
    """What is to be learnt: (n, K), in memory or not."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


class WindowBatches:
    """Batches of windows of one length each; an epoch has every window once.

    Batches of long windows have fewer items, so that all take about as long.

    Args:
        waveforms: decoded recordings.
        windows: of them.
        targets: (n, K) what is to be learnt of each, read a batch at a time.
        batch_size: items of a batch of the shortest windows.
        world: processes that share a batch.
        seed: of the order.

    Attributes:
        seconds_per_item: of audio, on average.
        steps_per_epoch: batches.

    Raises:
        DataError: not one batch can be filled.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        windows: Windows,
        targets: Rows,
        *,
        batch_size: int,
        world: int = 1,
        seed: int = 0,
    ) -> None:
        if len(targets) != len(windows):
            raise OssicleError(f"{len(windows)} windows need as many targets, not {len(targets)}")
        self.waveforms, self.windows, self.targets = waveforms, windows, targets
        self.seed = seed
        self.pools: list[np.ndarray] = []
        self.sizes: list[int] = []
        shortest = windows.lengths.min()
        for length in np.unique(windows.lengths):
            pool = np.flatnonzero(windows.lengths == length)
            size = max(2, round(batch_size * shortest / length))
            size = max(2 * world, size // world * world)  # batch norms need two items
            if len(pool) >= size:
                self.pools.append(pool)
                self.sizes.append(size)
        if not self.pools:
            raise DataError(
                f"{len(windows)} windows of the recordings do not fill a batch of {batch_size}: "
                "choose a smaller batch or add recordings"
            )
        counts = [len(p) // size for p, size in zip(self.pools, self.sizes, strict=True)]
        self.steps_per_epoch = sum(counts)
        heard = sum(
            windows.lengths[pool[0]] * count * size
            for pool, count, size in zip(self.pools, counts, self.sizes, strict=True)
        )
        items = sum(count * size for count, size in zip(counts, self.sizes, strict=True))
        self.seconds_per_item = float(heard) / items / waveforms.sample_rate
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])
        self._lock = threading.Lock()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` among ``world`` in the batch of ``step``.

        Its waveforms are (b, 1, N), its targets (b, K) float32.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        with self._lock:  # of several loaders
            if self._epoch[0] != epoch:
                self._epoch = (epoch, self._order(epoch))
            chosen = self._epoch[1][place]
        share = len(chosen) // world
        rows = slice(rank * share, (rank + 1) * share)
        mine = chosen[rows]
        sounds = np.stack([self.read(int(row)) for row in mine])
        targets = np.asarray(self.targets[mine], np.float32)
        names = [self.waveforms.names[int(self.windows.items[row])] for row in mine]
        return Batch(
            torch.from_numpy(sounds)[:, None],
            names,
            rows,
            len(chosen),
            None,
            torch.from_numpy(targets),
        )

    def read(self, row: int) -> np.ndarray:
        """(N,) float32: the sound of a window."""
        return hear(self.waveforms, self.windows, row)

    def _order(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch: windows shuffled within a length, batches over all."""
        rng = np.random.default_rng(step_seed(self.seed, epoch, ORDER))
        batches: list[np.ndarray] = []
        for pool, size in zip(self.pools, self.sizes, strict=True):
            shuffled = rng.permutation(pool)
            whole = len(pool) // size
            batches += np.split(shuffled[: whole * size], whole)
        return [batches[i] for i in rng.permutation(len(batches))]
