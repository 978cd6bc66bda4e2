r"""Audacity label tracks: onset, offset and label with tabs between, one event a line.

A label over a range of pitches has a second line: a backslash, the lowest and the highest Hz
(Audacity manual, "Importing and Exporting Labels"; a bound that is not set is negative there). A
label without length is a point. The file names no recording and has no place for a score.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from ossicle.datasets.strong.lines import (
    digits,
    number,
    numbered,
    printable,
    read_text,
    write_text,
)
from ossicle.datasets.strong.rows import LabelFile, Reading, Row, make_row
from ossicle.errors import DataError


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of a label track; `low_hz` and `high_hz` where any label has a range of pitches.

    Raises:
        DataError: a line is neither a label nor a range.
    """
    found = LabelFile([])
    rows: list[Row] = []
    for n, line in numbered(read_text(path, found.notes)):
        where = f"{path}: line {n}"
        fields = line.split("\t", 2)
        if fields[0] == "\\":
            if not rows or len(fields) < 3 or "low_hz" in rows[-1]:
                raise DataError(f"{where}: a range of pitches must follow a label: \\, low, high")
            low, high = (number(text, "Hz", where) for text in fields[1:])
            rows[-1].update(low_hz=_bound(low), high_hz=_bound(high))
            continue
        if len(fields) < 2:
            raise DataError(f"{where}: has no tab; an Audacity label is onset, offset, label")
        onset, offset = (number(text, "time", where) for text in fields[:2])
        if math.isnan(onset) or math.isnan(offset):
            raise DataError(f"{where}: has no times; an Audacity label is onset, offset, label")
        label = fields[2] if len(fields) > 2 else ""
        rows.append(make_row(reading, where, file=None, onset=onset, offset=offset, label=label))
    if any("low_hz" in row for row in rows):
        for row in rows:
            row.setdefault("low_hz", math.nan)
            row.setdefault("high_hz", math.nan)
    found.rows = rows
    return found


def write(events: pd.DataFrame, path: Path) -> None:
    """Writes the events of one recording, in order of time.

    Raises:
        DataError: there are several recordings, or a label has a tab or line break.
    """
    files = list(dict.fromkeys(events["file"]))
    if len(files) > 1:
        raise DataError(
            f"{path}: Audacity labels are of one recording, these events of {len(files)}; write "
            "one file for each"
        )
    lines = []
    for event in events.to_dict("records"):
        label = printable(event["label"], "label", "Audacity", path)
        lines.append(f"{digits(event['onset'])}\t{digits(event['offset'])}\t{label}\n")
        bounds = [float(event.get(name, math.nan)) for name in ("low_hz", "high_hz")]
        if not all(map(math.isnan, bounds)):
            low, high = (digits(-1.0 if math.isnan(hz) else hz) for hz in bounds)
            lines.append(f"\\\t{low}\t{high}\n")
    write_text(path, "".join(lines))


def _bound(hz: float) -> float:
    return math.nan if hz < 0 else hz
