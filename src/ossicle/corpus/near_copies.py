"""What of a corpus sounds like what models are measured on, or like another part of it.

Landmarks find candidates and correlation confirms them, both of ``ossicle.fingerprint``, as in
``ossicle audit``. There each entry of a crowded bucket meets its neighbours alone; here one side is
an index in which every landmark of the other looks up all that equal it, so that a copy is found
however large the corpus is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ossicle import audio
from ossicle.errors import AudioError
from ossicle.fingerprint import SAMPLE_RATE, Candidate, Landmarks, _winners, compare, landmarks
from ossicle.leaks import COMPARED_S

# A hash that more landmarks of the index have tells nothing; it is passed over.
CROWDED = 400
# Of the landmarks of the one with fewer, a pair shares so many, or chance has it. Copies of games'
# sounds in other games shared 4 % and more, most of them over 20 %.
LEAST_SHARED = 0.03
# Candidates of a stretch that are decoded and compared, most votes first.
MOST_COMPARED = 8
# No sample beyond: nothing is to be heard.
SILENT = 1e-3
_BLOCK_S = 60.0
_MEETINGS = 4_000_000  # looked up at a time; 100 bytes each


class Stretch(NamedTuple):
    """A file, or a part of it (s); None: its end."""

    path: str
    onset: float = 0.0
    offset: float | None = None

    @classmethod
    def of(cls, path: object, onset: float, offset: float) -> Stretch:
        """That of a table's row, with NaN for a file's start and end."""
        start = 0.0 if np.isnan(onset) else float(onset)
        return cls(str(path), start, None if np.isnan(offset) else float(offset))


class Heard(NamedTuple):
    """Of a stretch: landmarks, length (s), and why it is unfit, or ""."""

    prints: Landmarks
    seconds: float
    reason: str


def hear(stretch: Stretch) -> Heard:
    """Decode a stretch once."""
    try:
        samples = _samples(stretch)
    except AudioError as error:
        return Heard(Landmarks.none(), 0.0, error.reason)
    seconds = len(samples) / SAMPLE_RATE
    if not len(samples) or np.abs(samples).max() < SILENT:
        return Heard(Landmarks.none(), seconds, "is silent")
    block = round(_BLOCK_S * SAMPLE_RATE)
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    return Heard(landmarks(blocks), seconds, "")


class Index:
    """Landmarks of many stretches, by hash; memory is 12 bytes a landmark.

    Args:
        prints: of each stretch.
    """

    def __init__(self, prints: Sequence[Landmarks]) -> None:
        self.n = len(prints)
        hashes = np.concatenate([p.hashes for p in prints] or [np.zeros(0, np.int32)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._sizes = [len(p.hashes) for p in prints]
        self._rows = np.repeat(np.arange(self.n, dtype=np.int32), self._sizes)[order]
        frames = np.concatenate([p.frames for p in prints] or [np.zeros(0, np.int32)])
        self._frames = frames[order].astype(np.int32)
        self._longest = int(self._frames.max(initial=0))

    def candidates(self, prints: Sequence[Landmarks]) -> Iterator[Candidate]:
        """Pairs of a stretch of ``prints`` (a) and one of the index (b), as in ``fingerprint``.

        In no order; the best shift of each pair that has MIN_VOTES and LEAST_SHARED.
        """
        longest = max((int(p.frames.max(initial=0)) for p in prints), default=0)
        span = 2 * (max(longest, self._longest) + 2)
        rows: list[int] = []
        held = 0
        bounds = [self._bounds(p.hashes) for p in prints]
        for row, (_, counts) in enumerate(bounds):
            met = int(counts.sum())
            if rows and held + met > _MEETINGS:
                yield from self._met(rows, prints, bounds, span)
                rows, held = [], 0
            rows.append(row)
            held += met
        if rows:
            yield from self._met(rows, prints, bounds, span)

    def _bounds(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - first
        return first, np.where(counts > CROWDED, 0, counts)

    def _met(
        self,
        rows: Sequence[int],
        prints: Sequence[Landmarks],
        bounds: Sequence[tuple[np.ndarray, np.ndarray]],
        span: int,
    ) -> Iterator[Candidate]:
        keys = []
        for local, row in enumerate(rows):
            first, counts = bounds[row]
            total = int(counts.sum())
            if not total:
                continue
            # first[i], first[i] + 1, ... counts[i] of them, for each i
            ends = np.cumsum(counts)
            entry = np.arange(total) + np.repeat(first - (ends - counts), counts)
            shift = np.repeat(prints[row].frames.astype(np.int64), counts) - self._frames[entry]
            pair = local * self.n + self._rows[entry].astype(np.int64)
            keys.append(pair * span + (shift + span // 2) // 2)
        if not keys:
            return
        for found in _winners(np.concatenate(keys), self.n, span):
            row = rows[found.a]
            fewer = min(len(prints[row].hashes), self._sizes[found.b])
            if found.votes >= LEAST_SHARED * fewer:
                yield found._replace(a=row)


class Same(NamedTuple):
    """One sound in two stretches: rows, shared length (s), and whether it holds throughout."""

    a: int
    b: int
    overlap_s: float
    throughout: bool


def confirmed(
    found: Iterator[Candidate] | Sequence[Candidate],
    a: Sequence[Stretch],
    b: Sequence[Stretch],
    seconds_a: Sequence[float],
    seconds_b: Sequence[float],
) -> Iterator[Same]:
    """Of candidates those whose samples agree.

    Args:
        found: pairs of a row of ``a`` and one of ``b``; of each row of ``a`` the MOST_COMPARED
            with the most votes are compared.
        a, b: what was indexed and looked up.
        seconds_a, seconds_b: their lengths.
    """
    samples = lru_cache(maxsize=256)(_samples)
    met: dict[int, int] = {}
    for row_a, row_b, shift_s, votes in sorted(found, key=lambda c: (c.a, -c.votes, c.b)):
        met[row_a] = met.get(row_a, 0) + 1
        start_a, start_b = max(0.0, shift_s), max(0.0, -shift_s)
        overlap_s = min(seconds_a[row_a] - start_a, seconds_b[row_b] - start_b)
        if met[row_a] > MOST_COMPARED or overlap_s <= 0:
            continue
        verdict = compare(
            _from(samples(a[row_a]), start_a), _from(samples(b[row_b]), start_b), votes
        )
        if verdict is not None:
            yield Same(row_a, row_b, overlap_s, verdict[3])


def _from(samples: np.ndarray, start_s: float) -> np.ndarray:
    start = round(start_s * SAMPLE_RATE)
    return samples[start : start + round(COMPARED_S * SAMPLE_RATE)]


def _samples(stretch: Stretch) -> np.ndarray:
    return audio.load(
        stretch.path, sample_rate=SAMPLE_RATE, onset=stretch.onset, offset=stretch.offset
    ).samples[0]
