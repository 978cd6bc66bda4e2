"""How much more data one setting needs than another, from scores measured at some training sizes.

B needs k times the data of A where both reach the same score with n_B = k n_A clips. Each setting's
mean scores are made a curve that never falls: least squares under that constraint (isotonic
regression; Ayer et al. 1955, Annals of Mathematical Statistics 26, 641-647), straight lines in
log n between the sizes. From it n(s) is read, the size that first reaches the score s, and

    log k = mean of log n_B(s) - log n_A(s) over the scores s that both curves reach:

the geometric mean of the ratios, which is the area between the curves over the height they share.
A flat part has no height, so that its many sizes do no harm, and swapping A and B gives 1/k.
No law is fitted: a power law has three unknowns for some five sizes, decides by its asymptote what
k is where nothing was measured, and is wrong for curves that still turn. The price is that k can
never be told outside the sizes measured; where a curve does not reach the other's scores, there is
a bound, "more than the largest size over the smallest", and it is named as one.

Intervals: draws of all mean scores at once, each turned into curves and k. A draw adds two
deviations, of the seeds and of the test groups:

- seeds: sum over seeds of z_r (S_r - mean) / sqrt(R (R - 1)) with normal z_r, over
  sqrt(chi2_(R-1) / (R - 1)). For a linear statistic its quantiles are the t interval with R - 1
  degrees of freedom, where resampling three or five seeds is far too narrow. A seed is drawn for
  all settings and sizes together, as its training sets are the same and nested.
- groups: scores of resampled test groups, the same groups for every setting, size and seed, less
  their mean (see `ossicle.metrics.bootstrap` on that bias), widened alike to G - 1 degrees.

Their sum counts what seeds and groups share twice, so it errs on the wide side. It does not hold
what another pool of training clips would change.

Symbols: S settings, J sizes (ascending), R seeds, D draws, G groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ossicle.errors import DataError


def monotone(scores: ArrayLike) -> np.ndarray:
    """The nearest curves that never fall, by least squares: (..., J) -> (..., J).

    By the max-min formula (Robertson, Wright & Dykstra 1988, Order Restricted Statistical
    Inference, theorem 1.4.4): J is small, and many curves are made at once.
    """
    values = np.asarray(scores, np.float64)
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    curve = np.full(values.shape, -np.inf)
    for first in range(n):
        # Means of values[first:last] for every end; from the right, the lowest of those to come.
        means = (sums[..., first + 1 :] - sums[..., first, None]) / np.arange(1, n - first + 1)
        lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        curve[..., first:] = np.maximum(curve[..., first:], lowest)
    # Equal blocks differ by rounding alone, which must not look like a fall.
    return np.maximum.accumulate(curve, axis=-1)


def log_size(sizes: ArrayLike, curve: ArrayLike, score: ArrayLike) -> np.ndarray:
    """log of the size at which a curve first reaches a score.

    Args:
        sizes: (J,) ascending.
        curve: (..., J), never falling.
        score: (...).

    Returns:
        (...): -inf where the smallest size is above the score already, inf where none reaches it.
    """
    x, y = np.log(np.asarray(sizes, np.float64)), np.asarray(curve, np.float64)
    s = np.asarray(score, np.float64)
    last = y.shape[-1] - 1
    above = np.clip((y < s[..., None]).sum(axis=-1), 0, last)
    below = np.maximum(above - 1, 0)
    y0, y1 = (np.take_along_axis(y, i[..., None], -1)[..., 0] for i in (below, above))
    rise = y1 - y0
    part = np.divide(s - y0, rise, out=np.ones(np.shape(rise)), where=rise > 0)
    found = np.where(above > 0, x[below] + part * (x[above] - x[below]), x[0])
    return np.where(s < y[..., 0], -np.inf, np.where(s > y[..., -1], np.inf, found))


def log_ratio(sizes: ArrayLike, a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """log k, "B needs k times the data of A".

    Args:
        sizes: (J,) ascending, of both curves.
        a, b: (..., J) curves that never fall.

    Returns:
        (...): inf where B's best is not above what A has with the smallest size, -inf the other
        way round, NaN where all is flat and equal.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., 0], b[..., 0])
    high = np.minimum(a[..., -1], b[..., -1])
    height = high - low
    area = _area(sizes, b, low, high) - _area(sizes, a, low, high)
    k = np.divide(area, height, out=np.zeros(np.shape(height)), where=height > 0)
    never_b, never_a = a[..., 0] >= b[..., -1], b[..., 0] >= a[..., -1]
    k = np.where(never_b, np.inf, np.where(never_a, -np.inf, k))
    return np.where(never_a & never_b, np.nan, k)


