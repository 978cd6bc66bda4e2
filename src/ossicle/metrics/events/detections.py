"""All detections that scores can give, at all thresholds at once.

The frames of a class whose scores exceed a threshold form runs: the detections. As the threshold
falls, runs appear at peaks, grow, and merge. Every run that ever exists is the longest stretch
around some frame in which no score is lower; so T frames give at most T detections, each with the
thresholds between which it exists, instead of T thresholds with up to T / 2 detections each
(Ebbers, Haeb-Umbach & Serizel 2022, "Threshold independent evaluation of sound event detection
scores", ICASSP, count changes at each score; the stretches are the nodes of a max-tree).

K classes, T frames, n detections; times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics.events.tables import microseconds

# Frames x classes that are searched at a time.
_BLOCK = 2**22


class Detections(NamedTuple):
    """Detections, each as long as it exists.

    Attributes:
        group: (n,) int64 file x K + class.
        onset: (n,) int64 microseconds.
        offset: (n,) int64 microseconds.
        upper: (n,) float64: it exists for thresholds below this, the lowest score in it,
        lower: (n,) float64: and from this on, the higher of the scores beside it (-inf: none).
    """

    group: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


def all_detections(
    scores: Mapping[str, FrameScores], files: Sequence[str], classes: Sequence[str]
) -> Iterator[Detections]:
    """The detections of all files and classes, in parts.

    A detection is a run of frames with scores *above* the threshold, from the start of its first
    frame to the end of its last.

    Args:
        scores: file -> scores (K, T) with edges (T + 1,) in seconds.
        files: those that are scored, F; each must have scores. May have no frames.
        classes: the K rows.

    Raises:
        DataError: a file has no scores, or they do not fit: other shapes, no numbers, edges that do
            not ascend; or there are scores of a file that is not scored.
    """
    held: list[tuple[int, np.ndarray, np.ndarray]] = []
    size = 0
    for one in scored_files(scores, files, len(classes)):
        if held and size + one[1].size > _BLOCK:
            yield _detections(held, len(classes))
            held, size = [], 0
        held.append(one)
        size += one[1].size
    if held:
        yield _detections(held, len(classes))


def scored_files(
    scores: Mapping[str, FrameScores], files: Sequence[str], num_classes: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Position, scores (K, T) and edges (T + 1,) in microseconds of each file that has frames.

    Raises:
        DataError: as `all_detections`.
    """
    strangers = set(map(str, scores)) - set(files)
    if strangers:
        raise DataError(f"scores: {min(strangers)} is not among the recordings that are scored")
    for position, name in enumerate(files):
        if name not in scores:
            raise DataError(f"scores: there are none for {name}; score it, or take it out")
        values, edges = _checked_scores(scores[name], num_classes, name)
        if values.shape[1]:
            yield position, values, edges


def nearest_lower(values: np.ndarray, *, equal: bool) -> np.ndarray:
    """For each value the position of the nearest one before it that is lower (or equal).

    A tree of minima over pairs is climbed until a block to the left holds one, then descended.

    Args:
        values: (n,) floats.
        equal: equal values count too.

    Returns:
        (n,) int64; -1 where there is none.
    """
    tree = [values]
    while len(tree[-1]) > 1:
        level = tree[-1]
        if len(level) % 2:
            level = np.append(level, np.inf)
        tree.append(np.minimum(level[::2], level[1::2]))
    compare = np.less_equal if equal else np.less
    found = np.full(len(values), -1, dtype=np.int64)
    # The frame just before is the answer for about half.
    near = np.flatnonzero(compare(values[:-1], values[1:])) + 1
    found[near] = near - 1
    rest = np.flatnonzero(found < 0)
    block, limit = rest, values[rest]
    for height, level in enumerate(tree):
        left = block - 1
        good = (block % 2 == 1) & compare(level[np.maximum(left, 0)], limit)
        if good.any():
            found[rest[good]] = _descend(tree, height, left[good], limit[good], compare)
            rest, block, limit = rest[~good], block[~good], limit[~good]
        block = block // 2
    return found


def _descend(
    tree: list[np.ndarray], height: int, block: np.ndarray, limit: np.ndarray, compare: np.ufunc
) -> np.ndarray:
    """The last position in each block that is low enough."""
    for level in reversed(tree[:height]):
        right = np.minimum(2 * block + 1, len(level) - 1)
        block = np.where(compare(level[right], limit), right, 2 * block)
    return block


def _detections(held: list[tuple[int, np.ndarray, np.ndarray]], num_classes: int) -> Detections:
    """The detections of some files, laid end to end with a wall between any two rows."""
    rows = [np.pad(values, ((0, 0), (1, 0)), constant_values=-np.inf) for _, values, _ in held]
    line = np.concatenate([*(row.ravel() for row in rows), [-np.inf]])
    width = np.array([row.shape[1] for row in rows])
    before = nearest_lower(line, equal=True)
    after = len(line) - 1 - nearest_lower(line[::-1], equal=False)[::-1]
    after[after == len(line)] = len(line) - 1
    # Of equal scores in one run the first stands for all; the walls are no frames.
    chosen = np.flatnonzero((line > -np.inf) & (line[before] < line))
    before, after = before[chosen], after[chosen]
    starts = num_classes * (np.cumsum(width) - width)
    part = np.searchsorted(starts, chosen, side="right") - 1
    row = (chosen - starts[part]) // width[part]
    wall = starts[part] + row * width[part]
    edges = np.concatenate([edges for _, _, edges in held])
    first_edge = np.cumsum(width) - width
    files = np.array([position for position, _, _ in held])
    return Detections(
        files[part] * num_classes + row,
        edges[first_edge[part] + before - wall],
        edges[first_edge[part] + after - wall - 1],
        line[chosen].astype(np.float64),
        np.maximum(line[before], line[after]).astype(np.float64),
    )


def _checked_scores(
    frames: FrameScores, num_classes: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The scores (K, T) and edges (T + 1,) in microseconds of one file."""
    values, edges = np.asarray(frames.scores), np.asarray(frames.edges, dtype=np.float64)
    if values.ndim != 2 or len(values) != num_classes or edges.shape != (values.shape[1] + 1,):
        raise DataError(
            f"scores: {name}: {values.shape} scores and {edges.shape} edges do not fit "
            f"{num_classes} classes: they must be (classes, frames) and (frames + 1,)"
        )
    if not np.isfinite(values).all():
        raise DataError(f"scores: {name}: there are scores that are no numbers")
    times = microseconds(edges)
    if (np.diff(times) <= 0).any() or times[0] < 0:
        raise DataError(f"scores: {name}: the edges of the frames do not ascend from 0 s or later")
    return values, times
