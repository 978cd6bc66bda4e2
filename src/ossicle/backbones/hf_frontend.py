"""What networks of the transformers library hear: each feature extractor's numbers, in torch.

B batch, N samples, F bands, T frames, P = the samples of the window that a network takes. Lengths
and constants come from the model's ``preprocessor_config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ossicle.errors import OssicleError
from ossicle.frontend import FrontEnd, LogMel
from ossicle.frontend.mel import mel_filters

# Of ``ASTFeatureExtractor``, which has them at any sample rate: samples of a frame and from one to
# the next, of the transform, Kaldi's pre-emphasis, and the least power told from silence.
FRAME, HOP, N_FFT = 400, 160, 512
PREEMPHASIS = 0.97
KALDI_FLOOR = 1.192092955078125e-07
# Added to the variance by ``Wav2Vec2FeatureExtractor``.
VARIANCE_FLOOR = 1e-7
MAX_WINDOW_SAMPLES = 80_000_000
# Beyond these only memory would be eaten.
MAX_N_FFT, MAX_BANDS, MAX_RATE = 65_536, 2048, 1_000_000

_WAVE: dict[str, type] = {"sampling_rate": int, "do_normalize": bool}
_AST = {
    **_WAVE,
    "num_mel_bins": int,
    "mean": float,
    "std": float,
}
_WHISPER: dict[str, type] = {
    "sampling_rate": int,
    "feature_size": int,
    "hop_length": int,
    "n_fft": int,
}
_CLAP: dict[str, type] = {
    **_WHISPER,
    "fft_window_size": int,
    "max_length_s": float,
    "frequency_min": float,
    "frequency_max": float,
    "truncation": str,
    "padding": str,
}
del _CLAP["n_fft"]
SETTINGS: dict[str, dict[str, type]] = {
    "wave": _WAVE,
    "ast": _AST,
    "whisper": _WHISPER,
    "clap": _CLAP,
}


def read_settings(kind: str, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that matter, of the right types and in a real range.

    Args:
        kind: a key of ``SETTINGS``.
        preprocessor: what ``preprocessor_config.json`` holds.

    Raises:
        OssicleError: one is missing, of another type, or out of any real range.
    """
    settings: dict[str, Any] = {}
    for name, wanted in SETTINGS[kind].items():
        value = preprocessor.get(name)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise OssicleError(f"preprocessor: {name} is {ascii(value)[:40]}, not of {wanted}")
        settings[name] = value
    limits = {
        "sampling_rate": MAX_RATE,
        "num_mel_bins": MAX_BANDS,
        "feature_size": MAX_BANDS,
        "n_fft": MAX_N_FFT,
        "fft_window_size": MAX_N_FFT,
        "hop_length": MAX_N_FFT,
        "max_length_s": MAX_WINDOW_SAMPLES / settings["sampling_rate"] if settings else 1,
        "std": 1e6,
    }
    for name, limit in limits.items():
        if name in settings and not 0 < settings[name] <= limit:
            raise OssicleError(f"preprocessor: {name} is out of any real range")
    return settings


def normalised(waveform: Tensor) -> Tensor:
    """(B, N) -> (B, N) of mean 0 and variance 1: ``(x - mean) / sqrt(variance + 1e-7)``.

    As ``Wav2Vec2FeatureExtractor`` does it: unlike ``Waveform(standardise_per_sample=True)`` it
    leaves what is nearly silent quiet.
    """
    variance, mean = torch.var_mean(waveform, -1, correction=0, keepdim=True)
    return (waveform - mean) / torch.sqrt(variance + VARIANCE_FLOOR)


