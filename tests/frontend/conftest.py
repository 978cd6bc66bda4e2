"""Signals for the front ends' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def tones_in_noise(sample_rate: int, n_samples: int, seed: int = 0) -> np.ndarray:
    """(N,) float32: three tones below 0.4 of the rate in white noise, within [-1, 1]."""
    generator = np.random.default_rng(seed)
    t = np.arange(n_samples) / sample_rate
    tones = sum(
        amplitude * np.sin(2 * np.pi * fraction * sample_rate * t)
        for amplitude, fraction in ((0.4, 0.031), (0.2, 0.11), (0.1, 0.37))
    )
    return (0.8 * tones + 0.05 * generator.uniform(-1, 1, n_samples)).astype(np.float32)


@pytest.fixture(scope="session")
def tones() -> Callable[..., np.ndarray]:
    """The function ``tones_in_noise(sample_rate, n_samples, seed=0)``."""
    return tones_in_noise
