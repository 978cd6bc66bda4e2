"""Scores of a regression, computed by scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from ossicle.errors import DataError


def regression_scores(y_true: ArrayLike, y_pred: ArrayLike) -> dict[str, float]:
    """Coefficient of determination, errors in the unit of the label, and correlations.

    Args:
        y_true: (n,) labels.
        y_pred: (n,) predictions.

    Returns:
        `r2`, `mae`, `rmse`, `pearson`, `spearman`. `r2` and the correlations are NaN where they
        are not defined: fewer than two items or labels all alike (the correlations also for
        predictions all alike).

    Raises:
        DataError: for empty or unequal arrays, or values that are not finite.
    """
    true, predicted = check_regression(y_true, y_pred)
    spread = len(true) > 1 and bool(np.ptp(true) > 0)
    related = spread and bool(np.ptp(predicted) > 0)
    return {
        "r2": float(r2_score(true, predicted)) if spread else float("nan"),
        "mae": float(mean_absolute_error(true, predicted)),
        "rmse": float(root_mean_squared_error(true, predicted)),
        "pearson": float(pearsonr(true, predicted).statistic) if related else float("nan"),
        "spearman": float(spearmanr(true, predicted).statistic) if related else float("nan"),
    }


def check_regression(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as (n,) float64, or a DataError that says what is wrong."""
    true, predicted = (np.asarray(values, dtype=np.float64) for values in (y_true, y_pred))
    if true.ndim != 1 or true.shape != predicted.shape or not len(true):
        raise DataError(
            "a regression is scored from labels and predictions of the same shape (n,), n > 0; "
            f"got {true.shape} and {predicted.shape}"
        )
    for name, values in (("y_true", true), ("y_pred", predicted)):
        if not np.isfinite(values).all():
            raise DataError(
                f"{name} holds {np.sum(~np.isfinite(values))} values that are not finite"
            )
    return true, predicted
