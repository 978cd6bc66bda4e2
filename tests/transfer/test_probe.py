"""Probes: heads, probabilities, groups, weights, tasks and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, log_loss, r2_score, recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from ossicle.errors import DataError
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.probe import PROBES, REGRESSION_PROBES, create_probe

QUICK = {
    "ridge": {},
    "logistic": {"c": (0.1, 10.0), "n_folds": 3},
    "svm": {"c": (0.01, 1.0), "n_folds": 3},
    "knn": {"n_folds": 3},
    "mlp": {"hidden": 16, "decays": (1e-3,), "max_epochs": 15, "learning_rate": 0.02, "n_folds": 3},
}
NAMES = list(PROBES)
LINEAR = ["ridge", "logistic", "svm"]


def _clips(n=90, d=12, k=3, seed=0, shift=1.5):
    """Features far from standardised, with a constant column."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, k, n)
    X = generator.normal(size=(n, d))
    X[:, : min(k, d)] += shift * np.eye(k)[y][:, :d]
    X = X * generator.uniform(0.05, 20, d) + generator.uniform(-5, 5, d)
    X[:, -1] = 3.0
    return X.astype(np.float32), y


def _labels(n=90, d=12, k=4, seed=0):
    X, Y = make_multilabel_classification(n, d, n_classes=k, n_labels=2, random_state=seed)
    Y[:, 0] = 0
    Y[:2, 0] = 1  # a rare label, absent from some inner training parts
    return X.astype(np.float32), Y


@pytest.mark.parametrize("d", [12, 300], ids=["narrow", "wide"])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_head_is_the_whole_probe(name, k, d):
    X, y = _clips(60, d, k)
    probe = PROBES[name](**QUICK[name], class_weight="balanced").fit(X, y)
    weight, bias = probe.linear_head()
    assert weight.shape == (k, d)
    assert bias.shape == (k,)
    assert weight.dtype == bias.dtype == np.float32
    new = X + 0.1
    np.testing.assert_allclose(
        softmax(new @ weight.T + bias, axis=1), probe.predict_proba(new), atol=2e-4
    )
    assert not weight[:, -1].any()  # a constant column carries nothing


@pytest.mark.parametrize("name", LINEAR)
def test_linear_head_of_labels(name):
    X, Y = _labels()
    probe = PROBES[name](**QUICK[name]).fit(X, Y)
    weight, bias = probe.linear_head()
    np.testing.assert_allclose(expit(X @ weight.T + bias), probe.predict_proba(X), atol=2e-4)


