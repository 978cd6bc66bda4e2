"""Is one run better than another? The same items judged twice, differences resampled by group.

Two runs on the same items share what makes items easy or hard, so the interval of their difference
is far narrower than the intervals of each suggest. Comparing two overlapping intervals is no test.

Symbols: n items, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import r2_score

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import (
    Groups,
    group_codes,
    group_sums,
    interval,
    mean_interval,
)
from ossicle.metrics.classification import PRIMARY, mean_average_precision

Statistic = Callable[[np.ndarray, np.ndarray], float]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    y_true: ArrayLike | None = None,
    statistic: Statistic | None = None,
    groups: Groups = None,
    n_resamples: int = 1000,
    n_permutations: int = 10_000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> dict[str, float]:
    """How much better `a` is than `b`, with an interval and a p-value.

    The interval is the group bootstrap's of the difference (see `ossicle.metrics.bootstrap`). The
    p-value is that of a permutation test: if the runs are alike, a group's results may be swapped
    between them, which for means flips the sign of the group's difference (Good 2005, Permutation,
    Parametric and Bootstrap Tests of Hypotheses, chapter 3). Up to `n_permutations` patterns are
    all tried; of more, so many are drawn, and p = (1 + as large or larger) / (1 + drawn) (Phipson
    & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, article 39). With G groups no p-value is below
    2^(1 - G): five groups cannot show significance at 5 %.

    Args:
        a: (n, ...) results of the first run: correctness 0/1 or any score an item, of which the
            means are compared; with `statistic`, predictions.
        b: the same of the second run.
        y_true: (n, ...) labels, for `statistic`.
        statistic: called as `statistic(y_true, predictions)`, higher is better. Costs
            2 * (n_resamples + n_permutations) calls, so `n_permutations` is held to 1,000.
        groups: (n,) group of each item; None or NaN: the item on its own.
        n_resamples: bootstrap resamples.
        n_permutations: sign patterns at most.
        confidence: coverage, between 0 and 1.
        random_state: seed.

    Returns:
        "difference" (a minus b), "low", "high", "p_value". Where all groups differ alike, the
        limits are those of `agreement_interval` if results lie in [0, 1], otherwise NaN.

    Raises:
        DataError: for empty or unequal arrays, or `statistic` without `y_true`.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or not first.size:
        raise DataError(f"two runs need results of one shape, got {first.shape}, {second.shape}")
    codes, n_groups = group_codes(groups, len(first))
    options: dict[str, Any] = {
        "groups": groups,
        "n_resamples": n_resamples,
        "confidence": confidence,
        "random_state": random_state,
    }
    # A stream of its own: permutations must not repeat the bootstrap's draws.
    generator = np.random.default_rng([random_state, 1])
    if statistic is None:
        if first.ndim != 1:
            raise DataError(f"means are compared of one number an item, got {first.shape}")
        gain = first.astype(np.float64) - second.astype(np.float64)
        difference = float(gain.mean())
        bounded = min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) <= 1
        low, high = mean_interval(gain, bounds=(-1.0, 1.0) if bounded else None, **options)
        shares = group_sums(gain, codes, n_groups) / len(gain)
        patterns, exact = sign_patterns(n_groups, n_permutations, generator)
        permuted = np.concatenate([signs @ shares for signs in patterns])
    else:
        if y_true is None:
            raise DataError("a statistic compares predictions with labels: give y_true")
        labels = np.asarray(y_true)
        judge = statistic

        def gained(true: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
            return float(judge(true, one)) - float(judge(true, other))

        difference = gained(labels, first, second)
        low, high = interval(gained, labels, first, second, **options)
        patterns, exact = sign_patterns(n_groups, min(n_permutations, 1000), generator)
        permuted = np.array(
            [_swapped(gained, labels, first, second, s[codes]) for block in patterns for s in block]
        )
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": _p_value(permuted, difference, exact),
    }


