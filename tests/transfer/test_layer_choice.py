"""Layer choice: sums of kernels against models on the concatenation; honest scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ossicle.errors import DataError
from ossicle.transfer.layer_choice import choose_layers, held_out_score, nested_choice
from ossicle.transfer.layer_kernels import FoldMoments, LayerKernels, held_out_exact


def _blocks(n=60, dims=(3, 5, 4), seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 3
    blocks = {
        f"layer{i}": generator.normal(size=(n, d)) * generator.uniform(0.1, 9, d) + 5
        for i, d in enumerate(dims)
    }
    return blocks, y


def _kernels(blocks, Y, folds, **changes):
    settings = {
        "kernel": "linear",
        "penalties": (0.03, 2.0),
        "widths": (0.5, 2.0),
        "max_exact": 2048,
        "n_landmarks": 512,
        "random_state": 0,
    }
    return LayerKernels(blocks, Y, folds, **{**settings, **changes})


def _fitted_again(K, Y, penalty, folds):
    """Slow definition: the bordered system of each training part, solved."""
    out = np.empty_like(Y)
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        m = train.sum()
        system = np.ones((m + 1, m + 1))
        system[:m, :m] = K[np.ix_(train, train)] + penalty * np.eye(m)
        system[m, m] = 0
        solution = np.linalg.solve(system, np.r_[Y[train], np.zeros((1, Y.shape[1]))])
        out[test] = K[np.ix_(test, train)] @ solution[:m] + solution[m]
    return out


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_held_out_from_one_inverse_equals_fitting_again(penalty):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 4))
    Y = generator.normal(size=(40, 2)) + 1
    folds = generator.integers(0, 6, 40)
    K = rbf_kernel(X)
    members = [np.flatnonzero(folds == f) for f in np.unique(folds)]
    expected = _fitted_again(K, Y, penalty, folds)
    np.testing.assert_allclose(held_out_exact(K, Y, penalty, members), expected, atol=1e-8)


def test_held_out_from_moments_equals_fitting_again():
    generator = np.random.default_rng(0)
    X, Y = generator.normal(size=(50, 6)) + 2, generator.normal(size=(50, 2))
    folds = np.arange(50) % 4
    columns = np.array([0, 3, 4])
    moments = FoldMoments(X, Y, [np.flatnonzero(folds == f) for f in range(4)])
    found = moments.held_out(3.0, columns)
    for f in range(4):
        model = Ridge(alpha=3.0).fit(X[folds != f][:, columns], Y[folds != f])
        np.testing.assert_allclose(found[folds == f], model.predict(X[folds == f][:, columns]))


@pytest.mark.parametrize("dims", [(3, 5, 4), (300, 50, 20)], ids=["moments", "exact"])
def test_linear_subsets_equal_ridge_on_the_concatenation(dims):
    blocks, y = _blocks(dims=dims)
    Y = 2 * np.eye(3)[y] - 1
    folds = np.arange(60) // 12
    kernels = _kernels(blocks, Y, folds)
    assert kernels.mode == ("moments" if dims[0] == 3 else "exact")
    for subset in (("layer1",), ("layer0", "layer2"), tuple(blocks)):
        X = np.concatenate([StandardScaler().fit_transform(blocks[n]) for n in subset], axis=1)
        for setting, found in kernels.held_out(subset):
            for f in range(5):
                model = Ridge(alpha=setting["penalty"] * X.shape[1])
                expected = model.fit(X[folds != f], Y[folds != f]).predict(X[folds == f])
                np.testing.assert_allclose(found[folds == f], expected, atol=1e-6)


def test_rbf_subsets_equal_the_kernel_of_the_concatenation():
    blocks, y = _blocks()
    Y = 2 * np.eye(3)[y] - 1
    folds = np.arange(60) // 12
    for subset in (("layer1",), ("layer0", "layer2"), tuple(blocks)):
        X = np.concatenate([StandardScaler().fit_transform(blocks[n]) for n in subset], axis=1)
        results = list(_kernels(blocks, Y, folds, kernel="rbf").held_out(subset))
        assert len(results) == 4
        for setting, found in results:
            K = rbf_kernel(X, gamma=setting["width"] / X.shape[1])
            expected = _fitted_again(K, Y, setting["penalty"], folds)
            np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_all_clips_as_landmarks_are_exact(kernel):
    blocks, y = _blocks(dims=(300, 50, 20))
    Y = 2 * np.eye(3)[y] - 1
    folds = np.arange(60) // 12
    exact = _kernels(blocks, Y, folds, kernel=kernel)
    approximate = _kernels(blocks, Y, folds, kernel=kernel, max_exact=10)
    assert (exact.mode, approximate.mode) == ("exact", "landmarks")
    for subset in (("layer1",), tuple(blocks)):
        pairs = zip(exact.held_out(subset), approximate.held_out(subset), strict=True)
        for (_, a), (_, b) in pairs:
            np.testing.assert_allclose(a, b, atol=5e-3)


def _planted(n_layers=5, n=90, seed=0):
    """Two layers that tell the class only together (one half each), the others noise."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, n)
    blocks = {f"l{i}": generator.normal(size=(n, 4)) for i in range(n_layers)}
    blocks["l1"] += 3 * (y // 2)[:, None]
    blocks["l3"] += 3 * (y % 2)[:, None]
    return blocks, y


@pytest.mark.parametrize("method", ["exhaustive", "forward", "backward", "auto"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_planted_layers_are_found(method, kernel):
    blocks, y = _planted()
    seen = []
    choice = choose_layers(
        blocks, y, method=method, kernel=kernel, progress=lambda *s: seen.append(s)
    )
    assert {"l1", "l3"} <= set(choice.layers)
    assert len(choice.layers) <= 3
    assert choice.score > 0.85 > choice.scores["l1",]
    assert choice.score == choice.scores[choice.layers] == max(choice.scores.values())
    assert choice.n_evaluated == len(choice.scores) == len(seen)
    if method in ("exhaustive", "auto"):
        every = [s for r in range(1, 6) for s in itertools.combinations(blocks, r)]
        assert set(choice.scores) == set(every)
        assert choice.method == "exhaustive"
        assert seen[-1] == (31, 31)
    else:
        assert choice.n_evaluated == 15


def test_many_layers_are_searched_both_ways():
    blocks, y = _planted(13, n=60)
    choice = choose_layers(blocks, y, penalties=(1.0,))
    assert choice.method == "forward+backward"
    assert {"l1", "l3"} <= set(choice.layers)
    assert choice.n_evaluated <= 13 * 14


def test_score_is_that_of_the_folds_given():
    blocks, y = _planted()
    pairs = list(StratifiedKFold(4, shuffle=True, random_state=3).split(y, y))
    fold_of = np.empty(len(y), int)
    for i, (_, test) in enumerate(pairs):
        fold_of[test] = i
    by_pairs = choose_layers(blocks, y, folds=pairs, penalties=(0.5,))
    assert by_pairs.scores == choose_layers(blocks, y, folds=fold_of, penalties=(0.5,)).scores
    X = StandardScaler().fit_transform(blocks["l1"])
    decisions = np.empty((len(y), 4))
    for train, test in pairs:
        model = Ridge(alpha=0.5 * 4).fit(X[train], 2 * np.eye(4)[y[train]] - 1)
        decisions[test] = model.predict(X[test])
    assert by_pairs.scores["l1",] == pytest.approx((decisions.argmax(1) == y).mean())


def test_layers_that_mark_the_recording_are_not_chosen():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    y = (np.arange(20) % 2)[groups]
    blocks = {
        "recording": generator.normal(size=(20, 30))[groups]
        + 0.1 * generator.normal(size=(120, 30)),
        "sound": generator.normal(size=(120, 3)) + 1.2 * y[:, None],
    }
    assert "recording" in choose_layers(blocks, y).layers
    assert choose_layers(blocks, y, groups=groups).layers == ("sound",)


def test_other_tasks():
    generator = np.random.default_rng(0)
    blocks, _ = _planted()
    Y = np.c_[blocks["l0"][:, 0] > 0, blocks["l2"][:, 1] > 0.5].astype(int)
    choice = choose_layers(blocks, Y, task="multilabel")
    assert {"l0", "l2"} <= set(choice.layers)
    number = blocks["l4"] @ generator.normal(size=4) * 100 + 7
    assert choose_layers(blocks, number, task="regression").layers == ("l4",)
    assert choose_layers(blocks, number, task="regression").score > 0.99


def test_nested_score_of_noise_is_chance_and_the_chosen_one_is_not():
    n, chosen, nested = 60, [], []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        y = generator.permutation(np.arange(n) % 2)
        blocks = {f"noise{i}": generator.normal(size=(n, 2)) for i in range(6)}
        outer = list(StratifiedKFold(5, shuffle=True, random_state=0).split(y, y))
        chosen.append(choose_layers(blocks, y, folds=outer, penalties=(1.0,)).score)
        honest = nested_choice(blocks, y, None, outer, penalties=(1.0,))
        nested.append(honest.score)
        assert len(honest.choices) == len(honest.fold_scores) == 5
    deviation = 0.5 / np.sqrt(4 * n)
    assert np.mean(chosen) > 0.5 + 3 * deviation
    assert abs(np.mean(nested) - 0.5) < 3 * deviation


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_nested_score_of_planted_layers_is_high(kernel):
    blocks, y = _planted(4)
    outer = list(StratifiedKFold(3).split(y, y))
    nested = nested_choice(blocks, np.array(list("abcd"))[y], None, outer, kernel=kernel)
    assert nested.score > 0.85
    assert all({"l1", "l3"} <= set(choice.layers) for choice in nested.choices)
    assert np.isfinite(nested.decisions).all()
    assert held_out_score("classes", np.eye(4)[y], nested.decisions) == nested.score


def test_nested_with_groups_regression_and_a_missing_class():
    blocks, y = _planted(4)
    groups = np.arange(len(y)) // 3
    outer = [(np.flatnonzero(groups % 3 != i), np.flatnonzero(groups % 3 == i)) for i in range(3)]
    number = blocks["l0"][:, 0]
    assert nested_choice(blocks, number, groups, outer, task="regression").score > 0.95
    rare = y.copy()
    rare[outer[0][1]] = np.where(rare[outer[0][1]] == 3, 9, rare[outer[0][1]])
    score = nested_choice(blocks, rare, groups, outer[:1]).score
    assert 0 < score < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "genetic"}, "exhaustive"),
        ({"kernel": "poly"}, "rbf"),
        ({"task": "detection"}, "multilabel"),
        ({"y": np.zeros(60)}, "one class"),
        ({"y": np.zeros(59)}, r"expected \(59, dims\)"),
        ({"blocks": {}}, "no layers"),
        ({"blocks": {"a": np.full((60, 2), np.nan)}}, "'a' has NaN"),
        ({"folds": np.zeros(60)}, "at least two"),
        ({"folds": [(np.arange(30), np.arange(30, 60))] * 2}, "overlap"),
        ({"folds": [(np.arange(30), np.arange(30, 60))]}, "no fold"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    blocks, y = _blocks()
    arguments = {"blocks": blocks, "y": y, **change}
    with pytest.raises(DataError, match=message):
        choose_layers(**arguments)
