"""How far a target's clips lie from a source's, by the features of both.

Three measures that need no labels: how well a linear classifier tells the two apart, the distance
of Gaussians fitted to them, and the maximum mean discrepancy under a cubic kernel. All take as many
clips from either side, because their number sways the first two, and all have an interval.

Axes: n clips of each side, d dimensions, B blocks of clips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr, svdvals
from scipy.stats import t

from ossicle.metrics.bootstrap import group_codes, mean_interval
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.problem import FeatureError
from ossicle.transfer.ridge_path import RidgePath
from ossicle.transfer.transferability import as_features, gram

PENALTIES = np.logspace(-3, 1, 5)  # relative to the mean squared norm of a clip
N_BLOCKS = 10  # of the jackknife
PARTS = (1, 2, 3, 4)  # into how many the clips are dealt for the extrapolation
MIN_CLIPS = 8


class Distance(NamedTuple):
    """A distance, its confidence interval, and how many clips of each side it was measured on."""

    value: float
    low: float
    high: float
    n_clips: int


class Frechet(NamedTuple):
    """A `Distance`, and the same between two halves of one side: what no difference looks like."""

    value: float
    low: float
    high: float
    n_clips: int
    within: float


class _Sides(NamedTuple):
    """As many clips of the source as of the target; groups are numbered over both."""

    both: tuple[np.ndarray, np.ndarray]
    groups: np.ndarray  # (2 n,): the source's, then the target's
    grouped: bool


def proxy_a_distance(
    source: ArrayLike,
    target: ArrayLike,
    *,
    source_groups: Any = None,
    target_groups: Any = None,
    n_folds: int = 6,
    max_clips: int = 500,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Distance:
    """How well a linear classifier tells source from target: 2 (1 - 2 error), on clips not heard.

    Ben-David, Blitzer, Crammer, Pereira, "Analysis of representations for domain adaptation", NIPS
    2006 (in the proceedings of 2007), section 4. The classifier is a ridge on standardised
    features, fitted without the groups that it is tested on; for each test fold the penalty is the
    one with the smallest error on the other folds, by models that have heard neither fold.

    Args:
        source, target: (n, d), (n', d) features.
        source_groups, target_groups: (n,), (n',) recording, speaker or site of each clip; a name
            on both sides is one group. None: clips are independent.
        n_folds: at least 3; fewer are made where groups are few.
        max_clips: clips of each side at most; drawn at random.
        confidence: of the interval, by the bootstrap over groups.
        random_state: seed of the draw, the folds and the bootstrap.

    Returns:
        0: the two cannot be told apart, 2: always. Chance can put it below 0 a little. The interval
        is for these classifiers on other clips: fitted anew on others they vary somewhat more.

    Raises:
        FeatureError: NaN, dimensions or lengths that differ, too few clips or groups.
    """
    if n_folds < 3:
        raise FeatureError(f"n_folds = {n_folds}: at least 3, as the penalty is chosen inside")
    sides = _sides(source, target, source_groups, target_groups, max_clips, random_state)
    n = len(sides.both[0])
    X, domain = np.concatenate(sides.both), np.repeat([0, 1], n)
    for name, mine in (("source", sides.groups[:n]), ("target", sides.groups[n:])):
        if len(np.unique(mine)) < 3:
            raise FeatureError(f"the {name} clips are of fewer than 3 groups: none can be held out")
    groups = sides.groups if sides.grouped else None
    folds = inner_folds(domain, groups, n_folds=n_folds, random_state=random_state)
    m = int(folds.max()) + 1
    held = np.bincount(2 * folds + domain, minlength=2 * m).reshape(m, 2)
    if m < 3 or (held == n).any():
        raise FeatureError(
            "one fold would hold all clips of one side: the groups are too few or too unequal"
        )
    path = RidgePath(X, np.where(domain, 1.0, -1.0)[:, None])

    def correct(penalty: float, merged: np.ndarray) -> np.ndarray:
        """(2 n,) whether each clip is told by the model fitted without its fold of `merged`."""
        left = n - np.stack([np.bincount(merged, domain == side)[merged] for side in (0, 1)])
        # Where one side is rarer in training, the threshold follows, else chance looks like worse.
        middle = (left[1] - left[0]) / left.sum(axis=0)
        decision = path.held_out(penalty * path.scale, merged)[:, 0] - middle
        return np.where(domain, decision > 0, decision < 0)

    wrong = np.zeros((len(PENALTIES), m))
    for pairs in _rounds(m):
        merged = np.zeros(m, np.int64)
        for number, (a, b) in enumerate(pairs):
            merged[a] = merged[b] = number
        for i, penalty in enumerate(PENALTIES):
            miss = np.bincount(folds, ~correct(penalty, merged[folds]), minlength=m)
            for a, b in pairs:
                if a != b and not (held[a] + held[b] == n).any():
                    wrong[i, a] += miss[b]
                    wrong[i, b] += miss[a]
    # Of equals the strongest penalty.
    best = len(PENALTIES) - 1 - np.argmin(wrong[::-1], axis=0)
    hit = np.zeros(2 * n)
    for i in np.unique(best):
        mine = best[folds] == i
        hit[mine] = correct(PENALTIES[i], folds)[mine]
    low, high = mean_interval(
        hit, groups=sides.groups, confidence=confidence, random_state=random_state
    )
    return Distance(4 * float(hit.mean()) - 2, 4 * low - 2, 4 * high - 2, n)


def frechet_of_moments(
    mean1: ArrayLike, cov1: ArrayLike, mean2: ArrayLike, cov2: ArrayLike
) -> float:
    """The squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). Dowson and Landau 1982, "The Frechet distance
    between multivariate normal distributions". The last trace is the sum of the singular values of
    A1 A2^T for any A1, A2 with A^T A = S, so that no matrix root of a product is taken, which is
    unstable where S1 S2 is near singular.

    Args:
        mean1, mean2: (d,) means.
        cov1, cov2: (d, d) covariances, symmetric, no eigenvalue below 0.

    Returns:
        0 (equal) or more, in the square of the features' unit.

    Raises:
        FeatureError: shapes that do not fit, NaN, covariances that are none.
    """
    means = [np.atleast_1d(np.asarray(mean, np.float64)) for mean in (mean1, mean2)]
    covariances = [np.atleast_2d(np.asarray(cov, np.float64)) for cov in (cov1, cov2)]
    d = len(means[0])
    if any(m.shape != (d,) for m in means) or any(c.shape != (d, d) for c in covariances):
        raise FeatureError(f"means of {d} values need covariances ({d}, {d}), both sides alike")
    if not all(np.isfinite(a).all() for a in (*means, *covariances)):
        raise FeatureError("means or covariances hold NaN or infinity")
    roots = []
    for covariance in covariances:
        values, vectors = np.linalg.eigh(covariance)
        skew = np.abs(covariance - covariance.T).max()
        if max(skew, -values[0]) > 1e-6 * np.abs(values).max():
            raise FeatureError("a covariance is not symmetric or has an eigenvalue below 0")
        roots.append(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)
    traces = sum(np.trace(covariance) for covariance in covariances)
    gap = float(np.sum((means[0] - means[1]) ** 2))
    return max(0.0, gap + float(traces - 2 * svdvals(roots[0] @ roots[1].T).sum()))


def frechet_distance(
    source: ArrayLike,
    target: ArrayLike,
    *,
    extrapolate: bool = True,
    source_groups: Any = None,
    target_groups: Any = None,
    max_clips: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Frechet:
    """The squared Frechet distance of Gaussians fitted to the features of both sides.

    On embeddings of audio this is the Frechet audio distance of Kilgour, Zuluaga, Roblek, Sharifi,
    "Frechet audio distance: a reference-free metric for evaluating music enhancement algorithms",
    Interspeech 2019. Few clips make it too large, by about c / n with a c that depends on the data.
    Extrapolated, it is measured on all clips, and on the average over halves, thirds and quarters;
    the line through them in 1 / n is read off at 0 (Chong and Forsyth, "Effectively unbiased FID
    and inception score and where to find them", CVPR 2020, section 4, there with random sizes).
    The line holds only where n is several times the number of dimensions that matter: look at
    `within`, which should be next to nothing beside the value. If not, use `kernel_distance`.

    Args:
        source, target: (n, d), (n', d) features; d may exceed n. Not standardised: columns that
            vary more count more.
        extrapolate: False takes the plain, biased distance.
        source_groups, target_groups: as for `proxy_a_distance`.
        max_clips: clips of each side at most; drawn at random.
        confidence: of the interval, by the jackknife over blocks of whole groups.
        random_state: seed of the draw, the parts and the blocks.

    Returns:
        At least 0, in the features' unit squared; extrapolated, chance can put it below.

    Raises:
        FeatureError: NaN, dimensions or lengths that differ, fewer than 20 clips of a side.
    """
    sides = _sides(source, target, source_groups, target_groups, max_clips, random_state, 20)
    n, d = sides.both[0].shape
    measure = (_by_products if d > n else _by_columns)(np.concatenate(sides.both))
    parts = PARTS if extrapolate else (1,)

    def estimate(i: np.ndarray, j: np.ndarray) -> float:
        """The distance of clips i from clips j, numbered over both sides; NaN for too few."""
        if min(len(i), len(j)) < 2 * parts[-1]:
            return float("nan")
        generator = np.random.default_rng(random_state)
        values = []
        for p in parts:
            deals = [np.array_split(generator.permutation(rows), p) for rows in (i, j)]
            values.append(np.mean([measure(a, b) for a, b in zip(*deals, strict=True)]))
        return float(np.polyfit(parts, values, 1)[1] if len(parts) > 1 else values[0])

    blocks, rows = _blocks(sides.groups, n, random_state), np.arange(2 * n)
    value = estimate(rows[:n], rows[n:])
    left = [rows[blocks != b] for b in range(int(blocks.max()) + 1)]
    without = [estimate(kept[kept < n], kept[kept >= n]) for kept in left]
    # Whole groups in either half, else halves of one recording would be next to alike.
    even = blocks % 2 == 0
    halves = [(side[even[side]], side[~even[side]]) for side in (rows[:n], rows[n:])]
    within = float(np.mean([estimate(*half) for half in halves]))
    low, high = _jackknife(value, np.array(without), confidence)
    return Frechet(value, low if extrapolate else max(low, 0.0), high, n, within)


def kernel_distance(
    source: ArrayLike,
    target: ArrayLike,
    *,
    source_groups: Any = None,
    target_groups: Any = None,
    max_clips: int = 2000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Distance:
    """The squared maximum mean discrepancy under k(x, y) = (x y / d + 1)^3, without bias.

    The kernel inception distance of Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs",
    ICLR 2018, section 4, on the features given: the mean of k over pairs within the source, plus
    that within the target, less twice that across. Pairs of a clip with itself, and of clips of one
    group, are left out, so that the expectation is 0 for sets of one distribution whatever n is.

    Args:
        source, target: (n, d), (n', d) features; their scale matters, as the kernel's 1 is fixed.
        source_groups, target_groups: as for `proxy_a_distance`.
        max_clips: clips of each side at most; drawn at random.
        confidence: of the interval, by the jackknife over blocks of whole groups.
        random_state: seed of the draw and the blocks.

    Returns:
        Any number; 0 on average for equal distributions.

    Raises:
        FeatureError: NaN, dimensions or lengths that differ, too few clips or groups.
    """
    sides = _sides(source, target, source_groups, target_groups, max_clips, random_state)
    n, d = sides.both[0].shape
    blocks = _blocks(sides.groups, n, random_state)
    member = np.eye(int(blocks.max()) + 1)[blocks]
    sums, counts = [], []
    for a, b in ((0, 0), (1, 1), (0, 1)):
        rows, columns = slice(a * n, (a + 1) * n), slice(b * n, (b + 1) * n)
        kernel = gram(sides.both[a], None if a == b else sides.both[b])
        kernel /= d
        kernel += 1
        kernel *= kernel * kernel
        apart = sides.groups[rows, None] != sides.groups[None, columns]
        kernel *= apart
        sums.append(member[rows].T @ kernel @ member[columns])
        counts.append(member[rows].T @ apart.astype(np.float64) @ member[columns])
    if not all(count.any() for count in counts):
        raise FeatureError("all clips of a side are of one group: there are no pairs to compare")

    def discrepancy(kept: np.ndarray) -> float:
        """Over the blocks `kept` (B,)."""
        pick = np.ix_(kept, kept)
        means = [s[pick].sum() / c[pick].sum() for s, c in zip(sums, counts, strict=True)]
        return float(means[0] + means[1] - 2 * means[2])

    value = discrepancy(np.ones(member.shape[1], bool))
    without = [discrepancy(~lacking) for lacking in np.eye(member.shape[1], dtype=bool)]
    return Distance(value, *_jackknife(value, np.array(without), confidence), n)


def _sides(
    source: ArrayLike,
    target: ArrayLike,
    source_groups: Any,
    target_groups: Any,
    max_clips: int,
    random_state: int,
    least: int = MIN_CLIPS,
) -> _Sides:
    X, Y = as_features(source, "source features"), as_features(target, "target features")
    if X.shape[1] != Y.shape[1]:
        raise FeatureError(
            f"source features have {X.shape[1]} dimensions, target features {Y.shape[1]}: "
            "take both from the same layers of the same network"
        )
    n = min(len(X), len(Y), max_clips)
    if n < least:
        raise FeatureError(f"{n} clips of a side are too few: at least {least} are needed")
    names: list[Any] = []
    for Z, groups, side in ((X, source_groups, "source"), (Y, target_groups, "target")):
        given = [None] * len(Z) if groups is None else list(groups)
        if len(given) != len(Z):
            raise FeatureError(f"{side} features of {len(Z)} clips, groups of {len(given)}")
        names += given
    codes, _ = group_codes(names, len(names))
    generator = np.random.default_rng(random_state)
    i, j = (np.sort(generator.permutation(len(Z))[:n]) for Z in (X, Y))
    groups = np.unique(codes[np.concatenate([i, len(X) + j])], return_inverse=True)[1].ravel()
    return _Sides((X[i], Y[j]), groups, source_groups is not None or target_groups is not None)


def _rounds(m: int) -> list[list[tuple[int, int]]]:
    """Every pair of m folds once, in rounds in which every fold has one partner (or itself)."""
    odd = m - 1 + m % 2
    rounds = []
    for turn in range(odd):
        pairs = [(a, (turn - a) % odd) for a in range(odd)]
        # Who would be its own partner takes the last fold, if there is one left.
        rounds.append([(a, m - 1 if a == b and odd < m else b) for a, b in pairs if a <= b])
    return rounds


def _by_columns(X: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """Frechet distance of rows i of (m, d) features from rows j, for d <= n."""
    centred = X - X.mean(axis=0, dtype=np.float64)

    def measure(i: np.ndarray, j: np.ndarray) -> float:
        means, roots = [], []
        for A in (centred[i], centred[j]):
            means.append(A.mean(axis=0))
            root = (A - means[-1]) / np.sqrt(len(A) - 1)
            # Only root^T root counts: d rows serve as well as n.
            roots.append(qr(root, mode="r", check_finite=False)[0][: A.shape[1]])
        within = sum(float(np.sum(root**2)) for root in roots)
        across = svdvals(roots[0] @ roots[1].T, check_finite=False).sum()
        return max(0.0, float(np.sum((means[0] - means[1]) ** 2)) + within - 2 * float(across))

    return measure


def _by_products(X: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """The same from scalar products of clips, which are computed once, for d > n."""
    products = gram(X, centre=True)

    def measure(i: np.ndarray, j: np.ndarray) -> float:
        K, L, C = (products[np.ix_(a, b)] for a, b in ((i, i), (j, j), (i, j)))
        within = sum((np.trace(P) - len(P) * P.mean()) / (len(P) - 1) for P in (K, L))
        gap = K.mean() + L.mean() - 2 * C.mean()
        C += C.mean() - C.mean(axis=0) - C.mean(axis=1)[:, None]
        across = svdvals(C, check_finite=False).sum() / np.sqrt((len(i) - 1) * (len(j) - 1))
        return max(0.0, float(gap + within - 2 * across))

    return measure


def _blocks(groups: np.ndarray, n: int, random_state: int) -> np.ndarray:
    """(2 n,) block of each clip: whole groups, dealt evenly on either side."""
    generator = np.random.default_rng(random_state)
    block = np.full(int(groups.max()) + 1, -1)
    sides = np.unique(groups[:n]), np.unique(groups[n:])
    number = min(N_BLOCKS, *map(len, sides))
    for mine in sides:
        fresh = generator.permutation(mine[block[mine] < 0])
        block[fresh] = np.arange(len(fresh)) % number
    return np.unique(block[groups], return_inverse=True)[1].ravel()


def _jackknife(value: float, without: np.ndarray, confidence: float) -> tuple[float, float]:
    """The t interval from B estimates that each lack a block (Efron and Tibshirani 1993, 11)."""
    blocks = len(without)
    if blocks < 2:
        return float("nan"), float("nan")
    error = np.sqrt((blocks - 1) / blocks * np.sum((without - without.mean()) ** 2))
    reach = float(t.ppf((1 + confidence) / 2, blocks - 1) * error)
    return value - reach, value + reach
