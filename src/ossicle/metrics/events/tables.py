"""Event tables as arrays: what is compared, checked, with times in whole microseconds.

Times are rounded to the microsecond before anything is compared, so that an onset that lies exactly
on a collar counts as within it whatever 0.7 + 0.2 is in binary, and sums of times are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.errors import DataError

MICRO = 1_000_000


class EventArrays(NamedTuple):
    """n events, by file, onset, offset, label.

    Attributes:
        file: (n,) int64 position among the files.
        label: (n,) int64 position among the classes.
        onset: (n,) int64 microseconds.
        offset: (n,) int64 microseconds, not before the onset.
    """

    file: np.ndarray
    label: np.ndarray
    onset: np.ndarray
    offset: np.ndarray

    def lasting(self) -> EventArrays:
        """Those that last at all."""
        keep = self.offset > self.onset
        return EventArrays(*(column[keep] for column in self))


def event_arrays(
    events: pd.DataFrame, files: Sequence[str], classes: Sequence[str], role: str
) -> EventArrays:
    """A table of events as arrays.

    Args:
        events: with file, onset, offset (s), label; any order.
        files: the recordings that are scored.
        classes: K names.
        role: what messages call the table, "reference" or "estimate".

    Raises:
        DataError: a column is missing, a time is no number or negative, an offset lies before its
            onset, or a file or a label is none of those given.
    """
    missing = [name for name in ("file", "onset", "offset", "label") if name not in events]
    if missing:
        raise DataError(f"{role}: has no column {missing[0]} (it has {', '.join(events.columns)})")
    file = _codes(events["file"], files, role, "file", "recordings that are scored")
    label = _codes(events["label"], classes, role, "label", "classes that are scored")
    times = [pd.to_numeric(events[n], errors="coerce").to_numpy(float) for n in ("onset", "offset")]
    good = np.isfinite(times[0]) & (times[0] >= 0) & (times[1] >= times[0]) & (times[1] < np.inf)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"{role}: {events['file'].iloc[row]}: onset {events['onset'].iloc[row]} and offset "
            f"{events['offset'].iloc[row]} must be numbers of seconds, 0 <= onset <= offset"
        )
    onset, offset = microseconds(times[0]), microseconds(times[1])
    order = np.lexsort((label, offset, onset, file))
    return EventArrays(file[order], label[order], onset[order], offset[order])


def file_durations(durations: Mapping[str, float]) -> tuple[tuple[str, ...], np.ndarray]:
    """The recordings, and how long each is: (F,) int64 microseconds.

    Raises:
        DataError: there are none, or a duration is no number above 0.
    """
    if not durations:
        raise DataError("durations: there is no recording to score")
    files = tuple(str(name) for name in durations)
    seconds = pd.to_numeric(pd.Series(list(durations.values())), errors="coerce").to_numpy(float)
    good = np.isfinite(seconds) & (seconds >= 0.5 / MICRO)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"durations: {files[row]}: {list(durations.values())[row]} is no number of seconds "
            "above 0"
        )
    return files, np.maximum(microseconds(seconds), 1)


def class_names(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes, checked: at least one, none twice.

    Raises:
        DataError: otherwise.
    """
    names = tuple(classes)
    if not names or len(set(names)) < len(names):
        raise DataError("classes: give at least one, none of them twice")
    return names


def files_of(*tables: pd.DataFrame) -> tuple[str, ...]:
    """The files that any of the tables names, in order of appearance."""
    return tuple(dict.fromkeys(str(name) for table in tables for name in table.get("file", ())))


def microseconds(seconds: np.ndarray | float) -> np.ndarray:
    """Seconds as whole microseconds, int64."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * MICRO).astype(np.int64)


def share_of(lengths: np.ndarray, share: float) -> np.ndarray:
    """A share of lengths in microseconds, in whole microseconds."""
    return np.rint(share * lengths).astype(np.int64)


def check_share(name: str, value: float) -> float:
    """A number from 0 to 1.

    Raises:
        DataError: it is none.
    """
    if not 0 <= value <= 1:
        raise DataError(f"{name}: {value} is not between 0 and 1")
    return float(value)


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """A finite number above 0 (or 0 too).

    Raises:
        DataError: it is none.
    """
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise DataError(f"{name}: {value} is no number {'from' if zero else 'above'} 0")
    return float(value)


def _codes(column: pd.Series, names: Sequence[str], role: str, what: str, among: str) -> np.ndarray:
    """The position of each entry of a column among names."""
    codes = pd.Index(list(names), dtype=object).get_indexer(column.astype(object).map(str))
    if (codes < 0).any():
        stranger = column.iloc[int(np.argmin(codes >= 0))]
        raise DataError(
            f"{role}: the {what} {str(stranger)!r} is not among the {len(names)} {among}; "
            "add it to them, or take its rows out"
        )
    return np.asarray(codes, dtype=np.int64)
