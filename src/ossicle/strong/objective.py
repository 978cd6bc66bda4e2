"""What a detector minimises: the cross entropy of its frames, and of windows as a whole.

B windows, K classes, T frames.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ossicle.backbones.frame_crnn import FrameCRNN
from ossicle.detector import Detector
from ossicle.errors import OssicleError
from ossicle.pretrain.optimiser import MovingAverage
from ossicle.strong.changes import Changes
from ossicle.strong.front import Front
from ossicle.strong.settings import StrongSettings
from ossicle.strong.targets import Targets, binary_losses, unpack
from ossicle.train import Batch, Objective, Step


class StrongTraining(Objective):
    """The loss of a detector on windows, some of which have strong labels.

    Args:
        detector: trained in place; its frozen base stays as it is.
        front: of it.
        settings: how.
        precomputed: batches hold what the front made, not waveforms.
        validate: a detector -> its score on the validation part, higher is better, and numbers to
            log; None: there is no such part.
    """

    best_score: Tensor
    best_epoch: Tensor
    epoch: Tensor
    steps: Tensor

    def __init__(
        self,
        detector: Detector,
        front: Front,
        settings: StrongSettings,
        *,
        precomputed: bool,
        validate: Callable[[Detector], tuple[float, dict[str, float]]] | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.precomputed, self.validate = settings, precomputed, validate
        self.front = front
        hop = round(detector.frame_hop_s * detector.sample_rate)
        self.changes = Changes(front, settings, hop)
        self.detector = detector
        make_trainable(detector)
        self.average: Detector | None = None
        self._moving: MovingAverage | None = None
        if settings.average:
            self.average = shared_copy(detector)
            self._moving = MovingAverage(detector, self.average, settings.average)
        self.best = shared_copy(detector) if validate is not None else None
        self.register_buffer("best_score", torch.tensor(-torch.inf))
        self.register_buffer("best_epoch", torch.tensor(0))
        self.register_buffer("epoch", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and its two parts.

        Raises:
            OssicleError: the batch has no targets.
        """
        if batch.targets is None:
            raise OssicleError("training with strong labels needs targets: the batches have none")
        targets, heard = unpack(batch.targets), batch.waveforms[:, 0]
        with torch.no_grad():
            if self.precomputed:
                parts = self.front.unflat(heard)
                parts, targets = self.changes.of_parts(parts, targets, step.generator)
            else:
                heard, targets = self.changes.of_waveforms(heard, targets, step.generator)
                parts = self.front.parts(heard)
            self.changes.masked(parts, step.generator)
        strong, weak = self.detector.logits_of_front(parts, targets.valid.sum(1))
        # A front end that looks beyond the samples' end may have a frame more.
        return self.loss(strong[..., : targets.frames.shape[-1]], weak, targets)

    def loss(
        self, strong: Tensor, weak: Tensor, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over known frames and classes, and over windows and classes.

        Args:
            strong: (B, K, T) logits.
            weak: (B, K) logits.
            targets: of both.
        """
        known = targets.known[:, None].to(strong.dtype)
        frames = binary_losses(strong, targets.frames) * known
        frame_loss = frames.sum() / (known.sum() * strong.shape[1]).clamp(min=1)
        clip_loss = binary_losses(weak, targets.clips).mean()
        loss = frame_loss + self.settings.clip_weight * clip_loss
        return loss, {"frame_loss": frame_loss.detach(), "clip_loss": clip_loss.detach()}

    def after_update(self, step: Step) -> None:
        """Let the average follow: soon at first, as it would else remember the random start."""
        self.steps += 1
        if self._moving is not None:
            number = int(self.steps)
            self._moving.decay = min(self.settings.average, (1 + number) / (10 + number))
            self._moving.update()

    @property
    def judged(self) -> Detector:
        """The detector that is scored and taken: the moving average where there is one."""
        return self.detector if self.average is None else self.average

    @torch.no_grad()
    def after_epoch(self) -> dict[str, float]:
        """Score the weights on the validation part; the best ones are kept."""
        self.epoch += 1
        if self.validate is None or self.best is None:
            return {}
        judged = self.judged
        judged.eval()
        score, numbers = self.validate(judged)
        if score > float(self.best_score):
            self.best_score.fill_(score)
            self.best_epoch.copy_(self.epoch)
            self.best.load_state_dict(judged.state_dict())
        return {"validation_score": score, **numbers}

    def finished(self) -> bool:
        """Whether it has not got better for as many epochs as it may."""
        patience = self.settings.patience
        return bool(self.best is not None and patience and self.epoch - self.best_epoch >= patience)

    def taken(self) -> Detector:
        """The detector of the best epoch, frozen; without a validation part that of the last."""
        chosen = self.judged
        if self.best is not None and bool(self.best_score.isfinite()):
            chosen = self.best
        return chosen.eval().requires_grad_(False)


def make_trainable(detector: Detector) -> None:
    """Let all weights learn but those of a frozen base."""
    detector.requires_grad_(False)
    detector.backbone.requires_grad_(True)
    detector.head.requires_grad_(True)
    if detector.attention is not None:
        detector.attention.requires_grad_(True)


def shared_copy(detector: Detector) -> Detector:
    """A copy that shares the frozen base, which is the larger part of it and never changes."""
    network = detector.backbone
    memo: dict[int, Any] = {}
    if isinstance(network, FrameCRNN) and network.base is not None:
        memo[id(network.base)] = network.base
    return copy.deepcopy(detector, memo).requires_grad_(False)
