"""Batches of stems for training separators: random stretches, mixed anew, known from their number.

The stems of a part of `Mixtures` are decoded once. Each item then has S stems that need never have
been together: those of like sources (speakers) come from S different groups, those with a role are
one of each. Mixing anew makes of a few hundred stems more mixtures than training can hear.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ossicle.datasets.mixtures import Mixtures
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.features import as_clips
from ossicle.pretrain.waveforms import FULL_SCALE, Waveforms, decode, key
from ossicle.train import Batch, step_seed

DRAWN = 21  # stream of random numbers
# A stretch that is quieter than its stem by more than this is drawn again, so many times at most.
QUIET_DB, TRIES = 30.0, 5


class StemBatches:
    """Batch ``step`` of stems (b, S, N); the mixture is their sum over S.

    Args:
        mixtures: the part to learn from.
        batch_size: items of the joint batch of all processes.
        crop_s: N, in seconds; shorter stems lie somewhere in zeros.
        remix: stems are drawn one by one and mixed anew, at the level differences of the table;
            otherwise they are those of one mixture, at one place in it.
        seed: of all that is drawn.

    Attributes:
        seconds_per_item: of audio.
        stems: the decoded stems.

    Raises:
        DataError: there are no mixtures, or too few groups to mix anew.
        OssicleError: a size is not above zero.
    """

    def __init__(
        self,
        mixtures: Mixtures,
        *,
        batch_size: int,
        crop_s: float,
        remix: bool = True,
        seed: int = 0,
    ) -> None:
        self.crop = round(crop_s * mixtures.sample_rate) if math.isfinite(crop_s) else 0
        if batch_size < 1 or self.crop < 1:
            raise OssicleError("batch size and crop must be above zero")
        if not len(mixtures):
            raise DataError(f"{mixtures.root}: has no mixtures to learn from")
        self.batch_size, self.remix, self.seed = batch_size, remix, seed
        self.ordered = bool(mixtures.sources)
        self.seconds_per_item = self.crop / mixtures.sample_rate
        numbers = range(1, mixtures.n_sources + 1)
        table = mixtures.table
        paths = [str(path) for s in numbers for path in table[f"source{s}"]]
        files = list(dict.fromkeys(paths))
        self.stems = _decoded(files, mixtures.sample_rate)
        item_of = {files[row]: item for item, row in enumerate(self.stems.rows.tolist())}
        lost = [path for path in files if path not in item_of]
        if lost:
            reason = next((why for _, name, why in self.stems.skipped if name == lost[0]), "lost")
            raise DataError(f"{lost[0]}: {reason}")
        # (mixtures, S) the stem of each source; (mixtures, S) its level against the first, dB.
        self.rows = np.array([[item_of[path] for path in table[f"source{s}"]] for s in numbers]).T
        self.levels = np.array([table[f"level_db{s}"] for s in numbers], np.float64).T
        self.groups = self._groups(mixtures, item_of)
        self.rms = _loudness(self.stems)
        if remix and not self.ordered and len(np.unique(self.groups)) < mixtures.n_sources:
            raise DataError(
                f"{mixtures.root}: {len(np.unique(self.groups))} speakers or groups are too few to "
                f"mix {mixtures.n_sources} of them"
            )

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
        mine = range(rank * share, (rank + 1) * share)
        stems, names = [], []
        for i in mine:
            rng = np.random.default_rng([step_seed(self.seed, step, DRAWN), i])
            drawn, who = self._remixed(rng) if self.remix else self._as_it_is(rng)
            stems.append(drawn)
            names.append(" + ".join(self.stems.names[item] for item in who))
        rows = slice(mine.start, mine.stop)
        return Batch(torch.from_numpy(np.stack(stems)), names, rows, self.batch_size)

    def _groups(self, mixtures: Mixtures, item_of: dict[str, int]) -> np.ndarray:
        """(stems,) a number for whom or what each is of."""
        numbers: dict[str, int] = {}
        groups = np.zeros(len(self.stems), np.int64)
        for s in range(1, mixtures.n_sources + 1):
            columns = mixtures.table[f"source{s}"], mixtures.who(s)
            for path, group in zip(*columns, strict=True):
                groups[item_of[path]] = numbers.setdefault(group, len(numbers))
        return groups

    def _remixed(self, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        row = self.rows[rng.integers(len(self.rows))]
        levels = self.levels[rng.integers(len(self.levels))]
        if self.ordered:
            who = [int(self.rows[rng.integers(len(self.rows)), s]) for s in range(len(row))]
        else:
            pool = self.rows.reshape(-1)
            who = [int(rng.choice(pool))]
            while len(who) < len(row):
                pool = pool[self.groups[pool] != self.groups[who[-1]]]
                who.append(int(rng.choice(pool)))
        loudness = self.rms[who[0]]
        stems = []
        for item, level in zip(who, levels, strict=True):
            gain = loudness * 10 ** (level / 20) / self.rms[item]
            stems.append(self._sounding(item, rng) * np.float32(gain))
        return np.stack(stems), who

    def _as_it_is(self, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        who = [int(item) for item in self.rows[rng.integers(len(self.rows))]]
        spare = int(self.stems.lengths[who].max()) - self.crop
        start = int(rng.integers(min(spare, 0), max(spare, 0) + 1))
        return np.stack([self.stems.read(item, start, self.crop) for item in who]), who

    def _sounding(self, item: int, rng: np.random.Generator) -> np.ndarray:
        """(N,) a stretch of a stem in which it is heard."""
        spare = int(self.stems.lengths[item]) - self.crop
        floor = self.rms[item] * 10 ** (-QUIET_DB / 20)
        stretch = np.zeros(self.crop, np.float32)
        for _ in range(TRIES):
            start = int(rng.integers(min(spare, 0), max(spare, 0) + 1))
            stretch = self.stems.read(item, start, self.crop)
            if math.sqrt(float(np.square(stretch).mean())) > floor:
                break
        return stretch


def _decoded(paths: list[str], sample_rate: int) -> Waveforms:
    items = as_clips(paths)
    folder = cache_dir() / "waveforms" / key(items, sample_rate)[:16]
    return decode(items, sample_rate, folder)


def _loudness(stems: Waveforms) -> np.ndarray:
    """(stems,) root of the mean square; 1 for silence, which no gain makes louder."""
    rms = np.ones(len(stems))
    for item, (start, length) in enumerate(zip(stems.starts, stems.lengths, strict=True)):
        values = stems.samples[start : start + length].astype(np.float64) / FULL_SCALE
        rms[item] = math.sqrt(float(np.square(values).mean())) or 1.0
    return rms