@pytest.mark.parametrize("d", [12, 300], ids=["narrow", "wide"])
@pytest.mark.parametrize("task", ["two", "three", "labels"])
def test_mlp_head_is_the_whole_probe(task, d):
    X, y = _labels(60, d) if task == "labels" else _clips(60, d, 2 if task == "two" else 3)
    probe = PROBES["mlp"](**QUICK["mlp"]).fit(X, y)
    (w1, b1), (w2, b2) = probe.mlp_head()
    assert w1.shape == (16, d)
    logits = np.maximum(X @ w1.T + b1, 0) @ w2.T + b2
    p = expit(logits) if task == "labels" else softmax(logits, axis=1)
    np.testing.assert_allclose(p, probe.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_learns_classes_and_says_how_sure(name):
    X, y = _clips(450, seed=1)
    names = np.array(["ä b", "10", "2"])[y]
    probe = PROBES[name](**QUICK[name]).fit(X[:150], names[:150])
    assert probe.classes_.tolist() == ["10", "2", "ä b"]
    p = probe.predict_proba(X[150:])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    assert (probe.predict(X[150:]) == names[150:]).mean() > 0.6
    # Better than the rates alone, and not by luck of a threshold.
    assert log_loss(names[150:], p) < 0.85 * np.log(3)
    assert probe.held_out_proba_.shape == (150, 3)
    assert abs(log_loss(names[:150], probe.held_out_proba_) - log_loss(names[150:], p)) < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_labels_give_no_confidence(name):
    X, y = _clips(200, seed=2)
    y = np.random.default_rng(0).permutation(y)
    probe = PROBES[name](**QUICK[name]).fit(X[:120], y[:120])
    assert log_loss(y[120:], probe.predict_proba(X[120:])) < 1.1 * np.log(3)
    assert log_loss(y[:120], probe.held_out_proba_) < 1.1 * np.log(3)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_their_ranks(name):
    X, Y = _labels(300, seed=3)
    probe = PROBES[name](**QUICK[name], task="multilabel").fit(X[:200], Y[:200])
    p = probe.predict_proba(X[200:])
    assert p.shape == (100, 4)
    assert ((p > 0) & (p < 1)).all()
    assert np.array_equal(probe.predict(X[200:]), (p > 0.5).astype(Y.dtype))
    assert probe.predict(X[200:]).dtype == Y.dtype
    assert average_precision_score(Y[200:, 1:], p[:, 1:]) > Y[200:, 1:].mean(axis=0).mean() + 0.15


@pytest.mark.parametrize("name", NAMES)
def test_one_label_and_constant_labels(name):
    X, Y = _labels(60)
    one = PROBES[name](**QUICK[name], task="multilabel").fit(X, Y[:, 1:2])
    assert one.predict_proba(X).shape == (60, 1)
    never = np.c_[Y[:, 1:], np.zeros(60, int), np.ones(60, int)]
    p = PROBES[name](**QUICK[name]).fit(X, never).predict_proba(X)
    assert (p[:, -2] < 0.1).all()
    assert (p[:, -1] > 0.9).all()


@pytest.mark.parametrize("name", ["ridge", "logistic", "svm", "knn", "mlp"])
def test_balanced_weights_raise_the_rare_class(name):
    generator = np.random.default_rng(0)
    y = (np.arange(300) < 30).astype(int)
    X = generator.normal(size=(300, 6)) + 1.0 * y[:, None]
    plain = PROBES[name](**QUICK[name]).fit(X, y)
    balanced = PROBES[name](**QUICK[name], class_weight="balanced").fit(X, y)
    new = generator.normal(size=(200, 6)) + 1.0
    rare = np.ones(200, int)
    before = recall_score(rare, plain.predict(new))
    assert recall_score(rare, balanced.predict(new)) > before + 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_class_smaller_than_the_folds(name):
    X, y = _clips(40)
    y[:] = np.arange(40) % 2
    y[0] = 2  # one clip
    probe = PROBES[name](**QUICK[name]).fit(X, y)
    assert probe.predict_proba(X).shape == (40, 3)
    assert np.isfinite(probe.predict_proba(X)).all()


@pytest.mark.parametrize("name", NAMES)
def test_classes_that_are_groups(name):
    # Each class is one recording: no inner fold can hold a class out and still know it.
    X, y = _clips(45)
    probe = PROBES[name](**QUICK[name]).fit(X, np.sort(y), groups=np.sort(y))
    assert np.isfinite(probe.predict_proba(X)).all()


def test_held_out_probabilities_respect_groups():
    # The group's mark is as good as the label within a group, and useless across groups.
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 8)
    y = (np.arange(24) % 2)[groups]
    X = generator.normal(size=(24, 40))[groups] + 0.05 * generator.normal(size=(192, 40))
    for name in NAMES:
        honest = PROBES[name](**QUICK[name]).fit(X, y, groups)
        fooled = PROBES[name](**QUICK[name]).fit(X, y)
        assert log_loss(y, fooled.held_out_proba_) < 0.25
        assert log_loss(y, honest.held_out_proba_) > 0.6
        new = generator.normal(size=(200, 40))
        sure = np.abs(honest.predict_proba(new)[:, 1] - 0.5).mean()
        assert sure < np.abs(fooled.predict_proba(new)[:, 1] - 0.5).mean()


def test_logistic_and_svm_in_coordinates_equal_scikit_learn():
    X, y = _clips(50, 400, seed=4)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    Z[:, -1] = 0.0
    norm = (Z**2).sum() / 50
    logistic = PROBES["logistic"](c=(3.0,), max_iterations=5000).fit(X, y)
    expected = LogisticRegression(C=3.0 / norm, max_iter=5000, tol=1e-8).fit(Z, y)
    raw = logistic._decide(X)
    np.testing.assert_allclose(softmax(raw, axis=1), expected.predict_proba(Z), atol=2e-3)
    svm = PROBES["svm"](c=(0.5,)).fit(X, y)
    linear = LinearSVC(C=0.5 / norm, intercept_scaling=10.0, random_state=0, max_iter=50000)
    np.testing.assert_allclose(svm._decide(X), linear.fit(Z, y).decision_function(Z), atol=2e-2)
    rbf = PROBES["svm"]("rbf", c=(8.0,), gamma=(1.0,)).fit(X, y)
    new = _clips(20, 400, seed=5)[0]
    new_z = (new - X.mean(0, dtype=float)) / np.where(
        X.std(0, dtype=float) > 1e-6, X.std(0, dtype=float), np.inf
    )
    for j in range(3):
        machine = SVC(C=8.0, gamma=1 / 400).fit(Z, y == j)
        np.testing.assert_allclose(
            rbf._decide(new)[:, j], machine.decision_function(new_z), atol=1e-4
        )
    with pytest.raises(DataError, match="linear"):
        rbf.linear_head()


