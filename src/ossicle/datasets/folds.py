"""Splits for cross-validation that keep groups whole and classes balanced.

A fold is a pair of index arrays (train_index, test_index), sorted, as scikit-learn's splitters
yield them. Clips of one group are never on both sides.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ossicle.datasets.layouts import SPLITS
from ossicle.errors import DataError

Folds = list[tuple[np.ndarray, np.ndarray]]


class TooFewGroupsError(DataError):
    """Not even two folds can be made of these groups."""


class Split(NamedTuple):
    """One fixed split, each part as sorted indices.

    Attributes:
        train: to fit on.
        validation: to choose settings and thresholds on; empty where there are fewer parts.
        test: to report on.
        note: which of the data's parts is which, for the user.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    note: str


def make_folds(
    y: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    n_folds: int = 5,
    *,
    task: str,
    random_state: int = 0,
    rare: str = "raise",
    classes: Sequence[str] | None = None,
) -> Folds:
    """Stratified folds that keep groups whole; each clip is tested once.

    Args:
        y: (n,) class indices, (n, num_classes) 0/1, or (n,) floats.
        groups: (n,) names; None for each clip its own.
        n_folds: how many; fewer are made where there are fewer groups (see `usable_folds`).
        task: "classes", "multilabel" or "regression" (balanced over ten quantile bins).
        random_state: seed. The same seed gives the same folds for the same groups, in whatever
            order the rows are (with `groups=None` the order is all there is to go by).
        rare: what to do with classes found in one group only, which cannot be both learnt and
            tested: "raise", or "train" to keep these groups out of every test part (they are then
            the only clips never tested).
        classes: names of the classes, for messages.

    Each class that is tested in a fold is in that fold's training part. Balance is by
    scikit-learn's StratifiedGroupKFold; for several labels a clip by the same greedy rule over
    all labels (after Sechidis et al. 2011, "On the stratification of multi-label data": rarest
    label first, to the fold that lacks it most).

    Raises TooFewGroupsError for fewer than two groups to test on, DataError for rare classes with
    rare="raise".
    """
    if rare not in ("raise", "train"):
        raise DataError(f"rare={rare!r} is not known; use 'raise' or 'train'")
    codes, names = _group_codes(groups, len(y))
    targets, kinds = _targets(y, task, n_folds)
    counts = np.zeros((len(names), targets.shape[1]), np.int64)
    np.add.at(counts, codes, targets)
    n_folds, _ = usable_folds(y, groups, n_folds, task=task, rare=rare, classes=classes)
    lonely = _lonely(counts, len(kinds))
    if len(lonely) and rare == "raise":
        raise DataError(_lonely_message(lonely, counts, names, kinds, classes))
    kept = np.flatnonzero(~(counts[:, lonely] > 0).any(axis=1))
    allocate = _allocate_labels if task == "multilabel" else _allocate_classes
    fold_of_group = np.full(len(names), -1)
    fold_of_group[kept] = allocate(counts[kept], n_folds, random_state)
    _repair(fold_of_group, counts[:, : len(kinds)] > 0, n_folds)
    fold = fold_of_group[codes]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def usable_folds(
    y: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    n_folds: int = 5,
    *,
    task: str,
    rare: str = "raise",
    classes: Sequence[str] | None = None,
) -> tuple[int, str | None]:
    """How many folds `make_folds` makes, and why not as many as asked for (None if it does).

    Raises TooFewGroupsError, naming the classes, where not even two can be made.
    """
    if n_folds < 2:
        raise DataError(f"cross-validation needs two folds or more, not {n_folds}")
    codes, names = _group_codes(groups, len(y))
    targets, kinds = _targets(y, task, n_folds)
    counts = np.zeros((len(names), targets.shape[1]), np.int64)
    np.add.at(counts, codes, targets)
    lonely = _lonely(counts, len(kinds))
    if rare == "train":
        counts = counts[~(counts[:, lonely] > 0).any(axis=1)]
    if len(counts) < 2:
        rare_names = [_class_name(kinds[column], classes) for column in lonely]
        raise TooFewGroupsError(_too_few_message(len(y), len(names), len(counts), rare_names))
    most = len(counts)
    if task != "regression":
        most = max(2, min(most, int((counts > 0).sum(axis=0).max(initial=0))))
    if most >= n_folds:
        return n_folds, None
    reason = f"{len(counts)} groups" if most == len(counts) else f"{most} groups in any class"
    return most, f"{most} folds instead of {n_folds}, as there are only {reason}"


def random_folds(
    y: np.ndarray, n_folds: int = 5, *, task: str, random_state: int = 0, rare: str = "raise"
) -> Folds:
    """Stratified folds that disregard groups: what a careless split would have claimed."""
    return make_folds(y, None, n_folds, task=task, random_state=random_state, rare=rare)


