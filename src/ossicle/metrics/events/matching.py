"""Which estimated event answers which event of the reference: within collars, each at most once.

n events of the reference, m of the estimate, P pairs of them that are close enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from ossicle.metrics.events.tables import EventArrays, share_of


class Match(NamedTuple):
    """What became of each event.

    Attributes:
        hit: (n,) bool: the event of the reference was found.
        right: (m,) bool: the event of the estimate is right.
        swapped: (n,) bool: not found, but an estimate of another class, wrong otherwise, stands in
            its place: a substitution.
    """

    hit: np.ndarray
    right: np.ndarray
    swapped: np.ndarray


def close_pairs(
    reference: EventArrays,
    estimate: EventArrays,
    collar: int,
    offset_share: float,
    *,
    onset_only: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of one recording whose onsets and offsets agree: (P,), (P,) positions.

    Onsets may differ by the collar, offsets by the collar or a share of the length of the
    reference's event, whichever is more (Mesaros et al. 2016, section 3.2.1). Limits are within.

    Args:
        reference, estimate: sorted by file and onset.
        collar: microseconds.
        offset_share: of the reference's length.
        onset_only: offsets may be anything.
    """
    last = max((int(e.onset.max()) for e in (reference, estimate) if len(e.onset)), default=0)
    file_step = last + 2 * collar + 2
    key = estimate.file * file_step + estimate.onset
    wanted = reference.file * file_step + reference.onset
    low = np.searchsorted(key, wanted - collar, side="left")
    high = np.searchsorted(key, wanted + collar, side="right")
    first, second = expand(low, high)
    if not onset_only:
        room = share_of(reference.offset - reference.onset, offset_share)
        apart = np.abs(reference.offset[first] - estimate.offset[second])
        near = apart <= np.maximum(collar, room)[first]
        first, second = first[near], second[near]
    return first, second


def expand(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each i with every j from low[i] to high[i] - 1: (P,), (P,), by i, then j."""
    number = np.maximum(high - low, 0)
    first = np.repeat(np.arange(len(low)), number)
    begin = np.repeat(np.cumsum(number) - number, number)
    return first, np.arange(len(first)) - begin + low[first]


def match_optimal(
    reference: EventArrays, estimate: EventArrays, first: np.ndarray, second: np.ndarray
) -> Match:
    """As many hits as possible, and then as many substitutions as possible.

    One assignment of least cost: a hit saves 3, a substitution 1. One hit more can cost two
    substitutions (those of the two events that it joins), never three, so that hits come first.
    """
    match = _nothing(reference, estimate)
    if not len(first):
        return match
    same = reference.label[first] == estimate.label[second]
    rows, row_of = np.unique(first, return_inverse=True)
    columns, column_of = np.unique(second, return_inverse=True)
    n, m = len(rows), len(columns)
    # To each row a column of its own, for the event that is not matched.
    costs = csr_array(
        (
            np.concatenate([np.where(same, 1.0, 3.0), np.full(n, 4.0)]),
            (
                np.concatenate([row_of, np.arange(n)]),
                np.concatenate([column_of, m + np.arange(n)]),
            ),
        ),
        shape=(n, m + n),
    )
    row, column = min_weight_full_bipartite_matching(costs)
    row, column = row[column < m], column[column < m]
    left, right = rows[row], columns[column]
    equal = reference.label[left] == estimate.label[right]
    match.hit[left[equal]] = True
    match.right[right[equal]] = True
    match.swapped[left[~equal]] = True
    return match


def match_greedy(
    reference: EventArrays, estimate: EventArrays, first: np.ndarray, second: np.ndarray
) -> Match:
    """Each event of the reference, in order of onset, takes the first estimate that is free.

    Substitutions are then sought in the same manner among what is left (sed_eval's "greedy").
    """
    match = _nothing(reference, estimate)
    same = reference.label[first] == estimate.label[second]
    for i, j in zip(first[same].tolist(), second[same].tolist(), strict=True):
        if not match.hit[i] and not match.right[j]:
            match.hit[i] = match.right[j] = True
    taken = match.right.copy()
    for i, j in zip(first[~same].tolist(), second[~same].tolist(), strict=True):
        if not match.hit[i] and not match.swapped[i] and not taken[j]:
            match.swapped[i] = taken[j] = True
    return match


def _nothing(reference: EventArrays, estimate: EventArrays) -> Match:
    """Nothing found yet."""
    n, m = len(reference.onset), len(estimate.onset)
    return Match(np.zeros(n, bool), np.zeros(m, bool), np.zeros(n, bool))
