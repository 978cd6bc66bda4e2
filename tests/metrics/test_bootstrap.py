"""Witnesses: scikit-learn on arrays resampled item by item, scipy.stats.bootstrap, simulation."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ossicle.errors import DataError
from ossicle.metrics import interval, mean_interval, score, with_intervals
from ossicle.metrics.bootstrap import agreement_interval, draw, group_codes, limits
from ossicle.metrics.weighted import (
    count_statistics,
    ranking_statistics,
    regression_statistics,
    weighted_ranks,
)

CLASSES = ("a", "b", "c")


def clustered(
    n_groups: int, size: int, seed: int, num_classes: int = 3, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, rounded (tied) scores and groups; a group's items err alike."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y_true = generator.integers(num_classes, size=n_groups * size)
    y_score = generator.normal(size=(len(y_true), num_classes))
    y_score += spread * generator.normal(size=(n_groups, num_classes))[groups]
    y_score[np.arange(len(y_true)), y_true] += 1.2
    return y_true, np.round(y_score, 1), groups


def resampled_indices(counts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The item indices of one resample, group after group, drawn as often as counted."""
    return np.concatenate(
        [np.flatnonzero(codes == g) for g, count in enumerate(counts) for _ in range(count)]
    )


def test_weighted_classes_equal_sklearn_on_resampled_arrays() -> None:
    y_true, y_score, groups = clustered(7, 4, seed=1)
    y_true[(y_true == 2) & (groups < 6)] = 0
    y_true[-1] = 2  # class 2 lives in one group, which many resamples miss
    one_hot, y_pred = np.eye(3, dtype=bool)[y_true], y_score.argmax(axis=1)
    (counts,) = draw(7, 40, 0, 40)
    weights = counts[:, groups].astype(float)
    found = count_statistics(one_hot, np.eye(3, dtype=bool)[y_pred], single=True)(weights)
    found |= ranking_statistics(one_hot, y_score, binary=False)(weights)
    missing = 0
    for row, count in enumerate(counts):
        index = resampled_indices(count, groups)
        true, predicted, scores = y_true[index], y_pred[index], y_score[index]
        present = np.unique(true)
        missing += len(present) < 3
        expected = {
            "accuracy": sk.accuracy_score(true, predicted),
            "balanced_accuracy": sk.recall_score(
                true, predicted, labels=present, average="macro", zero_division=0
            ),
            "macro_f1": sk.f1_score(
                true, predicted, labels=present, average="macro", zero_division=0
            ),
            "auc": np.mean([sk.roc_auc_score(true == c, scores[:, c]) for c in present]),
            "map": np.mean([sk.average_precision_score(true == c, scores[:, c]) for c in present]),
        }
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)
    assert missing > 0, "the case of a missing class was not met"


def test_weighted_multilabel_equals_sklearn_on_resampled_arrays() -> None:
    _, y_score, groups = clustered(12, 3, seed=2, num_classes=4)
    y_true = y_score + np.random.default_rng(0).normal(size=y_score.shape) > 1.2
    y_pred = y_score > 0.8
    (counts,) = draw(12, 30, 3, 30)
    weights = counts[:, groups].astype(float)
    found = count_statistics(y_true, y_pred, single=False)(weights)
    found |= ranking_statistics(y_true, y_score, binary=False)(weights)
    for row, count in enumerate(counts):
        index = resampled_indices(count, groups)
        true, predicted, scores = y_true[index], y_pred[index], y_score[index]
        here = [c for c in range(4) if true[:, c].any()]
        assert found["micro_f1"][row] == pytest.approx(
            sk.f1_score(true, predicted, average="micro")
        )
        assert found["macro_f1"][row] == pytest.approx(
            sk.f1_score(true, predicted, labels=here, average="macro", zero_division=0)
        )
        assert found["map"][row] == pytest.approx(
            sk.average_precision_score(true[:, here], scores[:, here], average="macro")
        )
        assert found["auc"][row] == pytest.approx(
            np.mean([sk.roc_auc_score(true[:, c], scores[:, c]) for c in here])
        )


