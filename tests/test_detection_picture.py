"""The picture of detections: what each pixel column shows, at any length, whatever labels hold."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ossicle.errors import AudioError, DataError
from ossicle.events import FrameScores, event_table
from ossicle.report.detection_picture import COLOURS, REFERENCE, draw_detections, lanes
from ossicle.report.detection_spectrogram import columns_of, read_spectrogram, shades, webp
from ossicle.report.detection_tracks import clock, envelope, runs, time_ticks

RATE = 8000
TIMES = st.integers(0, 200).map(lambda n: n / 8)


def events(*rows: tuple[float, float, str], score: float = 0.9) -> pd.DataFrame:
    return event_table(
        [{"file": "a.wav", "onset": a, "offset": b, "label": c, "score": score} for a, b, c in rows]
    )


def tone(hz: float, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of silence with a tone of 1 kHz from 4 s to 6 s."""
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    samples = np.zeros(10 * RATE, np.float32)
    samples[4 * RATE : 6 * RATE] = tone(1000, 2)
    soundfile.write(path, samples, RATE)
    return path


# The spectrogram ---------------------------------------------------------------------------------


def test_columns_are_mean_and_maximum_of_their_frames() -> None:
    """Against the definition, frame by frame, in numpy's float64."""
    rng = np.random.default_rng(0)
    samples, width = rng.standard_normal(5000), 7
    n_fft, hop = 512, 256  # 45 ms at 8 kHz is 360 samples, the next power of two
    padded = np.concatenate([np.zeros(n_fft // 2), samples, np.zeros(n_fft)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power: dict[int, list[np.ndarray]] = {}
    for centre in range(0, 5000, hop):
        frame = padded[centre : centre + n_fft] * window
        power.setdefault(centre * width // 5000, []).append(np.abs(np.fft.rfft(frame)) ** 2)
    made = columns_of([samples], RATE, 5000 / RATE, width)
    assert made.decibels.shape == (128, width)
    from ossicle.frontend.mel import mel_filters

    filters = mel_filters(sample_rate=RATE, n_fft=n_fft, n_mels=128)
    full = filters.any(axis=1)
    for column, some in power.items():
        level = np.sqrt(np.mean(some, 0) * np.max(some, 0))
        wanted = 10 * np.log10(np.maximum(filters @ level / n_fft, 1e-10))
        np.testing.assert_allclose(made.decibels[full, column], wanted[full], atol=2e-3)
    np.testing.assert_allclose(made.edges, np.linspace(0, 5000 / RATE, width + 1))


@pytest.mark.parametrize(
    "cuts", [[1], [100, 101, 300_000], [131_072], list(range(7, 400_000, 9970))]
)
def test_how_sound_is_cut_into_blocks_changes_nothing(cuts: list[int]) -> None:
    samples = np.random.default_rng(1).standard_normal(400_000).astype("f4")
    whole = columns_of([samples], RATE, 50, 9)
    parts = columns_of(np.split(samples, cuts), RATE, 50, 9)
    np.testing.assert_array_equal(whole.decibels, parts.decibels)


def test_a_tone_stands_at_its_time_and_frequency(recording: Path) -> None:
    made = read_spectrogram(recording, columns=1000)
    middle = made.decibels[:, 500]
    assert made.frequencies[middle.argmax()] == pytest.approx(1000, abs=20)
    level = made.decibels.max(axis=0)
    # Half of the power of a tone's onset is there when the frame's centre is.
    loud = np.flatnonzero(level > middle.max() - 6.5)
    assert abs(loud[0] - 400) <= 1 and abs(loud[-1] - 599) <= 1
    part = read_spectrogram(recording, 3.0, 5.0, columns=200)
    np.testing.assert_allclose(part.edges[[0, -1]], [3.0, 5.0])
    assert abs(np.flatnonzero(part.decibels.max(axis=0) > middle.max() - 6.5)[0] - 100) <= 1


def test_a_stretch_of_a_long_file_is_the_same_read_whole_or_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    rng = np.random.default_rng(2)
    soundfile.write(path, 0.1 * rng.standard_normal(100 * RATE), RATE)
    made = read_spectrogram(path, 5.0, 85.0, columns=64)  # longer than what is read at once
    samples, _ = soundfile.read(path, dtype="float32")
    wanted = columns_of([samples[5 * RATE : 85 * RATE]], RATE, 80.0, 64)
    np.testing.assert_array_equal(made.decibels, wanted.decibels)
    np.testing.assert_allclose(made.edges, wanted.edges + 5)


def test_memory_does_not_grow_with_length() -> None:
    def peak(seconds: int) -> int:
        noise = np.random.default_rng(3).standard_normal(10 * RATE).astype("f4")

        def blocks() -> Iterator[np.ndarray]:
            for _ in range(seconds // 10):
                yield noise

        tracemalloc.start()
        made = columns_of(blocks(), RATE, seconds, 300)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.decibels.min() > -60  # every column was filled
        return most

    assert peak(7200) < 1.05 * peak(600)


def test_very_short_and_silent_sound() -> None:
    one = columns_of([np.ones(1, "f4")], RATE, 1 / RATE, 100)
    assert one.decibels.shape[1] == 1
    silent = columns_of([np.zeros(RATE, "f4")], RATE, 1.0, 40)
    assert not shades(silent.decibels).any()
    assert Image.open(__import__("io").BytesIO(webp(silent, (40, 20), 5000))).size == (40, 20)
    short = columns_of([np.ones(RATE, "f4")], RATE, 2.0, 40)  # less came than was said
    assert (short.decibels[:, 25:] == -100).all()


def test_shades_keep_order_and_range() -> None:
    decibels = np.array([[-200.0, -60, -30, -10, 0]])
    made = shades(decibels)[0]
    assert made[0] == 0 and made[-1] == 1 and (np.diff(made) >= 0).all()


def test_a_file_that_ends_before_the_stretch(recording: Path) -> None:
    with pytest.raises(AudioError, match="lasts 10 s"):
        read_spectrogram(recording, 11.0, columns=10)


# Columns of time ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TIMES, TIMES), max_size=8), st.sampled_from([1, 5, 16, 40]))
def test_runs_cover_the_columns_that_events_touch(pairs: list[Any], width: int) -> None:
    """Against a raster: a column is on where an event shares time with it."""
    spans = [(min(p), max(p)) for p in pairs]
    start, stop = 2.0, 22.0
    wanted = np.zeros(width, bool)
    for a, b in spans:
        if b < start or a >= stop:
            continue
        for column in range(width):
            left = start + (stop - start) * column / width
            right = start + (stop - start) * (column + 1) / width
            wanted[column] |= a < right - 1e-9 and b > left + 1e-9
        # One that lasts no time, or ends where the axis begins, takes its column.
        if a == b or b == start:
            wanted[int(max(0.0, (a - start) / (stop - start) * width + 1e-9))] = True
    made = np.zeros(width, bool)
    found = runs([a for a, _ in spans], [b for _, b in spans], start, stop, width)
    for first, end in found:
        assert 0 <= first < end <= width and not made[first:end].any()
        made[first:end] = True
    np.testing.assert_array_equal(made, wanted)


def test_events_that_only_touch_stay_two() -> None:
    np.testing.assert_array_equal(runs([0, 1], [1, 2], 0, 4, 4), [[0, 1], [1, 2]])
    np.testing.assert_array_equal(runs([0, 0.5], [1.2, 2], 0, 4, 4), [[0, 2]])
    assert runs([], [], 0, 4, 4).shape == (0, 2)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_envelope_is_the_highest_score_that_touches(frames: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Frames on eighths of a second, unequal, not all over the axis.
    edges = np.cumsum(rng.integers(1, 9, frames + 1)) / 8
    scores = rng.random((2, frames), np.float32)
    made = envelope(FrameScores(scores, edges), 1.0, 5.0, width)
    for column in range(width):
        left, right = 1 + 4 * column / width, 1 + 4 * (column + 1) / width
        on = [t for t in range(frames) if edges[t] < right - 1e-6 and edges[t + 1] > left + 1e-6]
        wanted = scores[:, on].max(axis=1) if on else np.full(2, np.nan, np.float32)
        np.testing.assert_array_equal(made[:, column], wanted)


@pytest.mark.parametrize(
    ("seconds", "step", "longest", "wanted"),
    [
        (12, 1, None, "12 s"),
        (12.34, 0.1, None, "12.3 s"),
        (0.25, 0.05, 20, "0.25 s"),
        (5, 1, 100, "0:05"),
        (65.5, 0.5, 100, "1:05.5"),
        (59.9996, 1, 100, "1:00"),
        (3, 1, 3600, "0:00:03"),
        (3723, 1, None, "1:02:03"),
        (86400, 3600, None, "24:00:00"),
    ],
)
def test_clock(seconds: float, step: float, longest: float | None, wanted: str) -> None:
    assert clock(seconds, step, longest) == wanted


@pytest.mark.parametrize("length", [0.02, 0.7, 5, 33, 600, 7200, 86400, 40 * 86400])
def test_ticks_are_round_and_few(length: float) -> None:
    start = 0.37 * length
    ticks = time_ticks(start, start + length, 10)
    times = np.array([t for t, _ in ticks])
    assert 2 <= len(ticks) <= 11 and len({text for _, text in ticks}) == len(ticks)
    assert (times >= start - 1e-9).all() and (times <= start + length + 1e-9).all()
    step = np.diff(times)
    np.testing.assert_allclose(step, step[0])
    np.testing.assert_allclose(times / step[0], np.round(times / step[0]), atol=1e-6)


# The picture -------------------------------------------------------------------------------------


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def drawn(image: np.ndarray, text: str, above: int) -> list[int]:
    """The columns that hold a colour in the lanes, above the legend."""
    return np.flatnonzero((image[:above] == colour(text)).all(axis=2).any(axis=0)).tolist()


def axis_of(image: np.ndarray) -> tuple[int, int]:
    """(first column, number of columns): where the sound is drawn, below the title's 30 rows."""
    sound = np.flatnonzero((image[30:254] != 255).any(axis=2).all(axis=0))
    return int(sound[0]), int(sound[-1] - sound[0] + 1)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("with_scores", [False, True])
def test_events_stand_in_their_columns(
    recording: Path, tmp_path: Path, with_reference: bool, with_scores: bool
) -> None:
    found = events((2.0, 3.5, "bird"), (4.0, 4.0, "bird"), (7.25, 9.0, "frog"))
    true = events((1.0, 2.5, "frog")) if with_reference else None
    frames = FrameScores(np.zeros((3, 20), "f4"), np.linspace(0, 10, 21)) if with_scores else None
    out = draw_detections(
        recording, found, classes=["bird", "frog", "rain"], out=tmp_path / "x" / "a.png",
        reference=true, frames=frames, width_px=900,
    )  # fmt: skip
    image = pixels(out)
    assert image.shape[1] == 900
    left, width = axis_of(image)
    above = len(image) - 40  # the legend lies below

    def wanted(*spans: tuple[float, float]) -> list[int]:
        columns = set()
        for a, b in spans:
            first = int(np.floor(a / 10 * width + 1e-6))
            columns |= set(range(first, max(first + 1, int(np.ceil(b / 10 * width - 1e-6)))))
        return sorted(left + c for c in columns)

    # The curve has its lane's colour too: bars are looked for in the rows that it does not reach.
    bird = drawn(image, COLOURS[0], above)
    if with_scores:
        rows = np.flatnonzero((image[:above] == colour(COLOURS[0])).all(axis=2).any(axis=1))
        bird = drawn(image[rows[-3] : rows[-1] + 1], COLOURS[0], above)
    assert bird == wanted((2, 3.5), (4, 4))
    if not with_scores:
        assert drawn(image, COLOURS[1], above) == wanted((7.25, 9))
    assert drawn(image, REFERENCE, above) == (wanted((1, 2.5)) if with_reference else [])


def test_the_sound_stands_above_its_events(recording: Path, tmp_path: Path) -> None:
    out = draw_detections(
        recording, events((4.0, 6.0, "tone")), classes=["tone"], out=tmp_path / "a.png"
    )
    image = pixels(out)
    left, width = axis_of(image)
    sound = image[30:254, left : left + width]
    # cividis rises from blue to yellow: the tone is the only yellow.
    yellow = np.flatnonzero(((sound[..., 0] - sound[..., 2]) > 60).any(axis=0))
    bar = np.array(drawn(image, COLOURS[0], len(image) - 40)) - left
    assert abs(yellow[0] - bar[0]) <= 3 and abs(yellow[-1] - bar[-1]) <= 3


def test_nothing_global_changes(recording: Path, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    backend = matplotlib.get_backend(auto_select=False)
    loaded = "matplotlib.pyplot" in sys.modules
    draw_detections(recording, events(), classes=["a"], out=tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend(auto_select=False) == backend
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("n", [0, 1, 30])
@pytest.mark.parametrize("width", [400, 1400])
def test_any_number_of_classes_with_any_names(
    recording: Path, tmp_path: Path, n: int, width: int
) -> None:
    odd = ["$x_1$", "a\nb\u2028c", "<b>", "鳥", "\u202egnp", "x" * 300, "$\\frac{$", "", "\x00"]
    names = [f"{odd[i % len(odd)]}{i}" for i in range(n)]
    frames = FrameScores(np.random.default_rng(0).random((n, 9), np.float32), np.arange(10) * 1.1)
    out = draw_detections(
        recording, events(*((i / 4, i / 4 + 1, name) for i, name in enumerate(names))),
        classes=names, frames=frames if n else None, thresholds=0.5, out=tmp_path / "a.png",
        width_px=width, title="$\\frac{" + "ü" * 500,
    )  # fmt: skip
    image = pixels(out)
    assert image.shape[1] == width
    # A lane is higher than a line of its label, so that labels do not meet.
    assert len(image) >= 224 + 20 * n
    assert axis_of(image)[1] > 0.6 * width


def test_the_same_picture_twice(recording: Path, tmp_path: Path) -> None:
    some = events((1, 2, "a"), (3, 4, "b"))
    made = [
        draw_detections(recording, some, classes=["a"], out=tmp_path / f"{i}.png") for i in (0, 1)
    ]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_of_many_classes_those_with_events_are_drawn() -> None:
    names = [f"{i:02d}" for i in range(50)]
    some = events((1, 2, "07"), (3, 4, "41"), (30, 31, "12"), (3, 4, "strange"))
    assert lanes(names, [some], 0, 10) == ["07", "41", "strange"]
    assert lanes(names, [some.iloc[:0]], 0, 10) == names[:30]
    assert lanes(names[:5], [some], 0, 10) == [*names[:5], "07", "41", "strange"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "a.jpg"}, "written as .png"),
        ({"width_px": 10}, "400 to 8000"),
        ({"onset_s": 10.0}, "lasts 10"),
        ({"onset_s": 5.0, "offset_s": 5.0}, "no stretch"),
        ({"frames": FrameScores(np.zeros((2, 3)), np.arange(4.0))}, "2, 3"),
    ],
)
def test_what_cannot_be_drawn(
    recording: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    out = tmp_path / change.pop("out", "a.png")
    with pytest.raises(DataError, match=message):
        draw_detections(recording, events(), classes=["a"], out=out, **change)
    assert not out.exists()
