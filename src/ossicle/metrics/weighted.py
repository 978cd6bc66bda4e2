"""Scores of many weightings of the same items at once: what makes the bootstrap quick.

A resample that draws an item twice is the same items with weight 2. Sorting, one-hot coding and
moments do not depend on the weights, so they are made once; what is left for R resamples is a
cumulative sum or a matrix product. Weights are (R, n), integers held as float64, so sums are exact.

Each `*_statistics` function binds the labels and returns a function from weights (R, n) to a dict
of (R,) scores under the names that `ossicle.metrics.score` uses; with weights of one they equal
scikit-learn's. NaN marks a resample in which a score is not defined.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]


def count_statistics(true: np.ndarray, predicted: np.ndarray, *, single: bool) -> Statistics:
    """Scores from counts: hits, support and predictions of each class.

    Args:
        true: (n, C) bool.
        predicted: (n, C) bool.
        single: one label an item (accuracy, balanced accuracy) or any number (micro F1).
    """
    num_classes = true.shape[1]
    # Mostly zeros: one label an item of C.
    columns = csr_array(np.hstack([true & predicted, true, predicted]).T.astype(np.float64))

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        sums = columns @ np.ascontiguousarray(weights.T)
        hits, support, predictions = sums.reshape(3, num_classes, -1)
        # A class that a resample misses is left out of its macro average, as in `score`.
        f1 = ratio(2 * hits, np.where(support > 0, support + predictions, 0.0))
        result = {"macro_f1": _mean_over_classes(f1)}
        if single:
            result["accuracy"] = hits.sum(axis=0) / support.sum(axis=0)
            result["balanced_accuracy"] = _mean_over_classes(ratio(hits, support))
        else:
            result["micro_f1"] = ratio(
                2 * hits.sum(axis=0), support.sum(axis=0) + predictions.sum(axis=0)
            )
        return result

    return statistics


def ranking_statistics(true: np.ndarray, y_score: np.ndarray, *, binary: bool) -> Statistics:
    """AUC and mean average precision.

    Args:
        true: (n, C) bool.
        y_score: (n, C) scores.
        binary: the AUC is that of the second column, not the macro average.
    """
    rankings = [
        _Ranking(true[:, c], y_score[:, c]) for c in range(true.shape[1]) if true[:, c].any()
    ]
    # The binary AUC is of column 1; a class without a positive has no ranking at all.
    both = binary and len(rankings) == 2

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        pairs = [ranking.auc_and_ap(weights) for ranking in rankings]
        if not pairs:
            nothing = np.full(len(weights), np.nan)
            return {"auc": nothing, "map": nothing}
        areas = np.stack([pair[0] for pair in pairs])
        precisions = np.stack([pair[1] for pair in pairs])
        return {
            "auc": areas[1] if both else _mean_over_classes(areas),
            "map": _mean_over_classes(precisions),
        }

    return statistics


class _Ranking:
    """Items of one class sorted by score, ties gathered: the part that weights do not touch.

    Args:
        positive: (n,) bool, with at least one positive.
        y_score: (n,) scores.
    """

    def __init__(self, positive: np.ndarray, y_score: np.ndarray) -> None:
        self.order = np.argsort(-y_score, kind="stable")
        first_of_tie = np.diff(y_score[self.order], prepend=np.nan) != 0
        tie = np.cumsum(first_of_tie) - 1
        starts = np.flatnonzero(first_of_tie)
        ends = np.append(starts[1:], len(y_score)) - 1
        ranks = np.flatnonzero(positive[self.order])  # where the positives stand
        # Only ties that hold a positive add to either score.
        held, count = np.unique(tie[ranks], return_counts=True)
        self.positives = self.order[ranks]
        self.starts, self.ends = starts[held], ends[held]
        self.last_positive = np.cumsum(count) - 1

    def auc_and_ap(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R,) AUC and (R,) average precision for weights (R, n).

        AUC is the share of pairs in which the positive stands above the negative, ties counting
        half (Mann-Whitney; Fawcett 2006, Pattern Recognition Letters 27, section 7). Average
        precision is the sum of recall steps times precision over the distinct scores, as
        scikit-learn defines it.
        """
        above = np.cumsum(weights[:, self.order], axis=1)  # weight at or above each rank
        everything = above[:, -1]
        hits = np.cumsum(weights[:, self.positives], axis=1)[:, self.last_positive]
        at_or_above = above[:, self.ends]
        before = np.where(self.starts > 0, above[:, self.starts - 1], 0.0)
        step = np.diff(hits, axis=1, prepend=0.0)
        all_positive = hits[:, -1]
        false_before = before - (hits - step)
        false_through = at_or_above - hits
        ap = ratio((step * ratio(hits, at_or_above, nothing=0.0)).sum(axis=1), all_positive)
        lost = (step * (false_before + false_through)).sum(axis=1) / 2
        auc = 1 - ratio(lost, all_positive * (everything - all_positive))
        return auc, ap


