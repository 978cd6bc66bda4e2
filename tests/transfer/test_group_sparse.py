"""Group lasso: stationarity by the slow definition, closed forms, scikit-learn, planted layers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import MultiTaskLasso, Ridge
from sklearn.model_selection import StratifiedKFold

from ossicle.errors import DataError
from ossicle.transfer.group_sparse import (
    group_lasso,
    group_sparse_path,
    largest_penalty,
    layer_coordinates,
    principal_coordinates,
)
from ossicle.transfer.layer_choice import choose_layers, nested_choice
from ossicle.transfer.layer_sums import LayerSums, SumsPath, SumsSearch, sums_probe
from ossicle.transfer.probe import create_probe
from ossicle.transfer.ridge_path import RidgePath


def _problem(n=50, dims=(4, 1, 6, 3), k=2, seed=0):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(n, 2))
    blocks = {
        f"l{i}": generator.normal(size=(n, d)) + common @ generator.normal(size=(2, d)) + 3
        for i, d in enumerate(dims)
    }
    Y = blocks["l0"][:, :1] @ np.ones((1, k)) + blocks["l2"] @ generator.normal(size=(6, k))
    return blocks, Y + generator.normal(size=(n, k)) + 5


def _gradients(blocks, Y, B):
    """Z_l^T (Y - sum Z B) / n of each layer, everything centred; nothing shared with the solver."""
    n = len(Y)
    centred = {name: Z - Z.mean(axis=0) for name, Z in blocks.items()}
    rest = Y - Y.mean(axis=0) - sum(centred[name] @ b for name, b in B.items())
    return {name: Z.T @ rest / n for name, Z in centred.items()}


@pytest.mark.parametrize("weights", [None, (1.0, 0.4, 2.0, 1.0)], ids=["equal", "weighted"])
def test_solution_is_stationary(weights):
    blocks, Y = _problem()
    w = dict(zip(blocks, weights or [1.0] * 4, strict=True))
    largest = largest_penalty(blocks, Y, weights)
    penalties = largest * np.array([0.9, 0.5, 0.2, 0.05, 0.002])
    path = group_lasso(blocks, Y, penalties, weights=weights, tolerance=1e-9, max_sweeps=20_000)
    some_out, some_in = 0, 0
    for penalty, B in zip(penalties, path, strict=True):
        for name, gradient in _gradients(blocks, Y, B).items():
            cost = penalty * w[name]
            if name in B:
                some_in += 1
                expected = cost * B[name] / np.linalg.norm(B[name])
                np.testing.assert_allclose(gradient, expected, atol=1e-7 * largest)
            else:
                some_out += 1
                assert np.linalg.norm(gradient) <= cost * (1 + 1e-7)
    assert some_out >= 3
    assert some_in >= 8
    assert len(path[-1]) == 4


def test_all_layers_are_out_from_the_largest_penalty_on():
    blocks, Y = _problem()
    centred = Y - Y.mean(axis=0)
    slow = max(np.linalg.norm((Z - Z.mean(axis=0)).T @ centred) / len(Y) for Z in blocks.values())
    assert largest_penalty(blocks, Y) == pytest.approx(slow, rel=1e-12)
    assert largest_penalty(blocks, Y, [10.0] * 4) == pytest.approx(slow / 10, rel=1e-12)
    above, below = group_lasso(blocks, Y, [1.0001 * slow, 0.999 * slow], tolerance=1e-8)
    assert not above
    assert len(below) == 1


def test_groups_of_one_column_are_scikit_learns_multi_task_lasso():
    generator = np.random.default_rng(1)
    X = generator.normal(size=(60, 8)) * generator.uniform(0.2, 3, 8) + 1
    Y = X @ generator.normal(size=(8, 3)) * (np.arange(3) + 1) + generator.normal(size=(60, 3))
    blocks = {str(i): X[:, i : i + 1] for i in range(8)}
    for share in (0.6, 0.2, 0.03):
        penalty = share * largest_penalty(blocks, Y)
        (B,) = group_lasso(blocks, Y, [penalty], tolerance=1e-10, max_sweeps=10_000)
        peer = MultiTaskLasso(alpha=penalty, tol=1e-12, max_iter=100_000).fit(X, Y)
        found = np.concatenate([B.get(str(i), np.zeros((1, 3))) for i in range(8)])
        np.testing.assert_allclose(found, peer.coef_.T, atol=1e-6)
        assert {int(name) for name in B} == set(np.flatnonzero(peer.coef_.any(axis=0)))


def test_one_orthonormal_layer_is_shrunk_as_yuan_and_lin_say():
    generator = np.random.default_rng(0)
    Q = np.linalg.qr(generator.normal(size=(30, 5)) - 0)[0]
    Q = np.linalg.qr(Q - Q.mean(axis=0))[0][:, :4]
    Z = np.sqrt(30) * (Q - Q.mean(axis=0))
    Z = np.sqrt(30) * np.linalg.qr(Z)[0]
    Z -= Z.mean(axis=0)
    Y = generator.normal(size=(30, 2))
    S = Z.T @ (Y - Y.mean(axis=0)) / 30
    G = Z.T @ Z / 30
    np.testing.assert_allclose(G, np.eye(4), atol=1e-10)
    penalty = 0.3 * np.linalg.norm(S)
    (B,) = group_lasso({"a": Z}, Y, [penalty], tolerance=1e-12)
    np.testing.assert_allclose(B["a"], (1 - penalty / np.linalg.norm(S)) * S, atol=1e-10)


def test_coordinates_keep_products_and_have_norm_one():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(20, 300)) * generator.uniform(0.1, 5, 300)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    K = Z @ Z.T
    whole = principal_coordinates(K, 20)
    np.testing.assert_allclose(whole @ whole.T, K / (np.trace(K) / 20), atol=1e-9)
    assert np.mean(np.sum(whole**2, axis=1)) == pytest.approx(1.0)
    np.testing.assert_allclose(
        layer_coordinates(X, 20) @ layer_coordinates(X, 20).T, whole @ whole.T, atol=1e-6
    )
    few = principal_coordinates(K, 3)
    values = np.linalg.eigvalsh(K / (np.trace(K) / 20))[::-1]
    np.testing.assert_allclose(np.sum(few**2, axis=0)[::-1], values[:3], rtol=1e-9)
    narrow = generator.normal(size=(40, 6)) + 2
    Z = (narrow - narrow.mean(axis=0)) / narrow.std(axis=0)
    for components in (4, 6):
        found = layer_coordinates(narrow, components)
        expected = principal_coordinates(Z @ Z.T, components)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)
    assert principal_coordinates(np.zeros((5, 5))).shape == (5, 0)


def test_path_scores_are_those_of_fits_without_the_fold():
    blocks, Y = _problem(n=40)
    folds = np.arange(40) % 3
    path = group_sparse_path(
        blocks, Y, folds, lambda p: -float(np.abs(p - Y).max()), n_penalties=4, tolerance=1e-8
    )
    assert path.layers[0] == ()
    for i, penalty in enumerate(path.penalties):
        predicted = np.empty_like(Y)
        for fold in range(3):
            rest = folds != fold
            inside = {name: Z[rest] for name, Z in blocks.items()}
            fits = group_lasso(inside, Y[rest], path.penalties[: i + 1], tolerance=1e-8)
            out = np.tile(Y[rest].mean(axis=0), (np.sum(~rest), 1))
            for name, b in fits[i].items():
                out += (blocks[name][~rest] - blocks[name][rest].mean(axis=0)) @ b
            predicted[~rest] = out
        assert path.scores[i] == pytest.approx(-np.abs(predicted - Y).max(), abs=1e-5)
        found = group_lasso(blocks, Y, path.penalties[: i + 1], tolerance=1e-8)[i]
        assert path.layers[i] == tuple(found)
        assert path.penalties[0] / penalty == pytest.approx(100 ** (i / 3))
    assert path.best == int(np.argmax(path.scores))


def _planted(n=90, seed=0, noise=4):
    """Two layers that tell the class only together, the others noise."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, n)
    blocks = {f"l{i}": generator.normal(size=(n, 6)) for i in range(noise + 2)}
    blocks["l1"] += 3 * (y // 2)[:, None]
    blocks["l3"] += 3 * (y % 2)[:, None]
    return blocks, y


@pytest.mark.parametrize("sizes", [None, {f"l{i}": (2, 4) for i in range(6)}], ids=["", "sizes"])
def test_planted_layers_are_chosen(sizes):
    blocks, y = _planted()
    seen = []
    choice = choose_layers(
        blocks, y, method="group-sparse", block_sizes=sizes, progress=lambda *s: seen.append(s)
    )
    assert {"l1", "l3"} <= set(choice.layers)
    assert choice.method == "group-sparse"
    assert choice.score > 0.85
    assert choice.score == choice.scores[choice.layers] == max(choice.scores.values())
    assert seen[-1] == (6, 6)
    # Alone, at a larger penalty, the two enter before any noise.
    first = min((s for s in choice.scores if len(s) >= 2), key=len)
    assert first == ("l1", "l3")


def test_layers_that_mark_the_recording_are_not_chosen():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    y = (np.arange(20) % 2)[groups]
    blocks = {
        "recording": generator.normal(size=(20, 30))[groups]
        + 0.1 * generator.normal(size=(120, 30)),
        "sound": generator.normal(size=(120, 3)) + 1.2 * y[:, None],
    }
    found = choose_layers(blocks, y, groups=groups, method="group-sparse")
    lenient = choose_layers(blocks, y, method="group-sparse")
    assert "recording" in lenient.layers
    assert lenient.score > 0.95 > found.score


def test_nested_score_of_noise_is_chance():
    scores = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        y = generator.permutation(np.arange(60) % 2)
        blocks = {f"noise{i}": generator.normal(size=(60, 2)) for i in range(4)}
        outer = list(StratifiedKFold(3, shuffle=True, random_state=0).split(y, y))
        nested = nested_choice(blocks, y, None, outer, method="group-sparse")
        assert [c.method for c in nested.choices] == ["group-sparse"] * 3
        scores.append(nested.score)
    assert abs(np.mean(scores) - 0.5) < 3 * 0.5 / np.sqrt(3 * 60)


def test_no_connection_and_bad_shapes_are_told():
    blocks, Y = _problem()
    with pytest.raises(DataError, match="nothing to choose"):
        group_sparse_path(blocks, np.ones((50, 2)), np.arange(50) % 2, lambda p: 0.0)
    with pytest.raises(DataError, match="50 clips"):
        group_lasso({"a": np.zeros((49, 2))}, Y, [1.0])
    with pytest.raises(DataError, match="positive weights"):
        largest_penalty(blocks, Y, [1.0, 0.0, 1.0, 1.0])


# --- products of layers, weighed as the probe weighs them


def _wide(n=60, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 3
    blocks = {
        "a": generator.normal(size=(n, 90)) * generator.uniform(0.001, 5, 90) + y[:, None],
        "b": generator.normal(size=(n, 12)) + 0.7 * (y == 1)[:, None],
        "c": generator.normal(size=(n, 150)),
    }
    sizes = {"a": (60, 30), "b": (12,), "c": (100, 30, 20)}
    return blocks, sizes, y


@pytest.mark.parametrize("subset", [("a",), ("b",), ("b", "c"), ("a", "b", "c")])
def test_probe_on_sums_is_the_ridge_probe_on_the_concatenation(subset):
    blocks, sizes, y = _wide()
    groups = np.arange(60) // 4
    train, test = np.flatnonzero(groups % 4 > 0), np.flatnonzero(groups % 4 == 0)
    sums = LayerSums(blocks, train, test, sizes)
    X = np.concatenate([blocks[name] for name in subset], axis=1)
    flat = [s for name in subset for s in sizes[name]]
    rows = np.arange(60.0)[:, None]
    m = len(train)
    for targets, task in ((y, "classes"), (np.eye(3, dtype=int)[y], "multilabel")):
        expected = create_probe("ridge", task, random_state=0)
        expected.fit(X[train], targets[train], groups[train], flat)
        found = sums_probe(sums, subset, task).fit(rows[:m], targets[train], groups[train])
        assert found.chosen_["penalty"] == pytest.approx(expected.chosen_["penalty"], rel=1e-5)
        for at, of in ((rows[m:], test), (rows[:m], train)):
            np.testing.assert_allclose(
                found.predict_proba(at), expected.predict_proba(X[of]), atol=2e-5
            )
    number = blocks["a"][:, 1] + y
    expected = create_probe("ridge", "regression").fit(X[train], number[train], groups[train], flat)
    found = sums_probe(sums, subset, "regression").fit(rows[:m], number[train], groups[train])
    np.testing.assert_allclose(found.predict(rows[m:]), expected.predict(X[test]), atol=1e-4)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-4), (np.float32, 2e-3)])