class KaldiFilterBank(FrontEnd):
    """Kaldi's log-mel bands as AST takes them: (B, N) -> (B, 1, n_mels, T).

    Frames of 400 samples every 160, each without its mean and with pre-emphasis 0.97 of its own, a
    symmetric Hann window, 512 points, powers, triangles even on the mel axis from 20 Hz, natural
    logarithm; T = 1 + (max(N, 400) - 400) // 160. Then ``(x - mean) / (2 std)``.

    Args:
        sample_rate: Hz.
        n_mels: F.
        mean, std: of the bands in the training data; 0 and 0.5 change nothing.
    """

    mean: float
    std: float
    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, n_mels: int, mean: float = 0.0, std: float = 0.5) -> None:
        super().__init__(locals())
        self.hop_s = HOP / sample_rate
        self.n_bands = n_mels
        # Kaldi's scale, 1127 ln(1 + f / 700), is HTK's.
        filters = mel_filters(
            sample_rate=sample_rate,
            n_fft=N_FFT,
            n_mels=n_mels,
            fmin=20.0,
            mel_scale="htk",
            norm=None,
            triangles="mel",
        )
        # Quiet bands beside loud ones are right only in float64; it costs little beside a network.
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        window = torch.from_numpy(np.hanning(FRAME))
        self.register_buffer("window", window, persistent=False)

    def num_frames(self, n_samples: int) -> int:
        """T, by the formula above."""
        return 1 + (max(n_samples, FRAME) - FRAME) // HOP

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, n_mels, T)."""
        if waveform.shape[1] < FRAME:
            waveform = functional.pad(waveform, (0, FRAME - waveform.shape[1]))
        frames = waveform.double().unfold(-1, FRAME, HOP)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - PREEMPHASIS * before) * self.window
        power = torch.fft.rfft(frames, n=N_FFT).abs().square()
        bands = (power @ self.filters.mT).clamp(min=KALDI_FLOOR).log()
        return ((bands - self.mean) / (2 * self.std)).float().mT


def kaldi_bands(settings: Mapping[str, Any]) -> KaldiFilterBank:
    """``ASTFeatureExtractor``, without its padding."""
    scale = {"mean": settings["mean"], "std": settings["std"]} if settings["do_normalize"] else {}
    return KaldiFilterBank(settings["sampling_rate"], settings["num_mel_bins"], **scale)


def whisper_bands(settings: Mapping[str, Any]) -> LogMel:
    """``WhisperFeatureExtractor``, one frame more: its last is dropped there.

    ``(max(log10 mel, maximum - 8) + 4) / 4`` is (dB + 40) / 40 of a range of 80 dB.
    """
    return LogMel(
        settings["sampling_rate"],
        n_fft=settings["n_fft"],
        hop_length=settings["hop_length"],
        n_mels=settings["feature_size"],
        # Written into that extractor, whatever the rate.
        fmax=8000.0,
        reference=1.0,
        top_db=80.0,
        pad_mode="reflect",
        shift=40.0,
        scale=1 / 40,
    )


def clap_bands(settings: Mapping[str, Any]) -> LogMel:
    """``ClapFeatureExtractor``: decibels, HTK's bands for networks with fusion, else Slaney's."""
    fused = settings["truncation"] == "fusion"
    return LogMel(
        settings["sampling_rate"],
        n_fft=settings["fft_window_size"],
        hop_length=settings["hop_length"],
        n_mels=settings["feature_size"],
        fmin=settings["frequency_min"],
        fmax=settings["frequency_max"],
        mel_scale="htk" if fused else "slaney",
        norm=None if fused else "slaney",
        reference=1.0,
        top_db=None,
        pad_mode="reflect",
    )


def clap_window(waveform: Tensor, n_samples: int, padding: str) -> Tensor:
    """(B, N) with N <= P -> (B, P): repeated whole and filled with zeros ("repeatpad"), or so.

    Args:
        waveform: (B, N).
        n_samples: P.
        padding: "repeatpad", "repeat" (over and over, the last cut) or "pad" (zeros).
    """
    whole = n_samples // waveform.shape[1]
    if padding != "pad":
        waveform = waveform.repeat(1, whole + (padding == "repeat"))[:, :n_samples]
    return functional.pad(waveform, (0, n_samples - waveform.shape[1]))
