"""A checked training set, and the error where there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ossicle.errors import DataError


class FeatureError(DataError, ValueError):
    """Features or labels that a probe cannot be fitted on; a ValueError too, as in scikit-learn."""


class Problem(NamedTuple):
    """A checked training set."""

    X: np.ndarray  # (n, d) float32 or float64
    targets: np.ndarray  # (n, k): 0/1 for classes and labels, else the numbers
    weight: np.ndarray  # (n,), mean 1
    folds: np.ndarray  # (n,) inner folds, groups kept together
    groups: np.ndarray  # (n,) groups as numbers; the inner folds where none are given
    task: str
    block_sizes: tuple[int, ...] | None = None  # columns of each block of X, None: one block
