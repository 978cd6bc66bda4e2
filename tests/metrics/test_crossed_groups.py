"""Intervals over items that share groups two by two: against simulation and the plain bootstrap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ossicle.errors import DataError
from ossicle.metrics import mean_interval
from ossicle.metrics.crossed_groups import crossed_interval, crossed_means


def test_means_are_those_of_items_repeated_as_often_as_their_groups() -> None:
    values = np.array([1.0, 4.0, 9.0, 20.0])
    groups = [("a", "b"), ("a", "c"), ("b", "c"), ("d",)]
    means, n_groups = crossed_means(values, groups, n_resamples=50, random_state=3)
    assert n_groups == 4
    rng = np.random.default_rng(3)
    for mean, counts in zip(means, rng.multinomial(4, [0.25] * 4, size=50), strict=True):
        drawn = dict(zip("abcd", counts, strict=True))
        repeated = [
            value
            for value, own in zip(values, groups, strict=True)
            for _ in range(int(np.prod([drawn[name] for name in own])))
        ]
        assert mean == pytest.approx(np.mean(repeated)) if repeated else np.isnan(mean)


def test_with_one_group_an_item_it_is_the_usual_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    values = rng.standard_normal(120) + np.repeat(rng.standard_normal(30), 4)
    found = crossed_interval(values, [(g,) for g in groups], n_resamples=4000)
    usual = mean_interval(values, groups=groups, n_resamples=4000, bounds=None)
    np.testing.assert_allclose(found, usual, atol=0.06)


def test_shared_speakers_make_it_wider_and_it_holds_the_truth() -> None:
    # A mixture's score is the sum of what its two speakers are worth; the truth is twice the mean.
    hits, plain_hits, trials = 0, 0, 150
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        worth = rng.standard_normal(12)
        pairs = list(itertools.combinations(range(12), 2))
        values = np.array([worth[a] + worth[b] for a, b in pairs]) + 0.3 * rng.standard_normal(66)
        named = [(f"s{a}", f"s{b}") for a, b in pairs]
        low, high = crossed_interval(values, named, n_resamples=400)
        hits += low <= 0 <= high
        low, high = mean_interval(values, groups=[*map("+".join, named)], bounds=None)
        plain_hits += low <= 0 <= high
    assert hits >= 0.9 * trials
    assert plain_hits < 0.7 * trials  # pairs as groups of their own: too narrow by far


def test_one_group_alone_has_no_interval() -> None:
    assert np.isnan(crossed_interval([1.0, 2.0], [("a",), ("a", "a")])).all()


def test_it_is_the_same_each_time_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.arange(40.0), [(f"g{i % 7}", f"h{i % 5}") for i in range(40)]
    first = crossed_interval(values, groups, random_state=1)
    assert crossed_interval(values, groups, random_state=1) == first
    assert crossed_interval(values, groups, random_state=2) != first
    monkeypatch.setattr("ossicle.metrics.crossed_groups._AT_ONCE", 400)
    assert crossed_interval(values, groups, random_state=1) == first


def test_lengths_must_agree() -> None:
    for values, groups in (([], []), ([1.0], []), ([1.0], [("a",), ("b",)])):
        with pytest.raises(DataError, match="lists of groups"):
            crossed_interval(values, groups)
