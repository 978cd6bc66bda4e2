"""How near separated signals are to the sources: SI-SDR, SDR, SIR, SAR, SNR, spectral distance.

All are in dB, worked out in float64, and the same wherever the following cases arise. A silent
reference (all zeros) gives NaN: there is nothing to be near to, and it is left out of means. A
silent estimate gives minus infinity, a perfect one infinity (or as much as float64 tells apart).
`separation_scores`, whose numbers are averaged, holds all to +-`LIMIT_DB`.

Symbols: S sources, N samples, F frequency bins, T frames; time is always last.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from scipy.fft import rfft

from ossicle.errors import DataError
from ossicle.metrics.bss_eval import TAPS, Sources, assign, filtered_ratio
from ossicle.metrics.signals import pair, ratio_db

# What 16 bits cannot tell from nothing: in a mean, neither a perfect nor a silent estimate weighs
# more than that.
LIMIT_DB = 100.0
# A constant less its mean is rounding, not sound.
_ROUNDING = 1e-12


def si_sdr(estimate: ArrayLike, reference: ArrayLike, *, zero_mean: bool = False) -> np.ndarray:
    """Scale-invariant signal-to-distortion ratio, dB: no scaling of the estimate changes it.

    The reference, scaled by a = <estimate, reference> / |reference|^2, against what is left of the
    estimate (Le Roux, Wisdom, Erdogan & Hershey 2019, "SDR - half-baked or well done?", ICASSP,
    eq. 3-5).

    Args:
        estimate: (..., N).
        reference: (..., N); leading axes are broadcast.
        zero_mean: take the mean off both first. The paper assumes signals without one; an offset
            of the estimate counts as distortion otherwise.

    Returns:
        (...) float64.

    Raises:
        DataError: lengths differ, there are no samples, or values are not finite.
    """
    found, true = pair(estimate, reference)
    if zero_mean:
        found, true = _centred(found), _centred(true)
    # Scaled to a peak of 1: squares of very quiet signals would leave float64's range.
    found, true = _unit(found), _unit(true)
    energy = np.sum(true * true, -1)
    silent = energy == 0
    scale = np.sum(found * true, -1) / np.where(silent, 1.0, energy)
    target = scale[..., None] * true
    rest = found - target
    result = ratio_db(np.sum(target * target, -1), np.sum(rest * rest, -1))
    return np.where(silent, np.nan, result)


def snr(estimate: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """Signal-to-noise ratio, dB: |reference|^2 / |estimate - reference|^2; a silent estimate has 0.

    Args, returns and raises as `si_sdr`.
    """
    found, true = pair(estimate, reference)
    energy = np.sum(true * true, -1)
    rest = found - true
    result = ratio_db(energy, np.sum(rest * rest, -1))
    return np.where(energy == 0, np.nan, result)


def sdr(estimate: ArrayLike, reference: ArrayLike, *, taps: int = TAPS) -> np.ndarray:
    """Signal-to-distortion ratio of BSS Eval, dB: any filter of ``taps`` taps is forgiven.

    The reference through the filter that brings it nearest to the estimate, against what is left
    (Vincent, Gribonval & Fevotte 2006, section III.B; the number that
    ``mir_eval.separation.bss_eval_sources`` gives). An estimate that lacks bands of its source, or
    comes up to ``taps - 1`` samples late, is not worse for it: SI-SDR is the stricter score.

    Args:
        estimate: (..., N).
        reference: (..., N); leading axes are broadcast.
        taps: length of the filter, samples.

    Returns:
        (...) float64.

    Raises:
        DataError: lengths differ, there are no samples, values are not finite, or no taps.
    """
    found, true = pair(estimate, reference)
    if taps < 1:
        raise DataError(f"a filter of {taps} taps: at least 1 is needed")
    found, true = np.broadcast_arrays(_unit(found), _unit(true))
    flat = zip(found.reshape(-1, found.shape[-1]), true.reshape(-1, true.shape[-1]), strict=True)
    ratios = [filtered_ratio(one, other, taps) for one, other in flat]
    return np.array(ratios, dtype=np.float64).reshape(found.shape[:-1])


def log_spectral_distance(
    estimate: ArrayLike,
    reference: ArrayLike,
    *,
    n_fft: int = 512,
    hop_length: int = 128,
    floor_db: float = 80.0,
) -> np.ndarray:
    """How far apart two spectrograms are, dB: 0 for the same, and a gain of g dB costs g.

    The root of the mean square, over the bins of a frame, of the difference of the log power
    spectra; the mean of that over the frames (Gray & Markel 1976, IEEE Trans. Acoust. Speech
    Signal Process. 24(5), 380-391, the rms log spectral measure). Powers lower than ``floor_db``
    below the reference's greatest count as that floor in both, so silence against silence is 0.

    Args:
        estimate: (..., N).
        reference: (..., N); leading axes are broadcast.
        n_fft: length of a frame, samples, under a Hann window; a shorter signal is padded.
        hop_length: from frame to frame, samples; frames that would reach past the end are not
            there.
        floor_db: dB below the greatest power of the reference.

    Returns:
        (...) float64; NaN for a silent reference.

    Raises:
        DataError: lengths differ, there are no samples, values are not finite, or a size is
            below 1.
    """
    found, true = pair(estimate, reference)
    if n_fft < 2 or hop_length < 1 or not floor_db > 0:
        raise DataError(
            f"frames of {n_fft} samples every {hop_length} with a floor at {floor_db} dB: "
            "sizes and floor must be positive"
        )
    one, other = (_powers(signal, n_fft, hop_length) for signal in (found, true))
    greatest = other.max((-2, -1), keepdims=True)
    floor = greatest * 10 ** (-floor_db / 10)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = 10 * np.log10(np.maximum(one, floor) / np.maximum(other, floor))
    distance = np.sqrt(np.mean(apart**2, -1)).mean(-1)
    return np.where(greatest[..., 0, 0] == 0, np.nan, distance)


def best_permutation(estimates: ArrayLike, sources: ArrayLike) -> np.ndarray:
    """Which estimate is which source: the order that makes the mean SI-SDR greatest, exact.

    Args:
        estimates: (S, N).
        sources: (S, N).

    Returns:
        order (S,) int64: ``estimates[order[j]]`` is taken for source j. Silent sources take what
        the others leave.

    Raises:
        DataError: shapes differ, or values are not finite.
    """
    found, true = pair(estimates, sources, same=True)
    return assign(si_sdr(found[:, None], true[None]))


def separation_scores(
    estimates: ArrayLike,
    mixture: ArrayLike,
    sources: ArrayLike,
    *,
    ordered: bool,
    n_fft: int = 512,
    hop_length: int = 128,
) -> dict[str, np.ndarray]:
    """All scores of one separated mixture, source by source.

    Args:
        estimates: (S, N).
        mixture: (N,), what improvements are counted from.
        sources: (S, N).
        ordered: estimate j is meant for source j; otherwise `best_permutation` pairs them.
        n_fft, hop_length: frames of the log-spectral distance, samples.

    Returns:
        (S,) float64 each, in dB, of source j: "si_sdr", "si_sdr_improvement" (over the mixture,
        unprocessed, as the estimate), "sdr", "sdr_improvement", "sir", "sar", "snr",
        "log_spectral_distance"; and "order" (S,) int64 as `best_permutation` has it. NaN for a
        silent source. Ratios are held to +-`LIMIT_DB` before differences are taken.

    Raises:
        DataError: shapes differ, or values are not finite.
    """
    scorer = Scorer(mixture, sources, n_fft=n_fft, hop_length=hop_length)
    return scorer.scores(estimates, ordered=ordered)


class Scorer:
    """`separation_scores` of several systems on one mixture, what they share worked out once.

    Args:
        mixture: (N,).
        sources: (S, N).
        n_fft, hop_length: frames of the log-spectral distance, samples.

    Raises:
        DataError: shapes differ, or values are not finite.
    """

    def __init__(
        self, mixture: ArrayLike, sources: ArrayLike, *, n_fft: int = 512, hop_length: int = 128
    ) -> None:
        mixed, self._sources = pair(mixture, sources)
        if mixed.ndim != 1 or self._sources.ndim != 2:
            raise DataError(
                "a mixture must be (samples,) and its sources (sources, samples); got "
                f"{mixed.shape} and {self._sources.shape}"
            )
        self._frames = {"n_fft": n_fft, "hop_length": hop_length}
        self._ready = Sources(_unit(self._sources))
        self._si_sdr = si_sdr(mixed, self._sources)
        self._sdr = self._ready.split(_unit(mixed)[None]).sdr[0]

    def scores(self, estimates: ArrayLike, *, ordered: bool) -> dict[str, np.ndarray]:
        """Of (S, N) estimates, as `separation_scores` gives them."""
        found, true = pair(estimates, self._sources, same=True)
        pairs = si_sdr(found[:, None], true[None])
        order = np.arange(len(true)) if ordered else assign(pairs)
        at = (order, np.arange(len(true)))
        split = self._ready.split(_unit(found))
        scores: dict[str, np.ndarray] = {"order": order}
        for name, after, before in (
            ("si_sdr", pairs[at], self._si_sdr),
            ("sdr", split.sdr[at], self._sdr),
        ):
            scores[name] = _held(after)
            scores[f"{name}_improvement"] = _held(after) - _held(before)
        scores["sir"] = _held(split.sir[at])
        scores["sar"] = _held(split.sar[at])
        scores["snr"] = _held(snr(found[order], true))
        scores["log_spectral_distance"] = log_spectral_distance(found[order], true, **self._frames)
        return scores


def _held(ratios: np.ndarray) -> np.ndarray:
    held: np.ndarray = np.clip(ratios, -LIMIT_DB, LIMIT_DB)
    return held


def _centred(signal: np.ndarray) -> np.ndarray:
    centred = signal - signal.mean(-1, keepdims=True)
    peak = np.abs(signal).max(-1, keepdims=True)
    return np.where(np.abs(centred).max(-1, keepdims=True) <= _ROUNDING * peak, 0.0, centred)


def _unit(signal: np.ndarray) -> np.ndarray:
    """With a peak of 1, which no scale-invariant score hears; silence stays silence."""
    peak = np.abs(signal).max(-1, keepdims=True)
    scaled: np.ndarray = signal / np.where(peak == 0, 1.0, peak)
    return scaled


def _powers(signal: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """(..., N) -> (..., T, F) power spectra of frames under a Hann window."""
    short = max(0, n_fft - signal.shape[-1])
    if short:
        signal = np.concatenate([signal, np.zeros((*signal.shape[:-1], short))], -1)
    frames = sliding_window_view(signal, n_fft, axis=-1)[..., ::hop_length, :]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    spectra = rfft(frames * window)
    powers: np.ndarray = spectra.real**2 + spectra.imag**2
    return powers
