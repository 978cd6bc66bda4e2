"""Reliability against scikit-learn, slow definitions, and limits that must hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import precision_score, recall_score

from ossicle.errors import DataError
from ossicle.metrics import mean_interval
from ossicle.metrics.reliability import (
    bin_answers,
    brier,
    calibration_error,
    log_loss,
    reliability,
)
from ossicle.record import json_safe

CLASSES = ("a", "b", "c", "d")


def answers(n: int = 300, seed: int = 0, sharp: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) probabilities, and (n,) classes drawn with them: calibrated by construction."""
    rng = np.random.default_rng(seed)
    p = np.exp(sharp * rng.normal(size=(n, 4)))
    p /= p.sum(axis=1, keepdims=True)
    return p, np.array([rng.choice(4, p=row) for row in p])


@pytest.fixture(scope="module")
def told():
    p, y = answers()
    groups = np.repeat(np.arange(100), 3)
    return p, y, groups, reliability("classes", y, p, CLASSES, groups=groups)


@pytest.mark.parametrize(("strategy", "theirs"), [("mass", "quantile"), ("width", "uniform")])
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 80), bins=st.integers(1, 12), ties=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_bins_are_those_of_scikit_learn(strategy, theirs, seed, n, bins, ties):
    rng = np.random.default_rng(seed)
    p, right = rng.random(n), rng.integers(0, 2, n)
    p = p.round(1) if ties else p
    right[0], right[-1] = 0, right[-1] if n == 1 else 1
    mine = bin_answers(p, right, n_bins=bins, strategy=strategy)
    if len(np.unique(right)) == 2:
        accuracy, confidence = calibration_curve(right, p, n_bins=bins, strategy=theirs)
        np.testing.assert_allclose(mine.accuracy, accuracy, atol=1e-12)
        np.testing.assert_allclose(mine.confidence, confidence, atol=1e-12)
    slow = 0.0
    for b in np.unique(mine.place):
        inside = mine.place == b
        slow += inside.sum() / n * abs(right[inside].mean() - p[inside].mean())
        assert mine.size[b] == inside.sum()
        assert (p[inside] <= mine.high[b] + 1e-12).all()
        assert (p[inside] >= mine.low[b] - 1e-12).all()
    error = calibration_error(p, right, n_bins=bins, strategy=strategy)
    assert error == pytest.approx(slow, abs=1e-12)


def test_bins_of_equal_mass_hold_as_many_each():
    p = np.random.default_rng(0).random(200) ** 3
    assert set(bin_answers(p, p > 0.5, n_bins=10, strategy="mass").size) == {20}
    assert set(bin_answers(p, p > 0.5, n_bins=10, strategy="width").size) != {20}


def test_brier_and_log_loss_are_scikit_learns():
    p, y = answers(50)
    truth = np.eye(4)[y]
    slow = [sum((p[i, k] - (y[i] == k)) ** 2 for k in range(4)) for i in range(50)]
    np.testing.assert_allclose(brier(truth, p), slow)
    assert log_loss(truth, p).mean() == pytest.approx(sklearn_log_loss(y, p))
    labels = np.random.default_rng(1).integers(0, 2, (50, 4))
    each = [sklearn_log_loss(labels[:, k], p[:, k], labels=[0, 1]) for k in range(4)]
    assert log_loss(labels, p, labels=True).mean() == pytest.approx(np.mean(each))
    certain = np.array([[0.0, 1.0]])
    assert np.isfinite(log_loss(np.array([[1, 0]]), certain)).all()


def test_a_calibrated_model_is_near_zero_and_an_overconfident_one_is_not():
    p, y = answers(20_000)
    good = reliability("classes", y, p, CLASSES, n_resamples=50)
    assert good["ece_mass"]["value"] < 0.015
    assert good["confidence"] == pytest.approx(good["accuracy"], abs=0.01)
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    bad = reliability("classes", y, sharper, CLASSES, n_resamples=50)
    top = sharper.max(axis=1)
    gap = top.mean() - (sharper.argmax(axis=1) == y).mean()
    assert gap > 0.1
    # With one sign throughout, the error is the difference of the means.
    assert bad["ece_mass"]["value"] == pytest.approx(gap, abs=0.01)
    assert bad["nll"]["value"] > good["nll"]["value"]
    assert bad["brier"]["value"] > good["brier"]["value"]


