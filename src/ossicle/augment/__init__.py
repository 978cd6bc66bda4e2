"""Augmentations: random changes of waveforms (B, N) and log-mels (B, 1, F, T), by one contract."""

from __future__ import annotations

from ossicle.augment.base import Augmentation
from ossicle.augment.compose import Compose, OneOf, SomeOf, rows
from ossicle.augment.spectrogram import (
    BandMask,
    Gain,
    LinearFader,
    LogMixup,
    ResizeCrop,
    TimeMask,
)
from ossicle.augment.waveform import Mix, Noise, Polarity, RandomGain, Reverb, Shift, Speed

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "band_mask": BandMask,
    "time_mask": TimeMask,
    "resize_crop": ResizeCrop,
    "log_mixup": LogMixup,
    "linear_fader": LinearFader,
    "gain": Gain,
    "random_gain": RandomGain,
    "polarity": Polarity,
    "shift": Shift,
    "noise": Noise,
    "mix": Mix,
    "reverb": Reverb,
    "speed": Speed,
}

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "BandMask",
    "Compose",
    "Gain",
    "LinearFader",
    "LogMixup",
    "Mix",
    "Noise",
    "OneOf",
    "Polarity",
    "RandomGain",
    "ResizeCrop",
    "Reverb",
    "Shift",
    "SomeOf",
    "Speed",
    "TimeMask",
    "rows",
]
