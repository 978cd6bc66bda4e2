"""Cutting and filling of clips: nothing is lost, nothing is used twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.backbones.clip_policy import ClipPolicy, Patches


@given(
    n_samples=st.integers(0, 5_000),
    window=st.integers(1, 400),
    sample_rate=st.sampled_from([1, 10, 16_000]),
)
def test_segments_use_every_sample_once(n_samples, window, sample_rate):
    policy = ClipPolicy(window / sample_rate, 0.0)
    segments = policy.segments(n_samples, sample_rate)
    joined = [i for start, end in segments for i in range(start, end)]
    assert joined == list(range(n_samples))
    lengths = [end - start for start, end in segments]
    assert max(lengths) <= window
    if len(segments) > 1:
        assert min(lengths) >= window / 2 - 0.5  # whole samples
    # As few as can be: one more would never be needed.
    assert len(segments) == max(1, -(-n_samples // window))


@given(
    samples=st.lists(st.floats(-1, 1, width=32), max_size=50),
    least=st.integers(0, 120),
    fill=st.sampled_from(["none", "repeat"]),
)
def test_filled_keeps_the_clip_and_reaches_the_least(samples, least, fill):
    clip = np.array(samples, np.float32)
    filled = ClipPolicy(100.0, least / 10, fill).filled(clip, 10)
    assert len(filled) == max(len(clip), least)
    assert np.array_equal(filled[: len(clip)], clip)
    for i in range(len(clip), len(filled)):
        repeated = fill == "repeat" and len(clip)
        assert filled[i] == (clip[i % len(clip)] if repeated else 0)


def test_a_window_below_one_sample_still_ends():
    assert ClipPolicy(1e-9, 0.0).segments(3, 10) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("fill, word", [("none", "zeros"), ("repeat", "repeated")])
def test_description_names_the_numbers(fill, word):
    text = ClipPolicy(10.0, 0.975, fill).describe(16_000)
    for part in ("16000 Hz", "10 s", "0.975 s", word):
        assert part in text


@given(
    n_samples=st.integers(0, 300),
    window=st.integers(1, 60),
    hop=st.integers(1, 60),
    last=st.sampled_from(["zeros", "overlap"]),
)
def test_patches_hear_every_sample_and_know_how_to_end(n_samples, window, hop, last):
    hop = min(hop, window)
    clip = np.arange(1, n_samples + 1, dtype=np.float32)
    patches = Patches(window / 10, hop / 10, last).cut(clip, 10)
    assert {len(patch) for patch in patches} == {window}
    assert set(np.concatenate(patches)) - {0} == set(clip)
    for number, patch in enumerate(patches[:-1]):
        assert np.array_equal(patch, clip[number * hop : number * hop + window])
    # No patch more than it takes to reach the end.
    assert len(patches) == max(1, 1 + -(-(n_samples - window) // hop))
    end = patches[-1]
    if last == "zeros":
        assert np.array_equal(end, np.pad(clip[(len(patches) - 1) * hop :], (0, window))[:window])
    elif n_samples >= window:
        assert np.array_equal(end, clip[n_samples - window :])
    else:
        assert np.array_equal(end, [clip[i % n_samples] if n_samples else 0 for i in range(window)])