def compare_runs(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    task: str = "classes",
    common_only: bool = False,
    n_resamples: int = 1000,
    n_permutations: int = 10_000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> dict[str, float]:
    """Compare two runs by the primary score of their task, item by item.

    Args:
        a: a run: "items" (n clip ids, each once), "y_true" (n, ...) labels, "y_pred" (n, ...)
            predictions (task "multilabel": scores), "group" (n groups, or absent or None).
        b: another run, its items in any order.
        task: "classes" (accuracy), "multilabel" (mean average precision), "regression" (R2).
        common_only: compare on the items that both hold, instead of refusing runs whose items
            differ.
        n_resamples, n_permutations, confidence, random_state: as for `paired_difference`.

    Returns:
        "a", "b" (the scores), "difference" (a minus b), "low", "high", "p_value", "n_items",
        "n_groups".

    Raises:
        DataError: if the runs do not describe the same items with the same labels and groups.
    """
    if task not in PRIMARY:
        raise DataError(f"unknown task {task!r}: use one of {', '.join(PRIMARY)}")
    first, second = _index(a, "first"), _index(b, "second")
    only = [len(first.keys() - second.keys()), len(second.keys() - first.keys())]
    common = [item for item in first if item in second]
    if not common:
        raise DataError("the two runs have no item in common: they were made from different data")
    if any(only) and not common_only:
        raise DataError(
            f"the runs cover different items: {only[0]} only in the first, {only[1]} only in the "
            f"second, {len(common)} in both; compare on the common ones (common_only) or rerun one"
        )
    rows_a = np.array([first[item] for item in common])
    rows_b = np.array([second[item] for item in common])
    true, true_b = np.asarray(a["y_true"])[rows_a], np.asarray(b["y_true"])[rows_b]
    _same(true, true_b, common, "labels")
    groups = _groups(a, rows_a)
    _same(groups, _groups(b, rows_b), common, "groups")
    predicted_a, predicted_b = np.asarray(a["y_pred"])[rows_a], np.asarray(b["y_pred"])[rows_b]
    options: dict[str, Any] = {
        "groups": groups,
        "n_resamples": n_resamples,
        "n_permutations": n_permutations,
        "confidence": confidence,
        "random_state": random_state,
    }
    if task == "classes":
        predicted_a, predicted_b = predicted_a == true, predicted_b == true
        scores = float(predicted_a.mean()), float(predicted_b.mean())
        result = paired_difference(predicted_a, predicted_b, **options)
    else:
        statistic: Statistic = r2_score if task == "regression" else mean_average_precision
        scores = float(statistic(true, predicted_a)), float(statistic(true, predicted_b))
        result = paired_difference(
            predicted_a, predicted_b, y_true=true, statistic=statistic, **options
        )
    n_groups = group_codes(groups, len(common))[1]
    return {
        "a": scores[0],
        "b": scores[1],
        **result,
        "n_items": len(common),
        "n_groups": n_groups,
    }


def sign_patterns(
    n_groups: int, n_permutations: int, generator: np.random.Generator
) -> tuple[Iterator[np.ndarray], bool]:
    """Blocks (rows, G) of +1 and -1, and whether they are all there are."""
    if n_groups < 31 and 2**n_groups <= n_permutations:
        every = np.array(list(product((1, -1), repeat=n_groups)))
        return iter([every]), True
    block = max(1, 2**18 // n_groups)
    sizes = [min(block, n_permutations - start) for start in range(0, n_permutations, block)]
    return (generator.choice((1, -1), size=(rows, n_groups)) for rows in sizes), False


def _p_value(permuted: np.ndarray, difference: float, exact: bool) -> float:
    """The share of permutations that differ as much; without a defined difference, NaN."""
    known = permuted[~np.isnan(permuted)]
    if np.isnan(difference) or not len(known):
        return float("nan")
    # Sums in another order must still count as equal.
    extreme = np.sum(np.abs(known) >= abs(difference) - 1e-12)
    return float(extreme / len(known) if exact else (1 + extreme) / (1 + len(known)))


def _swapped(
    gained: Callable[..., float],
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    signs: np.ndarray,
) -> float:
    """The difference with the two runs' results swapped where (n,) signs are -1."""
    keep = (signs > 0).reshape(-1, *[1] * (first.ndim - 1))
    return gained(labels, np.where(keep, first, second), np.where(keep, second, first))


def _index(run: Mapping[str, Any], which: str) -> dict[Any, int]:
    """Item -> row, or a DataError if the run is not what `compare_runs` describes."""
    missing = [key for key in ("items", "y_true", "y_pred") if key not in run]
    if missing:
        raise DataError(f"the {which} run lacks {', '.join(missing)}")
    items = list(run["items"])
    lengths = {key: len(run[key]) for key in ("items", "y_true", "y_pred")}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the {which} run's columns differ in length: {lengths}")
    rows = {item: row for row, item in enumerate(items)}
    if len(rows) < len(items):
        raise DataError(f"the {which} run holds {len(items) - len(rows)} items more than once")
    return rows


def _groups(run: Mapping[str, Any], rows: np.ndarray) -> np.ndarray | None:
    """The groups of the chosen rows as objects, missing ones as None; None without groups."""
    groups = run.get("group")
    if groups is None:
        return None
    names = pd.Series(list(groups), dtype=object)
    # NaN, which tables write for a missing group, does not even equal itself.
    return names.where(names.notna(), None).to_numpy()[rows]


def _same(
    one: np.ndarray | None, other: np.ndarray | None, items: Sequence[Any], what: str
) -> None:
    """Raise a DataError where two runs contradict each other."""
    if one is None and other is None:
        return
    if one is None or other is None:
        raise DataError(f"one run has {what} and the other has none")
    if one.shape != other.shape:
        raise DataError(f"the runs' {what} differ in shape: {one.shape} and {other.shape}")
    unequal = one != other
    if unequal.dtype == object or unequal.ndim > 1:
        unequal = np.array([bool(np.any(row)) for row in unequal])
    if unequal.any():
        first = items[int(np.flatnonzero(unequal)[0])]
        raise DataError(
            f"the runs disagree about the {what} of {int(unequal.sum())} items (first: {first})"
        )
