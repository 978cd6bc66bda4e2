"""Measures of transferability against slow definitions, published numbers and limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import f_oneway, multivariate_normal
from sklearn.covariance import ledoit_wolf, ledoit_wolf_shrinkage
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import BayesianRidge

from ossicle.errors import DataError
from ossicle.transfer.problem import FeatureError
from ossicle.transfer.transferability import h_score, leep, linear_cka, log_me, nce


def _problem(n, d, k=3, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(n) % k
    X = generator.normal(size=(n, d)) * generator.uniform(0.3, 3, d)
    X[:, : min(d, k)] += 1.5 * np.eye(k)[y][:, : min(d, k)]
    return X, y


def _entropy(y):
    share = np.unique(y, return_counts=True)[1] / len(y)
    return float(-np.sum(share * np.log(share)))


def _brute_evidence(X, y):
    """The largest log density of y under N(0, X X^T / a + I / b), per clip, by search over a, b."""
    n = len(y)

    def loss(logs):
        cov = X @ X.T * np.exp(-logs[0]) + np.eye(n) * np.exp(-logs[1])
        return -multivariate_normal(np.zeros(n), cov).logpdf(y) / n

    starts = [(a, b) for a in (-4.0, 0.0, 4.0, 9.0) for b in (-2.0, 2.0, 5.0)]
    options = {"xatol": 1e-7, "fatol": 1e-12, "maxiter": 4000}
    return -min(
        minimize(loss, s, method="Nelder-Mead", options=options).fun
        for s in sorted(starts, key=loss)[:3]
    )


@pytest.mark.parametrize(("n", "d"), [(24, 4), (15, 15), (12, 40)])
def test_log_me_is_the_largest_marginal_likelihood(n, d):
    X, y = _problem(n, d)
    slow = np.mean([_brute_evidence(X, (y == c).astype(float)) for c in range(3)])
    assert log_me(X, y) == pytest.approx(slow, abs=1e-6)


def test_log_me_is_the_evidence_that_bayesian_ridge_ends_with():
    X, y = _problem(400, 30)
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    settings = {"fit_intercept": False, "compute_score": True, "max_iter": 3000, "tol": 1e-10}
    ends = [
        BayesianRidge(**flat, **settings).fit(X, (y == c) * 1.0).scores_[-1] / 400 for c in range(3)
    ]
    assert log_me(X, y) == pytest.approx(np.mean(ends), abs=1e-7)


def test_log_me_of_numbers_and_of_labels():
    X, _ = _problem(20, 6, seed=1)
    generator = np.random.default_rng(2)
    numbers = X[:, 0] - 2 * X[:, 1] + generator.normal(size=20)
    assert log_me(X, numbers, task="regression") == pytest.approx(
        _brute_evidence(X, numbers), abs=1e-6
    )
    labels = (generator.random((20, 2)) < 0.4).astype(int)
    slow = np.mean([_brute_evidence(X, column) for column in labels.T.astype(float)])
    assert log_me(X, labels, task="multilabel") == pytest.approx(slow, abs=1e-6)
    # What all or no clips have does not count.
    more = np.column_stack([labels, np.zeros(20), np.ones(20)])
    assert log_me(X, more, task="multilabel") == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("d", [5, 60])
def test_log_me_does_not_depend_on_rotation_or_a_common_factor(d):
    X, y = _problem(30, d)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    assert log_me(1e4 * X @ rotation, y) == pytest.approx(log_me(X, y), abs=1e-7)
    # Columns of nothing add nothing, though they make the features wider than the clips.
    padded = np.pad(X, ((0, 0), (0, 50)))
    assert log_me(padded, y) == pytest.approx(log_me(X, y), abs=1e-7)
    assert log_me(X.astype(np.float32), y) == pytest.approx(log_me(X, y), abs=1e-5)


def test_log_me_orders_and_stays_finite():
    X, y = _problem(300, 16)
    noise = np.random.default_rng(3).normal(size=(300, 16))
    assert log_me(X, y) > log_me(noise, y)
    # Features that say nothing leave white noise: the density of y under N(0, mean of y^2).
    zero = np.zeros((300, 2))
    third = multivariate_normal(np.zeros(300), np.eye(300) / 3).logpdf((y == 0) * 1.0) / 300
    assert log_me(zero, y) == pytest.approx(third)
    exact = log_me(np.eye(3)[y], y)
    assert np.isfinite(exact)
    assert exact > log_me(X, y)


def _slow_leep(theta, y):
    n, z = theta.shape
    joint = {(c, s): 0.0 for c in set(y) for s in range(z)}
    for i in range(n):
        for s in range(z):
            joint[y[i], s] += theta[i, s] / n
    total = 0.0
    for i in range(n):
        chance = 0.0
        for s in range(z):
            marginal = sum(joint[c, s] for c in set(y))
            chance += theta[i, s] * joint[y[i], s] / marginal if marginal else 0.0
        total += np.log(chance) / n
    return total


def test_leep_is_its_definition():
    generator = np.random.default_rng(0)
    theta = generator.dirichlet([0.3] * 5, size=40)
    theta[:, 3] = 0
    theta /= theta.sum(axis=1, keepdims=True)
    y = generator.choice(["a", "b", "c"], 40)
    assert leep(theta, y) == pytest.approx(_slow_leep(theta, y), abs=1e-12)
    assert -_entropy(y) <= leep(theta, y) <= 0


def test_leep_at_its_limits():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    assert leep(np.full((100, 4), 0.25), y) == pytest.approx(-_entropy(y))
    assert leep(np.eye(7)[y + 2], y) == pytest.approx(0, abs=1e-12)
    # Hard probabilities: LEEP is NCE.
    source = np.random.default_rng(0).integers(0, 4, 100)
    assert leep(np.eye(4)[source], y) == pytest.approx(nce(source, y))


def test_nce_is_its_definition_and_its_limits():
    generator = np.random.default_rng(1)
    z, y = generator.integers(0, 4, 200), generator.integers(0, 3, 200)
    slow = 0.0
    for s in range(4):
        for c in range(3):
            both = np.mean((z == s) & (y == c))
            slow += both * np.log(both / np.mean(z == s)) if both else 0.0
    assert nce(z, y) == pytest.approx(slow)
    assert nce(z, z % 2) == 0
    assert nce(np.zeros(200), y) == pytest.approx(-_entropy(y))
    assert nce(np.arange(200), y) == 0


def test_h_score_is_the_trace_of_its_definition():
    X, y = _problem(60, 5, k=4)
    means = np.stack([X[y == c].mean(axis=0) for c in y])
    S, B = np.cov(X.T, bias=True), np.cov(means.T, bias=True)
    assert h_score(X, y, shrinkage=0) == pytest.approx(np.trace(np.linalg.solve(S, B)))
    shrunk, share = ledoit_wolf(X)
    slow = np.trace(np.linalg.solve(shrunk, (1 - share) * B))
    assert h_score(X, y) == pytest.approx(slow)
    assert h_score(X, y, shrinkage=float(share)) == pytest.approx(slow)


def test_h_score_is_known_from_elsewhere():
    X, y = _problem(90, 4)
    # One column: the correlation ratio, which the F test knows.
    f = f_oneway(*(X[y == c, 0] for c in range(3))).statistic
    assert h_score(X[:, :1], y, shrinkage=0) == pytest.approx(f * 2 / (f * 2 + 87))
    # Several: the squared canonical correlations with the classes.
    a, b = CCA(2, max_iter=10000, tol=1e-12).fit_transform(X, np.eye(3)[y][:, :2])
    squared = sum(np.corrcoef(a[:, i], b[:, i])[0, 1] ** 2 for i in range(2))
    assert h_score(X, y, shrinkage=0) == pytest.approx(squared, abs=1e-5)


def test_h_score_of_wide_features():
    X, y = _problem(30, 200)
    shrunk, share = ledoit_wolf(X)
    means = np.stack([X[y == c].mean(axis=0) for c in y])
    slow = np.trace(np.linalg.solve(shrunk, (1 - share) * np.cov(means.T, bias=True)))
    assert h_score(X, y) == pytest.approx(slow, rel=1e-9)
    assert share == pytest.approx(ledoit_wolf_shrinkage(X))
    # Without shrinkage any wide features separate everything.
    noise = np.random.default_rng(0).normal(size=(30, 200))
    assert h_score(noise, y, shrinkage=0) == pytest.approx(2)
    assert h_score(X, y) > h_score(noise, y)
    assert h_score(np.full((30, 200), 0.1), y) == 0


def test_linear_cka_has_the_published_numbers():
    """Demo.ipynb of google-research/representation_similarity prints 0.55761 and 0.51346."""
    random = np.random.RandomState(1337)
    X = random.randn(100, 10)
    Y = random.randn(100, 10) + X
    assert linear_cka(X, Y) == pytest.approx(0.55761, abs=5e-6)
    assert linear_cka(X, Y, debiased=True) == pytest.approx(0.51346, abs=5e-6)


@pytest.mark.parametrize("debiased", [False, True])
def test_linear_cka_is_its_definition_on_either_side(debiased):
    X, _ = _problem(20, 6)
    Y = np.random.default_rng(5).normal(size=(20, 9)) + X[:, :1]
    K, L = X @ X.T, Y @ Y.T

    def hsic(P, Q):
        n = len(P)
        if not debiased:
            H = np.eye(n) - 1 / n
            return np.trace(P @ H @ Q @ H)
        P, Q, one = P - np.diag(np.diag(P)), Q - np.diag(np.diag(Q)), np.ones(n)
        product = (one @ P @ one) * (one @ Q @ one) / ((n - 1) * (n - 2))
        return np.trace(P @ Q) + product - 2 / (n - 2) * (one @ P @ Q @ one)

    slow = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert linear_cka(X, Y, debiased=debiased) == pytest.approx(slow)
    # Columns of nothing take the way by the clips' products.
    wide = np.pad(Y, ((0, 0), (0, 30)))
    assert linear_cka(X, wide, debiased=debiased) == pytest.approx(slow)


@pytest.mark.parametrize("d", [6, 80])
def test_linear_cka_does_not_see_rotation_scale_or_offset(d):
    X, _ = _problem(40, d)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    for debiased in (False, True):
        assert linear_cka(X, 7 * X @ rotation + 3, debiased=debiased) == pytest.approx(1)
    stretched = X * np.arange(1, d + 1)
    assert linear_cka(X, stretched) < 0.99


def test_plain_cka_of_wide_noise_is_near_one_and_debiased_near_zero():
    generator = np.random.default_rng(0)
    X, Y = generator.normal(size=(2, 30, 3000))
    assert linear_cka(X, Y) > 0.9
    values = [linear_cka(*generator.normal(size=(2, 30, 300)), debiased=True) for _ in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40)


X20, Y20 = _problem(20, 3)
BAD = {
    "NaN": (lambda: log_me(np.where(X20 > 2, np.nan, X20), Y20), "NaN or infinity"),
    "lengths": (lambda: log_me(X20, Y20[:-1]), "labels of 19 clips, where 20"),
    "one class": (lambda: h_score(X20, np.zeros(20)), "nothing to tell apart"),
    "no label": (lambda: nce(Y20, [None, *Y20[1:]]), "without a label"),
    "fractions": (lambda: log_me(X20, Y20 / 2), "fractions"),
    "task": (lambda: log_me(X20, Y20, task="tags"), "task 'tags'"),
    "not 0/1": (lambda: log_me(X20, X20, task="multilabel"), "0 or 1"),
    "constant": (lambda: log_me(X20, np.ones(20), task="regression"), "the same for all"),
    "one axis": (lambda: log_me(X20[:, 0], Y20), "shape (20,)"),
    "words": (lambda: log_me([["a", "b"]], [0]), "not numbers"),
    "logits": (lambda: leep(X20, Y20), "must sum to 1"),
    "sources": (lambda: nce(Y20[:-1], Y20), "labels of 20 clips, where 19"),
    "shrinkage": (lambda: h_score(X20, Y20, shrinkage=2), "shrinkage 2"),
    "other clips": (lambda: linear_cka(X20, X20[1:]), "pass the same clips"),
    "few": (lambda: linear_cka(X20[:3], X20[:3]), "at least 4"),
    "flat": (lambda: linear_cka(X20, np.full((20, 4), 0.1)), "second features do not vary"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name):
    call, words = BAD[name]
    with pytest.raises(FeatureError) as error:
        call()
    assert isinstance(error.value, DataError)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