def test_weighted_regression_equals_scipy_on_resampled_arrays() -> None:
    generator = np.random.default_rng(4)
    y_true = np.round(generator.normal(loc=1000.0, size=30), 1)
    y_pred = np.round(y_true + generator.normal(size=30), 1)
    groups = np.repeat(np.arange(10), 3)
    (counts,) = draw(10, 30, 0, 30)
    weights = counts[:, groups].astype(float)
    found = regression_statistics(y_true, y_pred)(weights)
    ranks = weighted_ranks(y_true, weights)
    for row, count in enumerate(counts):
        index = resampled_indices(count, groups)
        true, predicted = y_true[index], y_pred[index]
        expected = {
            "r2": sk.r2_score(true, predicted),
            "mae": sk.mean_absolute_error(true, predicted),
            "rmse": sk.root_mean_squared_error(true, predicted),
            "pearson": scipy.stats.pearsonr(true, predicted).statistic,
            "spearman": scipy.stats.spearmanr(true, predicted).statistic,
        }
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)
        assert ranks[row, index] == pytest.approx(scipy.stats.rankdata(true))


def test_flat_labels_in_a_resample_are_not_a_perfect_or_endless_score() -> None:
    y_true = np.array([0.1] * 6 + [0.7])
    weights = np.random.default_rng(0).integers(1, 5, size=(100, 7)).astype(float)
    weights[:, 6] = 0  # all that differ from the rest are missing; sums still round
    found = regression_statistics(y_true, np.linspace(0.2, 0.8, 7))(weights)
    for name in ("r2", "pearson", "spearman"):
        assert np.isnan(found[name]).all(), name


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(20), 4)])
def test_fast_mean_and_with_intervals_equal_the_generic_path(groups: np.ndarray | None) -> None:
    y_true, y_score, _ = clustered(20, 4, seed=5)
    y_pred = y_score.argmax(axis=1)
    options = {"groups": groups, "n_resamples": 200, "random_state": 7, "bounds": (0.0, 1.0)}
    generic = interval(sk.accuracy_score, y_true, y_pred, **options)
    assert mean_interval(y_true == y_pred, **options) == pytest.approx(generic)
    found = with_intervals(
        "classes", y_true, y_pred, y_score, CLASSES, groups, n_resamples=200, random_state=7
    )
    assert found["accuracy"]["value"] == pytest.approx(np.mean(y_true == y_pred))
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == pytest.approx(generic)

    def mean_ap(true: np.ndarray, scores: np.ndarray) -> float:
        return float(sk.average_precision_score(np.eye(3)[true], scores, average="macro"))

    generic = interval(mean_ap, y_true, y_score, **options)
    assert (found["map"]["low"], found["map"]["high"]) == pytest.approx(generic)


@pytest.mark.parametrize("task", ["classes", "binary", "multilabel", "regression"])
def test_values_are_those_of_score(task: str) -> None:
    y_true, y_score, groups = clustered(10, 5, seed=6, num_classes=2 if task == "binary" else 3)
    names: tuple[str, ...] = CLASSES
    if task == "binary":
        task, names = "classes", ("a", "b")
    if task == "multilabel":
        y_true = np.eye(3, dtype=int)[y_true]
    if task == "regression":
        y_score = y_score[:, 0]
    found = with_intervals(task, y_true, None, y_score, names, groups, n_resamples=50)
    expected = score(task, y_true, None, y_score, names)
    assert {name: entry["value"] for name, entry in found.items()} == pytest.approx(expected)
    assert all(type(number) is float for entry in found.values() for number in entry.values())


def test_binary_auc_interval_is_of_the_second_class() -> None:
    y_true, y_score, groups = clustered(20, 5, seed=8, num_classes=2)
    found = with_intervals("classes", y_true, None, y_score, ("a", "b"), groups, n_resamples=100)
    generic = interval(
        lambda true, second: float(sk.roc_auc_score(true, second)),
        y_true,
        y_score[:, 1],
        groups=groups,
        n_resamples=100,
    )
    assert (found["auc"]["low"], found["auc"]["high"]) == pytest.approx(generic)


