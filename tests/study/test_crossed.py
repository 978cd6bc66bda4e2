"""Intervals over groups and seeds, against closed forms and a slow bootstrap with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, r2_score, roc_auc_score

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import agreement_interval
from ossicle.study.crossed import Crossed, metrics_of

NAMES = ("a", "b")


def answers(right: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(A, S, n) whether right -> (A, S, n, 2) decisions."""
    label = np.where(right, y, 1 - y)
    return np.eye(2)[label] * 0.8 + 0.1


def alone(n: int) -> np.ndarray:
    return np.arange(n).astype(str)


def test_seeds_that_agree_leave_the_error_of_a_mean():
    n = 80
    y = np.arange(n) % 2
    right = np.broadcast_to(np.arange(n) % 5 > 0, (1, 3, n))
    found = Crossed("classes", y, answers(right, y), NAMES, alone(n), n_resamples=20_000)
    whole = found.contrast("accuracy", [1.0])
    assert whole["value"] == pytest.approx(0.8)
    # s / sqrt(n) of 80 items, and Student's t with 79 degrees of freedom.
    error = stats.sem(right[0, 0])
    assert whole["deviation"] == pytest.approx(error, rel=0.03)
    low, high = stats.t.interval(0.95, n - 1, loc=0.8, scale=error)
    assert whole["high"] - whole["low"] == pytest.approx(high - low, rel=0.03)
    assert whole["high"] - 0.8 == pytest.approx(0.8 - whole["low"])


def test_groups_count_not_their_clips():
    sizes = np.repeat([6, 2], 10)
    groups = np.repeat(np.arange(20), sizes)
    y = np.arange(80) % 2
    by_group = np.arange(20) % 5 > 0
    right = np.broadcast_to(by_group[groups], (1, 2, 80))
    names = groups.astype(str)
    found = Crossed("classes", y, answers(right, y), NAMES, names, n_resamples=20_000)
    assert found.n_groups == 20
    # 19 of the 20 groups drawn, whole: the share of right clips among theirs.
    drawn = np.random.default_rng(5).integers(20, size=(20_000, 19))
    slow = (by_group * sizes)[drawn].sum(1) / sizes[drawn].sum(1)
    assert found.contrast("accuracy", [1.0])["deviation"] == pytest.approx(slow.std(), rel=0.03)


def test_clips_that_agree_leave_the_error_over_seeds():
    """Four networks that are right on everything and four that never are: the seed is all."""
    n = 40
    y = np.arange(n) % 2
    of_seed = np.arange(8) < 4
    right = np.broadcast_to(of_seed[None, :, None], (1, 8, n))
    found = Crossed("classes", y, answers(right, y), NAMES, alone(n), n_resamples=20_000)
    whole = found.contrast("accuracy", [1.0])
    error = stats.sem(of_seed)
    assert whole["deviation"] == pytest.approx(error, rel=0.03)
    # Student's t with 7 degrees of freedom: however many clips there are.
    low, high = stats.t.interval(0.95, 7, loc=0.5, scale=error)
    assert (whole["low"], whole["high"]) == pytest.approx((low, high), abs=0.015)
    # With fewer seeds it reaches beyond what an accuracy can be, and stops there.
    few = Crossed("classes", y, answers(right[:, 3:5], y), NAMES, alone(n))
    assert tuple(few.contrast("accuracy", [1.0])[k] for k in ("low", "high")) == (0.0, 1.0)


def test_what_settings_share_leaves_their_difference_alone():
    rng = np.random.default_rng(0)
    n = 200
    y = np.arange(n) % 2
    one = rng.random((3, n)) < np.array([0.5, 0.7, 0.9])[:, None]
    other = one.copy()
    other[:, :10] = True
    decisions = answers(np.stack([one, other]), y)
    found = Crossed("classes", y, decisions, NAMES, alone(n), n_resamples=4_000)
    gained = (other.astype(float) - one).mean(0)
    difference = found.contrast("accuracy", [-1.0, 1.0])
    assert difference["value"] == pytest.approx(gained.mean())
    single = found.contrast("accuracy", [0.0, 1.0])
    assert difference["deviation"] < 0.25 * single["deviation"]
    nothing = found.contrast("accuracy", [0.0, 0.0])
    assert nothing["value"] == nothing["deviation"] == 0.0


