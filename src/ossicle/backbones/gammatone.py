"""Gammatone filters with centres evenly spaced on the ear's frequency scale.

Glasberg & Moore 1990 ("Derivation of auditory filter shapes from notched-noise data") for the
widths, Patterson et al. 1987 ("An efficient auditory filterbank based on the gammatone function")
for the shape. Frequencies are in Hz.
"""

from __future__ import annotations

import numpy as np

from ossicle.errors import OssicleError

# Glasberg & Moore 1990, eq. 3: ERB(f) = 24.7 (4.37 f / 1000 + 1), f in Hz.
ERB_HZ = 24.7
ERB_PER_HZ = 4.37e-3
ORDER = 4
# A gammatone of order 4 with this parameter has the equivalent rectangular bandwidth of 1 ERB.
BANDWIDTH_PER_ERB = 1.019


def erb_hz(frequencies: np.ndarray | float) -> np.ndarray:
    """Equivalent rectangular bandwidth of the auditory filter at each frequency, Hz."""
    return ERB_HZ * (ERB_PER_HZ * np.asarray(frequencies, dtype=np.float64) + 1)


def erb_centres_hz(n_filters: int, fmin: float, fmax: float) -> np.ndarray:
    """(n_filters,) rising frequencies from ``fmin`` to ``fmax``, evenly spaced in ERBs, Hz.

    The number of ERBs below f is the integral of 1 / ERB, which is log(4.37 f / 1000 + 1) times a
    constant (Glasberg & Moore 1990, eq. 4); the constant does not matter to the spacing.

    Raises:
        OssicleError: the frequencies do not rise from 0 or above, or there are fewer than 2.
    """
    if n_filters < 2 or not 0 <= fmin < fmax:
        raise OssicleError(
            f"{n_filters} filters from {fmin:g} to {fmax:g} Hz: at least 2 are needed, and "
            "frequencies that rise from 0 or above"
        )
    low, high = np.log1p(ERB_PER_HZ * np.array([fmin, fmax], dtype=np.float64))
    return np.expm1(np.linspace(low, high, n_filters)) / ERB_PER_HZ


def gammatone_filters(centres_hz: np.ndarray, sample_rate: float, length: int) -> np.ndarray:
    """Impulse responses, (F, length) float64, each of energy 1.

    g(t) = t^3 exp(-2 pi b t) cos(2 pi f t) with b = 1.019 ERB(f), t = 0, 1 / sample_rate, ...
    With energies of 1 white noise has the same level in every band.

    Args:
        centres_hz: (F,) f of each filter.
        sample_rate: Hz.
        length: samples.

    Raises:
        OssicleError: a centre does not lie between 0 and half the sample rate.
    """
    f = np.asarray(centres_hz, dtype=np.float64)[:, None]
    if not ((f >= 0) & (f < sample_rate / 2)).all():
        raise OssicleError(
            f"centres from {f.min():g} to {f.max():g} Hz: they must lie between 0 and half the "
            f"sample rate, {sample_rate / 2:g} Hz"
        )
    t = np.arange(length) / sample_rate
    envelope = t ** (ORDER - 1) * np.exp(-2 * np.pi * BANDWIDTH_PER_ERB * erb_hz(f) * t)
    filters = envelope * np.cos(2 * np.pi * f * t)
    return filters / np.linalg.norm(filters, axis=1, keepdims=True)
