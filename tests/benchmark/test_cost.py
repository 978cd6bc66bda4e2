"""Costs carried on from small sizes: exact laws, textbook intervals and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ossicle.benchmark.cost import (
    BYTES,
    CORE_SECONDS,
    Curve,
    Point,
    extrapolate,
    measure,
    prices,
    shown,
)
from ossicle.errors import DataError

SIZES = [10, 20, 20, 40, 80, 160]


def law(scale, exponent, sizes=SIZES, noise=0.0, random=None):
    random = random or np.random.default_rng(0)
    shift = np.exp(noise * random.standard_normal(len(sizes)))
    return [Point(n, scale * n**exponent * s) for n, s in zip(sizes, shift, strict=True)]


@pytest.mark.parametrize("given", [None, 1.7])
def test_an_exact_law_comes_back(given):
    told = extrapolate(law(0.3, 1.7), 1e6, exponent=given)
    for name in ("value", "low", "high"):
        assert told[name] == pytest.approx(0.3 * 1e6**1.7, rel=1e-9)
    for name in ("exponent", "exponent_low", "exponent_high"):
        assert told[name] == pytest.approx(1.7, rel=1e-9)
    assert told["measured_to"] == 160
    assert told["beyond"] == 1e6 / 160


def test_intervals_are_those_of_linear_regression():
    points, n = law(2.0, 1.3, noise=0.2), 5000.0
    x, y = np.log(np.array(points)).T
    line = stats.linregress(x, y)
    t = stats.t.ppf(0.95, len(x) - 2)
    told = extrapolate(points, n, confidence=0.9)
    assert told["exponent"] == pytest.approx(line.slope)
    assert told["exponent_low"] == pytest.approx(line.slope - t * line.stderr)
    assert told["exponent_high"] == pytest.approx(line.slope + t * line.stderr)
    assert told["value"] == pytest.approx(np.exp(line.intercept + line.slope * np.log(n)))
    # One further observation: s^2 (1 + x0' (X'X)^-1 x0).
    design = np.column_stack([np.ones_like(x), x])
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    here = np.array([1.0, np.log(n)])
    variance = left @ left / (len(x) - 2) * (1 + here @ np.linalg.inv(design.T @ design) @ here)
    assert told["high"] == pytest.approx(told["value"] * np.exp(t * np.sqrt(variance)))
    assert told["low"] == pytest.approx(told["value"] / np.exp(t * np.sqrt(variance)))


@pytest.mark.parametrize("given", [None, 1.0])
def test_intervals_hold_what_comes_as_often_as_they_say(given):
    random, held = np.random.default_rng(3), 0
    for _ in range(2000):
        told = extrapolate(law(1.0, 1.0, noise=0.3, random=random), 4000, exponent=given)
        comes = 4000 * np.exp(0.3 * random.standard_normal())
        held += told["low"] <= comes <= told["high"]
    low, high = stats.binom.interval(0.999, 2000, 0.95)
    assert low <= held <= high


def test_too_little_to_tell():
    with pytest.raises(DataError, match="2 measurements are too few"):
        extrapolate([Point(1, 1), Point(2, 2)], 10)
    with pytest.raises(DataError, match="too few"):
        extrapolate([Point(2, 1)] * 4, 10)
    with pytest.raises(DataError, match="too few"):
        extrapolate([], 10)
    assert extrapolate([Point(1, 1), Point(2, 2)], 10, exponent=1)["value"] == pytest.approx(10)
    for point in (Point(0, 1), Point(1, 0), Point(1, np.nan)):
        with pytest.raises(DataError, match="positive"):
            extrapolate([point, *law(1, 1)], 10)


def test_measured_warm_and_repeatedly():
    now, runs = [0.0], []

    def run(n):
        runs.append(n)
        now[0] += 7 * n if len(runs) == 1 else 2 * n  # the first time is slow

    points = measure(run, [3, 5], repeats=2, amount=lambda n: 10.0 * n, clock=lambda: now[0])
    assert points == [(30, 6), (30, 6), (50, 10), (50, 10)]
    assert runs == [3, 3, 3, 5, 5]


def test_processor_time_grows_with_the_work():
    matrix = np.random.default_rng(0).normal(size=(200, 200))
    points = measure(lambda n: [matrix @ matrix for _ in range(n)], [40, 160], repeats=1)
    assert 1.5 < points[1].value / points[0].value < 10


def test_prices():
    curves = [
        Curve("features", CORE_SECONDS, tuple(law(0.01, 1)), per_second=True, exponent=1.0),
        Curve("store", BYTES, tuple(law(2000, 1)), exponent=1.0),
        Curve("probe", CORE_SECONDS, tuple(law(1e-4, 2)), times=3, most=10_000),
    ]
    rows = prices(curves, [1e3, 1e6], clip_s=10)
    assert [(row["what"], row["clips"]) for row in rows] == [
        (what, clips) for clips in (1e3, 1e6) for what in ("features", "store", "probe")
    ]
    assert rows[3]["value"] == pytest.approx(0.01 * 1e7 / 3600)
    assert rows[3]["unit"] == "core hours"
    assert rows[3]["beyond"] == 1e7 / 160
    assert rows[4]["value"] == pytest.approx(2e9)
    assert rows[4]["unit"] == "bytes"
    assert rows[2]["value"] == pytest.approx(3 * 1e-4 * 1e6 / 3600)
    assert rows[5]["value"] is rows[5]["low"] is rows[5]["high"] is None
    assert [row["fitted"] for row in rows[:3]] == [False, False, True]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (257_600.0, BYTES, "258 kB"),
        (25.75e12, BYTES, "25.8 TB"),
        (3.2e18, BYTES, "3,200 PB"),
        (999.9, BYTES, "1 kB"),
        (12.0, BYTES, "12 bytes"),
        (0.4567, "core hours", "0.457 core hours"),
        (0.01, "core hours", "36 core seconds"),
        (123456.0, "core hours", "123,000 core hours"),
        (None, "core hours", "-"),
    ],
)
def test_shown(value, unit, text):
    assert shown(value, unit) == text