def test_scipy_bootstrap_agrees_without_groups() -> None:
    y_true, y_score, _ = clustered(100, 4, seed=9, spread=0.0)
    y_pred = y_score.argmax(axis=1)
    found = with_intervals("classes", y_true, y_pred, None, CLASSES, n_resamples=4000)

    def check(name: str, statistic: Callable[..., float]) -> None:
        witness = scipy.stats.bootstrap(
            (y_true, y_pred),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=1500,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        width = witness.high - witness.low
        assert found[name]["low"] == pytest.approx(witness.low, abs=0.08 * width)
        assert found[name]["high"] == pytest.approx(witness.high, abs=0.08 * width)

    check("accuracy", lambda true, predicted: float(np.mean(true == predicted)))

    def balanced(true: np.ndarray, predicted: np.ndarray) -> float:
        return float(np.mean([np.mean(predicted[true == c] == c) for c in range(3)]))

    check("balanced_accuracy", balanced)


def test_few_groups_are_as_wide_as_student_t() -> None:
    values = np.random.default_rng(0).normal(size=8)
    low, high = mean_interval(values, n_resamples=40_000, bounds=None)
    half = scipy.stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    plain = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=0)
    assert (high - low) > 1.15 * np.ptp(plain.confidence_interval)


def test_coverage_of_clustered_accuracy() -> None:
    """95 % intervals hold the truth about as often as they say; ignoring groups they do not."""
    generator = np.random.default_rng(11)
    n_groups, size, trials = 15, 8, 300
    grouped = naive = 0
    for trial in range(trials):
        ability = generator.beta(3, 1.5, size=n_groups)  # mean 2/3
        correct = generator.random((n_groups, size)) < ability[:, None]
        groups = np.repeat(np.arange(n_groups), size)
        options = {"n_resamples": 300, "random_state": trial}
        low, high = mean_interval(correct.ravel(), groups=groups, **options)
        grouped += low <= 2 / 3 <= high
        low, high = mean_interval(correct.ravel(), **options)
        naive += low <= 2 / 3 <= high
    assert 0.88 <= grouped / trials <= 0.99
    assert naive / trials < 0.86


def test_mean_average_precision_is_not_below_its_own_interval() -> None:
    """Drawing positives twice lifts average precision; the interval is freed of that."""
    generator = np.random.default_rng(0)
    y_true = generator.integers(40, size=1200)
    y_score = generator.normal(size=(1200, 40))
    y_score[np.arange(1200), y_true] += 1.5
    names = [str(c) for c in range(40)]
    entry = with_intervals("classes", y_true, None, y_score, names, n_resamples=200)["map"]
    below, above = entry["value"] - entry["low"], entry["high"] - entry["value"]
    assert 0.5 < below / above < 2


def test_perfect_accuracy_is_not_certain() -> None:
    """All right: the Clopper-Pearson limit on the number of groups (scipy is the witness)."""
    y_true = np.repeat([0, 1, 2], 20)
    groups = np.repeat(np.arange(12), 5)
    y_score = np.eye(3)[y_true]
    found = with_intervals("classes", y_true, None, y_score, CLASSES, groups, n_resamples=50)
    for n_trials, entry in ((12, found["accuracy"]), (4, found["balanced_accuracy"])):
        exact = scipy.stats.binomtest(n_trials, n_trials).proportion_ci(0.95, method="exact")
        assert (entry["low"], entry["high"]) == pytest.approx((exact.low, 1.0))
    for name in ("macro_f1", "auc", "map"):
        assert found[name]["low"] < 0.5
        assert found[name]["high"] == 1.0
    alone = mean_interval(np.ones(60))
    assert alone.low == pytest.approx(scipy.stats.binomtest(60, 60).proportion_ci(0.95).low)
    nothing = mean_interval(np.zeros(60))
    assert nothing == pytest.approx((0.0, scipy.stats.binomtest(0, 60).proportion_ci(0.95).high))
    assert agreement_interval(0.5, 10).low < 0.5 < agreement_interval(0.5, 10).high


def test_one_group_says_next_to_nothing() -> None:
    y_true, y_score, _ = clustered(1, 50, seed=3)
    found = with_intervals("classes", y_true, None, y_score, CLASSES, ["one"] * 50)
    assert found["accuracy"]["high"] - found["accuracy"]["low"] > 0.95
    values = np.random.default_rng(0).normal(size=(2, 50))
    regression = with_intervals("regression", *values, groups=["one"] * 50)
    assert np.isnan([regression["r2"]["low"], regression["mae"]["high"]]).all()
    assert np.isnan(interval(np.median, values[0], groups=["one"] * 50)).all()


