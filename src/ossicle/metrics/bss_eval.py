"""BSS Eval: how much of an estimate is its source, the other sources, and neither.

An estimate e is split into s (the source through the filter of L taps that brings it nearest to e),
what filters of L taps on all sources explain beyond that (interference), and the rest (artifacts)
(Vincent, Gribonval & Fevotte 2006, IEEE Trans. Audio Speech Lang. Process. 14(4), 1462-1469,
section III.B). Every delay from 0 to L - 1 samples and every colouring is thus forgiven.

The least-squares filters are found from correlations; energies of what is left are sums over
spectra (Parseval), as a difference of energies would lose all digits of a good estimate.

Symbols: S sources, E estimates, N samples (time last), L taps, K spectral bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import LinAlgError, cho_factor, cho_solve, toeplitz
from scipy.optimize import linear_sum_assignment

from ossicle.metrics.signals import pair, ratio_db

TAPS = 512
# Correlations square the condition of the sources, and few digits are left where they lack a part
# of the band. So filters are corrected by what they leave of the estimate, which needs no squares
# (Bjorck 1987, "Stability analysis of the method of seminormal equations", Linear Algebra Appl.
# 88/89, 31-48), until a correction's share of the energy is below what any score shows.
_SETTLED = 1e-18
_ROUNDS = 10
_RIDGES = tuple(10.0**power for power in range(-15, 0))


class Split(NamedTuple):
    """Ratios in dB for every pair of an estimate (row) and a source (column): (E, S) float64.

    Attributes:
        sdr: source to distortion: s against interference and artifacts together.
        sir: source to interference.
        sar: sources to artifacts: s and interference against the rest.
    """

    sdr: np.ndarray
    sir: np.ndarray
    sar: np.ndarray


class BssScores(NamedTuple):
    """Of each source, in their order: (S,).

    Attributes:
        sdr, sir, sar: dB.
        order: ``estimates[order[j]]`` is what was taken for source j.
    """

    sdr: np.ndarray
    sir: np.ndarray
    sar: np.ndarray
    order: np.ndarray


def bss_eval(
    estimates: np.ndarray, sources: np.ndarray, *, permute: bool = True, taps: int = TAPS
) -> BssScores:
    """SDR, SIR and SAR of estimates, as ``mir_eval.separation.bss_eval_sources`` has them.

    Args:
        estimates: (S, N).
        sources: (S, N).
        permute: pair them so that the mean SIR is greatest, as BSS Eval does; otherwise in order.
        taps: L, of the filters that are forgiven.

    Returns:
        Scores in dB. A silent source has NaN and hears no interference; a silent estimate has
        minus infinity.

    Raises:
        DataError: shapes differ, or values are not finite.
    """
    estimated, true = pair(estimates, sources, same=True)
    split = Sources(true, taps).split(estimated)
    order = np.arange(len(true))
    if permute:
        order = assign(split.sir)
    at = (order, np.arange(len(true)))
    return BssScores(split.sdr[at], split.sir[at], split.sar[at], order)


class Sources:
    """Sources made ready, so that any number of estimates can be split against them.

    Args:
        sources: (S, N) float64.
        taps: L.
    """

    def __init__(self, sources: np.ndarray, taps: int = TAPS) -> None:
        self._count = len(sources)
        self._spectra = _Spectra(sources.shape[-1], taps)
        self._audible = np.flatnonzero(sources.any(-1))
        if not len(self._audible):
            return
        # Of one energy, so that none is small beside the ridge that rounding asks for.
        audible = sources[self._audible]
        own = self._spectra.of(audible / np.linalg.norm(audible, axis=-1, keepdims=True))
        among = self._spectra.correlations(own, own)
        self._each = [
            _Span(self._spectra, own[row : row + 1], among[row : row + 1, row : row + 1])
            for row in range(len(own))
        ]
        self._all = _Span(self._spectra, own, among) if len(own) > 1 else self._each[0]

    def split(self, estimates: np.ndarray) -> Split:
        """The three ratios of (E, N) float64 estimates; NaN for silent sources."""
        shape = (len(estimates), self._count)
        split = Split(*(np.full(shape, np.nan) for _ in range(3)))
        if not len(self._audible):
            return split
        energy = self._spectra.energy
        found = self._spectra.of(estimates)
        explained = self._all.explained(found)
        for span, source in zip(self._each, self._audible, strict=True):
            target = span.explained(found) if span is not self._all else explained
            split.sdr[:, source] = ratio_db(energy(target), energy(found - target))
            split.sir[:, source] = ratio_db(energy(target), energy(explained - target))
        sar = ratio_db(energy(explained), energy(found - explained))
        split.sar[:, self._audible] = sar[:, None]
        return split


def filtered_ratio(estimate: np.ndarray, reference: np.ndarray, taps: int = TAPS) -> float:
    """SDR in dB of one (N,) estimate, which needs no other source."""
    if not reference.any():
        return float("nan")
    spectra = _Spectra(len(reference), taps)
    own, found = spectra.of(reference[None]), spectra.of(estimate[None])
    target = _Span(spectra, own, spectra.correlations(own, own)).explained(found)
    return float(ratio_db(spectra.energy(target), spectra.energy(found - target))[0])


def assign(gains: np.ndarray) -> np.ndarray:
    """The order of rows that makes the sum over the columns greatest: (E, S) -> (S,), exact.

    Columns that are NaN take what is left. Hungarian method (Kuhn 1955), as SciPy has it.
    """
    # No ratio of float64 energies that is finite comes near: infinities just have to count most.
    finite = np.clip(np.nan_to_num(gains, nan=0.0, posinf=1e4, neginf=-1e4), -1e4, 1e4)
    rows, columns = linear_sum_assignment(finite, maximize=True)
    order: np.ndarray = rows[np.argsort(columns)]
    return order


class _Spectra:
    """Spectra long enough that filters of L taps do not wrap around."""

    def __init__(self, n_samples: int, taps: int) -> None:
        self.taps = taps
        self.length = next_fast_len(n_samples + taps - 1, real=True)

    def of(self, samples: np.ndarray) -> np.ndarray:
        """(..., N) -> (..., K) complex128."""
        spectra: np.ndarray = rfft(samples, self.length)
        return spectra

    def correlations(self, delayed: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Sums of other[n] delayed[n - d] for d = 0 .. L - 1: (A, K), (E, K) -> (A, E, L)."""
        lags: np.ndarray = irfft(delayed.conj()[:, None] * other, self.length)[..., : self.taps]
        return lags

    def filtered(self, filters: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """The sum over sources of each through its filter: (A, E, L), (A, K) -> (E, K)."""
        through: np.ndarray = np.einsum("aek,ak->ek", rfft(filters, self.length), sources)
        return through

    def energy(self, spectra: np.ndarray) -> np.ndarray:
        """The sum of squares of the samples of (..., K) spectra, times the length."""
        power = spectra.real**2 + spectra.imag**2
        twice = 2 * power.sum(-1) - power[..., 0]
        # Only an even length has a bin at half the rate that stands for itself.
        if self.length % 2 == 0:
            twice -= power[..., -1]
        return twice


class _Span:
    """All that filters of L taps make of some sources, and what of a signal lies in it.

    Args:
        spectra: of L taps.
        sources: (A, K).
        among: (A, A, L), how much each, delayed, is like the others.
    """

    def __init__(self, spectra: _Spectra, sources: np.ndarray, among: np.ndarray) -> None:
        self._spectra, self._sources = spectra, sources
        count, _, taps = among.shape
        matrix = np.empty((count * taps, count * taps))
        for i in range(count):
            for j in range(count):
                # At (a, b) the sum of s_i[n - a] s_j[n - b]; among has those with a or b = 0.
                block = toeplitz(among[i, j], among[j, i])
                matrix[i * taps : (i + 1) * taps, j * taps : (j + 1) * taps] = block
        self._factor = _factor(matrix)

    def explained(self, found: np.ndarray) -> np.ndarray:
        """The part of each signal that the span holds: (E, K) -> (E, K)."""
        count, taps = len(self._sources), self._spectra.taps
        energy = self._spectra.energy
        rest, left = found, energy(found)
        settled = _SETTLED * left
        for _ in range(_ROUNDS):
            cross = self._spectra.correlations(self._sources, rest)
            right = np.moveaxis(cross, 1, 2).reshape(count * taps, len(found))
            filters = cho_solve(self._factor, right, check_finite=False)
            filters = np.moveaxis(filters.reshape(count, taps, len(found)), 2, 1)
            correction = self._spectra.filtered(filters, self._sources)
            corrected = rest - correction
            now = energy(corrected)
            better = now < left  # what leaves more than before is rounding
            rest = np.where(better[:, None], corrected, rest)
            left = np.minimum(now, left)
            if np.all(~better | (energy(correction) <= settled)):
                break
        return found - rest


def _factor(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky's, of the matrix with the least of some ridges that lets it end."""
    at, greatest = np.diag_indices_from(matrix), np.diagonal(matrix).max()
    added = 0.0
    for ridge in _RIDGES:
        matrix[at] += (ridge - added) * greatest
        added = ridge
        try:
            factor: tuple[np.ndarray, bool] = cho_factor(matrix, check_finite=False)
        except LinAlgError:  # sources that filters turn into one another
            continue
        return factor
    raise AssertionError("a matrix of correlations is positive but for rounding")
