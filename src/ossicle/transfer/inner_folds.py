"""Folds inside a training set, for choosing regularisation: groups never straddle two of them.

They are more lenient than the folds of an evaluation: a class may be smaller than the number of
folds, and a single group is tolerated, because a probe has to be fitted on what there is.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold


def inner_folds(
    y: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    task: str = "classes",
    n_folds: int = 5,
    random_state: int | np.random.RandomState | None = 0,
) -> np.ndarray:
    """Assign every clip to one fold, stratified for classes and never splitting a group.

    Where there is only one group, clips are divided instead: nothing better can be had.

    Args:
        y: (n,) class indices, (n, k) 0/1 labels or (n,) / (n, k) numbers.
        groups: (n,) group of each clip, or None where each clip stands for itself.
        task: "classes", "multilabel" or "regression"; only classes are stratified.
        n_folds: at most this many folds; fewer where clips or groups are fewer.
        random_state: shuffles.

    Returns:
        (n,) fold of each clip, 0 to m - 1 with m between 2 and `n_folds`.

    Raises:
        ValueError: fewer than two clips.
    """
    n = len(y)
    if n < 2:
        raise ValueError(f"n_samples = {n}: at least two clips are needed to hold some out")
    n_folds = max(2, n_folds)
    if groups is not None:
        groups = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1].ravel()
        n_groups = int(groups.max()) + 1
        if n_groups < 2:
            groups = None
    stratify = task == "classes" and int(np.bincount(y).max()) >= 2
    if groups is not None:
        m = min(n_folds, n_groups)
        if stratify:
            m = min(m, int(np.bincount(y).max()))
            splitter = StratifiedGroupKFold(max(2, m), shuffle=True, random_state=random_state)
        else:
            splitter = GroupKFold(m, shuffle=True, random_state=random_state)
    elif stratify:
        m = min(n_folds, int(np.bincount(y).max()))
        splitter = StratifiedKFold(m, shuffle=True, random_state=random_state)
    else:
        splitter = KFold(min(n_folds, n), shuffle=True, random_state=random_state)
    folds = _assign(splitter, y, groups)
    if folds.max() == 0 and groups is not None:
        # Stratifying by group may put all groups into one fold when a class is one group.
        folds = _assign(GroupKFold(min(n_folds, n_groups)), y, groups)
    return folds


def _assign(splitter: object, y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """(n,) fold of each clip, numbered without gaps."""
    folds = np.zeros(len(y), dtype=np.int64)
    with warnings.catch_warnings():
        # A class smaller than the number of folds is expected here.
        warnings.filterwarnings("ignore", message="The least populated class", module="sklearn")
        for index, (_, held_out) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):  # type: ignore[attr-defined]
            folds[held_out] = index
    return np.unique(folds, return_inverse=True)[1].ravel()
