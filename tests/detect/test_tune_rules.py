"""Witnesses: `decode` and `ossicle.metrics.events` on tables, every rule of a grid, scipy's
matching, the same search on fewer recordings."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ossicle.datasets.folds import make_folds
from ossicle.detect.decoder import decode
from ossicle.detect.outcomes import Outcomes, most_pairs
from ossicle.detect.rule_search import Lines, Search
from ossicle.detect.rules import ClassRule, Rules
from ossicle.detect.tune import fit_rules
from ossicle.errors import DataError
from ossicle.events import FrameScores, event_table
from ossicle.metrics.events.collar import event_based, event_counts
from ossicle.metrics.events.intersection import intersection_counts
from ossicle.metrics.events.segment import segment_counts

OFF = {"medians_s": [0], "low_shares": [1], "min_gaps_s": [0], "min_durations_s": [0]}
GRIDS = {
    "median_s": (0.0, 0.1),
    "low_share": (1.0, 0.5),
    "min_gap_s": (0.0, 0.1),
    "min_duration_s": (0.0, 0.1),
}


def recordings(
    number: int,
    classes: tuple[str, ...],
    seed: int,
    *,
    digits: int = 7,
    noise: float = 1.0,
    rate: int = 2,
) -> tuple[dict[str, FrameScores], pd.DataFrame]:
    """Noisy scores of 3 s in frames of 20 ms, and the events that they are of."""
    generator = np.random.default_rng(seed)
    frames, rows = {}, []
    for i in range(number):
        logits = generator.normal(size=(len(classes), 150)) * noise - 2
        for k, label in enumerate(classes):
            for _ in range(generator.integers(0, rate + 1)):
                onset = generator.uniform(0, 2.2)
                offset = onset + generator.uniform(0.2, 0.8)
                rows.append({"file": f"f{i}", "onset": onset, "offset": offset, "label": label})
                first, last = int((onset + generator.normal(0, 0.03)) / 0.02), int(offset / 0.02)
                logits[k, max(first, 0) : last] += 3
        scores = np.round(1 / (1 + np.exp(-logits)), digits).astype(np.float32)
        frames[f"f{i}"] = FrameScores(scores, np.arange(151) * 0.02)
    return frames, event_table(rows)


def estimates(frames: dict[str, FrameScores], rules: Rules) -> pd.DataFrame:
    return event_table(
        {"file": file, **event._asdict()}
        for file, part in frames.items()
        for event in decode(part, rules.classes, rules)
    )


def f1_by_tables(frames, reference, rules, **options) -> dict[str, float]:
    scores = event_based(
        reference, estimates(frames, rules), classes=rules.classes, files=list(frames), **options
    )
    return {label: row["f1"] for label, row in scores["per_class"].items()}


def search_of(
    frames, reference, label="a", criterion="event", row=0, classes=1, **options
) -> Search:
    lines = Lines(list(frames.values()), classes)
    outcomes = Outcomes(
        reference[reference["label"] == label],
        list(frames),
        label,
        lines.ends_s,
        criterion=criterion,
        **options,
    )
    return Search(lines, row, outcomes, GRIDS)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_counts_are_those_of_decode_and_the_metrics(data):
    frames, reference = recordings(4, ("a",), data.draw(st.integers(0, 10**6)), digits=1)
    threshold = data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7]))
    low = data.draw(st.none() | st.floats(0, threshold))
    lengths = st.sampled_from([0.0, 0.02, 0.06, 0.1, 0.3])
    rule = ClassRule(threshold, low, *(data.draw(lengths) for _ in range(3)))
    estimate = estimates(frames, Rules({"a": rule}))
    durations = dict.fromkeys(frames, 3.0)
    share = data.draw(st.sampled_from([0.1, 0.5, 0.7]))
    wanted = {
        "event": event_counts(
            reference, estimate, classes=["a"], files=list(frames), collar_s=0.1, offset_share=share
        ),
        "segment": segment_counts(reference, estimate, durations, classes=["a"], segment_s=0.7),
        "intersection": intersection_counts(
            reference, estimate, durations, classes=["a"], dtc=share, gtc=0.5
        )[0],
    }
    options = {"collar_s": 0.1, "offset_share": share, "segment_s": 0.7, "dtc": share, "gtc": 0.5}
    for criterion, counts in wanted.items():
        found = search_of(frames, reference, criterion=criterion, **options).counts(rule)
        expected = [counts.hits[:, 0], counts.misses[:, 0], counts.alarms[:, 0]]
        np.testing.assert_array_equal(found, expected, err_msg=criterion)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=9))
def test_most_pairs_is_a_largest_matching(ranges):
    """Events that may be matched with neighbouring estimates; scipy's matching as the witness."""
    pairs = [(i, j) for i, (low, n) in enumerate(ranges) for j in range(low, low + n)]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    matched = most_pairs(first, second)
    assert len(np.unique(matched)) == len(matched)
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(max(len(ranges), 1), 13))
    assert len(matched) == (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()
    inside = np.isin(first, matched)  # those named can be matched all at once
    graph = csr_array(
        (np.ones(inside.sum()), (first[inside], second[inside])), shape=(max(len(ranges), 1), 13)
    )
    assert (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum() == len(matched)


def test_the_account_is_what_the_metrics_say():
    frames, reference = recordings(20, ("a", "b"), 1)
    rules, account = fit_rules(frames, reference, ["a", "b"])
    json.dumps(account, allow_nan=False)
    chosen = f1_by_tables(frames, reference, rules)
    default = f1_by_tables(frames, reference, Rules.default(["a", "b"]))
    for label, told in account["classes"].items():
        assert told["f1"] == pytest.approx(chosen[label], abs=1e-12)
        assert told["f1_default"] == pytest.approx(default[label], abs=1e-12)
        assert told["f1"] > told["f1_default"]
        assert told["events"] == (reference["label"] == label).sum()
        assert told["interval"][0] <= told["f1_cross_validated"] <= told["interval"][1]
        assert told["tested"] == 20
    macro = account["macro"]
    assert macro["f1"] == pytest.approx(np.mean(list(chosen.values())), abs=1e-12)
    both = macro["both"]
    assert both["default"] == pytest.approx(np.mean(list(default.values())), abs=1e-12)
    held = [told["f1_cross_validated"] for told in account["classes"].values()]
    assert both["cross_validated"] == pytest.approx(np.mean(held), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_by_itself_is_the_best_there_is(seed):
    """Few scores, so that all thresholds can be tried; each as a table of events."""
    frames, reference = recordings(6, ("a",), seed, digits=1, noise=0.7)
    rules, account = fit_rules(frames, reference, ["a"], collar_s=0.3, **OFF)
    by_all = {
        threshold: f1_by_tables(
            frames, reference, Rules.default(["a"], threshold=threshold), collar_s=0.3
        )["a"]
        for threshold in np.arange(0.05, 1, 0.1)
    }
    best = max(by_all.values())
    assert best > 0
    assert account["classes"]["a"]["f1"] == pytest.approx(best, abs=1e-12)
    assert rules["a"][1:] == (None, 0.0, 0.0, 0.0)


def test_the_search_is_near_the_best_of_a_whole_grid():
    frames, reference = recordings(12, ("a",), 3)
    search = search_of(frames, reference)
    everything = np.ones(12, bool)
    found = search.best(everything)
    best = max(
        search.f1(
            ClassRule(t, None if share == 1 else t * share, median, duration, gap), everything
        )
        for t, share, median, duration, gap in product(
            np.linspace(0.02, 0.98, 97),
            GRIDS["low_share"],
            GRIDS["median_s"],
            GRIDS["min_duration_s"],
            GRIDS["min_gap_s"],
        )
    )
    assert found.f1 >= best - 0.03
    assert found.f1 > search.f1(ClassRule(), everything) + 0.1
    low, high = found.plateau
    assert low < found.rule.threshold <= high


def steps(*scores: float) -> FrameScores:
    """One class: each score for half a second, in frames of 0.1 s."""
    row = np.repeat(np.array(scores, np.float32), 5)
    return FrameScores(row[None], np.arange(len(row) + 1) * 0.1)


def test_ties_go_to_the_middle_and_to_what_is_off():
    """Events score 0.9, the rest 0.1: all between is right, and nothing else is needed."""
    frames = {f"f{i}": steps(0.1, 0.9, 0.1, 0.1) for i in range(4)}
    reference = event_table(
        {"file": file, "onset": 0.5, "offset": 1.0, "label": "a"} for file in frames
    )
    rules, account = fit_rules(frames, reference, ["a"])
    assert rules["a"] == ClassRule(0.5, None, 0.0, 0.0, 0.0)
    told = account["classes"]["a"]
    assert told["plateau"] == [pytest.approx(0.1), pytest.approx(0.9)]
    assert (told["f1"], told["f1_cross_validated"]) == (1.0, 1.0)
    # Where there is nothing below, the middle lies there.
    frames = {f"f{i}": steps(0.2, 0.5, 0.2, 0.4, 0.2) for i in range(4)}
    rules, _ = fit_rules(frames, reference, ["a"])
    assert rules["a"].threshold == 0.45
    # A gap of 0.5 s within each event: of 0.6, 0.9 and 1.2 s the middle one closes it.
    frames = {f"f{i}": steps(0.1, 0.9, 0.1, 0.9, 0.1) for i in range(4)}
    reference = event_table(
        {"file": file, "onset": 0.5, "offset": 2.0, "label": "a"} for file in frames
    )
    rules, _ = fit_rules(frames, reference, ["a"], medians_s=[0], min_gaps_s=[0.3, 0.6, 0.9, 1.2])
    assert rules["a"] == ClassRule(0.5, None, 0.0, 0.0, 0.9)


def test_held_out_recordings_choose_nothing():
    """The estimate is that of rules fitted without them, scored on them, as tables."""
    frames, reference = recordings(15, ("a",), 5)
    groups = {file: f"g{i // 2}" for i, file in enumerate(frames)}
    _, account = fit_rules(frames, reference, ["a"], groups=groups, n_folds=3, random_state=2)
    assert account["groups"] == 8
    files, group_of = np.array(list(frames)), np.array(list(groups.values()))
    present = np.isin(files, reference["file"]).astype(np.int64)
    folds = make_folds(present, group_of, 3, task="classes", random_state=2, rare="train")
    sums = np.zeros(3)
    for train, test in folds:
        assert not set(group_of[train]) & set(group_of[test])
        rules, _ = fit_rules(
            {file: frames[file] for file in files[train]},
            reference[reference["file"].isin(files[train])],
            ["a"],
            random_state=2,
        )
        held = {file: frames[file] for file in files[test]}
        counts = event_counts(
            reference[reference["file"].isin(held)],
            estimates(held, rules),
            classes=["a"],
            files=list(held),
        )
        sums += [counts.hits.sum(), counts.misses.sum(), counts.alarms.sum()]
    f1 = 2 * sums[0] / (2 * sums[0] + sums[1] + sums[2])
    assert account["classes"]["a"]["f1_cross_validated"] == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_search_uses_nothing_of_other_recordings(seed):
    """Not even which scores they have: theirs lie elsewhere, and with more digits."""
    frames, reference = recordings(8, ("a",), seed, digits=2)
    others, _ = recordings(8, ("a",), seed + 50)
    mixed = dict(frames) | {f"x{file}": part for file, part in others.items()}
    inside = np.arange(16) < 8
    found = search_of(mixed, reference).best(inside)
    assert found == search_of(frames, reference).best(np.ones(8, bool))


def test_optimism_is_seen_where_there_is_nothing_to_learn():
    """Scores that know nothing of the events: chosen, they look better than held out."""
    frames, reference = recordings(30, ("a",), 7)
    shuffled = dict(zip(frames, list(frames.values())[::-1], strict=True))
    _, account = fit_rules(shuffled, reference, ["a"], collar_s=0.5)
    told = account["classes"]["a"]
    assert told["f1"] > told["f1_cross_validated"]
    assert "optimistic" in account["remark"]


@pytest.mark.parametrize("criterion", ["segment", "intersection"])
def test_other_criteria_are_maximised_too(criterion):
    frames, reference = recordings(12, ("a",), 9)
    rules, account = fit_rules(frames, reference, ["a"], criterion=criterion)
    assert account["criterion"] == criterion
    durations = dict.fromkeys(frames, 3.0)

    def f1(chosen: Rules) -> float:
        tables = (reference, estimates(frames, chosen), durations)
        if criterion == "segment":
            counts = segment_counts(*tables, classes=["a"])
        else:
            counts, _ = intersection_counts(*tables, classes=["a"])
        hits, misses, alarms = (getattr(counts, n).sum() for n in ("hits", "misses", "alarms"))
        return 2 * hits / (2 * hits + misses + alarms)

    told = account["classes"]["a"]
    assert told["f1"] == pytest.approx(f1(rules), abs=1e-12)
    assert told["f1_default"] == pytest.approx(f1(Rules.default(["a"])), abs=1e-12)
    assert told["f1"] > max(told["f1_default"], 0.6)


def test_classes_that_cannot_be_fitted_keep_the_default_and_are_told():
    frames, reference = recordings(8, ("a", "b", "c"), 2)
    rare = (reference["label"] == "b") & (reference["file"] != reference["file"].iloc[0])
    reference = reference[~rare & (reference["label"] != "c")].reset_index(drop=True)
    only = reference["file"][reference["label"] == "b"].nunique()
    rules, account = fit_rules(frames, reference, ["a", "b", "c"])
    assert only == 1
    assert rules["c"] == ClassRule()
    assert account["classes"]["c"]["f1"] is None
    assert account["classes"]["b"]["f1"] > 0
    assert account["classes"]["b"]["f1_cross_validated"] is None
    assert account["macro"]["classes"] == 2
    assert account["macro"]["both"]["classes"] == 1
    assert any("no events on validation" in n and "(c)" in n for n in account["notes"])
    assert any("too few groups" in n and "(b)" in n for n in account["notes"])
    # Scores that are nowhere near: nothing is found whatever the rule.
    nothing = {file: FrameScores(part.scores * 0, part.edges) for file, part in frames.items()}
    rules, account = fit_rules(nothing, reference, ["a", "b", "c"])
    assert rules == Rules.default(["a", "b", "c"])
    assert "no rule finds any" in account["classes"]["a"]["note"]
    assert account["classes"]["a"]["f1"] == 0


def test_the_same_call_gives_the_same_rules():
    frames, reference = recordings(6, ("a",), 4)
    first, again = (fit_rules(frames, reference, ["a"]) for _ in range(2))
    assert first == again
    # The rules are those of all recordings, cross-validated or not.
    rules, account = fit_rules(frames, reference, ["a"], n_folds=0)
    assert rules == first[0]
    assert account["classes"]["a"]["f1"] == first[1]["classes"]["a"]["f1"]
    assert account["classes"]["a"]["f1_cross_validated"] is None
    assert account["macro"]["both"] is None


def test_what_does_not_fit_is_named():
    frames, reference = recordings(3, ("a",), 0)
    for arguments, words in [
        (({}, reference, ["a"]), "no validation recordings"),
        (({"f0": frames["f0"]}, reference, ["a"]), "file 'f1' is not among the 1 recordings"),
        ((frames, reference, ["b"]), "label 'a' is not among the 1 classes"),
        ((frames, reference, ["a", "b"]), r"are \(1, 150\): they must be of 2 classes"),
        ((frames, reference.drop(columns="label"), ["a"]), "no column label"),
    ]:
        with pytest.raises(DataError, match=words):
            fit_rules(*arguments)
    for options, words in [
        ({"criterion": "frame"}, "criterion: 'frame' is none of event, segment, intersection"),
        ({"medians_s": [100]}, "medians_s: give numbers of seconds from 0 to 60"),
        ({"min_gaps_s": [-1]}, "min_gaps_s"),
        ({"min_durations_s": [float("nan")]}, "min_durations_s"),
        ({"low_shares": [0]}, "low_shares"),
        ({"collar_s": -1}, "collar_s"),
        ({"groups": {"f0": "g"}}, "no group for f1"),
    ]:
        with pytest.raises(DataError, match=words):
            fit_rules(frames, reference, ["a"], **options)
