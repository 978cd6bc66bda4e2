"""The streaming grid stands where `datasets.windows` puts windows, however a recording is cut."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.datasets.windows import window_spans
from ossicle.detect.grid import lay_grid
from ossicle.errors import OssicleError

OVERLAPS = [0.0, 0.1, 0.5, 0.66, 0.9, 0.99]


def spans_in_stretches(grid, length, cuts, lookahead):
    """All windows, asked for stretch by stretch; the end is told once it is within sight."""
    found = []
    for begin, stop in zip([0, *cuts], [*cuts, max(length, *cuts, 1) + 1], strict=True):
        end = length if length <= stop + lookahead else None
        found += grid.between(begin, stop, end)
    return found


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, 20_000),
    window=st.sampled_from([0.1, 0.33, 0.5, 0.96, 1.0, 3.0]),
    overlap=st.sampled_from(OVERLAPS),
    cuts=st.lists(st.integers(1, 20_000), max_size=6, unique=True),
    extra=st.integers(0, 500),
)
def test_the_grid_is_that_of_whole_recordings(length, window, overlap, cuts, extra):
    rate = 1000
    grid = lay_grid(window, None, overlap, rate)
    unit = grid.scale // rate
    want = window_spans(Fraction(length, rate), window, float(Fraction(grid.stride, grid.scale)))
    got = spans_in_stretches(
        grid, length * unit, sorted(c * unit for c in cuts), grid.width + extra * unit
    )
    step = Fraction(repr(window)) * (1 - Fraction(repr(overlap)))
    if Fraction(repr(float(step))) == step:  # else the reference cannot be told the step exactly
        assert [(grid.seconds(a), grid.seconds(b)) for a, b in got] == want
    onsets = [a for a, _ in got]
    assert onsets == sorted(set(onsets))
    assert got[0][0] == 0 and max(b for _, b in got) == length * unit
    assert all(b <= length * unit for _, b in got)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_onsets_do_not_drift_in_a_day(overlap):
    grid = lay_grid(1.0, None, overlap, 16_000)
    day = 86_400 * grid.scale
    last = grid.between(day - 20 * grid.width, day, day)[-1]
    step = 1 - Fraction(repr(overlap))
    number = Fraction(last[0], grid.scale) / step
    assert last[1] == day
    assert number.denominator == 1 or last[0] == day - grid.width


def test_steps_and_overlaps_say_the_same():
    assert lay_grid(3.0, 0.3, None, 16_000) == lay_grid(3.0, None, 0.9, 16_000)
    grid = lay_grid(2.0, None, None, 16_000)
    assert grid.stride == grid.width


def test_samples_are_the_nearest():
    grid = lay_grid(0.0003, None, None, 16_000)
    for units in range(0, 5 * grid.width, grid.width):
        exact = Fraction(units, grid.scale) * 16_000
        assert abs(grid.samples(units, 16_000) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0.0, None, None), "a window must be a positive"),
        ((1.0, -1.0, None), "a step must be a positive"),
        ((1.0, 0.5, 0.5), "a step or an overlap"),
        ((1.0, None, 1.0), "an overlap is a share"),
        ((1.0, None, -0.1), "an overlap is a share"),
        ((1.0, 1e-9, None), "less than a sample"),
        ((float("nan"), None, None), "a window must be a positive"),
    ],
)
def test_senseless_windows_are_refused(arguments, message):
    with pytest.raises(OssicleError, match=message):
        lay_grid(*arguments, 16_000)
