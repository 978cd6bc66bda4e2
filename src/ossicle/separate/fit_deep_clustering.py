"""Training deep clustering: the affinities of the bins of random mixtures of stems."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import OssicleError
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
from ossicle.separators.deep_clustering import (
    DeepClustering,
    affinity_loss,
    ideal_assignment,
    whitened_loss,
)

LOSSES = {"affinity": affinity_loss, "whitened": whitened_loss}
WEIGHTS = ("active", "magnitude")
# Batches that the levels' mean and spread are taken from.
STATISTICS = 20
SHARPNESSES = (2.0, 5.0, 10.0)


@dataclass(frozen=True)
class DeepClusteringSettings:
    """How deep clustering is trained; every value is part of the record.

    Attributes:
        n_fft_s, hop_s: frames and their distance, seconds; the paper has 32 ms and 8 ms.
        hidden, n_layers, embedding, threshold_db, dropout: see `DeepClustering`.
        loss: "affinity" (Hershey et al. 2016) or "whitened" (Wang et al. 2018).
        weight: how much a bin counts: "active", all that are not silent alike, or "magnitude",
            by its share of the mixture's magnitude too.
        frames: of a training stretch; the paper has 100.
        batch_size: stretches a step.
        steps: of Adam.
        learning_rate: at its peak.
        warm_up: share of the steps in which the rate rises.
        clip_norm: of the gradient.
        judge_every: steps between scores on the validation part, whose best weights are taken.
        n_valid: mixtures that it is scored on.
        precision: "32-true", or "bf16-mixed", which takes half the time on processors that
            compute in bfloat16.
        accelerator: of Lightning Fabric.
        seed: of everything drawn.
    """

    n_fft_s: float = 0.032
    hop_s: float = 0.008
    hidden: int = 300
    n_layers: int = 2
    embedding: int = 20
    threshold_db: float = 40.0
    dropout: float = 0.0
    loss: str = "affinity"
    weight: str = "active"
    frames: int = 100
    batch_size: int = 32
    steps: int = 6000
    learning_rate: float = 1e-3
    warm_up: float = 0.05
    clip_norm: float = 1.0
    judge_every: int = 500
    n_valid: int = 60
    precision: str = "32-true"
    accelerator: str = "cpu"
    seed: int = 0

    def check(self) -> DeepClusteringSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        if self.loss not in LOSSES:
            raise OssicleError(f"loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        if self.weight not in WEIGHTS:
            raise OssicleError(f"weight {self.weight!r}: choose one of {', '.join(WEIGHTS)}")
        for name in ("n_fft_s", "hop_s", "frames", "batch_size", "steps", "n_valid"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.warm_up <= 1 or self.judge_every < 0 or self.seed < 0:
            raise OssicleError("warm_up lies between 0 and 1; judge_every and seed are not below 0")
        return self


class Clustering(SeparatorTraining):
    """The loss of embeddings on mixtures of stems.

    Args:
        separator: to be trained.
        loss, weight: see the settings.
        others: of `SeparatorTraining`.
    """

    separator: DeepClustering

    def __init__(self, separator: DeepClustering, loss: str, weight: str, **others: object) -> None:
        super().__init__(separator, **others)  # type: ignore[arg-type]
        self.pairs, self.weight = LOSSES[loss], weight

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, S, N) -> the mean over the items that are not silent."""
        network = self.separator
        with torch.no_grad():
            spectra = network.fourier.analyse(stems)
            mixture = spectra.sum(1)
            levels = network.levels(mixture)
            active = network.active(levels).flatten(1)
            weight = active.float()
            if self.weight == "magnitude":
                magnitude = mixture.abs().transpose(1, 2).flatten(1) * weight
                mean = magnitude.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
                weight = magnitude / mean.clamp(min=1e-20)
            assignment = ideal_assignment(spectra)
        vectors = network.embed(levels)
        # Sums over ten thousand bins: not in half precision.
        with torch.autocast(stems.device.type, enabled=False):
            each = self.pairs(vectors.float(), assignment, weight)
        heard = active.any(1).float()
        return (each * heard).sum() / heard.sum().clamp(min=1), {"active": active.float().mean()}


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def fit_deep_clustering(
    mixtures: Mixtures,
    settings: DeepClusteringSettings,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> Separator:
    """Train deep clustering on the stems of the part "train", judged on the part "valid".

    Where there is no part "valid", the last weights are taken.

    Args:
        mixtures: of like sources, or of such with roles, whose names are not learnt.
        settings: how.
        folder: of checkpoint and log; a stopped run goes on there.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        OssicleError: the settings or the mixtures cannot be used.
        TrainingError: a loss is not finite, or ``folder`` holds another run.
    """
    s = settings.check()
    rate = mixtures.sample_rate
    hop = max(1, round(s.hop_s * rate))
    n_fft = 2 * max(hop, round(s.n_fft_s * rate / 2))
    torch.manual_seed(s.seed)
    network = DeepClustering(
        rate, n_fft, hop, s.hidden, s.n_layers, s.embedding, s.threshold_db, s.dropout
    )
    train, valid = mixtures.part("train"), mixtures.part("valid")
    crop_s = s.frames * hop / rate
    batches = StemBatches(train, batch_size=s.batch_size, crop_s=crop_s, seed=s.seed)
    _fit_statistics(network, batches)
    judged = None
    if len(valid):
        judged = lambda separator: improvement(separator, valid, most=s.n_valid)  # noqa: E731
    objective = Clustering(network, s.loss, s.weight, validate=judged)
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
    key = ["deep_clustering", asdict(s), table_key(train), table_key(valid)]
    _, history = train_separator(
        objective, batches, schedule, key=key, folder=folder, progress=progress
    )
    network.to("cpu")
    chosen = _choose_mask(network, valid, s.n_valid) if len(valid) else {}
    network.info = described("deep_clustering", mixtures, asdict(s), history, chosen)
    return network


def _fit_statistics(network: DeepClustering, batches: StemBatches) -> None:
    """Mean and spread of each bin's levels over some batches of the training part."""
    rows = []
    with torch.no_grad():
        for step in range(STATISTICS):
            stems = batches.batch(step).waveforms
            rows.append(network.levels(network.fourier.analyse(stems.sum(1))).flatten(0, 1))
        levels = torch.cat(rows).double()
        network.level_mean.copy_(levels.mean(0))
        network.level_std.copy_(levels.std(0).clamp(min=1.0))


def _choose_mask(network: DeepClustering, valid: Mixtures, most: int) -> dict[str, object]:
    """Binary or soft masks, and how soft: what the validation part likes best."""
    tried: dict[str, float] = {}
    ways = [("binary", network.sharpness), *(("soft", sharpness) for sharpness in SHARPNESSES)]
    for network.mask, network.sharpness in ways:
        tried[_way(network)] = improvement(network, valid, most=most)
    best = max(tried, key=lambda name: tried[name])
    network.mask, network.sharpness = next(way for way in ways if f"{way[0]} {way[1]:g}" == best)
    return {"mask": best, "validation_si_sdr_improvement": tried}


def _way(network: DeepClustering) -> str:
    return f"{network.mask} {network.sharpness:g}"
