"""Linear classifiers of scikit-learn with C chosen inside: the shared part, logistic regression.

Each C of the grid is scored like ridge's penalty: by the negative log-likelihood, at the best
temperature, of decisions on inner folds that keep groups together. Wide features are fitted in
their clips' coordinates (see `span`), which changes nothing but the time. C is in units of one
over the mean squared norm of a standardised clip, so that a grid suits features of any width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import ClassifierProbe
from ossicle.transfer.problem import Problem
from ossicle.transfer.ridge import LinearHead
from ossicle.transfer.span import Span

LOGISTIC_C = np.logspace(-3, 3, 7)


def _one_column(
    model: Any, X: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, float]:
    """(r,) coefficients and intercept for a 0/1 target; a constant target needs no features."""
    if y.min() == y.max():
        return np.zeros(X.shape[1]), float(2 * y[0] - 1)
    model.fit(X, y, sample_weight=weight)
    return model.coef_[0], float(model.intercept_[0])


def _fit_linear(
    make: Callable[[], Any], X: np.ndarray, targets: np.ndarray, weight: np.ndarray, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """(k, r) coefficients and (k,) intercepts of decisions, classes that are absent far below."""
    k = targets.shape[1]
    coefficients, intercepts = np.zeros((k, X.shape[1])), np.zeros(k)
    if task == "multilabel":
        for j in range(k):
            coefficients[j], intercepts[j] = _one_column(make(), X, targets[:, j], weight)
        return coefficients, intercepts
    index = targets.argmax(axis=1)
    present = np.unique(index)
    if len(present) == 1:
        intercepts[:] = -1.0
        intercepts[present] = 1.0
    elif len(present) == 2:
        coef, intercept = _one_column(make(), X, (index == present[1]).astype(float), weight)
        intercepts[:] = -abs(intercept) - 1.0
        for j, sign in zip(present, (-0.5, 0.5), strict=True):
            coefficients[j], intercepts[j] = sign * coef, sign * intercept
    else:
        model = make().fit(X, index, sample_weight=weight)
        intercepts[:] = model.intercept_.min() - 1.0
        coefficients[present], intercepts[present] = model.coef_, model.intercept_
    return coefficients, intercepts


class LinearProbe(LinearHead, ClassifierProbe):
    """Base of linear classifiers of scikit-learn with a grid of C (`_grid`, `_make`)."""

    c: Any
    max_iterations: int

    def _grid(self) -> np.ndarray:
        raise NotImplementedError

    def _make(self, C: float) -> Any:
        raise NotImplementedError

    def _fit_linearly(self, problem: Problem) -> np.ndarray:
        span = Span(problem.X, problem.block_sizes)
        Z = span.coordinates()
        norm = max(float(np.sum(Z**2)) / len(Z), 1e-12)
        best: tuple[float, float, np.ndarray] | None = None
        self.inner_losses_: dict[Any, float] = {}
        for relative in self._grid():
            held_out = np.empty_like(problem.targets)
            for fold in np.unique(problem.folds):
                out = problem.folds == fold
                with warnings.catch_warnings():
                    # A candidate that has not converged is judged by what it predicts.
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    w, b = _fit_linear(
                        lambda C=relative / norm: self._make(C),  # type: ignore[misc]
                        Z[~out],
                        problem.targets[~out],
                        problem.weight[~out],
                        problem.task,
                    )
                held_out[out] = Z[out] @ w.T + b
            loss = calibrate(held_out, problem.targets, problem.weight, problem.task).loss
            self.inner_losses_[float(relative)] = loss
            if best is None or loss < best[0]:
                best = (loss, float(relative), held_out)
        assert best is not None
        _, relative, held_out = best
        self.chosen_ = {"C": relative}
        w, b = _fit_linear(
            lambda: self._make(relative / norm), Z, problem.targets, problem.weight, problem.task
        )
        self.weight_, self.bias_ = span.unscale(span.lift(w.T), b)
        return held_out


class LogisticProbe(LinearProbe):
    """Multinomial logistic regression, or one for each label.

    Args:
        c: values of C, as multiples of one over the mean squared norm of a clip; None: 1e-3 to 1e3.
        max_iterations: of the solver (L-BFGS).
        class_weight, task, n_folds, random_state: as for `RidgeProbe`.
    """

    def __init__(
        self,
        c: Any = None,
        *,
        max_iterations: int = 500,
        class_weight: Any = None,
        task: str = "auto",
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.c = c
        self.max_iterations = max_iterations
        self.class_weight = class_weight
        self.task = task
        self.n_folds = n_folds
        self.random_state = random_state

    def _grid(self) -> np.ndarray:
        return LOGISTIC_C if self.c is None else np.asarray(self.c, float)

    def _make(self, C: float) -> LogisticRegression:
        return LogisticRegression(C=C, max_iter=self.max_iterations)

    def _fit(self, problem: Problem) -> np.ndarray:
        return self._fit_linearly(problem)
