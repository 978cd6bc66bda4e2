"""Raven selection tables: tabs between, a header, `Begin Time (s)`, `End Time (s)` and the rest.

A table of one sound counts from its start. A table of several has `Begin File` or `Begin Path`,
and `Begin Time (s)` counts from the start of the first of them; `File Offset (s)` is the time
within the file. Raven writes a row for each view that a selection was drawn in (Cornell Lab of
Ornithology, Raven Pro user's manual, "Measurements" and "Selection tables").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle.datasets.strong.lines import (
    digits,
    is_number,
    minus,
    number,
    plus,
    printable,
    read_text,
    records,
    whole,
    write_text,
)
from ossicle.datasets.strong.rows import LabelFile, Reading, Row, make_row
from ossicle.errors import DataError

LABEL_COLUMNS = (
    *("annotation", "annotations", "label", "species", "common name", "species code", "code"),
    *("call type", "call_type", "sound type", "sound_type", "class", "type", "tags", "tag"),
    *("event", "name"),
)
SCORE_COLUMNS = ("score", "confidence", "probability")
_FIXED = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"),
    *("Low Freq (Hz)", "High Freq (Hz)"),
)


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of a selection table, with `low_hz`, `high_hz` where it has them, `channel` unless 1.

    Of several rows of one selection in several views the spectrogram's is kept, as it alone has
    the range of pitches.

    Raises:
        DataError: a column is missing, or several files are named without `File Offset (s)`.
    """
    found = LabelFile([])
    lines = list(records(read_text(path, found.notes), "\t", path, quoted=False))
    if not lines:
        return found
    first, header = lines[0]
    table = _Columns([name.strip() for name in header], reading, f"{path}: line {first}")
    cells = [table.cells(fields, f"{path}: line {n}") for n, fields in lines[1:]]
    kept = _one_view(cells, found.notes, path)
    files = {cell["file"] for cell in kept}
    if len(files) > 1 and table.offset is None:
        raise DataError(
            f"{path}: line {first}: names {len(files)} files but has no column 'File Offset (s)'; "
            "add that measurement in Raven, or write one table a recording"
        )
    found.rows = [_row(cell, reading) for cell in kept]
    if all(row["channel"] in (1.0, None) for row in found.rows if "channel" in row):
        for row in found.rows:
            row.pop("channel", None)
    return found


class _Columns:
    """Where in a line the values of a selection stand."""

    def __init__(self, header: list[str], reading: Reading, where: str) -> None:
        self.lower = [name.lower() for name in header]
        self.size = len(header)
        for name in ("Begin Time (s)", "End Time (s)"):
            if name.lower() not in self.lower:
                shown = ", ".join(header[:12])
                raise DataError(f"{where}: has no column {name!r} (it has {shown})")
        self.offset = self.first(("file offset (s)",))
        self.file = self.first(("begin path", "begin file"))
        labels: tuple[str, ...] = LABEL_COLUMNS
        if reading.label_column is not None:
            labels = (reading.label_column.lower(),)
        self.label = self.first(labels)
        if self.label is None and (reading.label is None or reading.label_column is not None):
            shown = ", ".join(header[:16])
            raise DataError(
                f"{where}: has no column of labels such as "
                f"{reading.label_column or 'Annotation'!r} (it has {shown}); name the column, or "
                "give one label for all"
            )
        self.score = self.first(SCORE_COLUMNS)

    def first(self, names: tuple[str, ...]) -> int | None:
        """The position of the first of the names that the table has."""
        return next((self.lower.index(name) for name in names if name in self.lower), None)

    def cells(self, fields: list[str], where: str) -> dict[str, Any]:
        """The texts of one line by what they are."""
        # Raven drops tabs at the end of a line where the last fields are empty.
        fields = [*fields, *[""] * (self.size - len(fields))]
        if len(fields) > self.size:
            raise DataError(f"{where} has {len(fields)} fields, the header {self.size}")

        def at(position: int | None) -> str:
            return "" if position is None else fields[position].strip()

        def named(name: str) -> str:
            return at(self.first((name,)))

        return {
            "where": where,
            "begin": named("begin time (s)"),
            "end": named("end time (s)"),
            "low_hz": named("low freq (hz)"),
            "high_hz": named("high freq (hz)"),
            "channel": named("channel"),
            "selection": named("selection"),
            "view": named("view"),
            "file_offset": at(self.offset),
            "file": at(self.file),
            "label": at(self.label),
            "score": at(self.score),
            "banded": "low freq (hz)" in self.lower and "high freq (hz)" in self.lower,
        }


