"""Cepstral coefficients and deltas against librosa."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.frontend import MFCC
from ossicle.frontend.mfcc import SavitzkyGolay, first_difference


@pytest.mark.parametrize("sample_rate", [8000, 12000, 22050, 48000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_mfcc": 40, "n_fft": 1024, "hop_length": 311, "n_mels": 40, "fmin": 60.0},
        {"n_mfcc": 13, "n_fft": 1024, "win_length": 701, "n_mels": 26, "center": False},
        {"n_mfcc": 13, "n_mels": 40, "norm": None, "pad_mode": "reflect"},
    ],
)
def test_equals_librosa(tones, sample_rate, options) -> None:
    samples = tones(sample_rate, 2 * sample_rate)
    frontend = MFCC(sample_rate, **options)
    config = {"n_fft": 2048, "hop_length": 512} | options
    n_mfcc = config.pop("n_mfcc", 20)
    mel = librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=sample_rate, dtype=np.float64, **config
    )
    expected = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=n_mfcc)
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    assert output.shape == expected.shape
    # A coefficient sums n_mels decibels, the first of them to some -500.
    np.testing.assert_allclose(output, expected, atol=5e-4)


@pytest.mark.parametrize("width", [3, 9, 11])
def test_savitzky_golay_deltas_equal_librosa(tones, width) -> None:
    samples = tones(12000, 24000)
    frontend = MFCC(12000, deltas=2, delta="savgol", delta_width=width)
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    mfcc = librosa.feature.mfcc(y=samples.astype(np.float64), sr=12000, n_mfcc=20, dtype=np.float64)
    expected = [librosa.feature.delta(mfcc, width=width, order=order) for order in (1, 2)]
    np.testing.assert_allclose(output[20:], np.concatenate(expected), atol=1e-3)
    assert frontend.n_bands == 60


@pytest.mark.parametrize("num_frames", [1, 2, 5, 8])
@pytest.mark.parametrize("order", [1, 2])
def test_savitzky_golay_of_few_frames_repeats_the_ends(num_frames, order) -> None:
    x = np.random.default_rng(0).normal(size=(4, num_frames))
    expected = librosa.feature.delta(x, width=9, order=order, mode="nearest")
    output = SavitzkyGolay(9, order)(torch.from_numpy(x).float())
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_the_baseline_of_choi(tones) -> None:
    """20 coefficients, first and second differences, as its feature extraction takes them."""
    samples = tones(12000, 36000)
    mfcc = librosa.feature.mfcc(y=samples.astype(np.float64), sr=12000, n_mfcc=20, dtype=np.float64)
    delta = mfcc[:, 1:] - mfcc[:, :-1]
    delta_delta = delta[:, 1:] - delta[:, :-1]
    output = MFCC(12000, deltas=2)(torch.from_numpy(samples)[None])[0, 0].numpy()
    assert output.shape == (60, mfcc.shape[1])
    np.testing.assert_allclose(output[:20], mfcc, atol=5e-4)
    np.testing.assert_allclose(output[20:40, 1:], delta, atol=5e-4)
    np.testing.assert_allclose(output[40:, 2:], delta_delta, atol=1e-3)
    np.testing.assert_array_equal(output[20:40, 0], output[20:40, 1])
    np.testing.assert_array_equal(output[40:, 0], output[40:, 2])


@settings(max_examples=50, deadline=None)
@given(num_frames=st.integers(1, 30), slope=st.floats(-10, 10), bend=st.floats(-1, 1))
def test_deltas_of_a_parabola_are_its_derivatives(
    num_frames: int, slope: float, bend: float
) -> None:
    t = torch.arange(num_frames, dtype=torch.float32)
    line, parabola = slope * t, slope * t + bend * t**2
    if num_frames > 1:
        assert first_difference(line).numpy() == pytest.approx(slope, abs=1e-3)
    if num_frames > 2:
        assert first_difference(parabola, 2).numpy() == pytest.approx(2 * bend, abs=1e-3)
    if num_frames >= 9:
        assert SavitzkyGolay(9, 1)(line).numpy() == pytest.approx(slope, abs=1e-3)
        assert SavitzkyGolay(9, 2)(parabola).numpy() == pytest.approx(2 * bend, abs=1e-3)
    assert first_difference(line).shape == line.shape
