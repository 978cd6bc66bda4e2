"""The rows that a report shows, made from the evaluation: matrix, classes, layers, settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ossicle.report.clips import ClipList, scatter_items
from ossicle.report.figures import Scale, dot_rows, learning_chart, scatter_chart, strip_chart
from ossicle.report.words import (
    ERRORS,
    duration,
    format_interval,
    format_score,
    known_chance,
    labels_of,
    metric_name,
    number,
)

# A larger matrix is neither read nor quick to draw.
MATRIX_CLASSES = 60
SUBSETS_LISTED = 15
STRIP_DOTS = 2000


def confusion(
    evaluation: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
) -> tuple[list[str], np.ndarray | None]:
    """Names and counts (rows are true), given or counted; no counts but for "classes"."""
    given = evaluation.get("confusion") or {}
    classes = [str(x) for x in given.get("classes") or evaluation.get("classes") or []]
    if evaluation["task"] == "regression":
        return [], None
    answers = [(labels_of(x.get("label")), labels_of(x.get("predicted"))) for x in items]
    if not classes:
        classes = sorted({name for pair in answers for names in pair for name in names})
    if evaluation["task"] != "classes" or not classes:
        return classes, None
    counts = np.array(given.get("matrix") or np.zeros((0, 0)), dtype=float)
    if counts.shape == (len(classes), len(classes)):
        return classes, counts
    if not answers:
        return classes, None
    seen = Counter((true[0], told[0]) for true, told in answers if true and told)
    return classes, np.array([[seen[a, b] for b in classes] for a in classes], dtype=float)


def cells(
    classes: Sequence[str], counts: np.ndarray, lists: Mapping[str, ClipList]
) -> dict[str, Any]:
    """The matrix as the page draws it: rows of cells; of many classes those with most errors."""
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:MATRIX_CLASSES])
    totals = np.maximum(counts.sum(1), 1)
    rows = [
        {
            "name": classes[i],
            "total": int(counts[i].sum()),
            "cells": [
                {
                    "count": int(counts[i, j]),
                    # The root keeps one error among a hundred clips visible.
                    "shade": round(0.1 + 0.85 * math.sqrt(counts[i, j] / totals[i]), 3),
                    "diagonal": i == j,
                    "name": classes[j],
                    "key": f"{i},{j}" if f"{i},{j}" in lists else "",
                }
                for j in shown
            ],
        }
        for i in shown
    ]
    size = "large" if len(shown) <= 12 else "middle" if len(shown) <= 24 else "small"
    names = [classes[j] for j in shown]
    return {"rows": rows, "names": names, "size": size, "left_out": len(classes) - len(shown)}


def per_class(
    evaluation: Mapping[str, Any],
    classes: Sequence[str],
    counts: np.ndarray | None,
    lists: Mapping[str, ClipList],
) -> Iterator[dict[str, Any]]:
    """Rows of the class table: name, support, recall with interval, what it is taken for, lists."""
    index = {name: i for i, name in enumerate(classes)}
    for row in evaluation.get("per_class") or []:
        name = str(row.get("class"))
        i = index.get(name)
        interval = {"low": row.get("recall_low"), "high": row.get("recall_high")}
        confused = None
        if counts is not None and i is not None:
            others = counts[i].copy()
            others[i] = 0
            j = int(others.argmax())
            if others[j] > 0:
                key = f"{i},{j}"
                confused = (classes[j], int(others[j]), key if key in lists else "")
        recall = number(row.get("recall"))
        low, high = number(interval["low"]), number(interval["high"])
        yield {
            "name": name,
            "support": number(row.get("support")),
            "recall": recall,
            "found": format_score("accuracy", recall),
            "interval": format_interval("accuracy", interval),
            "low": None if low is None else round(100 * low, 1),
            "high": None if high is None else round(100 * high, 1),
            "values": [
                (number(row.get(key)), format_score(metric, row.get(key)))
                for key, metric in (("precision", "accuracy"), ("f1", "macro_f1"), ("auc", "auc"))
            ],
            "confused": confused,
            "lists": [
                (kind, len(lists[f"{kind},{i}"].clips), f"{kind},{i}")
                for kind in ("missed", "false", "found")
                if f"{kind},{i}" in lists
            ],
        }


def context(evaluation: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """The score beside chance, shuffled labels and a random split; None if it stands alone."""
    score = evaluation.get("score") or {}
    rows: list[dict[str, Any]] = []
    if (chance := known_chance(evaluation)) is not None:
        always = {"regression": "the mean", "classes": "the most frequent class"}
        told = f"Always {always.get(evaluation['task'], 'the same answer')}"
        rows.append({"label": told, "value": chance, "kind": "low"})
    if evaluation.get("shuffled_labels"):
        rows.append({"label": "Shuffled labels", **evaluation["shuffled_labels"], "kind": "low"})
    if number(score) is not None:
        rows.append({"label": "This model", **score, "kind": "this"})
    if evaluation.get("random_split"):
        claim = "A random split would claim"
        rows.append({"label": claim, **evaluation["random_split"], "kind": "claim"})
    rows = [row for row in rows if number(row.get("value")) is not None]
    if len(rows) < 2:
        return None
    for row in rows:
        interval = format_interval(metric, row)
        row["text"], row["interval"] = format_score(metric, row["value"]), interval
    top = math.inf if metric in ERRORS else 1.0
    include = [0.0] if metric in ERRORS else [0.0, 1.0]
    values = [row.get(key) for row in rows for key in ("value", "low", "high")]
    return dot_rows(rows, Scale(values, (-math.inf, top), include), metric)


def scores(evaluation: Mapping[str, Any], metric: str) -> list[tuple[str, str, str]]:
    """(name, value, interval) of the other scores."""
    return [
        (metric_name(name), format_score(name, score), format_interval(name, score))
        for name, score in (evaluation.get("scores") or {}).items()
        if name != metric and number(score) is not None
    ]


def layers(evaluation: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """Rows of the layer plot in depth order, then all layers and the chosen ones together."""
    chosen = set(map(str, (evaluation.get("chosen") or {}).get("layers") or []))
    rows: list[dict[str, Any]] = [
        {
            "label": str(row.get("layer")),
            "value": row.get("score"),
            "low": row.get("low"),
            "high": row.get("high"),
            "kind": "this" if str(row.get("layer")) in chosen else "",
            "chosen": str(row.get("layer")) in chosen,
        }
        for row in evaluation.get("by_layer") or []
        if number(row.get("score")) is not None
    ]
    if not rows:
        return None
    together: list[dict[str, Any]] = []
    for label, found in (
        ("All layers together", evaluation.get("all_layers")),
        ("Chosen layers", (evaluation.get("chosen") or {}).get("score")),
    ):
        if (value := number(found)) is not None:
            limits = found if isinstance(found, Mapping) else {}
            together.append({**limits, "label": label, "value": value, "kind": "claim"})
    rows += together
    values = [row.get(key) for row in rows for key in ("value", "low", "high")]
    made = dot_rows(rows, Scale(values), metric)
    return {**made, "n_layers": len(rows) - len(together), "n_chosen": len(chosen)}


def subsets(evaluation: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """The best sets of layers, their number, and the chart of all by size."""
    found = [
        ([str(name) for name in row.get("layers") or []], number(row.get("score")))
        for row in evaluation.get("subsets") or []
    ]
    known = [(layers, score) for layers, score in found if layers and score is not None]
    if len(known) < 2:
        return None
    names = [str(row.get("layer")) for row in evaluation.get("by_layer") or []]
    names += sorted({name for layers, _ in known for name in layers} - set(names))
    shown = {
        tuple(map(str, row["layers"])): [str(row["name"])]
        for row in evaluation.get("subsets") or []
        if row.get("name") and row.get("layers")
    }
    dots = [(len(layers), score, " + ".join(layers)) for layers, score in known[:STRIP_DOTS]]
    chosen = " + ".join(map(str, (evaluation.get("chosen") or {}).get("layers") or []))
    best = [
        (shown.get(tuple(layers), layers), format_score(metric, score))
        for layers, score in known[:SUBSETS_LISTED]
    ]
    return {
        "names": names if len(names) <= 20 else [],
        "best": best,
        "count": len(known),
        "chart": strip_chart(dots, metric, chosen),
    }


def learning(evaluation: Mapping[str, Any], metric: str) -> Markup | None:
    """The learning curve, None below two points."""
    points = (evaluation.get("learning_curve") or {}).get("points") or []
    return learning_chart(points, metric) if len(points) > 1 else None


def scatter(items: Sequence[Mapping[str, Any]], lists: Mapping[str, ClipList]) -> Markup | None:
    """Predicted against true values, the largest errors drawn on top."""
    points = [(i, items[i]["label"], items[i]["predicted"]) for i in reversed(scatter_items(lists))]
    return scatter_chart(points) if points else None


def facts(evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of what was used: (title, rows of name and text)."""
    sound = dict(evaluation.get("audio") or {})
    for key in ("seconds_read", "seconds_used"):
        if (seconds := number(sound.get(key))) is not None:
            sound[key.replace("seconds", "sound")] = duration(seconds)
            del sound[key]
    if (rate := number(sound.get("sample_rate"))) is not None:
        sound["sample_rate"] = f"{rate:,.0f} Hz"
    versions = dict(evaluation.get("record") or {})
    if evaluation.get("arguments"):
        # They stand in a table of their own.
        versions.pop("arguments", None)
    titled = (
        ("Sound", sound),
        ("Network", evaluation.get("backbone")),
        ("Probe", evaluation.get("probe")),
        ("Time", evaluation.get("timing")),
        ("Arguments", evaluation.get("arguments")),
        ("Versions and machine", versions),
    )
    tables = [(title, list(_flat(found))) for title, found in titled if found]
    return [(title, rows) for title, rows in tables if rows]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            # The names of this project's keys: n_files, extract_s.
            told = str(key).removeprefix("n_").replace("_", " ")
            yield from _flat(item, f"{name} · {told}" if name else told)
    elif isinstance(value, list):
        yield name, ", ".join(text for item in value for _, text in _flat(item))
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    elif isinstance(value, int | float):
        text = f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
        timed = name.endswith(" s")
        # Years and rates read better without a comma.
        text = text.replace(",", "") if abs(value) <= 9999 else text
        yield name.removesuffix(" s"), text + (" s" if timed else "")
    elif value is not None:
        yield name, str(value)
