"""Training with labels: a linear head on the last layer's mean, for one class or several tags.

Choi et al. 2017 (arXiv 1703.09179) transfer from such a tagger. B items, C channels, K classes.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones import Backbone
from ossicle.datasets.clips import Clips
from ossicle.datasets.folds import make_folds, usable_folds
from ossicle.errors import DataError, OssicleError
from ossicle.metrics import with_intervals
from ossicle.model import Model
from ossicle.predict import class_columns, predict
from ossicle.pretrain.objective import Pretraining, embedding
from ossicle.pretrain.optimiser import MovingAverage
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

TASKS = ("classes", "multilabel")
SCORES = {"classes": ("accuracy", "auc", "map"), "multilabel": ("auc", "map")}
UNLABELLED = -1  # in place of a class; among tags NaN
# Shares of a split are made of at most so many folds.
MOST_FOLDS = 20


def clip_losses(
    logits: Tensor, targets: Tensor, task: str, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Each item's cross entropy, or its binary cross entropy averaged over the tags it has told of.

    Args:
        logits: (B, K).
        targets: (B,) class numbers, -1 for none; or (B, K) 0/1, NaN where it is not known.
        task: "classes" or "multilabel".
        label_smoothing: share of a class's target spread over all classes.

    Returns:
        (B,) float32, 0 where there is no label; and (B,) whether there is one.
    """
    logits = logits.float()
    if task == "classes":
        losses = F.cross_entropy(
            logits,
            targets,
            ignore_index=UNLABELLED,
            label_smoothing=label_smoothing,
            reduction="none",
        )
        return losses, targets != UNLABELLED
    known = ~targets.isnan() if targets.is_floating_point() else torch.ones_like(targets).bool()
    clean = torch.where(known, targets, 0).float()
    losses = F.binary_cross_entropy_with_logits(logits, clean, reduction="none")
    counts = known.sum(1)
    return (losses * known).sum(1) / counts.clamp(min=1), counts > 0


class Supervised(Pretraining):
    """Cross entropy of classes, or binary cross entropy of tags.

    Items without a label (a class of -1, tags of NaN) do not count. Balance between classes is a
    matter of what is drawn: ``CropBatches(balance=True)``.

    Args:
        backbone: what is trained; the head reads the last layer's mean.
        views: front end and augmentations.
        num_classes: K.
        task: "classes" or "multilabel".
        label_smoothing: share of a class's target spread over all classes (Szegedy et al. 2016,
            arXiv 1512.00567, section 7).

    Raises:
        OssicleError: an unknown task, no classes, or smoothing out of range or of tags.
    """

    num_views = 1

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        num_classes: int,
        task: str = "classes",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(backbone, views)
        if task not in TASKS:
            raise OssicleError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
        if num_classes < 1 or not 0 <= label_smoothing < 1:
            raise OssicleError("give one class or more, and label_smoothing from 0 to below 1")
        if label_smoothing and task != "classes":
            raise OssicleError("label_smoothing is for classes, not for tags: leave it out")
        self.task, self.label_smoothing = task, label_smoothing
        self.head = nn.Linear(backbone.num_features, num_classes)
        self.average_head: nn.Module | None = None
        self._head_average: MovingAverage | None = None

    def keep_average(self, decay: float) -> None:
        """From now on follow backbone and head by a moving average."""
        super().keep_average(decay)
        self.average_head = copy.deepcopy(self.head)
        self._head_average = MovingAverage(self.head, self.average_head, decay)

    def after_update(self, step: Step) -> None:
        """The averages move a little towards the networks."""
        super().after_update(step)
        if self._head_average is not None:
            self._head_average.update()

    def head_layer(self) -> tuple[Tensor, Tensor]:
        """(K, C) weight and (K,) bias that go with ``result``: read-out "LAST/mean" of a model."""
        head: Any = self.head if self.average_head is None else self.average_head
        return head.weight.detach(), head.bias.detach()

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and "accuracy" or "top_tag": how often the likeliest is right."""
        pictures = self.views(batch, step)
        return self.supervised_loss(embedding(self.backbone(torch.cat(pictures))), batch, step)

    def supervised_loss(
        self, features: Tensor, batch: Batch, step: Step
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over views and labelled items of the joint batch.

        Each process gives its own part, so scaled that the mean over processes is that mean,
        however the labelled ones are spread over them.

        Args:
            features: (V * b, C) of V views, one view after another.
            batch: holds the targets.
            step: gathers how many items have a label.

        Raises:
            OssicleError: the batch has no targets.
        """
        if batch.targets is None:
            raise OssicleError("training with labels needs labels: the batches have none")
        n_views = len(features) // len(batch.targets)
        targets = torch.cat([batch.targets] * n_views)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.head(features.float())
            losses, labelled = clip_losses(logits, targets, self.task, self.label_smoothing)
        everyone = step.gather(labelled[: len(batch.targets)].float()).sum().clamp(min=1)
        processes = step.size / len(batch.targets)
        loss = losses.sum() * processes / (n_views * everyone)
        with torch.no_grad():
            likeliest = logits.argmax(1)
            if self.task == "classes":
                name, right = "accuracy", likeliest == targets
            else:
                name, right = "top_tag", targets.gather(1, likeliest[:, None])[:, 0] > 0
            # What has no label is never right.
            share = right.sum() / labelled.sum().clamp(min=1)
        return loss, {name: share}


