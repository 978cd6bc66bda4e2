"""The complex short-time Fourier transform and its inverse: there and back without loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ossicle.errors import OssicleError

# Half a frame is added on both sides, so that every sample is under windows of full sum.
_PAD_MODE = "constant"


class Fourier(NamedTuple):
    """A Fourier transform of frames under the square root of a Hann window, both ways.

    Analysis and synthesis have the same window (Griffin & Lim, 1984, eq. 6: least squares), so a
    mask is applied to the spectrum and what it makes of the frames' edges fades out.

    Attributes:
        n_fft: length of a frame, samples.
        hop_length: from one frame to the next, samples, at most ``n_fft // 2``.
    """

    n_fft: int
    hop_length: int

    @property
    def n_bins(self) -> int:
        """F, from 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    def num_frames(self, n_samples: int) -> int:
        """T for N samples: 1 + N // hop_length."""
        return 1 + n_samples // self.hop_length

    def analyse(self, samples: Tensor) -> Tensor:
        """(..., N) float32 -> (..., F, T) complex64; frame t is centred on t * hop_length."""
        flat = samples.reshape(-1, samples.shape[-1])
        spectra = torch.stft(
            flat,
            self.n_fft,
            self.hop_length,
            window=self._window(samples),
            center=True,
            pad_mode=_PAD_MODE,
            return_complex=True,
        )
        return spectra.reshape(*samples.shape[:-1], *spectra.shape[-2:])

    def synthesise(self, spectra: Tensor, n_samples: int) -> Tensor:
        """(..., F, T) complex64 -> (..., N) float32; ``synthesise(analyse(x), N)`` is x."""
        flat = spectra.reshape(-1, *spectra.shape[-2:])
        samples = torch.istft(
            flat,
            self.n_fft,
            self.hop_length,
            window=self._window(flat.real),
            center=True,
            length=n_samples,
        )
        return samples.reshape(*spectra.shape[:-2], n_samples)

    def _window(self, like: Tensor) -> Tensor:
        # Made at each call: a few hundred cosines, and no buffer that a bundle would have to hold.
        window = torch.hann_window(self.n_fft, dtype=torch.float64, device=like.device)
        return window.sqrt().to(like.dtype)


def check_fourier(n_fft: int, hop_length: int) -> Fourier:
    """The transform, if its sizes can be inverted.

    Raises:
        OssicleError: ``n_fft`` is odd or below 4, or the hop above half of it.
    """
    if n_fft < 4 or n_fft % 2 or not 1 <= hop_length <= n_fft // 2:
        raise OssicleError(
            f"a transform of {n_fft} samples every {hop_length} cannot be inverted: n_fft must be "
            "even and hop_length at most half of it"
        )
    return Fourier(n_fft, hop_length)
