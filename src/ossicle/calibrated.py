"""Probabilities corrected by a monotone table: what a bundle carries of an isotonic calibration.

A temperature or a sigmoid is folded into a head's weights; a step function is not, so that it is
kept as knots and applied to the head's probabilities. Fitted by `transfer.isotonic`.

Classes share one table f, and p becomes (f(p) + 1e-3 p) / sum over classes: the small slope
makes it strictly ascending, so that the most probable class stays the most probable (the
accuracy-preserving multi-class isotonic regression of Zhang, Kailkhura, Han, ICML 2020,
"Mix-n-Match"). Labels have a table each (Zadrozny & Elkan, KDD 2002).

Symbols: n clips, K classes or labels, m knots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ossicle.errors import OssicleError

#: More knots than this are thinned out when fitted, and refused when read.
MAX_KNOTS = 200
_SLOPE = 1e-3


class CalibrationTable:
    """Monotone maps of probabilities.

    Args:
        maps: (x, y) knots, (m,) each, of one map for "classes", of K for "multilabel": x strictly
            ascending, y never descending, both in [0, 1]; linear between knots, constant beyond.
        task: "classes" or "multilabel".

    Raises:
        OssicleError: knots that are not so, or another task.
    """

    def __init__(self, maps: Sequence[tuple[Any, Any]], task: str) -> None:
        if task not in ("classes", "multilabel"):
            raise OssicleError(f"task {task!r} has no probabilities to calibrate")
        if not maps or (task == "classes" and len(maps) != 1):
            raise OssicleError(f"{len(maps)} calibration tables for the task {task}")
        self.task = task
        self.maps = [_checked(x, y) for x, y in maps]

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, K) or (K,) probabilities -> the same shape, calibrated, in the dtype given."""
        p = np.asarray(probabilities)
        if self.task == "classes":
            mapped = np.interp(p, *self.maps[0]) + _SLOPE * p
            mapped = mapped / mapped.sum(axis=-1, keepdims=True)
        else:
            columns = [np.interp(p[..., k], *knots) for k, knots in enumerate(self.maps)]
            mapped = np.stack(columns, axis=-1)
        return mapped.astype(p.dtype)

    def to_json(self) -> dict[str, Any]:
        """For a bundle: kind, maps."""
        maps = [{"x": x.tolist(), "y": y.tolist()} for x, y in self.maps]
        return {"kind": "isotonic", "maps": maps}

    @classmethod
    def from_json(cls, value: Any, task: str, num_classes: int) -> CalibrationTable | None:
        """What `to_json` gave; None of no table (a temperature needs none, it is in the head).

        Every value is checked: bundles come from strangers.

        Raises:
            OssicleError: it is no table, or not one of this task and number of classes.
        """
        if value is None:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise OssicleError("the calibration is no table")
        if value["kind"] in ("temperature", "none"):
            return None
        maps = value.get("maps")
        if value["kind"] != "isotonic" or not isinstance(maps, list):
            raise OssicleError(f"unknown calibration {ascii(value['kind'])[:40]}")
        if len(maps) != (1 if task == "classes" else num_classes):
            raise OssicleError(f"{len(maps)} calibration tables for {num_classes} classes")
        if not all(isinstance(entry, dict) for entry in maps):
            raise OssicleError("a calibration table has no knots")
        return cls([(entry.get("x"), entry.get("y")) for entry in maps], task)


def _checked(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Knots as (m,) float64, or an error."""
    sides = []
    for side in (x, y):
        values = side.tolist() if isinstance(side, np.ndarray) else side
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_KNOTS:
            raise OssicleError(f"a calibration table needs 1 to {MAX_KNOTS} knots")
        # bool is an int to Python; comparing with NaN is false.
        if not all(type(v) in (int, float) and 0 <= v <= 1 for v in values):
            raise OssicleError("the knots of a calibration table must be numbers in [0, 1]")
        sides.append(np.array(values, np.float64))
    across, up = sides
    if len(across) != len(up) or not (np.diff(across) > 0).all() or not (np.diff(up) >= 0).all():
        raise OssicleError("the knots of a calibration table must ascend")
    return across, up
