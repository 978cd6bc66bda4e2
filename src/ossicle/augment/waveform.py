"""Augmentations of waveforms (B, N): B items, N samples; time is last. Nothing is clipped.

A power is the mean square of an item's N samples; SNRs are between powers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import soxr
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ossicle.augment.base import (
    Augmentation,
    Drawn,
    fractions,
    limits_of,
    normal,
    seeds,
    uniform,
)
from ossicle.augment.fourier import irfft, rfft
from ossicle.errors import OssicleError

COLORS = ("white", "pink")


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(dim=1, keepdim=True).sqrt()


def _scaled_to(x: Tensor, rms: Tensor) -> Tensor:
    # x at another root mean square; zeros stay zeros, and so does what is too soft for float32.
    now = _rms(x)
    return x * torch.where(now > 0, rms / now, 0.0)


def _at_snr(x: Tensor, other: Tensor, snr_db: Tensor) -> Tensor:
    return x + _scaled_to(other, _rms(x) * 10 ** (-snr_db[:, None] / 20))


class RandomGain(Augmentation):
    """Makes an item louder or softer: (B, N) -> (B, N).

    Args:
        gain_db: smallest and largest gain; even in decibels between them.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(self, gain_db: Sequence[float] = (-12.0, 6.0), p: float = 1.0) -> None:
        super().__init__(p)
        self.gain_db = limits_of("gain_db", gain_db)

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {"gain_db": uniform(n, self.gain_db, generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        return x * 10 ** (drawn["gain_db"][:, None] / 20)


class Polarity(Augmentation):
    """Turns an item upside down: (B, N) -> (B, N), x -> -x.

    Args:
        p: probability of an item to be changed.

    Raises:
        OssicleError: ``p`` is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        return -x


class Shift(Augmentation):
    """Moves an item in time, earlier or later: (B, N) -> (B, N).

    Args:
        max_fraction: farthest shift as a part of N; every whole number of samples up to it is
            equally likely, either way.
        circular: what leaves at one end comes in at the other; else zeros come in.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(self, max_fraction: float = 0.5, circular: bool = True, p: float = 1.0) -> None:
        super().__init__(p)
        if not 0 < max_fraction <= 1:
            raise OssicleError(f"max_fraction {max_fraction}: choose it above 0, up to 1")
        self.max_fraction, self.circular = max_fraction, circular

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        # In float64: of a long item float32 could not name every sample.
        return {"shift": fractions(n, 1, generator).double()[:, 0]}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        size = x.shape[1]
        farthest = math.floor(self.max_fraction * size)
        shifts = (drawn["shift"] * (2 * farthest + 1)).floor().long() - farthest
        out = torch.zeros_like(x)
        # Copies of whole runs: many times faster than gathering each sample by its index.
        for row, source, shift in zip(out, x, shifts.tolist(), strict=True):
            if shift >= 0:
                row[shift:] = source[: size - shift]
                if self.circular:
                    row[:shift] = source[size - shift :]
            else:
                row[:shift] = source[-shift:]
                if self.circular:
                    row[shift:] = source[:-shift]
        return out


class Noise(Augmentation):
    """Adds noise at an SNR relative to the item's own power: (B, N) -> (B, N).

    White noise is Gaussian. The power of pink noise falls as 1 / frequency (3 dB an octave), down
    to a period of the whole item; it has no constant part.

    Args:
        snr_db: smallest and largest SNR; even in decibels between them.
        color: "white", "pink", or "any": one of them for each item.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(
        self, snr_db: Sequence[float] = (5.0, 40.0), color: str = "any", p: float = 1.0
    ) -> None:
        super().__init__(p)
        if color not in (*COLORS, "any"):
            raise OssicleError(f"unknown color {color!r}: choose one of {', '.join(COLORS)}, any")
        self.snr_db, self.color = limits_of("snr_db", snr_db), color

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {
            "snr_db": uniform(n, self.snr_db, generator),
            "seed": seeds(n, generator),
            "color": fractions(n, 1, generator)[:, 0],
        }

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        noise = normal(drawn["seed"], x.shape[1])
        pink = drawn["color"] < {"white": 0.0, "pink": 1.0, "any": 0.5}[self.color]
        if pink.any():
            noise[pink] = _pink(noise[pink])
        return _at_snr(x, noise, drawn["snr_db"])


def _pink(white: Tensor) -> Tensor:
    # (B, N) -> (B, N): spectrum over the square root of frequency, without the constant part.
    size = white.shape[1]
    spectrum = rfft(white, size)
    slope = torch.arange(spectrum.shape[1], device=white.device).clamp(min=1).rsqrt()
    slope[0] = 0
    return irfft(spectrum * slope, size)


class Mix(Augmentation):
    """Adds a partner at an SNR: (B, N), and partners alike -> (B, N).

    A silent partner adds nothing, a silent item stays silent.

    Args:
        snr_db: smallest and largest power of the item over that of its partner; even in decibels.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"
    mixes: ClassVar[bool] = True

    def __init__(self, snr_db: Sequence[float] = (0.0, 20.0), p: float = 1.0) -> None:
        super().__init__(p)
        self.snr_db = limits_of("snr_db", snr_db)

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {"snr_db": uniform(n, self.snr_db, generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        assert partners is not None
        return _at_snr(x, partners, drawn["snr_db"])


class Reverb(Augmentation):
    """Puts an item into a made-up room: (B, N) -> (B, N), its power and its start kept.

    The impulse response is 1 at time 0, the direct sound, and behind it Gaussian noise that decays
    by 60 dB in T60. The tail ends with the longest T60 or after N samples; what rings on behind the
    item's end is cut off.

    Args:
        sample_rate: of the waveforms (Hz).
        t60_s: shortest and longest T60 (s).
        direct_db: smallest and largest energy of the direct sound over that of the tail; even in
            decibels.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(
        self,
        sample_rate: int,
        t60_s: Sequence[float] = (0.1, 0.8),
        direct_db: Sequence[float] = (-3.0, 12.0),
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if not sample_rate > 0:
            raise OssicleError(f"sample_rate {sample_rate}: choose it above 0 (Hz)")
        self.sample_rate = sample_rate
        self.t60_s = limits_of("t60_s", t60_s, 0.001)
        self.direct_db = limits_of("direct_db", direct_db)

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {
            "t60_s": uniform(n, self.t60_s, generator),
            "direct_db": uniform(n, self.direct_db, generator),
            "seed": seeds(n, generator),
        }

    def impulse_responses(self, drawn: Drawn, size: int) -> Tensor:
        """(B, L) float32, the rooms of drawn numbers for items of ``size`` samples.

        L = min(size, 1 + longest T60 x sample_rate).
        """
        length = min(size, 1 + math.ceil(self.t60_s[1] * self.sample_rate))
        out = normal(drawn["seed"], length)
        t = torch.arange(length, device=out.device) / self.sample_rate
        out *= torch.exp(t * (-3 * math.log(10) / drawn["t60_s"][:, None]))
        out[:, 0] = 0
        energy = out.square().sum(dim=1, keepdim=True).clamp(min=torch.finfo(out.dtype).tiny)
        out *= (10 ** (-drawn["direct_db"][:, None] / 10) / energy).sqrt()
        out[:, 0] = 1
        return out

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        size = x.shape[1]
        room = self.impulse_responses(drawn, size)
        n_fft = next_fast_len(size + room.shape[1] - 1, real=True)  # nothing wraps around
        spectrum = rfft(x, n_fft)
        # Row by row: the last bits of complex products depend on where in a tensor they stand.
        for row, other in zip(spectrum, rfft(room, n_fft), strict=True):
            row *= other
        wet = irfft(spectrum, n_fft)[:, :size]
        return _scaled_to(wet, _rms(x))


class Speed(Augmentation):
    """Plays an item faster or slower, pitch and all: (B, N) -> (B, N).

    Resampled by soxr, on the CPU. A longer result is cut to N at a random place; a shorter one lies
    at a random place among zeros.

    Args:
        factor: slowest and fastest speed; even in their logarithm.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, N)"

    def __init__(self, factor: Sequence[float] = (0.85, 1.18), p: float = 1.0) -> None:
        super().__init__(p)
        self.factor = limits_of("factor", factor, 0.1)
        if self.factor[1] > 10:
            raise OssicleError(f"factor {self.factor}: choose both from 0.1 to 10")

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        low, high = self.factor
        return {
            "factor": uniform(n, (math.log(low), math.log(high)), generator).exp(),
            "place": fractions(n, 1, generator)[:, 0],
        }

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        size = x.shape[1]
        source = x.cpu().numpy()
        out = torch.zeros(x.shape)
        for number, (factor, place) in enumerate(
            zip(drawn["factor"].tolist(), drawn["place"].tolist(), strict=True)
        ):
            played = torch.from_numpy(soxr.resample(source[number], factor, 1.0))
            room = abs(size - len(played))
            start = int(place * (room + 1))
            if len(played) >= size:
                out[number] = played[start : start + size]
            else:
                out[number, start : start + len(played)] = played
        return out.to(x.device)
