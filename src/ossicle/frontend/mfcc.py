"""Mel-frequency cepstral coefficients and their deltas."""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import savgol_filter
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.frontend.base import FrontEnd, require_choice
from ossicle.frontend.mel import LogMel
from ossicle.frontend.scaling import Reference


def first_difference(x: Tensor, order: int = 1) -> Tensor:
    """The ``order``-th difference over time, (..., T) -> (..., T).

    ``y[t] = x[t] - x[t - 1]``, applied ``order`` times; the first ``order`` frames, which have
    no predecessor, repeat frame ``order``. With T <= ``order`` all is 0.
    """
    if x.shape[-1] <= order:
        return torch.zeros_like(x)
    for _ in range(order):
        x = x[..., 1:] - x[..., :-1]
    return torch.cat([x[..., :1].expand(*x.shape[:-1], order), x], dim=-1)


class SavitzkyGolay(nn.Module):
    """Derivative over time of the local polynomial fit, (..., T) -> (..., T).

    The ``order``-th derivative of a polynomial of degree ``order`` fitted to ``width`` frames
    (Savitzky & Golay 1964), as librosa.feature.delta. The half window at either end is read from
    the fit to the first and the last ``width`` frames; with T < ``width`` the first and the last
    frame are repeated instead.

    Args:
        width: frames, odd, above ``order``.
        order: of the derivative, 1 or more.

    Raises:
        OssicleError: ``width`` is even or too small.
    """

    kernel: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, width: int, order: int = 1) -> None:
        super().__init__()
        if width < 3 or width % 2 == 0 or width <= order:
            raise OssicleError(f"delta_width is {width!r}: it must be odd and at least 3")
        self.width = width
        # Row t is the weights of the `width` frames in the derivative at frame t.
        rows = savgol_filter(np.eye(width), width, polyorder=order, deriv=order, axis=0)
        half = width // 2
        for name, part in (
            ("left", rows[:half]),
            ("kernel", rows[half]),
            ("right", rows[half + 1 :]),
        ):
            self.register_buffer(name, torch.from_numpy(part.copy()).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T) -> (..., T)."""
        half = self.width // 2
        if x.shape[-1] < self.width:
            first, last = x[..., :1], x[..., -1:]
            ends = (*x.shape[:-1], half)
            return self._inner(torch.cat([first.expand(ends), x, last.expand(ends)], dim=-1))
        left = x[..., : self.width] @ self.left.T
        right = x[..., -self.width :] @ self.right.T
        return torch.cat([left, self._inner(x), right], dim=-1)

    def _inner(self, x: Tensor) -> Tensor:
        """(..., T) -> (..., T - width + 1)."""
        return x.unfold(-1, self.width, 1) @ self.kernel


class MFCC(FrontEnd):
    """Cepstral coefficients of the mel spectrogram in dB: (B, N) -> (B, 1, F, T).

    The first ``n_mfcc`` coefficients of the orthonormal DCT-II over the bands, as
    librosa.feature.mfcc; F = ``n_mfcc * (1 + deltas)``: coefficients, first and second deltas.

    The defaults at 12 kHz with ``deltas=2`` are the baseline of Choi et al. 2017 (arXiv
    1703.09179), which takes differences without padding: its deltas are frames 1 and on of the
    first ones here, and frames 2 and on of the second ones.

    Args:
        sample_rate: Hz.
        n_mfcc: coefficients, at most ``n_mels``.
        n_fft: length of the transform, samples.
        win_length: length of the window, samples; None is ``n_fft``.
        hop_length: from one frame to the next, samples.
        n_mels, fmin, fmax, mel_scale, norm, triangles: see ``mel_filters``.
        power: 1.0 sums magnitudes, 2.0 powers.
        offset, reference, top_db: of the decibels, see ``Scaling``.
        deltas: 0, 1 (first) or 2 (first and second).
        delta: "difference" (``first_difference``) or "savgol" (``SavitzkyGolay``).
        delta_width: frames, for "savgol".
        center, pad_mode, window, window_align: see ``Spectrogram``, also for the number of
            frames and for short clips.

    Raises:
        OssicleError: an argument is out of its range.
    """

    dct: Tensor
    delta: str
    deltas: int

    def __init__(
        self,
        sample_rate: int,
        n_mfcc: int = 20,
        n_fft: int = 2048,
        win_length: int | None = None,
        hop_length: int = 512,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        mel_scale: str = "slaney",
        norm: str | None = "slaney",
        power: float = 2.0,
        offset: float = 1e-10,
        reference: Reference = 1.0,
        top_db: float | None = 80.0,
        deltas: int = 0,
        delta: str = "difference",
        delta_width: int = 9,
        center: bool = True,
        pad_mode: str = "constant",
        window: str = "hann",
        window_align: str = "center",
        triangles: str = "hz",
    ) -> None:
        super().__init__(locals())
        if not 1 <= n_mfcc <= n_mels:
            raise OssicleError(f"n_mfcc is {n_mfcc!r}: it must be from 1 to n_mels, {n_mels}")
        require_choice("deltas", deltas, (0, 1, 2))
        require_choice("delta", delta, ("difference", "savgol"))
        self.log_mel = LogMel(
            sample_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            mel_scale=mel_scale,
            norm=norm,
            power=power,
            offset=offset,
            reference=reference,
            top_db=top_db,
            center=center,
            pad_mode=pad_mode,
            window=window,
            window_align=window_align,
            triangles=triangles,
        )
        self.hop_s = self.log_mel.hop_s
        self.n_bands = n_mfcc * (1 + deltas)
        matrix = dct(np.eye(n_mels), type=2, norm="ortho", axis=0)[:n_mfcc]
        self.register_buffer("dct", torch.from_numpy(matrix).float(), persistent=False)
        self.savgol = nn.ModuleList(
            SavitzkyGolay(delta_width, order) for order in range(1, deltas + 1) if delta == "savgol"
        )

    def num_frames(self, n_samples: int) -> int:
        """T for N = ``n_samples``: see ``Spectrogram``."""
        return self.log_mel.num_frames(n_samples)

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, n_mfcc * (1 + deltas), T)."""
        mfcc = torch.matmul(self.dct, self.log_mel.transform(waveform))
        if self.delta == "savgol":
            parts = [mfcc, *(derivative(mfcc) for derivative in self.savgol)]
        else:
            orders = range(1, self.deltas + 1)
            parts = [mfcc, *(first_difference(mfcc, order) for order in orders)]
        return torch.cat(parts, dim=-2)
