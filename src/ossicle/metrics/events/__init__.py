"""Scores of sound event detection: did it find what sounds, and when?

Of decided events by segments (`segment_based`), by collars around onset and offset (`event_based`)
and by overlap (`intersection_based`); of frame scores at all thresholds at once (`psds`;
`collar_thresholds`, `intersection_thresholds`, `segment_thresholds`, then `threshold_free`). All of
it with intervals: `score_events`. Names are looked up on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ossicle.metrics.events.all_scores import PSDS_SCENARIOS as PSDS_SCENARIOS
    from ossicle.metrics.events.all_scores import score_events as score_events
    from ossicle.metrics.events.collar import event_based as event_based
    from ossicle.metrics.events.collar import event_counts as event_counts
    from ossicle.metrics.events.curves import average_precision as average_precision
    from ossicle.metrics.events.curves import best_f1 as best_f1
    from ossicle.metrics.events.curves import curve as curve
    from ossicle.metrics.events.curves import threshold_free as threshold_free
    from ossicle.metrics.events.intersection import intersection_based as intersection_based
    from ossicle.metrics.events.intersection import intersection_counts as intersection_counts
    from ossicle.metrics.events.intervals import count_intervals as count_intervals
    from ossicle.metrics.events.intervals import curve_intervals as curve_intervals
    from ossicle.metrics.events.intervals import psds_interval as psds_interval
    from ossicle.metrics.events.psd_roc import psds as psds
    from ossicle.metrics.events.psd_roc import psds_of_points as psds_of_points
    from ossicle.metrics.events.segment import segment_based as segment_based
    from ossicle.metrics.events.segment import segment_counts as segment_counts
    from ossicle.metrics.events.thresholds import collar_thresholds as collar_thresholds
    from ossicle.metrics.events.thresholds import intersection_thresholds as intersection_thresholds
    from ossicle.metrics.events.thresholds import segment_thresholds as segment_thresholds

_HOMES = {
    "PSDS_SCENARIOS": "all_scores",
    "average_precision": "curves",
    "best_f1": "curves",
    "collar_thresholds": "thresholds",
    "count_intervals": "intervals",
    "curve": "curves",
    "curve_intervals": "intervals",
    "event_based": "collar",
    "event_counts": "collar",
    "intersection_based": "intersection",
    "intersection_counts": "intersection",
    "intersection_thresholds": "thresholds",
    "psds": "psd_roc",
    "psds_interval": "intervals",
    "psds_of_points": "psd_roc",
    "score_events": "all_scores",
    "segment_based": "segment",
    "segment_counts": "segment",
    "segment_thresholds": "thresholds",
    "threshold_free": "curves",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """The public name, fetched from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
