"""Mel filter banks after Slaney and HTK, and the log-mel front end."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.frontend.base import FrontEnd, require_choice, require_positive
from ossicle.frontend.scaling import Reference, Scaling
from ossicle.frontend.stft import Spectrogram

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, then 27 mels to a factor of 6.4.
SLANEY_HZ_PER_MEL = 200 / 3
SLANEY_CORNER_HZ = 1000.0
SLANEY_CORNER_MEL = SLANEY_CORNER_HZ / SLANEY_HZ_PER_MEL
SLANEY_LOG_STEP = np.log(6.4) / 27

# Bands multiplied together: few enough to skip most of the zeros of the filter bank.
BANDS_PER_PRODUCT = 16


def hz_to_mel(frequencies: np.ndarray | float, mel_scale: str = "slaney") -> np.ndarray:
    """Hz to mel: "slaney", or "htk" (2595 log10(1 + f / 700), the HTK book, section 5.4)."""
    require_choice("mel_scale", mel_scale, ("slaney", "htk"))
    f = np.asarray(frequencies, dtype=np.float64)
    if mel_scale == "htk":
        return 2595 * np.log10(1 + f / 700)
    above = np.log(np.maximum(f, SLANEY_CORNER_HZ) / SLANEY_CORNER_HZ) / SLANEY_LOG_STEP
    return np.where(f < SLANEY_CORNER_HZ, f / SLANEY_HZ_PER_MEL, SLANEY_CORNER_MEL + above)


def mel_to_hz(mels: np.ndarray | float, mel_scale: str = "slaney") -> np.ndarray:
    """The inverse of ``hz_to_mel``."""
    require_choice("mel_scale", mel_scale, ("slaney", "htk"))
    m = np.asarray(mels, dtype=np.float64)
    if mel_scale == "htk":
        return 700 * (10 ** (m / 2595) - 1)
    above = SLANEY_CORNER_HZ * np.exp(SLANEY_LOG_STEP * (m - SLANEY_CORNER_MEL))
    return np.where(m < SLANEY_CORNER_MEL, m * SLANEY_HZ_PER_MEL, above)


def mel_edges_hz(n_mels: int, fmin: float, fmax: float, mel_scale: str = "slaney") -> np.ndarray:
    """(n_mels + 2,) frequencies equally spaced in mel; band i runs from i over i + 1 to i + 2."""
    low, high = hz_to_mel(np.array([fmin, fmax]), mel_scale)
    return mel_to_hz(np.linspace(low, high, n_mels + 2), mel_scale)


def mel_filters(
    *,
    sample_rate: float,
    n_fft: int,
    n_mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    mel_scale: str = "slaney",
    norm: str | None = "slaney",
    triangles: str = "hz",
) -> np.ndarray:
    """Triangular filters, (n_mels, n_fft // 2 + 1) float64.

    Args:
        sample_rate: Hz.
        n_fft: length of the transform, samples.
        n_mels: F, the number of bands.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz; None is half the sample rate.
        mel_scale: "slaney" or "htk".
        norm: "slaney" divides each band by half its width in Hz (equal areas); None leaves
            peaks of 1.
        triangles: "hz", straight sides over frequency (librosa), or "mel", straight sides over
            mel (TensorFlow's linear_to_mel_weight_matrix). The bin of 0 Hz weighs 0 in both.

    Raises:
        OssicleError: an argument is out of its range.
    """
    require_positive(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)
    require_choice("norm", norm, ("slaney", None))
    require_choice("triangles", triangles, ("hz", "mel"))
    nyquist = sample_rate / 2
    fmax = nyquist if fmax is None else fmax
    if not 0 <= fmin < fmax <= nyquist:
        raise OssicleError(
            f"fmin {fmin:g} Hz and fmax {fmax:g} Hz: they must rise within 0 and half the "
            f"sample rate, {nyquist:g} Hz"
        )
    edges_hz = mel_edges_hz(n_mels, fmin, fmax, mel_scale)
    bins_hz = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    if triangles == "hz":
        edges, bins = edges_hz, bins_hz
    else:
        edges, bins = hz_to_mel(edges_hz, mel_scale), hz_to_mel(bins_hz, mel_scale)
    lower, peak, upper = (edges[i : i + n_mels, None] for i in range(3))
    filters = np.minimum((bins - lower) / (peak - lower), (upper - bins) / (upper - peak))
    filters = np.maximum(filters, 0.0)
    if norm == "slaney":
        filters *= 2 / (edges_hz[2:] - edges_hz[:-2])[:, None]
    return filters


class FilterBank(nn.Module):
    """Product with a banded matrix, (..., K, T) -> (..., F, T), skipping most of its zeros.

    Args:
        filters: (F, number of bins), each row non-zero on a short run of bins only.

    Attributes:
        bins: (first, end) of the bins with any weight; K = end - first of them are the input.
    """

    def __init__(self, filters: np.ndarray) -> None:
        super().__init__()
        self.bins = self._support(filters)
        self._spans: list[tuple[int, int]] = []
        for start in range(0, len(filters), BANDS_PER_PRODUCT):
            rows = filters[start : start + BANDS_PER_PRODUCT]
            first, end = self._support(rows)
            # Cast last: the arithmetic above is float64.
            weights = torch.from_numpy(rows[:, first:end].copy()).float()
            self.register_buffer(f"weights_{len(self._spans)}", weights, persistent=False)
            self._spans.append((first - self.bins[0], end - self.bins[0]))

    @staticmethod
    def _support(rows: np.ndarray) -> tuple[int, int]:
        """(first, end) of the columns with any weight; one column where there is none."""
        columns = np.flatnonzero(rows.any(axis=0))
        return (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K, T) -> (..., F, T)."""
        products = [
            torch.matmul(self.get_buffer(f"weights_{i}"), x[..., first:end, :])
            for i, (first, end) in enumerate(self._spans)
        ]
        return torch.cat(products, dim=-2)


def raised(waveform: Tensor, least_db: float) -> Tensor:
    """Each of (B, N) amplified to a root mean square of ``least_db`` (full scale: 0), if below."""
    # float64: the squares of what is all but silent are not float32 numbers.
    rms = waveform.double().square().mean(-1, keepdim=True).sqrt()
    gain = 10 ** (least_db / 20) / torch.where(rms > 0, rms, torch.inf)
    return (waveform * gain.clamp(min=1.0)).to(waveform.dtype)


class LogMel(FrontEnd):
    """Mel spectrogram, by default in decibels: (B, N) -> (B, 1, n_mels, T).

    With the defaults it is librosa's ``power_to_db(melspectrogram(...), ref=np.max)``. YAMNet's
    input is ``LogMel(16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, fmin=125,
    fmax=7500, mel_scale="htk", triangles="mel", norm=None, power=1.0, scaling="log",
    offset=0.001, center=False, window_align="left")``. Kaldi's mel banks are those of
    ``mel_scale="htk", triangles="mel", norm=None``.

    Args:
        sample_rate: Hz.
        n_fft: length of the transform, samples.
        win_length: length of the window, samples; None is ``n_fft``.
        hop_length: from one frame to the next, samples.
        n_mels, fmin, fmax, mel_scale, norm, triangles: see ``mel_filters``.
        power: 1.0 sums magnitudes, 2.0 powers.
        scaling, offset, reference, top_db, a_weighting, standardise_per_frequency,
            standardise_per_sample, scale, shift: see ``Scaling``.
        center, pad_mode, window, window_align: see ``Spectrogram``, also for the number of
            frames and for short clips.
        preemphasis: a; not 0, the input is x[n + 1] - a x[n], a sample shorter.
        least_db: root mean square, in dB of full scale (1), to which a quieter waveform is raised
            before all else; silence stays silence. None: every waveform as it is.

    Attributes:
        frequencies: (n_mels,) centres of the bands, Hz.

    Raises:
        OssicleError: an argument is out of its range.

    Warns:
        UserWarning: some bands lie between two bins of the transform, and are always silent.
    """

    preemphasis: float
    least_db: float | None

    def __init__(
        self,
        sample_rate: int,
        n_fft: int = 512,
        win_length: int | None = None,
        hop_length: int = 256,
        n_mels: int = 96,
        fmin: float = 0.0,
        fmax: float | None = None,
        mel_scale: str = "slaney",
        norm: str | None = "slaney",
        power: float = 2.0,
        scaling: str = "db",
        offset: float = 1e-10,
        reference: Reference = "max",
        top_db: float | None = 80.0,
        center: bool = True,
        pad_mode: str = "constant",
        window: str = "hann",
        window_align: str = "center",
        triangles: str = "hz",
        a_weighting: bool = False,
        standardise_per_frequency: bool = False,
        standardise_per_sample: bool = False,
        scale: float = 1.0,
        shift: float = 0.0,
        preemphasis: float = 0.0,
        least_db: float | None = None,
    ) -> None:
        super().__init__(locals())
        if least_db is not None and not math.isfinite(least_db):
            raise OssicleError(f"least_db is {least_db!r}: it must be finite, or None")
        if not 0 <= preemphasis <= 1:
            raise OssicleError(f"preemphasis is {preemphasis!r}: it must be from 0 to 1")
        filters = mel_filters(
            sample_rate=sample_rate,
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            mel_scale=mel_scale,
            norm=norm,
            triangles=triangles,
        )
        silent = int((~filters.any(axis=1)).sum())
        if silent:
            warnings.warn(
                f"{silent} of {n_mels} mel bands lie between two bins of the transform and are "
                "always silent: use fewer bands or a longer n_fft",
                stacklevel=2,
            )
        self.filter_bank = FilterBank(filters)
        self.spectrogram = Spectrogram(
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            power=power,
            center=center,
            pad_mode=pad_mode,
            window=window,
            window_align=window_align,
            bins=self.filter_bank.bins,
        )
        self.hop_s = hop_length / sample_rate
        self.n_bands = n_mels
        top_hz = sample_rate / 2 if fmax is None else fmax
        self.frequencies = mel_edges_hz(n_mels, fmin, top_hz, mel_scale)[1:-1]
        self.rescale = Scaling(
            self.frequencies,
            power=power,
            scaling=scaling,
            offset=offset,
            reference=reference,
            top_db=top_db,
            a_weighting=a_weighting,
            standardise_per_frequency=standardise_per_frequency,
            standardise_per_sample=standardise_per_sample,
            scale=scale,
            shift=shift,
        )

    def num_frames(self, n_samples: int) -> int:
        """T for N = ``n_samples``: see ``Spectrogram``."""
        return self.spectrogram.num_frames(n_samples - (self.preemphasis > 0))

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, n_mels, T)."""
        if self.least_db is not None:
            waveform = raised(waveform, self.least_db)
        if self.preemphasis > 0:
            waveform = waveform[:, 1:] - self.preemphasis * waveform[:, :-1]
        return self.rescale(self.spectrogram(waveform, self.filter_bank))
