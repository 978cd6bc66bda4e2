"""How much more data: curves of known k, scipy's isotonic regression, Student's t, and limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import t as student

from ossicle.errors import DataError
from ossicle.study.size_curve import draw_means, log_ratio, log_size, monotone, needs, spread

SIZES = np.array([30.0, 60.0, 120.0, 210.0, 300.0])


def _law(n):
    return 1 - 1.5 * n**-0.4


def _told(a, b, seeds=5, noise=0.0, random_state=0, n_draws=1000):
    """`needs` of two (J,) truths, measured with noise by some seeds."""
    generator = np.random.default_rng(random_state)
    means = np.stack([a, b])
    scores = means[..., None] + noise * generator.normal(size=(*means.shape, seeds))
    draws = draw_means(scores, n_draws=n_draws, random_state=random_state)
    one, two = scores.mean(axis=-1)
    return needs(SIZES, one, two, draws[:, 0], draws[:, 1])


def test_monotone_is_isotonic_regression():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(40, 6)) + np.linspace(0, 1, 6)
    own = monotone(scores)
    for row, curve in zip(scores, own, strict=True):
        np.testing.assert_allclose(curve, isotonic_regression(row).x, atol=1e-12)
    assert (np.diff(own, axis=1) >= 0).all()
    np.testing.assert_allclose(monotone(own), own, atol=1e-12)


def test_size_of_a_score_undoes_interpolation():
    curve = np.array([0.2, 0.5, 0.5, 0.6, 0.9])
    sizes = np.array([30.0, 47.0, 60.0, 215.0, 299.0, 300.0])
    scores = np.interp(np.log(sizes), np.log(SIZES), curve)
    found = np.exp(log_size(SIZES, np.tile(curve, (6, 1)), scores))
    # All of 60 to 120 score alike: 60 is the first to.
    np.testing.assert_allclose(found, [30, 47, 60, 215, 299, 300])
    assert log_size(SIZES, curve, np.array(0.19)) == -np.inf
    assert log_size(SIZES, curve, np.array(0.91)) == np.inf


@pytest.mark.parametrize("k", [0.25, 0.5, 1.0, 1.7, 4.0])
def test_shifted_straight_curves_have_exactly_that_factor(k):
    a, b = 0.1 * np.log(SIZES), 0.1 * np.log(SIZES / k)
    told = _told(a, b)
    assert told["k"] == pytest.approx(k)
    assert [at["k"] for at in told["at"]] == pytest.approx([k] * 5)
    assert told["range"] == pytest.approx((max(a[0], b[0]), min(a[-1], b[-1])))
    assert told["weaker"] == ("b" if k > 1 else "a" if k < 1 else told["weaker"])
    assert told["share"] == pytest.approx(min(k, 1 / k))
    assert told["open"] == [] and told["crossings"] == [] and not told["crosses"]


def test_the_mean_over_scores_is_that_of_a_fine_grid():
    generator = np.random.default_rng(1)
    for _ in range(20):
        a, b = np.sort(generator.random((2, 5)), axis=1)
        low, high = max(a[0], b[0]), min(a[-1], b[-1])
        # Midpoints of 20,000 scores, each curve read by numpy's interpolation of its inverse.
        scores = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
        x = np.interp(scores, a, np.log(SIZES)), np.interp(scores, b, np.log(SIZES))
        assert log_ratio(SIZES, a, b) == pytest.approx(np.mean(x[1] - x[0]), abs=1e-4)


def test_curves_of_a_power_law_come_close():
    for k in (1.5, 2.0, 4.0):
        told = _told(_law(SIZES), _law(SIZES / k))
        assert told["k"] == pytest.approx(k, rel=0.03)


def test_swapping_turns_the_factor_over():
    for random_state in range(5):
        truth = _law(SIZES), _law(SIZES / 1.6)
        scores = np.stack(truth)[..., None] + 0.02 * np.random.default_rng(random_state).normal(
            size=(2, 5, 4)
        )
        draws = draw_means(scores, n_draws=400, random_state=random_state)
        one, two = scores.mean(axis=-1)
        there = needs(SIZES, one, two, draws[:, 0], draws[:, 1])
        back = needs(SIZES, two, one, draws[:, 1], draws[:, 0])
        for name, other in (("k", "k"), ("low", "high"), ("high", "low")):
            assert there[name] == pytest.approx(1 / back[other])
        assert there["share"] == pytest.approx(back["share"])
        assert {there["weaker"], back["weaker"]} == {"a", "b"}


def test_a_curve_that_never_gets_there_gives_a_bound():
    told = _told(_law(SIZES), np.linspace(0.1, 0.2, 5), noise=0.001)
    assert told["reach"] == pytest.approx(10)
    assert told["k"] == pytest.approx(10) and told["open"] == ["k", "low", "high"]
    assert told["range"] is None and told["at"] == []
    assert told["share"] == pytest.approx(0.1) and "share" in told["share_open"]
    other = _told(np.linspace(0.1, 0.2, 5), _law(SIZES), noise=0.001)
    assert other["k"] == pytest.approx(0.1) and other["open"] == ["k", "low", "high"]


def test_an_interval_that_ends_outside_the_sizes_says_so():
    # B's best is A's first within the noise: k is near the bound, its upper limit beyond.
    told = _told(_law(SIZES), _law(SIZES / 9.0), seeds=4, noise=0.03)
    assert 5 < told["k"] <= 10
    assert told["high"] == pytest.approx(10) and "high" in told["open"]
    assert "low" not in told["open"] and told["low"] > 2


def test_flat_and_equal_curves_say_nothing():
    told = _told(np.full(5, 0.5), np.full(5, 0.5))
    assert told["k"] is None and told["open"] == []


def test_crossing_curves_are_told():
    a = np.linspace(0.2, 0.9, 5)
    b = np.linspace(0.4, 0.7, 5)
    told = _told(a, b, noise=0.002)
    at = np.flatnonzero(np.diff(np.sign(a - b)))[0]
    assert len(told["crossings"]) == 1
    assert a[at] - 0.01 <= told["crossings"][0] <= a[at + 1] + 0.01
    assert told["crosses"]
    assert told["at"][0]["k"] < 1 < told["at"][-1]["k"]
    assert not _told(a, a - 0.05, noise=0.002)["crosses"]


def test_the_draws_of_a_mean_are_students():
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(1, 1, 4))
    draws = draw_means(scores, n_draws=60_000)[:, 0, 0]
    error = scores.std(ddof=1) / 2
    for share in (0.025, 0.2, 0.5, 0.9, 0.975):
        expected = scores.mean() + error * student.ppf(share, 3)
        assert np.mean(draws < expected) == pytest.approx(share, abs=0.006)


def test_the_draws_of_groups_are_as_wide_as_the_mean_of_groups_is_uncertain():
    generator = np.random.default_rng(4)
    groups = generator.normal(size=12)
    # A score whose resamples lie higher than itself, as those of average precision do.
    resampled = groups[generator.integers(12, size=(4000, 12))].mean(axis=1) + 0.5
    draws = draw_means(np.full((1, 1, 1), groups.mean()), resampled[:, None, None], 12)
    low, high = spread(np.array([[groups.mean()]]), draws)
    half = student.ppf(0.975, 11) * groups.std(ddof=1) / np.sqrt(12)
    assert high[0, 0] - groups.mean() == pytest.approx(half, rel=0.12)
    assert groups.mean() - low[0, 0] == pytest.approx(half, rel=0.12)


def test_settings_share_their_seeds_and_groups():
    """What raises both curves alike leaves no trace in the factor."""
    generator = np.random.default_rng(5)
    luck = 0.1 * generator.normal(size=(1, 1, 4))
    truth = np.stack([0.1 * np.log(SIZES), 0.1 * np.log(SIZES / 2)])
    moved = truth + 0.1 * generator.normal(size=(300, 1, 1))
    draws = draw_means(truth[..., None] + luck, moved, 30)
    one, two = truth + luck.mean()
    told = needs(SIZES, one, two, draws[:, 0], draws[:, 1])
    assert (told["low"], told["high"]) == pytest.approx((2, 2))
    assert np.ptp(draws[:, 0, 0]) > 0.1


@pytest.mark.parametrize(("k", "seeds"), [(1.0, 3), (2.0, 3), (2.0, 5), (4.0, 5)])
def test_intervals_cover_the_true_factor(k, seeds):
    trials = 100
    held = 0
    for trial in range(trials):
        told = _told(_law(SIZES), _law(SIZES / k), seeds, 0.012, trial, n_draws=300)
        held += told["low"] <= k <= told["high"]
    # 95 % less three standard errors of so many trials.
    assert held / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_a_limit_beyond_the_draws_is_infinite_not_missing():
    draws = np.array([0.0, 1.0, np.inf, np.nan, np.inf])
    low, high = spread(np.array(1.0), draws)
    assert low == 0.0 and high == np.inf


def test_what_cannot_be_used_is_refused():
    flat = np.zeros(3)
    with pytest.raises(DataError, match="two ascending sizes"):
        needs([10], flat[:1], flat[:1], flat[None, :1], flat[None, :1])
    with pytest.raises(DataError, match="ascending"):
        needs([10, 10, 20], flat, flat, flat[None], flat[None])
    with pytest.raises(DataError, match="settings, sizes, seeds"):
        draw_means(np.full((1, 2, 3), np.nan))
    with pytest.raises(DataError, match="resampled"):
        draw_means(np.zeros((1, 2, 3)), np.zeros((5, 2, 2)), 4)
