"""Noise made like that in a recording: its spectrum by Welch's method, which knows no quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, welch

from ossicle.denoise.matching import matched

RATE = 16000


def _noise(seed: int, low: float, high: float, gain: float, seconds: float = 4.0) -> np.ndarray:
    """White noise with a band lifted out of it."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    band = butter(2, [low, high], "band", fs=RATE, output="sos")
    return (0.02 * white + gain * sosfilt(band, white)).astype(np.float32)


def _level_db(samples: np.ndarray) -> np.ndarray:
    return 10 * np.log10(welch(samples, RATE, nperseg=1024)[1][4:-4])


@pytest.fixture(scope="module")
def there() -> np.ndarray:
    return _noise(0, 300, 900, 0.2)


def test_it_takes_the_colour_and_level_of_the_noise_that_is_there(there: np.ndarray) -> None:
    other = _noise(1, 2000, 4000, 0.01)
    before = np.abs(_level_db(other) - _level_db(there))
    after = np.abs(_level_db(matched(there, other, RATE)) - _level_db(there))
    assert before.mean() > 4
    assert after.mean() < 1.2
    assert np.quantile(after, 0.9) < 2.5


def test_what_comes_and_goes_in_the_recording_is_no_noise(there: np.ndarray) -> None:
    heard = there.copy()
    time = np.arange(RATE // 2) / RATE
    for start in (0.3, 1.4, 2.6):  # three of eight half seconds
        at = round(start * RATE)
        heard[at : at + RATE // 2] += 0.8 * np.sin(2 * np.pi * 1500 * time).astype(np.float32)
    other = _noise(1, 2000, 4000, 0.01)
    found = matched(heard, other, RATE)
    assert np.abs(_level_db(found) - _level_db(there)).mean() < 2
    assert _level_db(heard).max() > _level_db(found).max() + 10


def test_it_stays_the_same_noise_when_it_is_alike_already(there: np.ndarray) -> None:
    np.testing.assert_allclose(matched(there, there, RATE), there, atol=1e-5)
    np.testing.assert_allclose(matched(there, 0.125 * there, RATE), there, atol=1e-4)


def test_gains_are_bounded_and_silence_is_no_trouble(there: np.ndarray) -> None:
    quiet = matched(there * 1e-6, there, RATE)
    ratio = np.sqrt(np.square(quiet).mean() / np.square(there).mean())
    assert ratio == pytest.approx(10 ** (-30 / 20), rel=0.05)
    for recording, noise in ((np.zeros_like(there), there), (there, np.zeros_like(there))):
        assert np.isfinite(matched(recording, noise, RATE)).all()
    assert not matched(there, np.zeros_like(there), RATE).any()


@pytest.mark.parametrize("n_samples", [1, 50, 4001])
def test_any_length(n_samples: int, there: np.ndarray) -> None:
    found = matched(there[:n_samples], there[-n_samples:], RATE)
    assert found.shape == (n_samples,)
    assert found.dtype == np.float32
