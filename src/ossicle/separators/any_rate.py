"""One stretch of sound of any rate through a separator that has its own.

The model hears the stretch at its rate. What it cannot hear, above half of its rate, is not lost:
the stretch less its own way to the model's rate and back is dealt out to the sources by a smooth
share, from how much of the topmost octave that the model hears is theirs. So sources that add up
at the model's rate add up to the recording at its own.

Symbols: S sources, C channels, N samples, T frames; time last.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import convolve1d

from ossicle.audio import resample
from ossicle.errors import OssicleError
from ossicle.separators.base import Separator
from ossicle.separators.fourier import Fourier

BANDS = ("all", "model")
# Shorter than this is heard with silence after it: some transforms need a frame.
_LEAST_S = 0.25
# Shares follow the sound about as fast as one hears it change.
_FRAME_S, _SMOOTH_FRAMES = 0.032, 9
# -100 dB of full scale, mean power: below it the shares are equal.
_NOTHING = 1e-10


def separate_stretch(
    separator: Separator,
    samples: np.ndarray,
    sample_rate: int,
    n_sources: int | None = None,
    band: str = "all",
) -> np.ndarray:
    """Take one stretch apart; digital silence gives silence.

    Args:
        separator: in evaluation.
        samples: (C, N) float32.
        sample_rate: Hz, of the samples.
        n_sources: S, where the separator's sources have no names.
        band: "all": deal out what the model cannot hear; "model": drop it.

    Returns:
        (S, C, N) float32 at the same rate.

    Raises:
        OssicleError: the separator gives another shape, or values that are not finite.
    """
    count = separator.count(n_sources)
    n_samples = samples.shape[-1]
    if not samples.any():
        return np.zeros((count, *samples.shape), np.float32)
    model_rate = separator.sample_rate
    low = resample(samples, sample_rate, model_rate)
    heard = low.shape[-1]
    least = round(_LEAST_S * model_rate)
    padded = np.pad(low, ((0, 0), (0, max(0, least - heard))))
    with torch.inference_mode():
        answer = separator.separate(torch.from_numpy(np.ascontiguousarray(padded)), n_sources)
    if tuple(answer.shape) != (count, *padded.shape):
        raise OssicleError(
            f"{type(separator).__name__} gave {tuple(answer.shape)} for {padded.shape}: it must "
            "give (sources, channels, samples)"
        )
    found = np.asarray(answer.detach().cpu().numpy(), dtype=np.float32)
    if not np.isfinite(found).all():
        raise OssicleError(f"{type(separator).__name__} gave values that are not finite")
    if sample_rate == model_rate:
        return found[..., :n_samples]
    sources = np.stack([_back(one[:, :heard], model_rate, sample_rate, n_samples) for one in found])
    if band == "all":
        rest = samples - _back(low, model_rate, sample_rate, n_samples)
        sources += _shares(found, model_rate, sample_rate, n_samples)[:, None] * rest
    return sources


def _back(low: np.ndarray, model_rate: int, sample_rate: int, n_samples: int) -> np.ndarray:
    """(C, n) at the model's rate -> (C, N), exactly as long as the stretch was."""
    if low.shape[-1] == 0:
        return np.zeros((len(low), n_samples), np.float32)
    back = resample(low, model_rate, sample_rate)[:, :n_samples]
    return np.pad(back, ((0, 0), (0, n_samples - back.shape[-1])))


def _shares(found: np.ndarray, model_rate: int, sample_rate: int, n_samples: int) -> np.ndarray:
    """(S, C, n) at the model's rate -> (S, N) shares that add up to one at every sample."""
    n_fft = 2 ** max(4, round(np.log2(_FRAME_S * model_rate)))
    fourier = Fourier(n_fft, n_fft // 2)
    with torch.inference_mode():
        spectra = fourier.analyse(torch.from_numpy(found))
        top = spectra[..., _top_octave(n_fft, model_rate, sample_rate), :]
        power = top.abs().square().double().mean((1, 2)).numpy() / n_fft
    weights = np.hanning(_SMOOTH_FRAMES + 2)[1:-1]
    power = convolve1d(power, weights / weights.sum(), axis=-1, mode="nearest") + _NOTHING
    share = power / power.sum(0)
    frames = np.arange(share.shape[-1]) * fourier.hop_length / model_rate
    times = np.arange(n_samples) / sample_rate
    dealt = np.stack([np.interp(times, frames, one) for one in share]).astype(np.float32)
    return dealt


def _top_octave(n_fft: int, model_rate: int, sample_rate: int) -> slice:
    """Bins of the model's spectrum in the topmost octave that both rates hold."""
    highest = n_fft // 2 * min(1.0, sample_rate / model_rate)
    # Both resamplings fade out in the last tenth.
    stop = max(2, int(0.9 * highest))
    return slice(max(1, stop // 2), stop)
