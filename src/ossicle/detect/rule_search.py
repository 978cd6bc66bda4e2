"""The search for the rule of one class that has the best F1 on a set of recordings.

What was counted for a rule is kept, by recording, so that searching other sets of the same
recordings (cross-validation) costs little more than one search. F recordings, T frames in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np

from ossicle.detect.decoder import SLACK_S
from ossicle.detect.median import filtered
from ossicle.detect.outcomes import Outcomes
from ossicle.detect.rules import ClassRule
from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics.events.tables import microseconds

# Thresholds that are tried first, from each of three looks at the scores.
_QUANTILES = 16
# They are put on a grid of so many steps to a unit of log odds: sets of recordings that differ
# little then try the same ones, and what was counted for one set serves the others.
_STEPS = 32
# Thresholds that are tried near the best; so few scores are all tried at once.
_NEAR = 48
# The two steps of a search take turns; more than this many change nothing worth the time.
_TURNS = 3


# So few shapes are all tried with all thresholds.
_FEW = 8
# Of the starts, those that are followed.
_CLIMBS = 2
# Threshold, median, and what is called a shape here: share of low, gap and duration.
_Setting: TypeAlias = tuple[float, float, tuple[float, ...]]


class Found(NamedTuple):
    """The best rule.

    Attributes:
        rule: it.
        f1: on the recordings that were searched.
        plateau: any threshold above the first number and up to the second gives this F1 there.
    """

    rule: ClassRule
    f1: float
    plateau: tuple[float, float]


class Lines:
    """Recordings one after the other on one line of frames, with a mark after each.

    Args:
        frames: of each recording, scores (K, T).
        num_classes: K.

    Raises:
        DataError: scores are not of K classes, or a recording has no frames.
    """

    def __init__(self, frames: Sequence[FrameScores], num_classes: int) -> None:
        for part in frames:
            if part.scores.shape != (num_classes, len(part.edges) - 1) or len(part.edges) < 2:
                raise DataError(
                    f"scores of a validation recording are {part.scores.shape}: they must be of "
                    f"{num_classes} classes, in one frame or more"
                )
        self.frames = [
            FrameScores(np.asarray(part.scores, np.float32), np.asarray(part.edges, np.float64))
            for part in frames
        ]
        self.ends_s = np.array([part.edges[-1] for part in self.frames])
        # Place p on the line is a frame and its first edge, or the mark and the last edge.
        self.edges = np.concatenate([[0.0], *(part.edges for part in self.frames)])
        self.micro = microseconds(self.edges)
        counts = [len(part.edges) for part in self.frames]
        self.file = np.concatenate([[0], np.repeat(np.arange(len(counts)), counts)])
        self.hop_s = float(np.median(np.concatenate([np.diff(p.edges) for p in self.frames])))

    def scores(self, row: int, median_s: float) -> np.ndarray:
        """A class on the line: its filtered scores, and -1 for each mark, one before them all."""
        mark = np.array([-1.0], np.float32)
        parts = [mark]
        for part in self.frames:
            one = filtered(FrameScores(part.scores[row : row + 1], part.edges), median_s)
            parts += [one.scores[0], mark]
        return np.concatenate(parts)


class Levels:
    """Thresholds to try for some recordings, from their scores and events alone.

    Args:
        scores: (n,) of all their frames.
        sounding: (n,) bool: which of these frames lie in events.
        peaks: the greatest score of each recording.
    """

    def __init__(self, scores: np.ndarray, sounding: np.ndarray, peaks: np.ndarray) -> None:
        self.values = np.unique(scores)
        self.first = self._first([scores, scores[sounding], peaks])

    def _first(self, looks: Sequence[np.ndarray]) -> list[float]:
        """Between scores: evenly among those of all frames, of events, and of peaks."""
        if len(self.values) <= _NEAR:
            return sorted({0.5, *self._between(self.values)})
        picked = {0.5}
        steps = np.linspace(0, 1, _QUANTILES)
        for look in looks:
            if len(look):
                picked |= set(self._between(np.quantile(look, steps, method="nearest")))
        with np.errstate(divide="ignore"):
            odds = np.array(sorted(picked))
            odds = np.log(odds / (1 - odds))
        on_grid = np.unique(1 / (1 + np.exp(-np.round(odds * _STEPS) / _STEPS)))
        # Scores that are all alike would fall on few points of the grid.
        return (on_grid if 2 * len(on_grid) > len(picked) else np.array(sorted(picked))).tolist()

    def around(self, threshold: float, number: int) -> list[float]:
        """So many of the thresholds first tried on each side of one of them, and it."""
        at = int(np.searchsorted(np.array(self.first), threshold))
        return self.first[max(at - number, 0) : at + number + 1]

    def inside(self, low: float, high: float) -> list[float]:
        """Thresholds between the scores that lie between two numbers."""
        values = self.values[(self.values >= low) & (self.values <= high)]
        if len(values) > _NEAR:
            values = values[np.linspace(0, len(values) - 1, _NEAR).round().astype(np.int64)]
        return self._between(values)

    def limits(self, low: float, high: float) -> tuple[float, float]:
        """The scores that thresholds from ``low`` to ``high`` lie between: all below, all above."""
        below, above = np.searchsorted(self.values, np.array([low, high], np.float32))
        return (
            float(self.values[below - 1]) if below else 0.0,
            float(self.values[above]) if above < len(self.values) else 1.0,
        )

    def _between(self, values: np.ndarray) -> list[float]:
        """Thresholds that these scores, and none below, reach."""
        at = np.searchsorted(self.values, values)
        below = np.where(at > 0, self.values[np.maximum(at - 1, 0)], 0.0).astype(np.float64)
        return [float(value) for value in (below + values) / 2]


class Search:
    """Searches for one class.

    Args:
        lines: the recordings.
        row: of the class among the scores.
        outcomes: its reference.
        grids: "median_s", "low_share", "min_gap_s", "min_duration_s": the values to try, the one
            that is off first.
    """

    def __init__(
        self,
        lines: Lines,
        row: int,
        outcomes: Outcomes,
        grids: Mapping[str, tuple[float, ...]],
    ) -> None:
        self._lines, self._row, self._outcomes = lines, row, outcomes
        self._medians = grids["median_s"]
        shares, gaps = grids["low_share"], grids["min_gap_s"]
        durations = grids["min_duration_s"]
        self._shapes = list(product(shares, gaps, durations))
        # The best threshold is another one with hysteresis, or where gaps and blips are taken out.
        filled = (1.0, gaps[len(gaps) // 2], durations[len(durations) // 2])
        some = [*((share, 0.0, 0.0) for share in shares), filled]
        self._starts = dict.fromkeys(self._shapes if len(self._shapes) <= _FEW else some)
        self._smooth: dict[float, np.ndarray] = {}
        self._last: tuple[float, float, float] | None = None
        self._runs = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._counts: dict[ClassRule, np.ndarray] = {}
        raw = self._filtered(0.0)
        starts = np.flatnonzero(raw < 0)[:-1] + 1
        self._peaks = np.maximum.reduceat(raw, starts)
        self._sounding = outcomes.sounding(lines.file, lines.micro)

    def counts(self, rule: ClassRule) -> np.ndarray:
        """(3, F): hits, misses and false alarms of a rule; the events are those of `decode`."""
        if rule not in self._counts:
            self._counts[rule] = self._outcomes(*self.events(rule)).astype(np.int32)
        return self._counts[rule]

    def f1(self, rule: ClassRule, inside: np.ndarray) -> float:
        """F1 over the recordings ``inside``, (F,) bool; 0 where the reference has nothing."""
        hits, misses, alarms = self.counts(rule)[:, inside].sum(axis=1).tolist()
        return 2 * hits / (2 * hits + misses + alarms) if hits else 0.0

    def events(self, rule: ClassRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The events of a rule in all recordings: file, onset and offset (int64 microseconds)."""
        low = rule.threshold if rule.low is None else rule.low
        first, last = self._runs_of(rule.median_s, rule.threshold, low)
        file, edges = self._lines.file[first], self._lines.edges
        if rule.min_gap_s and len(first):
            gap = edges[first[1:]] - edges[last[:-1]]
            apart = (file[1:] != file[:-1]) | (gap >= rule.min_gap_s - SLACK_S)
            first, last = first[np.append(True, apart)], last[np.append(apart, True)]
        if rule.min_duration_s:
            kept = edges[last] - edges[first] >= rule.min_duration_s - SLACK_S
            first, last = first[kept], last[kept]
        micro = self._lines.micro
        return self._lines.file[first], micro[first], micro[last]

    def best(self, inside: np.ndarray) -> Found:
        """The best rule for the recordings ``inside``, (F,) bool; of the others nothing is used."""
        levels = self._levels(inside)
        starts = [self._curve(shape, levels.first, levels, inside) for shape in self._starts]
        starts.sort(key=lambda start: -self.f1(_rule(*start), inside))
        ends = [self._climb(start, levels, inside) for start in starts[:_CLIMBS]]
        threshold, median_s, shape = max(ends, key=lambda end: self.f1(_rule(*end), inside))
        near = {t: self.f1(_rule(t, median_s, shape), inside) for t in levels.around(threshold, 2)}
        for _ in range(2):  # all around the best, then closer to the edges of its plateau
            plateau = _plateau(near, levels)
            for t in levels.inside(plateau.before, plateau.after):
                near[t] = self.f1(_rule(t, median_s, shape), inside)
        threshold, low, high, *_ = _plateau(near, levels)
        # The middle of the plateau, with no more digits than it takes to be as good.
        middle = (low + high) / 2
        for value in [*(round(middle, digits) for digits in range(2, 8)), middle, threshold]:
            rule = _rule(value, median_s, shape)
            f1 = self.f1(rule, inside)
            if low < value <= high and f1 >= near[threshold]:
                break
        return Found(rule, f1, (low, high))

    def _climb(self, setting: _Setting, levels: Levels, inside: np.ndarray) -> _Setting:
        """From a setting to one that neither of two steps betters: its shape, then its curve."""
        top = -1.0
        for _ in range(_TURNS):
            threshold, median_s, _ = setting
            tried = {s: self.f1(_rule(threshold, median_s, s), inside) for s in self._shapes}
            if max(tried.values()) <= top:
                break
            top = max(tried.values())
            shape = _middle([s for s, f1 in tried.items() if f1 == top], (1.0, 0.0, 0.0))
            setting = self._curve(shape, levels.around(threshold, 5), levels, inside)
            top = self.f1(_rule(*setting), inside)
        return setting

    def _curve(
        self,
        shape: tuple[float, ...],
        thresholds: Sequence[float],
        levels: Levels,
        inside: np.ndarray,
    ) -> _Setting:
        """The best threshold and median for a shape."""
        tried = {
            (t, m): self.f1(_rule(t, m, shape), inside) for m in self._medians for t in thresholds
        }
        top = max(tried.values())
        (median_s,) = _middle([(m,) for (_, m), f1 in tried.items() if f1 == top], (0.0,))
        of_median = {t: f1 for (t, m), f1 in tried.items() if m == median_s}
        return _plateau(of_median, levels).threshold, median_s, shape

    def _levels(self, inside: np.ndarray) -> Levels:
        raw = self._filtered(0.0)
        there = (raw >= 0) & inside[self._lines.file]
        return Levels(raw[there], self._sounding[there], self._peaks[inside])

    def _runs_of(
        self, median_s: float, threshold: float, low: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs of frames by hysteresis: first place of each, and the one after its last."""
        # Shapes are tried with the same runs one after the other.
        if self._last != (median_s, threshold, low):
            smooth = self._filtered(median_s)
            live = smooth >= np.float32(low)
            # The marks, below any level, stand at both ends and between recordings.
            turns = np.flatnonzero(live[1:] != live[:-1]) + 1
            first, last = turns[::2], turns[1::2]
            if low < threshold and len(turns):
                sure = np.maximum.reduceat(smooth, turns)[::2] >= np.float32(threshold)
                first, last = first[sure], last[sure]
            self._last, self._runs = (median_s, threshold, low), (first, last)
        return self._runs

    def _filtered(self, median_s: float) -> np.ndarray:
        if median_s not in self._smooth:
            self._smooth[median_s] = self._lines.scores(self._row, median_s)
        return self._smooth[median_s]


def _rule(threshold: float, median_s: float, shape: tuple[float, ...]) -> ClassRule:
    share, gap, duration = shape
    low = None if share == 1 else min(float(f"{threshold * share:.4g}"), threshold)
    return ClassRule(threshold, low, median_s, duration, gap)


def _middle(tied: Iterable[tuple[float, ...]], off: tuple[float, ...]) -> tuple[float, ...]:
    """Of settings that are equally good: those that are off, else the middle ones, in turn."""
    left = list(tied)
    for place, nothing in enumerate(off):
        values = sorted({setting[place] for setting in left})
        value = nothing if nothing in values else values[(len(values) - 1) // 2]
        left = [setting for setting in left if setting[place] == value]
    return left[0]


class _Plateau(NamedTuple):
    """A stretch of thresholds with the same F1.

    ``threshold`` is the one tried that is nearest the middle; ``low`` and ``high`` are the scores
    that the stretch lies between, ``before`` and ``after`` the next ones tried, which are worse.
    """

    threshold: float
    low: float
    high: float
    before: float
    after: float


def _plateau(tried: Mapping[float, float], levels: Levels) -> _Plateau:
    """The widest stretch of thresholds that are best."""
    order, top = sorted(tried), max(tried.values())
    best = np.array([tried[threshold] == top for threshold in order])
    edge = np.flatnonzero(np.diff(np.concatenate([[False], best, [False]])))
    found = []
    for first, last in zip(edge[::2].tolist(), (edge[1::2] - 1).tolist(), strict=True):
        # F1 can change only where the threshold passes a score.
        low, high = levels.limits(order[first], order[last])
        middle = (low + high) / 2
        threshold = min(order[first : last + 1], key=lambda value: abs(value - middle))
        before, after = order[max(first - 1, 0)], order[min(last + 1, len(order) - 1)]
        found.append(_Plateau(threshold, low, high, before, after))
    return max(found, key=lambda plateau: plateau.high - plateau.low)