def held_out_scores(
    model: Model, clips: Clips, *, workers: int = 1, seed: int = 0
) -> dict[str, Any]:
    """How well a trained model does on clips that it has not heard, whole clips and not crops.

    Args:
        model: with a head.
        clips: with labels, of the model's task; of groups that were not trained on.
        workers: threads.
        seed: of the bootstrap.

    Returns:
        "scores": {name: {"value", "low", "high"}}, 95 % intervals over resampled groups; of
        "multilabel" macro "auc" and "map", of "classes" also "accuracy" in front. "n_clips" and
        "n_groups" that were scored, "absent": classes without a clip, which the macro averages
        leave out, "skipped": (row, path, reason) of what could not be read.

    Raises:
        OssicleError: the model has no head.
        DataError: another task, a label that the model does not know, or nothing to score.
    """
    if clips.task != model.task or model.task not in SCORES:
        raise DataError(f"the clips are of the task {clips.task}, the model of {model.task}")
    unknown = sorted(set(clips.classes) - set(model.classes))
    if unknown:
        shown = ", ".join(unknown[:5])
        raise DataError(f"{len(unknown)} labels are unknown to the model: {shown}; leave them out")
    table, skipped = predict(model, clips, workers=workers)
    if table.empty:
        raise DataError(f"none of the {len(clips)} clips could be scored")
    known = replace(clips, classes=model.classes).subset(table["row"].to_numpy())
    y, groups = known.y(), known.groups()
    scores = table[class_columns(model)].to_numpy()
    measured = with_intervals(
        model.task, y, None, scores, model.classes, groups=groups, random_state=seed
    )
    present = np.bincount(y, minlength=scores.shape[1]) if y.ndim == 1 else y.sum(0)
    return {
        "scores": {name: measured[name] for name in SCORES[model.task]},
        "n_clips": len(y),
        "n_groups": len(np.unique(groups)),
        "absent": [name for name, n in zip(model.classes, present, strict=True) if not n],
        "skipped": skipped,
    }


def split_groups(clips: Clips, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on; no group is in both.

    Stratified by ``make_folds``. Then groups change sides, the smallest first, until each class
    of two groups or more is on both, where that can be had without taking another class away:
    with many rare classes the second part is larger than ``share``. Classes of one group are
    trained on.

    Args:
        clips: with labels and groups.
        share: of the clips, about, to validate on.
        seed: the same gives the same parts.

    Returns:
        (train,), (validation,) sorted row numbers.

    Raises:
        DataError: the share is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < share < 1:
        raise DataError(f"share {share}: choose it between 0 and 1")
    y, groups, task = clips.y(), clips.groups(), clips.task
    wanted = max(2, Fraction(share).limit_denominator(MOST_FOLDS).denominator)
    wanted = max(wanted, round(1 / min(share, 1 - share)))
    n_folds, _ = usable_folds(y, groups, wanted, task=task, rare="train", classes=clips.classes)
    folds = make_folds(y, groups, n_folds, task=task, random_state=seed, rare="train")
    held = max(1, min(round(share * len(folds)), len(folds) - 1))
    validated = np.zeros(len(y), bool)
    for _, test in folds[:held]:
        validated[test] = True
    names, codes = np.unique(groups, return_inverse=True)
    side = np.zeros(len(names), np.int64)
    side[codes[validated]] = 1
    if task != "regression":
        one_hot = y if y.ndim == 2 else np.eye(len(clips.classes), dtype=np.int64)[y]
        has = np.zeros((len(names), one_hot.shape[1]), np.int64)
        np.add.at(has, codes, one_hot)
        _onto_both_sides(side, has > 0, np.bincount(codes))
    return np.flatnonzero(side[codes] == 0), np.flatnonzero(side[codes] == 1)


def _onto_both_sides(side: np.ndarray, has: np.ndarray, sizes: np.ndarray) -> None:
    """Change (G,) sides, in place, until each class with two groups is on both, if possible.

    Args:
        side: 0 or 1.
        has: (G, K) whether a group has clips of a class.
        sizes: (G,) clips.
    """
    for c in np.argsort(has.sum(0), kind="stable"):
        for missing in (0, 1):
            if has[:, c].sum() < 2 or has[side == missing, c].any():
                continue
            here, there = has[side == missing].sum(0), has[side != missing].sum(0)
            inside = np.flatnonzero(has[:, c] & (side != missing))
            inside = inside[np.argsort(sizes[inside], kind="stable")]
            # A class whose last group would leave its side stays where it is ...
            free = [g for g in inside if (there[has[g]] > 1).all()]
            if free:
                side[free[0]] = missing
                continue
            # ... unless another group comes for it that takes no class away in turn.
            for g in inside:
                lost, after = has[g] & (there == 1), here + has[g]
                for h in np.flatnonzero((side == missing) & has[:, lost].all(1)):
                    if side[g] != missing and (after[has[h]] > 1).all():
                        side[g], side[h] = missing, 1 - missing
