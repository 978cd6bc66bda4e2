"""Scores with intervals: how good, how sure, and whether one run is better than another.

Names are looked up in their modules on first use, so that importing the package stays quick:
scikit-learn and SciPy take about a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ossicle.metrics.bootstrap import Interval as Interval
    from ossicle.metrics.bootstrap import interval as interval
    from ossicle.metrics.bootstrap import mean_interval as mean_interval
    from ossicle.metrics.bootstrap import with_intervals as with_intervals
    from ossicle.metrics.classification import PRIMARY as PRIMARY
    from ossicle.metrics.classification import absent_classes as absent_classes
    from ossicle.metrics.classification import confusion as confusion
    from ossicle.metrics.classification import per_class as per_class
    from ossicle.metrics.classification import score as score
    from ossicle.metrics.compare import compare_runs as compare_runs
    from ossicle.metrics.compare import paired_difference as paired_difference

_HOMES = {
    "PRIMARY": "classification",
    "absent_classes": "classification",
    "confusion": "classification",
    "per_class": "classification",
    "score": "classification",
    "Interval": "bootstrap",
    "interval": "bootstrap",
    "mean_interval": "bootstrap",
    "with_intervals": "bootstrap",
    "compare_runs": "compare",
    "paired_difference": "compare",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """The public name, fetched from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
