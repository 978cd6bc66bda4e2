"""Closed-form leave-group-out against fitting again without each group, by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from ossicle.transfer.ridge_path import RidgePath, choose_penalty

GROUPS = {
    "folds": lambda n: np.arange(n) % 5,
    "blocks": lambda n: np.searchsorted([1, 3, 6, 7, 14, 18, 19, 20], np.arange(n), side="right"),
    "singles": lambda n: np.arange(n),
    "halves": lambda n: (np.arange(n) < n // 2).astype(int),
}


def _problem(n, d, weighted, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, d)) * generator.uniform(0.1, 30, d) + generator.normal(size=d)
    Y = X[:, :2] @ generator.normal(size=(2, 3)) / 10 + generator.normal(size=(n, 3)) + 2.0
    weight = generator.uniform(0.2, 4, n) if weighted else None
    return X, Y, weight


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(30, 8), (30, 200), (60, 4)])
@pytest.mark.parametrize("penalty", [1e-2, 30.0])
def test_held_out_equals_fitting_again(groups, weighted, n, d, penalty):
    X, Y, weight = _problem(n, d, weighted)
    folds = GROUPS[groups](n)
    path = RidgePath(X, Y, weight)
    closed = path.held_out(penalty, folds)
    # Standardised once with all clips, without a label; weights count relative to their mean.
    Z = StandardScaler().fit_transform(X)
    w = np.ones(n) if weight is None else weight / weight.mean()
    again = np.empty_like(Y)
    for fold in np.unique(folds):
        out = folds == fold
        model = Ridge(alpha=penalty, solver="svd").fit(Z[~out], Y[~out], sample_weight=w[~out])
        again[out] = model.predict(Z[out])
    np.testing.assert_allclose(closed, again, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(30, 8), (30, 1500)])
def test_coefficients_are_those_of_ridge(weighted, n, d):
    X, Y, weight = _problem(n, d, weighted)
    w, b = RidgePath(X, Y, weight).coefficients(5.0)
    scaler = StandardScaler().fit(X)
    sample_weight = None if weight is None else weight / weight.mean()
    model = Ridge(alpha=5.0).fit(scaler.transform(X), Y, sample_weight=sample_weight)
    new = np.random.default_rng(1).normal(size=(7, d))
    np.testing.assert_allclose(new @ w.T + b, model.predict(scaler.transform(new)), atol=1e-7)


def test_wide_float32_features_stay_accurate():
    generator = np.random.default_rng(0)
    X = (generator.normal(size=(80, 3000)) * 5 + 100).astype(np.float32)
    Y = generator.normal(size=(80, 2))
    folds = np.arange(80) // 4
    single = RidgePath(X, Y).held_out(300.0, folds)
    double = RidgePath(X.astype(np.float64), Y).held_out(300.0, folds)
    np.testing.assert_allclose(single, double, atol=2e-3)


def test_downdated_moments_equal_blocks(monkeypatch):
    X, Y, weight = _problem(200, 6, True)
    folds = np.arange(200) // 50
    path = RidgePath(X, Y, weight)
    downdated = path.held_out(2.0, folds)
    called = []
    monkeypatch.setattr(path, "_refitted", lambda *a: called.append(a))
    path.held_out(2.0, folds)
    assert called  # folds of 50 with 6 dimensions take the other way
    path.A = np.zeros((200, 500))
    np.testing.assert_allclose(path.held_out(2.0, folds), downdated, atol=1e-9)


def test_plain_leave_one_out_is_fooled_by_groups_and_leave_group_out_is_not():
    # Every group has a colour of its own in many dimensions: the recorder, not the sound.
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    y = (np.arange(20) % 2)[groups]
    colour = generator.normal(size=(20, 60))[groups]
    X = np.c_[colour, y + generator.normal(size=200)] + 0.1 * generator.normal(size=(200, 61))
    Y = 2.0 * y[:, None] - 1

    def loss(predicted):
        return float(np.mean((Y - predicted) ** 2))

    path = RidgePath(X, Y)
    alone, _, alone_losses = choose_penalty(path, np.arange(200), loss)
    grouped, _, grouped_losses = choose_penalty(path, groups, loss)
    assert grouped > 3 * alone
    assert min(alone_losses.values()) < 0.2 < 0.5 < min(grouped_losses.values())


def test_choice_finds_the_minimum_between_the_coarse_steps():
    X, Y, _ = _problem(40, 10, False)
    path = RidgePath(X, Y)
    folds = np.arange(40) % 5
    grid = np.logspace(-3, 3, 13)
    losses = [np.mean((Y - path.held_out(a * path.scale, folds)) ** 2) for a in grid]
    penalty, predicted, tried = choose_penalty(
        path, folds, lambda p: float(np.mean((Y - p) ** 2)), grid
    )
    assert penalty == pytest.approx(grid[np.argmin(losses)] * path.scale)
    assert np.mean((Y - predicted) ** 2) == pytest.approx(min(losses))
    assert len(tried) < len(grid)
