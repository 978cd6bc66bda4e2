"""Kernel ridge beside a score: against scikit-learn, and on data whose answers are known."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, average_precision_score, r2_score
from sklearn.model_selection import GroupKFold

from ossicle.transfer import diagnose
from ossicle.transfer.diagnose import Diagnosis, advice, restrict, sample_rows
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.span import Span

K = 3


def problem(n: int = 90, per_group: int = 3, seed: int = 0):
    """Layers "noise", "good" (tells the classes apart) and "weak", labels and groups."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n // per_group), per_group).astype(str)
    y = np.repeat(np.arange(n // per_group) % K, per_group)
    means = generator.normal(0, 1, (K, 12))
    layers = OrderedDict(
        noise=generator.normal(2, 5, (n, 8)).astype(np.float32),
        good=(3 * means[y] + generator.normal(size=(n, 12))).astype(np.float32),
        weak=(0.5 * means[y][:, :6] + generator.normal(size=(n, 6))).astype(np.float32),
    )
    return layers, y, groups


def folds_of(groups: np.ndarray, n_folds: int = 3):
    return list(GroupKFold(n_folds).split(groups, groups=groups))


def study(layers, y, groups, task="classes", **settings) -> Diagnosis:
    classes = [f"c{i}" for i in range(K)]
    return Diagnosis(layers, y, groups, task=task, classes=classes, **settings)


def scaled(layers, names) -> np.ndarray:
    """(n, d) layers as `Span` standardises them, each counting as the root of its columns."""
    parts = []
    for name in names:
        X = layers[name].astype(float)
        span = Span(X, [X.shape[1]])
        parts.append((X - X.mean(axis=0)) * span.inverse_scale / X.shape[1] ** 0.25)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
@pytest.mark.parametrize("names", [["good"], ["noise", "good", "weak"]])
def test_same_as_ridge_of_scikit_learn(task, names):
    layers, y, groups = problem()
    generator = np.random.default_rng(1)
    if task == "multilabel":
        y = generator.integers(0, 2, (len(y), K))
        targets = 2.0 * y - 1
    elif task == "regression":
        y = 3 + layers["good"][:, 0].astype(float) + generator.normal(size=len(y))
        targets = y[:, None]
    else:
        targets = np.where(np.eye(K)[y] > 0, 1.0, -1.0)
    some = study(layers, y, groups, task)
    Z = scaled(layers, names)
    np.testing.assert_allclose(some.kernel(names), Z @ Z.T, atol=1e-3)
    train, test = folds_of(groups)[0]
    scale = np.mean(np.sum(Z[train] ** 2, axis=1))
    # The penalty with the least squared error on held-out inner folds, by refitting each time.
    inner = inner_folds(y[train], groups[train], task=task, n_folds=5, random_state=0)
    errors = []
    for penalty in diagnose.PENALTIES:
        held_out = np.empty((len(train), targets.shape[1]))
        for fold in np.unique(inner):
            fit, rest = train[inner != fold], train[inner == fold]
            ridge = Ridge(alpha=penalty * scale).fit(Z[fit], targets[fit])
            held_out[inner == fold] = ridge.predict(Z[rest]).reshape(len(rest), -1)
        errors.append(np.mean((held_out - targets[train]) ** 2))
    chosen = diagnose.PENALTIES[int(np.argmin(errors))]
    ridge = Ridge(alpha=chosen * scale).fit(Z[train], targets[train])
    expected = ridge.predict(Z[test]).reshape(len(test), -1)
    outputs = some.predict(some.kernel(names), y, train, test)
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_blocks_of_a_layer_count_as_layers_do():
    layers, y, groups = problem()
    apart = study(layers, y, groups)
    wide = {"both": np.concatenate([layers["good"], layers["weak"]], axis=1)}
    together = study(wide, y, groups, block_sizes={"both": [12, 6]})
    np.testing.assert_allclose(together.kernel(), apart.kernel(["good", "weak"]), atol=1e-3)
    # Standardised columns have variance 1, so the weights show in the mean squared norm.
    traces = {name: np.trace(apart.kernel([name])) / len(y) for name in layers}
    for name, X in layers.items():
        assert traces[name] == pytest.approx(np.sqrt(X.shape[1]), rel=0.1)


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
def test_scores_are_those_of_scikit_learn(task):
    layers, y, groups = problem()
    if task == "multilabel":
        y = np.random.default_rng(3).integers(0, 2, (len(y), K))
    if task == "regression":
        y = layers["good"][:, 0].astype(float) + np.random.default_rng(3).normal(size=len(y))
    some = study(layers, y, groups, task)
    rows, outputs = some.run(folds_of(groups))
    assert sorted(rows) == list(range(len(y)))
    expected = {
        "classes": lambda: accuracy_score(y[rows], outputs.argmax(axis=1)),
        "multilabel": lambda: average_precision_score(y[rows], outputs, average="macro"),
        "regression": lambda: r2_score(y[rows], outputs[:, 0]),
    }[task]()
    assert some.score(rows, outputs) == pytest.approx(expected)
    interval = some.interval(rows, outputs, groups)
    assert interval["value"] == pytest.approx(expected)
    assert interval["low"] <= interval["value"] <= interval["high"]


def test_the_tested_clips_have_no_say():
    layers, y, groups = problem()
    folds = folds_of(groups)
    some = study(layers, y, groups)
    train, test = folds[0]
    before = some.predict(some.kernel(), y, train, test)
    other = y.copy()
    other[test] = (other[test] + 1) % K
    assert np.array_equal(some.predict(some.kernel(), other, train, test), before)


def test_a_random_split_shows_a_leak():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4).astype(str)
    signature = generator.normal(0, 3, (40, 60))
    X = signature[groups.astype(int)] + 0.3 * generator.normal(size=(160, 60))
    y = generator.integers(0, 2, 40)[groups.astype(int)]
    some = Diagnosis({"x": X.astype(np.float32)}, y, groups, task="classes", classes=["a", "b"])
    honest = some.score(*some.run(folds_of(groups, 5)))
    careless = some.random_split(5)
    assert honest < 0.65
    assert careless["value"] > 0.95
    assert careless["low"] > honest
    # The groups are as they were.
    assert np.array_equal(some.groups, groups)


def test_no_random_split_where_every_clip_is_a_group():
    layers, y, _ = problem()
    some = study(layers, y, np.arange(len(y)).astype(str))
    assert some.random_split(3) is None


def test_shuffled_labels_score_at_chance():
    layers, y, groups = problem(n=150)
    some = study(layers, y, groups)
    folds = folds_of(groups)
    shuffled = some.shuffled_labels(folds, repeats=6)
    assert some.score(*some.run(folds)) > 0.9
    # Four standard deviations of guessing, six times 150 clips.
    assert abs(shuffled["value"] - 1 / K) < 4 * np.sqrt(1 / K * (1 - 1 / K) / 900) + 0.02
    assert shuffled["low"] <= shuffled["value"] <= shuffled["high"]
    assert shuffled["repeats"] == 6


def test_the_layer_that_knows_is_found():
    layers, y, groups = problem()
    some = study(layers, y, groups)
    told = []
    by_layer = some.by_layer(folds_of(groups), told.append)
    assert [row["layer"] for row in by_layer] == ["noise", "good", "weak"]
    scores = {row["layer"]: row["score"] for row in by_layer}
    assert scores["good"] > 0.9
    assert scores["noise"] < 0.55 < scores["good"]
    assert scores["good"] > scores["weak"]
    assert len(told) == 3
    subsets = some.subsets(folds_of(groups))
    assert len(subsets) == 7
    assert "good" in subsets[0]["layers"]
    assert [s["score"] for s in subsets] == sorted((s["score"] for s in subsets), reverse=True)
    alone = {tuple(s["layers"]): s["score"] for s in subsets}
    assert alone[("good",)] == pytest.approx(scores["good"])


def test_many_layers_are_tried_as_four_stages():
    layers, y, groups = problem(n=30)
    many = OrderedDict((f"l{i}", layers["weak"] + i) for i in range(10))
    subsets = study(many, y, groups).subsets(folds_of(groups))
    assert len(subsets) == 15
    whole = max(subsets, key=lambda s: len(s["layers"]))
    assert whole["layers"] == list(many)
    singles = sorted((s["layers"] for s in subsets if len(s["layers"]) <= 3), key=lambda s: s[0])
    assert [name for stage in singles for name in stage] == list(many)


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
def test_learning_curve_uses_more_each_step_and_whole_groups(task, monkeypatch):
    layers, y, groups = problem(n=180)
    if task == "multilabel":
        y = np.eye(K, dtype=np.int64)[y]
    if task == "regression":
        y = layers["good"][:, 0].astype(float)
    some = study(layers, y, groups, task)
    parts = []
    predict = some.predict
    monkeypatch.setattr(
        some, "predict", lambda *a: (parts.append((len(a[2]), a[2], a[3])), predict(*a))[1]
    )
    points = some.learning_curve(folds_of(groups))
    sizes = [point["n_train"] for point in points]
    assert sizes == sorted(set(sizes))
    assert len(points) >= 4
    assert points[-1]["share"] == 1.0
    assert sizes[-1] == 120
    assert points[-1]["score"] == pytest.approx(some.score(*some.run(folds_of(groups))))
    assert points[-1]["score"] > points[0]["score"] - 0.02
    for _, train, test in parts:
        assert not set(groups[train]) & set(groups[test])
        if task != "classes":
            counts = {name: int(np.sum(groups[train] == name)) for name in set(groups[train])}
            assert set(counts.values()) == {3}


def test_a_curve_of_too_few_clips_is_short():
    layers, y, groups = problem(n=12)
    points = study(layers, y, groups).learning_curve(folds_of(groups, 2))
    assert 1 <= len(points) <= 2


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    limit=st.integers(1, 80),
    seed=st.integers(0, 9),
)
def test_sample_keeps_classes_in_proportion(counts, limit, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = sample_rows(y, limit, "classes", seed)
    assert len(rows) == min(limit, len(y))
    assert np.array_equal(rows, np.unique(rows))
    share = len(rows) / len(y)
    kept = np.bincount(y[rows], minlength=len(counts))
    # Random ranks inside a stratum move a class by at most one clip either way, and ties by one.
    assert np.all(np.abs(kept - share * np.array(counts)) <= 2)
    assert np.array_equal(rows, sample_rows(y, limit, "classes", seed))


def test_samples_of_other_tasks():
    y = np.zeros((50, 2))
    assert len(sample_rows(y, 20, "multilabel", 0)) == 20
    assert np.array_equal(sample_rows(y, 50, "multilabel", 0), np.arange(50))
    assert not np.array_equal(sample_rows(y, 20, "multilabel", 0), sample_rows(y, 20, "m", 1))


def test_folds_among_some_rows():
    folds = [(np.array([0, 1, 2]), np.array([3, 4])), (np.array([3, 4]), np.array([0, 1, 2]))]
    found = restrict(folds, np.array([1, 2, 4]), 5)
    assert [[part.tolist() for part in fold] for fold in found] == [[[0, 1], [2]], [[2], [0, 1]]]
    assert restrict(folds, np.array([0, 1]), 5) == []


def points_of(*scores: float) -> list[dict]:
    return [{"score": s, "per_class": 2.0**i} for i, s in enumerate(scores)]


def test_advice_follows_the_curve_and_the_classes():
    assert "twice the recordings" in advice(points_of(0.5, 0.6, 0.68), [])[0]
    assert "+6 points" in advice(points_of(0.5, 0.6, 0.68), [])[0]  # 0.08 times 0.08 / 0.1
    assert "flat" in advice(points_of(0.5, 0.6, 0.601), [])[0]
    assert "flat" in advice(points_of(0.6, 0.7, 0.65), [])[0]
    assert "too few" in advice(points_of(0.5), [])[0]
    rows = [
        {"class": "kick", "recall": 0.95, "support": 50},
        {"class": "tom", "recall": 0.5, "support": 50},
        {"class": "none", "recall": None, "support": 0},
    ]
    tips = advice(points_of(0.5, 0.6), rows)
    assert len(tips) == 2
    assert tips[1].startswith("tom is missed most (50 % of 50)")
    assert "+12.5 points" in tips[1]  # half of 25 errors in 100 clips


def test_advice_for_numbers_speaks_of_no_classes():
    points = [{"score": s, "per_class": n} for s, n in ((0.2, 20), (0.5, 40), (0.7, 80))]
    (tip,) = advice(points, [])
    assert tip == "about +13 points from twice the recordings (some 80 more)"
    (tip, *_) = advice(points, [{"class": "x", "support": 9, "recall": 1.0}])
    assert tip.endswith("(some 80 more a class)")
