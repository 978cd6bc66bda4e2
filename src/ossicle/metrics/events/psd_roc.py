"""Polyphonic sound detection score: the area under a curve of hits over false alarms an hour.

Bilen, Ferroni, Tuveri, Azcarreta & Krstulovic 2020, "A framework for the robust evaluation of sound
event detection", ICASSP, sections 3 and 4; from scores at all thresholds as Ebbers, Haeb-Umbach &
Serizel 2022, "Threshold independent evaluation of sound event detection scores", ICASSP.

K classes, M operating points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics.events.changes import summed
from ossicle.metrics.events.intersection import intersection_counts
from ossicle.metrics.events.tables import check_positive, check_share
from ossicle.metrics.events.thresholds import AllThresholds, intersection_thresholds

HOUR = 3600.0


class Roc(NamedTuple):
    """A staircase: from each rate of false alarms on, the share of events found.

    Attributes:
        rate: (M,) effective false alarms an hour, ascending from 0.
        found: (M,) share of the events.
    """

    rate: np.ndarray
    found: np.ndarray


def psds(
    scores: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float = 0.3,
    alpha_ct: float = 0.0,
    alpha_st: float = 0.0,
    e_max: float = 100.0,
) -> dict[str, Any]:
    """PSDS from scores, over all thresholds.

    With the effective false positive rate eFPR_c = false alarms an hour + alpha_ct x the mean over
    other classes of cross-triggers an hour of that class's events (Bilen et al., equations 6 to 8),
    each class gives a staircase of the share of its events found; their mean less alpha_st standard
    deviations is averaged over eFPR from 0 to e_max.

    The baseline of DCASE 2023 task 4 scores two scenarios, both with alpha_st=1 and e_max=100:
    dtc=0.7, gtc=0.7, alpha_ct=0; and dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5.

    Args:
        scores: file -> scores (K, T), of all recordings.
        reference: table with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings.
        classes: K names, in the order of the scores' rows.
        dtc, gtc, cttc: shares, as for `intersection_based`.
        alpha_ct: weight of cross-triggers, from 0 to 1.
        alpha_st: weight of the spread among classes, from 0.
        e_max: false alarms an hour up to which the curve counts.

    Returns:
        {"psds": float, "per_class": {class: float}, "roc": {"rate": [...], "found": [...]}}; NaN
        for classes that the reference lacks, which the score leaves out.

    Raises:
        DataError: scores, events or durations do not fit together, or a number is out of range.
    """
    check_psds(alpha_ct, alpha_st, e_max)
    found = intersection_thresholds(
        scores,
        reference,
        durations,
        classes=classes,
        dtc=dtc,
        gtc=gtc,
        cttc=cttc if alpha_ct else None,
    )
    return psds_of_rocs(class_rocs(found, alpha_ct), found.classes, alpha_st, e_max)


def psds_of_points(
    estimates: Sequence[pd.DataFrame],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float = 0.3,
    alpha_ct: float = 0.0,
    alpha_st: float = 0.0,
    e_max: float = 100.0,
) -> dict[str, Any]:
    """PSDS from operating points: the events of a detector at each of some settings.

    Fewer points give a lower score: between two of them the staircase stays down.

    Args:
        estimates: M tables with file, onset, offset (s), label.
        others: as for `psds`.

    Returns:
        As `psds`.
    """
    check_psds(alpha_ct, alpha_st, e_max)
    if not estimates:
        raise DataError("psds: give at least one table of estimated events")
    hits, alarms, crossed, counts = [], [], [], None
    for estimate in estimates:
        counts, cross = intersection_counts(
            reference, estimate, durations, classes=classes, dtc=dtc, gtc=gtc, cttc=cttc
        )
        hits.append(counts.hits.sum(axis=0))
        alarms.append(counts.alarms.sum(axis=0))
        crossed.append(cross)
    assert counts is not None
    names = counts.classes
    events = (counts.hits + counts.misses).sum(axis=0)
    lasting = (reference["offset"] - reference["onset"]).astype(float)
    seconds = lasting.groupby(reference["label"].astype(str)).sum().reindex(names, fill_value=0.0)
    total = sum(float(value) for value in durations.values())
    rocs = {
        name: roc(
            np.array(hits)[:, c],
            np.array(alarms)[:, c],
            np.array(crossed)[:, c, :],
            int(events[c]),
            np.delete(seconds.to_numpy(), c),
            total,
            alpha_ct,
            skip=c,
        )
        for c, name in enumerate(names)
        if events[c]
    }
    return psds_of_rocs(rocs, names, alpha_st, e_max)


def class_rocs(found: AllThresholds, alpha_ct: float) -> dict[str, Roc]:
    """The staircase of each class that the reference has."""
    changes, names = found.changes, found.classes
    label = changes.group % len(names)
    seconds, total = found.seconds.sum(axis=0), float(found.lengths.sum())
    rocs = {}
    for c, name in enumerate(names):
        events = int(found.events[:, c].sum())
        if not events:
            continue
        own = label == c
        other = changes.other[own]
        columns = [
            changes.hits[own],
            np.where(other < 0, changes.alarms[own], 0),
            *(np.where(other == k, changes.alarms[own], 0) for k in range(len(names)) if alpha_ct),
        ]
        _, hits, alarms, *crossed = summed(changes.score[own], *columns)
        table = np.array(crossed).T if alpha_ct else np.zeros((len(hits), len(names)))
        rocs[name] = roc(
            hits, alarms, table, events, np.delete(seconds, c), total, alpha_ct, skip=c
        )
    return rocs


def roc(
    hits: np.ndarray,
    alarms: np.ndarray,
    crossed: np.ndarray,
    events: int,
    other_seconds: np.ndarray,
    total_seconds: float,
    alpha_ct: float,
    *,
    skip: int,
) -> Roc:
    """The staircase of one class from its counts at each point.

    Args:
        hits, alarms: (M,).
        crossed: (M, K) cross-triggers with each class.
        events: of the reference.
        other_seconds: (K - 1,) how long the events of each other class last; classes without are
            left out of the mean.
        total_seconds: all recordings.
        alpha_ct: weight.
        skip: position of the class itself.
    """
    rate = alarms * (HOUR / total_seconds)
    sounds = other_seconds > 0
    if alpha_ct and sounds.any():
        others = np.delete(crossed, skip, axis=1)[:, sounds]
        rate = rate + alpha_ct * (others * (HOUR / other_seconds[sounds])).mean(axis=1)
    # Without a detection nothing is found and nothing wrong: a point of every detector.
    rate = np.concatenate([[0.0], rate])
    found = np.concatenate([[0.0], hits / events])
    order = np.lexsort((found, rate))
    rate, found = rate[order], np.maximum.accumulate(found[order])
    last = np.flatnonzero(np.diff(rate, append=np.inf) > 0)
    rate, found = rate[last], found[last]
    keep = np.diff(found, prepend=-1.0) > 0
    return Roc(rate[keep], found[keep])


def psds_of_rocs(
    rocs: Mapping[str, Roc], classes: Sequence[str], alpha_st: float, e_max: float
) -> dict[str, Any]:
    """The score from the staircases of classes."""
    nan = float("nan")
    if not rocs:
        return {
            "psds": nan,
            "per_class": dict.fromkeys(classes, nan),
            "roc": {"rate": [], "found": []},
        }
    rate = np.unique(np.concatenate([one.rate for one in rocs.values()]))
    rate = rate[rate < e_max]
    stairs = np.array(
        [one.found[np.searchsorted(one.rate, rate, side="right") - 1] for one in rocs.values()]
    )
    height = np.maximum(stairs.mean(axis=0) - alpha_st * stairs.std(axis=0), 0.0)
    width = np.diff(rate, append=e_max)
    areas = dict(zip(rocs, stairs @ width / e_max, strict=True))
    return {
        "psds": float(height @ width / e_max),
        "per_class": {name: float(areas.get(name, nan)) for name in classes},
        "roc": {"rate": rate.tolist(), "found": height.tolist()},
    }


def check_psds(alpha_ct: float, alpha_st: float, e_max: float) -> None:
    """Refuse weights that are none.

    Raises:
        DataError: alpha_ct is not from 0 to 1, alpha_st below 0, or e_max not above 0.
    """
    check_share("alpha_ct", alpha_ct)
    check_positive("alpha_st", alpha_st, zero=True)
    check_positive("e_max", e_max)
