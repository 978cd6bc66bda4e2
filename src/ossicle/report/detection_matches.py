"""Which detections are right: each event found, and each of the reference, gets its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.metrics.events.matching import close_pairs, match_optimal
from ossicle.metrics.events.tables import EventArrays, microseconds


class Verdicts(NamedTuple):
    """For the events found (m) and those of the reference (n), in the order of their tables.

    Attributes:
        right: (m,) bool: a hit; otherwise a false alarm.
        hit: (n,) bool: was found; otherwise missed.
        found_off: (m,) bool: a false alarm that overlaps a missed event of its class: the sound is
            there, its times are off.
        missed_off: (n,) bool: missed, but overlapped by a false alarm of its class.
    """

    right: np.ndarray
    hit: np.ndarray
    found_off: np.ndarray
    missed_off: np.ndarray


def judge(
    events: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    onset_only: bool = False,
) -> Verdicts:
    """Compare as ``ossicle.metrics.events.event_based`` does; the arguments are the same.

    Args:
        events, reference: tables with file, onset, offset (s) and label; any order.
        collar_s: how far an onset may be off, s.
        offset_share: an offset may be off by this share of the reference event's length, if that
            is more than the collar.
        onset_only: the offset may be anywhere.
    """
    both = [events, reference]
    file = pd.factorize(np.concatenate([t["file"].astype(str) for t in both]))[0]
    label = pd.factorize(np.concatenate([t["label"].astype(str) for t in both]))[0]
    cut = len(events)
    found, found_order = _sorted(events, file[:cut], label[:cut])
    wanted, wanted_order = _sorted(reference, file[cut:], label[cut:])
    collar = int(microseconds(collar_s))
    pairs = close_pairs(wanted, found, collar, offset_share, onset_only=onset_only)
    # Only hits are asked for: pairs of two classes would make the assignment larger.
    same = wanted.label[pairs[0]] == found.label[pairs[1]]
    match = match_optimal(wanted, found, pairs[0][same], pairs[1][same])
    right, hit = np.zeros(cut, bool), np.zeros(len(reference), bool)
    right[found_order], hit[wanted_order] = match.right, match.hit
    found_off, missed_off = _overlapping(found, wanted, ~match.right, ~match.hit)
    off_found, off_missed = np.zeros(cut, bool), np.zeros(len(reference), bool)
    off_found[found_order], off_missed[wanted_order] = found_off, missed_off
    return Verdicts(right, hit, off_found, off_missed)


def _sorted(
    table: pd.DataFrame, file: np.ndarray, label: np.ndarray
) -> tuple[EventArrays, np.ndarray]:
    onset, offset = (microseconds(table[name].to_numpy(float)) for name in ("onset", "offset"))
    order = np.lexsort((label, offset, onset, file))
    return EventArrays(file[order], label[order], onset[order], offset[order]), order


def _overlapping(
    found: EventArrays, wanted: EventArrays, alarm: np.ndarray, missed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the false alarms those that overlap a missed event of their file and class; and back."""
    found_off, missed_off = np.zeros(len(alarm), bool), np.zeros(len(missed), bool)
    groups: dict[tuple[int, int], list[int]] = {}
    for j in np.flatnonzero(alarm):
        groups.setdefault((int(found.file[j]), int(found.label[j])), []).append(int(j))
    arrays = {key: np.array(some) for key, some in groups.items()}
    for i in np.flatnonzero(missed):
        some = arrays.get((int(wanted.file[i]), int(wanted.label[i])))
        if some is None:
            continue
        near = (found.onset[some] < wanted.offset[i]) & (wanted.onset[i] < found.offset[some])
        missed_off[i] = near.any()
        found_off[some[near]] = True
    return found_off, missed_off


def verdict_counts(verdicts: Verdicts, labels: Sequence[str], true: Sequence[str]) -> pd.DataFrame:
    """Hits, misses and false alarms by class (the index), for the labels of both tables."""
    rows = pd.DataFrame(
        {
            "label": [*labels, *true],
            "hits": np.concatenate([np.zeros(len(labels), int), verdicts.hit.astype(int)]),
            "misses": np.concatenate([np.zeros(len(labels), int), (~verdicts.hit).astype(int)]),
            "alarms": np.concatenate([(~verdicts.right).astype(int), np.zeros(len(true), int)]),
        }
    )
    return rows.groupby("label", sort=False).sum()
