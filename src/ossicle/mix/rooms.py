"""Reverberation: rooms made of decaying noise, and measured ones.

An impulse response begins with the direct sound, so that what is put into a room keeps its onset.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import oaconvolve

from ossicle import audio
from ossicle.errors import AudioError


def synthetic_room(
    sample_rate: int, t60_s: float, direct_db: float, generator: np.random.Generator
) -> np.ndarray:
    """Direct sound, then Gaussian noise that decays exponentially.

    Args:
        sample_rate: in Hz.
        t60_s: time in which the tail decays by 60 dB (s).
        direct_db: energy of the direct sound over that of the tail (dB).
        generator: of the noise.

    Returns:
        (L,) float64, 1 at time 0; L = 1 + the samples of `t60_s`.
    """
    length = 1 + max(1, round(t60_s * sample_rate))
    t = np.arange(length) / sample_rate
    response = generator.standard_normal(length) * 10 ** (-3 * t / t60_s)
    response[0] = 0.0
    response *= np.sqrt(10 ** (-direct_db / 10) / np.sum(response**2))
    response[0] = 1.0
    return response


def measured_room(path: str | Path, sample_rate: int) -> np.ndarray:
    """A measured impulse response, from its direct sound on.

    The direct sound is the greatest absolute value; what comes before it is left out, as it would
    move onsets. Scaled to 1 at time 0.

    Args:
        path: an audio file; the mean of its channels is taken.
        sample_rate: wanted, in Hz.

    Returns:
        (L,) float64.

    Raises:
        AudioError: the file cannot be read or is silent.
    """
    response = audio.load(path, sample_rate=sample_rate).samples[0].astype(np.float64)
    direct = int(np.abs(response).argmax())
    if response[direct] == 0:
        raise AudioError(path, "is silent: an impulse response has a direct sound")
    return response[direct:] / response[direct]


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Samples (N,) in a room (L,): their convolution (N + L - 1,) float64."""
    return np.asarray(oaconvolve(samples.astype(np.float64), response))
