"""Event-based scores: exhaustive matching, closed forms, invariants."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import DataError
from ossicle.metrics.events import event_based, event_counts

CLASSES = ("a", "b", "c")


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


# Crowded, in steps of 50 ms, so that collars are met exactly and events compete.
crowd = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.integers(0, 12),
        st.integers(0, 12),
        st.sampled_from(CLASSES[:2]),
    ),
    max_size=6,
).map(lambda rows: [[f, a * 50, (a + n) * 50, label] for f, a, n, label in rows])


def seconds(rows):
    return table([[f, a / 1000, b / 1000, label] for f, a, b, label in rows])


def exhaustive(reference, estimate, collar, share, onset_only):
    """Best (hits, substitutions) in this order, over all matchings; times in ms."""

    def near(one, other):
        if one[0] != other[0] or abs(one[1] - other[1]) > collar:
            return False
        room = max(collar, share * (one[2] - one[1]))
        return onset_only or abs(one[2] - other[2]) <= room + 1e-9

    @cache
    def best(i, used):
        if i == len(reference):
            return (0, 0)
        options = [best(i + 1, used)]
        for j, other in enumerate(estimate):
            if not used >> j & 1 and near(reference[i], other):
                hits, swaps = best(i + 1, used | 1 << j)
                same = reference[i][3] == other[3]
                options.append((hits + same, swaps + (not same)))
        return max(options)

    return best(0, 0)


@settings(max_examples=80, deadline=None)
@given(crowd, crowd, st.sampled_from([50, 100, 200]), st.sampled_from([0, 0.5]), st.booleans())
def test_equals_the_best_of_all_matchings(reference, estimate, collar, share, onset_only):
    counts = event_counts(
        seconds(reference),
        seconds(estimate),
        classes=CLASSES,
        files=["x", "y"],
        collar_s=collar / 1000,
        offset_share=share,
        onset_only=onset_only,
    )
    hits, swaps = exhaustive(reference, estimate, collar, share, onset_only)
    assert (counts.hits.sum(), counts.substitutions.sum()) == (hits, swaps)
    assert counts.misses.sum() == len(reference) - hits
    assert counts.alarms.sum() == len(estimate) - hits


@settings(max_examples=40, deadline=None)
@given(crowd, crowd)
def test_greedy_is_never_better(reference, estimate):
    tables = seconds(reference), seconds(estimate)
    best = event_based(*tables, classes=CLASSES)["micro"]
    greedy = event_based(*tables, classes=CLASSES, matching="greedy")["micro"]
    if not np.isnan(best["f1"]):
        assert greedy["f1"] <= best["f1"] + 1e-12
        assert greedy["error_rate"] >= best["error_rate"] - 1e-12


@settings(max_examples=50, deadline=None)
@given(crowd, crowd, st.randoms())
def test_order_does_not_matter_and_wider_collars_find_no_less(reference, estimate, random):
    one = event_based(seconds(reference), seconds(estimate), classes=CLASSES)
    random.shuffle(reference)
    random.shuffle(estimate)
    two = event_based(seconds(reference), seconds(estimate), classes=CLASSES)
    np.testing.assert_equal(one, two)
    hits = [
        event_counts(
            seconds(reference), seconds(estimate), classes=CLASSES, collar_s=c, onset_only=o
        ).hits.sum()
        for c, o in ((0.0, False), (0.1, False), (0.3, False), (0.3, True), (5.0, True))
    ]
    assert hits == sorted(hits)


@settings(max_examples=30, deadline=None)
@given(crowd)
def test_the_reference_itself_is_perfect_and_silence_finds_nothing(rows):
    reference = seconds(rows)
    same = event_based(reference, reference, classes=CLASSES, collar_s=0.0, offset_share=0.0)
    none = event_based(reference, seconds([]), classes=CLASSES)
    for name in {row[3] for row in rows}:
        assert same["per_class"][name]["f1"] == 1
        assert same["per_class"][name]["error_rate"] == 0
        assert none["per_class"][name]["f1"] == none["per_class"][name]["precision"] == 0
        assert none["per_class"][name]["error_rate"] == 1


def test_files_are_not_mixed():
    reference, estimate = table([["x", 1, 2, "a"]]), table([["y", 1, 2, "a"]])
    counts = event_counts(reference, estimate, classes=["a"])
    assert counts.files == ("x", "y")
    assert counts.hits.sum() == 0
    assert counts.misses[:, 0].tolist() == [1, 0]
    assert counts.alarms[:, 0].tolist() == [0, 1]


def test_the_offset_may_be_off_by_a_share_of_the_length_of_the_reference():
    reference = table([["x", 0, 10, "a"]])
    for offset, found in ((8.0, 1), (12.0, 1), (7.99, 0), (12.01, 0)):
        counts = event_counts(reference, table([["x", 0.2, offset, "a"]]), classes=["a"])
        assert counts.hits.sum() == found, offset


def test_times_on_the_collar_count_whatever_they_are_in_binary():
    """0.9 - 0.7 > 0.2 in floats; sed_eval says no there, and yes at 0.7 - 0.5."""
    edges = json.loads(Path(__file__).with_name("witness").joinpath("cases.json").read_text())
    theirs = []
    for name in ("onset on the collar", "onset on the collar, exact"):
        case = edges["edges"][name]
        ours = event_based(table(case["reference"]), table(case["estimate"]), classes=["bark"])
        assert ours["micro"]["f1"] == 1
        theirs.append(case["sed_eval"]["default"]["event"]["micro"]["f_measure"])
    assert theirs == [0, 1]


def test_a_chain_of_a_thousand_competing_events():
    """Each estimate lies within the collars of several events: still one each, and quick."""
    onset = np.arange(1000) * 0.05
    rows = [["x", t, t + 1, "a"] for t in onset]
    late = [["x", t + 0.2, t + 1.2, "a"] for t in onset]
    counts = event_counts(table(rows), table(late), classes=["a"])
    assert counts.hits.sum() == 1000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"matching": "best"}, "'best' is none of optimal, greedy"),
        ({"collar_s": -0.1}, "collar_s: -0.1"),
        ({"offset_share": 1.5}, "offset_share: 1.5 is not between 0 and 1"),
        ({"estimate": table([["x", 0, 1, "dog"]])}, "estimate: the label 'dog'"),
        ({"files": ["y"]}, "reference: the file 'x' is not among the 1 recordings"),
    ],
)
def test_bad_input_is_named(changed, message):
    given = {"reference": table([["x", 0, 1, "a"]]), "estimate": table([]), "classes": ["a"]}
    with pytest.raises(DataError, match=message):
        event_based(**(given | changed))
