"""Segment-based scores: in each segment of time, is each class active or not?

Mesaros, Heittola & Virtanen 2016, "Metrics for polyphonic sound event detection", Applied Sciences
6(6), 162, section 3.1. F recordings, K classes, S segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ossicle.metrics.events.counting import Counts, summary
from ossicle.metrics.events.tables import (
    EventArrays,
    check_positive,
    class_names,
    event_arrays,
    file_durations,
    microseconds,
)

# Cells (segments x classes) that are held at a time.
_BLOCK = 2**23


def segment_based(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    segment_s: float = 1.0,
) -> dict[str, Any]:
    """Precision, recall, F1 and error rate of segments: see `counting.summary`.

    Args:
        reference, estimate: tables with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings, those without events too. Events are cut
            there; the last segment may be short.
        classes: K names.
        segment_s: length of a segment, s. A class is active in a segment that one of its events
            reaches into.

    Raises:
        DataError: an event is none, or of a file or class that is not named.
    """
    return summary(
        segment_counts(reference, estimate, durations, classes=classes, segment_s=segment_s)
    )


def segment_counts(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    segment_s: float = 1.0,
) -> Counts:
    """The counts of `segment_based`, per recording; a segment and class is one thing.

    In each segment as many misses as there are alarms are substitutions (section 3.1.3).
    """
    names = class_names(classes)
    files, lengths = file_durations(durations)
    width = max(int(microseconds(check_positive("segment_s", segment_s))), 1)
    tables = [
        event_arrays(table, files, names, role)
        for table, role in ((reference, "reference"), (estimate, "estimate"))
    ]
    numbers = -(-lengths // width)
    shape = (len(files), len(names))
    hits, misses, alarms = (np.zeros(shape) for _ in range(3))
    substitutions = np.zeros(len(files))
    for first, last in _blocks(numbers, len(names)):
        starts = np.cumsum(numbers[first:last]) - numbers[first:last]
        active = [
            active_segments(
                _between(table, first, last), numbers[first:last], starts, width, len(names)
            )
            for table in tables
        ]
        parts = active[0] & active[1], active[0] & ~active[1], active[1] & ~active[0]
        for total, part in zip((hits, misses, alarms), parts, strict=True):
            total[first:last] = np.add.reduceat(part, starts, axis=0, dtype=np.int64)
        swapped = np.minimum(parts[1].sum(axis=1), parts[2].sum(axis=1))
        substitutions[first:last] = np.add.reduceat(swapped, starts)
    return Counts(files, names, hits, misses, alarms, substitutions)


def _blocks(numbers: np.ndarray, num_classes: int) -> Iterator[tuple[int, int]]:
    """Runs of files that are counted together: first and one past the last."""
    first, held = 0, 0
    for position, number in enumerate(numbers):
        if held and (held + number) * num_classes > _BLOCK:
            yield first, position
            first, held = position, 0
        held += number
    yield first, len(numbers)


def _between(events: EventArrays, first: int, last: int) -> EventArrays:
    """The events of files first to last - 1, files counted from there."""
    low, high = np.searchsorted(events.file, [first, last])
    part = EventArrays(*(column[low:high] for column in events))
    return part._replace(file=part.file - first)


def active_segments(
    events: EventArrays, numbers: np.ndarray, starts: np.ndarray, width: int, num_classes: int
) -> np.ndarray:
    """(S, K) bool: which class is active in which segment."""
    change = np.zeros((int(numbers.sum()) + 1, num_classes), dtype=np.int32)
    limit = numbers[events.file]
    onset = np.minimum(events.onset // width, limit) + starts[events.file]
    offset = np.minimum(-(-events.offset // width), limit) + starts[events.file]
    np.add.at(change, (onset, events.label), 1)
    np.add.at(change, (offset, events.label), -1)
    return np.asarray(np.cumsum(change, axis=0)[:-1] > 0)
