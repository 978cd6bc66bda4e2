"""When which class sounds: its share of the recorded time, over the day or over the recordings.

K classes, W columns of time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.report.detection_tracks import clock

# As recorders name their files: 20240511_043000, 2024-05-11T04-30-00.
_STAMP = re.compile(r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)[T_ -]?(\d\d)[-:.h]?(\d\d)[-:.m]?(\d\d)(?!\d)")
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_MOST_COLUMNS, _MOST_DAYS = 48, 62
_DAY, _HOUR = 86400.0, 3600.0


class Activity(NamedTuple):
    """One map.

    Attributes:
        title: what its columns are.
        columns: (W,) their names.
        shares: (K, W) of the recorded time in which the class sounds, 0 to 1; NaN where nothing
            was recorded.
        counts: (K, W) int: events that begin there.
    """

    title: str
    columns: list[str]
    shares: np.ndarray
    counts: np.ndarray


def started(name: str) -> datetime | None:
    """When a recording began, by its name, as recorders in the field write it; None: not told."""
    found = _STAMP.search(PurePath(name).stem)
    if found is None:
        return None
    try:
        return datetime(*map(int, found.groups()))  # type: ignore[arg-type]
    except ValueError:  # digits that are no date
        return None


def activity(
    events: pd.DataFrame, classes: Sequence[str], durations: Mapping[str, float]
) -> list[Activity]:
    """The maps that the recordings allow.

    Where the names of all recordings say when each began: by hour of the day, and by day if there
    are several (at most the last 62). Otherwise by the time since each recording's start.

    Args:
        events: with file, onset, offset (s), label; labels beyond the classes are left out.
        classes: K names.
        durations: of all recordings, seconds.
    """
    lengths = {name: length for name, length in durations.items() if length > 0}
    index = {name: k for k, name in enumerate(classes)}
    kept = events[events["file"].isin(lengths) & events["label"].isin(index)]
    if not lengths or not len(kept):
        return []
    label = kept["label"].map(index).to_numpy(int)
    onset, offset = kept["onset"].to_numpy(float), kept["offset"].to_numpy(float)
    stamps = {name: started(name) for name in lengths}
    if any(stamp is None for stamp in stamps.values()):
        longest = max(lengths.values())
        step = next((s for s in _STEPS if longest / s <= _MOST_COLUMNS), 86400)
        if longest < 20:
            return []
        width = int(np.ceil(longest / step - 1e-9))
        names = [clock(i * step, 1, longest) for i in range(width)]
        recorded = _spread(
            np.zeros(len(lengths)), np.array(list(lengths.values())), np.zeros(len(lengths), int),
            1, step, width, None,
        )  # fmt: skip
        return [
            _map("By time since the start", names, kept, label, onset, offset, recorded, len(index),
                 step, width, None)
        ]  # fmt: skip
    known = {name: stamp for name, stamp in stamps.items() if stamp is not None}
    first = min(known.values()).replace(hour=0, minute=0, second=0)
    shift = {name: (stamp - first).total_seconds() for name, stamp in known.items()}
    begin = np.array([shift[name] for name in lengths])
    end = begin + np.array(list(lengths.values()))
    zeros = np.zeros(len(lengths), int)
    at = kept["file"].map(shift).to_numpy(float)
    hours = [f"{h:02d} h" for h in range(24)]
    maps = [
        _map("By hour of the day", hours, kept, label, onset + at, offset + at,
             _spread(begin, end, zeros, 1, _HOUR, 24, 24), len(index), _HOUR, 24, 24)
    ]  # fmt: skip
    n_days = int(np.ceil(end.max() / _DAY))
    if n_days > 1:
        skip = max(0, n_days - _MOST_DAYS)
        first_day = first + timedelta(days=skip)
        days = [f"{first_day + timedelta(days=d):%m-%d}" for d in range(n_days - skip)]
        late = _spread(begin - skip * _DAY, end - skip * _DAY, zeros, 1, _DAY, len(days), None)
        title = f"By day, from {first_day:%Y-%m-%d}"
        maps.append(
            _map(title, days, kept, label, onset + at - skip * _DAY, offset + at - skip * _DAY,
                 late, len(index), _DAY, len(days), None)
        )  # fmt: skip
    return maps


def union(file: np.ndarray, label: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> Any:
    """Events with those of one file and class that overlap joined: (label, onset, offset, file)."""
    order = np.lexsort((onset, label, file))
    file, label, onset, offset = file[order], label[order], onset[order], offset[order]
    if not len(file):
        return label, onset, offset, file
    # Each group lies on a stretch of time of its own, so that one running maximum serves all.
    group = np.cumsum(np.r_[0, (np.diff(file) != 0) | (np.diff(label) != 0)])
    low = float(onset.min())
    size = float(offset.max()) - low + 1.0
    begin, end = onset - low + group * size, np.maximum.accumulate(offset - low + group * size)
    new = np.r_[True, begin[1:] > end[:-1]]
    starts = np.flatnonzero(new)
    last = np.r_[starts[1:], len(file)] - 1
    return label[starts], onset[starts], end[last] - group[last] * size + low, file[starts]


def _map(
    title: str,
    columns: list[str],
    kept: pd.DataFrame,
    label: np.ndarray,
    onset: np.ndarray,
    offset: np.ndarray,
    recorded: np.ndarray,
    n_classes: int,
    step: float,
    width: int,
    around: int | None,
) -> Activity:
    file = pd.factorize(kept["file"])[0]
    some, begin, end, _ = union(file, label, onset, offset)
    seconds = _spread(begin, end, some, n_classes, step, width, around)
    place = np.floor(onset / step).astype(int)
    place = place % around if around else place
    inside = (place >= 0) & (place < width)
    counts = np.bincount(label[inside] * width + place[inside], minlength=n_classes * width)
    shares = np.divide(seconds, recorded, out=np.full(seconds.shape, np.nan), where=recorded > 1e-9)
    return Activity(title, columns, np.clip(shares, 0, 1), counts.reshape(n_classes, width))


def _spread(
    begin: np.ndarray,
    end: np.ndarray,
    row: np.ndarray,
    n_rows: int,
    step: float,
    width: int,
    around: int | None,
) -> np.ndarray:
    """(rows, W) seconds of intervals in each column; with `around`, columns come round again."""
    first, last = np.floor(begin / step).astype(int), np.floor(end / step).astype(int)
    number = last - first + 1
    which = np.repeat(np.arange(len(begin)), number)
    place = np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number) + first[which]
    length = np.minimum(end[which], (place + 1) * step) - np.maximum(begin[which], place * step)
    place = place % around if around else place
    inside = (place >= 0) & (place < width)
    made = np.zeros((n_rows, width))
    np.add.at(made, (row[which[inside]], place[inside]), np.maximum(length[inside], 0))
    return made
