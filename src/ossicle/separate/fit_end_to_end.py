"""Training from waveform to waveform: analysis, what stands between, and synthesis together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.batches import StemBatches
from ossicle.separate.fit_autoencoder import start_above_zero
from ossicle.separate.label import described
from ossicle.separate.training import (
    Schedule,
    SeparatorTraining,
    Steps,
    improvement,
    table_key,
    train_separator,
)
from ossicle.separators.base import Separator
from ossicle.separators.end_to_end import EndToEnd
from ossicle.separators.nonnegative_autoencoder import divergence, prices

# Powers below this share of the reference's, and below this at all, count as none: an estimate that
# is 30 dB clean is clean, and a stem may be silent.
_SHARE, _NOTHING = 1e-3, 1e-8
# Batches that the sources' gains are fitted on.
_GAIN_BATCHES = 20


def negative_snr(estimates: Tensor, sources: Tensor) -> Tensor:
    """10 log10(|e|^2 / |s|^2), e = estimate - source; (..., N) -> (...). It hears scale."""
    power = sources.square().sum(-1)
    rest = (estimates - sources).square().sum(-1)
    return 10 * torch.log10((rest + _SHARE * power + _NOTHING) / (power + _NOTHING))


def negative_si_sdr(estimates: Tensor, sources: Tensor) -> Tensor:
    """-SI-SDR (Le Roux et al. 2019, "SDR - half-baked or well done?"), dB; (..., N) -> (...)."""
    power = sources.square().sum(-1, keepdim=True)
    along = (estimates * sources).sum(-1, keepdim=True) / (power + _NOTHING) * sources
    heard = along.square().sum(-1)
    rest = (estimates - along).square().sum(-1)
    return 10 * torch.log10((rest + _SHARE * heard + _NOTHING) / (heard + _NOTHING))


def projection(estimates: Tensor, sources: Tensor) -> Tensor:
    """|y|^2 |s|^2 / <y, s>^2, one over the squared cosine of their angle; (..., N) -> (...).

    In the manner of the costs that Venkataramani, Casebeer & Smaragdis (2017) derive from the
    signal-to-distortion ratio. Bounded at 30 dB: an estimate at a right angle has no other end.
    """
    both = estimates.square().sum(-1) * sources.square().sum(-1)
    along = (estimates * sources).sum(-1).square()
    return (both + _NOTHING) / (along + _SHARE * both + _NOTHING)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "snr": negative_snr,
    "si_sdr": negative_si_sdr,
    "projection": projection,
}


@dataclass(frozen=True)
class EndToEndSettings:
    """How a system is trained end to end; every value is part of the record.

    Attributes:
        filter_s, hop_s: length of the filters and their distance, seconds.
        n_filters: D; 0: as many as a filter has samples.
        smoothing, tied, filters, model, hidden, n_blocks, estimate, activation: see `EndToEnd`.
        sizes: of the autoencoders' hidden layers.
        latents, start, iterations, sparsity: of the autoencoders; sparsity holds in training too.
        exponents: of the autoencoders' shares; several are tried out on the part "valid".
        loss: "snr", "si_sdr" or "projection".
        divergence_weight: of the autoencoders' divergence on modulators, beside the loss.
        steps: of Adam.
        batch_size, crop_s: stretches a step, and their length in seconds.
        learning_rate: at its peak.
        warm_up: share of the steps in which the rate rises.
        clip_norm: of the gradient.
        judge_every: steps between scores on the part "valid", whose best weights are taken.
        patience: such scores without a better one that end the training; 0: none.
        n_valid: mixtures that it is scored on.
        precision, accelerator: of Lightning Fabric.
        seed: of everything drawn.
    """

    filter_s: float = 0.032
    hop_s: float = 0.008
    n_filters: int = 0
    smoothing: int = 5
    tied: bool = False
    filters: str = "fourier"
    model: str = "network"
    hidden: int = 128
    n_blocks: int = 6
    estimate: str = "mask"
    sizes: tuple[int, ...] = (64,)
    activation: str = "abs"
    latents: str = "fitted"
    start: str = "encoder"
    iterations: int = 30
    sparsity: float = 1.0
    exponents: tuple[float, ...] = (1.0, 2.0)
    loss: str = "snr"
    divergence_weight: float = 1.0
    steps: int = 2000
    batch_size: int = 8
    crop_s: float = 1.0
    learning_rate: float = 1e-3
    warm_up: float = 0.05
    clip_norm: float = 5.0
    judge_every: int = 250
    patience: int = 0
    n_valid: int = 40
    precision: str = "32-true"
    accelerator: str = "cpu"
    seed: int = 0

    def check(self) -> EndToEndSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range; what `EndToEnd` is built from is checked there.
        """
        if self.loss not in LOSSES:
            raise OssicleError(f"loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        above = ("filter_s", "hop_s", "steps", "batch_size", "crop_s", "learning_rate")
        for name in (*above, "clip_norm", "n_valid"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.divergence_weight < math.inf or not 0 <= self.warm_up <= 1:
            raise OssicleError("divergence_weight is from 0 on, warm_up between 0 and 1")
        if not self.exponents or not all(0 < value <= 8 for value in self.exponents):
            raise OssicleError(f"exponents must be above 0, at most 8, got {self.exponents}")
        if min(self.judge_every, self.patience, self.seed, self.n_filters) < 0:
            raise OssicleError("judge_every, patience, seed and n_filters are not below 0")
        return self


class EndToEndTraining(SeparatorTraining):
    """The loss of the waveforms that come out.

    With "network" those of random mixtures, against their stems. With "autoencoders" each hears its
    own source's stems alone, what they make of them shares a mixture out
    (`EndToEnd.reconstructions`), and what they are asked for beside is that modulators be alike and
    latents few (`ossicle.separate.fit_autoencoder.Autoencoding`).

    Args:
        separator: to be trained.
        loss: one of `LOSSES`.
        divergence_weight, sparsity: see the settings.
        others: of `SeparatorTraining`.
    """

    separator: EndToEnd

    def __init__(
        self,
        separator: EndToEnd,
        *,
        loss: str = "snr",
        divergence_weight: float = 1.0,
        sparsity: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(separator, **others)
        self.unlike, self.divergence_weight, self.sparsity = (
            LOSSES[loss],
            divergence_weight,
            sparsity,
        )
        for model in separator.autoencoders or ():
            start_above_zero(model)

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of stems (B, S, N); and the mean over the sources of what the loss names."""
        if self.separator.autoencoders is None:
            return self.unlike(self.separator.estimates(stems.sum(1)), stems).mean(), {}
        return self._of_autoencoders(stems)

    def _of_autoencoders(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        waves, own, made, latents = self.separator.reconstructions(stems)
        waveform = self.unlike(waves, stems).mean()
        # The transform would else make modulators that are easy to describe and say little.
        unlike = divergence(own.detach(), made).mean()
        models = self.separator.autoencoders or ()
        price = torch.stack(
            [
                (prices(model.decoder) * latents[:, s]).sum(-2).mean()  # type: ignore[arg-type]
                for s, model in enumerate(models)
            ]
        ).mean()
        price = price / own.shape[-2]
        total = waveform + self.divergence_weight * (unlike + self.sparsity * price)
        return total, {"waveform": waveform.detach(), "divergence": unlike.detach()}


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def fit_end_to_end(
    mixtures: Mixtures,
    settings: EndToEndSettings,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> EndToEnd:
    """Train on the stems of the part "train"; what is left to choose is chosen on "valid".

    Where there is no such part, the last weights are taken, and sources that add up.

    Args:
        mixtures: of sources with names.
        settings: how.
        folder: of checkpoint and log; a stopped run goes on there.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        DataError: the sources have no names, or there is nothing to train on.
        OssicleError: a setting is out of range.
        TrainingError: a loss is not finite, or ``folder`` holds another run.
    """
    s = settings.check()
    if not mixtures.sources:
        raise DataError(
            f"{mixtures.root}: this system gives its sources in order, so that they need names "
            "(speech, noise); these are alike: use deep_clustering"
        )
    train, valid = mixtures.part("train"), mixtures.part("valid")
    torch.manual_seed(s.seed)
    separator = _separator(mixtures, s)

    def score(network: Separator) -> float:
        return improvement(network, valid, most=s.n_valid)

    batches = StemBatches(train, batch_size=s.batch_size, crop_s=s.crop_s, seed=s.seed)
    objective = EndToEndTraining(
        separator,
        loss=s.loss,
        divergence_weight=s.divergence_weight,
        sparsity=s.sparsity,
        validate=score if s.judge_every and len(valid) else None,
        patience=s.patience,
    )
    schedule = Schedule(
        s.steps,
        s.learning_rate,
        round(s.warm_up * s.steps),
        s.clip_norm,
        s.judge_every,
        s.precision,
        s.accelerator,
        s.seed,
    )
    _, history = train_separator(
        objective,
        batches,
        schedule,
        key=["end_to_end", asdict(s), table_key(train), table_key(valid)],
        folder=folder,
        progress=progress,
    )
    separator.to("cpu")
    if s.loss != "snr":
        _fit_gains(separator, batches)
    separator, chosen = _best_way(separator, s, score if len(valid) else None)
    separator.info = described("end_to_end", mixtures, asdict(s), history, chosen)
    return separator.eval()


def _separator(mixtures: Mixtures, s: EndToEndSettings) -> EndToEnd:
    hop = max(1, round(s.hop_s * mixtures.sample_rate))
    length = hop * max(2, round(s.filter_s / s.hop_s))
    return EndToEnd(
        mixtures.sample_rate,
        list(mixtures.sources),
        s.n_filters or 2 * ((length + 1) // 2),
        length,
        hop,
        s.smoothing,
        s.tied,
        s.filters,
        s.model,
        s.hidden,
        s.n_blocks,
        s.estimate,
        list(s.sizes),
        s.activation,
        s.latents,
        s.start,
        s.iterations,
        s.sparsity,
        s.exponents[0],
        consistent=False,  # what is trained are the sources as they come
    )


def _best_way(
    separator: EndToEnd, s: EndToEndSettings, score: Callable[[Separator], float] | None
) -> tuple[EndToEnd, dict[str, Any]]:
    """Whether the sources are made to add up, and the exponent; weights stay as they are."""
    exponents = s.exponents if separator.model == "autoencoders" else s.exponents[:1]
    taken, best, tried = None, -math.inf, []
    for consistent, exponent in product((True, False), exponents):
        way = {"consistent": consistent, "exponent": exponent}
        other = EndToEnd(**{**separator.config(), **way})
        other.load_state_dict(separator.state_dict())
        other.eval().requires_grad_(False)
        if score is None:
            return other, way
        gain = score(other)
        tried.append({**way, "validation_si_sdr_improvement": gain})
        if taken is None or gain > best:
            taken, best = other, gain
    assert taken is not None
    kept = {name: taken.config()[name] for name in ("consistent", "exponent")}
    return taken, {**kept, "validation_si_sdr_improvement": best, "tried": tried}


@torch.no_grad()
def _fit_gains(separator: EndToEnd, batches: StemBatches) -> None:
    """The factor on each source that brings it nearest to its stems, over some batches."""
    along, power = torch.zeros_like(separator.gains), torch.zeros_like(separator.gains)
    for step in range(_GAIN_BATCHES):
        stems = batches.batch(step).waveforms
        found = separator.estimates(stems.sum(1))
        along += (found * stems).sum((0, 2))
        power += found.square().sum((0, 2))
    separator.gains.copy_((along / power.clamp(min=1e-12)).clamp(min=1e-3))
