"""Intervals of means over items that belong to several groups each, such as pairs of speakers.

Mixtures of A and B, A and C, B and C share a speaker two by two: as groups of their own they would
count as independent, and intervals would be too narrow. Here the single groups are drawn again with
replacement, and an item weighs the product of how often each of its groups was drawn (A. B. Owen,
"The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import Interval, limits

# Weights that are made at once.
_AT_ONCE = 2_000_000


def crossed_interval(
    values: ArrayLike,
    groups: Sequence[Sequence[str]],
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Interval:
    """The interval of a mean over items with several groups each.

    Args:
        values: (n,).
        groups: (n,) the groups that each item belongs to, one or more; a name is one group wherever
            it stands.
        n_resamples: R.
        confidence: coverage, between 0 and 1.
        random_state: seed.

    Returns:
        (low, high); NaN where there is one group only. Resamples that hold no item are left out.

    Raises:
        DataError: there are no items, or lengths differ.
    """
    means, n_groups = crossed_means(
        values, groups, n_resamples=n_resamples, random_state=random_state
    )
    known = float(np.mean(np.asarray(values, np.float64)))
    return limits(means, known, n_groups, confidence, None)


def crossed_means(
    values: ArrayLike,
    groups: Sequence[Sequence[str]],
    *,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> tuple[np.ndarray, int]:
    """Means of the resamples (R,), NaN for those without items, and how many groups there are.

    Args and errors as of `crossed_interval`.
    """
    items = np.asarray(values, np.float64)
    if items.ndim != 1 or not len(items) or len(items) != len(groups):
        raise DataError(f"{len(groups)} lists of groups for {items.size} values")
    numbers: dict[str, int] = {}
    # Not a set, whose order is another in every process.
    members = [
        [numbers.setdefault(name, len(numbers)) for name in dict.fromkeys(own)] for own in groups
    ]
    rng = np.random.default_rng(random_state)
    means = []
    step = max(1, _AT_ONCE // len(items))
    for first in range(0, n_resamples, step):
        size = min(step, n_resamples - first)
        share = np.full(len(numbers), 1 / len(numbers))
        counts = rng.multinomial(len(numbers), share, size=size).astype(np.float64)
        weights = np.stack([counts[:, own].prod(1) for own in members], 1)
        total = weights.sum(1)
        sums = weights @ items
        means.append(np.divide(sums, total, out=np.full(size, np.nan), where=total > 0))
    return np.concatenate(means), len(numbers)
