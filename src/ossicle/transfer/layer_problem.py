"""What layers are chosen for: blocks, targets and folds, checked.

Axes: n clips, d_l dimensions of a layer, k classes, labels or outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.problem import FeatureError


def checked_blocks(
    blocks: Mapping[str, np.ndarray], y: Any, task: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Blocks as float arrays, and (n, k) targets.

    Raises:
        FeatureError: no blocks, blocks that do not match, NaN, or labels as of `target_matrix`.
    """
    if not blocks:
        raise FeatureError("no layers to choose from")
    y = np.asarray(y)
    checked = {}
    for name, X in blocks.items():
        X = np.asarray(X)
        X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        if X.ndim != 2 or len(X) != len(y):
            raise FeatureError(f"layer {name!r} has shape {X.shape}, expected ({len(y)}, dims)")
        if not np.isfinite(X).all():
            row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
            raise FeatureError(f"layer {name!r} has NaN or infinity, first in row {row}")
        checked[name] = X
    return checked, target_matrix(y, task)


def target_matrix(y: Any, task: str) -> np.ndarray:
    """(n, k) targets: 0/1 for classes and labels, else the numbers.

    Raises:
        FeatureError: one class, labels that are not 0 or 1, NaN.
    """
    y = np.asarray(y)
    if task == "classes":
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise FeatureError("layers cannot be chosen with all clips of one class")
        return np.eye(len(classes))[index.ravel()]
    targets = y.astype(np.float64).reshape(len(y), -1)
    if task == "multilabel" and not np.isin(targets, (0.0, 1.0)).all():
        raise FeatureError("multi-label targets must be 0 or 1")
    if not np.isfinite(targets).all():
        raise FeatureError("targets have NaN or infinity")
    return targets


def fold_numbers(
    targets: np.ndarray, groups: Any, folds: Any, task: str, n_folds: int, random_state: int | None
) -> np.ndarray:
    """(n,) fold of each clip, at least two of them: those given, or grouped inner folds.

    Raises:
        FeatureError: the folds given are not a partition, or there is one only.
    """
    n = len(targets)
    if folds is None:
        index = targets.argmax(axis=1) if task == "classes" else targets
        return inner_folds(index, groups, task=task, n_folds=n_folds, random_state=random_state)
    if len(folds) == n and np.ndim(folds[0]) == 0:
        fold_of = np.unique(np.asarray(folds).astype(str), return_inverse=True)[1].ravel()
    else:
        fold_of = np.full(n, -1)
        for index, (_, test) in enumerate(folds):
            if (fold_of[test] >= 0).any():
                raise FeatureError("the folds' test parts overlap: each clip needs one fold")
            fold_of[test] = index
        if (fold_of < 0).any():
            raise FeatureError(f"{(fold_of < 0).sum()} clips are in no fold's test part")
    if fold_of.max() < 1:
        raise FeatureError("one fold only: at least two are needed to hold clips out")
    return fold_of
