"""Events, scores and times on an axis of so many columns: what pictures and pages draw from.

K classes, T frames, W columns, time last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ossicle.events import FrameScores

# Seconds between two ticks; above a day whole days.
# fmt: off
_STEPS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30,
    60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400,
)
# fmt: on


def runs(
    onsets: Sequence[float] | np.ndarray,
    offsets: Sequence[float] | np.ndarray,
    start_s: float,
    stop_s: float,
    columns: int,
) -> np.ndarray:
    """The columns that events lie in, those that share a column joined.

    Args:
        onsets, offsets: (events,) seconds.
        start_s, stop_s: the axis in seconds.
        columns: W.

    Returns:
        (runs, 2) int: first column, and the one after the last; rising. An event takes one column
        at least; what lies outside of the axis is left out.
    """
    begin, end = np.asarray(onsets, np.float64), np.asarray(offsets, np.float64)
    inside = (end >= start_s) & (begin < stop_s)
    scale = columns / (stop_s - start_s)
    # Times are sums of fractions: the border of a column is met to a billionth of it.
    first = np.floor((begin[inside] - start_s) * scale + 1e-6).astype(int)
    last = np.ceil((end[inside] - start_s) * scale - 1e-6).astype(int)
    first = np.clip(first, 0, columns - 1)
    last = np.clip(last, first + 1, columns)
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order]) if len(order) else last[order]
    new = np.ones(len(first), bool)
    new[1:] = first[1:] >= last[:-1]
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(first)) - 1
    return np.stack([first[starts], last[ends[: len(starts)]]], 1).reshape(-1, 2)


def envelope(frames: FrameScores, start_s: float, stop_s: float, columns: int) -> np.ndarray:
    """The highest score of the frames that touch each column.

    Args:
        frames: scores (K, T) and their edges (T + 1,) in seconds; frames may differ in length.
        start_s, stop_s: the axis in seconds.
        columns: W.

    Returns:
        (K, W) float32; NaN in columns that no frame touches.
    """
    scores, edges = np.asarray(frames.scores, np.float32), np.asarray(frames.edges, np.float64)
    made = np.full((len(scores), columns), np.nan, np.float32)
    if scores.shape[-1] == 0:
        return made
    borders = np.linspace(start_s, stop_s, columns + 1)
    tiny = 1e-6 * (stop_s - start_s) / columns
    first = np.searchsorted(edges, borders[:-1] + tiny, "right") - 1
    last = np.searchsorted(edges, borders[1:] - tiny, "left")
    first, last = np.maximum(first, 0), np.minimum(last, scores.shape[-1])
    for column in np.flatnonzero(last > first):
        made[:, column] = scores[:, first[column] : last[column]].max(axis=1)
    return made


def clock(seconds: float, step: float = 1.0, longest: float | None = None) -> str:
    """A time of a recording: 12.5 s, 3:20, 1:03:20.

    Args:
        seconds: the time.
        step: what neighbouring times differ by; it says how many decimals there are.
        longest: the last time of the axis, so that all of them are written alike.
    """
    longest = seconds if longest is None else longest
    digits = 0 if step >= 1 else min(3, math.ceil(-math.log10(step) - 1e-9))
    if longest < 60:
        return f"{seconds:.{digits}f} s"
    thousandths = round(seconds * 1000)
    whole, part = divmod(thousandths, 1000)
    fraction = f".{part:03d}"[: digits + 1] if digits else ""
    minutes, rest = divmod(whole + (0 if digits or part < 500 else 1), 60)
    if longest < 3600:
        return f"{minutes}:{rest:02d}{fraction}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}{fraction}"


def time_ticks(start_s: float, stop_s: float, most: int) -> list[tuple[float, str]]:
    """(time in seconds, text) at round times, at most so many of them."""
    length = stop_s - start_s
    step: float = next((x for x in _STEPS if length / x <= most), 0.0)
    if not step:
        step = 86400.0 * math.ceil(length / most / 86400)
    first, last = math.ceil(start_s / step - 1e-9), math.floor(stop_s / step + 1e-9)
    return [(i * step, clock(i * step, step, stop_s)) for i in range(first, last + 1)]


def thresholds_of(
    thresholds: Mapping[str, float] | float | None, classes: Sequence[str]
) -> dict[str, float]:
    """By class; those without one are left out."""
    if thresholds is None:
        return {}
    if isinstance(thresholds, Mapping):
        return {name: float(thresholds[name]) for name in classes if name in thresholds}
    return dict.fromkeys(classes, float(thresholds))