@pytest.mark.parametrize("name", list(REGRESSION_PROBES))
@pytest.mark.parametrize("d", [6, 200], ids=["narrow", "wide"])
def test_regression(name, d):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(160, 3)) @ generator.normal(size=(3, d)) * 4
    X = (X + 0.3 * generator.normal(size=(160, d)) + 7).astype(np.float32)
    Y = np.c_[X[:, 0] * 50 + 1000, -X[:, 1] * 1e-3]
    settings = {k: v for k, v in QUICK[name].items() if k not in ("c", "n_folds")}
    if name == "mlp":
        settings["max_epochs"] = 60
    probe = create_probe(name, "regression", **settings).fit(X[:110], Y[:110])
    assert r2_score(Y[110:], probe.predict(X[110:])) > 0.6
    assert probe.held_out_.shape == (110, 2)
    assert r2_score(Y[:110], probe.held_out_) > 0.6
    flat = create_probe(name, "regression", **settings).fit(X[:110], Y[:110, 0])
    assert flat.predict(X[110:]).shape == (50,)
    if name == "ridge":
        weight, bias = probe.linear_head()
        np.testing.assert_allclose(X @ weight.T + bias, probe.predict(X), rtol=1e-3)
    if name == "mlp":
        (w1, b1), (w2, b2) = probe.mlp_head()
        own = np.maximum(X @ w1.T + b1, 0) @ w2.T + b2
        np.testing.assert_allclose(own, probe.predict(X), rtol=2e-3, atol=1e-4)


def test_ridge_regression_holds_groups_out():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 6)
    X = generator.normal(size=(90, 5))
    y = X @ generator.normal(size=5) + generator.normal(size=15)[groups]
    probe = create_probe("ridge", "regression").fit(X, y, groups)
    penalty = probe.chosen_["penalty"] * 5
    expected = cross_val_predict(
        Ridge(alpha=penalty), StandardScaler().fit_transform(X), y, groups=groups, cv=GroupKFold(15)
    )
    np.testing.assert_allclose(probe.held_out_, expected, atol=1e-8)


def test_thousands_of_wide_clips_take_no_thousands_of_columns_squared():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 5, 300)
    X = generator.normal(size=(300, 20_000)).astype(np.float32)
    X[:, :200] += np.eye(5, dtype=np.float32)[y].repeat(40, axis=1)
    probe = PROBES["ridge"]().fit(X[:200], y[:200])
    assert (probe.predict(X[200:]) == y[200:]).mean() > 0.5


BAD = [
    ("NaN", lambda X, y: (np.where(np.arange(12) == 3, np.nan, X), y, None), "NaN.*row 0"),
    ("infinite", lambda X, y: (np.where(np.arange(12) == 3, np.inf, X), y, None), "row 0"),
    ("one class", lambda X, y: (X, np.zeros_like(y), None), "two classes"),
    ("lengths", lambda X, y: (X, y[:-1], None), "90 clips, labels of 89"),
    ("groups", lambda X, y: (X, y, np.zeros(5)), r"groups have shape \(5,\)"),
    ("no labels", lambda X, y: (X, None, None), "requires y"),
    ("missing label", lambda X, y: (X, np.array(["a", None] * 45, object), None), "leave out"),
    ("not 0/1", lambda X, y: (X, np.eye(3, dtype=int)[y] * 2, None), "0 or 1"),
]


@pytest.mark.parametrize(("spoil", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
@pytest.mark.parametrize("name", ["ridge", "mlp"])
def test_bad_input_is_one_clear_line(name, spoil, message):
    X, y, groups = spoil(*_clips())
    with pytest.raises(DataError, match=message) as caught:
        PROBES[name](**QUICK[name]).fit(X, y, groups)
    assert "\n" not in str(caught.value)


def test_names_and_tasks():
    assert type(create_probe()) is PROBES["ridge"]
    assert create_probe("knn", "multilabel", neighbours=(3,)).neighbours == (3,)
    for name, task, message in [
        ("forest", "classes", "ridge"),
        ("logistic", "regression", "ridge"),
        ("ridge", "detection", "multilabel"),
    ]:
        with pytest.raises(DataError, match=message):
            create_probe(name, task)
    with pytest.raises(DataError, match="kernel"):
        create_probe("svm", kernel="poly").fit(*_clips())


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
def test_inner_folds_keep_groups_whole(task):
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 17, 120)
    y = generator.integers(0, 3, 120) if task == "classes" else generator.integers(0, 2, (120, 3))
    folds = inner_folds(y, groups, task=task)
    assert sorted(np.unique(folds)) == list(range(folds.max() + 1))
    assert folds.max() == 4
    assert all(len(np.unique(folds[groups == g])) == 1 for g in np.unique(groups))
    alone = inner_folds(y, None, task=task)
    assert np.bincount(alone).min() >= 20
    assert inner_folds(y, np.zeros(120), task=task).max() == 4
    assert np.array_equal(folds, inner_folds(y, groups.astype(str), task=task))
