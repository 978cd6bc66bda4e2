"""Training a separator on stems mixed anew, judged on mixtures kept aside; the best stays."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import OssicleError
from ossicle.metrics.separation import best_permutation, si_sdr
from ossicle.pretrain.optimiser import warm_up_cosine
from ossicle.record import json_safe
from ossicle.separators.base import Separator
from ossicle.train import Batch, Batches, Objective, Step, fit

Steps = Callable[[int, int, float], None]


class SeparatorTraining(Objective):
    """What a separator is trained by; the weights that do best on the validation part are kept.

    A subclass defines ``loss``.

    Args:
        separator: with the parameters to learn.
        validate: gives the score to choose by, higher is better; None takes the last weights.
        patience: scores without a better one before training ends; 0: never.
    """

    best_score: Tensor
    best_at: Tensor
    judged: Tensor

    def __init__(
        self,
        separator: Separator,
        validate: Callable[[Separator], float] | None = None,
        patience: int = 0,
    ) -> None:
        super().__init__()
        self.separator, self.validate, self.patience = separator, validate, patience
        self.best = copy.deepcopy(separator).requires_grad_(False) if validate else None
        self.register_buffer("best_score", torch.tensor(-torch.inf))
        self.register_buffer("best_at", torch.tensor(0))
        self.register_buffer("judged", torch.tensor(0))

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of stems (B, S, N), whose sum over S is the mixture; and numbers to log."""
        raise NotImplementedError(f"{type(self).__name__} must define loss")

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch."""
        return self.loss(batch.waveforms)

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Score the weights on the validation part; the best ones are kept."""
        self.judged += 1
        if self.validate is None or self.best is None:
            return {}
        training = self.separator.training
        self.separator.eval()
        score = self.validate(self.separator)
        self.separator.train(training)
        if score > float(self.best_score):
            self.best_score.fill_(score)
            self.best_at.copy_(self.judged)
            self.best.load_state_dict(self.separator.state_dict())
        return {"validation_si_sdr_improvement": score}

    def finished(self) -> bool:
        """Whether it has not got better for as long as it may."""
        since = int(self.judged) - int(self.best_at)
        return bool(self.best is not None and self.patience and since >= self.patience)

    def taken(self) -> Separator:
        """The separator with its best weights, frozen."""
        if self.best is not None and bool(self.best_score.isfinite()):
            self.separator.load_state_dict(self.best.state_dict())
        return self.separator.eval().requires_grad_(False)


class Schedule(NamedTuple):
    """How long and how fast.

    Attributes:
        steps: of the optimiser.
        learning_rate: of Adam, at its peak.
        warm_up: steps in which the rate rises; then half a cosine down to 0.
        clip_norm: the gradient's norm is cut to it; None: never.
        judge_every: steps between scores on the validation part; 0: at the end alone.
        precision: of Fabric: "32-true", or "bf16-mixed".
        accelerator: of Fabric: "cpu", "cuda", "auto".
        seed: of everything drawn.
        loaders: threads that draw batches.
    """

    steps: int
    learning_rate: float
    warm_up: int = 0
    clip_norm: float | None = None
    judge_every: int = 0
    precision: str = "32-true"
    accelerator: str = "cpu"
    seed: int = 0
    loaders: int = 1


def train_separator(
    objective: SeparatorTraining,
    batches: Batches,
    schedule: Schedule,
    *,
    key: Sequence[Any],
    folder: Path | None = None,
    progress: Steps | None = None,
    parameters: Sequence[nn.Parameter] | None = None,
) -> tuple[Separator, list[dict[str, Any]]]:
    """Minimise the objective; the separator with its best weights, and the lines of the log.

    Args:
        objective: what to minimise.
        batches: of stems (b, S, N).
        schedule: how long and how fast.
        key: what makes a run the same run; another one's checkpoint in ``folder`` is refused.
        folder: of checkpoint and log; None keeps neither.
        progress: called after each step with steps done, all steps, and seconds of audio heard.
        parameters: to learn; None: all of the separator's.

    Raises:
        OssicleError: there is no such precision.
        TrainingError: a loss is not finite, or the folder holds another run.
        KeyboardInterrupt: it was asked to stop; its checkpoint is written.
    """
    learnt = list(objective.separator.parameters() if parameters is None else parameters)
    optimiser = torch.optim.Adam(learnt, schedule.learning_rate)
    clip = schedule.clip_norm

    def cut() -> None:
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(learnt, clip)

    total = schedule.steps
    trained = fit(
        objective,
        batches,
        optimiser,
        steps=total,
        schedule=lambda step: warm_up_cosine(step, total, schedule.warm_up),
        before_update=cut,
        fabric=_fabric(schedule.accelerator, schedule.precision),
        folder=folder,
        fingerprint=hashlib.sha256(
            json.dumps(json_safe([*key, schedule._asdict()])).encode()
        ).hexdigest(),
        seed=schedule.seed,
        monitor=objective.judge,
        monitor_every=schedule.judge_every,
        finished=objective.finished,
        loaders=schedule.loaders,
        progress=progress,
    )
    return objective.taken(), trained.history


def improvement(
    separator: Separator, mixtures: Mixtures, *, most: int = 60, seconds: float = 10.0
) -> float:
    """Mean SI-SDR improvement (dB) over some mixtures, to choose by.

    Args:
        separator: whose rate is the mixtures'.
        mixtures: the part to judge on.
        most: so many of them are heard, evenly spread.
        seconds: of each, from its start.
    """
    gains: list[float] = []
    for i in np.linspace(0, len(mixtures) - 1, min(most, len(mixtures))).round().astype(int):
        heard = mixtures.load(int(i))
        size = round(seconds * heard.sample_rate)
        mixture, sources = heard.mixture[:size], heard.sources[:, :size]
        samples = torch.from_numpy(np.ascontiguousarray(mixture))[None]
        n_sources = None if separator.sources else len(sources)
        estimates = separator.separate(samples, n_sources)[:, 0].numpy()
        if not separator.sources:
            estimates = estimates[np.asarray(best_permutation(estimates, sources))]
        gain = si_sdr(estimates, sources) - si_sdr(np.broadcast_to(mixture, sources.shape), sources)
        gains += [float(value) for value in np.ravel(gain) if np.isfinite(value)]
    return float(np.mean(gains)) if gains else -float("inf")


def table_key(mixtures: Mixtures) -> str:
    """The same for the same mixtures: of all they are known by but where they lie."""
    columns = [c for c in mixtures.table if not c.startswith(("mixture", "source", "clip"))]
    text = mixtures.table[columns].to_csv(index=False)
    about = [text, mixtures.sources, mixtures.n_sources, mixtures.sample_rate]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _fabric(accelerator: str, precision: str) -> Any:
    try:
        from lightning.fabric import Fabric
    except ImportError as error:
        raise OssicleError('training needs Lightning: pip install "ossicle[train]"') from error
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OssicleError(
            f"accelerator {accelerator!r}, precision {precision!r}: {reason}"
        ) from error


def training_folder(out: Path) -> Path:
    """Where checkpoint and log of a bundle in the making lie: beside it."""
    return out.with_name(f"{out.name.removesuffix('.ossicle')}-training")
