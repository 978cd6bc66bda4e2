"""Temperatures and sigmoids against general-purpose minimisers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, log_softmax

from ossicle.transfer.calibrate import calibrate, probabilities


def _classes(n=200, k=4, seed=0):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, k, n)
    targets = np.eye(k)[y]
    return generator.normal(size=(n, k)) + 1.5 * targets, targets, generator.uniform(0.5, 2, n)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_temperature_is_the_minimum(scale):
    decisions, targets, weight = _classes()
    n, k = targets.shape
    smoothed = (n * targets + 1) / (n + k)
    w = weight / weight.sum()

    def loss(log_t):
        return -(w @ (smoothed * log_softmax(np.exp(log_t) * decisions, axis=1)).sum(axis=1))

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    found = calibrate(decisions * scale, targets, weight, "classes")
    np.testing.assert_allclose(found.slope * scale, np.exp(best.x), rtol=1e-4)
    assert found.loss == pytest.approx(best.fun, rel=1e-8)
    assert not found.offset.any()


def test_sigmoids_are_the_minimum_for_each_label():
    generator = np.random.default_rng(1)
    targets = (generator.random((300, 3)) < [0.5, 0.1, 0.02]).astype(float)
    decisions = 40 + generator.normal(size=(300, 3)) + 2 * targets
    found = calibrate(decisions, targets, np.ones(300), "multilabel")
    total = 0.0
    for j in range(3):
        positive = targets[:, j].sum()
        high, low = (positive + 1) / (positive + 2), 1 / (300 - positive + 2)
        wanted = np.where(targets[:, j] > 0, high, low)
        s = decisions[:, j] - 40

        def loss(ab, s=s, wanted=wanted):
            z = ab[0] * s + ab[1]
            return -np.mean(wanted * log_expit(z) + (1 - wanted) * log_expit(-z))

        best = minimize(
            loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}
        )
        total += best.fun / 3
        logits = found.logits(decisions)[:, j]
        np.testing.assert_allclose(logits, best.x[0] * s + best.x[1], atol=1e-4)
    assert found.loss == pytest.approx(total, rel=1e-6)


def test_separated_decisions_stay_finite():
    targets = np.eye(3)[np.arange(30) % 3]
    found = calibrate(targets * 2 - 1, targets, np.ones(30), "classes")
    p = probabilities(found.logits(targets * 2 - 1), "classes")
    assert np.isfinite(found.slope).all()
    assert 0.9 < p[targets > 0].min() < 1.0
    labels = calibrate(targets * 2 - 1, targets, np.ones(30), "multilabel")
    assert np.isfinite(labels.slope).all()


def test_decisions_that_point_the_wrong_way_say_the_rate():
    generator = np.random.default_rng(0)
    targets = (generator.random((100, 1)) < 0.3).astype(float)
    found = calibrate(
        -targets + 0.1 * generator.normal(size=(100, 1)), targets, np.ones(100), "multilabel"
    )
    p = probabilities(found.logits(np.array([[-1.0], [1.0]])), "multilabel")
    np.testing.assert_allclose(p, (targets.sum() + 1) / 102, atol=1e-6)
    wrong = calibrate(
        -np.eye(2)[np.arange(10) % 2], np.eye(2)[np.arange(10) % 2], np.ones(10), "classes"
    )
    assert (wrong.slope > 0).all()  # never turns the order of the classes round


def test_constant_decisions():
    targets = np.eye(3)[np.arange(9) % 3]
    found = calibrate(np.zeros((9, 3)), targets, np.ones(9), "classes")
    assert found.loss == pytest.approx(np.log(3))


def test_folded_calibration_is_the_same_network():
    decisions, targets, weight = _classes()
    generator = np.random.default_rng(2)
    W, b, X = generator.normal(size=(4, 6)), generator.normal(size=4), generator.normal(size=(5, 6))
    for task in ("classes", "multilabel"):
        found = calibrate(decisions, targets, weight, task)
        folded, bias = found.fold(W, b)
        np.testing.assert_allclose(X @ folded.T + bias, found.logits(X @ W.T + b))