def test_nothing_between_two_settings_is_no_certainty():
    n = 30
    y = np.arange(n) % 2
    right = np.broadcast_to(np.arange(n) % 3 > 0, (2, 2, n))
    found = Crossed("classes", y, answers(right, y), NAMES, alone(n))
    same = found.contrast("accuracy", [1.0, -1.0])
    want = agreement_interval(0.0, n, 0.95, (-1.0, 1.0))
    assert (same["low"], same["high"]) == pytest.approx(tuple(want))
    assert same["low"] < -0.05 < 0.05 < same["high"]


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
def test_scores_and_spread_are_those_of_a_slow_bootstrap(task):
    rng = np.random.default_rng(1)
    a, s, n, k = 2, 3, 36, 3
    groups = np.repeat(np.arange(18), 2).astype(str)
    noise = rng.normal(size=(a, s, n, k)) * np.array([1.0, 2.0])[:, None, None, None]
    noise += 0.7 * rng.normal(size=(1, s, 1, k))
    if task == "regression":
        y = rng.normal(size=n)
        decisions = y[:, None] + 0.5 * noise[..., :1]
    elif task == "classes":
        y = np.arange(n) % k
        raw = np.exp(2 * np.eye(k)[y] + noise)
        decisions = raw / raw.sum(-1, keepdims=True)
    else:
        y = (rng.random((n, k)) < 0.4).astype(int)
        decisions = 1 / (1 + np.exp(-(2 * y - 1 + noise)))

    def slow(metric: str, rows: np.ndarray, given: np.ndarray) -> float:
        if task == "regression":
            return r2_score(y[rows], given[rows, 0])
        one_hot = y if task == "multilabel" else np.eye(k)[y]
        if metric == "auc":
            return roc_auc_score(one_hot[rows], given[rows], average="macro")
        if metric == "map":
            return average_precision_score(one_hot[rows], given[rows], average="macro")
        return accuracy_score(y[rows], given[rows].argmax(1))

    found = Crossed(task, y, decisions, tuple("xyz"), groups, n_resamples=3_000)
    assert found.metrics == metrics_of(task)
    weights = np.array([1.0, -1.0])
    drawn = np.random.default_rng(2)
    samples: dict[str, list[float]] = {metric: [] for metric in found.metrics}
    for _ in range(120):
        chosen = drawn.integers(18, size=17)
        rows = np.concatenate([np.flatnonzero(groups == str(g)) for g in chosen])
        seeds = drawn.integers(s, size=s - 1)
        for metric in found.metrics:
            means = [np.mean([slow(metric, rows, decisions[i, j]) for j in seeds]) for i in (0, 1)]
            samples[metric].append(weights @ means)
    for metric in found.metrics:
        for i in range(a):
            for j in range(s):
                want = slow(metric, np.arange(n), decisions[i, j])
                assert found.scores[metric][i, j] == pytest.approx(want)
        difference = found.contrast(metric, weights)
        assert difference["value"] == pytest.approx(weights @ found.scores[metric].mean(1))
        assert difference["low"] < difference["value"] < difference["high"]
        # 120 draws tell a deviation to about 7 %.
        assert difference["deviation"] == pytest.approx(np.nanstd(samples[metric]), rel=0.2)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Accuracies with a clip's and a seed's own luck: 95 % intervals, 120 repetitions."""
    rng = np.random.default_rng(3)
    n, s, held = 40, 3, 0
    y = np.arange(n) % 2
    for i in range(120):
        chance = 0.6 + 0.12 * rng.normal(size=(1, s, 1)) + 0.1 * rng.normal(size=(1, 1, n))
        right = rng.random((1, s, n)) < chance
        found = Crossed(
            "classes",
            y,
            answers(right, y),
            NAMES,
            alone(n),
            n_resamples=100,
            seed=i,
        )
        whole = found.contrast("accuracy", [1.0])
        held += whole["low"] <= 0.6 <= whole["high"]
    # Clipping at 0 and 1 shifts the truth a little; binomial noise of 120 is 2 %.
    assert 0.90 <= held / 120 <= 1.0


def test_one_seed_and_one_group():
    n = 20
    y = np.arange(n) % 2
    right = (np.arange(n) % 4 > 0)[None, None]
    single = Crossed("classes", y, answers(right, y), NAMES, alone(n), n_resamples=5_000)
    assert single.contrast("accuracy", [1.0])["deviation"] == pytest.approx(
        stats.sem(right[0, 0]), rel=0.05
    )
    assert "its luck is not in" in single.how()
    whole = Crossed("classes", y, answers(right, y), NAMES, np.full(n, "g"))
    assert np.isnan(whole.contrast("accuracy", [1.0])["low"])
    assert whole.contrast("accuracy", [1.0])["value"] == 0.75
    with pytest.raises(DataError, match="settings, seeds"):
        Crossed("classes", y[:-1], answers(right, y), NAMES, alone(n - 1))


def test_one_metric_alone_has_the_numbers_it_has_among_others():
    generator = np.random.default_rng(4)
    y = generator.integers(0, 2, 60)
    decisions = answers(generator.random((2, 3, 60)) < 0.7, y)
    options = {"n_resamples": 200, "seed": 3}
    whole = Crossed("classes", y, decisions, NAMES, alone(60), **options)
    one = Crossed("classes", y, decisions, NAMES, alone(60), metrics=("accuracy",), **options)
    assert one.contrast("accuracy", [1.0, -1.0]) == whole.contrast("accuracy", [1.0, -1.0])
    value, resampled, freedom = one.draws("accuracy", np.array([1.0, -1.0]))
    by_hand = accuracy_of(decisions[0], y) - accuracy_of(decisions[1], y)
    assert value == pytest.approx(by_hand)
    assert resampled.shape == (200,)
    assert resampled.std() == whole.contrast("accuracy", [1.0, -1.0])["deviation"]
    assert 1 <= freedom <= 59 + 2


def accuracy_of(decisions: np.ndarray, y: np.ndarray) -> float:
    """The mean over seeds."""
    return float(np.mean([accuracy_score(y, each.argmax(1)) for each in decisions]))
