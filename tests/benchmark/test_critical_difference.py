"""Ranks against SciPy's Friedman test, a slow Holm, and a critical difference worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from ossicle.benchmark.critical_difference import draw_ranks, ranks
from ossicle.errors import DataError


@pytest.fixture
def scores():
    generator = np.random.default_rng(3)
    quality = np.array([0.9, 0.88, 0.6, 0.58, 0.3])
    return quality[:, None] + generator.normal(0, 0.04, (5, 16))


def test_mean_ranks_count_from_the_best_and_share_ties():
    scores = np.array([[0.9, 0.5], [0.9, 0.7], [0.1, 0.6]])
    assert ranks(scores)["mean_ranks"].tolist() == [(1.5 + 3) / 2, (1.5 + 1) / 2, (3 + 2) / 2]


def test_friedman_p_is_that_of_scipys_statistic_in_f_form(scores):
    from scipy.stats import f

    a, t = scores.shape
    chi2 = friedmanchisquare(*scores).statistic
    # Demsar (2006), section 3.2.2: F = (N - 1) chi2 / (N (k - 1) - chi2).
    statistic = (t - 1) * chi2 / (t * (a - 1) - chi2)
    expected = f.sf(statistic, a - 1, (a - 1) * (t - 1))
    assert ranks(scores)["friedman_p"] == pytest.approx(expected, rel=1e-9)


def test_friedman_of_ties_only_finds_nothing():
    assert ranks(np.ones((4, 6)))["friedman_p"] == 1.0


def test_friedman_of_one_order_everywhere_is_certain():
    assert ranks(np.arange(4.0)[:, None] + np.zeros((4, 6)))["friedman_p"] == 0.0


def test_critical_difference_is_demsars_for_four_classifiers_on_fourteen_sets():
    # Demsar (2006), table 5a: q = 2.569 for four classifiers at .05.
    expected = 2.569 * np.sqrt(4 * 5 / (6 * 14))
    found = ranks(np.random.default_rng(0).random((4, 14)))["critical_difference"]
    assert found == pytest.approx(expected, abs=5e-4)


def test_pairwise_p_values_are_wilcoxons_after_holm(scores):
    p = ranks(scores)["p_values"]
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    raw = sorted((wilcoxon(scores[i] - scores[j]).pvalue, i, j) for i, j in pairs)
    worst = 0.0
    for place, (value, i, j) in enumerate(raw):
        worst = max(worst, min(1.0, value * (len(raw) - place)))
        assert p[i, j] == p[j, i] == pytest.approx(worst)


def test_bars_join_those_alike_and_only_those(scores):
    cliques = {frozenset(clique) for clique in ranks(scores)["cliques"]}
    assert cliques == {frozenset({0, 1}), frozenset({2, 3})}


def test_noise_is_one_bar():
    noise = np.random.default_rng(1).random((4, 12))
    (clique,) = ranks(noise)["cliques"]
    assert sorted(clique) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.ones((1, 5)), "two rows"), (np.array([[1.0, np.nan], [0.5, 0.5]]), "every row")],
)
def test_what_cannot_be_ranked_is_refused(scores, message):
    with pytest.raises(DataError, match=message):
        ranks(scores)


def test_picture_names_every_row(scores):
    names = [f"network {i}" for i in range(5)]
    figure = draw_ranks(names, ranks(scores))
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(name in texts for name in names)
