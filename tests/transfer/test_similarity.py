"""Distances between sets of features against closed forms, slow definitions and limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.preprocessing import StandardScaler

from ossicle.errors import DataError
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.problem import FeatureError
from ossicle.transfer.similarity import (
    PENALTIES,
    _rounds,
    frechet_distance,
    frechet_of_moments,
    kernel_distance,
    proxy_a_distance,
)


def _sets(n, d, shift=0.0, seed=0):
    generator = np.random.default_rng(seed)
    X, Y = generator.normal(size=(2, n, d))
    return X, 1.3 * Y + shift


def _covariance(d, seed):
    A = np.random.default_rng(seed).normal(size=(d + 2, d))
    return A.T @ A / d


def _by_sqrtm(m1, S1, m2, S2):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = sqrtm(S1 @ S2)
    return float(np.sum((m1 - m2) ** 2) + np.trace(S1 + S2 - 2 * root.real))


def test_frechet_of_one_dimension_and_of_diagonals():
    # (m1 - m2)^2 + (s1 - s2)^2
    assert frechet_of_moments(1.0, 4.0, -2.0, 9.0) == pytest.approx(10)
    generator = np.random.default_rng(0)
    m1, m2, s1, s2 = generator.uniform(0.1, 3, (4, 6))
    closed = np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2)
    assert frechet_of_moments(m1, np.diag(s1**2), m2, np.diag(s2**2)) == pytest.approx(closed)


def test_frechet_is_that_of_the_matrix_root():
    S1, S2 = _covariance(8, 0), _covariance(8, 1)
    m1, m2 = np.random.default_rng(2).normal(size=(2, 8))
    value = frechet_of_moments(m1, S1, m2, S2)
    assert value == pytest.approx(_by_sqrtm(m1, S1, m2, S2), abs=1e-9)
    assert frechet_of_moments(m2, S2, m1, S1) == pytest.approx(value)
    assert frechet_of_moments(m1, S1, m1, S1) == pytest.approx(0, abs=1e-12)
    # Gaussians on lines at right angles: nothing is shared. The product's root is 0.
    flat1, flat2 = np.diag([2.0, 0, 0]), np.diag([0, 3.0, 0])
    assert frechet_of_moments(np.zeros(3), flat1, np.zeros(3), flat2) == pytest.approx(5)


@pytest.mark.parametrize("d", [3, 45])
def test_plain_frechet_distance_is_that_of_the_sample_moments(d):
    X, Y = _sets(40, d, 0.5)
    found = frechet_distance(X, Y, extrapolate=False)
    moments = [m for Z in (X, Y) for m in (Z.mean(axis=0), np.cov(Z.T))]
    # The root of a singular product is known to half the digits only.
    assert found.value == pytest.approx(_by_sqrtm(*moments), rel=1e-9 if d < 40 else 1e-4)
    assert found.value == pytest.approx(frechet_of_moments(*moments), rel=1e-9)
    assert found.low < found.value < found.high
    assert found.n_clips == 40


def test_products_and_columns_give_the_same():
    """Columns of nothing take the way by the products of clips."""
    X, Y = _sets(60, 5, 0.3)
    wide = [np.pad(Z, ((0, 0), (0, 80))) for Z in (X, Y)]
    for extrapolate in (False, True):
        a = frechet_distance(X, Y, extrapolate=extrapolate)
        b = frechet_distance(*wide, extrapolate=extrapolate)
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_frechet_of_a_set_from_itself_is_nothing():
    X, _ = _sets(50, 4)
    assert frechet_distance(X, X, extrapolate=False).value == pytest.approx(0, abs=1e-9)


def test_extrapolation_takes_the_bias_away():
    """Two sets of N(0, I), and two of known distance: (1.3 - 1)^2 d + |shift|^2."""
    plain, line, known = [], [], []
    for seed in range(30):
        X, Y = np.random.default_rng(seed).normal(size=(2, 200, 8))
        plain.append(frechet_distance(X, Y, extrapolate=False).value)
        line.append(frechet_distance(X, Y).value)
        known.append(frechet_distance(*_sets(200, 8, 0.5, seed)).value)
    assert np.mean(plain) > 0.15
    assert abs(np.mean(line)) < 0.1 * np.mean(plain)
    error = np.std(known) / np.sqrt(len(known))
    assert abs(np.mean(known) - 8 * (0.3**2 + 0.5**2)) < 3 * error


def test_frechet_interval_covers_the_truth():
    truth, hits = 6 * (0.3**2 + 0.5**2), 0
    for seed in range(40):
        found = frechet_distance(*_sets(120, 6, 0.5, seed))
        hits += found.low <= truth <= found.high
    # 95 % of 40; 33 or fewer would have a chance below 1 in 1000.
    assert hits >= 34


def test_within_is_what_no_difference_looks_like():
    X, Y = np.random.default_rng(1).normal(size=(2, 80, 60))
    same = frechet_distance(X, Y)
    # Too few clips for 60 dimensions: the line fails, and `within` says so.
    assert same.within > 0.5 * same.value > 1
    far = frechet_distance(*_sets(400, 4, 3.0))
    assert abs(far.within) < 0.02 * far.value


def test_kernel_distance_is_its_definition():
    X, Y = _sets(15, 4, 0.4)
    found = kernel_distance(X, Y)
    K, L, C = (
        polynomial_kernel(a, b, degree=3, gamma=1 / 4, coef0=1) for a, b in ((X, X), (Y, Y), (X, Y))
    )
    off = ~np.eye(15, dtype=bool)
    assert found.value == pytest.approx(K[off].mean() + L[off].mean() - 2 * C.mean())
    # Pairs of one group are left out.
    groups = np.arange(15) // 3
    apart = groups[:, None] != groups[None]
    named = [[f"{side}{g}" for g in groups] for side in "ab"]
    grouped = kernel_distance(X, Y, source_groups=named[0], target_groups=named[1])
    assert grouped.value == pytest.approx(K[apart].mean() + L[apart].mean() - 2 * C.mean())


def test_kernel_distance_is_without_bias_and_its_interval_covers():
    values, covered = [], 0
    for seed in range(200):
        X, Y = np.random.default_rng(seed).normal(size=(2, 20, 6))
        found = kernel_distance(X, Y)
        values.append(found.value)
        covered += found.low <= 0 <= found.high
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert covered >= 180
    assert kernel_distance(*_sets(60, 6, 1.0)).low > 0


def test_kernel_distance_does_not_take_recordings_for_difference():
    """Ten recordings of six clips each on either side, from one distribution."""
    naive, honest = [], []
    groups = [np.repeat([f"{side}{g}" for g in range(10)], 6) for side in "ab"]
    for seed in range(60):
        generator = np.random.default_rng(seed)
        X, Y = np.repeat(generator.normal(size=(2, 10, 5)), 6, axis=1)
        naive.append(kernel_distance(X, Y).value)
        honest.append(kernel_distance(X, Y, source_groups=groups[0], target_groups=groups[1]).value)
    assert np.mean(naive) > 3 * np.std(naive) / np.sqrt(60)
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(60)


@pytest.mark.parametrize("m", range(3, 9))
def test_rounds_pair_every_two_folds_once(m):
    rounds = _rounds(m)
    pairs = sorted(tuple(sorted(p)) for one in rounds for p in one if p[0] != p[1])
    assert pairs == [(a, b) for a in range(m) for b in range(a + 1, m)]
    assert all(sorted({f for p in one for f in p}) == list(range(m)) for one in rounds)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [12, 90])
def test_proxy_a_distance_is_nested_cross_validation(d, seed, grouped):
    """Ridge by scikit-learn, fitted anew for every two folds left out and every penalty."""
    X, Y = _sets(30, d, 0.2, seed)
    Z = StandardScaler().fit_transform(np.concatenate([X, Y]))
    side = np.repeat([-1.0, 1.0], 30)
    # Lopsided: most folds have more of one side, so that their training parts have less of it.
    groups = [
        np.repeat(["a", "b", "c", "d"], [12, 8, 6, 4]),
        np.repeat(["e", "f", "g"], [15, 9, 6]),
    ]
    named = dict(zip(("source_groups", "target_groups"), groups, strict=True)) if grouped else {}
    both = np.unique(np.concatenate(groups), return_inverse=True)[1] if grouped else None
    folds = inner_folds((side > 0).astype(int), both, n_folds=6, random_state=0)
    numbers = range(folds.max() + 1)
    scale = np.mean(np.sum(Z**2, axis=1))

    def right(penalty, train, test):
        model = Ridge(alpha=penalty * scale).fit(Z[train], side[train])
        return (model.predict(Z[test]) - side[train].mean()) * side[test] > 0

    hits = []
    for fold in numbers:
        misses = [0] * len(PENALTIES)
        for other in set(numbers) - {fold}:
            train = (folds != fold) & (folds != other)
            if len(set(side[train])) == 2:
                for i, penalty in enumerate(PENALTIES):
                    misses[i] += np.sum(~right(penalty, train, folds == other))
        chosen = max(i for i, miss in enumerate(misses) if miss == min(misses))
        hits.append(right(PENALTIES[chosen], folds != fold, folds == fold))
    found = proxy_a_distance(X, Y, **named)
    assert found.value == pytest.approx(2 * (1 - 2 * (1 - np.mean(np.concatenate(hits)))))
    assert found.low <= found.value <= found.high


def test_proxy_a_distance_at_its_limits():
    far = proxy_a_distance(*_sets(50, 6, 20.0))
    assert far.value == far.high == 2
    assert 1.5 < far.low < 2
    halves = [
        proxy_a_distance(*np.random.default_rng(s).normal(size=(2, 60, 6))).value for s in range(20)
    ]
    assert abs(np.mean(halves)) < 3 * np.std(halves) / np.sqrt(20)


def test_proxy_a_distance_does_not_take_recordings_for_difference():
    """Two halves of one set, each of ten recordings whose clips are next to alike."""
    naive, honest = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        centres = np.repeat(generator.normal(size=(2, 10, 40)), 6, axis=1)
        X, Y = centres + 0.05 * generator.normal(size=centres.shape)
        groups = [[f"{side}{i // 6}" for i in range(60)] for side in "ab"]
        naive.append(proxy_a_distance(X, Y).value)
        honest.append(
            proxy_a_distance(X, Y, source_groups=groups[0], target_groups=groups[1]).value
        )
    assert np.mean(naive) > 1.9
    assert abs(np.mean(honest)) < 0.5


def test_both_sides_count_as_many_clips_and_draws_repeat():
    X, _ = _sets(90, 4)
    _, Y = _sets(50, 4, 1.0, seed=1)
    for measure in (proxy_a_distance, frechet_distance, kernel_distance):
        first = measure(X, Y, random_state=3)
        assert first.n_clips == 50
        assert measure(X, Y, random_state=3) == first
        assert measure(X, Y, random_state=4) != first
        assert measure(X, Y, max_clips=24).n_clips == 24
        # float32 differs by its rounding alone.
        single = measure(X.astype(np.float32), Y.astype(np.float32), random_state=3)
        assert single.value == pytest.approx(first.value, rel=1e-4)


X40, Y40 = _sets(40, 3)
BAD = {
    "NaN": (lambda f: f(X40, np.where(Y40 > 1, np.inf, Y40)), "target features of clip"),
    "dimensions": (lambda f: f(X40, Y40[:, :2]), "3 dimensions, target features 2"),
    "few": (lambda f: f(X40, Y40[:5]), "too few"),
    "lengths": (lambda f: f(X40, Y40, target_groups=["a"]), "groups of 1"),
    "shape": (lambda f: f(X40[0], Y40), "source features have shape (3,)"),
}


@pytest.mark.parametrize("measure", [proxy_a_distance, frechet_distance, kernel_distance])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name, measure):
    call, words = BAD[name]
    with pytest.raises(FeatureError) as error:
        call(measure)
    assert isinstance(error.value, DataError)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_groups_are_told():
    two = np.repeat(["a", "b"], 20)
    with pytest.raises(FeatureError, match="source clips are of fewer than 3 groups"):
        proxy_a_distance(X40, Y40, source_groups=two)
    with pytest.raises(FeatureError, match="at least 3"):
        proxy_a_distance(X40, Y40, n_folds=2)
    with pytest.raises(FeatureError, match="one group"):
        kernel_distance(X40, Y40, source_groups=["a"] * 40)
    # One group has no spread to tell an interval by.
    found = frechet_distance(X40, Y40, source_groups=["a"] * 40)
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high, found.within]).all()


def test_moments_that_are_none_are_told():
    with pytest.raises(FeatureError, match="below 0"):
        frechet_of_moments([0, 0], np.diag([1, -1]), [0, 0], np.eye(2))
    with pytest.raises(FeatureError, match="not symmetric"):
        frechet_of_moments([0, 0], [[1, 0.5], [0, 1]], [0, 0], np.eye(2))
    with pytest.raises(FeatureError, match="covariances \\(2, 2\\)"):
        frechet_of_moments([0, 0], np.eye(3), [0, 0], np.eye(2))
    with pytest.raises(FeatureError, match="NaN"):
        frechet_of_moments([0, np.nan], np.eye(2), [0, 0], np.eye(2))