def test_search_is_ridge_on_the_weighed_concatenation(dtype, atol):
    blocks, sizes, y = _wide()
    Y = 2 * np.eye(3)[y] - 1
    folds = np.arange(60) // 12
    sums = LayerSums(blocks, block_sizes=sizes)
    search = SumsSearch(sums, Y, folds, (0.03, 1.0), dtype)
    for subset in (("b",), ("a", "c"), ("a", "b", "c")):
        # The probe's weights, by their definition: a block of s columns counts as sqrt(s).
        parts = []
        for name in subset:
            start = 0
            for size in sizes[name]:
                X = blocks[name][:, start : start + size]
                start += size
                s = X.std(axis=0)
                damped = s / np.sqrt(s**2 + 0.01 * np.mean(s**2))
                parts.append((X - X.mean(axis=0)) / s * damped * size**-0.25)
        Z = np.concatenate(parts, axis=1)
        norm = np.mean(np.sum(Z**2, axis=1))
        for setting, found in search.held_out(subset):
            for f in range(5):
                model = Ridge(alpha=setting["penalty"] * norm).fit(Z[folds != f], Y[folds != f])
                np.testing.assert_allclose(
                    found[folds == f], model.predict(Z[folds == f]), atol=atol
                )


def test_path_from_products_with_weights_is_the_path_from_features():
    blocks, _, y = _wide()
    X, Y = blocks["a"], 2 * np.eye(3)[y] - 1
    weight = np.random.default_rng(3).uniform(0.2, 4, 60)
    features = RidgePath(X, Y, weight)
    products = SumsPath(features.span.gram(), Y, weight)
    penalty = 0.1 * features.scale
    assert products.scale == pytest.approx(features.scale)
    folds = np.arange(60) % 4
    np.testing.assert_allclose(
        products.held_out(penalty, folds), features.held_out(penalty, folds), atol=1e-8
    )
    coefficients, bias = features.coefficients(penalty)
    dual, shift = products.dual(penalty)
    np.testing.assert_allclose(
        features.span.gram() @ dual + shift, X @ coefficients.T + bias, atol=1e-8
    )