def predefined_folds(fold: Sequence[Any]) -> Folds:
    """One fold for each value of a fold column, in natural order ("2" before "10").

    Raises DataError for clips without a value, or fewer than two values.
    """
    values = np.array([_text(v) for v in fold], dtype=object)
    missing = [i for i, v in enumerate(values) if not v]
    if missing:
        raise DataError(f"{len(missing)} of {len(values)} clips have no fold (first: {missing[0]})")
    kinds = sorted(set(values), key=_natural)
    if len(kinds) < 2:
        raise DataError(f"folds need two values or more; there is only {', '.join(kinds)!r}")
    return [(np.flatnonzero(values != k), np.flatnonzero(values == k)) for k in kinds]


def predefined_split(split: Sequence[Any]) -> Split:
    """The split that a split column names.

    Names: train, training; valid, validation, val, dev; test, testing; in any case. With train
    and test, or train and validation, the second is reported on; with all three, validation is
    for choosing and test for reporting. Raises DataError for other names and missing parts.
    """
    values = [_text(v) for v in split]
    unknown = sorted({v for v in values if v.lower() not in SPLITS})
    if unknown:
        shown = ", ".join(v or "(nothing)" for v in unknown[:5])
        raise DataError(
            f"split has values that are not known: {shown}; use train, validation, test"
        )
    parts = np.array([SPLITS[v.lower()] for v in values], dtype=object)
    train, validation, test = (np.flatnonzero(parts == p) for p in ("train", "validation", "test"))
    if len(train) == 0 or len(validation) + len(test) == 0:
        has = ", ".join(sorted(set(parts))) or "nothing"
        raise DataError(f"split needs train and one of validation and test; it has {has}")
    if len(test) == 0:
        nothing = np.zeros(0, np.int64)
        return Split(train, nothing, validation, "fitted on train, reported on validation")
    if len(validation) == 0:
        return Split(train, validation, test, "fitted on train, reported on test")
    return Split(train, validation, test, "fitted on train, chosen on validation, reported on test")


def check_folds(
    folds: Sequence[tuple[np.ndarray, np.ndarray]], groups: Sequence[Any] | np.ndarray
) -> None:
    """Raises DataError naming groups that are on both sides of a fold, or for a broken fold."""
    groups = np.asarray(groups, dtype=object).astype(str)
    if not len(folds):
        raise DataError("there are no folds")
    for k, (train, test) in enumerate(folds, start=1):
        train, test = np.asarray(train, np.int64), np.asarray(test, np.int64)
        if len(train) == 0 or len(test) == 0:
            raise DataError(f"fold {k} has no clips to {'train' if len(train) == 0 else 'test'} on")
        if min(train.min(), test.min()) < 0 or max(train.max(), test.max()) >= len(groups):
            raise DataError(f"fold {k} has indices outside the {len(groups)} clips")
        if len(np.intersect1d(train, test)):
            raise DataError(f"fold {k} tests clips that it trains on")
        both = np.intersect1d(groups[train], groups[test])
        if len(both):
            raise DataError(
                f"fold {k}: {len(both)} groups are both trained on and tested: "
                f"{', '.join(both[:3])}{', ...' if len(both) > 3 else ''}"
            )


def _group_codes(groups: Sequence[Any] | np.ndarray | None, n: int) -> tuple[np.ndarray, list[str]]:
    """A number for each row's group, by the groups' sorted names; and the names."""
    if groups is None:
        return np.arange(n), [str(i) for i in range(n)]
    texts = np.array([str(g) for g in groups], dtype=object)
    if len(texts) != n:
        raise DataError(f"{len(texts)} groups for {n} clips")
    names, codes = np.unique(texts, return_inverse=True) if n else (texts, np.zeros(0, np.int64))
    return codes, list(names)


