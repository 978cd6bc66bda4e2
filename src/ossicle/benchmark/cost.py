"""What features and probes of very many clips cost, told from what few clips cost.

A cost is measured at several sizes and carried on as a power law, value = a n^b, fitted on
logarithms by least squares. The exponent is fitted too, or given where it follows from how the work
is done: clips are read one by one, so that features cost in proportion. Intervals are Student's, of
one further measurement at that size; they hold the scatter of what was measured, and the
uncertainty of the exponent, but not a law that stops holding beyond it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ossicle.errors import DataError

CORE_SECONDS, BYTES = "core seconds", "bytes"


class Point(NamedTuple):
    """A size, in clips or seconds of audio, and what it cost."""

    n: float
    value: float


@dataclass(frozen=True)
class Curve:
    """One cost at several sizes.

    Attributes:
        what: a few words.
        unit: CORE_SECONDS or BYTES.
        points: measured.
        per_second: sizes are seconds of audio, not clips.
        exponent: where it is known; None: fitted.
        times: that the work is done, such as passes over the clips.
        most: clips beyond which nobody would do it so; None: no limit.
    """

    what: str
    unit: str
    points: tuple[Point, ...]
    per_second: bool = False
    exponent: float | None = None
    times: float = 1.0
    most: float | None = None


def measure(
    run: Callable[[int], Any],
    sizes: Iterable[int],
    *,
    repeats: int = 2,
    amount: Callable[[int], float] = float,
    clock: Callable[[], float] = time.process_time,
) -> list[Point]:
    """Core seconds of ``run(n)`` at each size, each ``repeats`` times.

    Processor time, over all threads of this process: other work on the machine adds little to it.

    Args:
        run: the work; the first size is run once before, so that it starts warm.
        sizes: n.
        repeats: each is a point of its own.
        amount: n -> the size that the cost is told by.
        clock: in seconds.
    """
    points = []
    for number, n in enumerate(sizes):
        if number == 0:
            run(n)
        for _ in range(repeats):
            start = clock()
            run(n)
            points.append(Point(amount(n), clock() - start))
    return points


def extrapolate(
    points: Sequence[Point],
    n: float,
    *,
    exponent: float | None = None,
    confidence: float = 0.95,
) -> dict[str, float]:
    """The cost at size n by the power law through the points.

    Args:
        points: measured; repeats are points of their own.
        n: size.
        exponent: where it is known; None: fitted.
        confidence: of the intervals.

    Returns:
        value, low, high; exponent, exponent_low, exponent_high; measured_to (the largest size
        measured) and beyond (how many times that n is; at most 1 where it lies within).

    Raises:
        DataError: a size or cost is not positive, or there are too few points: two at least, with
            the exponent fitted three, of two sizes.
    """
    x, y = np.array([(p.n, p.value) for p in points], float).reshape(-1, 2).T
    free = 1 if exponent is not None else 2
    if len(x) <= free or (exponent is None and len(np.unique(x)) < 2):
        raise DataError(f"{len(x)} measurements are too few to tell the cost of other sizes")
    if min(x.min(), y.min(), n) <= 0 or not np.isfinite([*x, *y, n]).all():
        raise DataError("sizes and costs must be positive numbers")
    x, y = np.log(x), np.log(y)
    centre, spread = x.mean(), ((x - x.mean()) ** 2).sum()
    slope = ((x - centre) * y).sum() / spread if exponent is None else exponent
    residuals = y - y.mean() - slope * (x - centre)
    scale = float(np.sqrt((residuals**2).sum() / (len(x) - free)))
    t = float(stats.t.ppf((1 + confidence) / 2, len(x) - free))
    # What the exponent is unsure of grows with the distance from the sizes measured.
    far = (np.log(n) - centre) ** 2 / spread if exponent is None else 0.0
    margin = t * scale * np.sqrt(1 + 1 / len(x) + far)
    about = t * scale / np.sqrt(spread) if exponent is None else 0.0
    value = float(y.mean() + slope * (np.log(n) - centre))
    top = max(p.n for p in points)
    return {
        "value": float(np.exp(value)),
        "low": float(np.exp(value - margin)),
        "high": float(np.exp(value + margin)),
        "exponent": float(slope),
        "exponent_low": float(slope - about),
        "exponent_high": float(slope + about),
        "measured_to": float(top),
        "beyond": float(n / top),
    }


def prices(
    curves: Sequence[Curve], clips: Sequence[float], *, clip_s: float = 10.0
) -> list[dict[str, Any]]:
    """What each cost comes to for so many clips.

    Args:
        curves: measured.
        clips: numbers of them.
        clip_s: length of a clip (s), for what is told by seconds of audio.

    Returns:
        A row a number and curve: what, clips, value, low, high, unit ("core hours" or "bytes"),
        exponent with its interval, fitted (whether it was), measured_to, beyond; value, low and
        high are None beyond the curve's ``most``.
    """
    rows = []
    for n in clips:
        for curve in curves:
            size = n * clip_s if curve.per_second else n
            told: dict[str, Any] = extrapolate(curve.points, size, exponent=curve.exponent)
            share = curve.times / (3600 if curve.unit == CORE_SECONDS else 1)
            for name in ("value", "low", "high"):
                too_many = curve.most is not None and n > curve.most
                told[name] = None if too_many else told[name] * share
            unit = "core hours" if curve.unit == CORE_SECONDS else curve.unit
            about = {"what": curve.what, "clips": n, "unit": unit}
            rows.append({**about, **told, "fitted": curve.exponent is None})
    return rows


def shown(value: float | None, unit: str) -> str:
    """A cost in three digits: "46 core seconds", "3.2 core hours", "12 TB"; "-" for None."""
    if value is None:
        return "-"
    if unit == BYTES:
        # What is rounded to 1,000 of one unit is 1 of the next.
        power = int(np.clip(np.log10(max(value, 1) * 1.0005) // 3, 0, 5))
        value, unit = value / 1000**power, ("bytes", "kB", "MB", "GB", "TB", "PB")[power]
    elif value < 0.1 and unit == "core hours":
        value, unit = 3600 * value, CORE_SECONDS
    digits = f"{value:.3g}"
    return f"{float(digits):,.0f} {unit}" if "e" in digits or value >= 100 else f"{digits} {unit}"