def test_thresholds_of_classes_by_counting(told):
    p, y, _, result = told
    top, said = p.max(axis=1), p.argmax(axis=1)
    for row in result["thresholds"]:
        answered = [i for i in range(len(y)) if top[i] >= row["threshold"]]
        hits = [i for i in answered if said[i] == y[i]]
        assert row["n"] == len(answered)
        assert row["coverage"]["value"] == pytest.approx(len(answered) / len(y))
        assert row["recall"]["value"] == pytest.approx(len(hits) / len(y))
        if answered:
            assert row["precision"]["value"] == pytest.approx(len(hits) / len(answered))
        else:
            assert np.isnan(row["precision"]["value"])
    assert result["thresholds"][0]["coverage"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_each_class_is_scored_as_scikit_learn_does(told):
    p, y, _, result = told
    for k, row in enumerate(result["per_class"]):
        assert row["n"] == (y == k).sum()
        assert row["ece"] == pytest.approx(calibration_error(p[:, k], y == k, n_bins=10))
        for entry in row["thresholds"]:
            said = (p.argmax(axis=1) == k) & (p[:, k] >= entry["threshold"])
            assert entry["n"] == said.sum()
            if said.any():
                assert entry["precision"]["value"] == pytest.approx(precision_score(y == k, said))
            assert entry["recall"]["value"] == pytest.approx(recall_score(y == k, said))


def test_labels_by_scikit_learn():
    rng = np.random.default_rng(3)
    p = rng.random((120, 4))
    y = (rng.random((120, 4)) < p).astype(int)
    result = reliability("multilabel", y, p, CLASSES, thresholds=(0.0, 0.3, 0.8), n_resamples=20)
    assert result["kind"] == "labels"
    assert result["n"] == 480
    for row in result["thresholds"]:
        said = p >= row["threshold"]
        precision = precision_score(y, said, average="micro")
        assert row["precision"]["value"] == pytest.approx(precision)
        recall = recall_score(y, said, average="micro")
        assert row["recall"]["value"] == pytest.approx(recall)
        assert row["coverage"]["value"] == pytest.approx(said.any(axis=1).mean())
    for k, row in enumerate(result["per_class"]):
        (entry,) = (e for e in row["thresholds"] if e["threshold"] == 0.7)
        precision = precision_score(y[:, k], p[:, k] >= 0.7)
        assert entry["precision"]["value"] == pytest.approx(precision)
    assert result["brier"]["value"] == pytest.approx(np.mean((p - y) ** 2))


def test_intervals_are_those_of_the_cluster_bootstrap(told):
    p, y, groups, result = told
    right = (p.argmax(axis=1) == y).astype(float)
    low, high = mean_interval(right, groups=groups)
    first = result["thresholds"][0]
    assert first["precision"] == pytest.approx({"value": right.mean(), "low": low, "high": high})
    low, high = mean_interval(p.max(axis=1) >= 0.5, groups=groups)
    (half,) = (row for row in result["thresholds"] if row["threshold"] == 0.5)
    assert half["coverage"]["low"] == pytest.approx(low)
    assert half["coverage"]["high"] == pytest.approx(high)


def test_intervals_are_wider_where_groups_are_fewer(told):
    p, y, groups, result = told

    def width(score):
        return score["high"] - score["low"]

    # The same clips, each ten times over: the groups know no more than before.
    again = np.tile(np.arange(300), 10)
    many = reliability("classes", y[again], p[again], CLASSES, groups=groups[again])
    alone = reliability("classes", y[again], p[again], CLASSES)
    (a,) = (r["precision"] for r in many["thresholds"] if r["threshold"] == 0.5)
    (b,) = (r["precision"] for r in result["thresholds"] if r["threshold"] == 0.5)
    (c,) = (r["precision"] for r in alone["thresholds"] if r["threshold"] == 0.5)
    assert width(a) == pytest.approx(width(b), rel=1e-9)
    assert width(c) < 0.6 * width(a)


def test_every_value_lies_in_its_interval(told):
    result = told[-1]

    def scores(value):
        if isinstance(value, dict):
            if set(value) == {"value", "low", "high"}:
                yield value
            else:
                for item in value.values():
                    yield from scores(item)
        elif isinstance(value, list):
            for item in value:
                yield from scores(item)

    found = list(scores(result))
    assert len(found) > 100
    for score in found:
        if not np.isnan(score["low"]):
            assert score["low"] <= score["value"] <= score["high"]
    json.dumps(json_safe(result), allow_nan=False)


def test_the_same_seed_gives_the_same_numbers(told):
    p, y, groups, result = told
    again = reliability("classes", y, p, CLASSES, groups=groups)
    assert json.dumps(json_safe(again)) == json.dumps(json_safe(result))


def test_a_few_clips_and_a_class_without_any():
    p = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    result = reliability("classes", [0, 0, 1], p, ("a", "b", "c"))
    assert result["accuracy"] == 1.0
    lonely = result["per_class"][2]
    assert lonely["n"] == 0
    assert all(np.isnan(entry["recall"]["value"]) for entry in lonely["thresholds"])
    # All right: the interval of three clips is Clopper and Pearson's, not a point.
    low = result["thresholds"][0]["precision"]["low"]
    assert low == pytest.approx(0.025 ** (1 / 3))


def test_what_cannot_be_used_is_refused():
    p, y = answers(10)
    with pytest.raises(DataError, match="regression"):
        reliability("regression", y, p, CLASSES)
    with pytest.raises(DataError, match="do not fit"):
        reliability("classes", y[:-1], p, CLASSES)
    with pytest.raises(DataError, match="indices"):
        reliability("classes", y + 4, p, CLASSES)
    with pytest.raises(DataError, match="0/1"):
        reliability("multilabel", y, p, CLASSES)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(DataError, match="probabilities"):
            reliability("classes", y, np.where(p == p[0, 0], wrong, p), CLASSES)
    with pytest.raises(DataError, match="mass or width"):
        bin_answers([0.5], [1], strategy="size")
    with pytest.raises(DataError, match="0 confidences"):
        bin_answers([], [])
    # A softmax in single precision may end a little above one.
    reliability("classes", y, np.where(p == p[0, 0], 1 + 1e-6, p), CLASSES, n_resamples=10)