def regression_statistics(y_true: np.ndarray, y_pred: np.ndarray) -> Statistics:
    """R2, MAE, RMSE and the two correlations of (n,) labels and (n,) predictions."""
    error = y_true - y_pred
    # Centred first: moments of numbers far from zero cancel badly.
    true, predicted = y_true - y_true.mean(), y_pred - y_pred.mean()
    columns = np.stack(
        [true, predicted, true**2, predicted**2, true * predicted, np.abs(error), error**2], axis=1
    )

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        moments = (weights @ columns / total[:, None]).T
        mean_true, mean_pred, square_true, square_pred, product, absolute, squared = moments
        spread = _spread(square_true, mean_true)
        return {
            "r2": 1 - ratio(squared, spread),
            "mae": absolute,
            "rmse": np.sqrt(squared),
            "pearson": ratio(
                product - mean_true * mean_pred,
                np.sqrt(spread * _spread(square_pred, mean_pred)),
            ),
            "spearman": _correlation(
                weighted_ranks(y_true, weights), weighted_ranks(y_pred, weights), weights
            ),
        }

    return statistics


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mid-rank of each item in each resample: (n,) values and weights (R, n) -> (R, n)."""
    order = np.argsort(values, kind="stable")
    first_of_tie = np.diff(values[order], prepend=np.nan) != 0
    starts = np.flatnonzero(first_of_tie)
    tie = np.cumsum(first_of_tie) - 1
    through = np.cumsum(weights[:, order], axis=1)[:, np.append(starts[1:], len(values)) - 1]
    before = np.concatenate([np.zeros((len(weights), 1)), through[:, :-1]], axis=1)
    ranks = np.empty_like(weights, dtype=np.float64)
    ranks[:, order] = ((before + through + 1) / 2)[:, tie]
    return ranks


def ratio(above: np.ndarray, below: np.ndarray, nothing: float = np.nan) -> np.ndarray:
    """`above / below`, and `nothing` where `below` is zero."""
    return np.divide(above, below, out=np.full(np.shape(above), nothing), where=below > 0)


def _spread(square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The variance from moments; rounding left over from labels all alike counts as none."""
    variance = square - mean**2
    return np.where(variance > 1e-12 * square, variance, 0.0)


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation of each row: three times (R, n) -> (R,)."""
    share = weights / weights.sum(axis=1, keepdims=True)
    a = a - (share * a).sum(axis=1, keepdims=True)
    b = b - (share * b).sum(axis=1, keepdims=True)
    norm = np.sqrt((share * a**2).sum(axis=1) * (share * b**2).sum(axis=1))
    return ratio((share * a * b).sum(axis=1), np.where(norm > 1e-9, norm, 0.0))


def _mean_over_classes(values: np.ndarray) -> np.ndarray:
    """(C, R) -> (R,): the mean of the classes that are defined, NaN where none is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))
