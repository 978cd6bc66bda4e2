"""Equal to sed_eval, sed_scores_eval and psds_eval: their answers are in witness/cases.json.

witness/make_witness.py makes the file, in an environment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ossicle.events import FrameScores
from ossicle.metrics.events import (
    average_precision,
    best_f1,
    collar_thresholds,
    curve,
    event_based,
    intersection_based,
    intersection_thresholds,
    psds,
    psds_of_points,
    segment_based,
    segment_thresholds,
    threshold_free,
)

CASES = json.loads(Path(__file__).with_name("witness").joinpath("cases.json").read_text())
CLOSE = dict(rel=0, abs=1e-10)
# Ours -> sed_eval's.
NAMES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "f_measure",
    "error_rate": "error_rate",
    "deletion_rate": "deletion_rate",
    "insertion_rate": "insertion_rate",
    "substitution_rate": "substitution_rate",
}


def table(rows):
    return pd.DataFrame(rows, columns=["file", "onset", "offset", "label"])


def frames(case):
    hop = case["hop"]
    return {
        file: FrameScores(
            np.array(values, dtype=np.float32) / np.float32(1000),
            np.round(np.arange(len(values[0]) + 1) * hop, 6),
        )
        for file, values in case["scores"].items()
    }


def agree(ours, theirs):
    """Every number that sed_eval gives for this."""
    for name, other in NAMES.items():
        if other not in theirs:
            continue
        value, wanted = ours[name], theirs[other]
        if wanted is None:
            assert np.isnan(value), (name, value)
        else:
            assert value == pytest.approx(wanted, **CLOSE), name


def classes_agree(ours, theirs):
    for name, row in theirs["per_class"].items():
        mine = ours["per_class"][name]
        assert mine["hits"] + mine["misses"] == row["n_ref"]
        assert mine["hits"] + mine["alarms"] == row["n_sys"]
        if row["n_ref"]:
            agree(mine, row)
        else:
            assert np.isnan(mine["f1"])
    if "macro" in theirs:
        agree(ours["macro"], theirs["macro"])


@pytest.mark.parametrize("case", CASES["events"], ids=range(len(CASES["events"])))
def test_segments_as_sed_eval(case):
    ours = segment_based(
        table(case["reference"]),
        table(case["estimate"]),
        case["durations"],
        classes=case["classes"],
        segment_s=case["segment_s"],
    )
    agree(ours["micro"], case["sed_eval"]["segment"]["micro"])
    classes_agree(ours, case["sed_eval"]["segment"])


def events_of(case, **options):
    return event_based(
        table(case["reference"]),
        table(case["estimate"]),
        classes=case["classes"],
        files=list(case["durations"]),
        collar_s=case["collar_s"],
        offset_share=case["offset_share"],
        **options,
    )


@pytest.mark.parametrize("case", CASES["events"], ids=range(len(CASES["events"])))
def test_greedy_events_as_sed_eval(case):
    ours, theirs = events_of(case, matching="greedy"), case["sed_eval"]["greedy"]
    agree(ours["micro"], theirs["micro"])
    classes_agree(ours, theirs)


@pytest.mark.parametrize("kind", ["optimal", "onset"])
@pytest.mark.parametrize("case", CASES["events"], ids=range(len(CASES["events"])))
def test_optimal_events_as_sed_eval(case, kind):
    ours, theirs = events_of(case, onset_only=kind == "onset"), case["sed_eval"][kind]
    classes_agree(ours, theirs)
    rates = ("error_rate", "deletion_rate", "insertion_rate", "substitution_rate")
    agree(ours["micro"], {k: v for k, v in theirs["micro"].items() if k not in rates})
    # sed_eval seeks substitutions in the order of the lists, so it may miss some: docs.
    assert ours["micro"]["substitution_rate"] >= theirs["micro"]["substitution_rate"] - 1e-12
    if ours["micro"]["substitution_rate"] == pytest.approx(theirs["micro"]["substitution_rate"]):
        agree(ours["micro"], theirs["micro"])
    else:
        assert ours["micro"]["error_rate"] < theirs["micro"]["error_rate"]


def test_substitutions_differ_from_sed_eval_only_rarely():
    differ = [
        kind
        for case in CASES["events"]
        for kind in ("optimal", "onset")
        if events_of(case, onset_only=kind == "onset")["micro"]["substitution_rate"]
        != pytest.approx(case["sed_eval"][kind]["micro"]["substitution_rate"])
    ]
    assert len(differ) == 1


@pytest.mark.parametrize("case", [c for c in CASES["events"] if "psds_eval" in c])
def test_intersections_as_psds_eval(case):
    theirs = case["psds_eval"]
    names = theirs["names"]
    estimate = table(case["estimate"])
    ours = intersection_based(
        table(case["reference"]),
        estimate[estimate["label"].isin(names)],
        case["durations"],
        classes=names,
        dtc=case["dtc"],
        gtc=case["gtc"],
        cttc=case["cttc"],
    )
    counts = np.array(theirs["counts"])
    for i, name in enumerate(names):
        row = ours["per_class"][name]
        assert (row["hits"], row["alarms"]) == (counts[i, i], counts[i, -1])
        crossed = [ours["cross_triggers"][name].get(other, 0) for other in names]
        assert crossed == [counts[i, j] if i != j else 0 for j in range(len(names))]
        # Where nothing was found psds_eval has no F1, and leaves the class out of the mean.
        found = theirs["f1"][name]
        assert row["f1"] == (0 if found is None else pytest.approx(found, **CLOSE))
    if None not in theirs["f1"].values():
        assert ours["macro"]["f1"] == pytest.approx(theirs["macro_f1"], **CLOSE)


def runs(case, threshold):
    """The events of frames above a threshold, thousandths."""
    rows, hop = [], case["hop"]
    for file, values in case["scores"].items():
        for label, row in zip(case["classes"], values, strict=True):
            above = np.diff(np.concatenate([[0], np.array(row) > threshold, [0]]).astype(int))
            for a, b in zip(np.flatnonzero(above > 0), np.flatnonzero(above < 0), strict=True):
                rows.append([file, a * hop, b * hop, label])
    return table(rows)


@pytest.mark.parametrize("case", CASES["points"], ids=range(len(CASES["points"])))
def test_psds_of_points_as_psds_eval(case):
    ours = psds_of_points(
        [runs(case, threshold) for threshold in case["thresholds"]],
        table(case["reference"]),
        case["durations"],
        classes=case["classes"],
        **case["options"],
    )
    assert ours["psds"] == pytest.approx(case["psds_eval"], **CLOSE)


@pytest.mark.parametrize("case", CASES["scores"], ids=range(len(CASES["scores"])))
def test_psds_of_scores_as_sed_scores_eval(case):
    ours = psds(
        frames(case),
        table(case["reference"]),
        case["durations"],
        classes=case["classes"],
        **case["options"],
    )
    theirs = case["sed_scores_eval"]["psds"]
    assert ours["psds"] == pytest.approx(theirs["value"], **CLOSE)
    assert ours["per_class"] == pytest.approx(theirs["per_class"], **CLOSE)


def all_thresholds(case, kind):
    scores, reference = frames(case), table(case["reference"])
    if kind == "collar":
        return collar_thresholds(
            scores,
            reference,
            classes=case["classes"],
            collar_s=case["collar_s"],
            offset_share=case["offset_share"],
        )
    if kind == "segment":
        return segment_thresholds(
            scores,
            reference,
            case["durations"],
            classes=case["classes"],
            segment_s=case["segment_s"],
        )
    return intersection_thresholds(
        scores,
        reference,
        case["durations"],
        classes=case["classes"],
        dtc=case["options"]["dtc"],
        gtc=case["options"]["gtc"],
    )


def at(points, below):
    """Hits and alarms for thresholds just below each score."""
    place = np.searchsorted(-points.below, -np.asarray(below), side="right") - 1
    return points.hits[place], points.alarms[place]


@pytest.mark.parametrize("kind", ["collar", "intersection", "segment"])
@pytest.mark.parametrize("case", CASES["scores"], ids=range(len(CASES["scores"])))
def test_all_thresholds_as_sed_scores_eval(case, kind):
    found, theirs = all_thresholds(case, kind), case["sed_scores_eval"][kind]
    free = threshold_free(found)
    for label, name in enumerate(case["classes"]):
        points = curve(found, label)
        ours = best_f1(points)
        assert ours["f1"] == pytest.approx(theirs["f1"][name], **CLOSE)
        area = average_precision(points)
        assert area == pytest.approx(theirs["average_precision"][name], **CLOSE)
        assert free["per_class"][name]["average_precision"] == area
        # Of several best thresholds either may be named; both must give the best F1.
        limit = float(theirs["threshold"][name])
        hits, alarms = at(points, np.nextafter(max(limit, -1.0), np.inf))
        assert 2 * hits == pytest.approx(ours["f1"] * (hits + alarms + points.events))
        if "curves" in theirs:
            row = theirs["curves"][name]
            below = np.array([float(b) for b in row["below"]], dtype=np.float64)
            below = (below.astype(np.float32) / np.float32(1000)).astype(np.float64)
            hits, alarms = at(points, below)
            assert hits.tolist() == row["tps"]
            assert alarms.tolist() == row["fps"]
    assert free["macro"]["best_f1"] == pytest.approx(theirs["f1"]["macro_average"], **CLOSE)
    assert free["macro"]["average_precision"] == pytest.approx(
        theirs["average_precision"]["mean"], **CLOSE
    )


def edge(name, kind="event", **options):
    """Our scores of an edge case, and sed_eval's: by default, and with "zero_score"."""
    case = CASES["edges"][name]
    tables = table(case["reference"]), table(case["estimate"])
    if kind == "event":
        ours = event_based(*tables, classes=case["classes"], **options)
    else:
        ours = segment_based(
            *tables, case["durations"], classes=case["classes"], segment_s=case["segment_s"]
        )
    return ours, case["sed_eval"]["default"][kind], case["sed_eval"]["zero_score"][kind]


