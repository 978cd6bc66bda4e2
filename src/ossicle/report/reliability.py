"""Whether probabilities can be taken at their word, what thresholds cost, and unheard classes.

Words, rows and drawings of two sections of the page, from `metrics.reliability` and
`transfer.unheard`. Nothing here has a colour: see `figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ossicle.report.figures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    Scale,
    dot_rows,
    svg,
)
from ossicle.report.words import format_interval, format_score, limits, number, plural

SHOWN_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
WANTED = 0.95
# Closer than this, said and true are called alike.
_ALIKE = 0.02
_SIDE = 420
# The last tick, "100 %", stands over the right end.
_EDGE = 24
_CALIBRATED = {
    "temperature": {
        "top-1": "Probabilities are calibrated by a temperature",
        "labels": "Probabilities are calibrated by a sigmoid for each label",
    },
    "isotonic": {
        "top-1": "Probabilities are calibrated by isotonic regression",
        "labels": "Probabilities are calibrated by isotonic regression, label by label",
    },
}


def reliability(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section on probabilities shows; None where they were not looked at."""
    found = evaluation.get("reliability")
    if not isinstance(found, Mapping) or not found.get("n"):
        return None
    single = found.get("kind") != "labels"
    bins = (found.get("bins") or {}).get("mass") or []
    counted = (found.get("bins") or {}).get("width") or []
    rows = [
        row for row in found.get("thresholds") or [] if number(row.get("threshold")) is not None
    ]
    words = (
        ("right, of those answered", "clips answered")
        if single
        else ("right labels", "clips with a label")
    )
    what = "the class was right" if single else "the label was there"
    return {
        "lead": _lead(found, single),
        "scores": _scores(found),
        "diagram": reliability_chart(bins, counted, single) if bins else None,
        "diagram_told": (
            "Said and true: of the answers with like probability, the share in which "
            f"{what}, with its interval. On the line, it can be taken at its word. Bars: how many "
            "answers there are."
        ),
        "curve": threshold_chart(rows, words) if len(rows) > 1 else None,
        "curve_told": (
            "What a threshold costs: the surer an answer must be, the more of them are right, and "
            "the fewer there are"
        ),
        "columns": (
            ("Clips answered", "Right, of those", "Right, of all clips")
            if single
            else ("Clips with a label", "Right labels (precision)", "Labels found (recall)")
        ),
        "thresholds": [
            {
                "threshold": _percent(row["threshold"]) if row["threshold"] else "any answer",
                "cells": [_cell(row.get(key)) for key in ("coverage", "precision", "recall")],
            }
            for row in rows
            if any(math.isclose(row["threshold"], wanted) for wanted in SHOWN_THRESHOLDS)
        ],
        "advice": _advice(rows, single),
        **_class_table(found),
    }


