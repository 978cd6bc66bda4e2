"""What can be chosen about training a denoiser, checked; every value is part of the record."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ossicle.errors import OssicleError
from ossicle.separators.spectral_gate import KINDS

FORMS = ("bands", "paper")
OUTPUTS = ("auto", "mask", "decoded")
TEACHERS = (*KINDS, "gate", "none")


@dataclass(frozen=True)
class AutoencoderSettings:
    """How a partitioned autoencoder is trained.

    Attributes:
        form: "bands": mel bands of square roots, an encoder that hears a second, levels taken off;
            "paper": the authors' network, on 32 even bands of magnitudes.
        sample_rate: Hz.
        n_fft_s, hop_s: frames and their distance, seconds; 0: of the form (46 and 23 ms, or 6 and
            3 ms).
        n_bands, n_foreground, n_background, kernel, depth, width: see `PartitionedAutoencoder`;
            0: of the form (depth -1).
        whiten: of the form "bands", see `PartitionedAutoencoder`.
        penalty: lambda, on the foreground's latents of noise alone.
        remix: weight of remixing (`PartitionedTraining`); 0: the loss of the paper alone.
        teacher: with remixing, it learns from what a spectral gate makes of recordings, mixed with
            other noise (`teacher.foregrounds`): a "running" or "stationary" one, or a "gate" of the
            kind that has the better alignment; "none": from the recordings themselves.
        rounds: with a teacher, so many times, the second time it being its own teacher, and so on;
            the round of the best alignment is taken.
        match: the noise that is added is made like that in the recording, see `matching.matched`.
        even: how far its bands count alike, 0 to 1.
        colour_db: of random filters, the same for a recording and what is added to it.
        weight_decay: L2 of all weights.
        steps, batch_size, crop_s, learning_rate: of Adam.
        gain_db: recordings are turned up or down by up to this.
        gates: powers of a gate's opening in masks, see `PartitionedAutoencoder`, that are tried on
            the validation part.
        output: "mask", "decoded", or "auto": what does better on the validation part.
        floor_db: gain where there is no foreground, for masks.
        judge_every: steps between judgements on the validation part; the best weights are kept.
        n_valid, valid_s: noisy stretches that it is judged on, and their length.
        seed: of everything drawn.
    """

    form: str = "bands"
    sample_rate: int = 22_050
    n_fft_s: float = 0.0
    hop_s: float = 0.0
    n_bands: int = 0
    n_foreground: int = 0
    n_background: int = 0
    kernel: int = 0
    depth: int = -1
    width: int = 64
    whiten: float = 0.5
    penalty: float = 0.1
    remix: float = 30.0
    teacher: str = "running"
    rounds: int = 2
    match: bool = True
    even: float = 0.5
    colour_db: float = 8.0
    weight_decay: float = 1e-4
    steps: int = 1500
    batch_size: int = 16
    crop_s: float = 2.0
    learning_rate: float = 3e-3
    gain_db: float = 6.0
    gates: tuple[float, ...] = (0.0, 0.5, 1.0)
    output: str = "auto"
    floor_db: float = -40.0
    judge_every: int = 500
    n_valid: int = 100
    valid_s: float = 5.0
    seed: int = 0

    def check(self) -> AutoencoderSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        if self.form not in FORMS:
            raise OssicleError(f"form {self.form!r}: choose one of {', '.join(FORMS)}")
        if self.output not in OUTPUTS:
            raise OssicleError(f"output {self.output!r}: choose one of {', '.join(OUTPUTS)}")
        if self.teacher not in TEACHERS:
            raise OssicleError(f"teacher {self.teacher!r}: choose one of {', '.join(TEACHERS)}")
        if not self.gates or not all(0 <= gate < math.inf for gate in self.gates):
            raise OssicleError(f"gates must be numbers from 0 on, got {self.gates}")
        _at_least(self, 0.0, "n_fft_s", "hop_s", "penalty", "remix", "even", "colour_db")
        _at_least(self, 0.0, "weight_decay", "gain_db", "judge_every", "seed")
        _at_least(self, 1.0, "steps", "width", "n_valid", "rounds")
        _above(self, "crop_s", "learning_rate", "valid_s")
        _at_least(self, 4.0, "batch_size")
        return self


# As in the paper: its network and its loss alone.
PAPER = AutoencoderSettings(
    form="paper", penalty=1.0, remix=0.0, colour_db=0.0, gates=(0.0,), teacher="none"
)


@dataclass(frozen=True)
class GateSettings:
    """How a spectral gate is fitted: values to try on the validation part, in this order.

    Attributes:
        sample_rate: Hz.
        n_fft_s, hop_s: frames and their distance, seconds.
        kinds: of "stationary" and "running".
        profiles: whether the noise is learnt from noise alone, or told from each recording.
        thresholds: standard deviations, of stationary gates.
        running_thresholds: dB, of running ones.
        time_constants_s: of running ones.
        quiet: see `SpectralGate`, of gates without a profile.
        slopes_db, smooth_hz, smooth_ms, release_ms: see `SpectralGate`.
        floors_db: gains of a closed bin.
        n_valid, valid_s: noisy stretches that it is judged on, and their length.
        seed: of everything drawn.
    """

    sample_rate: int = 22_050
    n_fft_s: float = 0.046
    hop_s: float = 0.0116
    kinds: tuple[str, ...] = KINDS
    profiles: tuple[bool, ...] = (False, True)
    thresholds: tuple[float, ...] = (1.5, 0.5, 1.0, 2.0, 2.5)
    running_thresholds: tuple[float, ...] = (6.0, 0.0, 3.0, 9.0, 12.0)
    time_constants_s: tuple[float, ...] = (2.0, 0.5, 1.0, 4.0)
    quiet: tuple[float, ...] = (0.2, 0.5)
    slopes_db: tuple[float, ...] = (2.0, 0.5, 4.0)
    smooth_hz: tuple[float, ...] = (100.0, 0.0, 300.0)
    smooth_ms: tuple[float, ...] = (50.0, 0.0, 100.0)
    release_ms: tuple[float, ...] = (50.0, 0.0, 150.0)
    floors_db: tuple[float, ...] = (-40.0, -20.0, -12.0)
    n_valid: int = 40
    valid_s: float = 5.0
    seed: int = 0

    def check(self) -> GateSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        for field in fields(self):
            if getattr(self, field.name) == ():
                raise OssicleError(f"{field.name}: needs a value or several")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise OssicleError(f"a gate is {' or '.join(KINDS)}, not {unknown[0]!r}")
        _above(self, "n_fft_s", "hop_s", "valid_s")
        _at_least(self, 1.0, "n_valid")
        return self


def _at_least(settings: object, least: float, *names: str) -> None:
    for name in names:
        if not least <= getattr(settings, name) < math.inf:
            raise OssicleError(f"{name} must be at least {least:g}, got {getattr(settings, name)}")


def _above(settings: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise OssicleError(f"{name} must be above 0, got {getattr(settings, name)}")
