"""Training unfolded NMF: from the bases of NMF on, for the masks that they make."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import OssicleError
from ossicle.separate.batches import StemBatches
from ossicle.separate.fit_nmf import NMFSettings, fit_nmf
from ossicle.separate.label import described
from ossicle.separate.training import (
    Schedule,
    SeparatorTraining,
    Steps,
    improvement,
    table_key,
    train_separator,
)
from ossicle.separators.nmf import NMF
from ossicle.separators.unfolded_nmf import UnfoldedNMF

LOSSES = ("magnitude", "waveform")
# Below this share of a stretch's power nothing is heard: it bounds the loss of silent stems.
_SILENT = 1e-4


@dataclass(frozen=True)
class UnfoldedSettings(NMFSettings):
    """How unfolded NMF is trained: first all of `NMFSettings`, of the NMF that it starts from.

    ``n_iterations`` is the number of layers; ``free`` must be empty.

    Attributes:
        n_trained: sets of bases that are learnt, counted from the reconstruction back; 1 trains
            the reconstruction alone, ``n_iterations + 1`` all.
        tied: these share one set.
        loss: "magnitude": squared error of the masked magnitudes, as in the papers; "waveform":
            signal-to-noise ratio of what comes out.
        crop_s: seconds of a training stretch.
        batch_size: stretches a step.
        steps: of Adam, at most.
        learning_rate: at its peak, of the logarithms of the bases.
        warm_up: share of the steps in which the rate rises; then half a cosine.
        clip_norm: of the gradient.
        judge_every: steps between scores on the validation part, whose best weights are taken,
            those before the first step among them.
        patience: scores without a better one before training ends; 0: never.
    """

    n_trained: int = 4
    tied: bool = False
    loss: str = "waveform"
    crop_s: float = 2.0
    batch_size: int = 8
    steps: int = 400
    learning_rate: float = 0.1
    warm_up: float = 0.05
    clip_norm: float = 1.0
    judge_every: int = 50
    patience: int = 0

    def check(self) -> UnfoldedSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        super().check()
        if self.loss not in LOSSES:
            raise OssicleError(f"loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        if self.free:
            raise OssicleError("free sources have no bases that could be trained: leave free empty")
        if not 1 <= self.n_trained <= self.n_iterations + 1:
            raise OssicleError(
                f"n_trained must be from 1 to n_iterations + 1 ({self.n_iterations + 1}), got "
                f"{self.n_trained}"
            )
        for name in ("crop_s", "batch_size", "steps", "learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.warm_up <= 1 or self.judge_every < 0 or self.patience < 0:
            raise OssicleError(
                "warm_up lies between 0 and 1; judge_every and patience are not below 0"
            )
        return self


class Unfolding(SeparatorTraining):
    """The loss of masks on mixtures of stems.

    Args:
        separator: to be trained.
        kind: one of `LOSSES`.
        others: of `SeparatorTraining`.
    """

    separator: UnfoldedNMF

    def __init__(self, separator: UnfoldedNMF, kind: str, **others: object) -> None:
        super().__init__(separator, **others)  # type: ignore[arg-type]
        self.kind = kind

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, S, N) -> the mean over the items that are not silent."""
        network = self.separator
        spectra = network.fourier.analyse(stems)
        mixture = spectra.sum(1)
        # Frames are updated each by itself: those of all items go through side by side.
        frames = network.frames(mixture.abs())
        n_items, rows, n_frames = frames.shape
        joined = frames.permute(1, 0, 2).reshape(rows, n_items * n_frames)
        shares = network.shares(joined).unflatten(-1, (n_items, n_frames))
        masked = shares.permute(2, 0, 1, 3) * mixture[:, None]
        if self.kind == "magnitude":
            each = magnitude_error(masked.abs(), spectra.abs())
        else:
            estimates = network.fourier.synthesise(masked, stems.shape[-1])
            each = negative_snr(estimates, stems)
        return each.mean(), {}


def magnitude_error(masked: Tensor, true: Tensor) -> Tensor:
    """(B, S, F, T) magnitudes -> (B,): squared errors, a share of the power of all stems together.

    Le Roux, Hershey & Weninger, 2015: the error of the masked mixture against the source.
    """
    power = true.square().sum((1, 2, 3)).clamp_min(1e-12)
    return (masked - true).square().sum((1, 2, 3)) / power


def negative_snr(estimates: Tensor, true: Tensor) -> Tensor:
    """(B, S, N) -> (B,): noise against signal, dB, averaged over the sources.

    Both have a hundredth of a percent of the stems' power added, so that a silent stem counts as
    much as -40 dB of noise at most.
    """
    rest = _SILENT * true.square().sum((1, 2), keepdim=True).squeeze(-1).clamp_min(1e-12)
    noise = (estimates - true).square().sum(-1) + rest
    signal = true.square().sum(-1) + rest
    return 10 * (noise / signal).log10().mean(1)


def unfolded(nmf: NMF, n_trained: int, tied: bool = False) -> UnfoldedNMF:
    """Layers that give the very masks of an NMF, until they are trained."""
    keywords = {key: value for key, value in nmf.config().items() if key != "free"}
    network = UnfoldedNMF(
        n_layers=keywords.pop("n_iterations"), n_trained=n_trained, tied=tied, **keywords
    )
    network.bases.copy_(nmf.bases)
    return network


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def fit_unfolded(
    mixtures: Mixtures,
    settings: UnfoldedSettings,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> UnfoldedNMF:
    """Fit NMF, then train its layers on the stems of the part "train", judged on "valid".

    On the part "valid" it is never worse than the NMF that it started from. Where there is no such
    part, the last weights are taken.

    Args:
        mixtures: of sources with names.
        settings: how.
        folder: of checkpoint and log; a stopped run goes on there.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        DataError: the sources have no names, or one of them is silent throughout.
        OssicleError: a setting is out of range.
        TrainingError: a loss is not finite, or ``folder`` holds another run.
    """
    s = settings.check()
    of_nmf = {item.name: getattr(s, item.name) for item in fields(NMFSettings)}
    nmf = fit_nmf(mixtures, NMFSettings(**of_nmf))
    network = unfolded(nmf, s.n_trained, s.tied)
    train, valid = mixtures.part("train"), mixtures.part("valid")
    batches = StemBatches(train, batch_size=s.batch_size, crop_s=s.crop_s, seed=s.seed)
    judged = None
    if len(valid):
        judged = lambda separator: improvement(separator, valid, most=s.n_valid)  # noqa: E731
    objective = Unfolding(network, s.loss, validate=judged, patience=s.patience)
    # The NMF itself is the first that others have to be better than.
    before = objective.judge()
    schedule = Schedule(
        s.steps,
        s.learning_rate,
        round(s.warm_up * s.steps),
        s.clip_norm,
        s.judge_every,
        seed=s.seed,
    )
    _, history = train_separator(
        objective,
        batches,
        schedule,
        key=["unfolded_nmf", asdict(s), table_key(train), table_key(valid)],
        folder=folder,
        progress=progress,
        parameters=[network.changes],
    )
    chosen = {
        **nmf.info["chosen"],
        **{f"nmf_{name}": value for name, value in before.items()},
        "n_parameters": {"nmf": nmf.num_parameters, "trained": network.changes.numel()},
    }
    if len(valid):
        chosen["validation_si_sdr_improvement"] = float(objective.best_score)
    network.info = described("unfolded_nmf", mixtures, asdict(s), history, chosen)
    return network