def unheard(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section on classes never heard shows; None where it was not tried."""
    found = evaluation.get("novelty")
    if not isinstance(found, Mapping) or number(found.get("auc")) is None:
        return None
    rows: list[dict[str, Any]] = [
        {"label": str(row.get("class")), **_told("auc", row.get("auc")), "kind": ""}
        for row in sorted(
            found.get("per_class") or [], key=lambda row: -(number(row.get("auc")) or 0.0)
        )
    ]
    rows.append({"label": "Mean over classes", **_told("auc", found["auc"]), "kind": "this"})
    values = [row.get(key) for row in rows for key in ("value", "low", "high")]
    plot = dot_rows(rows, Scale(values, (0.0, 1.0), [0.5, 1.0]), "auc")
    return {**plot, "lead": _unheard_lead(found, evaluation)}


def reliability_chart(
    bins: Sequence[Mapping[str, Any]], counted: Sequence[Mapping[str, Any]], single: bool
) -> Markup:
    """The share that is right against the mean probability of each bin, on a square.

    Args:
        bins: of equal mass, each confidence, accuracy (with limits) and n.
        counted: of equal width, each low, high and n: the bars.
        single: one class a clip, or labels.
    """
    inner = _SIDE - LEFT - _EDGE
    parts = []

    def x(value: float) -> float:
        return round(LEFT + inner * value, 1)

    def y(value: float) -> float:
        return round(TOP + inner * (1 - value), 1)

    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(
            f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{y(tick)}" y2="{y(tick)}"/>'
            f'<text class="y" x="{LEFT - 8}" y="{y(tick) + 4}">{_percent(tick)}</text>'
            f'<text class="x" x="{x(tick)}" y="{TOP + inner + 18}">{_percent(tick)}</text>'
        )
    most = max([number(row.get("n")) or 0 for row in counted], default=0)
    for row in counted if most else []:
        height = 0.18 * (number(row.get("n")) or 0) / most
        start, end = number(row.get("low")) or 0.0, number(row.get("high")) or 0.0
        parts.append(
            f'<rect class="mass" x="{x(start) + 1}" width="{max(0.0, x(end) - x(start) - 2):.1f}" '
            f'y="{y(height)}" height="{y(0) - y(height):.1f}"><title>'
            f"{_percent(start)} to {_percent(end)}: {plural(int(row['n']), 'answer')}"
            "</title></rect>"
        )
    parts.append(f'<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    told = []
    for row in bins:
        low, value, high = limits(row.get("accuracy"))
        sure = number(row.get("confidence"))
        if sure is None or value is None:
            continue
        if low is not None and high is not None:
            at = x(sure)
            parts.append(
                f'<line class="whisker" x1="{at}" x2="{at}" y1="{y(low)}" y2="{y(high)}"/>'
            )
        text = f"said {_share(sure)}, true {_share(value)}"
        told.append(text)
        parts.append(
            f'<circle class="point" r="5" cx="{x(sure)}" cy="{y(value)}">'
            f"<title>{text} of {plural(int(row.get('n') or 0), 'answer')}</title></circle>"
        )
    middle = LEFT + inner / 2
    axis = "share in which the class was right" if single else "share in which the label was there"
    parts.append(
        f'<text class="x" x="{middle}" y="{TOP + inner + 36}">probability that it said</text>'
        f'<text class="x" transform="translate(12 {TOP + inner / 2}) rotate(-90)">{axis}</text>'
    )
    return svg("Reliability", "; ".join(told) + ".", parts, _SIDE, TOP + inner + BOTTOM)


def threshold_chart(
    rows: Sequence[Mapping[str, Any]], words: tuple[str, str] = ("right", "answered")
) -> Markup:
    """Precision and coverage against the threshold, with their intervals as bands.

    Args:
        rows: each threshold, precision and coverage (with limits).
        words: what the two are called.
    """
    inner, tall = WIDTH - LEFT - _EDGE, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + inner * value, 1)

    def y(value: float) -> float:
        return round(TOP + tall * (1 - value), 1)

    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(
            f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{y(tick)}" y2="{y(tick)}"/>'
            f'<text class="y" x="{LEFT - 8}" y="{y(tick) + 4}">{_percent(tick)}</text>'
            f'<text class="x" x="{x(tick)}" y="{HEIGHT - BOTTOM + 18}">{_percent(tick)}</text>'
        )
    for key, mark in (("coverage", "second"), ("precision", "line")):
        known = [(row["threshold"], *limits(row.get(key))) for row in rows]
        edge = [(t, lo, hi) for t, lo, _, hi in known if lo is not None and hi is not None]
        if len(edge) > 1:
            upper = [f"{x(t)},{y(hi)}" for t, _, hi in edge]
            lower = [f"{x(t)},{y(lo)}" for t, lo, _ in reversed(edge)]
            soft = " soft" if mark == "second" else ""
            parts.append(f'<polygon class="band{soft}" points="{" ".join(upper + lower)}"/>')
        line = " ".join(f"{x(t)},{y(value)}" for t, _, value, _ in known if value is not None)
        parts.append(f'<polyline class="{mark}" points="{line}"/>')
    # Low on the left is where neither line is in any use of a threshold.
    for place, mark, word in ((0.2, "line", words[0]), (0.1, "second", words[1])):
        parts.append(
            f'<polyline class="{mark}" points="{x(0.03)},{y(place)} {x(0.09)},{y(place)}"/>'
            f'<text x="{x(0.105)}" y="{y(place) + 4:.1f}">{word}</text>'
        )
    parts.append(f'<text class="x label" x="{LEFT + inner / 2}" y="{HEIGHT - 6}">threshold</text>')
    told = "; ".join(
        f"from {_percent(row['threshold'])}: {_share(row.get('precision'))} right, "
        f"{_share(row.get('coverage'))} answered"
        for row in rows[:: max(1, len(rows) // 6)]
    )
    return svg("Precision at each threshold", f"{told}.", parts)


def _lead(found: Mapping[str, Any], single: bool) -> list[str]:
    sure, right = number(found.get("confidence")), number(found.get("accuracy"))
    lines = []
    if sure is not None and right is not None:
        gap = sure - right
        if abs(gap) < _ALIKE:
            judged = "on the whole it is as sure as it is right"
        elif gap > 0:
            judged = f"on the whole it is surer than it is right, by {100 * gap:.0f} points"
        else:
            judged = f"on the whole it is less sure than it may be, by {-100 * gap:.0f} points"
        of = "Its answers" if single else "Label by label, it"
        verb = "are" if single else "is"
        truth = "right" if single else "there"
        whole = f"{_share(sure)} sure on average, and {_share(right)} are {truth}"
        lines.append(f"{of} {verb} {whole}: {judged}.")
    calibrated = _CALIBRATED.get(str(found.get("calibration")), {}).get(
        "top-1" if single else "labels"
    )
    if calibrated:
        lines.append(f"{calibrated}, fitted inside each training part on groups held out there.")
    elif found.get("calibration") == "none":
        lines.append("Probabilities are not calibrated.")
    return lines


def _scores(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    named = (
        ("ece_mass", "Expected calibration error, bins of equal mass"),
        ("ece_width", "The same, bins of equal width"),
        ("brier", "Brier score"),
        ("nll", "Negative log-likelihood"),
    )
    return [
        (name, format_score("", found[key]), format_interval("", found[key]))
        for key, name in named
        if number(found.get(key)) is not None
    ]


def _advice(rows: Sequence[Mapping[str, Any]], single: bool) -> str:
    """The lowest threshold at which the lower end of precision is at least 95 %."""
    shown = [row for row in rows if (limits(row.get("precision"))[0] or 0.0) >= WANTED]
    reached = shown[0] if shown else None
    wanted = f"{100 * WANTED:.0f}\u00a0%"
    if reached is None:
        return (
            f"At no threshold do these clips show that {wanted} of the answers are right (lower "
            "end of the interval); more clips may show it."
        )
    covered = _share(reached.get("coverage"))
    start = _percent(reached["threshold"])
    said = f"From {start} on" if reached["threshold"] else "Whatever it is asked"
    some = f"{covered} of the clips are answered" if single else f"{covered} of clips get a label"
    return (
        f"{said}, at least {wanted} of the answers are right (lower end of the interval); {some}."
    )


def _class_table(found: Mapping[str, Any]) -> dict[str, Any]:
    given = [row for row in found.get("per_class") or [] if row.get("thresholds")]
    if not given:
        return {"per_class": [], "class_thresholds": []}
    return {
        "class_thresholds": [_percent(row["threshold"]) for row in given[0]["thresholds"]],
        "per_class": [
            {
                "name": str(row.get("class")),
                "n": f"{number(row.get('n')) or 0:,.0f}",
                "cells": [
                    _cell(entry.get(key))
                    for entry in row["thresholds"]
                    for key in ("precision", "recall")
                ],
            }
            for row in given
        ],
    }


def _unheard_lead(found: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    low, area, _ = limits(found["auc"])
    assert area is not None
    interval = _interval(found["auc"])
    lines = [
        "Each class in turn was kept from it and then played beside sounds of the others, of "
        f"recordings that were new as well. In {_share(area)} of pairs{interval} the class it had "
        "never heard was the less familiar; guessing gives 50\u00a0%."
    ]
    accepted, noticed = number(found.get("accepted")), number(found.get("noticed"))
    if accepted is not None and noticed is not None:
        lines.append(
            f"Where {_percent(accepted)} of known sounds are accepted, the verdict "
            f"\u201cunknown\u201d catches {_share(noticed)} of them{_interval(found['noticed'])}."
        )
    if area < 0.7 or (low is not None and low <= 0.5):
        lines.append(
            "That is little: what it has not learnt sounds to it like what it has. Give it a class "
            "of other sounds to learn from, rather than to rely on this verdict."
        )
    probe = evaluation.get("probe")
    if isinstance(probe, Mapping) and str(probe.get("name")) in (
        "fine-tuned",
        "trained from scratch",
    ):
        lines.append("This was tried on the features before any training.")
    return lines


def _told(metric: str, score: Any) -> dict[str, Any]:
    low, value, high = limits(score)
    interval = format_interval(metric, score)
    return {"value": value, "low": low, "high": high, "interval": interval}


def _interval(score: Any) -> str:
    told = format_interval("accuracy", score)
    return f" ({told})" if told else ""


def _cell(score: Any) -> tuple[str, str]:
    low, _, high = limits(score)
    told = "" if low == high else format_interval("accuracy", score)
    return format_score("accuracy", score), told


def _share(value: Any) -> str:
    return format_score("accuracy", value)


def _percent(value: float) -> str:
    return f"{100 * value:.4g}\u00a0%"
