"""At which scores hits and false alarms change as the threshold falls.

A detection exists for thresholds in [lower, upper). What it adds appears when the threshold falls
below `upper` and goes when it falls below `lower`. So each count at each threshold is a cumulative
sum of changes, sorted by score (Ebbers, Haeb-Umbach & Serizel 2022, section 3).

n detections, P pairs of a detection and an event of the reference that it may answer, D changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching


class Changes(NamedTuple):
    """How counts change.

    Attributes:
        group: (D,) int32 file x K + class (detected).
        score: (D,) float64: the threshold falls below this.
        hits: (D,) int32 change of the number of events that are found.
        alarms: (D,) int32 change of the number of false alarms.
        other: (D,) int16: -1, or the class of which the change is one of cross-triggers, which
            `alarms` then counts.
    """

    group: np.ndarray
    score: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    other: np.ndarray

    @classmethod
    def of(
        cls,
        group: np.ndarray,
        score: np.ndarray,
        hits: np.ndarray,
        alarms: np.ndarray,
        other: int = -1,
    ) -> Changes:
        """Changes of the smallest types: there are up to two for each score."""
        small = [column.astype(np.int32) for column in (group, hits, alarms)]
        others = np.full(len(score), other, dtype=np.int16)
        return cls(small[0], score.astype(np.float64), small[1], small[2], others)


def lives(group: np.ndarray, upper: np.ndarray, lower: np.ndarray, other: int = -1) -> Changes:
    """The changes of a number of detections, as alarms: one more below upper, one less below lower.

    At the lowest scores, below which nothing is, there is no change.
    """
    ends = np.flatnonzero(lower > -np.inf)
    count = np.repeat(np.array([1, -1], dtype=np.int32), [len(upper), len(ends)])
    groups = np.concatenate([group, group[ends]])
    return Changes.of(
        groups, np.concatenate([upper, lower[ends]]), np.zeros_like(count), count, other
    )


def crossings(
    event: np.ndarray, upper: np.ndarray, lower: np.ndarray, amount: np.ndarray, need: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When events are found that need a certain sum of what detections add to them.

    Args:
        event: (P,) position of the event.
        upper, lower: (P,) the life of the detection.
        amount: (P,) int64 above 0: what it adds.
        need: (n,) int64 above 0: the sum that finds each event.

    Returns:
        (D,) event, (D,) score, (D,) +1 (found below this score) or -1 (lost again).
    """
    events = np.concatenate([event, event])
    score = np.concatenate([upper, lower])
    order = np.lexsort((-score, events))
    events, score = events[order], score[order]
    change = np.concatenate([amount, -amount])[order]
    if not len(events):
        return events, score, change
    # The sums of one event return to 0 below the lowest score: no need to start anew with each.
    first = np.flatnonzero((np.diff(events, prepend=-1) != 0) | (np.diff(score, prepend=0) != 0))
    events, score = events[first], score[first]
    found = np.cumsum(np.add.reduceat(change, first)) >= need[events]
    step = np.diff(found.astype(np.int64), prepend=0)
    keep = (step != 0) & (score > -np.inf)
    return events[keep], score[keep], step[keep]


def matchings(
    detection: np.ndarray, event: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many events are found if each detection answers one at most, and each event has one.

    Events that share no detection, at any threshold, are looked at apart; most are alone.

    Args:
        detection, event: (P,) the pairs that are close enough.
        upper, lower: (P,) the life of the detection.

    Returns:
        As `crossings`; of events that share detections, the first stands for all.
    """
    if not len(event):
        return event, upper, event
    events, event_of = np.unique(event, return_inverse=True)
    found, detection_of = np.unique(detection, return_inverse=True)
    n = len(events)
    size = n + len(found)
    graph = coo_array((np.ones(len(event)), (event_of, n + detection_of)), shape=(size, size))
    number, part = connected_components(graph, directed=False)
    alone = (np.bincount(part[:n], minlength=number) == 1)[part[event_of]]
    ones = np.ones(int(alone.sum()), dtype=np.int64)
    results = [
        crossings(event[alone], upper[alone], lower[alone], ones, np.ones(event.max() + 1, int))
    ]
    rest = np.flatnonzero(~alone)
    rest = rest[np.argsort(part[event_of[rest]], kind="stable")]
    borders = np.flatnonzero(np.diff(part[event_of[rest]])) + 1
    for pairs in np.split(rest, borders) if len(rest) else []:
        score, step = _matching_steps(detection[pairs], event[pairs], upper[pairs], lower[pairs])
        results.append((np.full(len(score), event[pairs[0]]), score, step))
    whole = [np.concatenate(column) for column in zip(*results, strict=True)]
    return whole[0], whole[1], whole[2]


def _matching_steps(
    detection: np.ndarray, event: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The size of the largest matching, from the highest threshold down: scores and changes."""
    rows, row = np.unique(event, return_inverse=True)
    columns, column = np.unique(detection, return_inverse=True)
    levels = np.unique(np.concatenate([upper, lower]))[::-1]
    sizes = np.zeros(len(levels), dtype=np.int64)
    for k, level in enumerate(levels[:-1]):
        # Thresholds just below this level, down to the next.
        there = (upper >= level) & (lower < level)
        graph = csr_array(
            (np.ones(int(there.sum())), (row[there], column[there])),
            shape=(len(rows), len(columns)),
        )
        sizes[k] = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    step = np.diff(sizes, prepend=0)
    keep = (step != 0) & (levels > -np.inf)
    return levels[keep], step[keep]


def summed(score: np.ndarray, *counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Counts at each threshold from their changes: (M,) scores, falling, and (M,) each."""
    order = np.argsort(-score, kind="stable")
    score = score[order]
    first = np.flatnonzero(np.diff(score, prepend=np.inf) != 0)
    if not len(first):
        return np.array([np.inf]), *(np.zeros(1, dtype=np.int64) for _ in counts)
    steps = np.array([np.add.reduceat(column[order], first) for column in counts])
    moves = np.flatnonzero(steps.any(axis=0))
    sums = np.cumsum(steps[:, moves], axis=1, dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    below = np.concatenate([[np.inf], score[first][moves]])
    return below, *(np.concatenate([zero, column]) for column in sums)
