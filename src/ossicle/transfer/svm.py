"""Support vector machines by scikit-learn: linear, or with an RBF kernel; and for numbers.

C and gamma are chosen on inner folds that keep groups together, by the negative log-likelihood of
the held-out decisions at their best temperature (for numbers, by their squared error). Kernels are
made once from one Gram matrix, whatever the number of dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR, LinearSVC

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import RegressorProbe, regression_loss
from ossicle.transfer.linear import LinearProbe
from ossicle.transfer.problem import FeatureError, Problem
from ossicle.transfer.span import Span

LINEAR_C = np.logspace(-3, 2, 6)
# The penalties of Choi et al. (2017); widths around one over the number of dimensions.
KERNEL_C = (0.1, 2.0, 8.0, 32.0)
KERNEL_GAMMA = (0.25, 1.0, 4.0)


class _Kernel:
    """The RBF kernel of standardised clips with each other and with other clips."""

    def __init__(self, problem: Problem) -> None:
        self.span = Span(problem.X, problem.block_sizes)
        products = self.span.gram()
        self.squares = products.diagonal().copy()
        self.squared = np.maximum(self.squares[:, None] + self.squares[None, :] - 2 * products, 0.0)

    def train(self, gamma: float) -> np.ndarray:
        """(n, n) kernel; `gamma` is a multiple of one over the number of dimensions."""
        return np.exp(-gamma / self.span.X.shape[1] * self.squared)

    def test(self, X: np.ndarray, gamma: float) -> np.ndarray:
        """(m, n) kernel of other clips with the training clips."""
        products, squares = self.span.cross(X)
        squared = np.maximum(squares[:, None] + self.squares[None, :] - 2 * products, 0.0)
        return np.exp(-gamma / X.shape[1] * squared)

    def release(self) -> None:
        """Forget the (n, n) distances, which predicting does not need."""
        self.squared = np.zeros((0, 0))


class SVMProbe(LinearProbe):
    """A support vector machine, linear (`LinearSVC`) or with an RBF kernel (`SVC`).

    Args:
        kernel: "linear" (one against the rest, squared hinge; has a `linear_head`) or "rbf".
        c: values of C; None: for "linear" 1e-3 to 1e2 as multiples of one over the mean squared
            norm of a clip, for "rbf" those of Choi et al. (2017).
        gamma: for "rbf", widths as multiples of one over the number of dimensions.
        max_iterations: of the linear solver.
        class_weight, task, n_folds, random_state: as for `RidgeProbe`.
    """

    def __init__(
        self,
        kernel: str = "linear",
        *,
        c: Any = None,
        gamma: Sequence[float] = KERNEL_GAMMA,
        max_iterations: int = 5000,
        class_weight: Any = None,
        task: str = "auto",
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.kernel = kernel
        self.c = c
        self.gamma = gamma
        self.max_iterations = max_iterations
        self.class_weight = class_weight
        self.task = task
        self.n_folds = n_folds
        self.random_state = random_state

    def _grid(self) -> np.ndarray:
        default = LINEAR_C if self.kernel == "linear" else KERNEL_C
        return np.asarray(default if self.c is None else self.c, float)

    def _make(self, C: float) -> LinearSVC:
        # liblinear penalises the intercept too, unless it is made cheap to have.
        seed = self.random_state if self.random_state is not None else 0
        return LinearSVC(
            C=C, intercept_scaling=10.0, max_iter=self.max_iterations, random_state=seed
        )

    def _fit(self, problem: Problem) -> np.ndarray:
        if self.kernel == "linear":
            return self._fit_linearly(problem)
        if self.kernel != "rbf":
            raise FeatureError(f"kernel={self.kernel!r}: use 'linear' or 'rbf'")
        self._kernel = _Kernel(problem)
        best: tuple[float, float, float, np.ndarray] | None = None
        self.inner_losses_ = {}
        for gamma in self.gamma:
            K = self._kernel.train(gamma)
            for C in self._grid():
                held_out = np.empty_like(problem.targets)
                for fold in np.unique(problem.folds):
                    out = problem.folds == fold
                    machines = _machines(
                        K[np.ix_(~out, ~out)],
                        problem.targets[~out],
                        problem.weight[~out],
                        problem.task,
                        C,
                    )
                    held_out[out] = _decisions(machines, K[np.ix_(out, ~out)])
                loss = calibrate(held_out, problem.targets, problem.weight, problem.task).loss
                self.inner_losses_[float(C), float(gamma)] = loss
                if best is None or loss < best[0]:
                    best = (loss, float(C), float(gamma), held_out)
        assert best is not None
        _, C, gamma, held_out = best
        self.chosen_ = {"C": C, "gamma": gamma}
        K = self._kernel.train(gamma)
        self._fitted = _machines(K, problem.targets, problem.weight, problem.task, C)
        self._kernel.release()
        return held_out

    def _decide(self, X: np.ndarray) -> np.ndarray:
        if self.kernel == "linear":
            return super()._decide(X)
        return _decisions(self._fitted, self._kernel.test(X, self.chosen_["gamma"]))

    def linear_head(self) -> tuple[np.ndarray, np.ndarray]:
        """As for `RidgeProbe`; an RBF kernel has none and raises FeatureError."""
        if self.kernel != "linear":
            raise FeatureError("an RBF kernel does not fold into a linear head: kernel='linear'")
        return super().linear_head()


def _machines(
    K: np.ndarray, targets: np.ndarray, weight: np.ndarray, task: str, C: float
) -> list[SVC | float]:
    """One machine a class or label (one against the rest); a constant where it has no choice."""
    machines: list[SVC | float] = []
    for y in targets.T:
        if y.min() == y.max():
            machines.append(float(2 * y[0] - 1))
        elif task == "classes" and targets.shape[1] == 2 and machines:
            machines.append(machines[0])
        else:
            machines.append(SVC(C=C, kernel="precomputed").fit(K, y, sample_weight=weight))
    return machines


def _decisions(machines: list[SVC | float], K: np.ndarray) -> np.ndarray:
    """(m, k) decisions from the (m, n) kernel with the training clips."""
    columns = [
        np.full(len(K), m) if isinstance(m, float) else m.decision_function(K) for m in machines
    ]
    if len(machines) == 2 and isinstance(machines[0], SVC) and machines[0] is machines[1]:
        columns[1] = -columns[0]
    return np.stack(columns, axis=1)


class SVMRegressionProbe(RegressorProbe):
    """Support vector regression with an RBF or linear kernel, one machine an output.

    Args:
        kernel: "rbf" or "linear".
        c: values of C; None: those of Choi et al. (2017).
        gamma: for "rbf", widths as multiples of one over the number of dimensions.
        n_folds, random_state: the inner folds.
    """

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        c: Sequence[float] = KERNEL_C,
        gamma: Sequence[float] = KERNEL_GAMMA,
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.kernel = kernel
        self.c = c
        self.gamma = gamma
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        if self.kernel not in ("rbf", "linear"):
            raise FeatureError(f"kernel={self.kernel!r}: use 'rbf' or 'linear'")
        self._kernel = _Kernel(problem)
        # C and the insensitive band presume targets of about unit size.
        self._mean, deviation = problem.targets.mean(axis=0), problem.targets.std(axis=0)
        self._deviation = np.where(deviation > 0, deviation, 1.0)
        y = (problem.targets - self._mean) / self._deviation
        best: tuple[float, float, float, np.ndarray] | None = None
        self.inner_losses_ = {}
        for gamma in self.gamma if self.kernel == "rbf" else (0.0,):
            K = self._gram(None, gamma)
            for C in self.c:
                held_out = np.empty_like(y)
                for fold in np.unique(problem.folds):
                    out = problem.folds == fold
                    machines = [
                        SVR(C=C, kernel="precomputed").fit(K[np.ix_(~out, ~out)], t)
                        for t in y[~out].T
                    ]
                    test = K[np.ix_(out, ~out)]
                    held_out[out] = np.stack([m.predict(test) for m in machines], axis=1)
                loss = regression_loss(held_out, y)
                self.inner_losses_[float(C), float(gamma)] = loss
                if best is None or loss < best[0]:
                    best = (loss, float(C), float(gamma), held_out)
        assert best is not None
        _, C, gamma, held_out = best
        self.chosen_ = {"C": C, "gamma": gamma}
        K = self._gram(None, gamma)
        self._fitted = [SVR(C=C, kernel="precomputed").fit(K, t) for t in y.T]
        self._kernel.release()
        return held_out * self._deviation + self._mean

    def _gram(self, X: np.ndarray | None, gamma: float) -> np.ndarray:
        """The kernel of the training clips, or of others with them; linear where gamma is 0."""
        kernel = self._kernel
        if gamma > 0:
            return kernel.train(gamma) if X is None else kernel.test(X, gamma)
        d = kernel.span.X.shape[1]
        return kernel.span.gram() / d if X is None else kernel.span.cross(X)[0] / d

    def _decide(self, X: np.ndarray) -> np.ndarray:
        K = self._gram(X, self.chosen_["gamma"])
        values = np.stack([m.predict(K) for m in self._fitted], axis=1)
        return values * self._deviation + self._mean