def test_choosing_among_given_sets_and_from_sums():
    blocks, sizes, y = _wide()
    sums = LayerSums(blocks, block_sizes=sizes)
    given = choose_layers(sums, y, subsets=[("c",), ("b", "a")])
    assert set(given.scores) == {("c",), ("a", "b")}
    assert given.layers == ("a", "b")
    assert given.method == "given"
    by_blocks = choose_layers(blocks, y, block_sizes=sizes, subsets=[("c",), ("a", "b")])
    assert by_blocks.scores == given.scores
    assert choose_layers(sums, y).scores[("a", "b")] == given.score
    with pytest.raises(DataError, match="linear"):
        choose_layers(blocks, y, block_sizes=sizes, kernel="rbf")
    with pytest.raises(DataError, match="60 clips"):
        choose_layers(sums, y[:50])


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_sets_can_be_ranked_by_loss(task):
    blocks, sizes, y = _wide()
    target = y if task == "classes" else blocks["b"][:, 0] + blocks["a"][:, 1]
    sums, folds = LayerSums(blocks, block_sizes=sizes), np.arange(60) % 5
    choice = choose_layers(sums, target, folds=folds, task=task, criterion="loss")
    Y = 2 * np.eye(3)[y] - 1 if task == "classes" else target[:, None]
    losses = {}
    for subset in choice.scores:
        for _, d in SumsSearch(sums, Y, folds).held_out(subset):
            if task == "regression":
                loss = np.sum((d - Y) ** 2) / np.sum((Y - Y.mean()) ** 2)
            else:
                smooth = (60 * np.eye(3)[y] + 1) / 63
                loss = minimize_scalar(
                    lambda t, d=d, s=smooth: -np.sum(s * log_softmax(np.exp(t) * d, axis=1)) / 60,
                    bounds=(-6, 8),
                    method="bounded",
                ).fun
            losses[subset] = min(loss, losses.get(subset, np.inf))
    assert choice.loss == pytest.approx(min(losses.values()), rel=1e-4)
    assert choice.layers == min(losses, key=losses.get)
    assert np.isnan(choose_layers(sums, target, folds=folds, task=task).loss)
    with pytest.raises(DataError, match="'luck'"):
        choose_layers(sums, target, criterion="luck")


