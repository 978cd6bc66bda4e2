"""The drawings of a report: rows of dots on a scale, and three charts as inline SVG.

Nothing here has a colour: classes name the parts, and the page's style colours them for light,
dark and print. Each SVG has a title and a description with the numbers it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ossicle.report.words import compact, format_score, format_tick, metric_name, number

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 44
# The golden ratio's fraction spreads any number of points evenly, without chance.
_GOLDEN = 0.6180339887498949


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover low to high; the first and last enclose them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        around = 0.05 * (abs(low) if abs(low) > 1e-6 else 1)
        low, high = low - around, high + around
    rough = (high - low) / max(1, count - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


class Scale:
    """A linear or logarithmic axis from numbers to 0..1.

    Args:
        values: what it has to show; None and NaN are passed over.
        bounds: the axis never reaches beyond these.
        include: numbers that it shows in any case.
        logarithmic: by ratios; all values must be positive.
        count: about how many ticks.
    """

    def __init__(
        self,
        values: Iterable[Any],
        bounds: tuple[float, float] = (-math.inf, math.inf),
        include: Sequence[float] = (),
        logarithmic: bool = False,
        count: int = 5,
    ) -> None:
        known = [x for x in map(number, values) if x is not None] + list(include)
        known = known or [0.0, 1.0]
        self.logarithmic = logarithmic
        if logarithmic:
            self.ticks: list[float] = sorted(set(known))
        else:
            ticks = nice_ticks(max(min(known), bounds[0]), min(max(known), bounds[1]), count)
            self.ticks = [x for x in ticks if bounds[0] <= x <= bounds[1]]
        self.low, self.high = min(self.ticks), max(self.ticks)

    def __call__(self, value: float) -> float:
        """Where a value lies, 0 to 1; beyond the ends, the end."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


def dot_rows(
    rows: Sequence[Mapping[str, Any]],
    scale: Scale,
    metric: str,
) -> dict[str, Any]:
    """Rows of a dot plot, for the page's table.

    Args:
        rows: each with label, value, and where known low, high, kind, text (beside the dot).
        scale: the axis that they share.
        metric: what the values are.

    Returns:
        rows with dot, left, width (percent of the axis; None where unknown) added, and ticks
        (position in percent, text).
    """
    made = []
    for row in rows:
        value, low, high = (number(row.get(key)) for key in ("value", "low", "high"))
        spread = low is not None and high is not None
        left = 100 * scale(low) if low is not None and spread else None
        right = 100 * scale(high) if high is not None and spread else None
        made.append(
            {
                "kind": "",
                "text": format_score(metric, value),
                **row,
                "dot": None if value is None else round(100 * scale(value), 2),
                "left": None if left is None else round(left, 2),
                "width": None if left is None or right is None else round(right - left, 2),
            }
        )
    ticks = [(round(100 * scale(x), 2), format_tick(metric, x)) for x in scale.ticks]
    return {"rows": made, "ticks": ticks}


def strip_chart(subsets: Sequence[tuple[int, float, str]], metric: str, chosen: str = "") -> Markup:
    """Score against the number of layers, a dot for each set of layers.

    Args:
        subsets: (number of layers, score, name).
        metric: what the scores are.
        chosen: the name to mark.
    """
    y_scale = Scale([score for _, score, _ in subsets])
    most = max(size for size, _, _ in subsets)
    column = (WIDTH - LEFT - RIGHT) / most
    best = {
        size: max(score for other, score, _ in subsets if other == size)
        for size in sorted({size for size, _, _ in subsets})
    }
    parts = [*_y_axis(y_scale, metric), _x_label("number of layers used together")]
    for size in range(1, most + 1):
        if most <= 16 or size % math.ceil(most / 16) == 0:
            parts.append(_x_tick(LEFT + (size - 0.5) * column, str(size)))
    line = " ".join(
        f"{LEFT + (size - 0.5) * column:.1f},{_y(y_scale, score):.1f}"
        for size, score in best.items()
    )
    parts.append(f'<polyline class="best" points="{line}"/>')
    for i, (size, score, name) in enumerate(subsets):
        shift = 0.0 if score == best[size] else ((i * _GOLDEN) % 1 - 0.5) * 0.6
        x = LEFT + (size - 0.5 + shift) * column
        mark = ' class="chosen" r="5"' if name == chosen else ' class="dot" r="3"'
        parts.append(
            f'<circle{mark} cx="{x:.1f}" cy="{_y(y_scale, score):.1f}">'
            f"<title>{escape(name)}: {format_score(metric, score)}</title></circle>"
        )
    told = "; ".join(f"{size} layers {format_score(metric, score)}" for size, score in best.items())
    return svg("Score by number of layers", f"Best of each size: {told}.", parts)


