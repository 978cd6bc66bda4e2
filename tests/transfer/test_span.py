"""Coordinates in the clips' span keep what a linear model can see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.preprocessing import StandardScaler

from ossicle.transfer.span import Span, linear_decisions


@pytest.fixture(params=[(20, 7), (20, 2500)], ids=["narrow", "wide"], name="X")
def _features(request):
    generator = np.random.default_rng(0)
    n, d = request.param
    features = generator.normal(size=(n, d)) * generator.uniform(0.01, 50, d) + 3
    features[:, 2] = 7.3
    return features


def test_standardised_as_scikit_learn(X):
    Z = StandardScaler().fit_transform(X)
    Z[:, 2] = 0.0
    span = Span(X)
    np.testing.assert_allclose(span.gram(), Z @ Z.T, atol=1e-8)
    np.testing.assert_allclose(
        np.concatenate([block for _, block in span.blocks()], axis=1), Z, atol=1e-9
    )


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_columns_count_for_nothing(value, dtype):
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    X[:, 1] = value
    assert (Span(X).inverse_scale == 0).tolist() == [False, True, False]


def test_coordinates_keep_distances_and_lift_back(X):
    span = Span(X)
    C = span.coordinates()
    Z = StandardScaler().fit_transform(X)
    Z[:, 2] = 0.0
    assert C.shape[1] <= max(7, 20)
    np.testing.assert_allclose(cdist(C, C), cdist(Z, Z), atol=1e-5)
    w, b = np.random.default_rng(1).normal(size=(C.shape[1], 2)), np.array([1.0, -2.0])
    weight, bias = span.unscale(span.lift(w), b)
    np.testing.assert_allclose(linear_decisions(X, weight, bias), C @ w + b, atol=1e-6)


def test_products_with_other_clips(X):
    scaler = StandardScaler().fit(X)
    other = np.random.default_rng(3).normal(size=(4, X.shape[1]))
    other[:, 2] = 99.0  # a column that was constant says nothing about new clips
    Z, T = scaler.transform(X), scaler.transform(other)
    Z[:, 2] = T[:, 2] = 0.0
    products, squares = Span(X).cross(other)
    np.testing.assert_allclose(products, T @ Z.T, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(squares, (T**2).sum(axis=1))
