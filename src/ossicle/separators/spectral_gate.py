"""A spectral gate: what does not rise above the noise of its frequency is turned down.

Two ways to know the noise: stationary, its mean and spread in each bin, learnt from noise alone or
taken from a recording's own quietest frames; and running, a slow average around each frame (both as
in noisereduce: Sainburg, Thielk and Gentner 2020, PLoS Computational Biology 16(10), e1008228).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.errors import DataError, OssicleError
from ossicle.separators.base import MaskSeparator

KINDS = ("stationary", "running")
# Magnitudes below this, re full scale, are silence; no 16-bit recording has noise so low.
SILENCE_DB = -140.0
# Levels of Gaussian noise in a bin: mean (against that of the mean power) and standard deviation,
# -10 gamma / ln 10 and (10 / ln 10) pi / sqrt(6) dB.
NOISE_MEAN_DB, NOISE_STD_DB = -2.5068, 5.5702


class SpectralGate(MaskSeparator):
    """Turns down bins that are not above their threshold.

    With L the level of a bin (dB), M and D mean and standard deviation of the noise's level in it
    (dB), the bin is open as far as ``sigmoid((L - M - threshold * D) / slope_db)`` (stationary);
    running, M is the level of the running mean and D one dB. What is open is averaged over time
    and frequency, may open and close only so fast, and is never turned down below ``floor_db``.

    Where the noise was not learnt, its level in a bin is told from the level that a share
    ``quiet`` of the frames there does not reach, as if it were Gaussian.

    Args:
        sample_rate: Hz.
        sources: names of what passes and of what is held back.
        kind: "stationary" or "running".
        profile: the noise is learnt (``learn``) and kept; otherwise it is told from the quietest
            frames of what is heard. Stationary only.
        n_fft, hop_length: of the Fourier transform, samples.
        threshold: standard deviations (stationary) or dB (running) above the noise.
        slope_db: how soft the gate is; the smaller, the harder.
        floor_db: gain of a closed bin.
        quiet: share of frames that are taken for noise where it was not learnt.
        time_constant_s: of the running mean, in both directions.
        smooth_hz, smooth_ms: half widths of the triangle that openings are averaged with.
        attack_ms, release_ms: time constants of opening (heard ahead, so that no onset is lost)
            and of closing; 0: at once.

    Raises:
        OssicleError: a value is out of range.
    """

    def __init__(
        self,
        sample_rate: int = 22_050,
        sources: list[str] | None = None,
        kind: str = "stationary",
        profile: bool = False,
        n_fft: int = 1024,
        hop_length: int = 256,
        threshold: float = 1.5,
        slope_db: float = 2.0,
        floor_db: float = -20.0,
        quiet: float = 0.2,
        time_constant_s: float = 2.0,
        smooth_hz: float = 100.0,
        smooth_ms: float = 50.0,
        attack_ms: float = 0.0,
        release_ms: float = 50.0,
    ) -> None:
        sources = ["foreground", "background"] if sources is None else sources
        super().__init__(sample_rate, sources, n_fft, hop_length)
        self.keep(locals())
        if len(sources) != 2:
            raise OssicleError(f"a gate has two sources, what passes and the rest, got {sources}")
        if kind not in KINDS:
            raise OssicleError(f"a gate is {' or '.join(KINDS)}, not {kind!r}")
        if profile and kind != "stationary":
            raise OssicleError("only a stationary gate learns a noise: kind='stationary'")
        spans = (time_constant_s, smooth_hz, smooth_ms, attack_ms, release_ms)
        if not all(0 <= span < math.inf for span in spans) or not slope_db > 0:
            raise OssicleError("a gate's times and widths must be at least 0, slope_db above 0")
        if not 0 < quiet <= 1 or not math.isfinite(threshold):
            raise OssicleError("quiet must be above 0 and at most 1, threshold a number")
        self.kind, self.profile, self.threshold, self.slope_db = kind, profile, threshold, slope_db
        self.quiet, self.time_constant_s = quiet, time_constant_s
        self.smooth_hz, self.smooth_ms = smooth_hz, smooth_ms
        self.attack_ms, self.release_ms = attack_ms, release_ms
        self.floor_db = floor_db
        if profile:
            self.register_buffer("noise_mean_db", torch.zeros(self.fourier.n_bins))
            self.register_buffer("noise_std_db", torch.ones(self.fourier.n_bins))
            self.noise_mean_db: Tensor
            self.noise_std_db: Tensor

    @property
    def floor_db(self) -> float:
        """Gain of a closed bin, dB; may be set."""
        return self._floor_db

    @floor_db.setter
    def floor_db(self, value: float) -> None:
        """Checked, and kept for the bundle."""
        self._floor_db = check_floor(value)
        self._keywords["floor_db"] = float(value)

    @property
    def _frame_s(self) -> float:
        return self.fourier.hop_length / self.sample_rate

    def learn(self, spectra: list[Tensor]) -> None:
        """Keep the noise's mean and standard deviation in each bin.

        Args:
            spectra: (F, T) complex64 of recordings of noise alone; digital silence is left out.

        Raises:
            OssicleError: the gate keeps no profile.
            DataError: there is no sound in any of them.
        """
        if not self.profile:
            raise OssicleError("this gate keeps no noise profile: build it with profile=True")
        levels = torch.cat([_sounding(level_db(spectrum)) for spectrum in spectra], -1)
        if not levels.shape[-1]:
            raise DataError("the recordings of noise alone are silent: there is nothing to learn")
        self.noise_mean_db.copy_(levels.mean(-1))
        self.noise_std_db.copy_(levels.std(-1, correction=0))

    def noise(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (F, 1), or (F, T) running, of the noise in levels (F, T)."""
        if self.kind == "running":
            mean = self._running_mean(10 ** (level / 20))
            return 20 * torch.log10(mean.clamp(min=10 ** (SILENCE_DB / 20))), torch.ones(())
        if self.profile:
            return self.noise_mean_db[:, None], self.noise_std_db[:, None]
        sounding = _sounding(level)
        if not sounding.shape[-1]:
            return level.mean(-1, keepdim=True), torch.ones(())
        # Each bin has its own quiet moments; frames that are quiet as a whole would be missed
        # under a foreground that never stops.
        place = max(1, math.ceil(self.quiet * sounding.shape[-1]))
        reached = sounding.kthvalue(place, dim=-1, keepdim=True).values
        below = min(place / (sounding.shape[-1] + 1), 0.999)
        # Gaussian noise has powers of an exponential distribution: so much of it lies below
        # -ln(1 - share) times its mean.
        mean_power_db = reached - 10 * math.log10(-math.log1p(-below))
        return mean_power_db + NOISE_MEAN_DB, torch.tensor(NOISE_STD_DB)

    def opening(self, spectrum: Tensor) -> Tensor:
        """(F, T) complex64 -> (F, T) in [0, 1]: how far each bin is open."""
        level = level_db(spectrum)
        mean, std = self.noise(level)
        opening = torch.sigmoid((level - mean - self.threshold * std) / self.slope_db)
        return self._paced(self._smoothed(opening)).clamp(0, 1)

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) complex64 -> (2, F, T) in [0, 1]: what passes, and the rest."""
        floor = 10 ** (self.floor_db / 20)
        passing = floor + (1 - floor) * self.opening(spectrum)
        return torch.stack([passing, 1 - passing])

    def _running_mean(self, magnitude: Tensor) -> Tensor:
        """First-order recursion over time, forth and back, (F, T) -> (F, T)."""
        frames = max(self.time_constant_s / self._frame_s, 1e-6)
        keep = math.exp(-1 / frames)
        weighted = _both_ways(magnitude, keep)
        return weighted / _both_ways(torch.ones_like(magnitude[:1]), keep)

    def _smoothed(self, opening: Tensor) -> Tensor:
        n_frequency = int(self.smooth_hz / (self.sample_rate / self.fourier.n_fft))
        n_time = int(self.smooth_ms / 1000 / self._frame_s)
        out = opening[None, None]
        for axis, half in ((2, n_frequency), (3, n_time)):
            if half == 0:
                continue
            kernel = 1 - torch.arange(-half, half + 1, dtype=out.dtype).abs() / (half + 1)
            shape = [1, 1, 1, 1]
            shape[axis] = len(kernel)
            pad = [half, half, 0, 0] if axis == 3 else [0, 0, half, half]
            padded = F.pad(out, pad, mode="constant")
            inside = F.pad(torch.ones_like(out), pad, mode="constant")
            # Divided by the weight that lies inside, so that borders are no darker.
            out = F.conv2d(padded, kernel.view(shape)) / F.conv2d(inside, kernel.view(shape))
        return out[0, 0]

    def _paced(self, opening: Tensor) -> Tensor:
        """Closing, and before a sound opening, take their time: the larger of both holds."""
        held = opening
        if self.release_ms:
            held = _decaying(held, math.exp(-self._frame_s / (self.release_ms / 1000)))
        if self.attack_ms:
            ahead = _decaying(opening.flip(-1), math.exp(-self._frame_s / (self.attack_ms / 1000)))
            held = torch.maximum(held, ahead.flip(-1))
        return held


def check_floor(floor_db: float) -> float:
    """A gain in dB of at most 0.

    Raises:
        OssicleError: it is above 0 or no number.
    """
    if not -math.inf < floor_db <= 0:
        raise OssicleError(f"floor_db must be a number of at most 0 dB, got {floor_db}")
    return float(floor_db)


def level_db(spectrum: Tensor) -> Tensor:
    """Level of each bin in dB, at least `SILENCE_DB`."""
    return 20 * torch.log10(spectrum.abs().clamp(min=10 ** (SILENCE_DB / 20)))


def _sounding(level: Tensor) -> Tensor:
    """Frames (F, T') that are not digital silence."""
    return level[:, level.amax(0) > SILENCE_DB]


def _both_ways(x: Tensor, keep: float) -> Tensor:
    return _recursion(_recursion(x, keep).flip(-1), keep).flip(-1)


def _recursion(x: Tensor, keep: float) -> Tensor:
    """y[t] = keep * y[t - 1] + x[t], by doubling: log2(T) passes instead of T."""
    y, step, factor = x.clone(), 1, keep
    while step < x.shape[-1] and factor > 0:
        y = y + factor * F.pad(y, (step, 0))[..., : x.shape[-1]]
        step, factor = 2 * step, factor * factor
    return y


def _decaying(x: Tensor, keep: float) -> Tensor:
    """y[t] = max(x[t], keep * y[t - 1]), by doubling."""
    y, step, factor = x, 1, keep
    while step < x.shape[-1] and factor > 1e-6:
        y = torch.maximum(y, factor * F.pad(y, (step, 0))[..., : x.shape[-1]])
        step, factor = 2 * step, factor * factor
    return y
