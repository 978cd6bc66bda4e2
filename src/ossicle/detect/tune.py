"""Rules of detection chosen on validation recordings, and an honest word on how good they are.

For each class by itself: all its numbers are chosen to maximise its F1 over the recordings.
Threshold and median are searched together, then hysteresis, gap and duration together, in turns
until nothing changes, from several starts; at last the threshold among the scores near the best.
A filter, hysteresis, a gap or a duration is only used if F1 is higher for it. Of several values
that are equally good the middle one is taken, and of thresholds the middle of the widest stretch in
which F1 does not change: at its edge the next recording may tip it over.

The F1 so reached is the best of hundreds, on the very recordings that they were compared on. So the
same search is done on some groups of recordings, and its rules scored on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ossicle.datasets.folds import Folds, TooFewGroupsError, make_folds
from ossicle.detect.outcomes import Outcomes
from ossicle.detect.rule_search import Lines, Search
from ossicle.detect.rules import LIMITS, ClassRule, Rules
from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.metrics import interval

REMARK = (
    "f1 is optimistic: the rules were chosen to be best on these recordings. f1_cross_validated is "
    "of rules chosen on some groups of recordings and scored on the others; f1_default is of "
    "threshold 0.5 and nothing else, for which nothing was chosen"
)
_SECONDS = (0.1, 0.2, 0.35, 0.5)


def fit_rules(
    frames: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    classes: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    criterion: str = "event",
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    segment_s: float = 1.0,
    dtc: float = 0.7,
    gtc: float = 0.7,
    medians_s: Sequence[float] | None = None,
    low_shares: Sequence[float] = (1.0, 0.7, 0.4),
    min_gaps_s: Sequence[float] | None = None,
    min_durations_s: Sequence[float] | None = None,
    score: str = "max",
    n_folds: int = 5,
    random_state: int = 0,
) -> tuple[Rules, dict[str, Any]]:
    """Chooses the rules of all classes on recordings whose events are known.

    Args:
        frames: file -> scores (K, T) of the whole recording.
        reference: events: file, onset, offset (s), label. Files without any are recordings in which
            none of the classes sounds.
        classes: names of the K rows.
        groups: file -> group; recordings of a group stay together when rules are cross-validated,
            and are resampled together for intervals. None: each recording for itself.
        criterion: what F1 counts, see `ossicle.metrics.events`: "event" (by collars), "segment",
            or "intersection".
        collar_s, offset_share: with "event".
        segment_s: with "segment".
        dtc, gtc: with "intersection".
        medians_s: lengths of the median filter to try. None: some of half a second or less, and of
            3 and 5 frames.
        low_shares: shares of the threshold to try for ``low``, above 0 to 1.
        min_gaps_s: gaps to try. None: some of half a second or less, and of 1 and 2 frames.
        min_durations_s: durations to try; None: as for gaps.
        score: of events, see `Rules`.
        n_folds: of the cross-validation; fewer where there are fewer groups. 0: none, which takes
            less than half the time.
        random_state: seed of folds and intervals.

    Returns:
        The rules, and an account ready for JSON:
        "criterion", "recordings", "groups", "remark", "notes": list of str;
        "classes": {class: "events" (or segments: what the reference has), "f1", "f1_default",
        "f1_cross_validated" and "interval" of it (95 %, over groups), "tested" (recordings
        that it is of), "plateau": [low, high], between which any threshold gives this f1,
        "note"}; "macro": means of the F1s over the classes that have events, and, in "both",
        over those that could be cross-validated, where "default" and "cross_validated" are of the
        same recordings, with "interval". None stands where there is nothing to measure. Classes
        without events keep the default.

    Raises:
        DataError: there are no recordings, events of other files or classes, a value to try is
            out of its range, or the criterion is unknown.
    """
    files, names = list(frames), tuple(classes)
    if not files:
        raise DataError("no validation recordings: rules cannot be chosen without any")
    _check_reference(reference, files, names)
    for file in files:
        if groups is not None and file not in groups:
            raise DataError(f"groups of the validation recordings: there is no group for {file}")
    group_of = np.array([file if groups is None else str(groups[file]) for file in files])
    lines = Lines([frames[file] for file in files], len(names))
    grids = {
        "median_s": _lengths("medians_s", "median_s", medians_s, lines.hop_s, (3, 5)),
        "min_gap_s": _lengths("min_gaps_s", "min_gap_s", min_gaps_s, lines.hop_s, (1.5, 2.5)),
        "min_duration_s": _lengths(
            "min_durations_s", "min_duration_s", min_durations_s, lines.hop_s, (1.5, 2.5)
        ),
        "low_share": _shares(low_shares),
    }
    labels = reference["label"].astype(str).to_numpy()
    rules, report, parts = {}, {}, {}
    for row, label in enumerate(names):
        outcomes = Outcomes(
            reference[labels == label],
            files,
            label,
            lines.ends_s,
            criterion=criterion,
            collar_s=collar_s,
            offset_share=offset_share,
            segment_s=segment_s,
            dtc=dtc,
            gtc=gtc,
        )
        rules[label], report[label], parts[label] = _fit_class(
            lines, row, outcomes, grids, group_of, n_folds, random_state
        )
    account = {
        "criterion": criterion,
        "recordings": len(files),
        "groups": len(np.unique(group_of)),
        "remark": REMARK,
        "notes": _notes(report),
        "classes": report,
        "macro": _macro(report, parts, group_of, random_state),
    }
    return Rules(rules, score), account


def _fit_class(
    lines: Lines,
    row: int,
    outcomes: Outcomes,
    grids: Mapping[str, tuple[float, ...]],
    groups: np.ndarray,
    n_folds: int,
    seed: int,
) -> tuple[ClassRule, dict[str, Any], np.ndarray]:
    """The rule of a class, what is told of it, and counts (6, F): held out, and by default."""
    default = ClassRule()
    number = outcomes.number
    told: dict[str, Any] = {
        "events": int(number.sum()),
        "f1": None,
        "f1_default": None,
        "f1_cross_validated": None,
        "interval": None,
        "tested": 0,
        "plateau": None,
        "note": "",
    }
    held_out = np.zeros((6, len(groups)), np.int64)
    if not number.sum():
        told["note"] = "no events on validation: threshold 0.5 and nothing else"
        return default, told, held_out
    search = Search(lines, row, outcomes, grids)
    everything = np.ones(len(groups), bool)
    found = search.best(everything)
    told["f1"], told["plateau"] = found.f1, list(found.plateau)
    told["f1_default"] = search.f1(default, everything)
    if not found.f1:
        told["note"] = "no rule finds any of its events: threshold 0.5 and nothing else"
        told["plateau"] = None
        return default, told, held_out
    if not n_folds:
        told["note"] = "not cross-validated"
        return found.rule, told, held_out
    try:
        folds = _folds(number > 0, groups, n_folds, seed)
    except TooFewGroupsError:
        told["note"] = "its events are in too few groups to cross-validate"
        return found.rule, told, held_out
    for train, test in folds:
        inside = np.zeros(len(groups), bool)
        inside[train] = True
        held_out[:3, test] = search.counts(search.best(inside).rule)[:, test]
        held_out[3:, test] = search.counts(default)[:, test]
    tested = np.concatenate([test for _, test in folds])
    told["tested"] = len(tested)
    told["f1_cross_validated"] = _f1(held_out[:3].sum(axis=1))
    told["interval"] = _limits(
        lambda counts: _f1(counts.sum(axis=0)), held_out[:3, tested].T, groups[tested], seed
    )
    if told["f1_cross_validated"] < _f1(held_out[3:].sum(axis=1)):
        told["note"] = "held out, the chosen rules are no better than threshold 0.5"
    return found.rule, told, held_out


def _folds(present: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> Folds:
    """Folds with and without the class; groups that alone hold it, or lack it, are not tested."""
    folds = make_folds(
        present.astype(np.int64),
        groups,
        n_folds,
        task="classes",
        random_state=seed,
        rare="train",
        classes=("without", "with"),
    )
    if not any(present[test].any() for _, test in folds):
        raise TooFewGroupsError("the class is never tested")
    return folds


def _macro(
    report: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, np.ndarray],
    groups: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    def mean(name: str, of: Sequence[str]) -> float | None:
        return float(np.mean([report[label][name] for label in of])) if of else None

    measured = [label for label, told in report.items() if told["f1"] is not None]
    both = [label for label in measured if report[label]["f1_cross_validated"] is not None]
    result: dict[str, Any] = {
        "f1": mean("f1", measured),
        "f1_default": mean("f1_default", measured),
        "classes": len(measured),
        "both": None,
    }
    if both:
        counts = np.stack([parts[label] for label in both]).transpose(2, 0, 1)  # (F, K, 6)
        result["both"] = {
            "cross_validated": _mean_f1(counts[:, :, :3]),
            "interval": _limits(_mean_f1, counts[:, :, :3], groups, seed),
            "default": _mean_f1(counts[:, :, 3:]),
            "default_interval": _limits(_mean_f1, counts[:, :, 3:], groups, seed),
            "classes": len(both),
        }
    return result


def _mean_f1(counts: np.ndarray) -> float:
    """Over the classes that a resample has: (F, K, 3) hits, misses, false alarms."""
    sums = counts.sum(axis=0)
    there = sums[:, 0] + sums[:, 1] > 0
    if not there.any():
        return float("nan")
    hits, misses, alarms = sums[there].T
    return float(np.mean(2 * hits / (2 * hits + misses + alarms)))


def _f1(sums: np.ndarray) -> float:
    hits, misses, alarms = (int(value) for value in sums)
    return 2 * hits / (2 * hits + misses + alarms) if hits + misses else float("nan")


def _limits(
    statistic: Any, counts: np.ndarray, groups: np.ndarray, seed: int
) -> list[float | None]:
    """A 95 % interval over groups, None where it cannot be told."""
    found = interval(statistic, counts, groups=groups, random_state=seed, bounds=(0.0, 1.0))
    return [float(value) if np.isfinite(value) else None for value in found]


def _notes(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The classes' notes, each once, with the classes that it is of."""
    by_note: dict[str, list[str]] = {}
    for label, told in report.items():
        if told["note"]:
            by_note.setdefault(told["note"], []).append(label)
    return [f"{note} ({', '.join(labels)})" for note, labels in by_note.items()]