def test_nested_choice_gives_the_probe_its_blocks():
    blocks, sizes, y = _wide()
    outer = list(StratifiedKFold(3).split(y, y))
    nested = nested_choice(blocks, y, None, outer, block_sizes=sizes)
    for (train, test), choice in zip(outer, nested.choices, strict=True):
        X = np.concatenate([blocks[name] for name in choice.layers], axis=1)
        flat = [s for name in choice.layers for s in sizes[name]]
        probe = create_probe("ridge", "classes").fit(X[train], y[train], None, flat)
        np.testing.assert_allclose(nested.decisions[test], probe.logits(X[test]))


def test_layers_beside_each_other_need_the_same_clips():
    blocks, sizes, _ = _wide()
    some = np.arange(40)
    sums = LayerSums({"a": blocks["a"]}, some, None, sizes)
    both = sums.beside(LayerSums({"b": blocks["b"]}, some, None, sizes))
    whole = LayerSums({k: blocks[k] for k in "ab"}, some, None, sizes)
    np.testing.assert_array_equal(both.kernel(("a", "b")), whole.kernel(("a", "b")))
    for other in ({"a": blocks["a"]}, {"b": blocks["b"][:50]}):
        with pytest.raises(DataError, match="other clips, or"):
            sums.beside(
                LayerSums(other, some[: len(other.get("b", some))] if "a" in other else None)
            )
