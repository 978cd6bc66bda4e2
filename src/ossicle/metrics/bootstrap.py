"""Intervals by the cluster bootstrap: resample whole groups, because their items are not news.

Clips of one recording, one bird or one author resemble each other; the number of groups, not of
clips, says how much a test set knows. Resampling groups with replacement keeps what lies within
them together (Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8;
Field & Welsh 2007, J. R. Statist. Soc. B 69, 369-390). Without groups, each item is its own.

The interval is the *expanded percentile* interval (Hesterberg 2015, "What teachers should know
about the bootstrap", The American Statistician 69(4), 371-386): the quantiles of the resampled
scores, taken further out so that for a mean of G groups it is as wide as a t interval with G - 1
degrees of freedom. The plain percentile interval is too narrow for few groups; from about 50 groups
on the two agree. BCa intervals are not used: their correction is itself unsteady for few groups.

The resampled scores are first shifted by the bootstrap's estimate of bias, their mean less the
score (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 10). For accuracy that is
nothing; average precision it would otherwise push upwards, because an item drawn twice brings its
own company to the top of the list, so that a score of few positives could lie below its own
interval. The interval is thus for the score expected of test sets of this size and make.

Where all resamples give the same score, as they do when everything is right, the bootstrap knows
nothing and a width of zero would be a lie: see `agreement_interval`.

Symbols: n items, G groups, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from ossicle.errors import DataError
from ossicle.metrics.classification import check_labels, score
from ossicle.metrics.regression import check_regression
from ossicle.metrics.weighted import (
    Statistics,
    count_statistics,
    ranking_statistics,
    ratio,
    regression_statistics,
)

Groups: TypeAlias = Sequence[Any] | np.ndarray | pd.Series | None

# Weights held at a time (2 MiB of float64: they stay in the cache).
_BLOCK = 2**18
# Ranking scores sort nothing again but pass over items x classes x resamples numbers: about 10 ns
# each. Past this many they get fewer resamples (at least 200), so that they end within a minute.
_RANKING_WORK = 5 * 10**9
# What scores can be; those not named lie in [0, 1].
_BOUNDS = {
    "r2": (-np.inf, 1.0),
    "mae": (0.0, np.inf),
    "rmse": (0.0, np.inf),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
}


class Interval(NamedTuple):
    """The limits of a confidence interval; NaN where they cannot be told."""

    low: float
    high: float


def interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    groups: Groups = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """The interval of any statistic of items: calls it once for each resample.

    Args:
        statistic: called as `statistic(*resampled_arrays)`; must not depend on the items' order.
            A resample for which it returns NaN (a class is missing, say) is left out.
        arrays: each (n, ...), resampled together.
        groups: (n,) group of each item; None, NaN or no groups: the item on its own.
        n_resamples: R.
        confidence: coverage, between 0 and 1.
        random_state: seed or generator.
        bounds: lowest and highest value that a mean-like statistic can take, such as (0, 1);
            allows an answer when all resamples agree.

    Returns:
        (low, high), widened where needed to hold the statistic of the items as they are. NaN if
        fewer than half of the resamples define the statistic, or if all agree (always so with a
        single group) and there are no `bounds`.

    Raises:
        DataError: for empty or unequal arrays.
    """
    values = [np.asarray(array) for array in arrays]
    codes, n_groups = group_codes(groups, _common_length(values))
    samples = []
    for counts in draw(n_groups, n_resamples, random_state, _block(len(codes))):
        for row in counts:
            index = np.repeat(np.arange(len(codes)), row[codes])
            samples.append(float(statistic(*(array[index] for array in values))))
    return limits(np.array(samples), float(statistic(*values)), n_groups, confidence, bounds)


def mean_interval(
    values: ArrayLike,
    *,
    groups: Groups = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Interval:
    """The interval of a mean over items, such as accuracy from (n,) correctness 0/1.

    The same as `interval(np.mean, values, ...)`, from the sums of each group.
    """
    items = np.asarray(values, dtype=np.float64)
    codes, n_groups = group_codes(groups, _common_length([items]))
    sums = group_sums(items, codes, n_groups)
    sizes = group_sums(np.ones(len(items)), codes, n_groups)
    samples = np.concatenate(
        [
            ratio(counts @ sums, counts @ sizes)
            for counts in draw(n_groups, n_resamples, random_state, _block(n_groups))
        ]
    )
    return limits(samples, float(items.mean()), n_groups, confidence, bounds)


def with_intervals(
    task: str,
    y_true: ArrayLike,
    y_pred: ArrayLike | None = None,
    y_score: ArrayLike | None = None,
    classes: Sequence[str] = (),
    groups: Groups = None,
    *,
    threshold: ArrayLike = 0.5,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator = 0,
) -> dict[str, dict[str, float]]:
    """All scores of `ossicle.metrics.score`, each with its interval.

    All scores see the same resamples. In a resample that misses a class, macro averages run over
    the classes that are there. AUC and mean average precision of very large sets (items x classes
    over 5 million) get fewer resamples than asked for, at least 200.

    Args:
        task, y_true, y_pred, y_score, classes, threshold: as for `ossicle.metrics.score`.
        groups: (n,) group of each item; None or NaN: the item on its own.
        n_resamples, confidence, random_state: as for `interval`.

    Returns:
        score name -> {"value", "low", "high"}, with low <= value <= high, or low and high NaN
        where they cannot be told (see `interval`).

    Raises:
        DataError: as `ossicle.metrics.score`, or for groups of another length.
    """
    values = score(task, y_true, y_pred, y_score, classes, threshold=threshold)
    cheap, ranking, true = _statistics(task, y_true, y_pred, y_score, classes, threshold)
    codes, n_groups = group_codes(groups, len(true))
    n_ranking = min(n_resamples, max(200, _RANKING_WORK // max(1, true.size)))
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    for counts in draw(n_groups, n_resamples, random_state, _block(len(codes))):
        weights = counts[:, codes].astype(np.float64)
        part = cheap(weights)
        if ranking is not None and done < n_ranking:
            part |= ranking(weights)
        parts.append(part)
        done += len(counts)
    trials = _trials(task, true, codes, n_groups)
    result = {}
    for name, value in values.items():
        samples = np.concatenate([part[name] for part in parts if name in part])
        bounds = _BOUNDS.get(name, (0.0, 1.0))
        low, high = limits(samples, value, n_groups, confidence, bounds, trials.get(name))
        result[name] = {"value": value, "low": low, "high": high}
    return result


def limits(
    samples: np.ndarray,
    value: float,
    n_groups: int,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
    trials: np.ndarray | None = None,
) -> Interval:
    """The expanded percentile interval of resampled scores, freed of the bootstrap's bias.

    Args:
        samples: (R,) scores of the resamples; NaN are left out.
        value: the score itself; the interval is widened to hold it.
        n_groups: G.
        confidence: coverage, between 0 and 1.
        bounds: range of the score: limits stay within; `agreement_interval` needs a finite one.
        trials: passed on to `agreement_interval`; None: `n_groups`.
    """
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or 2 * len(known) < len(samples):
        return Interval(float("nan"), float("nan"))
    if n_groups < 2 or np.ptp(known) < 1e-12:
        if bounds is None or not np.isfinite(bounds).all():
            return Interval(float("nan"), float("nan"))
        return agreement_interval(value, n_groups if trials is None else trials, confidence, bounds)
    # Hesterberg 2015: the tail whose normal quantile is the t quantile, scaled.
    outward = t.ppf((1 + confidence) / 2, n_groups - 1) * np.sqrt(n_groups / (n_groups - 1))
    tail = norm.cdf(-outward)
    low, high = np.quantile(known, [tail, 1 - tail]) - (known.mean() - value)
    lowest, highest = (-np.inf, np.inf) if bounds is None else bounds
    return Interval(
        float(min(max(low, lowest), value)),
        float(max(min(high, highest), value)),
    )


def agreement_interval(
    value: float,
    trials: int | np.ndarray,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The interval of a mean when every group has the same: Clopper and Pearson's, by groups.

    If all of G groups score `value`, the share u of groups elsewhere that do not is at most
    1 - (alpha / 2)^(1/G) (Clopper & Pearson 1934, Biometrika 26, 404-413, for no failure in G
    trials; near 3.7 / G for 95 %). Such groups may score anything within the bounds, so the mean
    lies within [value - u (value - lowest), value + u (highest - value)]. For a perfect accuracy of
    single items this is exactly the Clopper-Pearson interval.

    Args:
        value: the common score.
        trials: G, or for a macro average the groups of each class, (C,): u is then their mean.
        confidence: 1 - alpha.
        bounds: lowest and highest possible score.
    """
    share = float(np.mean(1 - ((1 - confidence) / 2) ** (1 / np.maximum(trials, 1))))
    return Interval(value - share * (value - bounds[0]), value + share * (bounds[1] - value))


