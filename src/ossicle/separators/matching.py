"""Who is who from one block to the next, where sources have no names.

Two blocks of a recording give their sources in any order. Those of the new block are put into the
order of the stream so far by what both blocks say of the stretch that they share: the same source
has the same waveform there. Where that stretch tells nothing (a pause, or one source alone is
silent in it and so are several others), how each source has sounded so far decides.

Symbols: S sources, C channels, N samples, K bands; time last.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ossicle.separators.fourier import Fourier

# What spectra say counts a tenth of what waveforms say: it decides only where these do not.
_SPECTRAL_WEIGHT = 0.1
# Sound this far below the loudest source is taken for silence: 50 dB for waveforms, whose noise
# then does not pass for agreement; 30 dB for spectra, where a leak would colour the mean.
_SILENT, _INACTIVE = 1e-5, 1e-3
_FRAME_S = 0.064
_LOWEST_HZ, _BANDS = 80.0, 40
# The mean spectrum forgets: what was heard within about two minutes counts.
_MEMORY_S = 120.0


class Matcher:
    """The order of the sources of a recording's blocks.

    Args:
        n_sources: S.
        sample_rate: Hz.
    """

    def __init__(self, n_sources: int, sample_rate: int) -> None:
        n_fft = 2 ** max(4, round(np.log2(_FRAME_S * sample_rate)))
        self._fourier = Fourier(n_fft, n_fft // 2)
        self._edges = _band_edges(n_fft, sample_rate)
        self._most_frames = _MEMORY_S * sample_rate / self._fourier.hop_length
        self._spectra = np.zeros((n_sources, len(self._edges) - 1))
        self._frames = np.zeros(n_sources)

    def order(self, before: np.ndarray, after: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Which source of a new block continues each source of the stream.

        Args:
            before: (S, C, n), the stretch that both share, as the stream has it.
            after: (S, C, n), the same stretch as the new block has it.
            block: (S, C, N), all of the new block.

        Returns:
            (S,) int64: ``block[order]`` is in the stream's order.
        """
        agreement = _correlation(before, after) + _SPECTRAL_WEIGHT * self._likeness(block)
        _, order = linear_sum_assignment(agreement, maximize=True)
        return np.asarray(order, np.int64)

    def remember(self, block: np.ndarray) -> None:
        """Learn how the sources sound from a block (S, C, N) in the stream's order."""
        spectra, frames = self._mean_spectra(block)
        kept = np.maximum(np.minimum(self._frames, self._most_frames - frames), 0.0)
        total = np.maximum(kept + frames, 1.0)
        mixed = (kept[:, None] * self._spectra + frames[:, None] * spectra) / total[:, None]
        self._spectra = np.where((frames > 0)[:, None], mixed, self._spectra)
        self._frames = np.where(frames > 0, kept + frames, self._frames)

    def _likeness(self, block: np.ndarray) -> np.ndarray:
        """(S, S) in [-1, 1]: sources so far by sources of the block; 0 where one is unheard.

        What tells sources apart is what each has beside the mean of all: voices share most of
        their spectrum.
        """
        spectra, frames = self._mean_spectra(block)
        return _contrasts(self._spectra, self._frames) @ _contrasts(spectra, frames).T

    def _mean_spectra(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, K) mean log power of each source where it sounds, less its mean over K; frames."""
        power = np.stack([self._band_power(source) for source in block])
        level = power.mean(1)
        active = level > _INACTIVE * max(level.max(), 1e-20)
        frames = active.sum(1)
        # Down to 60 dB below the frame: the empty bands of a mask are as empty as they come.
        logs = np.log(power + 1e-6 * level[:, None] + 1e-20)
        mean = (logs * active[:, None]).sum(2) / np.maximum(frames, 1)[:, None]
        return mean - mean.mean(1, keepdims=True), frames.astype(float)

    def _band_power(self, source: np.ndarray) -> np.ndarray:
        """(C, N) -> (K, T)."""
        with torch.inference_mode():
            spectra = self._fourier.analyse(torch.from_numpy(np.ascontiguousarray(source)))
            power = spectra.abs().square().mean(0).double().numpy()
        sums = np.add.reduceat(power, self._edges[:-1], axis=0)
        return np.asarray(sums / np.diff(self._edges)[:, None])


def _correlation(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(S, S) in [-1, 1]: normalised inner products; about 0 where one of the two is silent."""
    rows = before.reshape(len(before), -1).astype(np.float64)
    columns = after.reshape(len(after), -1).astype(np.float64)
    energy = np.square(rows).sum(1), np.square(columns).sum(1)
    floor = _SILENT * max(energy[0].max(), energy[1].max()) + 1e-12 * rows.shape[1]
    return np.asarray((rows @ columns.T) / np.sqrt(np.outer(energy[0] + floor, energy[1] + floor)))


def _contrasts(spectra: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(S, K) of norm one: each spectrum less the mean of all that were heard; 0 if unheard."""
    heard = frames > 0
    if heard.sum() < 2:
        return np.zeros_like(spectra)
    contrast = np.where(heard[:, None], spectra - spectra[heard].mean(0), 0.0)
    norm = np.sqrt(np.square(contrast).sum(1, keepdims=True))
    return np.asarray(contrast / np.maximum(norm, 1e-9))


def _band_edges(n_fft: int, sample_rate: int) -> np.ndarray:
    """First bins of the bands, evenly spaced in log frequency, and the bin after the last."""
    highest = sample_rate / 2
    hertz = np.geomspace(min(_LOWEST_HZ, highest / 4), highest, _BANDS + 1)
    return np.unique(np.round(hertz * n_fft / sample_rate).astype(int).clip(1, n_fft // 2 + 1))
