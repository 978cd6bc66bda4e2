"""Witnesses: scipy.stats.permutation_test, exact enumeration by hand, simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score, r2_score

from ossicle.errors import DataError
from ossicle.metrics import compare_runs, paired_difference


def two_runs(
    n_groups: int, size: int, seed: int, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    # Runs share how hard a group is and differ in how each copes with it.
    hard = generator.normal(size=n_groups)[groups]
    own = generator.normal(scale=0.7, size=(2, n_groups))[:, groups]
    noise = generator.normal(size=(2, n_groups * size))
    correct = hard + own + noise + np.array([[gain], [0.0]]) > 0
    return correct[0], correct[1], groups


@pytest.mark.parametrize("n_groups", [8, 40])
def test_p_value_equals_scipy_permutation_test(n_groups: int) -> None:
    a, b, groups = two_runs(n_groups, 5, seed=1, gain=0.5)
    found = paired_difference(a, b, groups=groups)
    sums = np.array([(a[groups == g].sum(), b[groups == g].sum()) for g in range(n_groups)])
    witness = scipy.stats.permutation_test(
        (sums[:, 0], sums[:, 1]),
        lambda one, other, axis: np.sum(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert found["difference"] == pytest.approx(a.mean() - b.mean())
    if n_groups == 8:  # all 256 patterns, on both sides
        assert found["p_value"] == pytest.approx(witness.pvalue)
    else:
        assert found["p_value"] == pytest.approx(witness.pvalue, abs=0.02)


def test_five_groups_cannot_be_significant() -> None:
    groups = np.repeat(np.arange(5), 10)
    found = paired_difference(np.ones(50), np.zeros(50), groups=groups)
    assert found["p_value"] == 2 / 2**5
    assert found["difference"] == 1
    assert found["low"] < 0.2, "the groups all agree, but they are only five"
    # None of 10,000 drawn patterns is as extreme, which does not make the p-value zero.
    assert paired_difference(np.ones(50), np.zeros(50))["p_value"] == 1 / 10_001


def test_equal_runs() -> None:
    correct = np.arange(30) % 3 > 0
    found = paired_difference(correct, correct)
    assert (found["difference"], found["p_value"]) == (0, 1)
    assert found["low"] == -found["high"] < 0


def test_size_and_coverage_under_groups() -> None:
    """No gain: few p-values below 5 %, and intervals hold zero; ignoring groups fails at both."""
    trials = 200
    small = held = naive_small = 0
    for seed in range(trials):
        a, b, groups = two_runs(14, 8, seed=seed)
        options = {"n_resamples": 200, "n_permutations": 400}
        found = paired_difference(a, b, groups=groups, **options)
        small += found["p_value"] <= 0.05
        held += found["low"] <= 0 <= found["high"]
        naive_small += paired_difference(a, b, **options)["p_value"] <= 0.05
    assert small / trials <= 0.09
    assert 0.88 <= held / trials <= 0.99
    assert naive_small / trials > 0.12


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    hard = np.random.default_rng(0).random(200) < 0.5
    better = hard.copy()
    better[np.flatnonzero(~hard)[:12]] = True
    found = paired_difference(better, hard)
    assert found["low"] > 0
    assert found["p_value"] < 0.01
    assert found["high"] - found["low"] < 0.1  # each accuracy alone is known to +-0.07


def test_statistic_path_equals_the_mean_path() -> None:
    a, b, groups = two_runs(9, 4, seed=3, gain=0.4)
    labels = np.ones(len(a), dtype=bool)
    generic = paired_difference(
        a,
        b,
        y_true=labels,
        statistic=lambda true, predicted: float(np.mean(true == predicted)),
        groups=groups,
        n_resamples=200,
    )
    fast = paired_difference(a, b, groups=groups, n_resamples=200)
    assert generic == pytest.approx(fast)


def test_swapping_the_runs_mirrors_the_result() -> None:
    a, b, groups = two_runs(12, 4, seed=4, gain=0.6)
    one, other = (paired_difference(*pair, groups=groups) for pair in ((a, b), (b, a)))
    assert one["difference"] == -other["difference"] != 0
    assert one["p_value"] == pytest.approx(other["p_value"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=0.02)


def run(seed: int = 0, n: int = 40) -> dict:
    generator = np.random.default_rng(seed)
    return {
        "items": [f"clip {i}" for i in range(n)],
        "y_true": np.arange(n) % 4,
        "y_pred": np.where(generator.random(n) < 0.7, np.arange(n) % 4, 0),
        "group": [f"bird {i // 4}" for i in range(n)],
    }


def test_runs_are_aligned_by_item() -> None:
    a, b = run(1), run(2)
    expected = compare_runs(a, b)
    assert expected["n_items"] == 40
    assert expected["n_groups"] == 10
    assert expected["a"] == pytest.approx(np.mean(a["y_pred"] == a["y_true"]))
    order = np.random.default_rng(0).permutation(40)
    shuffled = {key: [values[i] for i in order] for key, values in b.items()}
    assert compare_runs(a, shuffled) == expected


def test_string_labels_and_missing_groups() -> None:
    a, b = run(1), run(2)
    for one in (a, b):
        one["y_true"], one["y_pred"] = (one[key].astype(str) for key in ("y_true", "y_pred"))
    assert compare_runs(a, b) == compare_runs(run(1), run(2))
    a["group"][3], b["group"][3] = None, float("nan")
    assert compare_runs(a, b)["n_groups"] == 11


def test_other_tasks_use_their_primary_score() -> None:
    generator = np.random.default_rng(0)
    options = {"n_resamples": 30, "n_permutations": 30}
    items, groups = list(range(40)), np.repeat(np.arange(10), 4)
    y_true = generator.normal(size=40)
    guesses = [y_true + scale * generator.normal(size=40) for scale in (0.3, 1.0)]
    a, b = (
        {"items": items, "y_true": y_true, "y_pred": guess, "group": groups} for guess in guesses
    )
    found = compare_runs(a, b, task="regression", **options)
    assert found["a"] == pytest.approx(r2_score(y_true, guesses[0]))
    assert found["difference"] == pytest.approx(found["a"] - r2_score(y_true, guesses[1]))
    assert 0 < found["low"] < found["difference"] < found["high"]
    y_true = generator.random((40, 3)) < 0.4
    y_true[:, 2] = False
    guesses = [y_true + scale * generator.normal(size=(40, 3)) for scale in (0.3, 1.0)]
    a, b = ({"items": items, "y_true": y_true, "y_pred": guess} for guess in guesses)
    found = compare_runs(a, b, task="multilabel", **options)
    expected = average_precision_score(y_true[:, :2], guesses[0][:, :2], average="macro")
    assert found["a"] == pytest.approx(expected)


def changed(key: str, index: int, value: object) -> dict:
    one = run(2)
    one[key] = list(one[key])
    one[key][index] = value
    return one


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (changed("y_true", 5, 3), r"labels of 1 items \(first: clip 5\)"),
        (changed("group", 7, "x"), r"groups of 1 items \(first: clip 7\)"),
        (changed("items", 0, "clip 1"), "more than once"),
        (changed("items", 0, "new"), "1 only in the first, 1 only in the second, 39 in both"),
        ({**run(2), "items": range(40)}, "no item in common"),
        ({**run(2), "y_pred": [0]}, "differ in length"),
        ({**run(2), "group": None}, "has groups and the other has none"),
        ({"items": [], "y_true": []}, "lacks y_pred"),
    ],
)
def test_runs_that_do_not_match(other: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_runs(run(1), other)


def test_common_only() -> None:
    found = compare_runs(run(1), changed("items", 0, "new"), common_only=True)
    assert found["n_items"] == 39


def test_bad_arrays() -> None:
    with pytest.raises(DataError, match="one shape"):
        paired_difference([1, 0], [1])
    with pytest.raises(DataError, match="one shape"):
        paired_difference([], [])
    with pytest.raises(DataError, match="one number an item"):
        paired_difference([[1], [0]], [[1], [1]])
    with pytest.raises(DataError, match="y_true"):
        paired_difference([1, 0], [1, 1], statistic=r2_score)
    with pytest.raises(DataError, match="unknown task"):
        compare_runs(run(1), run(2), task="tagging")
