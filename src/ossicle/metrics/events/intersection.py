"""Intersection-based scores: how much of an event was found, and how much of a find is event.

Bilen, Ferroni, Tuveri, Azcarreta & Krstulovic 2020, "A framework for the robust evaluation of sound
event detection", ICASSP, section 3: a detection is relevant if at least a share `dtc` of it lies
within events of its class (detection tolerance criterion); an event is found if relevant detections
cover at least a share `gtc` of it (ground truth intersection criterion); a detection that is not
relevant is a false alarm, and a cross-trigger with each other class of which the events hold a
share `cttc` of it (cross-trigger tolerance criterion). F recordings, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.metrics.events.counting import Counts, summary
from ossicle.metrics.events.coverage import Coverage
from ossicle.metrics.events.matching import expand
from ossicle.metrics.events.tables import (
    MICRO,
    EventArrays,
    check_share,
    class_names,
    event_arrays,
    file_durations,
    share_of,
)


def intersection_based(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float = 0.3,
) -> dict[str, Any]:
    """Precision, recall and F1 of events by intersection, and what is taken for what.

    Precision counts false alarms against events found (hits / (hits + alarms)), as psds_eval and
    sed_scores_eval do; there are no substitutions. Events of 0 s are left out.

    Args:
        reference, estimate: tables with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings.
        classes: K names.
        dtc, gtc, cttc: shares from 0 to 1.

    Returns:
        As `counting.summary`, and "cross_triggers": {class detected: {class that sounded: number of
        detections}}.

    Raises:
        DataError: an event is none, or of a file or class that is not named.
    """
    counts, crossed = intersection_counts(
        reference, estimate, durations, classes=classes, dtc=dtc, gtc=gtc, cttc=cttc
    )
    names = counts.classes
    table = {
        one: {other: float(crossed[i, j]) for j, other in enumerate(names) if i != j}
        for i, one in enumerate(names)
    }
    return {**summary(counts), "cross_triggers": table}


def intersection_counts(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float = 0.3,
) -> tuple[Counts, np.ndarray]:
    """The counts of `intersection_based` per recording, and (K, K) cross-triggers.

    The first axis of the cross-triggers is the class detected, the second the class that sounded.
    """
    for name, value in (("dtc", dtc), ("gtc", gtc), ("cttc", cttc)):
        check_share(name, value)
    names = class_names(classes)
    files, _ = file_durations(durations)
    wanted = event_arrays(reference, files, names, "reference").lasting()
    found = event_arrays(estimate, files, names, "estimate").lasting()
    size = (len(files), len(names))
    cover = coverage_of(wanted, *size, found)
    group = found.file * size[1] + found.label
    relevant = is_relevant(cover, group, found.onset, found.offset, dtc)
    _, event, length = pieces(cover, group[relevant], found.onset[relevant], found.offset[relevant])
    covered = np.zeros(len(wanted.onset), dtype=np.int64)
    np.add.at(covered, event, length)
    wanted = EventArrays(*(column[cover.order] for column in wanted))
    hit = is_found(covered, wanted.offset - wanted.onset, gtc)

    def count(events: EventArrays, chosen: np.ndarray) -> np.ndarray:
        place = events.file[chosen] * size[1] + events.label[chosen]
        return np.bincount(place, minlength=size[0] * size[1]).reshape(size)

    counts = Counts(
        files,
        names,
        count(wanted, hit),
        count(wanted, ~hit),
        count(found, ~relevant),
        np.zeros(len(files)),
    )
    wrong = EventArrays(*(column[~relevant] for column in found))
    crossed = np.zeros((size[1], size[1]), dtype=np.int64)
    for other in range(size[1]):
        met = crosses(cover, wrong.file * size[1] + other, wrong.onset, wrong.offset, cttc)
        np.add.at(crossed, (wrong.label[met & (wrong.label != other)], other), 1)
    return counts, crossed


def coverage_of(
    wanted: EventArrays, num_files: int, num_classes: int, *others: EventArrays
) -> Coverage:
    """The events of the reference, ready to be asked about; a group is file x K + class.

    Args:
        wanted: the events.
        num_files: F.
        num_classes: K.
        others: events of which no time may lie beyond what can be asked.

    Raises:
        DataError: all groups end to end last longer than whole numbers can tell (290,000 years).
    """
    end = max((int(e.offset.max()) for e in (wanted, *others) if len(e.offset)), default=0)
    group = wanted.file * num_classes + wanted.label
    if num_files * num_classes * (end + 1) >= 2**63:
        raise DataError(
            f"{num_files} recordings x {num_classes} classes of up to {end / MICRO:.0f} s are too "
            "many to score at once; score them in parts"
        )
    return Coverage(group, wanted.onset, wanted.offset, end)


def is_relevant(
    cover: Coverage, group: np.ndarray, onset: np.ndarray, offset: np.ndarray, dtc: float
) -> np.ndarray:
    """Which detections meet the detection tolerance criterion: (n,) bool.

    One that meets no event does not, even for dtc = 0.
    """
    inside = cover.between(group, onset, offset)
    return np.asarray((inside >= share_of(offset - onset, dtc)) & (inside > 0))


def is_found(covered: np.ndarray, length: np.ndarray, gtc: float) -> np.ndarray:
    """Which events meet the ground truth intersection criterion, from what is covered of each.

    One that no relevant detection meets does not, even for gtc = 0.
    """
    return np.asarray((covered >= share_of(length, gtc)) & (covered > 0))


def crosses(
    cover: Coverage, group: np.ndarray, onset: np.ndarray, offset: np.ndarray, cttc: float
) -> np.ndarray:
    """Which detections, none of them relevant, another class sets off: (n,) bool.

    Args:
        group: file and *other* class of each. One that meets no event of it is no cross-trigger.
    """
    inside = cover.between(group, onset, offset)
    return np.asarray((inside >= share_of(offset - onset, cttc)) & (inside > 0))


def pieces(
    cover: Coverage, group: np.ndarray, onset: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The P pairs of a detection and an event of its class and file that overlap.

    Returns:
        (P,) detection, (P,) event in `cover.order`, (P,) microseconds that they share.
    """
    detection, event = expand(*cover.meeting(group, onset, offset))
    length = np.minimum(offset[detection], cover.offset[event]) - np.maximum(
        onset[detection], cover.onset[event]
    )
    keep = length > 0
    return detection[keep], event[keep], length[keep]
