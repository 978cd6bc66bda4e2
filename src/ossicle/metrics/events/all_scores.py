"""Everything at once: all scores of one estimate, with intervals, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ossicle.events import FrameScores
from ossicle.metrics.events.collar import event_counts
from ossicle.metrics.events.counting import Counts
from ossicle.metrics.events.curves import threshold_free
from ossicle.metrics.events.intersection import intersection_counts
from ossicle.metrics.events.intervals import count_intervals, curve_intervals, psds_interval
from ossicle.metrics.events.segment import segment_counts
from ossicle.metrics.events.tables import class_names, file_durations
from ossicle.metrics.events.thresholds import collar_thresholds, intersection_thresholds

# As in the baseline of DCASE 2023 task 4: to place events well, and not to confuse classes.
PSDS_SCENARIOS: dict[str, dict[str, float]] = {
    "psds1": {"dtc": 0.7, "gtc": 0.7, "cttc": 0.3, "alpha_ct": 0.0, "e_max": 100.0},
    "psds2": {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5, "e_max": 100.0},
}


def score_events(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    durations: Mapping[str, float],
    classes: Sequence[str] | None = None,
    *,
    scores: Mapping[str, FrameScores] | None = None,
    groups: Mapping[str, Any] | None = None,
    segment_s: float = 1.0,
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float = 0.3,
    alpha_st: float = 1.0,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> dict[str, Any]:
    """All scores of estimated events, and of frame scores where there are some.

    Args:
        reference, estimate: tables with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings, those without events too.
        classes: K names; None: those that either table names, sorted. With `scores` they must be
            given, in the order of the scores' rows.
        scores: file -> scores (K, T), for what needs no threshold: PSDS and best F1.
        groups: file -> group of recordings that resemble each other; None: each on its own.
        segment_s, collar_s, offset_share, dtc, gtc, cttc: as for `segment_based`, `event_based` and
            `intersection_based`.
        alpha_st: as for `psds`, of both of `PSDS_SCENARIOS`; DCASE's is 1.
        n_resamples, confidence, random_state: of the bootstrap over recordings.

    Returns:
        "classes"; "recordings", "groups", "hours", "reference_events", "estimated_events";
        "settings"; "segment", "event", "onset" and "intersection": {"micro", "macro", "per_class"}
        of {"value", "low", "high"} a score, per_class with "hits", "misses", "alarms" as numbers,
        intersection with "cross_triggers" too. With `scores` also "psds1", "psds2" and
        "threshold_free" (by collars; its thresholds are chosen on these very recordings). NaN is
        None.

    Raises:
        DataError: an event is none, or is of a class or file that is not among those scored.
    """
    if classes is None:
        labels = [str(label) for table in (reference, estimate) for label in table.get("label", ())]
        classes = sorted(set(labels))
    names = class_names(classes)
    files, _ = file_durations(durations)
    boot: dict[str, Any] = {
        "groups": groups,
        "n_resamples": n_resamples,
        "confidence": confidence,
        "random_state": random_state,
    }
    collars: dict[str, Any] = {"collar_s": collar_s, "offset_share": offset_share}
    shares: dict[str, Any] = {"dtc": dtc, "gtc": gtc, "cttc": cttc}
    tables = reference, estimate
    met, crossed = intersection_counts(*tables, durations, classes=names, **shares)
    counts = {
        "segment": segment_counts(*tables, durations, classes=names, segment_s=segment_s),
        "event": event_counts(*tables, classes=names, files=files, **collars),
        "onset": event_counts(
            *tables, classes=names, files=files, collar_s=collar_s, onset_only=True
        ),
        "intersection": met,
    }
    result: dict[str, Any] = {
        "classes": list(names),
        "recordings": len(files),
        "groups": len(set(files if groups is None else (groups.get(f, f) for f in files))),
        "hours": sum(float(seconds) for seconds in durations.values()) / 3600,
        "reference_events": len(reference),
        "estimated_events": len(estimate),
        "settings": {
            "segment_s": segment_s,
            **collars,
            **shares,
            "alpha_st": alpha_st,
            "confidence": confidence,
            "n_resamples": n_resamples,
        },
        **{kind: _scored(one, boot) for kind, one in counts.items()},
    }
    result["intersection"]["cross_triggers"] = {
        one: {other: int(crossed[i, j]) for j, other in enumerate(names) if i != j}
        for i, one in enumerate(names)
    }
    if scores is not None:
        result |= _of_scores(scores, reference, durations, names, collars, alpha_st, boot)
    return _plain(result)


def _scored(counts: Counts, boot: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of counts with intervals, and the counts themselves."""
    found = count_intervals(counts, **boot)
    for k, name in enumerate(counts.classes):
        for kind in ("hits", "misses", "alarms"):
            found["per_class"][name][kind] = int(getattr(counts, kind)[:, k].sum())
    return found


def _of_scores(
    scores: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    names: Sequence[str],
    collars: Mapping[str, Any],
    alpha_st: float,
    boot: Mapping[str, Any],
) -> dict[str, Any]:
    """What needs no threshold."""
    result: dict[str, Any] = {}
    for kind, setting in PSDS_SCENARIOS.items():
        met = intersection_thresholds(
            scores,
            reference,
            durations,
            classes=names,
            dtc=setting["dtc"],
            gtc=setting["gtc"],
            cttc=setting["cttc"] if setting["alpha_ct"] else None,
        )
        weights: dict[str, Any] = {"alpha_ct": setting["alpha_ct"], "e_max": setting["e_max"]}
        result[kind] = psds_interval(met, **weights, alpha_st=alpha_st, **boot)
        result[kind]["settings"] = {**setting, "alpha_st": alpha_st}
    close = collar_thresholds(scores, reference, classes=names, **collars)
    free = curve_intervals(close, **boot)
    point = threshold_free(close)
    free["micro"] = point["micro"]
    for name, row in free["per_class"].items():
        row["threshold"] = point["per_class"][name]["threshold"]
    result["threshold_free"] = free
    return result


def _plain(value: Any) -> Any:
    """Ready for JSON: what is no finite number is None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
