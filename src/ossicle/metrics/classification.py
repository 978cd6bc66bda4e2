"""Scores of single-label and multi-label classification, computed by scikit-learn.

Symbols: n items, C classes in the order of `classes`. `y_true` and `y_pred` of task "classes" are
(n,) class indices, of "multilabel" (n, C) 0/1; `y_score` is (n, C), higher is likelier, on any
scale. A class without an item in `y_true` has neither recall nor ranking, so the macro averages
leave it out; `absent_classes` names those, and `per_class` shows them as NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from ossicle.errors import DataError
from ossicle.metrics.regression import regression_scores

#: The score that a task is judged and tuned by.
PRIMARY = {"classes": "accuracy", "multilabel": "map", "regression": "r2"}


class Labels(NamedTuple):
    """Checked labels: `true` and `predicted` as (n,) indices or (n, C) 0/1, `scores` (n, C)."""

    true: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray | None

    def one_hot(self, num_classes: int) -> np.ndarray:
        """`true` as (n, C) bool."""
        if self.true.ndim == 2:
            return self.true.astype(bool)
        return self.true[:, None] == np.arange(num_classes)


def score(
    task: str,
    y_true: ArrayLike,
    y_pred: ArrayLike | None = None,
    y_score: ArrayLike | None = None,
    classes: Sequence[str] = (),
    *,
    threshold: ArrayLike = 0.5,
) -> dict[str, float]:
    """The scores of one task.

    Args:
        task: "classes", "multilabel" or "regression".
        y_true: (n,) class indices, (n, C) 0/1, or (n,) numbers.
        y_pred: the same shape; None takes the class of the highest score, the labels whose score
            reaches `threshold`, or (regression) `y_score` itself.
        y_score: (n, C) scores; without them the ranking scores `auc` and `map` are left out.
        classes: the C class names; not used by "regression".
        threshold: one number or (C,), for "multilabel" without `y_pred`.

    Returns:
        - "classes": `accuracy`, `balanced_accuracy` (mean recall), `macro_f1`, `auc` (area under
          the ROC curve, one class against the rest, macro average; of two classes: that of the
          second class's column), `map` (average precision, one against the rest, macro).
        - "multilabel": `map`, `auc`, `macro_f1`, `micro_f1`.
        - "regression": `r2`, `mae`, `rmse`, `pearson`, `spearman`.

        A score that the labels do not define (one class only: no AUC) is NaN.

    Raises:
        DataError: for shapes that do not fit, indices out of range, scores that are not finite.
    """
    if task == "regression":
        predictions = y_score if y_pred is None else y_pred
        if predictions is None:
            raise DataError("a regression is scored from y_pred; got none")
        return regression_scores(y_true, predictions)
    labels = check_labels(task, y_true, y_pred, y_score, len(classes), threshold=threshold)
    present = np.flatnonzero(labels.one_hot(len(classes)).any(axis=0))
    result: dict[str, float] = {}
    if task == "classes":
        recalls = precision_recall_fscore_support(
            labels.true, labels.predicted, labels=present, zero_division=0.0
        )[1]
        result["accuracy"] = float(accuracy_score(labels.true, labels.predicted))
        result["balanced_accuracy"] = float(np.mean(recalls))
    result["macro_f1"] = (
        float(
            f1_score(
                labels.true, labels.predicted, labels=present, average="macro", zero_division=0.0
            )
        )
        if len(present)
        else float("nan")
    )
    if task == "multilabel":
        result["micro_f1"] = float(
            f1_score(labels.true, labels.predicted, average="micro", zero_division=np.nan)
        )
    if labels.scores is not None:
        areas, precisions = ranking_per_class(labels.one_hot(len(classes)), labels.scores)
        if task == "classes" and len(classes) == 2:
            result["auc"] = float(areas[1])
        else:
            result["auc"] = _mean(areas)
        result["map"] = _mean(precisions)
    # The primary score leads, so that a table printed as it comes starts with it.
    primary = PRIMARY[task]
    return {primary: result[primary], **result} if primary in result else result


def mean_average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Macro average precision over the classes with a positive; (n, C) 0/1 and (n, C) scores."""
    return _mean(ranking_per_class(np.asarray(y_true).astype(bool), np.asarray(y_score))[1])


def ranking_per_class(positive: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision of each class, one against the rest.

    Args:
        positive: (n, C) bool.
        y_score: (n, C) scores.

    Returns:
        (C,) AUC, NaN without a positive or without a negative; (C,) average precision, NaN
        without a positive.
    """
    areas, precisions = (np.full(positive.shape[1], np.nan) for _ in range(2))
    for c, column in enumerate(positive.T):
        if column.any():
            precisions[c] = average_precision_score(column, y_score[:, c])
            if not column.all():
                areas[c] = roc_auc_score(column, y_score[:, c])
    return areas, precisions


def confusion(y_true: ArrayLike, y_pred: ArrayLike, num_classes: int) -> np.ndarray:
    """How often each true class (row) was taken for each class (column): (C, C) int64."""
    labels = check_labels("classes", y_true, y_pred, None, num_classes)
    return confusion_matrix(labels.true, labels.predicted, labels=np.arange(num_classes))


def per_class(
    task: str,
    y_true: ArrayLike,
    y_pred: ArrayLike | None = None,
    y_score: ArrayLike | None = None,
    classes: Sequence[str] = (),
    *,
    threshold: ArrayLike = 0.5,
) -> pd.DataFrame:
    """One row a class: class, precision, recall, f1, support (items), auc, average_precision.

    NaN stands for what the labels do not define: the precision of a class that was never
    predicted, the recall and F1 of one that never occurs, the ranking scores without `y_score`.
    Arguments and errors as for `score`, for tasks "classes" and "multilabel".
    """
    labels = check_labels(task, y_true, y_pred, y_score, len(classes), threshold=threshold)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels.true, labels.predicted, labels=np.arange(len(classes)), zero_division=np.nan
    )
    # scikit-learn gives a class that is predicted but never true an F1 of 0; without support it
    # says nothing about the class, and the macro average leaves it out too.
    f1 = np.where(support > 0, f1, np.nan)
    nothing = np.full(len(classes), np.nan)
    areas, precisions = nothing, nothing
    if labels.scores is not None:
        areas, precisions = ranking_per_class(labels.one_hot(len(classes)), labels.scores)
    return pd.DataFrame(
        {
            "class": list(classes),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support.astype(np.int64),
            "auc": areas,
            "average_precision": precisions,
        }
    )


def absent_classes(task: str, y_true: ArrayLike, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes without an item in `y_true`, which the macro averages leave out."""
    labels = check_labels(task, y_true, y_true, None, len(classes))
    missing = np.flatnonzero(~labels.one_hot(len(classes)).any(axis=0))
    return tuple(classes[int(c)] for c in missing)


def check_labels(
    task: str,
    y_true: ArrayLike,
    y_pred: ArrayLike | None,
    y_score: ArrayLike | None,
    num_classes: int,
    *,
    threshold: ArrayLike = 0.5,
) -> Labels:
    """The labels as arrays that fit each other, with predictions made from scores if need be.

    Raises:
        DataError: as `score` says.
    """
    if task not in ("classes", "multilabel"):
        raise DataError(f"unknown task {task!r}: use one of {', '.join(PRIMARY)}")
    if num_classes < 1:
        raise DataError("give the class names: the scores need to know what could have occurred")
    true = np.asarray(y_true)
    if not len(true):
        raise DataError("there is nothing to score: y_true is empty")
    scores = None
    if y_score is not None:
        scores = np.asarray(y_score, dtype=np.float64)
        if scores.shape != (len(true), num_classes):
            raise DataError(
                f"y_score must be (items, classes) = {(len(true), num_classes)}, got {scores.shape}"
            )
        if not np.isfinite(scores).all():
            bad = np.sum(~np.isfinite(scores).all(axis=1))
            raise DataError(f"y_score holds NaN or infinite values in {bad} items")
    if y_pred is not None:
        predicted = np.asarray(y_pred)
    elif scores is None:
        raise DataError("give y_pred, y_score or both")
    elif task == "classes":
        predicted = scores.argmax(axis=1)
    else:
        predicted = (scores >= np.asarray(threshold)).astype(np.int64)
    expected = (len(true),) if task == "classes" else (len(true), num_classes)
    upper = num_classes if task == "classes" else 2
    meaning = f"class indices below {num_classes}" if task == "classes" else "0 or 1"
    for name, values in (("y_true", true), ("y_pred", predicted)):
        if values.shape != expected:
            raise DataError(f"{name} must have the shape {expected}, got {values.shape}")
        if values.dtype.kind not in "biuf" or not np.isin(values, np.arange(upper)).all():
            raise DataError(f"{name} must hold {meaning}")
    return Labels(true.astype(np.int64), predicted.astype(np.int64), scores)


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
