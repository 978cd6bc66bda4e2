"""Training one non-negative autoencoder a source, on that source's stems alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.batches import StemBatches
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
from ossicle.separators.nonnegative_autoencoder import (
    STARTS,
    Autoencoder,
    NonnegativeAutoencoder,
    check_autoencoder,
    check_fit,
    divergence,
    frame_levels,
    prices,
)

Score = Callable[[Separator], float]


@dataclass(frozen=True)
class AutoencoderSettings:
    """How non-negative autoencoders are trained; every value is part of the record.

    Those with several values are tried out on the part "valid", and the first of each is taken
    where there is no such part: each number of latents with each sparsity, which are trained anew;
    then the exponents; then the ways to fit latents.

    Attributes:
        n_fft_s, hop_s: frames and their distance, seconds.
        hidden: sizes of the layers between spectrum and latents; none: one layer each way.
        n_latents: K of each source.
        activation: g, see `NonnegativeAutoencoder`.
        nonnegative: whether the decoder's weights are kept from going below zero.
        sparsity: lambda, in training and in the fit of latents alike.
        latents: "fitted" to each recording, or from the "encoder", faster and worse.
        iterations, starts: of the fit.
        exponents: of the masks.
        steps: of Adam.
        batch_size, crop_s: stretches a step, and their length in seconds.
        learning_rate: at its peak; it falls as half a cosine.
        gain_db: for "softplus" alone, which knows loud from soft: frames are made softer by up to
            this, drawn anew for each.
        silence_db: frames so much below the loudest of the batch count nothing.
        judge_every: steps between scores on the part "valid", whose best weights are taken; 0: the
            last ones.
        patience: such scores without a better one that end a training; 0: none.
        n_valid: mixtures that a choice is judged on.
        seed: of everything drawn.
    """

    n_fft_s: float = 0.064
    hop_s: float = 0.016
    hidden: tuple[int, ...] = ()
    n_latents: tuple[int, ...] = (16, 64)
    activation: str = "abs"
    nonnegative: bool = True
    sparsity: tuple[float, ...] = (1.0, 3.0)
    latents: str = "fitted"
    iterations: tuple[int, ...] = (20, 60)
    starts: tuple[str, ...] = STARTS
    exponents: tuple[float, ...] = (1.0, 2.0)
    steps: int = 600
    batch_size: int = 16
    crop_s: float = 1.0
    learning_rate: float = 1e-2
    gain_db: float = 40.0
    silence_db: float = 40.0
    judge_every: int = 200
    patience: int = 0
    n_valid: int = 100
    seed: int = 0

    def check(self) -> AutoencoderSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not value and field.name != "hidden":
                raise OssicleError(f"{field.name}: needs a value or several")
        for count in self.n_latents:
            check_autoencoder([*self.hidden, count], self.activation)
        for start, count, sparsity in product(self.starts, self.iterations, self.sparsity):
            check_fit(self.latents, start, count, sparsity)
        above = ("n_fft_s", "hop_s", "steps", "batch_size", "crop_s", "learning_rate", "n_valid")
        for name in (*above, "silence_db"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        if not all(0 < value <= 8 for value in self.exponents):
            raise OssicleError(f"exponents must be above 0, at most 8, got {self.exponents}")
        if not 0 <= self.gain_db < math.inf or min(self.judge_every, self.patience, self.seed) < 0:
            raise OssicleError("gain_db, judge_every, patience and seed are not below 0")
        return self


class Autoencoding(SeparatorTraining):
    """The cost of each autoencoder on frames of its own source.

    Sum over bins of V log(V / V^) - V + V^, plus sparsity times the sum of H times `prices`, of
    frames of mean 1, each weighted by how loud it is, divided by the number of bins.

    Args:
        separator: to be trained.
        sparsity: lambda.
        nonnegative: the decoders' weights are cut off at zero after each step.
        gain_db, silence_db: see the settings.
        others: of `SeparatorTraining`.
    """

    separator: NonnegativeAutoencoder

    def __init__(
        self,
        separator: NonnegativeAutoencoder,
        *,
        sparsity: float,
        nonnegative: bool = True,
        gain_db: float = 0.0,
        silence_db: float = 40.0,
        **others: Any,
    ) -> None:
        super().__init__(separator, **others)
        self.sparsity, self.nonnegative = sparsity, nonnegative
        self.gain_db, self.silence_db = gain_db, silence_db
        for model in separator.autoencoders:
            start_above_zero(model)

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, S, N) -> the sum over the sources, and each source's divergence."""
        with torch.no_grad():
            magnitudes = self.separator.fourier.analyse(stems).abs()
        total, numbers = stems.new_zeros(()), {}
        models = zip(self.separator.sources, self.separator.autoencoders, strict=True)
        for s, (name, model) in enumerate(models):
            frames = magnitudes[:, s].transpose(0, 1).flatten(1)
            unlike, price = self._cost(model, frames)  # type: ignore[arg-type]
            total = total + unlike + self.sparsity * price
            numbers[f"divergence_{name}"] = unlike.detach()
        return total, numbers

    def _cost(self, model: Autoencoder, frames: Tensor) -> tuple[Tensor, Tensor]:
        level = frame_levels(frames)
        weight = torch.where(level > level.max() * 10 ** (-self.silence_db / 20), level, 0.0)
        weight = weight / weight.sum().clamp(min=1e-12)
        frames = frames / level
        if self.gain_db and model.decoder.activation == "softplus":
            softer = torch.rand_like(level) * self.gain_db
            frames = frames * 10 ** (-softer / 20)
        made, latents = model(frames)
        unlike = (weight * divergence(frames, made)).sum() / len(frames)
        price = (weight * prices(model.decoder) * latents).sum() / len(frames)
        return unlike, price

    @torch.no_grad()
    def after_update(self, step: Any) -> None:
        """The projection onto weights that are not below zero."""
        if self.nonnegative:
            for model in self.separator.autoencoders:
                for layer in model.decoder.maps:  # type: ignore[union-attr]
                    layer.weight.clamp_(min=0)  # type: ignore[operator, union-attr]


