"""Isotonic calibration: scikit-learn's fit, an order that stays, tables that strangers may send."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from ossicle.calibrated import MAX_KNOTS, CalibrationTable
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.reliability import calibration_error, log_loss
from ossicle.transfer.isotonic import check_calibration, fit_isotonic, recalibrate
from ossicle.transfer.probe import create_probe


def overconfident(n: int, seed: int = 0, k: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, k) probabilities that are too sharp, (n,) classes, and the true probabilities."""
    rng = np.random.default_rng(seed)
    z = 1.2 * rng.normal(size=(n, k))
    true = softmax(z, axis=1)
    return softmax(3 * z, axis=1), np.array([rng.choice(k, p=row) for row in true]), true


def test_labels_get_scikit_learns_map_but_for_its_ends():
    rng = np.random.default_rng(1)
    p = rng.random((400, 3))
    y = (rng.random((400, 3)) < p**2).astype(float)
    table = fit_isotonic(p, y, np.ones(400), "multilabel")
    for k in range(3):
        theirs = IsotonicRegression(out_of_bounds="clip").fit(p[:, k], y[:, k])
        reached = theirs.predict(p[:, k])
        zeros = int((reached == 0).sum())
        low = 1 / (zeros + 2) if zeros else reached.min()
        ones = int((reached == 1).sum())
        high = (ones + 1) / (ones + 2) if ones else reached.max()
        inside = (reached > low) & (reached < high)
        assert inside.sum() > 200
        np.testing.assert_allclose(table(p)[inside, k], reached[inside], atol=0.03)
        assert table(p)[:, k].max() <= max(high, reached[reached < 1].max()) + 1e-12


def test_it_mends_what_is_too_sure():
    p, y, _ = overconfident(4000)
    fitted = fit_isotonic(p[:2000], np.eye(4)[y[:2000]], np.ones(2000), "classes")
    held, truth = p[2000:], y[2000:]
    mended = fitted(held)

    def error(q):
        return calibration_error(q.max(axis=1), q.argmax(axis=1) == truth)

    assert error(held) > 0.15
    assert error(mended) < 0.05
    assert log_loss(np.eye(4)[truth], mended).mean() < log_loss(np.eye(4)[truth], held).mean() - 0.3


@pytest.mark.parametrize("k", [2, 4])
def test_the_order_of_classes_stays(k):
    p, y, _ = overconfident(500, seed=2, k=k)
    table = fit_isotonic(p, np.eye(k)[y], np.ones(500), "classes")
    mended = table(p)
    assert (mended.argsort(axis=1) == p.argsort(axis=1)).all()
    np.testing.assert_allclose(mended.sum(axis=1), 1)
    assert (mended > 0).all()


def test_weights_are_repeated_clips():
    p, y, _ = overconfident(200, seed=3)
    weight = np.random.default_rng(0).integers(1, 4, 200)
    again = np.repeat(np.arange(200), weight)
    a = fit_isotonic(p, np.eye(4)[y], weight.astype(float), "classes")
    b = fit_isotonic(p[again], np.eye(4)[y[again]], np.ones(len(again)), "classes")
    # The ends count answers, so that they may differ; between them the maps are one.
    low, high = max(t.maps[0][1][0] for t in (a, b)), min(t.maps[0][1][-1] for t in (a, b))
    at = np.linspace(0, 1, 500)
    first, second = (np.clip(np.interp(at, *t.maps[0]), low, high) for t in (a, b))
    between = (first > low) & (first < high) & (second > low) & (second < high)
    assert between.sum() > 200
    np.testing.assert_allclose(first[between], second[between], atol=1e-9)


def test_shares_of_none_and_all_stay_below_certainty():
    p = np.linspace(0.01, 0.99, 40)[:, None]
    y = (p > 0.5).astype(float)
    table = fit_isotonic(p, y, np.ones(40), "multilabel")
    # 20 of 20 wrong, 20 of 20 right.
    np.testing.assert_allclose(table(np.array([[0.0], [1.0]]))[:, 0], [1 / 22, 21 / 22])


def test_a_large_table_is_thinned_out_and_stays_near():
    rng = np.random.default_rng(4)
    p = rng.random((40_000, 1))
    y = (rng.random((40_000, 1)) < p).astype(float)
    table = fit_isotonic(p, y, np.ones(len(p)), "multilabel")
    whole = IsotonicRegression(out_of_bounds="clip").fit(p[:, 0], y[:, 0])
    assert len(table.maps[0][0]) <= MAX_KNOTS
    assert np.abs(table(p)[:, 0] - whole.predict(p[:, 0])).mean() < 0.01


