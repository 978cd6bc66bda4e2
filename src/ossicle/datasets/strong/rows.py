"""The rows that all label formats are read into: an event, a weak label, or a silent recording.

A row is a dict: `file` (str), `onset` and `offset` (s; NaN where the row has no times), `label`
("" where there are no times), `score` (NaN where none is known), `weak` (list of str: labels of
the whole recording, where there are no times), then whatever else the file says: `low_hz` and
`high_hz`, `channel`, and the other columns of a table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ossicle.errors import DataError
from ossicle.events import COLUMNS, event_table

Row = dict[str, Any]


class Reading(NamedTuple):
    """How a label file is to be read.

    Attributes:
        path: the label file, as messages name it.
        file: the recording, for rows that name none.
        label: for events that have none; None refuses them.
        label_column: the column of labels in a table; None takes the first of the usual names.
        annotations: "one" or "all" of several annotations of a Label Studio task.
    """

    path: str
    file: str
    label: str | None = None
    label_column: str | None = None
    annotations: str = "one"


@dataclass
class LabelFile:
    """What a label file says.

    Attributes:
        rows: as this module describes them, in the file's order.
        kind: of ``KINDS``.
        notes: what was decided or passed over, for the user.
    """

    rows: list[Row]
    kind: str = ""
    notes: list[str] = field(default_factory=list)

    def events(self, source: str | os.PathLike[str] = "events") -> pd.DataFrame:
        """The events alone, as ``event_table`` makes them."""
        rows = [{k: v for k, v in row.items() if k != "weak"} for row in self.rows if is_event(row)]
        frame = pd.DataFrame(rows, columns=None if rows else list(COLUMNS))
        return event_table(frame, os.fspath(source))

    def files(self) -> list[str]:
        """All recordings that the file names, in order, with and without events."""
        return list(dict.fromkeys(row["file"] for row in self.rows))


def is_event(row: Row) -> bool:
    """Whether a row has times."""
    return not math.isnan(row["onset"])


def make_row(
    reading: Reading,
    where: str,
    *,
    file: str | None,
    onset: float,
    offset: float,
    label: str,
    score: float = math.nan,
    weak: Sequence[str] | None = None,
    rest: Mapping[str, Any] | None = None,
) -> Row:
    """A row, checked.

    Args:
        reading: what to put where the file says nothing.
        where: file and line, for errors.
        file: the recording; None or "" takes that of `reading`.
        onset: seconds, or NaN.
        offset: seconds, or NaN.
        label: of the event; spaces around it are dropped.
        score: of the event, or NaN.
        weak: labels of the whole recording; by default `label` where there are no times.
        rest: further columns; those with a name of ours get an underscore behind it.

    Raises:
        DataError: one of the two times is missing, they are negative or in the wrong order, or an
            event has no label.
    """
    label = label.strip()
    others = {f"{k}_" if k in (*COLUMNS, "weak") else k: v for k, v in (rest or {}).items()}
    row: Row = {"file": file or reading.file, "onset": onset, "offset": offset}
    if math.isnan(onset) and math.isnan(offset):
        named = [label] if weak is None and label.lower() not in ("", "nan") else weak or []
        return {**row, "label": "", "score": score, "weak": list(named), **others}
    if math.isnan(onset) or math.isnan(offset):
        missing = "onset" if math.isnan(onset) else "offset"
        raise DataError(f"{where}: has no {missing}; an event needs both, a weak label neither")
    if not 0 <= onset <= offset < math.inf:
        raise DataError(
            f"{where}: onset {onset} and offset {offset} must be 0 <= onset <= offset (seconds)"
        )
    label = label or (reading.label or "")
    if not label:
        raise DataError(
            f"{where}: the event has no label; name it, or give one for all such events"
        )
    return {**row, "label": label, "score": score, "weak": [], **others}


def silent_row(reading: Reading, file: str | None) -> Row:
    """The row of a recording in which nothing sounds."""
    nothing = math.nan
    return make_row(reading, reading.path, file=file, onset=nothing, offset=nothing, label="")
