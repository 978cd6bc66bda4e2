"""Ridge probes: the product's default. Closed form, exact, and seconds for thousands of clips.

The penalty is chosen by exact leave-group-out: with groups, each whole group is held out in turn;
without, each stratified fold. Classes are regressed one against the rest (+1, -1), and the
penalty is the one whose held-out decisions, at their best temperature, have the smallest
negative log-likelihood. Squared error would charge a decision for being beyond its target, and
accuracy moves in steps of one clip, so its maximum over a grid is partly luck.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import ClassifierProbe, RegressorProbe, regression_loss
from ossicle.transfer.problem import Problem
from ossicle.transfer.ridge_path import RELATIVE_PENALTIES, RidgePath, choose_penalty
from ossicle.transfer.span import linear_decisions


class LinearHead:
    """For classifier probes with `weight_` (k, d) and `bias_` (k,) of uncalibrated decisions."""

    weight_: np.ndarray
    bias_: np.ndarray
    calibration_: Any

    def linear_head(self) -> tuple[np.ndarray, np.ndarray]:
        """(k, d) weight and (k,) bias, float32, for raw features.

        `X @ weight.T + bias` are logits whose softmax (sigmoid if multi-label) is `predict_proba`:
        standardising and calibration are inside.
        """
        weight, bias = self.calibration_.fold(self.weight_, self.bias_)
        return weight.astype(np.float32), bias.astype(np.float32)

    def _decide(self, X: np.ndarray) -> np.ndarray:
        return linear_decisions(X, self.weight_, self.bias_)


class RidgeProbe(LinearHead, ClassifierProbe):
    """Ridge for classes and for multi-label targets.

    Args:
        penalties: ascending penalties, as multiples of the mean squared norm of a clip; None:
            seventeen from 1e-4 to 1e4.
        class_weight: None, "balanced" or a dict of class to weight.
        task: "classes", "multilabel", or "auto" to tell from the targets.
        n_folds: inner folds where no groups are given.
        random_state: shuffles the inner folds.
    """

    def __init__(
        self,
        penalties: Any = None,
        *,
        class_weight: Any = None,
        task: str = "auto",
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.penalties = penalties
        self.class_weight = class_weight
        self.task = task
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        path = RidgePath(problem.X, 2 * problem.targets - 1, problem.weight, problem.block_sizes)
        penalty, held_out, tried = choose_penalty(
            path,
            problem.groups,
            lambda d: calibrate(d, problem.targets, problem.weight, problem.task).loss,
            RELATIVE_PENALTIES if self.penalties is None else np.asarray(self.penalties, float),
        )
        self.weight_, self.bias_ = path.coefficients(penalty)
        self.chosen_ = {"penalty": penalty / path.scale}
        self.inner_losses_ = tried
        return held_out


class RidgeRegressionProbe(RegressorProbe):
    """Ridge for numbers; the penalty has the smallest held-out squared error.

    Args:
        penalties: as for `RidgeProbe`.
        n_folds: inner folds where no groups are given.
        random_state: shuffles the inner folds.
    """

    def __init__(self, penalties: Any = None, *, n_folds: int = 5, random_state: Any = 0) -> None:
        self.penalties = penalties
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        path = RidgePath(problem.X, problem.targets, block_sizes=problem.block_sizes)
        penalty, held_out, tried = choose_penalty(
            path,
            problem.groups,
            lambda predicted: regression_loss(predicted, problem.targets),
            RELATIVE_PENALTIES if self.penalties is None else np.asarray(self.penalties, float),
        )
        self.weight_, self.bias_ = path.coefficients(penalty)
        self.chosen_ = {"penalty": penalty / path.scale}
        self.inner_losses_ = tried
        return held_out

    def _decide(self, X: np.ndarray) -> np.ndarray:
        return linear_decisions(X, self.weight_, self.bias_)

    def linear_head(self) -> tuple[np.ndarray, np.ndarray]:
        """(k, d) weight and (k,) bias, float32: `X @ weight.T + bias` are the predictions."""
        return self.weight_.astype(np.float32), self.bias_.astype(np.float32)
