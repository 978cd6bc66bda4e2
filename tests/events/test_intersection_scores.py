"""Intersection-based scores and PSDS of points: slow definitions, closed forms, edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import DataError
from ossicle.metrics.events import intersection_based, intersection_counts, psds_of_points
from ossicle.metrics.events.coverage import Coverage
from ossicle.metrics.events.intersection import coverage_of
from ossicle.metrics.events.tables import EventArrays

CLASSES = ("a", "b", "c")
DURATIONS = {"x": 4.0, "y": 4.0}
EDGES = json.loads(Path(__file__).with_name("witness").joinpath("cases.json").read_text())["edges"]


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


rows_of = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.integers(0, 30),
        st.integers(0, 10),
        st.sampled_from(CLASSES),
    ),
    max_size=7,
).map(lambda rows: [[f, a * 100, (a + n) * 100, label] for f, a, n, label in rows])


def seconds(rows):
    return table([[f, a / 1000, b / 1000, label] for f, a, b, label in rows])


def meet(one, other):
    """Milliseconds that two rows share."""
    if one[0] != other[0]:
        return 0
    return max(0, min(one[2], other[2]) - max(one[1], other[1]))


def slow(reference, estimate, dtc, gtc, cttc):
    """The definition of Bilen et al., pair by pair; shares in percent."""
    reference = [row for row in reference if row[2] > row[1]]
    estimate = [row for row in estimate if row[2] > row[1]]
    relevant, alarms = [], dict.fromkeys(CLASSES, 0)
    crossed = np.zeros((3, 3), int)
    for row in estimate:
        inside = {c: sum(meet(row, other) for other in reference if other[3] == c) for c in CLASSES}
        length = row[2] - row[1]
        if inside[row[3]] > 0 and 100 * inside[row[3]] >= dtc * length:
            relevant.append(row)
            continue
        alarms[row[3]] += 1
        for c in CLASSES:
            if c != row[3] and inside[c] > 0 and 100 * inside[c] >= cttc * length:
                crossed[CLASSES.index(row[3]), CLASSES.index(c)] += 1
    hits = dict.fromkeys(CLASSES, 0)
    for row in reference:
        covered = sum(meet(row, other) for other in relevant if other[3] == row[3])
        hits[row[3]] += covered > 0 and 100 * covered >= gtc * (row[2] - row[1])
    return hits, alarms, crossed


@settings(max_examples=80, deadline=None)
@given(rows_of, rows_of, *(st.sampled_from([0, 10, 30, 50, 70, 100]) for _ in range(3)))
def test_equals_the_definition(reference, estimate, dtc, gtc, cttc):
    counts, crossed = intersection_counts(
        seconds(reference),
        seconds(estimate),
        DURATIONS,
        classes=CLASSES,
        dtc=dtc / 100,
        gtc=gtc / 100,
        cttc=cttc / 100,
    )
    hits, alarms, wanted = slow(reference, estimate, dtc, gtc, cttc)
    assert counts.hits.sum(axis=0).tolist() == list(hits.values())
    assert counts.alarms.sum(axis=0).tolist() == list(alarms.values())
    assert crossed.tolist() == wanted.tolist()
    lasting = [row for row in reference if row[2] > row[1]]
    assert (counts.hits + counts.misses).sum() == len(lasting)


@settings(max_examples=60, deadline=None)
@given(rows_of, st.integers(0, 4100), st.integers(0, 4100))
def test_coverage_is_the_sum_of_overlaps(rows, one, other):
    low, high = sorted((one, other))
    group = np.array([CLASSES.index(row[3]) for row in rows], dtype=np.int64)
    onset = np.array([row[1] for row in rows], dtype=np.int64)
    offset = np.array([row[2] for row in rows], dtype=np.int64)
    cover = Coverage(group, onset, offset, 4200)
    for c, name in enumerate(CLASSES):
        wanted = sum(meet([row[0], low, high], row) for row in rows if row[3] == name)
        asked = np.array([c]), np.array([low]), np.array([high])
        assert cover.between(*asked).tolist() == [wanted]
        first, last = cover.meeting(*asked)
        inside = {*cover.order[first[0] : last[0]]}
        meeting = {
            i
            for i, row in enumerate(rows)
            if row[3] == name and row[1] < high and row[2] > low and high > low
        }
        assert meeting <= inside


def test_more_time_than_can_be_counted_is_refused():
    long = EventArrays(*(np.array([number]) for number in (0, 0, 0, 10**11)))
    with pytest.raises(DataError, match="score them in parts"):
        coverage_of(long, 10**6, 1000)


def test_a_long_event_is_not_hidden_by_short_ones_within_it():
    short = [["x", 0.1 * k, 0.1 * k + 0.05, "a"] for k in range(1, 20)]
    reference = table([["x", 0, 4, "a"], *short])
    counts, _ = intersection_counts(
        reference, table([["x", 2.0, 4.0, "a"]]), DURATIONS, classes=CLASSES, dtc=0.5, gtc=0.5
    )
    assert counts.hits.sum() == 1


def test_half_a_find_and_half_an_event():
    reference = table([["x", 0, 2, "a"], ["x", 2, 3, "b"]])
    estimate = table([["x", 1, 3, "a"]])  # half in "a", half in "b"
    kept = intersection_based(reference, estimate, DURATIONS, classes=CLASSES, dtc=0.5, gtc=0.5)
    assert kept["per_class"]["a"]["hits"] == 1
    assert kept["per_class"]["a"]["alarms"] == 0
    assert kept["cross_triggers"]["a"] == {"b": 0, "c": 0}  # relevant finds trigger nothing
    lost = intersection_based(reference, estimate, DURATIONS, classes=CLASSES, dtc=0.51, gtc=0.5)
    assert lost["per_class"]["a"]["hits"] == 0
    assert lost["per_class"]["a"]["alarms"] == 1
    assert lost["cross_triggers"]["a"] == {"b": 1, "c": 0}


@settings(max_examples=30, deadline=None)
@given(rows_of)
def test_the_reference_itself_is_perfect(rows):
    reference = seconds(rows)
    ours = intersection_based(
        reference, reference, DURATIONS, classes=CLASSES, dtc=1.0, gtc=1.0, cttc=1.0
    )
    for name in {row[3] for row in rows if row[2] > row[1]}:
        assert ours["per_class"][name]["f1"] == 1


@settings(max_examples=30, deadline=None)
@given(rows_of, rows_of)
def test_stricter_criteria_find_no_more(reference, estimate):
    tables = seconds(reference), seconds(estimate)
    for name in ("dtc", "gtc"):
        hits = [
            intersection_counts(*tables, DURATIONS, classes=CLASSES, **{name: share})[0].hits.sum()
            for share in (0.1, 0.4, 0.7, 1.0)
        ]
        assert hits == sorted(hits, reverse=True)


def test_a_share_met_exactly_is_met_whatever_it_is_in_binary():
    """sed_scores_eval and we round to the microsecond; psds_eval sees 0.7 - 1e-16 and says no."""
    case = EDGES["share met exactly"]
    ours = intersection_based(
        table(case["reference"]),
        table(case["estimate"]),
        case["durations"],
        classes=["bark", "chirp"],
    )
    assert ours["per_class"]["bark"]["f1"] == 1 == case["sed_scores_eval"]["bark"]
    assert case["psds_eval"]["f1"]["bark"] is None
    assert case["psds_eval"]["macro_f1"] == 1  # the class that it lost is left out


@pytest.mark.parametrize("names", ["bark", "bark chirp"])
def test_psds_of_two_points_is_the_area_of_two_stairs(names):
    """1 of 4 found at 10 false alarms an hour, 3 of 4 at 50: (40 / 4 + 50 x 3 / 4) / 100."""
    case = EDGES["stairs"]
    ours = psds_of_points(
        [table(rows) for rows in case[names]["estimates"]],
        table(case[names]["reference"]),
        case["durations"],
        classes=names.split(),
        dtc=0.5,
        gtc=0.5,
    )
    assert ours["psds"] == pytest.approx(0.475)
    assert ours["roc"]["rate"] == pytest.approx([0, 10, 50])
    assert ours["roc"]["found"] == [0, 0.25, 0.75]
    # With one class psds_eval takes the mean over no other class, and all is lost.
    assert case[names]["step"] == pytest.approx(0.475 if " " in names else 0)


def test_cross_triggers_and_spread_lower_psds():
    durations = {"x": 3600.0}
    reference = table([["x", 0, 1, "a"], ["x", 10, 11, "b"], ["x", 20, 21, "a"]])
    first = table([["x", 0, 1, "a"], ["x", 10, 11, "a"]])  # 1 alarm, 1 cross-trigger with "b"
    both = {"classes": ["a", "b"], "dtc": 0.5, "gtc": 0.5, "e_max": 10000.0}
    plain = psds_of_points([first], reference, durations, **both)
    assert plain["per_class"]["a"] == pytest.approx(0.5 * (1 - 1 / 10000))
    assert plain["psds"] == pytest.approx(0.25 * (1 - 1 / 10000))
    # eFPR = 1 an hour + 0.5 x 1 cross-trigger in 1 s of "b" = 1801 an hour.
    crossed = psds_of_points([first], reference, durations, **both, alpha_ct=0.5)
    assert crossed["per_class"]["a"] == pytest.approx(0.5 * (1 - 1801 / 10000))
    # Found: 0.5 of "a", 0 of "b": mean 0.25, standard deviation 0.25.
    spread = psds_of_points([first], reference, durations, **both, alpha_st=0.4)
    assert spread["psds"] == pytest.approx((0.25 - 0.4 * 0.25) * (1 - 1 / 10000))


def test_a_class_without_events_is_left_out_of_psds():
    reference = table([["x", 0, 1, "a"]])
    ours = psds_of_points([reference], reference, {"x": 10.0}, classes=["a", "b"])
    assert ours["psds"] == ours["per_class"]["a"] == 1
    assert np.isnan(ours["per_class"]["b"])
    empty = psds_of_points([reference], table([]), {"x": 10.0}, classes=["a"])
    assert np.isnan(empty["psds"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"estimates": []}, "at least one table"),
        ({"dtc": 1.2}, "dtc: 1.2 is not between 0 and 1"),
        ({"alpha_ct": -1.0}, "alpha_ct: -1.0"),
        ({"alpha_st": -1.0}, "alpha_st: -1.0"),
        ({"e_max": 0.0}, "e_max: 0.0"),
    ],
)
def test_bad_settings_are_named(changed, message):
    given = {
        "estimates": [table([])],
        "reference": table([["x", 0, 1, "a"]]),
        "durations": {"x": 10.0},
        "classes": ["a"],
    }
    with pytest.raises(DataError, match=message):
        psds_of_points(**(given | changed))
