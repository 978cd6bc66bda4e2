"""Fourier transforms of rows whose bits do not depend on how many rows there are."""

from __future__ import annotations

import torch
from torch import Tensor


def rfft(x: Tensor, n_fft: int) -> Tensor:
    """(B, N) -> (B, n_fft // 2 + 1) complex, each row cut or filled with zeros to ``n_fft``."""
    return torch.fft.rfft(_several(x), n_fft)[: len(x)]


def irfft(spectrum: Tensor, n_fft: int) -> Tensor:
    """(B, n_fft // 2 + 1) complex -> (B, n_fft)."""
    return torch.fft.irfft(_several(spectrum), n_fft)[: len(spectrum)]


def _several(x: Tensor) -> Tensor:
    # A single row is transformed along with a copy of itself: MKL has another way for one row than
    # for several, with other last bits.
    return x.expand(2, -1) if len(x) == 1 else x