def group_codes(groups: Groups, n_items: int) -> tuple[np.ndarray, int]:
    """The group of each item as (n,) numbers from 0 in order of appearance, and how many.

    An item whose group is None or NaN is a group of its own.
    """
    if groups is None:
        return np.arange(n_items), n_items
    # Not through an array: that would turn a NaN among strings into the group "nan".
    names = pd.Series(list(groups))
    if len(names) != n_items:
        raise DataError(f"there are {n_items} items but {len(names)} groups")
    codes, known = pd.factorize(names)
    alone = codes < 0
    codes[alone] = len(known) + np.arange(alone.sum())
    return codes, len(known) + int(alone.sum())


def group_sums(values: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """The sum of (n,) values over each group: (G,)."""
    return np.bincount(codes, weights=values, minlength=n_groups)


def draw(
    n_groups: int, n_resamples: int, random_state: int | np.random.Generator, block: int
) -> Iterator[np.ndarray]:
    """How often each resample holds each group: blocks of at most `block` rows, (rows, G) int64.

    The draws do not depend on `block`.
    """
    generator = np.random.default_rng(random_state)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn = generator.integers(n_groups, size=(rows, n_groups))
        drawn += n_groups * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n_groups).reshape(rows, n_groups)


def _statistics(
    task: str,
    y_true: ArrayLike,
    y_pred: ArrayLike | None,
    y_score: ArrayLike | None,
    classes: Sequence[str],
    threshold: ArrayLike,
) -> tuple[Statistics, Statistics | None, np.ndarray]:
    """The weighted scores of a task, the costly ones apart, and the labels: (n, C) bool or (n,)."""
    if task == "regression":
        predictions: Any = y_score if y_pred is None else y_pred
        true, predicted = check_regression(y_true, predictions)
        return regression_statistics(true, predicted), None, true
    num_classes = len(classes)
    labels = check_labels(task, y_true, y_pred, y_score, num_classes, threshold=threshold)
    true = labels.one_hot(num_classes)
    predicted = labels._replace(true=labels.predicted).one_hot(num_classes)
    ranking = None
    if labels.scores is not None:
        binary = task == "classes" and num_classes == 2
        ranking = ranking_statistics(true, labels.scores, binary=binary)
    return count_statistics(true, predicted, single=task == "classes"), ranking, true


def _trials(
    task: str, true: np.ndarray, codes: np.ndarray, n_groups: int
) -> Mapping[str, np.ndarray]:
    """For each macro average, the groups that its classes rest on: (C',) of the classes present.

    A ranking of positives against negatives rests on the rarer of the two.
    """
    if task == "regression":
        return {}
    holds = np.array([len(np.unique(codes[column])) for column in true.T])
    lacks = np.array([len(np.unique(codes[~column])) for column in true.T])
    present = holds > 0
    support = holds[present]
    both = np.minimum(holds, lacks)[present & (lacks > 0)]
    return {"balanced_accuracy": support, "macro_f1": support, "map": support, "auc": both}


def _block(n_items: int) -> int:
    """How many resamples to hold at a time."""
    return max(1, _BLOCK // max(1, n_items))


def _common_length(arrays: Sequence[np.ndarray]) -> int:
    """The number of items of all arrays, or a DataError."""
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(f"the arrays must be of one length above 0, got {sorted(lengths)}")
    return lengths.pop()
