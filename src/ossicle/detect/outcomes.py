"""Hits, misses and false alarms of one class, again and again for the same reference.

The counts are those of `ossicle.metrics.events` (a test holds them equal), without tables: choosing
rules counts thousands of times. F recordings; times are whole microseconds, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.metrics.events.coverage import Coverage
from ossicle.metrics.events.intersection import is_found, is_relevant, pieces
from ossicle.metrics.events.matching import close_pairs
from ossicle.metrics.events.tables import (
    EventArrays,
    check_positive,
    check_share,
    event_arrays,
    microseconds,
)

CRITERIA = ("event", "segment", "intersection")


class Outcomes:
    """Counts estimates of one class against its reference.

    Args:
        reference: the events of the class: file, onset, offset, label.
        files: F names.
        label: the class.
        ends_s: (F,) length of each recording in seconds.
        criterion: "event", "segment" or "intersection".
        collar_s: with "event": how far onset and offset may be off.
        offset_share: with "event": or the offset, by this share of the event's length.
        segment_s: with "segment": its length.
        dtc: with "intersection": share of a detection that lies within events.
        gtc: with "intersection": share of an event that detections cover.

    Raises:
        DataError: the criterion is unknown, or a number out of its range.
    """

    def __init__(
        self,
        reference: pd.DataFrame,
        files: Sequence[str],
        label: str,
        ends_s: np.ndarray,
        *,
        criterion: str = "event",
        collar_s: float = 0.2,
        offset_share: float = 0.2,
        segment_s: float = 1.0,
        dtc: float = 0.7,
        gtc: float = 0.7,
    ) -> None:
        counters = {
            "event": self._by_collar,
            "segment": self._by_segment,
            "intersection": self._by_intersection,
        }
        if criterion not in counters:
            raise DataError(f"criterion: {criterion!r} is none of {', '.join(CRITERIA)}")
        self._count = counters[criterion]
        self._collar = int(microseconds(check_positive("collar_s", collar_s, zero=True)))
        self._share = check_share("offset_share", offset_share)
        self._dtc, self._gtc = check_share("dtc", dtc), check_share("gtc", gtc)
        self._segment = max(int(microseconds(check_positive("segment_s", segment_s))), 1)
        self._n_files = len(files)
        wanted = event_arrays(reference, files, [label], "reference")
        # Coverage places recordings one after the other on one line, so it must know the longest.
        ends = np.maximum(microseconds(ends_s), 1)
        longest = int(max(ends.max(initial=0), wanted.offset.max(initial=0)))
        lasting = wanted.lasting()
        self._cover = Coverage(lasting.file, lasting.onset, lasting.offset, longest)
        self._wanted = wanted
        self._numbers = -(-ends // self._segment)
        self._starts = np.cumsum(self._numbers) - self._numbers
        self._active = self._segments(wanted)
        kept = lasting if criterion == "intersection" else wanted
        if criterion == "segment":
            self.number = np.add.reduceat(self._active.astype(np.int64), self._starts)
        else:
            self.number = np.bincount(kept.file, minlength=self._n_files)
        self._lengths = (self._cover.offset - self._cover.onset, lasting.file[self._cover.order])

    def __call__(self, file: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """(3, F) int64: hits, misses, false alarms.

        Args:
            file: (n,) position among the files, ascending.
            onset, offset: (n,) int64 microseconds; within a file events ascend and do not overlap.
        """
        found = EventArrays(file, np.zeros_like(file), onset, offset)
        hits, alarms = self._count(found)
        return np.stack([hits, self.number - hits, alarms]).astype(np.int64)

    def sounding(self, file: np.ndarray, onset: np.ndarray) -> np.ndarray:
        """(n,) bool: which moments, of file and microseconds, lie within events."""
        return self._cover.between(file, onset, np.minimum(onset + 1, self._cover.step - 1)) > 0

    def _by_collar(self, found: EventArrays) -> tuple[np.ndarray, np.ndarray]:
        first, second = close_pairs(
            self._wanted, found, self._collar, self._share, onset_only=False
        )
        hit = most_pairs(first, second)
        hits = np.bincount(self._wanted.file[hit], minlength=self._n_files)
        return hits, np.bincount(found.file, minlength=self._n_files) - hits

    def _by_segment(self, found: EventArrays) -> tuple[np.ndarray, np.ndarray]:
        active = self._segments(found)
        both = np.add.reduceat((active & self._active).astype(np.int64), self._starts)
        return both, np.add.reduceat(active.astype(np.int64), self._starts) - both

    def _segments(self, events: EventArrays) -> np.ndarray:
        limit, start = self._numbers[events.file], self._starts[events.file]
        change = np.zeros(int(self._numbers.sum()) + 1, np.int64)
        np.add.at(change, np.minimum(events.onset // self._segment, limit) + start, 1)
        np.add.at(change, np.minimum(-(-events.offset // self._segment), limit) + start, -1)
        return np.asarray(np.cumsum(change)[:-1] > 0)

    def _by_intersection(self, found: EventArrays) -> tuple[np.ndarray, np.ndarray]:
        relevant = is_relevant(self._cover, found.file, found.onset, found.offset, self._dtc)
        _, event, length = pieces(
            self._cover, found.file[relevant], found.onset[relevant], found.offset[relevant]
        )
        lengths, files = self._lengths
        covered = np.zeros(len(lengths), np.int64)
        np.add.at(covered, event, length)
        hit = is_found(covered, lengths, self._gtc)
        return (
            np.bincount(files[hit], minlength=self._n_files),
            np.bincount(found.file[~relevant], minlength=self._n_files),
        )


def most_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of the events that could be matched, a largest set that can all be matched at once.

    Estimates of one class do not overlap, so that in order of onset they are in order of offset
    too, and those near enough to an event are neighbours. Then taking the event whose last
    estimate comes first, and for it the first free one, matches as many as can be (Glover 1967,
    "Maximum matching in a convex bipartite graph").

    Args:
        first: (P,) events of the pairs that are near enough, ascending.
        second: (P,) estimates, ascending for each event.

    Returns:
        The events matched.
    """
    if not len(first):
        return first
    head = np.flatnonzero(np.append(True, first[1:] != first[:-1]))
    events, low = first[head], second[head]
    high = second[np.append(head[1:], len(second)) - 1]
    if len(np.unique(second)) == len(second):
        return events  # no two events want the same estimate
    taken: set[int] = set()
    matched = []
    for i in np.lexsort((low, high)).tolist():
        for j in range(int(low[i]), int(high[i]) + 1):
            if j not in taken:
                taken.add(j)
                matched.append(i)
                break
    return events[np.sort(np.array(matched, np.int64))]
