"""Samples that keep classes and groups, and scores without a fit, against scikit-learn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler, normalize

from ossicle.advise.quick import NEIGHBOURS, chance_of, quick_scores, sample_clips
from ossicle.datasets.clips import Clips


def table(labels, groups, folds=None) -> Clips:
    n = len(labels)
    frame = pd.DataFrame(
        {
            "path": [f"/x/{i}.wav" for i in range(n)],
            "label": pd.Series(labels, dtype=object),
            "onset": np.nan,
            "offset": np.nan,
            "group": pd.Series(groups, dtype=object),
            "split": pd.Series([None] * n, dtype=object),
            "fold": pd.Series(folds if folds is not None else [None] * n, dtype=object),
        }
    )
    return Clips(frame, "classes", tuple(sorted(set(labels))), None)


def test_a_sample_holds_classes_alike_and_as_many_groups_as_can_be():
    labels = ["a"] * 60 + ["b"] * 20 + ["c"] * 6
    # Recordings of very different lengths: 40 clips of one, then single ones.
    groups = ["a0"] * 40 + [f"a{i}" for i in range(1, 21)]
    groups += [f"b{i // 2}" for i in range(20)] + ["c0"] * 6
    clips = table(labels, groups)
    for seed in range(5):
        rows = sample_clips(clips, 26, seed)
        assert len(rows) == 26
        assert (np.diff(rows) > 0).all()
        counts = Counter(labels[i] for i in rows)
        assert counts["c"] == 6
        assert counts["a"] == counts["b"] == 10
        # Ten clips of 21, and of 10, groups: no group twice.
        for name in "ab":
            assert len({groups[i] for i in rows if labels[i] == name}) == 10
    assert not np.array_equal(sample_clips(clips, 26, 0), sample_clips(clips, 26, 1))
    assert np.array_equal(sample_clips(clips, 26, 3), sample_clips(clips, 26, 3))
    assert np.array_equal(sample_clips(clips, 86), np.arange(86))


def test_a_sample_keeps_every_fold():
    labels = ["a", "b"] * 100
    folds = [str(i // 40) for i in range(200)]
    rows = sample_clips(table(labels, [str(i) for i in range(200)], folds), 50)
    assert Counter((labels[i], folds[i]) for i in rows) == {
        (label, str(fold)): 5 for label in "ab" for fold in range(5)
    }


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 120)
    X = generator.normal(size=(120, 8)) + 1.5 * np.eye(8)[y] * (1 + np.arange(8))
    order = np.arange(120) % 3
    folds = [(np.flatnonzero(order != k), np.flatnonzero(order == k)) for k in range(3)]
    return X, y, folds


def prepared(X, train, test):
    scaler = StandardScaler().fit(X[train])
    return normalize(scaler.transform(X[train])), normalize(scaler.transform(X[test]))


def test_neighbours_and_centroids_are_those_of_scikit_learn(features):
    X, y, folds = features
    near, central, truth = [], [], []
    for train, test in folds:
        A, B = prepared(X, train, test)
        # Ties are broken by the cosine, which a weight of nearly one does there too.
        knn = KNeighborsClassifier(
            NEIGHBOURS, metric="cosine", weights=lambda d: 1 + 1e-3 * (1 - d)
        )
        near.append(knn.fit(A, y[train]).predict(B))
        means = np.stack([A[y[train] == c].mean(0) for c in range(4)])
        central.append((B @ normalize(means).T).argmax(1))
        truth.append(y[test])
    found = quick_scores(X, y, folds, "classes")
    assert found["neighbours"] == accuracy_score(np.concatenate(truth), np.concatenate(near))
    assert found["centroid"] == accuracy_score(np.concatenate(truth), np.concatenate(central))
    assert 0.5 < found["neighbours"] < 1


def test_numbers_are_averaged_over_neighbours(features):
    X, y, folds = features
    target = (X[:, 3] + 0.1 * y).astype(np.float32)
    found, truth = [], []
    for train, test in folds:
        A, B = prepared(X, train, test)
        knn = KNeighborsRegressor(NEIGHBOURS, metric="cosine", weights=lambda d: 1 + 1e-3 * (1 - d))
        found.append(knn.fit(A, target[train]).predict(B))
        truth.append(target[test])
    scores = quick_scores(X, target, folds, "regression")
    expected = r2_score(np.concatenate(truth), np.concatenate(found))
    assert scores == {"neighbours": pytest.approx(expected, abs=1e-6)}


def test_features_that_say_nothing_score_chance(features):
    _, y, folds = features
    noise = np.random.default_rng(1).normal(size=(120, 30))
    found = quick_scores(noise, y, folds, "classes")
    assert max(found.values()) < 0.45
    hidden = quick_scores(np.eye(4)[y] + 1e-3 * noise[:, :4], y, folds, "classes")
    assert min(hidden.values()) == 1.0


def test_chance_is_that_of_the_best_constant_answer(features):
    _, y, _ = features
    X = np.zeros((len(y), 1))
    dummy = DummyClassifier(strategy="most_frequent").fit(X, y)
    assert chance_of("classes", y) == dummy.score(X, y)
    assert chance_of("multilabel", np.array([[1, 0], [1, 1], [0, 0]])) == 0.5
    assert chance_of("regression", np.array([3.0, 4.0])) == 0.0


def test_a_class_of_one_fold_is_not_left_behind():
    labels = ["a"] * 50 + ["b"] * 100
    folds = ["0"] * 100 + ["1"] * 50
    rows = sample_clips(table(labels, [str(i) for i in range(150)], folds), 40)
    assert Counter(labels[i] for i in rows) == {"a": 20, "b": 20}