def _targets(y: np.ndarray, task: str, n_folds: int) -> tuple[np.ndarray, list[int]]:
    """(n, columns) 0/1 of what is to be balanced, and the classes that the first columns are.

    The columns after these (quantile bins of a regression target, clips without any label) are
    balanced as well as may be, but need not be in every training part.
    """
    y = np.asarray(y)
    if task == "multilabel":
        if y.ndim != 2:
            raise DataError(f"multilabel y must be (n, num_classes), not {y.shape}")
        targets = (y != 0).astype(np.int64)
        return np.column_stack([targets, targets.sum(axis=1) == 0]), list(range(y.shape[1]))
    if task not in ("classes", "regression"):
        raise DataError(f"task {task!r} is not known; use classes, multilabel or regression")
    if y.ndim != 1:
        raise DataError(f"{task} y must be (n,), not {y.shape}")
    if task == "regression" and not np.isfinite(y).all():
        raise DataError("regression y has values that are not finite")
    if task == "regression" and len(y):
        # Bins of at least 2 n_folds clips, so that each fold can have some of each.
        bins = min(10, max(1, len(y) // (2 * n_folds)))
        edges = np.quantile(y, np.linspace(0, 1, bins + 1)[1:-1])
        y = np.searchsorted(np.unique(edges), y, side="right")
    kinds, index = np.unique(y, return_inverse=True)
    targets = np.zeros((len(y), len(kinds)), np.int64)
    targets[np.arange(len(y)), index] = 1
    return targets, [] if task == "regression" else list(kinds)


def _lonely(counts: np.ndarray, n_classes: int) -> np.ndarray:
    """Columns of classes that are in one group only."""
    return np.flatnonzero((counts[:, :n_classes] > 0).sum(axis=0) == 1)


def _class_name(kind: int, classes: Sequence[str] | None) -> str:
    return str(kind if classes is None else classes[kind])


def _too_few_message(n_clips: int, n_groups: int, n_left: int, lonely: Sequence[str]) -> str:
    """Why two folds cannot be made; `lonely` are the names of classes in one group only."""
    needed = "folds need two groups or more (recordings, speakers, ...)"
    if n_groups < 2:
        few = "there is only one clip" if n_clips else "there are no clips"
        told = f"all {n_clips} clips are of one group" if n_clips > 1 else few
        return f"{told}: nothing to test on; {needed}"
    only = "has one clip only" if n_groups == n_clips else "has clips of one group only"
    told = f"class {lonely[0]!r} {only}"
    if len(lonely) > 1:
        others = ", ".join(repr(name) for name in lonely[1:5])
        others += f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        told += f", and so {'has' if len(lonely) == 2 else 'have'} {others}"
    left = "nothing is" if n_left == 0 else "one group is"
    return f"{told}: {left} left to test on; {needed} of each class"


def _lonely_message(
    lonely: np.ndarray,
    counts: np.ndarray,
    names: list[str],
    kinds: list[int],
    classes: Sequence[str] | None,
) -> str:
    shown = []
    for column in lonely[:3]:
        label = _class_name(kinds[column], classes)
        group = names[int(np.flatnonzero(counts[:, column])[0])]
        shown.append(f"{label} (group {group!r})")
    more = f" and {len(lonely) - 3} more" if len(lonely) > 3 else ""
    return (
        f"{len(lonely)} of the classes are in one group only and cannot be both learnt and tested: "
        f"{', '.join(shown)}{more}; add recordings, drop them, or pass rare='train'"
    )


def _allocate_classes(counts: np.ndarray, n_folds: int, random_state: int) -> np.ndarray:
    """A fold for each group, by StratifiedGroupKFold on rows in an order of their own.

    Rows are laid out anew from the counts, so that the caller's order of rows has no influence.
    """
    group, kind = np.nonzero(counts)
    repeats = counts[group, kind]
    group, kind = np.repeat(group, repeats), np.repeat(kind, repeats)
    if np.bincount(kind).max() < n_folds:
        # Which scikit-learn refuses: no class has a clip for every fold.
        return _allocate_labels(counts, n_folds, random_state)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_state)
    fold = np.zeros(len(counts), np.int64)
    with warnings.catch_warnings():
        # A class smaller than the number of folds is legal here; _repair sees to its training.
        warnings.simplefilter("ignore", UserWarning)
        for k, (_, test) in enumerate(splitter.split(kind, kind, group)):
            fold[group[test]] = k
    return fold


def _allocate_labels(counts: np.ndarray, n_folds: int, random_state: int) -> np.ndarray:
    """A fold for each group: rarest label first, to the fold that most lacks it, then clips."""
    order = np.random.default_rng(random_state).permutation(len(counts))
    wanted = np.repeat(counts.sum(axis=0)[None] / n_folds, n_folds, axis=0)
    room = np.full(n_folds, counts.sum() / n_folds)
    fold = np.full(len(counts), -1)
    left = counts.sum(axis=0)
    while (fold < 0).any():
        label = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        members = [g for g in order if fold[g] < 0 and counts[g, label]]
        for g in sorted(members, key=lambda g: -counts[g].sum()):
            best = np.lexsort((-room, -wanted[:, label]))[0]
            fold[g] = best
            wanted[best] -= counts[g]
            room[best] -= counts[g].sum()
            left = left - counts[g]
    return fold


def _repair(fold: np.ndarray, present: np.ndarray, n_folds: int) -> None:
    """Moves groups, in place, until no fold is empty and no class is tested but never trained on.

    `fold` is -1 for groups that are always trained on; `present` is (n_groups, classes), which
    group has which class. Raises DataError where that cannot be had.
    """

    def shut(k: int) -> np.ndarray:
        """Classes found in fold k and nowhere else."""
        return present[fold == k].any(axis=0) & ~present[fold != k].any(axis=0)

    def faults() -> int:
        return sum(int(shut(k).sum()) + (not (fold == k).any()) for k in range(n_folds))

    current = faults()
    while current:
        any_empty = len(np.unique(fold[fold >= 0])) < n_folds
        moves = []
        for home in range(n_folds):
            inside = np.flatnonzero(fold == home)
            if not any_empty:
                inside = inside[present[inside][:, shut(home)].any(axis=1)]
            for g in inside:
                for k in range(n_folds):
                    fold[g] = k
                    moves.append((faults(), int((fold == k).sum()), int(g), k))
                fold[g] = home
        after, _, moved, k = min(moves, default=(current, 0, 0, 0))
        if after >= current:
            raise DataError(
                "no folds can be made in which each tested class is also trained on, as too few "
                "groups hold all the clips of a class; use fewer folds or other groups"
            )
        fold[moved] = k
        current = after


def _text(value: Any) -> str:
    """The value as text; 3.0 as "3", nothing as ""."""
    if value is None or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
