"""Noise made like the noise that is in a recording: as loud in each band, on the whole.

Remixing and `choosing.alignment` ask that the noise that is added and the noise that is there are
alike. Where one is 10 dB above the other, one of them outweighs what is to be told; so the noise is
filtered to the level that each band of the recording has in its quieter moments, in which there is
no foreground as a rule.

Symbols: N samples, F bins, T frames, B bands; time is last.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ossicle.separators.fourier import Fourier

# A band is as loud as this share of its frames is not: there is foreground in the others.
QUIET = 0.2
FRAME_S = 0.046
BANDS = 24
# Further than this noise is not turned up or down in a band: where nothing is, nothing is matched.
MOST_DB = 30.0


def matched(recording: np.ndarray, noise: np.ndarray, sample_rate: int) -> np.ndarray:
    """Noise (N,) filtered to the recording's (N,) quiet level in each of 24 bands, float32.

    Args:
        recording: (N,) with noise, and now and then something else.
        noise: (N,) noise alone.
        sample_rate: Hz.
    """
    hop = max(1, round(FRAME_S * sample_rate / 4))
    fourier = Fourier(4 * hop, hop)
    both = torch.from_numpy(np.stack([recording, noise]).astype(np.float32))
    spectra = fourier.analyse(both)
    hats = _hats(fourier.n_bins)
    levels = _quiet(hats @ spectra.abs().square())
    most = 10 ** (MOST_DB / 10)
    tiny = 1e-12 * levels.amax(-1, keepdim=True) + 1e-20
    gains = ((levels[0] + tiny[0]) / (levels[1] + tiny[1])).clamp(1 / most, most).sqrt()
    # The hats add up to 1 in each bin: between two bands' centres the gain is between theirs.
    found = fourier.synthesise((hats.T @ gains)[:, None] * spectra[1], both.shape[-1])
    return found.numpy()


def _quiet(power: Tensor) -> Tensor:
    """(..., B, T) -> (..., B): what `QUIET` of the frames do not reach."""
    place = max(1, math.ceil(QUIET * power.shape[-1]))
    return power.kthvalue(place, dim=-1).values


def _hats(n_bins: int) -> Tensor:
    """(B, F) triangles evenly spaced in the logarithm of the frequency, at 1 to both ends."""
    bins = np.log2(np.arange(n_bins) + 4.0)  # even below the fourth bin, where bands have one each
    centres = np.linspace(bins[0], bins[-1], min(BANDS, n_bins))
    rows = [np.interp(bins, centres, row) for row in np.eye(len(centres))]
    return torch.from_numpy(np.stack(rows).astype(np.float32))