def _one_view(cells: list[dict[str, Any]], notes: list[str], path: Path) -> list[dict[str, Any]]:
    """One row a selection, where the same one is there in several views."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for i, cell in enumerate(cells):
        key: tuple[Any, ...] = (i,)
        if cell["selection"] and cell["view"]:
            key = tuple(cell[k] for k in ("selection", "file", "channel", "begin", "end"))
        if key in kept and cell["view"] == kept[key]["view"]:
            key = (i,)
        if key not in kept or cell["view"].lower().startswith("spectrogram"):
            kept[key] = cell
    if len(kept) < len(cells):
        notes.append(f"{path}: {len(cells) - len(kept)} rows are further views of a selection")
    return list(kept.values())


def _row(cell: dict[str, Any], reading: Reading) -> Row:
    where = cell["where"]
    begin, end = (number(cell[key], f"{key} time", where) for key in ("begin", "end"))
    start = number(cell["file_offset"], "File Offset (s)", where)
    if math.isnan(begin) or math.isnan(end):
        raise DataError(f"{where}: a selection needs a begin and an end time")
    if not math.isnan(start):
        length = minus(cell["end"], cell["begin"])
        begin, end = start, float(plus(cell["file_offset"], length))
    row = make_row(
        reading,
        where,
        file=cell["file"],
        onset=begin,
        offset=end,
        label=cell["label"],
        score=number(cell["score"], "score", where),
    )
    if cell["banded"]:
        row["low_hz"] = number(cell["low_hz"], "Low Freq (Hz)", where)
        row["high_hz"] = number(cell["high_hz"], "High Freq (Hz)", where)
    row["channel"] = float(cell["channel"]) if is_number(cell["channel"]) else None
    return row


def write(
    events: pd.DataFrame,
    path: Path,
    label_column: str = "Annotation",
    durations: Mapping[str, float] | None = None,
    band_hz: tuple[float, float] = (0.0, 8000.0),
) -> None:
    """Writes a selection table with `Begin Path` and `File Offset (s)`.

    Args:
        events: as ``event_table`` makes them, with `low_hz`, `high_hz`, `channel` or without.
        path: the file.
        label_column: its name; one of `LABEL_COLUMNS` is found again by itself.
        durations: seconds of each recording: `Begin Time (s)` then counts from the start of the
            first, as Raven counts in a sequence of files. Without, from the start of each.
        band_hz: the box of an event without `low_hz` and `high_hz`; Raven draws none without.

    Raises:
        DataError: a label has a tab or line break; a recording's duration is not given.
    """
    label_column = printable(label_column, "name of a column", "Raven", path)
    files = list(dict.fromkeys(events["file"]))
    missing = [file for file in files if durations is not None and file not in durations]
    if missing:
        raise DataError(f"{path}: the duration of {missing[0]} is not given")
    starts = dict.fromkeys(files, "0")
    for before, file in pairwise(files if durations is not None else []):
        assert durations is not None
        starts[file] = plus(starts[before], digits(durations[before]))
    scored = not events["score"].isna().all()
    header = [*_FIXED, label_column, *(["Score"] if scored else []), "Begin Path"]
    lines = ["\t".join([*header, "File Offset (s)"])]
    for i, event in enumerate(events.to_dict("records"), start=1):
        onset, offset = digits(event["onset"]), digits(event["offset"])
        low, high, channel = (
            default if math.isnan(value) else value
            for value, default in (
                (float(event.get("low_hz", math.nan)), band_hz[0]),
                (float(event.get("high_hz", math.nan)), band_hz[1]),
                (float(event.get("channel", math.nan)), 1.0),
            )
        )
        start = starts[event["file"]]
        fields = [str(i), "Spectrogram 1", whole(channel), plus(start, onset), plus(start, offset)]
        fields += [digits(low), digits(high)]
        fields.append(printable(event["label"], "label", "Raven", path))
        fields += [digits(event["score"])] if scored else []
        fields += [printable(event["file"], "file name", "Raven", path), onset]
        lines.append("\t".join(fields))
    write_text(path, "".join(f"{line}\n" for line in lines))
