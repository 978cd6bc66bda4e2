"""One-dimensional filters: frequency responses, centres, bandwidths, and the ear's beside them.

Symbols: K filters, N samples of an impulse response, M frequencies.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ossicle.backbones.gammatone import erb_hz
from ossicle.errors import OssicleError

# Zeros behind the response, so that a centre is found to a small part of a bin.
PADDING = 8
LEAST_FFT = 4096


def power_responses(filters: np.ndarray, sample_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """|H(f)|^2 of finite impulse responses.

    Args:
        filters: (K, N).
        sample_rate: Hz.

    Returns:
        Frequencies (M,) in Hz from 0 to half the sample rate, and powers (K, M).

    Raises:
        OssicleError: no filter, no sample, or values that are not finite.
    """
    filters = np.asarray(filters, np.float64)
    if filters.ndim != 2 or not filters.size or not np.isfinite(filters).all():
        raise OssicleError(f"filters of shape {filters.shape}: (filters, samples), all finite")
    length = max(LEAST_FFT, 2 ** int(np.ceil(np.log2(PADDING * filters.shape[1]))))
    power = np.abs(np.fft.rfft(filters, length, axis=1)) ** 2
    return np.arange(power.shape[1]) * (sample_rate / length), power


def centres_hz(frequencies: np.ndarray, power: np.ndarray) -> np.ndarray:
    """(K,) where each response is greatest, by a parabola through three decibels; NaN for zeros.

    Args:
        frequencies: (M,) Hz, evenly spaced.
        power: (K, M).
    """
    top = power.argmax(axis=1)
    inside = (top > 0) & (top < power.shape[1] - 1)
    rows = np.arange(len(power))
    around = np.stack([power[rows, np.clip(top + d, 0, power.shape[1] - 1)] for d in (-1, 0, 1)])
    left, middle, right = np.log(np.maximum(around, 1e-300))
    bend = left - 2 * middle + right
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.where(inside & (bend < 0), 0.5 * (left - right) / bend, 0.0)
    found = (top + shift) * (frequencies[1] - frequencies[0]) + frequencies[0]
    return np.where(power[rows, top] > 0, found, np.nan)


def bandwidths_hz(frequencies: np.ndarray, power: np.ndarray) -> np.ndarray:
    """(K,) equivalent rectangular bandwidths: the integral of |H|^2 over its greatest value.

    Args:
        frequencies: (M,) Hz.
        power: (K, M).
    """
    peak = power.max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(peak > 0, np.trapezoid(power, frequencies, axis=1) / peak, np.nan)


def filter_table(filters: np.ndarray, sample_rate: float) -> pd.DataFrame:
    """A row for each filter, by rising centre frequency; filters of zeros come last.

    Columns filter (its number in the network), centre_hz, bandwidth_hz (equivalent rectangular),
    ear_hz (Glasberg & Moore 1990, eq. 3, at the centre), norm, gain_db (greatest).

    Args:
        filters: (K, N).
        sample_rate: Hz.
    """
    frequencies, power = power_responses(filters, sample_rate)
    centres = centres_hz(frequencies, power)
    with np.errstate(divide="ignore"):
        gain = 10 * np.log10(power.max(axis=1))
    table = pd.DataFrame(
        {
            "filter": np.arange(len(filters)),
            "centre_hz": centres,
            "bandwidth_hz": bandwidths_hz(frequencies, power),
            "ear_hz": erb_hz(centres),
            "norm": np.linalg.norm(np.asarray(filters, np.float64), axis=1),
            "gain_db": gain,
        }
    )
    return table.sort_values("centre_hz", kind="stable", ignore_index=True)


def relative_db(power: np.ndarray, floor_db: float = -60.0) -> np.ndarray:
    """(K, M) powers in dB below each filter's own greatest, no lower than the floor."""
    peak = power.max(axis=1, keepdims=True)
    ratio = np.divide(power, peak, out=np.zeros_like(power), where=peak > 0)
    return 10 * np.log10(np.maximum(ratio, 10 ** (floor_db / 10)))