@torch.no_grad()
def start_above_zero(model: nn.Module) -> None:
    """Start from weights that are not below zero where g leaves no other way to reach them.

    From signs at random, |x| folds and max(x, 0) hides half of each layer, and Adam does not find
    its way out: the bases end up worse than those of a factorisation.
    """
    for layers in (model.encoder, model.decoder):
        if layers.activation != "softplus":  # type: ignore[union-attr]
            for layer in layers.maps:  # type: ignore[union-attr]
                layer.weight.abs_()  # type: ignore[operator, union-attr]


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def fit_autoencoder(
    mixtures: Mixtures,
    settings: AutoencoderSettings,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> NonnegativeAutoencoder:
    """Train autoencoders on the stems of the part "train"; what is left to choose, on "valid".

    Args:
        mixtures: of sources with names.
        settings: how.
        folder: of checkpoints and logs, one folder below it for each training.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        DataError: the sources have no names, or there is nothing to train on.
        OssicleError: a setting is out of range.
        TrainingError: a loss is not finite, or ``folder`` holds another run.
    """
    s = settings.check()
    if not mixtures.sources:
        raise DataError(
            f"{mixtures.root}: the autoencoder learns each source by itself, so that they need "
            "names (speech, noise); these are alike: use deep_clustering"
        )
    train, valid = mixtures.part("train"), mixtures.part("valid")

    def score(separator: Separator) -> float:
        return improvement(separator, valid, most=s.n_valid)

    batches = StemBatches(train, batch_size=s.batch_size, crop_s=s.crop_s, seed=s.seed)
    key = ["nonnegative_autoencoder", asdict(s), table_key(train), table_key(valid)]
    pairs = list(product(s.n_latents, s.sparsity))
    pairs = pairs if len(valid) else pairs[:1]
    taken, best, history, tried = None, -math.inf, [], []
    for number, (count, sparsity) in enumerate(pairs):
        found, log = _trained(
            mixtures,
            s,
            batches,
            count,
            sparsity,
            score,
            key,
            folder,
            _shifted(progress, number, s, len(pairs)),
        )
        gain = score(found)
        tried.append({"n_latents": count, "sparsity": sparsity, **_scored(gain)})
        if taken is None or gain > best:
            taken, best, history = found, gain, log
    assert taken is not None
    if len(valid):
        taken, best = _best_way(taken, s, score, best, tried)
    chosen = {
        name: taken.config()[name]
        for name in ("sizes", "sparsity", "exponent", "iterations", "start")
    }
    chosen |= {**_scored(best), "tried": tried}
    taken.info = described("nonnegative_autoencoder", mixtures, asdict(s), history, chosen)
    return taken.eval()


def _trained(
    mixtures: Mixtures,
    s: AutoencoderSettings,
    batches: StemBatches,
    count: int,
    sparsity: float,
    score: Score,
    key: list[Any],
    folder: Path | None,
    progress: Steps | None,
) -> tuple[NonnegativeAutoencoder, list[dict[str, Any]]]:
    torch.manual_seed(s.seed)
    rate = mixtures.sample_rate
    hop = max(1, round(s.hop_s * rate))
    separator = NonnegativeAutoencoder(
        rate,
        list(mixtures.sources),
        2 * max(hop, round(s.n_fft_s * rate / 2)),
        hop,
        [*s.hidden, count],
        s.activation,
        s.latents,
        s.starts[0],
        s.iterations[0],
        sparsity,
        s.exponents[0],
    )
    objective = Autoencoding(
        separator,
        sparsity=sparsity,
        nonnegative=s.nonnegative,
        gain_db=s.gain_db,
        silence_db=s.silence_db,
        validate=score if s.judge_every and "valid" in mixtures.parts else None,
        patience=s.patience,
    )
    schedule = Schedule(s.steps, s.learning_rate, judge_every=s.judge_every, seed=s.seed)
    name = f"{count}-latents-sparsity-{sparsity:g}"
    _, history = train_separator(
        objective,
        batches,
        schedule,
        key=[*key, count, sparsity],
        folder=None if folder is None else folder / name,
        progress=progress,
    )
    return separator, history


def _best_way(
    taken: NonnegativeAutoencoder,
    s: AutoencoderSettings,
    score: Score,
    best: float,
    tried: list[dict[str, Any]],
) -> tuple[NonnegativeAutoencoder, float]:
    """Exponent, then start and iterations: weights stay as they are."""
    steps: list[list[dict[str, Any]]] = [[{"exponent": value} for value in s.exponents]]
    if s.latents == "fitted":
        steps.append([{"start": a, "iterations": b} for a, b in product(s.starts, s.iterations)])
    for ways in steps:
        for way in ways:
            if all(taken.config()[name] == value for name, value in way.items()):
                continue
            other = with_keywords(taken, **way)
            gain = score(other)
            tried.append({**way, **_scored(gain)})
            if gain > best:
                taken, best = other, gain
    return taken, best


def with_keywords(separator: NonnegativeAutoencoder, **keywords: Any) -> NonnegativeAutoencoder:
    """The same weights under other keywords, of those that decide no shape."""
    other = NonnegativeAutoencoder(**{**separator.config(), **keywords})
    other.load_state_dict(separator.state_dict())
    return other.eval().requires_grad_(False)


def _scored(gain: float) -> dict[str, float]:
    return {"validation_si_sdr_improvement": gain} if math.isfinite(gain) else {}


def _shifted(
    progress: Steps | None, number: int, s: AutoencoderSettings, trainings: int
) -> Steps | None:
    """Progress of one training among several, as of one run."""
    if progress is None:
        return None
    heard = s.steps * s.batch_size * s.crop_s

    def told(done: int, steps: int, seconds: float) -> None:
        progress(number * steps + done, trainings * steps, number * heard + seconds)

    return told
