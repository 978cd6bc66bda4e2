"""A synthesiser with random settings: training sounds without recordings.

After Cherep & Singh 2025, "Contrastive learning from synthetic audio doppelgängers" (ICLR;
arXiv 2406.05923): a setting and a slightly changed one give two sounds that belong together. Their
synthesiser is another; this one has voices, each a harmonic tone and a band of noise under one
envelope that may repeat.

Symbols: n sounds, P parameters, each from 0 to 1, N samples; time is last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ossicle.augment.base import normal
from ossicle.augment.fourier import irfft
from ossicle.errors import OssicleError

N_VOICES = 3
N_HARMONICS = 24
ROWS_AT_ONCE = 4  # so that what is worked on stays in a core's cache
FADE_S = 0.002  # at the end of a repeat, against a click
TOP = 0.45  # highest fundamental, as a part of the sample rate


class Parameter(NamedTuple):
    """What a number from 0 to 1 stands for.

    Attributes:
        name: with its unit.
        low: at 0.
        high: at 1.
        curve: "linear", "log", "square" (most near ``low``) or "cube" (most near the middle).
    """

    name: str
    low: float
    high: float
    curve: str = "linear"

    def value(self, position: Tensor) -> Tensor:
        """From positions between 0 and 1 to values between ``low`` and ``high``."""
        if self.curve == "log":
            low, high = math.log(self.low), math.log(self.high)
            return (low + (high - low) * position).exp()
        if self.curve == "square":
            position = position.square()
        elif self.curve == "cube":
            position = 0.5 + 0.5 * (2 * position - 1) ** 3
        return self.low + (self.high - self.low) * position


VOICE = (
    Parameter("level_db", -30, 0),
    Parameter("noise_share", 0, 1),  # of the amplitude; the rest is tone
    Parameter("frequency_hz", 40, 4000, "log"),
    Parameter("glide_octaves", -3, 3, "cube"),  # from the start to the end of the sound
    Parameter("tilt", 0.3, 3),  # amplitude of harmonic k: k^-tilt
    Parameter("even_share", 0, 1),  # of the even harmonics: 0 a hollow sound, 1 a full one
    Parameter("phase", 0, 1),  # of the fundamental, in periods
    Parameter("vibrato_hz", 2, 12, "log"),
    Parameter("vibrato_octaves", 0, 0.25, "square"),
    Parameter("fm_ratio", 0.25, 8, "log"),  # modulator over fundamental
    Parameter("fm_index", 0, 6, "square"),
    Parameter("tremolo_hz", 1, 80, "log"),
    Parameter("tremolo_depth", 0, 1, "square"),
    Parameter("noise_hz", 60, 7000, "log"),  # middle of the band of noise
    Parameter("noise_octaves", 0.05, 3, "log"),  # its width: standard deviation of a bell
    Parameter("start", 0, 0.3, "square"),  # of the sound's duration
    Parameter("repeats_hz", 0.4, 16, "log"),
    Parameter("attack_s", 0.001, 0.3, "log"),
    Parameter("decay_s", 0.01, 0.8, "log"),
    Parameter("sustain", 0, 1),
    Parameter("gate", 0.1, 1),  # of a repeat, before the release
    Parameter("release_s", 0.005, 0.5, "log"),
)
SHARED = (
    Parameter("peak_db", -20, -0.5),
    Parameter("seed", 0, 1),  # of the noise
)


class RandomSynthesiser:
    """Sounds of random settings: tones, chirps, hums, hisses, clicks, beats and their mixtures.

    Args:
        sample_rate: of the sounds (Hz), at least 8,000.
        duration_s: length of a sound (s).

    Raises:
        OssicleError: the rate is too low or the duration shorter than 0.05 s.
    """

    def __init__(self, sample_rate: int = 16_000, duration_s: float = 1.28) -> None:
        if sample_rate < 8000:
            raise OssicleError(f"sample_rate {sample_rate}: choose at least 8000 Hz")
        if not 0.05 <= duration_s < math.inf:
            raise OssicleError(f"duration_s {duration_s}: choose at least 0.05 s")
        self.sample_rate, self.duration_s = sample_rate, duration_s

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the P parameters, in order: "0.level_db" of the first voice, "seed" of all."""
        voices = [f"{voice}.{p.name}" for voice in range(N_VOICES) for p in VOICE]
        return (*voices, *(p.name for p in SHARED))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, P) random settings, each number even from 0 to below 1."""
        size = (n, len(self.parameters))
        return torch.rand(size, generator=generator, device=generator.device)

    def perturb(self, params: Tensor, delta: float, generator: torch.Generator) -> Tensor:
        """(n, P) settings near others: every number moved by U(-delta, delta).

        At 0 and 1 a move is reflected, so that none is farther away than ``delta``. The seed is
        moved like the rest, and every other seed is other noise: of the same band, never the same
        samples, unless ``delta`` is 0.

        Raises:
            OssicleError: ``delta`` is not from 0 to 1.
        """
        if not 0 <= delta <= 1:
            raise OssicleError(f"delta {delta}: choose it from 0 to 1")
        move = torch.rand(params.shape, generator=generator, device=generator.device)
        moved = (params + delta * (2 * move - 1).to(params.device)).abs()
        return torch.where(moved > 1, 2 - moved, moved)

    def pairs(self, n: int, delta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two times (n, N): sounds of random settings, and those of settings near them.

        Raises:
            OssicleError: ``delta`` is not from 0 to 1.
        """
        params = self.draw(n, generator)
        return self.render(params), self.render(self.perturb(params, delta, generator))

    def settings(self, params: Tensor) -> dict[str, Tensor]:
        """What settings mean: parameter name -> (n,) values in its unit.

        Raises:
            OssicleError: not (n, P), or not all from 0 to 1.
        """
        names = self.parameters
        if params.ndim != 2 or params.shape[1] != len(names):
            raise OssicleError(f"parameters {tuple(params.shape)}: give (n, {len(names)})")
        if not bool(((params >= 0) & (params <= 1)).all()):
            raise OssicleError("a parameter is not from 0 to 1: use draw and perturb")
        kinds = VOICE * N_VOICES + SHARED
        columns = zip(names, kinds, params.unbind(1), strict=True)
        return {name: kind.value(column) for name, kind, column in columns}

    @torch.no_grad()
    def render(self, params: Tensor) -> Tensor:
        """(n, P) settings -> (n, N) float32 sounds, N = round(duration_s x sample_rate).

        The same settings give the same sound, whatever stands beside them. The peak of each is its
        ``peak_db``, so all values lie within -1 and 1.

        Raises:
            OssicleError: not (n, P), or not all from 0 to 1.
        """
        size = round(self.duration_s * self.sample_rate)
        settings = self.settings(params.float())
        out = torch.empty(len(params), size, device=params.device)
        for first in range(0, len(params), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            shared = {name: settings[name][part, None] for name in ("peak_db", "seed")}
            mix = torch.zeros_like(out[part])
            for number in range(N_VOICES):
                voice = {p.name: settings[f"{number}.{p.name}"][part, None] for p in VOICE}
                mix += self._voice(voice, number, shared["seed"], size)
            peak = mix.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(mix.dtype).tiny)
            out[part] = mix * (10 ** (shared["peak_db"] / 20) / peak)
        return out

    def _voice(self, v: dict[str, Tensor], number: int, seed: Tensor, size: int) -> Tensor:
        # (n, N) one voice; every setting is (n, 1).
        t = torch.arange(size, device=seed.device) / self.sample_rate
        noise = self._noise(v, number, seed, size)
        tone = self._tone(v, t)
        envelope = self._envelope(v, t)
        swing = torch.sin(2 * math.pi * v["tremolo_hz"] * t).mul_(0.5).add_(0.5)
        envelope *= 1 - v["tremolo_depth"] * swing
        mix = tone.lerp_(noise, v["noise_share"])
        return mix.mul_(envelope).mul_(10 ** (v["level_db"] / 20))

    def _tone(self, v: dict[str, Tensor], t: Tensor) -> Tensor:
        # (n, N) harmonics of a gliding fundamental, of power 1/2, none above Nyquist's frequency.
        rate = self.sample_rate
        octaves = v["glide_octaves"] * (t / self.duration_s)
        octaves += v["vibrato_octaves"] * torch.sin(2 * math.pi * v["vibrato_hz"] * t)
        frequency = (v["frequency_hz"] * octaves.exp2_()).clamp_(20, TOP * rate)
        # Periods since the start, in float64: float32 is too coarse after thousands of them.
        periods = frequency.cumsum(1, dtype=torch.float64) / rate
        highest = frequency.amax(dim=1, keepdim=True)
        # Carson's rule: a modulated tone reaches to f + (index + 1) x modulator.
        room = (0.5 * rate / highest - 1) / v["fm_ratio"] - 1
        index = v["fm_index"].minimum(room.clamp(min=0))
        modulator = torch.sin(2 * math.pi * (v["fm_ratio"] * periods).frac().float())
        phase = periods.frac_().float().add_(v["phase"]).mul_(2 * math.pi)
        phase += index * modulator
        k = torch.arange(1, N_HARMONICS + 1, device=t.device)
        reach = highest * (k + k * index * v["fm_ratio"] + (index > 0) * v["fm_ratio"])
        weight = k ** -v["tilt"] * torch.where(k % 2 == 1, 1.0, v["even_share"])
        weight = weight * ((reach < 0.5 * rate) | (k == 1))
        weight = weight / weight.square().sum(1, keepdim=True).sqrt()
        return _harmonics(phase, weight)

    def _noise(self, v: dict[str, Tensor], number: int, seed: Tensor, size: int) -> Tensor:
        # (n, N) a band of noise, of power 1/2: a bell over the logarithm of frequency.
        bins = size // 2 + 1
        # A float32 from 0 to 1 holds 24 bits; another part of the seeds for each voice.
        own = (seed[:, 0].double() * 2**24).round().long() * N_VOICES + number
        hz = torch.arange(bins, device=seed.device).clamp(min=1) * (self.sample_rate / size)
        middle = v["noise_hz"].clamp(max=TOP * self.sample_rate)
        bell = torch.exp(-0.5 * ((hz / middle).log2_() / v["noise_octaves"]).square_())
        bell[:, 0] = 0
        # The nearest line to the middle sounds at least, however narrow the band.
        bell = bell / bell.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
        spectrum = normal(own, 2 * bins).view(-1, bins, 2).mul_(bell[..., None])
        return irfft(torch.view_as_complex(spectrum), size).mul_(size / math.sqrt(8))

    def _envelope(self, v: dict[str, Tensor], t: Tensor) -> Tensor:
        # (n, N) attack, decay, sustain and release, again with every repeat.
        since = t - v["start"] * self.duration_s
        tau = (since * v["repeats_hz"]).sub_((since * v["repeats_hz"]).floor_())
        tau /= v["repeats_hz"]  # seconds since the repeat's onset
        period = 1 / v["repeats_hz"]
        envelope = torch.exp((tau - v["attack_s"]).clamp_(min=0).div_(-v["decay_s"]))
        envelope.mul_(1 - v["sustain"]).add_(v["sustain"])
        envelope *= (tau / v["attack_s"]).clamp_(max=1)
        release = (tau - v["gate"] * period).clamp_(min=0).div_(-v["release_s"])
        envelope *= release.exp_()
        envelope *= ((period - tau) / FADE_S).clamp_(0, 1)
        return envelope.mul_(since >= 0)


def _harmonics(phase: Tensor, weight: Tensor) -> Tensor:
    """Sum over k of weight_k sin(k phase): (n, N), (n, K) -> (n, N).

    By sin((k + 1) a) = 2 cos(a) sin(k a) - sin((k - 1) a). ``sign`` lets each step be an addition
    to the harmonic before the last, in its own place.
    """
    before, now = torch.zeros_like(phase), torch.sin(phase)
    twice = torch.cos(phase).mul_(2)
    out = weight[:, :1] * now
    sign_before, sign = 1, 1
    last = int(weight.any(0).nonzero().max()) + 1
    for k in range(1, last):
        before.addcmul_(twice, now, value=-sign_before * sign)
        before, now = now, before
        sign_before, sign = sign, -sign_before
        out.addcmul_(weight[:, k : k + 1], now, value=sign)
    return out
