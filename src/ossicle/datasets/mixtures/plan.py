"""What a mixture holds, drawn from (seed, part, number) alone: more of them change none.

Times are samples at the mixtures' rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ossicle.datasets.clips import part_text
from ossicle.datasets.mixtures.settings import PARTS, MixtureSettings
from ossicle.datasets.mixtures.sources import BLOCK_S, Clip

# Keeps these random numbers apart from those of other purposes.
_TAG = 0x6D697874
# Less of a joined clip is nothing to hear, and may be no sample at the file's own rate.
_SHORTEST_S = 0.01


class Piece(NamedTuple):
    """A stretch of a clip.

    Attributes:
        clip: it is cut from.
        start, stop: first sample of it and the one after the last.
    """

    clip: Clip
    start: int
    stop: int


class SourcePlan(NamedTuple):
    """One source of a mixture.

    Attributes:
        pieces: what it is made of, one after the other.
        at: sample of the mixture at which it begins; zeros are before and after it.
        level_db: against the first source (dB).
    """

    pieces: tuple[Piece, ...]
    at: int
    level_db: float

    @property
    def length(self) -> int:
        """Samples of all pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces)


class MixturePlan(NamedTuple):
    """One mixture.

    Attributes:
        part: of `PARTS`.
        number: from 0.
        size: samples, N.
        sources: S of them.
    """

    part: str
    number: int
    size: int
    sources: tuple[SourcePlan, ...]

    @property
    def folder(self) -> str:
        """The folder's name below the output folder."""
        return f"{self.part}/{self.number:05d}"


class Pool:
    """The clips of one part, by what they are drawn by.

    Args:
        clips: of the part, of all tables.
        n_tables: how many tables there are.
    """

    def __init__(self, clips: Sequence[Clip], n_tables: int) -> None:
        self.tables: list[dict[str, list[Clip]]] = [{} for _ in range(n_tables)]
        for clip in sorted(clips, key=clip_order):
            self.tables[clip.table].setdefault(clip.identity, []).append(clip)
        self.names = [sorted(table) for table in self.tables]


def clip_order(clip: Clip) -> tuple[int, str, float, float]:
    """What clips are sorted by: the same on any machine, in whatever order the table is."""
    return clip.table, clip.name, clip.onset or 0.0, clip.offset or float("inf")


def draw_mixture(pool: Pool, settings: MixtureSettings, part: str, number: int) -> MixturePlan:
    """The plan of one mixture.

    Groups (or labels) are drawn first and then their clips, so that groups of many clips are not
    heard more often.

    Args:
        pool: the part's clips.
        settings: what can be chosen.
        part: of `PARTS`.
        number: from 0.
    """
    draw = np.random.default_rng([_TAG, settings.seed, PARTS.index(part), number])
    if len(pool.tables) == 1:
        names = pool.names[0]
        chosen = draw.choice(len(names), settings.n_sources, replace=False)
        drawn = [pool.tables[0][names[i]] for i in chosen]
    else:
        drawn = [
            table[names[int(draw.integers(len(names)))]]
            for table, names in zip(pool.tables, pool.names, strict=True)
        ]
    runs: list[list[Clip]] = []
    for clips in drawn:
        # Segments of one file under two labels, or in two tables, may be the same sound.
        used = {clip.path for run in runs for clip in run}
        others = [clip for clip in clips if clip.path not in used]
        runs.append(_run(others or clips, settings, draw))
    size = settings.size
    if size is None:
        lengths = [sum(clip.size for clip in run) for run in runs]
        size = min(lengths) if settings.length == "min" else max(lengths)
    sources = []
    for position, run in enumerate(runs):
        pieces = _pieces(run, size, settings, draw)
        length = sum(piece.stop - piece.start for piece in pieces)
        at = int(draw.integers(size - length + 1))
        level_db = float(draw.uniform(*settings.level_db)) if position else 0.0
        # Rounded, so that the table's text is all there is to know.
        sources.append(SourcePlan(pieces, at, round(level_db, 4)))
    return MixturePlan(part, number, size, tuple(sources))


def _run(clips: list[Clip], settings: MixtureSettings, draw: np.random.Generator) -> list[Clip]:
    """One clip, or with `join` as many different ones as the duration takes."""
    first = clips[int(draw.integers(len(clips)))]
    if not settings.join or settings.size is None or first.size >= settings.size:
        return [first]
    run, length = [first], first.size
    for i in draw.permutation(len(clips)):
        if length >= settings.size:
            break
        if clips[i] is not first:
            run.append(clips[i])
            length += clips[i].size
    return run


def _pieces(
    run: list[Clip], size: int, settings: MixtureSettings, draw: np.random.Generator
) -> tuple[Piece, ...]:
    if len(run) == 1:
        clip = run[0]
        start = _place(clip, size, settings, draw)
        return (Piece(clip, start, min(start + size, clip.size)),)
    pieces, left = [], size
    for clip in run:
        if left < round(_SHORTEST_S * settings.sample_rate):
            break
        pieces.append(Piece(clip, 0, min(clip.size, left)))
        left -= pieces[-1].stop
    return tuple(pieces)


def _place(clip: Clip, size: int, settings: MixtureSettings, draw: np.random.Generator) -> int:
    """Where a stretch of a longer clip begins: a random place that holds sound.

    That is, at least half as many 50 ms blocks that sound as the fullest stretch has.
    """
    where, within = draw.random(), draw.random()
    if clip.size <= size:
        return 0
    block = BLOCK_S * settings.sample_rate
    wide = max(1, min(round(size / block), len(clip.active)))
    sums = np.concatenate([[0], np.cumsum(clip.active)])
    sounding = sums[wide:] - sums[:-wide]
    good = np.flatnonzero(sounding * 2 >= max(1, sounding.max()))
    start = (good[int(where * len(good))] + within) * block
    return min(int(start), clip.size - size)


def clip_text(source: SourcePlan, sample_rate: int) -> str:
    """Where a source was cut from: "a/1.wav (0.5 to 2.5 s); a/7.wav"."""
    texts = []
    for piece in source.pieces:
        onset, offset = seconds(piece, sample_rate)
        texts.append(f"{piece.clip.name}{part_text(onset, offset)}")
    return "; ".join(texts)


def seconds(piece: Piece, sample_rate: int) -> tuple[float | None, float | None]:
    """Onset and offset of a piece in its file (s); None: the file's start, its end."""
    clip, base = piece.clip, piece.clip.onset or 0.0
    onset = base + piece.start / sample_rate if piece.start else clip.onset
    offset = base + piece.stop / sample_rate if piece.stop < clip.size else clip.offset
    return onset, offset