def learning_chart(points: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Score against the number of training clips, with its interval as a band.

    Args:
        points: each with n_train, score and where known per_class, low, high.
        metric: what the scores are.
    """
    points = sorted(
        (p for p in points if number(p.get("n_train")) and number(p.get("score")) is not None),
        key=lambda p: p["n_train"],
    )
    if not points:
        return Markup("")
    sizes = [float(p["n_train"]) for p in points]
    x_scale = Scale(sizes, logarithmic=True)
    y_scale = Scale([p.get(key) for p in points for key in ("score", "low", "high")])
    across = [LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * x_scale(x) for x in sizes]
    parts = [*_y_axis(y_scale, metric), _x_label("clips to learn from (in brackets: for a class)")]
    banded = [
        (x, number(p.get("low")), number(p.get("high")))
        for x, p in zip(across, points, strict=True)
    ]
    edge = [(x, low, high) for x, low, high in banded if low is not None and high is not None]
    if len(edge) > 1:
        upper = [f"{x:.1f},{_y(y_scale, high):.1f}" for x, _, high in edge]
        lower = [f"{x:.1f},{_y(y_scale, low):.1f}" for x, low, _ in reversed(edge)]
        parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    line = [f"{x:.1f},{_y(y_scale, p['score']):.1f}" for x, p in zip(across, points, strict=True)]
    parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    free = -math.inf
    for x, point in zip(across, points, strict=True):
        parts.append(
            f'<circle class="point" r="4" cx="{x:.1f}" cy="{_y(y_scale, point["score"]):.1f}">'
            f"<title>{point['n_train']:,.0f} clips: {format_score(metric, point['score'])}</title>"
            "</circle>"
        )
        each = number(point.get("per_class"))
        text = f"{point['n_train']:,.0f}" + ("" if each is None else f" ({compact(each, 3)})")
        if x >= free:
            parts.append(_x_tick(x, text))
            free = x + 7.5 * len(text) + 8
    told = "; ".join(
        f"{p['n_train']:,.0f} clips {format_score(metric, p['score'])}" for p in points
    )
    return svg(f"{metric_name(metric)} by number of training clips", told + ".", parts)


def scatter_chart(points: Sequence[tuple[int, float, float]]) -> Markup:
    """Predicted against true values; a dot carries its item in `data-item`.

    Args:
        points: (item, true, predicted).
    """
    scale = Scale([value for _, true, predicted in points for value in (true, predicted)], count=7)
    side = 420
    inner = side - LEFT - RIGHT
    low, high = scale.low, scale.high

    def at(value: float) -> float:
        return inner * scale(value)

    parts = []
    for tick in scale.ticks:
        y = TOP + inner - at(tick)
        x = LEFT + at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{y + 4}">{format_tick("", tick)}</text>')
        parts.append(
            f'<text class="x" x="{x}" y="{TOP + inner + 18}">{format_tick("", tick)}</text>'
        )
    parts.append(
        f'<line class="ideal" x1="{LEFT + at(low)}" y1="{TOP + inner - at(low)}" '
        f'x2="{LEFT + at(high)}" y2="{TOP + inner - at(high)}"/>'
    )
    for item, true, predicted in points:
        parts.append(
            f'<circle class="hit" r="4" data-item="{item}" cx="{LEFT + at(true):.1f}" '
            f'cy="{TOP + inner - at(predicted):.1f}">'
            f"<title>true {format_tick('', true)}, predicted {format_tick('', predicted)}</title>"
            "</circle>"
        )
    parts.append(
        f'<text class="x" x="{LEFT + inner / 2}" y="{TOP + inner + 36}">true value</text>'
        f'<text class="x" transform="translate(14 {TOP + inner / 2}) rotate(-90)">predicted</text>'
    )
    told = f"{len(points):,} clips; on the diagonal the prediction is right."
    return svg("Predicted against true values", told, parts, side, TOP + inner + BOTTOM)


def _y(scale: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale(value)


def _y_axis(scale: Scale, metric: str) -> list[str]:
    parts = []
    for tick in scale.ticks:
        y = _y(scale, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="y" x="{LEFT - 8}" y="{y + 4:.1f}">{format_tick(metric, tick)}</text>'
        )
    return parts


def _x_tick(x: float, text: str) -> str:
    return f'<text class="x" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{escape(text)}</text>'


def _x_label(text: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text class="x label" x="{middle}" y="{HEIGHT - 6}">{escape(text)}</text>'


def svg(
    title: str, description: str, parts: Iterable[str], width: float = WIDTH, height: float = HEIGHT
) -> Markup:
    """A drawing of parts, with a title and a description for those who do not see it."""
    name = title.lower().replace(" ", "-")
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{escape(name)}-title {escape(name)}-told">'
        f'<title id="{escape(name)}-title">{escape(title)}</title>'
        f'<desc id="{escape(name)}-told">{escape(description)}</desc>{"".join(parts)}</svg>'
    )