def _area(sizes: ArrayLike, curve: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The integral of log n(s) over s from `low` to `high`, both within the curve: (...)."""
    x = np.log(np.asarray(sizes, np.float64))
    y0, y1 = curve[..., :-1], curve[..., 1:]
    s0, s1 = (np.clip(y, low[..., None], np.maximum(low, high)[..., None]) for y in (y0, y1))
    rise = y1 - y0
    slope = np.divide(np.diff(x), rise, out=np.zeros(rise.shape), where=rise > 0)
    x0, x1 = x[:-1] + (s0 - y0) * slope, x[:-1] + (s1 - y0) * slope
    total: np.ndarray = ((s1 - s0) * (x0 + x1) / 2).sum(axis=-1)
    return total


def draw_means(
    scores: ArrayLike,
    resampled: ArrayLike | None = None,
    n_groups: int = 0,
    *,
    n_draws: int = 2000,
    random_state: int = 0,
) -> np.ndarray:
    """Draws of the mean scores, as the seeds and the test groups let them vary.

    Args:
        scores: (S, J, R) score of each setting, size and seed.
        resampled: (D', S, J) mean score over the seeds in resamples of the test groups; None
            leaves the groups out.
        n_groups: G, of those resamples.
        n_draws: D.
        random_state: seed.

    Returns:
        (D, S, J). With one seed only the groups vary; with neither, all draws are alike.

    Raises:
        DataError: arrays of other shapes, or scores that are not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise DataError(f"scores must be (settings, sizes, seeds) and finite, got {values.shape}")
    n_seeds = values.shape[-1]
    generator = np.random.default_rng(random_state)
    mean = values.mean(axis=-1)
    draws = np.repeat(mean[None], n_draws, axis=0)
    if n_seeds > 1:
        z = generator.standard_normal((n_draws, n_seeds))
        z /= np.sqrt(n_seeds * (n_seeds - 1)) * _shrunk(generator, n_seeds - 1, n_draws)[:, None]
        draws += np.einsum("dr,sjr->dsj", z, values - mean[..., None])
    if resampled is None:
        return draws
    moved = np.asarray(resampled, np.float64)
    if moved.ndim != 3 or moved.shape[1:] != mean.shape:
        raise DataError(f"resampled scores are {moved.shape}, expected (draws, *{mean.shape})")
    moved = moved[np.isfinite(moved).all(axis=(1, 2))]
    if n_groups < 2 or not len(moved):
        return draws
    moved = (moved - moved.mean(axis=0)) * np.sqrt(n_groups / (n_groups - 1))
    moved = moved[generator.permutation(n_draws) % len(moved)]
    return draws + moved / _shrunk(generator, n_groups - 1, n_draws)[:, None, None]


def _shrunk(generator: np.random.Generator, degrees: int, n: int) -> np.ndarray:
    """(n,) sqrt(chi2 / degrees): a normal number over it has Student's t distribution."""
    return np.sqrt(generator.chisquare(degrees, n) / degrees)


def spread(
    values: np.ndarray, draws: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of (...) values from draws (D, ...), widened where needed to hold the values.

    Draws may be infinite; the limits then are too. NaN are left out.
    """
    tail = (1 - confidence) / 2
    ordered = np.sort(draws, axis=0)  # NaN last
    known = np.maximum((~np.isnan(draws)).sum(axis=0), 1)
    # Outward, to a draw: between two draws, of which one may be infinite, there is no value.
    lows = np.floor(tail * (known - 1)).astype(np.int64)
    highs = np.ceil((1 - tail) * (known - 1)).astype(np.int64)
    low = np.take_along_axis(ordered, lows[None], 0)[0]
    high = np.take_along_axis(ordered, highs[None], 0)[0]
    return np.fmin(low, values), np.fmax(high, values)


def needs(
    sizes: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    draws_a: np.ndarray,
    draws_b: np.ndarray,
    *,
    confidence: float = 0.95,
    n_scores: int = 5,
) -> dict[str, Any]:
    """ "B needs k times the data of A", with its interval.

    Args:
        sizes: (J,) clips to learn from, ascending; two or more.
        a, b: (J,) mean scores, higher is better.
        draws_a, draws_b: (D, J) of `draw_means`.
        confidence: coverage, between 0 and 1.
        n_scores: at how many scores of the shared height k is also told.

    Returns:
        "k", "low", "high", "open": numbers no further from 1 than `reach`, the largest size over
        the smallest; those named in "open" are bounds: "k" at `reach` is "more than", at
        1 / `reach` "less than". "k" is None where both curves are flat and equal.
        "range": the scores that both curves reach, (low, high), or None.
        "weaker": "a" or "b", whose best score is lower, "best" that score; "share", "share_low",
        "share_high", "share_open": the part of the data with which the other first reaches it.
        "at": for scores of the range: "score", "n_a", "n_b", "k", "low", "high", "open"; limits
            are for the same part of each draw's own range, as easier test groups raise both curves.
        "crossings": scores at which the curves cross; "crosses": whether the intervals at the two
        ends of the range hold that, one above 1 and one below.

    Raises:
        DataError: fewer than two sizes, or sizes that do not ascend.
    """
    n = np.asarray(sizes, np.float64)
    if n.ndim != 1 or len(n) < 2 or (np.diff(n) <= 0).any() or n[0] <= 0:
        raise DataError(f"a curve needs two ascending sizes or more, got {n.tolist()}")
    reach = float(np.log(n[-1] / n[0]))
    one, two = monotone(a), monotone(b)
    ones, twos = monotone(draws_a), monotone(draws_b)
    result = {
        "reach": float(np.exp(reach)),
        **_told(log_ratio(n, one, two), log_ratio(n, ones, twos), reach, confidence),
    }
    low, high = float(max(one[0], two[0])), float(min(one[-1], two[-1]))
    result["range"] = (low, high) if high > low else None
    result |= _share(n, (one, two), (ones, twos), reach, confidence)
    result["at"] = []
    for part in np.linspace(0, 1, n_scores) if high > low else ():
        score, x, y = _at(n, one, two, float(part))
        _, xs, ys = _at(n, ones, twos, float(part))
        told = _told(y - x, ys - xs, reach, confidence)
        there = {"score": float(score), "n_a": float(np.exp(x)), "n_b": float(np.exp(y))}
        result["at"].append({**there, **told})
    result["crossings"] = _crossings(n, one, two, low, high)
    ends = [_direction(result["at"][i]) for i in (0, -1)] if result["at"] else [0, 0]
    result["crosses"] = ends[0] * ends[1] < 0
    return result


def _at(
    n: np.ndarray, a: np.ndarray, b: np.ndarray, part: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(...) score at a part of the height that two curves share, log n_A and log n_B there.

    Where they share none, the difference of the two sizes is infinite as `log_ratio` is.
    """
    low, high = np.maximum(a[..., 0], b[..., 0]), np.minimum(a[..., -1], b[..., -1])
    # Rounding must not lift the last score above the curve.
    score = np.where(high > low, np.minimum(low + part * (high - low), high), high)
    x, y = log_size(n, a, score), log_size(n, b, score)
    return score, np.where(high > low, x, 0.0), np.where(high > low, y, log_ratio(n, a, b))


def _told(value: np.ndarray, draws: np.ndarray, reach: float, confidence: float) -> dict[str, Any]:
    """k, its limits, and which of the three are bounds, from logarithms."""
    if np.isnan(value):
        return {"k": None, "low": None, "high": None, "open": []}
    low, high = spread(value, draws, confidence)
    numbers = {"k": float(value), "low": float(low), "high": float(high)}
    return {
        **{name: float(np.exp(np.clip(x, -reach, reach))) for name, x in numbers.items()},
        "open": [name for name, x in numbers.items() if not np.isfinite(x)],
    }


def _direction(told: Mapping[str, Any]) -> int:
    """1 where k is above 1 beyond its interval, -1 below, 0 not told."""
    if told["k"] is None:
        return 0
    return int(told["low"] > 1) - int(told["high"] < 1)


def _share(
    n: np.ndarray,
    curves: tuple[np.ndarray, np.ndarray],
    draws: tuple[np.ndarray, np.ndarray],
    reach: float,
    confidence: float,
) -> dict[str, Any]:
    """With which part of the data the better setting reaches the best score of the weaker one."""
    weak = int(curves[1][-1] < curves[0][-1])
    best = curves[weak][-1]
    value = log_size(n, curves[1 - weak], best) - np.log(n[-1])
    moved = log_size(n, draws[1 - weak], draws[weak][:, -1]) - np.log(n[-1])
    low, high = spread(value, moved, confidence)
    numbers = {"share": float(value), "share_low": float(low), "share_high": float(high)}
    return {
        "weaker": "ab"[weak],
        "best": float(best),
        **{name: float(np.exp(np.clip(x, -reach, 0.0))) for name, x in numbers.items()},
        "share_open": [name for name, x in numbers.items() if not np.isfinite(x)],
    }


def _crossings(n: np.ndarray, a: np.ndarray, b: np.ndarray, low: float, high: float) -> list[float]:
    """The scores at which one curve passes the other, ascending."""
    gap, x = a - b, np.log(n)
    found = []
    signed = np.flatnonzero(gap)
    for i, j in itertools.pairwise(signed):
        if gap[i] * gap[j] < 0:
            at = x[i] + (x[j] - x[i]) * gap[i] / (gap[i] - gap[j]) if j == i + 1 else x[i + 1]
            score = float(np.interp(at, x, a))
            if low < score < high:
                found.append(score)
    return found
