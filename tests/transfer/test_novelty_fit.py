"""Fitting novelty: closed forms on Gaussians, invariances, groups, and classes left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.stats import entropy as shannon
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import roc_auc_score

from ossicle.datasets.folds import make_folds
from ossicle.errors import DataError
from ossicle.metrics import interval
from ossicle.transfer import novelty_fit
from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.kernel_answers import kernel_answers
from ossicle.transfer.novelty_fit import fit_novelty, last_layer, memberships, novelty_auc
from ossicle.transfer.span import Span
from ossicle.transfer.unheard import leave_classes_out


def blobs(
    n: int = 240, d: int = 30, k: int = 4, apart: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, d) clips of k classes, (n,) classes, (n,) groups of four clips of one class."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) // 4
    y = group % k
    within = rng.normal(size=(d, d)) / np.sqrt(d)
    X = apart * rng.normal(size=(k, d))[y] + rng.normal(size=(n, d)) @ within
    return X.astype(np.float32), y, group


def distances(model, X):
    with torch.inference_mode():
        return model.distance(torch.from_numpy(np.asarray(X, np.float32))).numpy()


def slow(X, y, other, rank=None):
    """The score from its definition, in float64, for narrow X and a basis of all dimensions."""
    span = Span(X)
    Z = (X.astype(float) - span.mean) * span.inverse_scale
    V = (other.astype(float) - span.mean) * span.inverse_scale
    n, d = Z.shape
    means = np.stack([Z[y == c].mean(axis=0) for c in np.unique(y)])
    R = Z - means[np.searchsorted(np.unique(y), y)]
    s = novelty_fit.SHRINKAGE

    def shrunk(S):
        return (1 - s) * S + s * np.trace(S) / min(n - 1, d) * np.eye(d)

    W, T = np.linalg.inv(shrunk(R.T @ R / n)), np.linalg.inv(shrunk(Z.T @ Z / n))
    near = [min(mahalanobis(v, m, W) ** 2 for m in means) for v in V]
    return np.array(near) - [mahalanobis(v, np.zeros(d), T) ** 2 for v in V]


def test_with_all_dimensions_it_is_the_relative_mahalanobis_distance():
    X, y, _ = blobs(d=12)
    other = blobs(d=12, seed=1)[0]
    model = novelty_fit._fit(X, memberships(y, "classes"), None, 64)
    assert model.sizes["rank"] == 12
    np.testing.assert_allclose(distances(model, other), slow(X, y, other), rtol=1e-3, atol=1e-2)


def test_what_lies_outside_the_basis_counts_by_its_length():
    X, y, _ = blobs(n=80, d=200)
    model = novelty_fit._fit(X, memberships(y, "classes"), None, 8)
    b = {name: value.double().numpy() for name, value in model.named_buffers()}
    np.testing.assert_allclose(b["basis"].T @ b["basis"], np.eye(8), atol=1e-5)
    step = np.random.default_rng(0).normal(size=200)
    step -= b["basis"] @ (b["basis"].T @ step)
    shift = 50 * step / np.linalg.norm(step) / b["scale"]
    clip = b["mean"][None]  # its own part outside of the basis is nothing
    gained = distances(model, clip + shift) - distances(model, clip)
    np.testing.assert_allclose(gained, b["outside"][0] * 50**2, rtol=1e-3)


@pytest.mark.parametrize("d", [20, 300])
def test_units_of_the_features_do_not_matter(d):
    X, y, _ = blobs(d=d, n=120)
    scale = np.random.default_rng(2).uniform(0.1, 10, d).astype(np.float32)
    a = novelty_fit._fit(X, memberships(y, "classes"), None, 16)
    b = novelty_fit._fit(X * scale + 3, memberships(y, "classes"), None, 16)
    other = blobs(d=d, n=40, seed=5)[0]
    first, second = distances(a, other), distances(b, other * scale + 3)
    assert np.corrcoef(first, second)[0, 1] > 0.9999
    np.testing.assert_allclose(first, second, rtol=0.02, atol=0.02 * np.abs(first).max())


def test_the_basis_holds_the_directions_between_classes_first():
    X, y, _ = blobs(n=160, d=400, k=5, apart=0.5)
    span = Span(X)
    Z = (X - span.mean) * span.inverse_scale
    means = np.stack([Z[y == c].mean(axis=0) for c in range(5)])
    model = novelty_fit._fit(X, memberships(y, "classes"), None, 6)
    Q = model.basis.double().numpy()
    differences = means[1:] - means[0]
    kept = np.linalg.norm(differences @ Q, axis=1) / np.linalg.norm(differences, axis=1)
    np.testing.assert_allclose(kept, 1, atol=1e-4)


def test_memberships():
    np.testing.assert_array_equal(memberships(np.array([3, 5, 3]), "classes"), np.eye(2)[[0, 1, 0]])
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    shares = memberships(labels, "multilabel")
    np.testing.assert_array_equal(shares, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    assert memberships(np.array([0.1, 0.7]), "regression").tolist() == [[1.0], [1.0]]


def test_clips_of_several_labels_count_in_parts():
    """The covariance within, from sums, against the sum over clips and labels."""
    rng = np.random.default_rng(7)
    C, labels = rng.normal(size=(30, 5)), rng.integers(0, 2, (30, 3))
    C -= C.mean(axis=0)
    shares = memberships(labels, "multilabel")
    M = shares.T @ C / shares.sum(axis=0)[:, None]
    wanted = sum(
        shares[i, c] * np.outer(C[i] - M[c], C[i] - M[c])
        for i in range(30)
        for c in range(shares.shape[1])
    )
    told = C.T @ C - (M.T * shares.sum(axis=0)) @ M
    np.testing.assert_allclose(told, wanted, atol=1e-9)


def test_known_scores_come_from_models_without_the_group():
    # Clips of a group are one sound: fitted with a twin among its clips, it would be familiar.
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(30), 4)
    X = (rng.normal(size=(30, 200))[group] + 0.01 * rng.normal(size=(120, 200))).astype(np.float32)
    y = group % 3
    apart = fit_novelty(X, y, task="classes", groups=group)
    careless = fit_novelty(X, y, task="classes", groups=None)
    assert apart.known.median() > 1.5 * careless.known.median().abs()
    assert len(apart.known) == 120
    assert (apart.known.diff() >= 0).all()


def test_doubt_varies_among_the_known_as_much_as_the_distance():
    X, y, group = blobs()
    answers = np.random.default_rng(6).dirichlet(np.ones(4), len(y))
    alone = fit_novelty(X, y, task="classes", groups=group)
    model = fit_novelty(X, y, task="classes", groups=group, held_out=answers)
    doubt = shannon(answers, axis=1)
    assert alone.unsure == 0
    assert float(model.unsure) * doubt.std() == pytest.approx(float(alone.known.std(correction=0)))
    # The known scores are sums; of independent parts the variances add up.
    assert float(model.known.var()) == pytest.approx(2 * float(alone.known.var()), rel=0.35)
    torch.testing.assert_close(model.basis, alone.basis)


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_answers_of_a_kernel_ridge_are_those_of_fits_clip_by_clip(task):
    X, y, group = blobs(n=60, d=80, k=3)
    X = X - X.mean(axis=0)
    K = (X @ X.T).astype(np.float64)
    labels = y if task == "classes" else np.eye(3, dtype=int)[y]
    train, test = np.arange(45), np.arange(45, 60)
    fold = group[train] % 3
    held_out, told = kernel_answers(K, labels, train, test, fold, task)
    T = 2.0 * np.eye(3)[y[train]] - 1
    wanted = []
    for penalty in (1e-3, 1e-2, 1e-1, 1.0):
        level = penalty * np.trace(K[:45, :45]) / 45

        def ridge(rows, others, level=level):
            fitted = KernelRidge(alpha=level, kernel="precomputed")
            # The intercept of a kernel ridge: centring in the space of the kernel.
            centre = K[np.ix_(rows, rows)].mean(axis=0)
            Kc = K[np.ix_(rows, rows)] - centre - centre[:, None] + centre.mean()
            Ko = K[np.ix_(others, rows)]
            Ko = Ko - Ko.mean(axis=1, keepdims=True) - centre + centre.mean()
            return fitted.fit(Kc, T[rows] - T[rows].mean(axis=0)).predict(Ko) + T[rows].mean(axis=0)

        out = np.empty((45, 3))
        for f in range(3):
            out[fold == f] = ridge(np.flatnonzero(fold != f), np.flatnonzero(fold == f))
        calibration = calibrate(out, (T > 0).astype(float), np.ones(45), task)
        wanted.append(
            (calibration.loss, calibration.logits(out), calibration.logits(ridge(train, test)))
        )
    _, out, answers = min(wanted, key=lambda x: x[0])
    np.testing.assert_allclose(held_out, out, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(told, answers, rtol=1e-4, atol=1e-4)


def test_answers_help_where_features_are_blind():
    """The last layer knows nothing, the kernel of all layers does."""
    X, y, group = blobs(n=240, d=40, k=4, apart=1.5, seed=4)
    blind = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    folds = make_folds(y, group, 4, task="classes")
    K = (X @ X.T).astype(np.float64)
    told = {
        name: novelty_auc(blind, y, group, folds, task="classes", classes="abcd", kernel=kernel)
        for name, kernel in (("alone", None), ("both", K))
    }
    assert told["alone"]["auc"]["value"] < 0.6
    assert told["both"]["auc"]["value"] > told["alone"]["auc"]["value"] + 0.15


def test_about_the_promised_share_of_new_known_clips_is_rejected():
    X, y, group = blobs(n=1200, d=40, apart=0.6)
    model = fit_novelty(X[:800], y[:800], task="classes", groups=group[:800])
    with torch.inference_mode():
        told = model(torch.from_numpy(X[800:])).numpy()
    assert 0.01 < np.mean(told > 0.95) < 0.11


def test_it_notices_another_kind_of_sound():
    X, y, group = blobs(n=400, d=60, k=5, apart=1.0)
    model = fit_novelty(X[y < 4], y[y < 4], task="classes", groups=group[y < 4])
    with torch.inference_mode():
        told = model(torch.from_numpy(X)).numpy()
    assert roc_auc_score(y == 4, told) > 0.9
    assert np.median(told[y == 4]) > 0.95


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
@pytest.mark.parametrize("shape", [(3, 500), (40, 3), (12, 1)])
def test_small_and_narrow_sets(task, shape):
    rng = np.random.default_rng(9)
    X = rng.normal(size=shape).astype(np.float32)
    y = np.arange(shape[0]) % 2
    y = {"classes": y, "multilabel": np.stack([y, 1 - y], 1), "regression": y * 0.5}[task]
    model = fit_novelty(X, y, task=task)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert model.sizes["rank"] <= min(shape[0] - 1, shape[1], 64)
    with torch.inference_mode():
        near, far = model(torch.from_numpy(X)), model(torch.from_numpy(X + 1e4))
    assert (near < 1).all()
    assert far.min() >= near.max()


def test_clips_all_alike():
    model = fit_novelty(np.ones((20, 6), np.float32), np.arange(20) % 2, task="classes")
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    with pytest.raises(DataError, match="2 clips"):
        fit_novelty(np.ones((2, 6), np.float32), np.arange(2), task="classes")


def test_the_deepest_layer():
    names = ["conv1/mean", "conv1/max", "a/b/mean", "a/b/max", "a/b/band"]
    assert last_layer(names, [3, 3, 5, 5, 40]) == (6, [5, 5, 40])
    assert last_layer(["x/mean"], [7]) == (0, [7])
    with pytest.raises(DataError, match="layer by layer"):
        last_layer(["x/mean", "y/mean", "x/max"], [1, 1, 1])


@pytest.fixture(scope="module")
def left_out():
    """A score that is random but for one class, which it always calls new."""
    rng = np.random.default_rng(10)
    n = 160
    group = np.arange(n) // 2
    y = group % 4
    truth = y[:, None] == np.arange(4)
    folds = make_folds(y, group, 4, task="classes")
    seen, values = [], rng.normal(size=n) + 6 * (y == 1)

    def scorer(train, test):
        assert not set(group[train]) & set(group[test])
        seen.append((set(y[train]), set(y[test])))
        return values[test]

    result = leave_classes_out(truth, group, folds, scorer, "abcd", n_resamples=300)
    return y, group, folds, values, seen, result


def test_each_class_is_kept_from_the_fitting(left_out):
    *_, seen, result = left_out
    assert len(seen) == 16
    assert sorted({tuple(train) for train, _ in seen}) == [
        (0, 1, 2),
        (0, 1, 3),
        (0, 2, 3),
        (1, 2, 3),
    ]
    assert all(test == {0, 1, 2, 3} for _, test in seen)
    assert [row["n"] for row in result["per_class"]] == [40] * 4


def test_the_area_is_that_of_pairs_within_folds(left_out):
    y, _, folds, values, _, result = left_out
    for k, row in enumerate(result["per_class"]):
        wins = pairs = 0
        for _, test in folds:
            new, known = values[test][y[test] == k], values[test][y[test] != k]
            pairs += len(new) * len(known)
            wins += roc_auc_score(
                np.r_[np.ones(len(new)), np.zeros(len(known))], np.r_[new, known]
            ) * (len(new) * len(known))
        assert row["auc"]["value"] == pytest.approx(wins / pairs)
        known = values[y != k]
        noticed = np.mean(values[y == k] > np.quantile(known, 0.95))
        assert row["noticed"]["value"] == pytest.approx(noticed)
    areas = [row["auc"]["value"] for row in result["per_class"]]
    assert result["auc"]["value"] == pytest.approx(np.mean(areas))
    assert areas[1] > 0.99
    assert max(areas[0], areas[2], areas[3]) < 0.55


def test_the_interval_is_that_of_drawing_groups(left_out):
    y, group, folds, values, _, result = left_out
    fold = np.empty(len(y), int)
    for number, (_, test) in enumerate(folds):
        fold[test] = number

    def area(score, new, number):
        wins = pairs = 0.0
        for f in np.unique(number):
            a, b = score[(number == f) & new], score[(number == f) & ~new]
            wins += (a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()
            pairs += len(a) * len(b)
        return wins / pairs

    low, high = interval(
        area, values, y == 2, fold, groups=group, n_resamples=300, bounds=(0.0, 1.0)
    )
    told = result["per_class"][2]["auc"]
    # The draws are the same; only the degrees of freedom are those of the rarer kind.
    assert told["low"] <= low + 1e-9
    assert told["high"] >= high - 1e-9
    assert told["low"] == pytest.approx(low, abs=0.03)
    assert told["high"] == pytest.approx(high, abs=0.03)


def test_too_few_classes_have_no_answer():
    X, y, group = blobs(n=80, k=2)
    folds = make_folds(y, group, 4, task="classes")
    assert novelty_auc(X, y, group, folds, task="classes", classes="ab") is None
    assert novelty_auc(X, X[:, 0], group, folds, task="regression", classes=()) is None


def test_many_classes_are_drawn_among():
    y = np.arange(200) % 20
    truth = y[:, None] == np.arange(20)
    folds = make_folds(y, np.arange(200), 5, task="classes")
    names = [f"c{k}" for k in range(20)]

    def scorer(train, test):
        return np.zeros(len(test))

    result = leave_classes_out(truth, np.arange(200), folds, scorer, names, max_classes=6)
    assert len(result["per_class"]) == 6
    assert result["auc"]["value"] == 0.5
    assert result["noticed"]["value"] == 0.0


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_blobs_apart_are_noticed_and_blobs_in_one_place_are_not(task):
    for apart, low, high in ((1.5, 0.9, 1.0), (0.0, 0.35, 0.65)):
        X, y, group = blobs(n=200, d=40, k=4, apart=apart, seed=3)
        labels = y if task == "classes" else np.eye(4, dtype=int)[y]
        folds = make_folds(y, group, 4, task="classes")
        result = novelty_auc(X, labels, group, folds, task=task, classes="abcd")
        assert low <= result["auc"]["value"] <= high
        assert result["auc"]["low"] <= result["auc"]["value"] <= result["auc"]["high"]


def test_more_clips_than_are_worked_with_are_drawn(monkeypatch):
    monkeypatch.setattr(novelty_fit, "MAX_CLIPS", 60)
    monkeypatch.setattr(novelty_fit, "MAX_CLIPS_AUC", 100)
    X, y, group = blobs(n=200)
    model = fit_novelty(X, y, task="classes", groups=group)
    assert model.sizes["known"] == 60
    folds = make_folds(y, group, 4, task="classes")
    assert novelty_auc(X, y, group, folds, task="classes", classes="abcd")["n_clips"] == 100
