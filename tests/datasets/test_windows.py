"""Where windows stand: against a slow definition in milliseconds, and what must always hold."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.datasets.windows import window_clips, window_spans
from ossicle.errors import DataError

MS = st.integers(1, 400)


def slowly(length: int, window: int, step: int) -> list[tuple[int, int]]:
    """The definition, one window after the other, in whole milliseconds."""
    if length <= window:
        return [(0, length)] if length else []
    spans, onset = [], 0
    while onset + window <= length:
        spans.append((onset, onset + window))
        onset += step
    if spans[-1][1] < length:
        left = length - onset
        spans.append((onset, length) if 2 * left >= window else (length - window, length))
    return spans


@given(st.integers(0, 3000), MS, MS)
@example(2750, 1000, 500)
@example(1500, 1000, 1000)
@example(1499, 1000, 1000)
def test_windows_are_those_of_the_definition(length, window, step):
    spans = window_spans(Fraction(length, 1000), window / 1000, step / 1000)
    # Each to the last bit: k / 1000 is the float nearest to k milliseconds.
    assert spans == [(a / 1000, b / 1000) for a, b in slowly(length, window, step)]


@given(st.integers(1, 3000), MS, MS, st.integers(0, 1000))
def test_windows_of_a_part_are_those_of_its_beginning_moved(length, window, step, start):
    spans = window_spans(
        Fraction(start + length, 1000), window / 1000, step / 1000, onset_s=start / 1000
    )
    expected = [((a + start) / 1000, (b + start) / 1000) for a, b in slowly(length, window, step)]
    assert spans == expected


@given(
    st.integers(1, 10**6),
    st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    st.floats(0.02, 30),
    st.floats(0.02, 30),
)
def test_what_always_holds(n_frames, rate, window, step):
    end = Fraction(n_frames, rate)
    spans = window_spans(end, window, step)
    onsets = [a for a, _ in spans]
    assert onsets == sorted(onsets)
    assert len(set(spans)) == len(spans)
    assert spans[0][0] == 0
    if step <= window:
        assert spans[-1][1] == n_frames / rate
    for a, b in spans:
        assert 0 <= a < b <= n_frames / rate
        assert b - a <= window * (1 + 1e-9)
        assert round(b * rate) <= n_frames
    if len(spans) > 1:
        assert all(b - a >= window / 2 * (1 - 1e-9) for a, b in spans)


def test_no_error_is_gathered_over_a_day():
    """0.1 added up a million times is off by microseconds; here each onset is right."""
    day = 100_000
    spans = window_spans(day, 1.0, 0.1)
    numbers = [0, 3, 7, 12_345, 987_654, len(spans) - 1]
    assert [spans[i][0] for i in numbers] == [float(f"{i // 10}.{i % 10}") for i in numbers]
    counted = np.cumsum(np.full(len(spans), 0.1)) - 0.1
    assert abs(counted[-1] - spans[-1][0]) > 1e-6


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_lengths_that_cannot_be_meant(value):
    with pytest.raises(DataError, match="a window must be a positive number of seconds"):
        window_spans(10, value)
    with pytest.raises(DataError, match="a step must be a positive number of seconds"):
        window_spans(10, 1.0, value)


def tone(path, seconds: float, rate: int = 8000) -> None:
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) / 9), rate)


def spans_of(clips: Clips) -> list[tuple[str, float, float]]:
    rows = clips.table[["path", "onset", "offset"]].itertuples(index=False)
    return [(path.rsplit("/", 1)[-1], onset, offset) for path, onset, offset in rows]


def test_each_recording_has_its_own_windows(tmp_path):
    tone(tmp_path / "a.wav", 2.6)
    tone(tmp_path / "b.wav", 0.3)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    seen = []
    cut = window_clips(
        unlabelled_clips([tmp_path]), 1.0, 0.5, progress=lambda *done: seen.append(done)
    )
    assert spans_of(cut)[:-1] == [
        *(("a.wav", i / 2, i / 2 + 1) for i in range(4)),
        ("a.wav", 2.0, 2.6),
        ("b.wav", 0.0, 0.3),
    ]
    name, onset, offset = spans_of(cut)[-1]
    assert name == "broken.wav"
    assert math.isnan(onset) and math.isnan(offset)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_parts_are_cut_within_themselves(tmp_path):
    tone(tmp_path / "a.wav", 4.0)
    (tmp_path / "list.csv").write_text(
        "path,onset,offset\na.wav,0.25,2.25\na.wav,3,\na.wav,3,99\na.wav,5,6\n"
    )
    cut = window_clips(unlabelled_clips([tmp_path / "list.csv"]), 1.0)
    assert [span[1:] for span in spans_of(cut)] == [
        (0.25, 1.25),
        (1.25, 2.25),
        (3.0, 4.0),
        (3.0, 4.0),
        # Past the end: reading it tells so.
        (5.0, 6.0),
    ]


def test_windows_keep_labels_and_groups(tmp_path):
    for name in ("dog/1.wav", "dog/2.wav", "rain/3.wav", "rain/4.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tone(tmp_path / name, 2.0)
    clips = read_clips(tmp_path, groups="none")
    cut = window_clips(clips, 1.0)
    assert cut.classes == clips.classes
    assert list(cut.table["label"]) == ["dog"] * 4 + ["rain"] * 4
    assert list(cut.groups()) == [g for g in clips.groups() for _ in range(2)]
    assert len(clips.table) == 4


def test_lengths_are_those_of_what_is_decoded(tmp_path):
    """Two MP3 files joined: the header of the first tells half of it (see ossicle.headers)."""
    rate = 16_000
    soundfile.write(tmp_path / "one.mp3", 0.1 * np.sin(np.arange(3 * rate) / 9), rate, format="MP3")
    one = (tmp_path / "one.mp3").read_bytes()
    (tmp_path / "two.mp3").write_bytes(one + one)
    told = soundfile.info(tmp_path / "two.mp3").duration
    cut = window_clips(unlabelled_clips([tmp_path / "two.mp3"]), 1.0)
    assert told < 4
    assert 6 <= cut.table["offset"].iloc[-1] < 6.5
