"""Running medians over frames that need not be of one length, whole and streaming.

K classes, T frames, L levels; time is last. The definition: the filtered score of a frame is the
greatest value that the scores reach during *more than half* of the time of its window. The window
is all frames whose centres are within median_s / 2 of the frame's own centre (1 microsecond more,
for rounding); beyond its ends the recording goes on as its mirror image (d c b a | a b c d |
d c b a), again and again if it is shorter than the window.

For frames of one length h this is the plain median of 2 * floor(median_s / (2 h)) + 1 frames, an
odd number: that of ``scipy.ndimage.median_filter`` with its default border, "reflect". For frames
of several lengths it is the weighted median, weights being lengths.

Whether the median reaches a level needs no median: it does where the frames that reach the level
hold more than half of the window's time. So a stream costs two additions a frame, however long
the window. Times are counted in whole nanoseconds, so that sums are exact, and how a stream is
cut cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from ossicle.errors import DataError
from ossicle.events import FrameScores

_TICKS_PER_S = 10**9
_SLACK = 2 * 1000  # twice a microsecond, in ticks: see `_centres`
_LATEST_S = 4e9  # sums of two times in ticks stay below 2**63
# Scores looked at in one go where frames are of several lengths (8 bytes each).
_BLOCK = 2**20


class Reached(NamedTuple):
    """Frames whose windows are known to their ends.

    Attributes:
        edges: (n + 1,) float64 seconds, as they came.
        scores: (K, n) float32, as they came, with 0 for NaN.
        reached: (L, K, n) bool: whether the filtered score is at least the level.
    """

    edges: np.ndarray
    scores: np.ndarray
    reached: np.ndarray


class RunningMedian:
    """Where the filtered scores of a stream reach levels; frames come out half a window late.

    Args:
        medians_s: (K,) seconds; 0: no filter.
        levels: (L, K) float32.
    """

    def __init__(self, medians_s: np.ndarray, levels: np.ndarray) -> None:
        self._levels = np.asarray(levels, np.float32)
        windows = _window_ticks(medians_s)
        self._rows = {int(w): np.flatnonzero(windows == w) for w in np.unique(windows)}
        self._longest = int(windows.max(initial=0))
        self._edges = np.empty(0)  # of the frames that have not come out
        # Frames held, with those that have come out and are still in others' windows.
        self._scores = np.empty((len(windows), 0), np.float32)
        self._ticks = np.empty(0, np.int64)
        self._first = 0  # of the frames held, the first that has not come out
        self._begun = False

    def push(self, edges: np.ndarray, scores: np.ndarray) -> Reached:
        """Takes the next frames; gives those whose windows are now complete, maybe none.

        Args:
            edges: (t + 1,) seconds, ascending; the first is the last of the push before.
            scores: (K, t); NaN is nothing to hear, 0.

        Raises:
            DataError: the shapes do not fit, edges do not ascend, or do not follow on.
        """
        edges, scores = _checked(edges, scores, len(self._scores))
        if len(self._edges) and edges[0] != self._edges[-1]:
            raise DataError(
                f"frames that begin at {edges[0]:.6f} s do not follow on those that end at "
                f"{self._edges[-1]:.6f} s"
            )
        new = slice(1, None) if len(self._edges) else slice(None)
        if not self._longest:
            self._edges = edges[-1:]
            return Reached(edges, scores, scores >= self._levels[:, :, None])
        self._edges = np.concatenate([self._edges, edges[new]])
        self._ticks = np.concatenate([self._ticks, _ticks(edges[new])])
        self._scores = np.concatenate([self._scores, scores], axis=1)
        return self._settled(False)

    def finish(self) -> Reached:
        """The frames that are left; the stream has ended."""
        if not self._longest or len(self._edges) < 2:
            end = self._edges[-1:]
            none = self._scores[:, :0]
            return Reached(end, none, none >= self._levels[:, :, None])
        return self._settled(True)

    def _settled(self, last: bool) -> Reached:
        """Takes out the frames whose windows are complete."""
        reach = (self._longest + _SLACK) // 2 + 1
        if last or self._begun or self._ticks[-1] - self._ticks[0] > reach:
            self._mirror(reach, not self._begun, last)
            self._begun = True
        n_held = len(self._edges) - 1
        if last:
            count = n_held
        elif self._begun:
            own = _centres(self._ticks[self._first :])
            end = 2 * self._ticks[-1] - self._longest - _SLACK
            count = int(np.searchsorted(own, end, side="right"))
        else:
            count = 0
        first, stop = self._first, self._first + count
        reached = np.empty((*self._levels.shape, count), bool)
        if count:
            for ticks, rows in self._rows.items():
                self._compare(ticks, rows, first, stop, reached)
        out = Reached(self._edges[: count + 1], self._scores[:, first:stop], reached)
        self._forget(count)
        return out

    def _mirror(self, reach: int, before: bool, after: bool) -> None:
        """Puts the mirror images in place that windows at the ends reach into."""
        widths, scores = np.diff(self._ticks), self._scores
        sources, n_before = [np.arange(len(widths))], 0
        if before:
            images = (len(widths) - 1 - _beyond(widths[::-1], reach))[::-1]
            n_before = len(images)
            sources.insert(0, images)
        if after:
            # Where the beginning is mirrored already, what is held reaches further than this does.
            sources.append(_beyond(widths, reach))
        if len(sources) == 1:
            return
        index = np.concatenate(sources)
        self._scores, widths = scores[:, index], widths[index]
        start = self._ticks[0] - widths[:n_before].sum()
        self._ticks = start + np.concatenate([[0], np.cumsum(widths)])
        self._first += n_before

    def _compare(
        self, ticks: int, rows: np.ndarray, first: int, stop: int, out: np.ndarray
    ) -> None:
        """Fills ``out[:, rows]`` for the frames held from ``first`` to ``stop``."""
        if not ticks:
            scores = self._scores[rows, first:stop]
            out[:, rows] = scores >= self._levels[:, rows, None]
            return
        low, high = _windows(self._ticks, ticks, first, stop)
        begin, end = int(low[0]), int(high[-1])
        low, high = low - begin, high - begin
        held = self._ticks[begin : end + 1]
        half, widths = held[high] - held[low], np.diff(held)
        scores = self._scores[rows, begin:end]
        time = np.zeros((len(rows), end - begin + 1), np.int64)
        for level, found in zip(self._levels, out, strict=True):
            np.cumsum((scores >= level[rows, None]) * widths, axis=1, out=time[:, 1:])
            found[rows] = 2 * (time.take(high, axis=1) - time.take(low, axis=1)) > half

    def _forget(self, count: int) -> None:
        """Drops the frames that no window will hold any more."""
        self._edges = self._edges[count:]
        self._first += count
        if not self._begun:
            return
        oldest = self._first
        if oldest < len(self._ticks) - 1:
            oldest = int(_windows(self._ticks, self._longest, oldest, oldest + 1)[0][0])
        # Frames to come, and the mirror image of the end, reach half a window back from there.
        back = self._ticks[-1] - (self._longest + _SLACK) // 2 - 1
        oldest = min(oldest, max(int(np.searchsorted(self._ticks, back, side="right")) - 1, 0))
        self._scores = self._scores[:, oldest:].copy()
        self._ticks = self._ticks[oldest:].copy()
        self._first -= oldest


def filtered(frames: FrameScores, medians_s: float | Sequence[float] | np.ndarray) -> FrameScores:
    """The filtered scores of a whole recording, by the definition above.

    Args:
        frames: scores (K, T); NaN is 0.
        medians_s: seconds, one or (K,).

    Raises:
        DataError: the shapes do not fit, or edges do not ascend.
    """
    edges, scores = _checked(frames.edges, frames.scores, len(frames.scores))
    windows = np.broadcast_to(_window_ticks(medians_s), len(scores))
    result = scores.copy()
    ticks = _ticks(edges)
    widths = np.diff(ticks)
    for window in np.unique(windows[windows > 0]) if len(widths) else ():
        reach = (int(window) + _SLACK) // 2 + 1
        before = (len(widths) - 1 - _beyond(widths[::-1], reach))[::-1]
        index = np.concatenate([before, np.arange(len(widths)), _beyond(widths, reach)])
        wider = np.concatenate([[0], np.cumsum(widths[index])])
        first = len(before)
        low, high = _windows(wider, int(window), first, first + len(widths))
        for row in np.flatnonzero(windows == window):
            size = int(high[0] - low[0])
            wide = scores[row][index]
            # Lengths that differ by the rounding of edges to ticks are one length.
            if np.all(high - low == size) and np.ptp(widths) * size < widths.min():
                # As a picture of one row: the filter for one axis alone was wrong in some releases
                # (scipy issue 23075), as are the borders where they are short.
                smooth = median_filter(wide[None], size=(1, size))[0]
                result[row] = smooth[first : first + len(widths)]
            else:
                result[row] = _weighted(wide, widths[index], low, high)
    return FrameScores(result, edges)


def _weighted(
    scores: np.ndarray, widths: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Weighted medians of scores[low[i] : high[i]]."""
    longest = int((high - low).max())
    step = max(_BLOCK // longest, 1)
    parts = []
    for begin in range(0, len(low), step):
        place = low[begin : begin + step, None] + np.arange(longest)
        inside = place < high[begin : begin + step, None]
        place = np.minimum(place, len(scores) - 1)
        weight = np.where(inside, widths[place], 0)
        order = np.argsort(-scores[place], axis=1, kind="stable")
        reached = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
        at = np.argmax(2 * reached > reached[:, -1:], axis=1)
        chosen = np.take_along_axis(order, at[:, None], axis=1)
        parts.append(np.take_along_axis(scores[place], chosen, axis=1)[:, 0])
    return np.concatenate(parts)


def _beyond(widths: np.ndarray, reach: int) -> np.ndarray:
    """Which frames follow the last, in the recording's mirror image, to ``reach`` ticks on."""
    n, total = len(widths), int(widths.sum())
    if reach <= total:
        count = int(np.searchsorted(np.cumsum(widths[::-1]), reach)) + 1
    else:
        count = n * (reach // total + 1)
    turn = np.arange(count) % (2 * n)
    return np.where(turn < n, n - 1 - turn, turn - n)


def _windows(
    ticks: np.ndarray, window: int, first: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the frames ``first`` to ``stop``: the first frame in the window, and the one after it."""
    centres = _centres(ticks)
    own = centres[first:stop]
    reach = window + _SLACK
    return (
        np.searchsorted(centres, own - reach, side="left"),
        np.searchsorted(centres, own + reach, side="right"),
    )


def _centres(ticks: np.ndarray) -> np.ndarray:
    """Twice the centres, which are whole numbers; what is compared with them is twice as long."""
    return ticks[:-1] + ticks[1:]


def _ticks(edges: np.ndarray) -> np.ndarray:
    return np.rint(edges * _TICKS_PER_S).astype(np.int64)


def _window_ticks(medians_s: float | Sequence[float] | np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(medians_s, np.float64) * _TICKS_PER_S).astype(np.int64)


def _checked(edges: np.ndarray, scores: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    edges, scores = np.asarray(edges, np.float64), np.asarray(scores, np.float32)
    if edges.ndim != 1 or not len(edges) or scores.shape != (n_rows, len(edges) - 1):
        raise DataError(
            f"scores of {n_rows} classes in {max(edges.size - 1, 0)} frames are "
            f"({n_rows}, {max(edges.size - 1, 0)}), not {scores.shape}"
        )
    if not np.abs(edges).max() < _LATEST_S or not np.all(np.diff(_ticks(edges)) > 0):
        raise DataError("the edges of frames are seconds, finite, each later than the one before")
    return edges, np.where(np.isnan(scores), np.float32(0), scores)
