"""The tables of the DCASE challenges: `filename onset offset event_label`, with tabs between.

Also those without a header that sed_eval takes: onset, offset, label; with the file before them;
with file and scene before them. A row without times and label is a recording in which nothing
sounds. Weak tables have `filename event_labels`, with commas between the labels. No scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ossicle.datasets.strong import table
from ossicle.datasets.strong.lines import (
    digits,
    is_number,
    number,
    printable,
    read_text,
    records,
    write_records,
    write_text,
)
from ossicle.datasets.strong.rows import LabelFile, Reading, Row, make_row, silent_row
from ossicle.errors import DataError

_HEADER = ("filename", "onset", "offset", "event_label")


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of a strong or weak table, with a header or without.

    Raises:
        DataError: a column is missing, or a line cannot be read.
    """
    found = LabelFile([])
    lines = list(records(read_text(path, found.notes), "\t", path))
    if not lines:
        return found
    number_of_first, first = lines[0]
    header = [name.strip() for name in first]
    lower = [name.lower() for name in header]
    named = {"onset", "offset", "event_label", "event_labels"} & set(lower)
    if not named or any(is_number(name) for name in lower):
        found.rows = [_bare(fields, reading, f"{path}: line {n}") for n, fields in lines]
        return found
    if "event_labels" in lower and "onset" not in lower:
        at = lower.index("event_labels")
        name = next((lower.index(name) for name in table.FILE_NAMES if name in lower), None)
        if name is None:
            raise DataError(f"{path}: line {number_of_first}: has no column 'filename'")
        for n, fields in lines[1:]:
            padded = [*fields, *[""] * (len(header) - len(fields))]
            labels = [] if padded[at].strip().lower() == "nan" else padded[at].split(",")
            found.rows.append(
                make_row(
                    reading,
                    f"{path}: line {n}",
                    file=padded[name].strip(),
                    onset=math.nan,
                    offset=math.nan,
                    label="",
                    weak=[label.strip() for label in labels if label.strip()],
                )
            )
        return found
    # Rows of recordings without events may end after the file's name.
    padded_lines = (
        (f"line {n}", [*fields, *[""] * (len(header) - len(fields))]) for n, fields in lines[1:]
    )
    found.rows = list(table.table_rows(header, padded_lines, reading))
    return found


def _bare(fields: list[str], reading: Reading, where: str) -> Row:
    """A row of a table without a header."""
    at = next((i for i in (0, 1, 2) if len(fields) > i + 2 and is_number(fields[i])), None)
    if at is None:
        for text in fields:
            if is_number(text.replace(",", ".")):
                number(text, "time", where)
        if len(fields) == 1 or not any(text.strip() for text in fields[1:]):
            return silent_row(reading, fields[0].strip())
        raise DataError(
            f"{where}: is not onset, offset, label with tabs between, nor has the table a header "
            f"({', '.join(_HEADER)})"
        )
    return make_row(
        reading,
        where,
        file=fields[0].strip() if at else None,
        onset=number(fields[at], "onset", where),
        offset=number(fields[at + 1], "offset", where),
        label=fields[at + 2],
    )


def write(events: pd.DataFrame, path: Path, files: Sequence[str] = ()) -> None:
    """Writes `filename onset offset event_label`; recordings without events get an empty row.

    Raises:
        DataError: a label or file name has a tab or line break.
    """
    rows: list[list[str]] = [list(_HEADER)]
    for event in events.to_dict("records"):
        file = printable(event["file"], "file name", "DCASE", path)
        label = printable(event["label"], "label", "DCASE", path)
        rows.append([file, digits(event["onset"]), digits(event["offset"]), label])
    named = set(events["file"])
    for file in dict.fromkeys(files):
        if file not in named:
            rows.append([printable(file, "file name", "DCASE", path), "", "", ""])
    write_text(path, write_records(rows, "\t"))