def test_resamples_without_a_value_are_left_out() -> None:
    known = np.linspace(0.4, 0.6, 101)
    with_gaps = np.concatenate([known, np.full(90, np.nan)])
    assert limits(with_gaps, 0.5, 50) == limits(known, 0.5, 50)
    mostly_gaps = np.concatenate([known, np.full(110, np.nan)])
    assert np.isnan(limits(mostly_gaps, 0.5, 50)).all()


def test_limits_hold_the_value_of_a_skewed_score() -> None:
    samples = np.array([1.0] * 999 + [-10.0])
    for sign in (1, -1):
        found = limits(sign * samples, sign * 0.5, 50)
        assert found.low <= sign * 0.5 <= found.high


def test_missing_groups_stand_alone() -> None:
    codes, n_groups = group_codes(["x", None, "y", float("nan"), "x"], 5)
    assert n_groups == 4
    assert codes[0] == codes[4]
    assert len({codes[0], codes[1], codes[2], codes[3]}) == 4
    with pytest.raises(DataError, match="5 items but 2 groups"):
        group_codes(["x", "y"], 5)
    with pytest.raises(DataError, match="one length"):
        interval(np.mean, [])


def test_draws_do_not_depend_on_the_block() -> None:
    whole = np.concatenate(list(draw(13, 50, 4, 50)))
    assert whole.shape == (50, 13)
    assert (whole.sum(axis=1) == 13).all()
    assert (np.concatenate(list(draw(13, 50, 4, 7))) == whole).all()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_groups=st.integers(2, 12),
    size=st.integers(1, 5),
    num_classes=st.integers(2, 4),
)
def test_limits_hold_the_value(seed: int, n_groups: int, size: int, num_classes: int) -> None:
    y_true, y_score, groups = clustered(n_groups, size, seed, num_classes)
    names = [str(c) for c in range(num_classes)]
    found = with_intervals("classes", y_true, None, y_score, names, groups, n_resamples=60)
    for entry in found.values():
        if np.isnan(entry["low"]):
            assert np.isnan(entry["high"])
        else:
            assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), new=st.permutations([0, 1, 2]))
def test_relabelling_and_reordering_within_groups(seed: int, new: list[int]) -> None:
    y_true, y_score, groups = clustered(8, 4, seed)
    options = {"n_resamples": 60, "random_state": seed}
    found = with_intervals("classes", y_true, None, y_score, CLASSES, groups, **options)
    generator = np.random.default_rng(seed)
    # Groups keep their order of appearance, which is what the draws refer to.
    order = np.concatenate([generator.permutation(np.flatnonzero(groups == g)) for g in range(8)])
    renamed = np.empty_like(y_score)
    renamed[:, new] = y_score
    again = with_intervals(
        "classes",
        np.array(new)[y_true[order]],
        np.array(new)[y_score.argmax(axis=1)[order]],
        renamed[order],
        CLASSES,
        [f"recording {g}" for g in groups[order]],
        **options,
    )
    for name, entry in found.items():
        assert again[name] == pytest.approx(entry, nan_ok=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_copies_within_groups_add_no_certainty(seed: int) -> None:
    y_true, y_score, groups = clustered(10, 4, seed)
    found, copied, alone, copied_alone = (
        with_intervals(
            "classes",
            np.repeat(y_true, k),
            None,
            np.repeat(y_score, k, axis=0),
            CLASSES,
            np.repeat(groups, k) if grouped else None,
            n_resamples=150,
        )["accuracy"]
        for grouped in (True, False)
        for k in (1, 5)
    )
    assert copied == pytest.approx(found)
    assert copied_alone["high"] - copied_alone["low"] < 0.7 * (alone["high"] - alone["low"])


def test_quick_enough() -> None:
    y_true, y_score, groups = clustered(500, 4, seed=0, num_classes=10)
    start = time.process_time()
    names = [str(c) for c in range(10)]
    with_intervals("classes", y_true, None, y_score, names, groups, n_resamples=1000)
    assert time.process_time() - start < 3
