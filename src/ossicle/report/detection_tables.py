"""The rows of a page of detections: classes, recordings, maps of activity, scores, parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ossicle.report.detection_activity import Activity, union
from ossicle.report.words import compact, duration, number

MOST_FILES = 100
MOST_MAP_ROWS = 40
_MOST_SCORES = 24
# Parts of an error rate are for its own table.
_DETAILS = ("per_class", "deletion_rate", "insertion_rate", "substitution_rate")


def class_rows(
    events: pd.DataFrame,
    classes: Sequence[str],
    recorded_s: float,
    counts: pd.DataFrame | None,
    reference: pd.DataFrame | None,
) -> list[dict[str, Any]]:
    """A row for each class that occurs: name, values [(value to sort by, text)].

    Args:
        events: with file, onset, offset (s), label, score.
        classes: in order.
        recorded_s: length of all recordings.
        counts: hits, misses and alarms by class, or None.
        reference: the true events, or None.
    """
    seconds = sounding(events)
    rows = []
    for name in classes:
        some = events[events["label"] == name]
        true = 0 if reference is None else int((reference["label"] == name).sum())
        if not len(some) and not true:
            continue
        lengths = (some["offset"] - some["onset"]).to_numpy(float)
        score = some["score"].to_numpy(float)
        known = score[np.isfinite(score)]
        here = seconds.get(name, 0.0)
        values = [
            _cell(len(some), f"{len(some):,}"),
            _cell(some["file"].nunique(), f"{some['file'].nunique():,}"),
            _cell(here, duration(here) if here else "–"),
            _cell(here / recorded_s if recorded_s else None, percent(here, recorded_s)),
            _cell(float(np.median(lengths)) if len(lengths) else None, _seconds(lengths)),
            _cell(float(known.mean()) if len(known) else None, _three(known)),
        ]
        if counts is not None:
            row = counts.loc[name] if name in counts.index else {}
            hits, misses, alarms = (int(row.get(k, 0)) for k in ("hits", "misses", "alarms"))
            f1 = 2 * hits / (2 * hits + misses + alarms) if hits + misses else None
            values += [_cell(n, f"{n:,}") for n in (hits, misses, alarms)]
            values.append(_cell(f1, "–" if f1 is None else f"{f1:.3f}"))
        rows.append({"name": name, "values": values})
    return rows


def file_rows(
    files: Sequence[str],
    durations: Mapping[str, float],
    kinds: pd.DataFrame,
    classes: Sequence[str],
    most_classes: int = 8,
) -> dict[str, Any]:
    """The recordings with most errors, then with most events: at most ``MOST_FILES`` of them.

    Args:
        files: all names.
        durations: seconds.
        kinds: events with file, label, kind ("found", or "hit", "alarm", "miss", "known").
        classes: in order.
        most_classes: columns; beyond that the most frequent ones.

    Returns:
        columns (class names), rows (file number, name, length, events, errors or None, cells
        [(count, shade)]), left_out, order (all file numbers in the order of the rows).
    """
    found = kinds[kinds["kind"].isin(["found", "hit", "alarm"])]
    frequent = found["label"].value_counts()
    columns = [c for c in classes if c in frequent.index]
    if len(columns) > most_classes:
        top = set(frequent.index[:most_classes])
        columns = [c for c in columns if c in top]
    n_events = found["file"].value_counts().to_dict()
    judged = bool(kinds["kind"].isin(["hit", "alarm", "miss"]).any())
    wrong = kinds[kinds["kind"].isin(["alarm", "miss"])]["file"].value_counts().to_dict()
    order = sorted(
        range(len(files)),
        key=lambda i: (-wrong.get(files[i], 0), -n_events.get(files[i], 0), i),
    )
    shown = order[:MOST_FILES]
    names = {files[i] for i in shown}
    some = found[found["file"].isin(names) & found["label"].isin(columns)]
    table = some.groupby(["file", "label"]).size().to_dict()
    most = max(table.values(), default=1)
    rows = []
    for i in shown:
        cells = [table.get((files[i], name), 0) for name in columns]
        rows.append(
            {
                "file": i,
                "name": files[i],
                "seconds": durations.get(files[i]),
                "length": duration(durations[files[i]]) if files[i] in durations else "–",
                "events": n_events.get(files[i], 0),
                "errors": wrong.get(files[i], 0) if judged else None,
                "cells": [(n, shade(n / most)) for n in cells],
            }
        )
    return {
        "columns": columns,
        "rows": rows,
        "left_out": len(order) - len(shown),
        "order": order,
        "judged": judged,
        "n_classes_left_out": max(0, len(frequent) - len(columns)),
    }


def map_rows(activity: Activity, classes: Sequence[str]) -> dict[str, Any]:
    """A map for the page: title, columns, names drawn now and then, rows of (shade, told)."""
    loud = np.nansum(activity.shares, axis=1)
    order = [k for k in np.argsort(-loud, kind="stable") if loud[k] > 0]
    chosen = sorted(order[:MOST_MAP_ROWS])
    top = float(np.nanmax(activity.shares[chosen])) if chosen else 1.0
    every = max(1, math.ceil(len(activity.columns) / 12))
    rows = []
    for k in chosen:
        cells: list[tuple[float | None, str]] = []
        for w, column in enumerate(activity.columns):
            share, n = float(activity.shares[k, w]), int(activity.counts[k, w])
            if math.isnan(share):
                cells.append((None, f"{column}: nothing recorded"))
            else:
                events = f"{n:,} event{'' if n == 1 else 's'}"
                told = f"{column}: {events}, {percent(share, 1)} of the time"
                cells.append((shade(share / top) if share > 0 else 0.0, told))
        rows.append({"name": classes[k], "cells": cells})
    return {
        "title": activity.title,
        "columns": [name if i % every == 0 else "" for i, name in enumerate(activity.columns)],
        "rows": rows,
        "top": percent(top, 1),
        "left_out": len(order) - len(chosen),
    }


def sounding(events: pd.DataFrame) -> dict[str, float]:
    """Seconds in which each class sounds; events of one class that overlap count once."""
    if not len(events):
        return {}
    label, names = pd.factorize(events["label"])
    times = (events[name].to_numpy(float) for name in ("onset", "offset"))
    some, begin, end, _ = union(pd.factorize(events["file"])[0], label, *times)
    return dict(zip(names, np.bincount(some, end - begin, len(names)).tolist(), strict=True))


def score_rows(scores: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """(name, value, interval) of scores, nested ones by their path, without those of classes."""
    rows = []
    for name, value in _flat(scores or {}, ()):
        low, high = (
            (number(value.get("low")), number(value.get("high")))
            if isinstance(value, Mapping)
            else (None, None)
        )
        shown = number(value)
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append((name, "–" if shown is None else compact(round(shown, 3), 3), interval))
    return rows[:_MOST_SCORES]


def parameter_rows(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, text) of parameters; nested ones by their path, lists with commas."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else _shown(value))
        for name, value in _flat(parameters, (), hidden=())
    ]


def percent(part: float, whole: float) -> str:
    """A share in percent with two digits that count."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.01:
        return "below 0.01\u00a0%"
    text = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    return f"{text}\u00a0%"


def shade(share: float) -> float:
    """Depth of a cell's colour: by the square root, so that little is seen beside much."""
    return round(0.08 + 0.87 * math.sqrt(min(1.0, share)), 2) if share > 0 else 0.0


def _flat(
    values: Mapping[str, Any], path: tuple[str, ...], hidden: tuple[str, ...] = _DETAILS
) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in hidden:
            continue
        here = (*path, str(key).replace("_", " "))
        if isinstance(value, Mapping) and "value" not in value:
            yield from _flat(value, here, hidden)
        else:
            yield " ".join(here), value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("value")
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return compact(value) if isinstance(value, float) else str(value)


def _cell(value: float | None, text: str) -> tuple[float | None, str]:
    return (None if value is None else round(float(value), 6), text)


def _seconds(lengths: np.ndarray) -> str:
    return duration(float(np.median(lengths))) if len(lengths) else "–"


def _three(values: np.ndarray) -> str:
    return f"{values.mean():.3f}" if len(values) else "–"
