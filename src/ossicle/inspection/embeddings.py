"""Clouds of points in the plane of largest variance, and numbers for what the eye sees in them.

Symbols: n points, d dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import group_codes, mean_interval

NEIGHBOURS = 5


class Agreement(NamedTuple):
    """How often neighbours have the same label, its interval, and what chance gives."""

    value: float
    low: float
    high: float
    chance: float


def plane(points: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Principal components: (n, d) -> (n, 2), and the share of the variance of either.

    Each component's sign is that which makes its largest weight positive, as scikit-learn has it.

    Raises:
        DataError: fewer than 3 points or 1 dimension, or points that are all alike.
    """
    from sklearn.decomposition import PCA

    points = np.asarray(points, np.float64)
    if len(points) < 3 or points.shape[1] < 1:
        raise DataError(f"a cloud of {len(points)} points in {points.shape[1]} dimensions is none")
    if not np.ptp(points, axis=0).any():
        raise DataError("all points are alike: there is no cloud to draw")
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    fitted = PCA(2, svd_solver="full").fit(points)
    first, second = fitted.explained_variance_ratio_
    return fitted.transform(points), (float(first), float(second))


def neighbour_agreement(
    points: np.ndarray,
    same: np.ndarray,
    groups: Any = None,
    *,
    neighbours: int = NEIGHBOURS,
    random_state: int = 0,
) -> Agreement:
    """Of a clip's nearest clips of other groups, the share that have its label.

    Nearest by the cosine of features less their mean. Clips of one recording would find each other
    whatever the label is, so they do not count as neighbours.

    Args:
        points: (n, d).
        same: (n, n) bool, whether two clips have a label in common.
        groups: (n,) of each clip; None: clips are independent.
        neighbours: how many; fewer where a clip has fewer of other groups.
        random_state: seed of the interval, by the bootstrap over groups.

    Returns:
        ``chance`` is the share among all clips of other groups. NaN where all are of one group.
    """
    points = np.asarray(points, np.float64)
    points = points - points.mean(axis=0)
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    unit = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)
    codes, _ = group_codes(groups, len(points))
    apart = codes[:, None] != codes[None, :]
    likeness = np.where(apart, unit @ unit.T, -np.inf)
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :neighbours]
    valid = np.take_along_axis(apart, order, axis=1)
    hit = np.take_along_axis(same, order, axis=1) & valid
    known = valid.any(axis=1)
    if not known.any():
        return Agreement(*[float("nan")] * 4)
    shares = hit[known].sum(axis=1) / valid[known].sum(axis=1)
    low, high = mean_interval(shares, groups=codes[known], random_state=random_state)
    chance = ((same & apart).sum(axis=1)[known] / apart.sum(axis=1)[known]).mean()
    return Agreement(float(shares.mean()), low, high, float(chance))


def silhouette(points: np.ndarray, codes: np.ndarray) -> float:
    """Mean silhouette over points (n, d) of classes (n,), from -1 to 1; NaN for one class.

    Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis"; by scikit-learn, with Euclidean distances.
    """
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(codes)) < len(codes):
        return float("nan")
    return float(silhouette_score(np.asarray(points, np.float64), codes))
