"""Parts of a recording in one pass: what hand-cut files give, in flat memory and linear time."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
import soundfile

from ossicle.audio import load
from ossicle.datasets import parts
from ossicle.datasets.parts import dense, read_parts
from ossicle.datasets.windows import window_spans
from ossicle.errors import AudioError

RATE = 22_050
KINDS = {"wav": "FLOAT", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


def noise(seconds: float, channels: int = 2) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.uniform(-0.3, 0.3, (round(seconds * RATE), channels)).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def recording(request, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("parts") / f"night.{request.param}"
    soundfile.write(path, noise(13.3), RATE, KINDS[request.param])
    return str(path)


@pytest.mark.parametrize(("window", "step"), [(1.0, 0.5), (0.7, 0.7), (7.3, 0.31), (0.25, 1.0)])
def test_the_numbers_are_those_of_files_cut_by_hand(recording, tmp_path, window, step):
    whole = load(recording, mono=False).samples
    spans = window_spans(whole.shape[1] / RATE, window, step)[::3]
    got = list(read_parts(recording, spans, 16_000))
    assert len(got) == len(spans)
    for (onset, offset), samples in zip(spans, got, strict=True):
        cut = tmp_path / "cut.wav"
        frames = whole[:, round(onset * RATE) : round(offset * RATE)]
        soundfile.write(cut, frames.T, RATE, "FLOAT")
        np.testing.assert_array_equal(samples, load(cut, sample_rate=16_000).samples[0])


def test_windows_longer_than_a_decoder_s_block(recording):
    """Past 2^18 frames `load` resamples in several blocks: the joints must not be heard."""
    path = recording.rsplit(".", 1)[0] + "-long.wav"
    soundfile.write(path, noise(26.0, 1), RATE)
    spans = [(0.0, 13.5), (0.5, 14.0), (12.4, 26.0)]
    for (onset, offset), samples in zip(spans, read_parts(path, spans, 16_000), strict=True):
        expected = load(path, sample_rate=16_000, onset=onset, offset=offset).samples[0]
        np.testing.assert_array_equal(samples, expected)


def reasons(path, spans, **options) -> list[str]:
    """What is wrong with each part, one way and the other; "" where it is sound."""
    told = []
    for (onset, offset), part in zip(spans, read_parts(path, spans, 8000, **options), strict=True):
        try:
            alone = load(path, sample_rate=8000, onset=onset, offset=offset, **options).samples[0]
        except AudioError as error:
            assert isinstance(part, AudioError)
            assert part.reason.startswith(error.reason)
            told.append(part.reason)
        else:
            np.testing.assert_array_equal(part, alone)
            told.append("")
    return told


def test_errors_are_those_of_each_part(tmp_path):
    samples = noise(30.0, 1)
    samples[2 * RATE : 4 * RATE] = 0
    samples[25 * RATE + 5] = np.nan
    path = str(tmp_path / "a.wav")
    soundfile.write(path, samples, RATE, "FLOAT")
    spans = [(float(i), i + 1.0) for i in range(32)]
    told = reasons(path, spans, allow_silent=False)
    # The pass ends at the NaN's block, and what comes after is read all the same.
    assert [i for i, reason in enumerate(told) if reason] == [2, 3, 25, 30, 31]
    assert told[2] == "is silent (2.0 to 3.0 s)"
    assert "NaN" in told[25]
    assert "no samples at or after" in told[31]
    assert "less than" in reasons(path, [(0.0, 1.0), (1.0, 1.01)], min_duration_s=0.02)[1]
    assert "no segment" in reasons(path, [(1.0, 1.0), (1.0, 2.0)])[0]
    gone = list(read_parts(str(tmp_path / "gone.wav"), spans[:2], 8000))
    assert all("does not exist" in part.reason for part in gone)


def test_a_recording_that_is_cut_short(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(30.0, 1), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    told = reasons(str(path), [(float(i), i + 1.0) for i in range(30)])
    assert told[0] == told[10] == ""
    assert "truncated" in told[25]


def test_which_parts_are_read_in_one_pass():
    grid = window_spans(1000, 1.0, 0.5)
    assert dense(grid) == grid
    assert dense(grid[:1]) is None
    assert dense(grid[::-1]) is None
    assert dense([(0.0, 1.0), (None, 2.0), (1.0, 2.0)]) is None
    # Two moments of a day: seeking is quicker.
    assert dense([(10.0, 11.0), (80_000.0, 80_001.0)]) is None
    assert dense([(10.0, 11.0), (11.0, 12.0)]) == [(10.0, 11.0), (11.0, 12.0)]


def test_memory_is_flat_and_the_file_is_opened_once(tmp_path, monkeypatch):
    opened = []
    real = parts.stream
    monkeypatch.setattr(parts, "stream", lambda *a, **k: opened.append(a) or real(*a, **k))
    monkeypatch.setattr(parts, "load", None)
    peaks = {}
    for seconds in (60, 600):
        path = str(tmp_path / f"{seconds}.wav")
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(seconds // 10):
                file.write(0.1 * np.random.default_rng(0).normal(size=80_000))
        spans = window_spans(seconds, 1.0, 0.5)
        tracemalloc.start()
        count = sum(len(part) for part in read_parts(path, spans, 16_000))
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 16_000 * len(spans)
        os.remove(path)  # noqa: PTH107
    assert len(opened) == 2
    assert peaks[600] < 1.2 * peaks[60]
    assert peaks[600] < 8e6  # ten minutes at 8 kHz are 19 MB
