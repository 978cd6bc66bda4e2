"""Intervals of event scores, and all scores in one: resampled recordings made one by one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics.bootstrap import interval
from ossicle.metrics.events import (
    PSDS_SCENARIOS,
    collar_thresholds,
    count_intervals,
    curve,
    curve_intervals,
    event_based,
    event_counts,
    intersection_thresholds,
    psds,
    psds_interval,
    score_events,
    segment_counts,
    threshold_free,
)
from ossicle.metrics.events.counting import Counts
from ossicle.metrics.events.intervals import _Resampler

CLASSES = ("a", "b")


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


def world(recordings=12, seed=0, quality=1.5):
    """Recordings of 20 s with events, an estimate of them and frame scores."""
    random = np.random.default_rng(seed)
    reference, scores, durations = [], {}, {}
    for i in range(recordings):
        values = random.normal(-1.5, 1, (2, 100))
        for k in range(2):
            # The more events, the easier: recordings differ.
            for start in random.choice(9, random.integers(1, 5), replace=False) * 10:
                values[k, start : start + 6] += quality * (1 + i % 3)
                reference.append([f"f{i}", start * 0.2, (start + 6) * 0.2, CLASSES[k]])
        smooth = np.array([np.convolve(row, np.ones(3) / 3, "same") for row in values])
        scores[f"f{i}"] = FrameScores(1 / (1 + np.exp(-smooth)), np.arange(101) * 0.2)
        durations[f"f{i}"] = 20.0
    estimate = []
    for file, (values, edges) in scores.items():
        for label, row in zip(CLASSES, values, strict=True):
            above = np.diff(np.concatenate([[0], row > 0.5, [0]]).astype(int))
            for a, b in zip(np.flatnonzero(above > 0), np.flatnonzero(above < 0), strict=True):
                estimate.append([file, edges[a], edges[b], label])
    return table(reference), table(estimate), scores, durations


def drawn_again(rows, files):
    """The rows of the drawn files, each draw a recording of its own."""
    parts = [rows[rows["file"] == f].assign(file=f"{f} {i}") for i, f in enumerate(files)]
    return pd.concat(parts)


def test_equals_scoring_the_resampled_recordings_themselves():
    reference, estimate, _, durations = world()
    counts = event_counts(reference, estimate, classes=CLASSES, files=list(durations))
    ours = count_intervals(counts, n_resamples=25, random_state=3)
    names = np.array(list(durations))
    for kind, name, bounds in (
        ("micro", "f1", (0, 1)),
        ("macro", "recall", (0, 1)),
        ("micro", "error_rate", (0, np.inf)),
        ("micro", "substitution_rate", (0, 1)),
    ):
        low, high = interval(
            lambda files, kind=kind, name=name: event_based(
                drawn_again(reference, files), drawn_again(estimate, files), classes=CLASSES
            )[kind][name],
            names,
            n_resamples=25,
            random_state=3,
            bounds=bounds,
        )
        assert ours[kind][name]["low"] == pytest.approx(low)
        assert ours[kind][name]["high"] == pytest.approx(high)
        assert low < high


def test_groups_are_drawn_whole():
    """Recordings that are the same thrice over tell no more than one each."""
    reference, estimate, _, durations = world(8)
    copies = {f"{f} {i}": f for i in range(3) for f in durations}
    tripled = [
        pd.concat([rows.assign(file=rows["file"] + f" {i}") for i in range(3)])
        for rows in (reference, estimate)
    ]
    once = count_intervals(
        segment_counts(reference, estimate, durations, classes=CLASSES), random_state=1
    )
    grouped = count_intervals(
        segment_counts(*tripled, dict.fromkeys(copies, 20.0), classes=CLASSES),
        groups=copies,
        random_state=1,
    )
    alone = count_intervals(
        segment_counts(*tripled, dict.fromkeys(copies, 20.0), classes=CLASSES), random_state=1
    )
    for name in ("f1", "recall", "precision"):
        one, two = once["micro"][name], grouped["micro"][name]
        assert one == pytest.approx(two)
        three = alone["micro"][name]
        assert three["high"] - three["low"] < 0.8 * (one["high"] - one["low"])


def test_a_perfect_score_is_not_certain():
    reference, _, _, durations = world(5)
    counts = event_counts(reference, reference, classes=CLASSES, files=list(durations))
    ours = count_intervals(counts)
    # Clopper and Pearson: 5 recordings of 5, one-sided 2.5 %.
    assert ours["micro"]["f1"]["low"] == pytest.approx(0.025 ** (1 / 5))
    assert ours["micro"]["f1"]["high"] == 1
    assert np.isnan(ours["micro"]["error_rate"]["high"])


def test_a_class_of_few_recordings_is_as_unsure_as_they_are():
    """8, 9 or 10 of 10 found in each recording: of class a in 30, of class b in 6 of them."""
    hits = np.zeros((30, 2))
    hits[:, 0] = 8 + np.arange(30) % 3
    hits[:6, 1] = 8, 9, 10, 8, 9, 10
    misses = np.where(hits > 0, 10 - hits, 0)
    files = tuple(f"f{i}" for i in range(30))
    counts = Counts(files, CLASSES, hits, misses, 0 * hits, np.zeros(30))
    ours = count_intervals(counts, n_resamples=4000)["per_class"]
    for name, number in (("a", 30), ("b", 6)):
        row, values = ours[name]["recall"], hits[:number, 0] / 10
        assert row["value"] == 0.9
        # Student's t interval of a mean.
        half = t.ppf(0.975, number - 1) * np.std(values, ddof=1) / np.sqrt(number)
        assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.1)


def test_resampled_curves_with_weights_of_one_lie_on_the_exact_curve():
    reference, _, scores, durations = world()
    found = intersection_thresholds(scores, reference, durations, classes=CLASSES, cttc=0.3)
    resample = _Resampler(found, np.arange(12), 12, crossed=True)
    for k in range(2):
        ours, exact = resample.curve(k, np.ones(12)), curve(found, k)
        place = np.searchsorted(-exact.below, -ours.below, side="right") - 1
        assert (ours.hits == exact.hits[place]).all()
        assert (ours.alarms == exact.alarms[place]).all()
        assert ours.events == exact.events
        assert len(ours.below) > 10


@pytest.mark.parametrize("alpha_ct", [0.0, 0.5])
def test_psds_interval_is_near_that_of_resampled_recordings(alpha_ct):
    reference, _, scores, durations = world()
    options = {"alpha_ct": alpha_ct, "alpha_st": 0.5, "e_max": 1000.0}
    found = intersection_thresholds(
        scores, reference, durations, classes=CLASSES, cttc=0.3 if alpha_ct else None
    )
    ours = psds_interval(found, **options, n_resamples=40)
    exact = psds(scores, reference, durations, classes=CLASSES, cttc=0.3, **options)
    assert ours["psds"]["value"] == pytest.approx(exact["psds"])
    assert ours["per_class"]["a"]["value"] == pytest.approx(exact["per_class"]["a"])

    def score(files):
        names = {f"{f} {i}": f for i, f in enumerate(files)}
        return psds(
            {name: scores[f] for name, f in names.items()},
            drawn_again(reference, files),
            dict.fromkeys(names, 20.0),
            classes=CLASSES,
            cttc=0.3,
            **options,
        )["psds"]

    low, high = interval(score, np.array(list(durations)), n_resamples=40, bounds=(0, 1))
    assert ours["psds"]["low"] == pytest.approx(low, abs=0.02)
    assert ours["psds"]["high"] == pytest.approx(high, abs=0.02)
    assert high - low > 0.05


def test_curve_interval_is_near_that_of_resampled_recordings():
    reference, _, scores, durations = world()
    found = collar_thresholds(scores, reference, classes=CLASSES, collar_s=0.5)
    ours = curve_intervals(found, n_resamples=40)
    exact = threshold_free(found)

    def score(files, name):
        names = {f"{f} {i}": f for i, f in enumerate(files)}
        return threshold_free(
            collar_thresholds(
                {one: scores[f] for one, f in names.items()},
                drawn_again(reference, files),
                classes=CLASSES,
                collar_s=0.5,
            )
        )["macro"][name]

    for name in ("best_f1", "average_precision"):
        assert ours["macro"][name]["value"] == pytest.approx(exact["macro"][name])
        low, high = interval(
            lambda files, name=name: score(files, name),
            np.array(list(durations)),
            n_resamples=40,
            bounds=(0, 1),
        )
        assert ours["macro"][name]["low"] == pytest.approx(low, abs=0.03)
        assert ours["macro"][name]["high"] == pytest.approx(high, abs=0.03)


def test_all_scores_in_one_are_those_of_each_and_ready_for_json():
    reference, estimate, scores, durations = world()
    ours = score_events(reference, estimate, durations, CLASSES, scores=scores, n_resamples=50)
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours
    assert ours["recordings"] == ours["groups"] == 12
    assert ours["hours"] == pytest.approx(12 * 20 / 3600)
    exact = event_based(reference, estimate, classes=CLASSES)
    for kind in ("micro", "macro"):
        for name, value in exact[kind].items():
            assert ours["event"][kind][name]["value"] == pytest.approx(value)
    for name in CLASSES:
        assert ours["event"]["per_class"][name]["hits"] == exact["per_class"][name]["hits"]
    assert ours["onset"]["micro"]["f1"]["value"] >= ours["event"]["micro"]["f1"]["value"]
    for name, options in PSDS_SCENARIOS.items():
        exact_psds = psds(scores, reference, durations, classes=CLASSES, **options, alpha_st=1.0)
        assert ours[name]["psds"]["value"] == pytest.approx(exact_psds["psds"])
    free = ours["threshold_free"]["per_class"]["a"]
    assert 0 < free["threshold"] < 1
    again = score_events(reference, estimate, durations, CLASSES, scores=scores, n_resamples=50)
    assert again == ours


def test_classes_are_those_of_both_tables_unless_given():
    reference = table([["x", 0, 1, "a"]])
    estimate = table([["x", 0, 1, "a"], ["x", 0, 1, "dog"]])
    ours = score_events(reference, estimate, {"x": 3.0}, n_resamples=10)
    assert ours["classes"] == ["a", "dog"]
    assert ours["event"]["micro"]["precision"]["value"] == 0.5  # a false alarm
    assert ours["event"]["macro"]["precision"]["value"] == 1  # over what the reference has
    assert ours["event"]["per_class"]["dog"]["f1"]["value"] is None
    with pytest.raises(DataError, match="'dog' is not among the 1 classes"):
        score_events(reference, estimate, {"x": 3.0}, ["a"])
