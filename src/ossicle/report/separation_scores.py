"""The part of a page of separations that tells scores: systems beside each other, improvements.

All values are in dB. "Improvement" is beside the mixture as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ossicle.report.words import number

#: Column of a table of scores -> what a reader calls it.
METRICS = {
    "si_sdr_improvement": "SI-SDR improvement, dB",
    "si_sdr": "SI-SDR, dB",
    "sdr_improvement": "SDR improvement, dB",
    "sdr": "SDR, dB",
    "log_spectral_distance": "Log-spectral distance, dB",
}
#: Systems that know the answer, and the mixture as it is: bounds, not results.
BOUNDS = ("mixture", "ideal")
IMPROVEMENT = "si_sdr_improvement"
_BINS = 24


def score_table(scores: pd.DataFrame) -> dict[str, Any] | None:
    """Rows for the page.

    Args:
        scores: column system; each of ``METRICS`` that is there: {"value", "low", "high"} of the
            mean and its interval, or the mean alone, beside NAME_low and NAME_high; where they are
            known, parameters and times_real_time. Rows keep their order.

    Returns:
        columns (what is told), rows (name, is_bound, cells: value and text and interval), and plot
        (rows of the first column with places from 0 to 1 for low, value, high; axis); None where
        there is no row or no column that is known.
    """
    found = [key for key in METRICS if key in scores and scores[key].notna().any()]
    if not len(scores) or not found:
        return None
    extra = [
        (key, name)
        for key, name in (("parameters", "Parameters"), ("times_real_time", "Times real time"))
        if key in scores and scores[key].notna().any()
    ]
    rows = []
    for row in scores.to_dict("records"):
        name = str(row["system"])
        cells = [_cell(row, key) for key in found]
        cells += [
            (number(row[key]), "–" if number(row[key]) is None else _large(row[key]), "")
            for key, _ in extra
        ]
        rows.append({"name": name, "is_bound": name.lower().startswith(BOUNDS), "cells": cells})
    return {
        "columns": [METRICS[key] for key in found] + [name for _, name in extra],
        "rows": rows,
        "plot": _plot(scores, found[0]),
    }


def histograms(mixtures: pd.DataFrame) -> dict[str, Any] | None:
    """How the improvements of single mixtures are spread, a histogram a system, one axis for all.

    Args:
        mixtures: columns system and si_sdr_improvement (dB), a row a mixture and system. Bounds
            are left out where there is anything else.

    Returns:
        width and height of the drawing, systems (name, told, bars: x, y, width, height, title),
        axis (x, text) and zero (x, or None); None where there is no value.
    """
    if IMPROVEMENT not in mixtures:
        return None
    values = mixtures[np.isfinite(mixtures[IMPROVEMENT].to_numpy(float))]
    bounds = values["system"].astype(str).str.lower().str.startswith(BOUNDS)
    values = values if bounds.all() else values[~bounds]
    if values.empty:
        return None
    numbers = values[IMPROVEMENT].to_numpy(float)
    edges = bins(float(numbers.min()), float(numbers.max()))
    width, height = 640.0, 90.0
    places = np.interp(edges, [edges[0], edges[-1]], [0, width])
    counts = {
        str(name): np.histogram(part[IMPROVEMENT], edges)[0]
        for name, part in values.groupby("system", sort=False)
    }
    # Shares, so that systems that were tried on other numbers of mixtures can be compared.
    most = max(float((some / some.sum()).max()) for some in counts.values())
    systems = []
    for name, some in counts.items():
        own = values.loc[values["system"].astype(str) == name, IMPROVEMENT].to_numpy(float)
        bars = []
        for i, n in enumerate(some):
            if not n:
                continue
            tall = float(n / some.sum() / most * (height - 4))
            bars.append(
                {
                    "x": round(float(places[i]) + 0.5, 2),
                    "y": round(height - tall, 2),
                    "width": round(float(places[i + 1] - places[i]) - 1, 2),
                    "height": round(tall, 2),
                    "title": f"{_db(edges[i])} to {_db(edges[i + 1])} dB: {n} of {len(own)}",
                }
            )
        worse = float((own < 0).mean())
        told = (
            f"median {_db(float(np.median(own)))} dB; {100 * worse:.0f}\u00a0% of {len(own)} "
            "mixtures made worse"
        )
        systems.append({"name": name, "told": told, "bars": bars})
    step = _step(float(edges[-1] - edges[0]))
    labels = np.arange(math.ceil(edges[0] / step), math.floor(edges[-1] / step) + 1) * step
    axis = [
        {"x": round(float(np.interp(x, edges[[0, -1]], [0, width])), 2), "text": _db(float(x))}
        for x in labels
    ]
    zero = float(np.interp(0, edges[[0, -1]], [0, width])) if edges[0] < 0 < edges[-1] else None
    return {
        "width": width,
        "height": height,
        "systems": systems,
        "axis": axis,
        "zero": zero if zero is None else round(zero, 2),
    }


def bins(low: float, high: float) -> np.ndarray:
    """Edges of at most 24 or so bins of a round width, 0 an edge among them where it is inside."""
    width = next(w for w in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 1e9) if (high - low) / w <= _BINS)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return np.arange(first, last + 1) * width


def _step(length: float) -> float:
    return next((s for s in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if length / s <= 10), 100.0)


def _db(value: float) -> str:
    text = f"{value:.4g}" if value == round(value) else f"{value:.1f}"
    return ("0" if text in ("-0", "-0.0", "0.0") else text).replace("-", "−")


def _cell(row: dict[Any, Any], key: str) -> tuple[float | None, str, str]:
    """(value, text, interval)."""
    value, low, high = _limits(row, key)
    if value is None:
        return None, "–", ""
    interval = "" if low is None or high is None else f"{_fixed(low)} to {_fixed(high)}"
    return value, _fixed(value), interval


def _limits(row: dict[Any, Any], key: str) -> tuple[float | None, float | None, float | None]:
    """(value, low, high), each None where unknown."""
    if isinstance(row.get(key), Mapping):
        return number(row[key]), number(row[key].get("low")), number(row[key].get("high"))
    names = (key, f"{key}_low", f"{key}_high")
    value, low, high = (number(row.get(name)) for name in names)
    return value, low, high


def _fixed(value: float) -> str:
    text = f"{value:.2f}"
    return ("0.00" if text == "-0.00" else text).replace("-", "−")


def _large(value: Any) -> str:
    value = float(value)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _plot(scores: pd.DataFrame, key: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for row in scores.to_dict("records"):
        name = str(row["system"])
        value, text, interval = _cell(row, key)
        _, low, high = _limits(row, key)
        rows.append(
            {
                "name": name,
                "is_bound": name.lower().startswith(BOUNDS),
                "text": text,
                "interval": interval,
                "at": value,
                "low": low,
                "high": high,
            }
        )
    known = [row[k] for row in rows for k in ("at", "low", "high") if row[k] is not None]
    first, last = min([0.0, *known]), max([0.0, *known])
    room = 0.04 * (last - first or 1.0)
    first, last = first - room, last + room
    step = _step(last - first)

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - first) / (last - first), 2)

    for row in rows:
        row.update({k: place(row[k]) for k in ("at", "low", "high")})
    marks = np.arange(math.ceil(first / step), math.floor(last / step) + 1) * step
    return {
        "title": METRICS[key],
        "rows": rows,
        "axis": [(place(float(x)), _db(float(x))) for x in marks],
    }
