"""Spectra of convolution kernels: what each looks for over frequency (scale) and time (rate).

A kernel on a spectrogram is a filter of its modulations. Its Fourier transform over time is by
rate (Hz: how often a second), over bands by scale (cycles per band, or per octave): the spectro-
temporal modulations of Chi, Ru and Shamma, "Multiresolution spectrotemporal analysis of complex
sounds", J. Acoust. Soc. Am. 118 (2005), section II.

Symbols: K kernels, H and W their bands and frames, M frequencies.
"""

from __future__ import annotations

import numpy as np

LENGTH = 64  # of the transforms, zeros behind the kernel


def largest(kernels: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the kernels of largest Euclidean norm, largest first; (K, ...) -> (<= count,)."""
    norms = np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1)
    return np.argsort(-norms, kind="stable")[:count]


def modulation_spectra(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magnitudes of the two-dimensional transform, for scales of 0 and above and all rates.

    A real kernel has the same magnitude at (scale, rate) and (-scale, -rate). Rates above 0 are of
    ripples that sink over time, below 0 of those that rise.

    Args:
        kernels: (K, H, W).

    Returns:
        Scales (M',) in cycles per band, 0 to 0.5; rates (M,) in cycles per frame, -0.5 to 0.5;
        magnitudes (K, M', M).
    """
    length = _length(max(kernels.shape[1:]))
    full = np.abs(np.fft.fft2(kernels, (length, length)))
    shifted = np.fft.fftshift(full[:, : length // 2 + 1], axes=2)
    # Both ends, so that the picture is symmetric about 0.
    both = np.concatenate([shifted, shifted[:, :, :1]], axis=2)
    scales = np.arange(length // 2 + 1) / length
    return scales, np.arange(-(length // 2), length // 2 + 1) / length, both


def share_by_frequency(kernels: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """How the energy of a layer's kernels is spread over modulations along one axis.

    Args:
        kernels: (K, ...) all kernels of a layer.
        axis: of the kernel, from 1.

    Returns:
        Frequencies (M,) in cycles per step, 0 to 0.5, and densities (M,), whose mean over the
        frequencies from -0.5 to 0.5 is 1: a kernel of one step has 1 everywhere.
    """
    steps = kernels.shape[axis]
    length = _length(steps)
    rows = np.moveaxis(kernels, axis, -1).reshape(-1, steps)
    # Products of steps, summed over all kernels, say as much as each one's transform, and are few.
    products = rows.T @ rows
    lags = np.subtract.outer(np.arange(steps), np.arange(steps))
    summed = np.bincount(np.abs(lags).ravel(), products.ravel(), minlength=steps)
    turns = np.outer(np.arange(length // 2 + 1), np.arange(steps)) / length
    power = np.maximum(np.cos(2 * np.pi * turns) @ summed, 0.0)
    weights = np.full(length // 2 + 1, 2.0)
    weights[[0, -1]] = 1.0  # frequencies that stand for themselves alone
    total = float(weights @ power) / length
    density = power / total if total > 0 else np.full_like(power, np.nan)
    return np.arange(length // 2 + 1) / length, density


def centre_of(frequencies: np.ndarray, density: np.ndarray) -> float:
    """The mean frequency of a density over (M,) frequencies from 0 to 0.5, in cycles per step."""
    weights = np.full(len(density), 2.0)
    weights[[0, -1]] = 1.0
    return float(weights @ (density * frequencies) / (weights @ density))


def _length(steps: int) -> int:
    """Of the transform: even, and long enough for the kernel."""
    return max(LENGTH, 2 * 2 ** int(np.ceil(np.log2(steps))))
