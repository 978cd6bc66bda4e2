"""The score by which an epoch of training is better than another, on the validation part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from ossicle.detector import Detector
from ossicle.strong.front import Front
from ossicle.strong.targets import unpack

AT_ONCE = 16  # windows that are scored together


class Judge:
    """A detector -> its score on the validation part, higher is better, and numbers to log.

    Args:
        front: of the detector.
        rows: numbers of windows -> (B, M) what the front makes of them.
        targets: numbers of windows -> (B, K + 2, T + 1), as ``pack`` packs them.
        held: (W,) numbers of the windows of the validation part.
    """

    def __init__(
        self,
        front: Front,
        rows: Callable[[np.ndarray], Tensor],
        targets: Callable[[np.ndarray], np.ndarray],
        held: np.ndarray,
    ) -> None:
        self.front, self.rows, self.targets, self.held = front, rows, targets, held

    @torch.inference_mode()
    def __call__(self, detector: Detector) -> tuple[float, dict[str, float]]:
        """Mean average precision over frames of the classes that sound, and the frames' loss."""
        scores, truth, losses = [], [], []
        for numbers in np.array_split(self.held, -(-len(self.held) // AT_ONCE)):
            targets = unpack(torch.from_numpy(self.targets(numbers)))
            logits, _ = detector.logits_of_front(
                self.front.unflat(self.rows(numbers)), targets.valid.sum(1)
            )
            known = targets.known
            logits = logits[..., : known.shape[1]]
            logits, wanted = logits.transpose(1, 2)[known], targets.frames.transpose(1, 2)[known]
            loss = torch.nn.functional.binary_cross_entropy_with_logits
            losses.append(loss(logits, wanted, reduction="none").mean(1))
            scores.append(logits.numpy())
            truth.append(wanted.numpy() >= 0.5)
        z, y = np.concatenate(scores), np.concatenate(truth)
        present = y.any(0) & ~y.all(0)
        each = [average_precision_score(y[:, k], z[:, k]) for k in np.flatnonzero(present)]
        score = float(np.mean(each)) if each else 0.0
        return score, {"validation_loss": float(torch.cat(losses).mean())}