@pytest.mark.parametrize("kind", ["event", "segment"])
def test_a_class_that_is_never_estimated_counts_0(kind):
    """sed_eval leaves it out of macro F1 unless told "zero_score", which we follow."""
    ours, default, zero_score = edge("class never estimated", kind)
    assert default["macro"]["f_measure"] == 1
    assert ours["macro"]["f1"] == zero_score["macro"]["f_measure"] == 0.5


@pytest.mark.parametrize("kind", ["event", "segment"])
def test_a_class_without_events_is_left_out_of_macro_averages(kind):
    """sed_eval divides its false alarms by 2e-16, so that the mean error rate is 2e15."""
    ours, default, _ = edge("class not in the reference", kind)
    assert default["macro"]["error_rate"] > 1e15
    assert ours["macro"]["error_rate"] == 0
    assert ours["micro"]["error_rate"] == pytest.approx(default["micro"]["error_rate"]) == 1
    assert default["macro"]["precision"] == 0.5
    assert ours["macro"]["precision"] == 1


def test_segment_borders_are_not_missed_by_rounding():
    """0.3 / 0.1 < 3 in floats: sed_eval lets an event from 0.3 s reach into segment 2 of 0.1 s."""
    ours, default, _ = edge("segment border", "segment")
    assert default["micro"]["recall"] == 0.75
    assert ours["micro"]["recall"] == 1


def test_a_greedy_match_can_miss_what_an_optimal_one_finds():
    ours, default, _ = edge("matching")
    assert ours["micro"]["f1"] == default["micro"]["f_measure"] == 1
    assert edge("matching", matching="greedy")[0]["micro"]["f1"] == 0.5