def _check_reference(reference: pd.DataFrame, files: Sequence[str], classes: Sequence[str]) -> None:
    for column, known, what in (
        ("file", set(files), "recordings"),
        ("label", set(classes), "classes"),
    ):
        if column not in reference:
            raise DataError(f"validation events: there is no column {column}")
        for name in reference[column].astype(str).unique():
            if name not in known:
                raise DataError(
                    f"validation events: {column} {name!r} is not among the {len(known)} {what} "
                    "that there are scores of"
                )


def _lengths(
    what: str,
    field: str,
    given: Sequence[float] | None,
    hop_s: float,
    frames: Sequence[float],
) -> tuple[float, ...]:
    """The lengths to try, "off" first, each once; none that a frame is too long for."""
    most = LIMITS[field]
    if given is None:
        # A filter of less than three frames is none, nor can a gap or an event be under a frame.
        least = 2 * hop_s if field == "median_s" else hop_s
        given = [*(n * hop_s for n in frames), *(s for s in _SECONDS if s > least)]
        given = [round(min(value, most), 6) for value in given]
    if not all(np.isfinite(value) and 0 <= value <= most for value in given):
        raise DataError(f"{what}: give numbers of seconds from 0 to {most:g}")
    return (0.0, *sorted({float(value) for value in given} - {0.0}))


def _shares(given: Sequence[float]) -> tuple[float, ...]:
    if not all(0 < share <= 1 for share in given):
        raise DataError("low_shares: give shares of the threshold, above 0 and at most 1")
    return (1.0, *sorted({float(share) for share in given} - {1.0}, reverse=True))
