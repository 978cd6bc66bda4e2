"""Scores at all thresholds: each threshold on its own, decided and scored, is the witness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics.events import (
    average_precision,
    best_f1,
    collar_thresholds,
    curve,
    event_counts,
    intersection_counts,
    intersection_thresholds,
    psds,
    psds_of_points,
    segment_counts,
    segment_thresholds,
    threshold_free,
)
from ossicle.metrics.events.detections import all_detections, nearest_lower

CLASSES = ("a", "b")
COLLAR = {"collar_s": 0.3, "offset_share": 0.5}
SHARES = {"dtc": 0.4, "gtc": 0.5}


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


@st.composite
def problems(draw):
    """Scores of two files, frames of unequal length, few levels so that many are equal."""
    scores, durations = {}, {}
    for file in ("x", "y"):
        frames = draw(st.integers(0, 14))
        steps = draw(st.lists(st.integers(1, 4), min_size=frames, max_size=frames))
        edges = np.concatenate([[0], np.cumsum(steps)]) * 0.1
        values = draw(
            st.lists(st.integers(0, 6), min_size=2 * frames, max_size=2 * frames).map(np.array)
        )
        scores[file] = FrameScores(values.reshape(2, frames).astype(np.float32) / 6, edges)
        durations[file] = max(float(edges[-1]), 0.1)
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["x", "y"]),
                st.integers(0, 30),
                st.integers(0, 12),
                st.sampled_from(CLASSES),
            ),
            max_size=6,
        )
    )
    return scores, table([[f, a / 10, (a + n) / 10, c] for f, a, n, c in rows]), durations


def decided(scores, threshold):
    """The events of frames above a threshold, by walking through the frames."""
    rows = []
    for file, (values, edges) in scores.items():
        for label, row in zip(CLASSES, values, strict=True):
            onset = None
            for t, value in enumerate(row):
                if value > threshold and onset is None:
                    onset = edges[t]
                if value <= threshold and onset is not None:
                    rows.append([file, onset, edges[t], label])
                    onset = None
            if onset is not None:
                rows.append([file, onset, edges[-1], label])
    return table(rows)


def thresholds_of(scores):
    """One below each score that occurs, and one above all."""
    levels = np.unique(np.concatenate([values.ravel() for values, _ in scores.values()]))
    return [float(level) - 0.01 for level in levels] + [2.0]


def at(points, threshold):
    """Hits and alarms of a curve at a threshold."""
    place = np.flatnonzero(points.below > threshold)[-1]
    return int(points.hits[place]), int(points.alarms[place])


@settings(max_examples=30, deadline=None)
@given(problems())
def test_every_threshold_equals_events_decided_there(problem):
    scores, reference, durations = problem
    given = {"classes": CLASSES}
    found = {
        "collar": collar_thresholds(scores, reference, **given, **COLLAR),
        "onset": collar_thresholds(scores, reference, **given, collar_s=0.2, onset_only=True),
        "intersection": intersection_thresholds(scores, reference, durations, **given, **SHARES),
        "segment": segment_thresholds(scores, reference, durations, **given, segment_s=0.25),
    }
    for threshold in thresholds_of(scores):
        rows = decided(scores, threshold)
        files = {"files": list(scores)}
        counts = {
            "collar": event_counts(reference, rows, **given, **files, **COLLAR),
            "onset": event_counts(reference, rows, **given, **files, collar_s=0.2, onset_only=True),
            "intersection": intersection_counts(reference, rows, durations, **given, **SHARES)[0],
            "segment": segment_counts(reference, rows, durations, **given, segment_s=0.25),
        }
        for kind, one in counts.items():
            for k in range(2):
                wanted = one.hits[:, k].sum(), one.alarms[:, k].sum()
                assert at(curve(found[kind], k), threshold) == wanted, (kind, k, threshold)
                if kind != "segment":
                    assert curve(found[kind], k).events == (one.hits + one.misses)[:, k].sum()


@settings(max_examples=30, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0]))
def test_psds_equals_that_of_a_point_at_every_threshold(problem, alpha_ct, alpha_st):
    scores, reference, durations = problem
    options = {
        "classes": CLASSES,
        "cttc": 0.3,
        **SHARES,
        "alpha_ct": alpha_ct,
        "alpha_st": alpha_st,
        "e_max": 2000.0,
    }
    every = [decided(scores, threshold) for threshold in thresholds_of(scores)]
    ours = psds(scores, reference, durations, **options)
    wanted = psds_of_points(every, reference, durations, **options)
    assert ours["psds"] == pytest.approx(wanted["psds"], nan_ok=True)
    assert ours["per_class"] == pytest.approx(wanted["per_class"], nan_ok=True)
    # Some of the points only: never more.
    some = psds_of_points(every[::2], reference, durations, **options)
    for name in CLASSES:
        if not np.isnan(wanted["per_class"][name]):
            assert some["per_class"][name] <= ours["per_class"][name] + 1e-12


@settings(max_examples=30, deadline=None)
@given(problems())
def test_best_f1_and_area_from_a_walk_over_thresholds(problem):
    scores, reference, _ = problem
    found = collar_thresholds(scores, reference, classes=CLASSES, **COLLAR)
    free = threshold_free(found)
    for k, name in enumerate(CLASSES):
        points = curve(found, k)
        best, area = best_f1(points), average_precision(points)
        if not points.events:
            assert np.isnan([best["f1"], area]).all()
            continue
        walked = []
        for threshold in thresholds_of(scores):
            one = event_counts(
                reference,
                decided(scores, threshold),
                classes=CLASSES,
                files=list(scores),
                **COLLAR,
            )
            walked.append((one.hits[:, k].sum(), one.alarms[:, k].sum()))
        assert best["f1"] == pytest.approx(max(2 * h / (h + a + points.events) for h, a in walked))
        hits, alarms = at(points, best["threshold"] if best["f1"] else 2.0)
        assert best["f1"] == pytest.approx(2 * hits / (hits + alarms + points.events))
        # Area: for each number of events found the best precision, times the step to it.
        area_walked, before = 0.0, 0
        for number in sorted({h for h, _ in walked} - {0}):
            precision = max(h / (h + a) for h, a in walked if h == number)
            area_walked += precision * (number - before) / points.events
            before = number
        assert area == pytest.approx(area_walked)
        assert free["per_class"][name]["best_f1"] == best["f1"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.booleans())
def test_nearest_lower_equals_looking_back(values, equal):
    line = np.array(values, dtype=np.float32)
    wanted = [
        max((j for j in range(i) if (values[j] <= v if equal else values[j] < v)), default=-1)
        for i, v in enumerate(values)
    ]
    assert nearest_lower(line, equal=equal).tolist() == wanted


def test_detections_of_two_peaks():
    scores = {"x": FrameScores(np.array([[0.2, 0.9, 0.5, 0.7, 0.2]]), np.arange(6) * 1.0)}
    (found,) = all_detections(scores, ["x"], ["a"])
    rows = sorted(zip(found.onset / 1e6, found.offset / 1e6, found.upper, found.lower, strict=True))
    assert rows == [
        (0, 5, 0.2, -np.inf),
        (1, 2, 0.9, 0.5),
        (1, 4, 0.5, 0.2),
        (3, 4, 0.7, 0.5),
    ]


def test_parts_of_a_large_set_give_the_same(monkeypatch):
    from ossicle.metrics.events import detections

    random = np.random.default_rng(1)
    edges = np.arange(31) * 0.1
    scores = {f"f{i}": FrameScores(random.random((2, 30)), edges) for i in range(6)}
    reference = table([[f"f{i}", 0.4, 1.5, CLASSES[i % 2]] for i in range(6)])
    whole = threshold_free(collar_thresholds(scores, reference, classes=CLASSES))
    monkeypatch.setattr(detections, "_BLOCK", 100)
    parts = threshold_free(collar_thresholds(scores, reference, classes=CLASSES))
    np.testing.assert_equal(whole, parts)


def perfect():
    edges = np.arange(41) * 0.1
    values = np.zeros((2, 40))
    values[0, 5:15] = values[1, 20:32] = 0.8
    reference = table([["x", 0.5, 1.5, "a"], ["x", 2.0, 3.2, "b"]])
    return {"x": FrameScores(values, edges)}, reference, {"x": 4.0}


def test_perfect_scores_are_perfect_in_every_way():
    scores, reference, durations = perfect()
    for found in (
        collar_thresholds(scores, reference, classes=CLASSES),
        intersection_thresholds(scores, reference, durations, classes=CLASSES),
        segment_thresholds(scores, reference, durations, classes=CLASSES, segment_s=0.1),
    ):
        free = threshold_free(found)
        assert free["micro"]["best_f1"] == free["macro"]["best_f1"] == 1
        assert free["macro"]["average_precision"] == 1
        assert free["per_class"]["a"]["threshold"] == pytest.approx(0.4)  # midway
    assert psds(scores, reference, durations, classes=CLASSES)["psds"] == 1
    strict = {"alpha_ct": 1.0, "alpha_st": 1.0, "dtc": 1.0, "gtc": 1.0}
    assert psds(scores, reference, durations, classes=CLASSES, **strict)["psds"] == 1


@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(0.2, 5.0))
def test_only_the_order_of_scores_matters(problem, power):
    """A rising function of the scores changes no curve, only the thresholds."""
    scores, reference, durations = problem
    bent = {f: FrameScores(s.scores.astype(float) ** power, s.edges) for f, s in scores.items()}
    one, two = (
        threshold_free(collar_thresholds(s, reference, classes=CLASSES)) for s in (scores, bent)
    )
    for kind in ("micro", "macro"):
        np.testing.assert_equal(one[kind], two[kind])
    np.testing.assert_equal(
        psds(scores, reference, durations, classes=CLASSES)["per_class"],
        psds(bent, reference, durations, classes=CLASSES)["per_class"],
    )


def test_a_silent_model_has_best_f1_0_at_no_threshold():
    edges = np.arange(11) * 1.0
    scores = {"x": FrameScores(np.zeros((1, 10)), edges)}
    found = collar_thresholds(scores, table([["x", 2, 3, "a"]]), classes=["a"])
    row = threshold_free(found)["per_class"]["a"]
    assert row["best_f1"] == row["average_precision"] == 0
    assert row["threshold"] == np.inf


GOOD = np.arange(4) * 1.0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "there are none for x"),
        ({"x": FrameScores(np.zeros((2, 3)), GOOD)}, r"x: \(2, 3\) scores and \(4,\) edges"),
        ({"x": FrameScores(np.zeros((1, 4)), GOOD)}, "do not fit 1 classes"),
        ({"x": FrameScores(np.full((1, 3), np.nan), GOOD)}, "x: there are scores that are no num"),
        ({"x": FrameScores(np.zeros((1, 3)), GOOD[::-1])}, "x: the edges"),
        (
            {"x": FrameScores(np.zeros((1, 3)), GOOD), "y": FrameScores(np.zeros((1, 3)), GOOD)},
            "y is not among",
        ),
    ],
)
def test_bad_scores_are_named(scores, message):
    with pytest.raises(DataError, match=message):
        psds(scores, table([]), {"x": 3.0}, classes=["a"])
