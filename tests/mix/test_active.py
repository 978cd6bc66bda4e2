"""What sounds in a clip: edges to a millisecond, pauses, what is left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.mix import active_stretches

RATE = 16000


def clip(*bursts: tuple[float, float, float], length_s: float = 3.0, floor: float = 0.0, seed=0):
    """Noise bursts (onset s, offset s, amplitude) over a floor of noise."""
    draw = np.random.default_rng(seed)
    samples = floor * draw.standard_normal(round(length_s * RATE))
    for onset, offset, amplitude in bursts:
        a, b = round(onset * RATE), round(offset * RATE)
        samples[a:b] += amplitude * draw.standard_normal(b - a)
    return samples


def seconds(stretches):
    return [(a / RATE, b / RATE) for a, b in stretches]


@pytest.mark.parametrize("floor", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_edges_are_true_to_a_millisecond(floor, rate):
    draw = np.random.default_rng(1)
    samples = floor * draw.standard_normal(2 * rate)
    a, b = round(0.4321 * rate), round(1.3579 * rate)
    samples[a:b] += 0.3 * draw.standard_normal(b - a)
    ((start, stop),) = active_stretches(samples, rate)
    assert abs(start - a) <= rate / 1000
    assert abs(stop - b) <= rate / 1000


def test_pauses_cut_a_clip_and_short_ones_do_not():
    samples = clip((0.2, 0.5, 0.3), (0.8, 1.1, 0.3), (2.0, 2.4, 0.3))
    two = seconds(active_stretches(samples, RATE, gap_s=0.5))
    assert np.allclose(two, [(0.2, 1.1), (2.0, 2.4)], atol=1e-3)
    three = seconds(active_stretches(samples, RATE, gap_s=0.2))
    assert np.allclose(three, [(0.2, 0.5), (0.8, 1.1), (2.0, 2.4)], atol=1e-3)
    one = seconds(active_stretches(samples, RATE, gap_s=None))
    assert np.allclose(one, [(0.2, 2.4)], atol=1e-3)


def test_threshold_counts_from_the_loudest():
    samples = clip((0.2, 0.6, 0.3), (1.5, 1.9, 0.3 * 10 ** (-25 / 20)))
    # 25 dB below: louder than the threshold, but never near the loudest.
    assert len(active_stretches(samples, RATE, threshold_db=30)) == 1
    # Half of 60 is 30: the second burst is now an event of its own.
    assert len(active_stretches(samples, RATE, threshold_db=60)) == 2
    # Close to the loud one it belongs to it, as long as it is above the threshold.
    near = clip((0.2, 0.6, 0.3), (0.7, 1.0, 0.3 * 10 ** (-25 / 20)))
    ((_, stop),) = seconds(active_stretches(near, RATE, threshold_db=30))
    assert stop == pytest.approx(1.0, abs=2e-3)
    ((_, stop),) = seconds(active_stretches(near, RATE, threshold_db=20))
    assert stop == pytest.approx(0.6, abs=2e-3)


def test_short_ones_are_left_out():
    samples = clip((0.2, 0.25, 0.3), (1.5, 1.9, 0.3))
    assert len(active_stretches(samples, RATE, min_s=0.1)) == 1
    assert len(active_stretches(samples, RATE, min_s=0.04)) == 2


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.zeros(0), np.full(RATE, 1e-6)])
def test_silence_has_none(samples):
    assert active_stretches(samples, RATE) == []


def test_steady_sound_is_one_stretch_from_end_to_end():
    samples = 0.1 * np.random.default_rng(0).standard_normal(RATE * 2 + 7)
    assert active_stretches(samples, RATE) == [(0, RATE * 2 + 7)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.15, 0.6), st.floats(0.05, 1.2), st.floats(0.1, 1.0)),
        min_size=1,
        max_size=5,
    ),
    st.floats(1e-3, 10.0),
    st.floats(0.01, 1.0),
)
def test_properties(bursts, factor, gap_s):
    at, placed = 0.1, []
    for length, pause, amplitude in bursts:
        placed.append((at, at + length, amplitude))
        at += length + pause
    samples = clip(*placed, length_s=at + 0.1)
    found = active_stretches(samples, RATE, gap_s=gap_s)
    # In order, apart by more than the pause allowed, within the clip.
    assert all(0 <= a < b <= len(samples) for a, b in found)
    pauses = [(c - b) / RATE for (_, b), (c, _) in pairwise(found)]
    assert all(pause > gap_s - 2e-3 for pause in pauses)
    # The level of the recording is no matter.
    if factor * 0.1 > 1e-3:
        assert active_stretches(samples * factor, RATE, gap_s=gap_s) == found
    # Every burst is as loud as the others to 20 dB or less, so no sound lies outside.
    inside = np.zeros(len(samples), bool)
    for a, b in found:
        inside[a:b] = True
    loud = [p for p in placed if p[2] > 0.3 * max(q[2] for q in placed)]
    for onset, offset, _ in loud:
        middle = samples[round(onset * RATE) + 80 : round(offset * RATE) - 80]
        covered = inside[round(onset * RATE) + 80 : round(offset * RATE) - 80]
        assert np.sum(middle[~covered] ** 2) == 0 or covered.all()
