"""What every score of decided events is made of: hits, misses and false alarms of each recording.

F recordings, K classes, R resamples. Kept per recording, so that a bootstrap over recordings is a
matrix product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

RATES = ("precision", "recall", "f1", "error_rate", "deletion_rate", "insertion_rate")


class Counts(NamedTuple):
    """Counts of each recording.

    Attributes:
        files: F names.
        classes: K names.
        hits: (F, K) things of the reference (events or active segments) that were found.
        misses: (F, K) those that were not.
        alarms: (F, K) things of the estimate that are right for none of the reference.
        substitutions: (F,) a miss of one class explained by an alarm of another; an error that
            only counts over all classes knows.
    """

    files: tuple[str, ...]
    classes: tuple[str, ...]
    hits: np.ndarray
    misses: np.ndarray
    alarms: np.ndarray
    substitutions: np.ndarray

    def table(self) -> np.ndarray:
        """(F, 3 K + 1): hits, misses, alarms, substitutions; what `rates` reads."""
        columns = [self.hits, self.misses, self.alarms, self.substitutions[:, None]]
        return np.hstack(columns).astype(np.float64)


def rates(sums: np.ndarray, num_classes: int) -> dict[str, dict[str, np.ndarray]]:
    """Scores from sums of counts over recordings.

    Precision = hits / (hits + alarms), recall = hits / (hits + misses), F1 their harmonic mean =
    2 hits / (2 hits + misses + alarms); error rate = (S + D + I) / N with N = hits + misses,
    S substitutions, D = misses - S deletions, I = alarms - S insertions (Mesaros, Heittola &
    Virtanen 2016, sections 3.1 and 3.2). Per class S is 0.

    Not defined (NaN) are: everything but precision for a class of which the reference has nothing,
    and precision where neither has anything. Where the reference has something but the estimate
    nothing, precision is 0. The macro average runs over the classes that the reference has.

    Args:
        sums: (..., 3 K + 1) sums of rows of `Counts.table`.
        num_classes: K.

    Returns:
        "micro" -> name -> (...), "macro" -> name -> (...), "per_class" -> name -> (..., K).
    """
    hits, misses, alarms = np.split(sums[..., : 3 * num_classes], 3, axis=-1)
    per_class = _rates(hits, misses, alarms, np.zeros(()))
    present = (hits + misses) > 0
    number = present.sum(axis=-1)
    macro = {
        name: _ratio(np.where(present, values, 0).sum(axis=-1), number)
        for name, values in per_class.items()
        if name != "substitution_rate"
    }
    micro = _rates(hits.sum(axis=-1), misses.sum(axis=-1), alarms.sum(axis=-1), sums[..., -1])
    del per_class["substitution_rate"]
    return {"micro": micro, "macro": macro, "per_class": per_class}


def summary(counts: Counts) -> dict[str, Any]:
    """The scores of counts.

    Returns:
        {"micro": {"precision", "recall", "f1", "error_rate", "deletion_rate", "insertion_rate",
        "substitution_rate"}, "macro": the same without substitution_rate, "per_class": {class: the
        same as macro, and "hits", "misses", "alarms"}}; floats, NaN where not defined (`rates`).
    """
    found = rates(counts.table().sum(axis=0), len(counts.classes))
    per_class = {}
    for k, name in enumerate(counts.classes):
        row = {key: float(values[k]) for key, values in found["per_class"].items()}
        for key in ("hits", "misses", "alarms"):
            row[key] = float(getattr(counts, key)[:, k].sum())
        per_class[name] = row
    over = {kind: {key: float(v) for key, v in found[kind].items()} for kind in ("micro", "macro")}
    return {**over, "per_class": per_class}


def _rates(
    hits: np.ndarray, misses: np.ndarray, alarms: np.ndarray, substitutions: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores of counts of one shape."""
    number = hits + misses
    precision = _ratio(hits, hits + alarms)
    precision = np.where((hits + alarms == 0) & (number > 0), 0.0, precision)
    errors = misses + alarms - substitutions
    return {
        "precision": precision,
        "recall": _ratio(hits, number),
        "f1": np.where(number > 0, _ratio(2 * hits, 2 * hits + misses + alarms), np.nan),
        "error_rate": _ratio(errors, number),
        "deletion_rate": _ratio(misses - substitutions, number),
        "insertion_rate": _ratio(alarms - substitutions, number),
        "substitution_rate": _ratio(substitutions + 0.0 * number, number),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
