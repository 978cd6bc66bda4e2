"""Intervals of event scores: whole recordings are resampled, and the scores made anew.

Events of one recording resemble each other, so recordings (or groups of them, such as all of one
place) are drawn with replacement, as in `ossicle.metrics.bootstrap`, whose interval this is. What
is drawn are counts of each recording, never events. F recordings, G groups, K classes, R resamples.

A score's interval is as wide as the number of groups that tell of it allows: for one class those in
which the class was, or was thought to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ossicle.metrics.bootstrap import draw, group_codes, limits
from ossicle.metrics.events.changes import Changes
from ossicle.metrics.events.counting import Counts, rates
from ossicle.metrics.events.curves import Curve, average_precision, best_f1, curve
from ossicle.metrics.events.psd_roc import Roc, class_rocs, psds_of_rocs, roc
from ossicle.metrics.events.thresholds import AllThresholds

_BLOCK = 64
# Of scores over all thresholds: each takes a pass over all changes.
_MOST_RESAMPLES = 200
# Thresholds that the resamples of a curve are looked at: those at which an event is found or lost.
_MOST_POINTS = 1000
_ABOVE = ("error_rate", "insertion_rate")


def count_intervals(
    counts: Counts,
    *,
    groups: Mapping[str, Any] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
) -> dict[str, dict[str, Any]]:
    """The scores of counts, each with its interval.

    Args:
        counts: of `segment_counts`, `event_counts` or `intersection_counts`.
        groups: file -> group; None: each recording on its own.
        n_resamples: R.
        confidence: coverage, between 0 and 1.
        random_state: seed or generator.

    Returns:
        As `counting.summary`, but {"value", "low", "high"} for each score; low and high NaN where
        they cannot be told (`ossicle.metrics.bootstrap.limits`).
    """
    num_classes = len(counts.classes)
    codes, num_groups = _groups(counts.files, groups)
    table = _by_group(counts.table(), codes, num_groups)
    value = rates(table.sum(axis=0), num_classes)
    parts = [
        rates(drawn @ table, num_classes)
        for drawn in draw(num_groups, n_resamples, random_state, _BLOCK * 16)
    ]
    split = np.split(table[:, : 3 * num_classes], 3, axis=1)
    holds = (split[0] + split[1]) > 0
    tells = holds | (split[2] > 0)
    known = holds.any(axis=0)

    def interval(kind: str, name: str, at: Any, tell: int, trials: Any) -> dict[str, float]:
        samples = np.concatenate([part[kind][name] for part in parts])[(..., *at)]
        exact = float(value[kind][name][at])
        bounds = (0.0, np.inf if name in _ABOVE else 1.0)
        low, high = limits(samples, exact, tell, confidence, bounds, trials)
        return {"value": exact, "low": low, "high": high}

    some = int(tells.any(axis=1).sum())
    support = holds.sum(axis=0)
    over = {
        "micro": int(holds.any(axis=1).sum()),
        "macro": support[known],
    }
    result: dict[str, dict[str, Any]] = {
        kind: {name: interval(kind, name, (), some, trials) for name in value[kind]}
        for kind, trials in over.items()
    }
    result["per_class"] = {
        label: {
            name: interval("per_class", name, (k,), int(tells[:, k].sum()), int(support[k]))
            for name in value["per_class"]
        }
        for k, label in enumerate(counts.classes)
    }
    return result


def curve_intervals(
    found: AllThresholds,
    *,
    groups: Mapping[str, Any] | None = None,
    n_resamples: int = 200,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
) -> dict[str, dict[str, Any]]:
    """Macro and per class best F1 and average precision, each with its interval.

    Each resample chooses its best thresholds anew. The values are exact; the resamples look at
    thresholds at which events are found or lost, at most 1,000 a class; at most 200 resamples.

    Args:
        found: of `collar_thresholds`, `intersection_thresholds` or `segment_thresholds`.
        others: as for `count_intervals`.

    Returns:
        {"macro": {"best_f1", "average_precision"}, "per_class": {class: the same}}, each
        {"value", "low", "high"}.
    """
    codes, num_groups = _groups(found.files, groups)
    resample = _Resampler(found, codes, num_groups, crossed=False)
    names = ("best_f1", "average_precision")
    exact = np.array([_of_curve(curve(found, k)) for k in range(len(found.classes))])
    samples = np.array(
        [
            [_of_curve(resample.curve(k, drawn)) for k in range(len(found.classes))]
            for drawn in _drawn(num_groups, n_resamples, random_state)
        ]
    )
    support = (resample.events > 0).sum(axis=0)
    result: dict[str, dict[str, Any]] = {"macro": {}, "per_class": {}}
    for i, name in enumerate(names):
        result["macro"][name] = _interval(
            _mean(samples[..., i]), _mean(exact[:, i]), num_groups, confidence, support[support > 0]
        )
    for k, label in enumerate(found.classes):
        result["per_class"][label] = {
            name: _interval(samples[:, k, i], exact[k, i], num_groups, confidence, support[k])
            for i, name in enumerate(names)
        }
    return result


def psds_interval(
    found: AllThresholds,
    *,
    alpha_ct: float = 0.0,
    alpha_st: float = 0.0,
    e_max: float = 100.0,
    groups: Mapping[str, Any] | None = None,
    n_resamples: int = 200,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
) -> dict[str, Any]:
    """PSDS of all classes and of each, with intervals; resamples as for `curve_intervals`.

    Args:
        found: of `intersection_thresholds`, with cross-triggers if alpha_ct is above 0.
        alpha_ct, alpha_st, e_max: as for `psds`.
        others: as for `count_intervals`.

    Returns:
        {"psds": {"value", "low", "high"}, "per_class": {class: the same}}.
    """
    names = found.classes
    codes, num_groups = _groups(found.files, groups)
    resample = _Resampler(found, codes, num_groups, crossed=alpha_ct > 0)

    def row(rocs: Mapping[str, Roc]) -> list[float]:
        scores = psds_of_rocs(rocs, names, alpha_st, e_max)
        return [scores["psds"], *scores["per_class"].values()]

    exact = row(class_rocs(found, alpha_ct))
    samples = np.array(
        [
            row(resample.rocs(drawn, alpha_ct))
            for drawn in _drawn(num_groups, n_resamples, random_state)
        ]
    )
    support = (resample.events > 0).sum(axis=0)
    trials = [support[support > 0], *support]
    rows = [
        _interval(samples[:, i], exact[i], num_groups, confidence, trials[i])
        for i in range(len(exact))
    ]
    return {"psds": rows[0], "per_class": dict(zip(names, rows[1:], strict=True))}


class _Resampler:
    """Changes of counts by group and threshold, to be weighed.

    Args:
        found: all changes.
        codes: (F,) group of each recording.
        num_groups: G.
        crossed: cross-triggers too.
    """

    def __init__(
        self, found: AllThresholds, codes: np.ndarray, num_groups: int, *, crossed: bool
    ) -> None:
        self.names = found.classes
        self.events = _by_group(found.events, codes, num_groups)
        self.seconds = _by_group(found.seconds, codes, num_groups)
        self.lengths = _by_group(found.lengths[:, None], codes, num_groups)[:, 0]
        file, label = np.divmod(found.changes.group, len(self.names))
        self.below, self.tables = [], []
        for k in range(len(self.names)):
            own = np.flatnonzero(label == k)
            changes = Changes(*(column[own] for column in found.changes))
            below = _points(changes)
            place = np.searchsorted(-below, -changes.score, side="left")
            group = codes[file[own]]
            kinds = [(changes.other < 0, changes.hits), (changes.other < 0, changes.alarms)]
            if crossed:
                kinds += [(changes.other == j, changes.alarms) for j in range(len(self.names))]
            self.below.append(below)
            self.tables.append(
                [
                    csr_array(
                        (amount[which].astype(float), (place[which], group[which])),
                        shape=(len(below) + 1, num_groups),
                    )
                    for which, amount in kinds
                ]
            )

    def counts(self, k: int, drawn: np.ndarray) -> list[np.ndarray]:
        """Hits, alarms (and cross-triggers) of a class at its points, (M,) each."""
        return [np.cumsum(table @ drawn)[:-1] for table in self.tables[k]]

    def curve(self, k: int, drawn: np.ndarray) -> Curve:
        """The curve of a class in a resample."""
        zero = np.zeros(1)
        hits, alarms = (np.concatenate([zero, c]) for c in self.counts(k, drawn)[:2])
        events = int(drawn @ self.events[:, k])
        return Curve(np.concatenate([[np.inf], self.below[k]]), hits, alarms, events)

    def rocs(self, drawn: np.ndarray, alpha_ct: float) -> dict[str, Roc]:
        """The staircases of a resample."""
        events, seconds = drawn @ self.events, drawn @ self.seconds
        rocs = {}
        for k, name in enumerate(self.names):
            if events[k]:
                hits, alarms, *crossed = self.counts(k, drawn)
                table = np.array(crossed).T if alpha_ct else np.zeros((len(hits), len(self.names)))
                others = np.delete(seconds, k)
                total = float(drawn @ self.lengths)
                rocs[name] = roc(
                    hits, alarms, table, int(events[k]), others, total, alpha_ct, skip=k
                )
        return rocs


def _points(changes: Changes) -> np.ndarray:
    """The scores, falling, at which events are found or lost: at most `_MOST_POINTS`."""
    scores = np.unique(changes.score[changes.hits != 0])[::-1]
    if len(scores) > _MOST_POINTS:
        scores = scores[np.linspace(0, len(scores) - 1, _MOST_POINTS).astype(int)]
    return scores


def _drawn(
    num_groups: int, n_resamples: int, random_state: int | np.random.Generator
) -> Iterator[np.ndarray]:
    """How often each resample holds each group, one resample at a time: (G,) float64."""
    for block in draw(num_groups, min(n_resamples, _MOST_RESAMPLES), random_state, _BLOCK):
        yield from block.astype(np.float64)


def _of_curve(points: Curve) -> tuple[float, float]:
    """Best F1 and average precision."""
    return best_f1(points)["f1"], average_precision(points)


def _mean(values: np.ndarray) -> Any:
    """The mean over classes, those without a value left out."""
    known = ~np.isnan(values)
    number = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)


def _interval(
    samples: np.ndarray, value: float, num_groups: int, confidence: float, trials: Any
) -> dict[str, float]:
    """A score in [0, 1] with its limits."""
    low, high = limits(samples, float(value), num_groups, confidence, (0.0, 1.0), trials)
    return {"value": float(value), "low": low, "high": high}


def _groups(files: tuple[str, ...], groups: Mapping[str, Any] | None) -> tuple[np.ndarray, int]:
    """The group of each recording, from 0, and how many there are."""
    return group_codes(None if groups is None else [groups.get(f) for f in files], len(files))


def _by_group(table: np.ndarray, codes: np.ndarray, num_groups: int) -> np.ndarray:
    """(F, n) rows summed over each group: (G, n)."""
    sums = np.zeros((num_groups, table.shape[1]))
    np.add.at(sums, codes, table)
    return sums
