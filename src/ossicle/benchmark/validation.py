"""The score on validation clips that an epoch or a setting is chosen by; quick.

Axes: m clips, k classes or labels.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax


def validation_score(decisions: np.ndarray, y: np.ndarray, task: str) -> tuple[float, float]:
    """Accuracy or mean average precision, and the mean log loss a clip.

    Args:
        decisions: (m, k) logits.
        y: (m,) class numbers, or (m, k) 0/1.
        task: "classes" or "multilabel" (losses of a clip's labels are added up).
    """
    if task == "multilabel":
        signs = np.where(y > 0, -1.0, 1.0)
        loss = float(np.logaddexp(0, signs * decisions).sum(axis=1).mean())
        return mean_average_precision(y, decisions), loss
    right = decisions.argmax(axis=1) == y
    chances = log_softmax(decisions, axis=1)
    return float(right.mean()), -float(chances[np.arange(len(y)), y].mean())


def mean_average_precision(y: np.ndarray, decisions: np.ndarray) -> float:
    """Over the labels with a positive, as ``ossicle.metrics`` has it, all labels in one sort.

    A label's average precision is the mean, over its positives, of the precision among all clips
    that rank as high or higher. NaN where no label has a positive.

    Args:
        y: (m, k) 0/1.
        decisions: (m, k), higher is likelier.
    """
    order = np.argsort(-decisions, axis=0, kind="stable")
    ranked = np.take_along_axis(decisions, order, axis=0)
    positive = np.take_along_axis(y > 0, order, axis=0)
    place = np.arange(len(y))[:, None]
    # The last place of each run of equal decisions: equals are not told apart.
    ends = np.ones_like(positive)
    ends[:-1] = ranked[:-1] != ranked[1:]
    last = np.minimum.accumulate(np.where(ends, place, len(y))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(positive.cumsum(axis=0), last, axis=0) / (last + 1)
    count = positive.sum(axis=0)
    known = count > 0
    if not known.any():
        return float("nan")
    return float(((precision * positive).sum(axis=0)[known] / count[known]).mean())
