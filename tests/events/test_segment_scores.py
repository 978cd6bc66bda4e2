"""Segment-based scores: a slow definition, closed forms, invariants."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import DataError
from ossicle.metrics.events import segment_based, segment_counts

CLASSES = ("a", "b", "c")


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


# Times in milliseconds, so that fractions are exact.
events = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.integers(0, 4000),
        st.integers(0, 2500),
        st.sampled_from(CLASSES),
    ),
    max_size=8,
).map(lambda rows: table([[f, a / 1000, (a + n) / 1000, label] for f, a, n, label in rows]))
DURATIONS = {"x": 3.7, "y": 5.0}


def slow(reference, estimate, durations, segment):
    """Sets of active classes, segment by segment, with exact fractions."""
    sums = dict.fromkeys(("tp", "fp", "fn", "s", "d", "i", "n"), 0)
    width = Fraction(str(segment))
    for file, duration in durations.items():
        for k in range(math.ceil(Fraction(str(duration)) / width)):
            low, high = k * width, (k + 1) * width
            active = []
            for rows in (reference, estimate):
                own = rows[rows["file"] == file]
                active.append(
                    {
                        row.label
                        for row in own.itertuples()
                        if Fraction(str(row.onset)) < high
                        and Fraction(str(row.offset)) > low
                        and (
                            row.offset > row.onset
                            or Fraction(str(row.onset)) > low  # 0 s long, within the segment
                        )
                    }
                )
            missed, wrong = len(active[0] - active[1]), len(active[1] - active[0])
            sums["tp"] += len(active[0] & active[1])
            sums["fn"] += missed
            sums["fp"] += wrong
            sums["s"] += min(missed, wrong)
            sums["d"] += max(0, missed - wrong)
            sums["i"] += max(0, wrong - missed)
            sums["n"] += len(active[0])
    return sums


@settings(max_examples=25, deadline=None)
@given(events, events, st.sampled_from([1.0, 0.5, 0.1, 0.7]))
def test_equals_sets_of_classes(reference, estimate, segment):
    ours = segment_based(reference, estimate, DURATIONS, classes=CLASSES, segment_s=segment)
    sums = slow(reference, estimate, DURATIONS, segment)
    micro, n = ours["micro"], sums["n"]
    total = {k: sum(row[k] for row in ours["per_class"].values()) for k in ("hits", "alarms")}
    assert (total["hits"], total["alarms"]) == (sums["tp"], sums["fp"])
    if not n:
        assert np.isnan([micro["f1"], micro["recall"], micro["error_rate"]]).all()
        return
    assert micro["recall"] == pytest.approx(sums["tp"] / n)
    assert micro["f1"] == pytest.approx(2 * sums["tp"] / (2 * sums["tp"] + sums["fp"] + sums["fn"]))
    assert micro["substitution_rate"] == pytest.approx(sums["s"] / n)
    assert micro["deletion_rate"] == pytest.approx(sums["d"] / n)
    assert micro["insertion_rate"] == pytest.approx(sums["i"] / n)
    assert micro["error_rate"] == pytest.approx((sums["s"] + sums["d"] + sums["i"]) / n)


@settings(max_examples=30, deadline=None)
@given(events)
def test_the_reference_itself_is_perfect(reference):
    ours = segment_based(reference, reference, DURATIONS, classes=CLASSES, segment_s=0.25)
    for row in (ours["micro"], *ours["per_class"].values()):
        if not np.isnan(row["f1"]):
            assert row["f1"] == row["precision"] == row["recall"] == 1
            assert row["error_rate"] == 0


@settings(max_examples=30, deadline=None)
@given(events, events, st.randoms())
def test_order_of_rows_and_files_does_not_matter(reference, estimate, random):
    def shuffled(rows):
        order = list(range(len(rows)))
        random.shuffle(order)
        return rows.iloc[order]

    one = segment_based(reference, estimate, DURATIONS, classes=CLASSES)
    two = segment_based(
        shuffled(reference), shuffled(estimate), {"y": 5.0, "x": 3.7}, classes=CLASSES
    )
    np.testing.assert_equal(one, two)


def test_nothing_estimated():
    ours = segment_based(
        table([["x", 0.2, 2.5, "a"]]), table([]), {"x": 3.0}, classes=["a", "b"], segment_s=1.0
    )
    assert ours["micro"]["precision"] == ours["micro"]["f1"] == 0
    assert ours["micro"]["error_rate"] == ours["micro"]["deletion_rate"] == 1
    assert np.isnan(ours["per_class"]["b"]["f1"])
    assert ours["macro"]["f1"] == 0  # only over "a"


def test_nothing_at_all_is_not_defined():
    ours = segment_based(table([]), table([]), {"x": 3.0}, classes=["a"])
    assert np.isnan(list(ours["micro"].values())).all()
    assert np.isnan(list(ours["macro"].values())).all()


def test_events_are_cut_at_the_end_of_the_recording():
    long = table([["x", 1.0, 60.0, "a"]])
    counts = segment_counts(long, long, {"x": 2.5}, classes=["a"], segment_s=0.5)
    assert counts.hits.tolist() == [[3]]
    late = table([["x", 7.0, 8.0, "a"]])
    counts = segment_counts(late, late, {"x": 2.5}, classes=["a"], segment_s=0.5)
    assert counts.hits.tolist() == [[0]]


def test_many_recordings_are_counted_in_parts(monkeypatch):
    from ossicle.metrics.events import segment

    random = np.random.default_rng(0)
    names = [f"f{i}" for i in random.integers(20, size=200)]
    onset = random.uniform(0, 9, 200)
    rows = table(list(zip(names, onset, onset + 1, random.choice(CLASSES, 200), strict=True)))
    durations = {f"f{i}": 10.0 for i in range(20)}
    whole = segment_counts(rows[:120], rows[60:], durations, classes=CLASSES)
    monkeypatch.setattr(segment, "_BLOCK", 70)
    parts = segment_counts(rows[:120], rows[60:], durations, classes=CLASSES)
    assert (whole.table() == parts.table()).all()
    assert whole.substitutions.sum() > 0


BAD = [
    ([["x", -1, 2, "a"]], "onset -1"),
    ([["x", 2, 1, "a"]], "0 <= onset <= offset"),
    ([["x", 0, np.inf, "a"]], "must be numbers"),
    ([["x", "soon", 1, "a"]], "onset soon"),
    ([["z", 0, 1, "a"]], "'z' is not among the 1 recordings"),
    ([["x", 0, 1, "dog"]], "'dog' is not among the 1 classes"),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
@pytest.mark.parametrize("role", ["reference", "estimate"])
def test_bad_events_are_named(rows, message, role):
    tables = {"reference": table([]), "estimate": table([]), role: table(rows)}
    with pytest.raises(DataError, match=message) as caught:
        segment_based(**tables, durations={"x": 3.0}, classes=["a"])
    assert str(caught.value).startswith(role)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"durations": {}}, "no recording"),
        ({"durations": {"x": 0.0}}, "x: 0.0 is no number of seconds above 0"),
        ({"durations": {"x": "long"}}, "x: long"),
        ({"classes": []}, "at least one"),
        ({"classes": ["a", "a"]}, "none of them twice"),
        ({"segment_s": 0.0}, "segment_s: 0.0"),
        ({"reference": pd.DataFrame({"file": ["x"]})}, "reference: has no column onset"),
    ],
)
def test_bad_settings_are_named(changed, message):
    given = {
        "reference": table([]),
        "estimate": table([]),
        "durations": {"x": 3.0},
        "classes": ["a"],
    }
    with pytest.raises(DataError, match=message):
        segment_based(**(given | changed))
