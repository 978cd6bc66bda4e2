"""Fitting a protocol's probe: ridge, a grid by minibatches, neighbours; what is chosen, and where.

Axes: n clips, m test clips, d dimensions, k classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ossicle.benchmark.minibatch import Settings, Trained, best, train
from ossicle.benchmark.neighbours import NEIGHBOURS, TEMPERATURE, vote
from ossicle.benchmark.rows import read_all
from ossicle.benchmark.task import Fold
from ossicle.benchmark.validation import validation_score
from ossicle.errors import DataError
from ossicle.transfer.calibrate import Calibration, calibrate, probabilities
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.ridge import RidgeProbe
from ossicle.transfer.ridge_path import RELATIVE_PENALTIES, RidgePath
from ossicle.transfer.span import linear_decisions

# Ridge is exact; beyond these it would need hours or more memory than a small machine has.
RIDGE_CLIPS = 20_000
RIDGE_RANK = 10_000  # the smaller of clips and dimensions
RIDGE_BYTES = 4 * 2**30

Progress = Callable[[str], None]


class Problem(NamedTuple):
    """What there is to learn from and to decide on; names as in ``run_protocol``."""

    X: Any
    y: np.ndarray
    fold: Fold
    groups: np.ndarray
    task: str
    num_classes: int
    block_sizes: Sequence[int] | None
    seed: int
    workers: int
    progress: Progress | None

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Classes with a clip among the rows; labels are all kept."""
        return np.unique(self.y[rows]) if self.task == "classes" else np.arange(self.num_classes)

    def among(self, classes: np.ndarray) -> np.ndarray:
        """(n,) numbers among those classes, -1 for others; labels as they are."""
        if self.task == "multilabel":
            return self.y
        number = np.full(self.num_classes, -1)
        number[classes] = np.arange(len(classes))
        return number[self.y]

    def spread(self, decisions: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(m, num_classes) with 0 for the classes that are not among those."""
        out = np.zeros((len(decisions), self.num_classes))
        out[:, classes] = decisions
        return out


def fit_ridge(p: Problem) -> tuple[np.ndarray, dict[str, Any]]:
    """(m, k) probabilities by ridge, and what was chosen."""
    fold = p.fold
    if not len(fold.valid):
        estimator = RidgeProbe(task=p.task, random_state=p.seed)
        estimator.fit(
            read_all(p.X, fold.train), p.y[fold.train], p.groups[fold.train], p.block_sizes
        )
        decisions = estimator.predict_proba(read_all(p.X, fold.test))
        info: dict[str, Any] = {
            "probe": "ridge",
            "chosen": {"penalty": float(estimator.chosen_["penalty"])},
            "validation": "each group of the training part left out in turn",
            "validation_loss": float(min(estimator.inner_losses_.values())),
            "fitted_on": "train",
        }
        return p.spread(decisions, estimator.classes_), info
    both = np.concatenate([fold.train, fold.valid])
    classes = p.present(both)
    numbers = p.among(classes)
    features = read_all(p.X, both)
    targets = _targets(numbers[both], p.task, len(classes))
    n = len(fold.train)
    if p.progress is not None:
        p.progress(f"ridge: {len(RELATIVE_PENALTIES)} penalties on {len(fold.valid)} clips")
    path = RidgePath(features[:n], 2 * targets[:n] - 1, block_sizes=p.block_sizes)
    chosen: tuple[tuple[float, float], float, Calibration] | None = None
    for relative in RELATIVE_PENALTIES:
        weight, bias = path.coefficients(float(relative) * path.scale)
        held_out = linear_decisions(features[n:], weight, bias)
        calibration = calibrate(held_out, targets[n:], np.ones(len(held_out)), p.task)
        score, _ = validation_score(held_out, numbers[fold.valid], p.task)
        rank = (float(np.nan_to_num(score, nan=-1.0)), -calibration.loss)
        if chosen is None or rank > chosen[0]:
            chosen = (rank, float(relative), calibration)
    assert chosen is not None
    (score, loss), relative, calibration = chosen
    path = RidgePath(features, 2 * targets - 1, block_sizes=p.block_sizes)
    weight, bias = path.coefficients(relative * path.scale)
    logits = calibration.logits(linear_decisions(read_all(p.X, fold.test), weight, bias))
    info = {
        "probe": "ridge",
        "chosen": {"penalty": relative},
        "validation": "the validation part",
        "validation_score": score,
        "validation_loss": -loss,
        "fitted_on": "train and valid",
    }
    return p.spread(probabilities(logits, p.task), classes), info


def fit_neighbours(p: Problem) -> tuple[np.ndarray, dict[str, Any]]:
    """(m, k) shares of the votes of the nearest training clips."""
    targets = _targets(p.y, p.task, p.num_classes)
    info = {
        "probe": "knn",
        "chosen": {"neighbours": NEIGHBOURS, "temperature": TEMPERATURE},
        "validation": "nothing is chosen",
        "fitted_on": "train",
    }
    return vote(p.X, targets, p.fold.train, p.fold.test), info


def fit_by_minibatches(
    p: Problem,
    grid: Callable[[int], Sequence[Settings]],
    *,
    parts: int,
    again: bool,
    notes: list[str],
) -> tuple[np.ndarray, dict[str, Any]]:
    """(m, k) probabilities by the best setting of a grid at its best epoch, and what was chosen.

    Args:
        p: the problem.
        grid: number of clips learnt from -> settings to try.
        parts: without a validation part, one of so many parts of the training clips is held out.
        again: the setting is then trained once more on all training clips, for as many epochs.
        notes: what was not as usual is added.

    Raises:
        DataError: no part can be held out or chosen on, or the features cannot be learnt from.
    """
    fold = p.fold
    classes = p.present(fold.train)
    numbers = p.among(classes)
    learnt, valid, where = fold.train, fold.valid, "the validation part"
    if not len(valid):
        learnt, valid, note = _hold_out(p, parts)
        where = f"one of {parts} parts of the training clips, "
        where += "clips held out" if note else "groups held out"
        notes += [note] if note else []
    known = valid if p.task == "multilabel" else valid[numbers[valid] >= 0]
    if len(known) < len(valid):
        notes.append(f"{len(valid) - len(known)} validation clips of classes not learnt left out")
    if not len(known):
        raise DataError("no validation clip is of a class that the training part has")

    def fit(rows: np.ndarray, held: np.ndarray, points: Sequence[Settings], **more: Any) -> Trained:
        return best(
            train(
                p.X,
                numbers,
                rows,
                held,
                points,
                task=p.task,
                num_classes=len(classes),
                seed=p.seed,
                workers=p.workers,
                progress=p.progress,
                **more,
            )
        )

    fitted = chosen = fit(learnt, known, grid(len(learnt)))
    fitted_on = "train"
    if not len(fold.valid):
        fitted_on = "train without the held-out part"
        if again:
            fitted_on = "train"
            none = np.zeros(0, np.int64)
            fitted = fit(fold.train, none, [chosen.settings], epochs=chosen.epoch)
    info = {
        "probe": "mlp" if chosen.settings.hidden else "linear",
        "chosen": chosen.chosen(),
        "validation": where,
        "validation_score": None if np.isnan(chosen.score) else chosen.score,
        "validation_loss": chosen.loss,
        "fitted_on": fitted_on,
        "epochs": chosen.epoch,
        "epochs_trained": chosen.epochs,
    }
    return p.spread(fitted.predict(p.X, fold.test), classes), info


def _hold_out(p: Problem, share: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Training rows learnt from, rows held out, and a note where groups had to give way.

    Of the folds it is the one whose rest keeps the most classes, then the one with the most.
    """
    rows = p.fold.train
    y, groups = p.y[rows], p.groups[rows]

    def kinds(part: np.ndarray) -> int:
        return len(np.unique(y[part])) if p.task == "classes" else int(y[part].any(axis=0).sum())

    for by in (groups, None):
        folds = inner_folds(y, by, task=p.task, n_folds=share, random_state=p.seed)
        ranks = [(kinds(folds != f), kinds(folds == f), -f) for f in range(folds.max() + 1)]
        kept, _, fold = max(ranks)
        if kept >= 2 or p.task == "multilabel":
            note = "" if by is not None else "too few groups: clips were held out, not groups"
            return rows[folds != -fold], rows[folds == -fold], note
    raise DataError("too few training clips a class to hold some out: name a validation part")


def _targets(y: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, k) 0/1 float64."""
    return y.astype(np.float64) if task == "multilabel" else (y[:, None] == np.arange(k)) * 1.0


def beyond_ridge(p: Problem) -> str:
    """Why the problem is too large for ridge; "" where it is not."""
    n, d = len(p.fold.train) + len(p.fold.valid), int(p.X.shape[1])
    size = f"{n:,} clips of {d:,} dimensions"
    if n > RIDGE_CLIPS:
        return f"{size}, more than {RIDGE_CLIPS:,} clips"
    if min(n, d) > RIDGE_RANK:
        return f"{size}, both more than {RIDGE_RANK:,}"
    if n * d * 4 > RIDGE_BYTES:
        return f"{size}, more than {RIDGE_BYTES // 2**30} GiB"
    return ""
