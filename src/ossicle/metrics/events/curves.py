"""Precision and recall over all thresholds: best F1, the area under the curve.

Ebbers, Haeb-Umbach & Serizel 2022, "Threshold independent evaluation of sound event detection
scores", ICASSP. M thresholds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ossicle.metrics.events.changes import summed
from ossicle.metrics.events.thresholds import AllThresholds


class Curve(NamedTuple):
    """One class at all thresholds, from the highest, at which there is no detection, down.

    Attributes:
        below: (M,) float64: the point holds for thresholds below this, down to the next; first inf.
        hits: (M,) events found.
        alarms: (M,) false alarms.
        events: events of the reference.
    """

    below: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    events: int


def curve(found: AllThresholds, label: int) -> Curve:
    """The curve of one class over all recordings.

    Args:
        found: of `collar_thresholds` or `intersection_thresholds`.
        label: position of the class.
    """
    changes, num_classes = found.changes, len(found.classes)
    own = (changes.group % num_classes == label) & (changes.other < 0)
    below, hits, alarms = summed(changes.score[own], changes.hits[own], changes.alarms[own])
    return Curve(below, hits, alarms, int(found.events[:, label].sum()))


def best_f1(points: Curve) -> dict[str, float]:
    """The threshold at which F1 is best, and what it gives; the highest of several.

    The threshold lies midway between the score below which it must be and that from which on it
    may be; whether a score *at* the threshold counts thus makes no difference.

    Returns:
        "f1", "precision", "recall", "threshold"; F1 and recall NaN without events. Where nothing is
        ever found, the threshold is inf. The lowest possible point, all frames detected, has the
        threshold -inf.
    """
    if points.events == 0:
        return dict.fromkeys(("f1", "precision", "recall", "threshold"), float("nan"))
    f1 = 2 * points.hits / (points.hits + points.alarms + points.events)
    k = int(np.argmax(f1))
    found = points.hits[k] + points.alarms[k]
    lower = points.below[k + 1] if k + 1 < len(f1) else -np.inf
    return {
        "f1": float(f1[k]),
        "precision": float(points.hits[k] / found) if found else 0.0,
        "recall": float(points.hits[k] / points.events),
        "threshold": float((points.below[k] + lower) / 2) if k else float("inf"),
    }


def average_precision(points: Curve) -> float:
    """The area under precision over recall, in steps: sum of P(r) (r - the recall before).

    P(r) is the best precision at which exactly the recall r is reached; recalls that no threshold
    gives have no point. Recall may fall as the threshold falls, when two detections merge.

    Returns:
        In [0, 1]; NaN without events.
    """
    if points.events == 0:
        return float("nan")
    precision = points.hits / np.maximum(points.hits + points.alarms, 1)
    order = np.lexsort((precision, points.hits))
    hits, precision = points.hits[order], precision[order]
    last = np.flatnonzero(np.diff(hits, append=-1))
    return float(np.sum(precision[last][1:] * np.diff(hits[last])) / points.events)


def threshold_free(found: AllThresholds) -> dict[str, Any]:
    """Best F1 with its threshold and area under the precision-recall curve, of each class.

    The thresholds are chosen on the very recordings that they are scored on: a bound for what
    thresholds chosen elsewhere can reach, no estimate of it.

    Returns:
        {"macro": {"best_f1", "average_precision"}, "micro": {"best_f1"} (every class at its own
        best threshold), "per_class": {class: {"best_f1", "precision", "recall", "threshold",
        "average_precision"}}}; macro over the classes that the reference has.
    """
    per_class = {}
    hits = alarms = events = 0
    for label, name in enumerate(found.classes):
        points = curve(found, label)
        best = best_f1(points)
        per_class[name] = {
            "best_f1": best["f1"],
            **{key: best[key] for key in ("precision", "recall", "threshold")},
            "average_precision": average_precision(points),
        }
        if points.events:
            k = int(np.argmax(2 * points.hits / (points.hits + points.alarms + points.events)))
            hits, alarms = hits + points.hits[k], alarms + points.alarms[k]
            events += points.events
    known = [row for row in per_class.values() if not np.isnan(row["best_f1"])]
    macro = {
        key: float(np.mean([row[key] for row in known])) if known else float("nan")
        for key in ("best_f1", "average_precision")
    }
    micro = 2 * hits / (hits + alarms + events) if events else float("nan")
    return {"micro": {"best_f1": float(micro)}, "macro": macro, "per_class": per_class}
