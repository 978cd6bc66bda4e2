"""What all probes share: the door where input is checked, targets, folds, calibration, heads.

A probe is a scikit-learn estimator. `fit(X, y, groups=None)` standardises, chooses its
regularisation on inner folds that keep groups together, calibrates on the decisions of those
held-out clips, and fits on all clips. A probe implements `_fit(problem)`, which returns held-out
decisions, and `_decide(X)`.

Axes: n clips, d dimensions, k classes, labels or outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from ossicle.transfer.calibrate import calibrate, probabilities
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.problem import FeatureError, Problem


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _features(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """X as (n, d) float32 or float64; FeatureError in one line where it cannot be."""
    try:
        return validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32])
    except ValueError as error:
        message = _one_line(error)
        if "NaN" in message or "infinity" in message:
            message = str(error).splitlines()[0]
            rows = np.flatnonzero(~np.isfinite(np.asarray(X, dtype=float)).all(axis=1))
            message += f" In {len(rows)} clips, the first is row {rows[0]}: leave them out."
        raise FeatureError(message) from error


def _check_groups(groups: Any, n: int) -> np.ndarray | None:
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise FeatureError(f"groups have shape {groups.shape}, expected ({n},): one for each clip")
    return np.unique(groups.astype(str), return_inverse=True)[1].ravel()


def _check_lengths(X: np.ndarray, y: np.ndarray) -> None:
    if len(X) != len(y):
        raise FeatureError(
            "Found input variables with inconsistent numbers of samples: "
            f"features of {len(X)} clips, labels of {len(y)}"
        )


def _sizes(block_sizes: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if block_sizes is None else tuple(int(size) for size in block_sizes)


class ClassifierProbe(ClassifierMixin, BaseEstimator):
    """Base of the probes for one class a clip, and for several labels a clip.

    Attributes (after `fit`):
        classes_: the (k,) class labels, sorted; 0 to k - 1 for multi-label targets.
        task_: "classes" or "multilabel".
        chosen_: the regularisation that the inner folds chose.
        inner_losses_: setting -> held-out loss, for every setting tried.
        held_out_proba_: (n, k) calibrated probabilities of the training clips, each by models
            that had not seen its fold: what thresholds may be fitted on.
    """

    task: str
    class_weight: Any
    n_folds: int
    random_state: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, block_sizes: Sequence[int] | None = None
    ) -> ClassifierProbe:
        """Choose the regularisation on grouped inner folds, calibrate, and fit on all clips.

        Args:
            X: (n, d) features, finite.
            y: (n,) class labels, or (n, k) 0/1 for multi-label.
            groups: (n,) recording, speaker or site of each clip; no group is on both sides of an
                inner fold. None: clips are independent, folds are stratified.
            block_sizes: columns of each block (a layer under a pooling) of X, in order: wide
                blocks are then weighed down, see `span.block_weights`.

        Raises:
            FeatureError: NaN or infinite features, fewer than two classes, lengths that differ.
        """
        problem = self._check(X, y, groups)._replace(block_sizes=_sizes(block_sizes))
        decisions = self._fit(problem)
        self.calibration_ = calibrate(decisions, problem.targets, problem.weight, self.task_)
        self.held_out_proba_ = probabilities(self.calibration_.logits(decisions), self.task_)
        return self

    def _check(self, X: Any, y: Any, groups: Any) -> Problem:
        if self.task not in ("auto", "classes", "multilabel"):
            raise FeatureError(f"task={self.task!r}: use 'auto', 'classes' or 'multilabel'")
        if y is None:
            raise FeatureError(
                f"This {type(self).__name__} estimator requires y to be passed, "
                "but the target y is None."
            )
        X = _features(self, X, reset=True)
        if any(v is None or v != v for v in np.asarray(y, dtype=object).ravel()):
            raise FeatureError("Input y contains NaN or None: leave out clips without a label")
        try:
            multilabel = self.task == "multilabel" or (
                self.task == "auto" and type_of_target(y, input_name="y").startswith("multilabel")
            )
            if multilabel:
                y = check_array(y, ensure_2d=True, dtype=None, input_name="y")
            else:
                y = column_or_1d(y, warn=True)
                check_classification_targets(y)
        except ValueError as error:
            raise FeatureError(_one_line(error)) from error
        _check_lengths(X, y)
        self.task_ = "multilabel" if multilabel else "classes"
        self._label_dtype = y.dtype
        if multilabel:
            targets = y.astype(np.float64)
            if not np.isin(targets, (0.0, 1.0)).all():
                raise FeatureError("multi-label targets must be 0 or 1")
            self.classes_ = np.arange(y.shape[1])
            index = targets
        else:
            self.classes_, index = np.unique(y, return_inverse=True)
            if len(self.classes_) < 2:
                raise FeatureError(
                    f"all clips have the one class {self.classes_[0]!r}: "
                    "a classifier needs at least two classes"
                )
            targets = np.eye(len(self.classes_))[index]
        if len(X) < 2:
            raise FeatureError("n_samples = 1: at least two clips are needed")
        groups = _check_groups(groups, len(X))
        folds = inner_folds(
            index, groups, task=self.task_, n_folds=self.n_folds, random_state=self.random_state
        )
        whole = groups if groups is not None and groups.max() > 0 else folds
        return Problem(X, targets, self._weights(y, targets), folds, whole, self.task_)

    def _weights(self, y: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(n,) weights, mean 1; a multi-label clip has the mean balanced weight of its labels."""
        if self.class_weight is None:
            return np.ones(len(y))
        if self.task_ == "classes":
            weight = compute_sample_weight(self.class_weight, y)
        elif self.class_weight == "balanced":
            count = np.maximum(targets.sum(axis=0), 1)
            balanced = count.sum() / (len(count) * count)
            labels = targets.sum(axis=1)
            weight = np.where(labels > 0, targets @ balanced / np.maximum(labels, 1), 1.0)
        else:
            raise FeatureError("class_weight of multi-label targets must be None or 'balanced'")
        return weight / weight.mean()

    def _fit(self, problem: Problem) -> np.ndarray:
        """Fit; returns (n, k) decisions of held-out clips under the chosen setting."""
        raise NotImplementedError

    def _decide(self, X: np.ndarray) -> np.ndarray:
        """(n, k) decisions, on the scale of those that `_fit` returned."""
        raise NotImplementedError

    def logits(self, X: Any) -> np.ndarray:
        """(n, k) calibrated logits, also for two classes."""
        check_is_fitted(self)
        return self.calibration_.logits(self._decide(_features(self, X, reset=False)))

    def decision_function(self, X: Any) -> np.ndarray:
        """(n, k) logits, or (n,) for two classes: the second's minus the first's."""
        logits = self.logits(X)
        if self.task_ == "classes" and logits.shape[1] == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, k) calibrated probabilities; rows sum to one unless multi-label."""
        return probabilities(self.logits(X), self.task_)

    def predict(self, X: Any) -> np.ndarray:
        """(n,) most probable classes, or (n, k) 0/1 labels of a probability above one half."""
        logits = self.logits(X)
        if self.task_ == "multilabel":
            return (logits > 0).astype(self._label_dtype)
        return self.classes_[logits.argmax(axis=1)]


class RegressorProbe(RegressorMixin, BaseEstimator):
    """Base of the probes for numbers.

    Attributes (after `fit`):
        chosen_, inner_losses_: as for classifiers; the loss is the squared error.
        held_out_: predictions for the training clips by models that had not seen their fold.
    """

    n_folds: int
    random_state: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, block_sizes: Sequence[int] | None = None
    ) -> RegressorProbe:
        """Choose the regularisation on grouped inner folds and fit on all clips.

        Args:
            X: (n, d) features, finite.
            y: (n,) or (n, k) numbers.
            groups: (n,) group of each clip, or None.
            block_sizes: as for classifiers.

        Raises:
            FeatureError: NaN or infinite features or targets, lengths that differ.
        """
        if y is None:
            raise FeatureError(
                f"This {type(self).__name__} estimator requires y to be passed, "
                "but the target y is None."
            )
        X = _features(self, X, reset=True)
        try:
            y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
            if y.ndim == 2 and y.shape[1] == 1:
                y = column_or_1d(y, warn=True)
        except ValueError as error:
            raise FeatureError(_one_line(error)) from error
        _check_lengths(X, y)
        if len(X) < 2:
            raise FeatureError("n_samples = 1: at least two clips are needed")
        self._flat = y.ndim == 1
        targets = y.reshape(len(y), -1)
        groups = _check_groups(groups, len(X))
        folds = inner_folds(
            targets, groups, task="regression", n_folds=self.n_folds, random_state=self.random_state
        )
        whole = groups if groups is not None and groups.max() > 0 else folds
        weight, sizes = np.ones(len(X)), _sizes(block_sizes)
        problem = Problem(X, targets, weight, folds, whole, "regression", sizes)
        held_out = self._fit(problem)
        self.held_out_ = held_out[:, 0] if self._flat else held_out
        return self

    def _fit(self, problem: Problem) -> np.ndarray:
        """Fit; returns (n, k) predictions of held-out clips under the chosen setting."""
        raise NotImplementedError

    def _decide(self, X: np.ndarray) -> np.ndarray:
        """(n, k) predictions."""
        raise NotImplementedError

    def predict(self, X: Any) -> np.ndarray:
        """(n,) or (n, k) numbers, as the targets were."""
        check_is_fitted(self)
        values = self._decide(_features(self, X, reset=False))
        return values[:, 0] if self._flat else values


def regression_loss(predicted: np.ndarray, targets: np.ndarray) -> float:
    """One minus the mean coefficient of determination: each output counts alike."""
    return 1.0 - float(r2_score(targets, predicted))