def test_json_gives_the_same_table_back():
    p, y, _ = overconfident(300, seed=5)
    table = fit_isotonic(p, np.eye(4)[y], np.ones(300), "classes")
    text = json.dumps(table.to_json(), allow_nan=False)
    back = CalibrationTable.from_json(json.loads(text), "classes", 4)
    np.testing.assert_array_equal(back(p), table(p))
    assert back(p.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(back(p[0]), back(p)[0])
    for nothing in (None, {"kind": "temperature"}, {"kind": "none"}):
        assert CalibrationTable.from_json(nothing, "classes", 4) is None


GOOD = {"x": [0.0, 0.5, 1.0], "y": [0.1, 0.4, 0.4]}


@pytest.mark.parametrize(
    "knots",
    [
        {"x": [0.0, 0.5, 0.5], "y": [0, 0, 0]},
        {"x": [0.0, 0.5, 0.4], "y": [0, 0, 0]},
        {"x": [0.0, 0.5, 1.0], "y": [0.5, 0.4, 0.6]},
        {"x": [0.0, 0.5, 1.5], "y": [0, 0, 0]},
        {"x": [0.0, 0.5, 1.0], "y": [0, 0, float("nan")]},
        {"x": [0.0, 0.5, 1.0], "y": [-1, 0, 0]},
        {"x": [0.0, 0.5], "y": [0, 0, 0]},
        {"x": [], "y": []},
        {"x": [True, 0.5, 1.0], "y": [0, 0, 0]},
        {"x": ["0", 0.5, 1.0], "y": [0, 0, 0]},
        {"x": "0.1", "y": [0, 0, 0]},
        {"x": list(np.linspace(0, 1, MAX_KNOTS + 1)), "y": [0.5] * (MAX_KNOTS + 1)},
        {"x": [0.0]},
        {},
        [],
        3,
    ],
)
def test_tables_that_are_none_are_refused(knots):
    assert CalibrationTable.from_json({"kind": "isotonic", "maps": [GOOD]}, "classes", 3)
    with pytest.raises(OssicleError, match="calibration"):
        CalibrationTable.from_json({"kind": "isotonic", "maps": [knots]}, "classes", 3)


@pytest.mark.parametrize(
    ("value", "task"),
    [
        ({"kind": "isotonic", "maps": [GOOD]}, "multilabel"),
        ({"kind": "isotonic", "maps": [GOOD] * 3}, "classes"),
        ({"kind": "isotonic", "maps": GOOD}, "classes"),
        ({"kind": "isotonic"}, "classes"),
        ({"kind": "\x1b[2J", "maps": [GOOD]}, "classes"),
        ({"maps": [GOOD]}, "classes"),
        ("isotonic", "classes"),
        ({"kind": "isotonic", "maps": [GOOD]}, "regression"),
    ],
)
def test_tables_of_another_task_are_refused(value, task):
    with pytest.raises(OssicleError) as caught:
        CalibrationTable.from_json(value, task, 3)
    assert "\x1b" not in str(caught.value)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(6)
    y = np.repeat(np.arange(3), 40)
    X = rng.normal(size=(3, 8))[y] + 1.5 * rng.normal(size=(120, 8))
    return X, y, np.repeat(np.arange(30), 4)


def test_recalibrating_a_probe(problem):
    X, y, groups = problem
    probe = create_probe("ridge").fit(X, y, groups=groups)
    before, decided = probe.predict_proba(X), probe._decide(X)
    held_out = probe.held_out_proba_
    assert recalibrate(probe, "temperature", y) is None
    np.testing.assert_array_equal(probe.predict_proba(X), before)

    table = recalibrate(probe, "isotonic", y)
    np.testing.assert_array_equal(probe.predict_proba(X), before)
    again = fit_isotonic(held_out, np.eye(3)[y], np.ones(120), "classes")
    np.testing.assert_array_equal(table(before), again(before))

    assert recalibrate(probe, "none", y) is None
    np.testing.assert_allclose(probe.predict_proba(X), softmax(decided, axis=1))
    weight, bias = probe.linear_head()
    np.testing.assert_allclose(X @ weight.T + bias, decided, atol=1e-4)


def test_held_out_answers_without_calibration_are_those_of_the_decisions(problem):
    X, y, groups = problem
    probe = create_probe("ridge").fit(X, y, groups=groups)
    fitted, held_out = probe.calibration_, probe.held_out_proba_
    recalibrate(probe, "none", y)
    # The temperature of these gives the answers that there were before.
    logits = np.log(probe.held_out_proba_) * fitted.slope
    np.testing.assert_allclose(softmax(logits, axis=1), held_out, atol=1e-9)


def test_labels_are_recalibrated_one_by_one(problem):
    X, y, groups = problem
    labels = np.stack([y == 0, y > 0], axis=1).astype(int)
    probe = create_probe("ridge", "multilabel").fit(X, labels, groups=groups)
    decided = probe._decide(X)
    table = recalibrate(probe, "isotonic", labels)
    assert len(table.maps) == 2
    recalibrate(probe, "none", labels)
    np.testing.assert_allclose(probe.predict_proba(X), 1 / (1 + np.exp(-decided)))


def test_unknown_names_are_told():
    with pytest.raises(DataError, match="temperature, isotonic, none"):
        check_calibration("platt", "classes")
    with pytest.raises(DataError, match="numbers"):
        check_calibration("isotonic", "regression")
    check_calibration("temperature", "regression")
