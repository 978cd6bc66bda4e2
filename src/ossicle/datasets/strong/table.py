"""Tables of events: CSV, TSV, JSON Lines and Parquet with `file,onset,offset,label,score`.

The form to keep events in: nothing is lost. A row without onset, offset and label is a recording
in which nothing sounds; one with a label (several with ";") but no times is weakly labelled.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.datasets.layouts import LABEL_COLUMNS, PATH_COLUMNS
from ossicle.datasets.strong.lines import (
    digits,
    number,
    numbered,
    read_text,
    records,
    whole,
    write_records,
    write_text,
)
from ossicle.datasets.strong.rows import LabelFile, Reading, Row, make_row
from ossicle.errors import DataError
from ossicle.record import replaced

# The first that a table has is used; capitals do not matter.
FILE_NAMES = (*PATH_COLUMNS, "audiofilename", "notated_path", "begin path", "begin file")
ONSET_NAMES = (
    *("onset", "onset_s", "start", "start_s", "start_time", "starttime", "begin", "begin_s"),
    *("begin_time", "start (s)", "start_seconds", "tstart", "t_start"),
)
OFFSET_NAMES = (
    *("offset", "offset_s", "end", "end_s", "end_time", "endtime", "stop", "stop_s"),
    *("stop_time", "end (s)", "stop_seconds", "tend", "t_end"),
)
LABEL_NAMES = (
    *("event_label", "label", "event", "annotation", "species", "common name", "name"),
    *(name for name in LABEL_COLUMNS if name != "label"),
)
SCORE_NAMES = ("score", "confidence", "probability")
_GENERIC = ("label", "onset_s", "offset_s", "notated_path", "annot_path", "sequence", "annotation")
_NUMBERS = ("low_hz", "high_hz", "channel")


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of a table; the columns of `file,onset,offset,label,score` in any order.

    Raises:
        DataError: a column is missing, or a row is neither event nor weak label nor empty.
    """
    notes: list[str] = []
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        header, lines = _parquet(path)
    elif suffix == ".jsonl":
        header, lines = _json_lines(path, notes)
    else:
        header, lines = _delimited(path, notes)
    if header is None:
        return LabelFile([], "csv", notes)
    rows = list(table_rows(header, lines, reading))
    return LabelFile(rows, "csv", notes)


def frame_rows(frame: pd.DataFrame, reading: Reading) -> LabelFile:
    """Rows of a table in memory."""
    header, lines = _frame(frame)
    return LabelFile(list(table_rows(header, lines, reading)), "csv")


def table_rows(
    header: Sequence[str], lines: Iterable[tuple[str, Sequence[str]]], reading: Reading
) -> Iterator[Row]:
    """Rows of a table with named columns.

    Args:
        header: the columns' names.
        lines: (where: "line 3", fields as strings), as many as the header has.
        reading: its `label_column` overrules the usual names.

    Raises:
        DataError: as `read`.
    """
    columns = _columns(header, reading)
    used = set(columns.values())
    others = [(i, name) for i, name in enumerate(header) if i not in used and name]
    for where, fields in lines:
        where = f"{reading.path}: {where}"
        if len(fields) != len(header):
            raise DataError(
                f"{where} has {len(fields)} fields, the header {len(header)}; put quotes round "
                "a field that holds the separator"
            )

        def of(key: str, fields: Sequence[str] = fields) -> str:
            return fields[columns[key]] if key in columns else ""

        label = of("label").strip()
        rest: dict[str, Any] = {
            name: number(fields[i], name, where) if name in _NUMBERS else fields[i]
            for i, name in others
        }
        yield make_row(
            reading,
            where,
            file=of("file").strip(),
            onset=number(of("onset"), "onset", where),
            offset=number(of("offset"), "offset", where),
            label=label,
            score=number(of("score"), "score", where),
            weak=[part.strip() for part in label.split(";") if part.strip()]
            if label.lower() != "nan"
            else [],
            rest=rest,
        )


def _columns(header: Sequence[str], reading: Reading) -> dict[str, int]:
    """file, onset, offset, label, score -> position; file and score only where they are there."""
    lower = [name.strip().lower() for name in header]
    repeated = [name for name, n in Counter(lower).items() if n > 1 and name]
    if repeated:
        raise DataError(f"{reading.path}: line 1: has the column {repeated[0]!r} more than once")
    labels = LABEL_NAMES
    if reading.label_column is not None:
        labels = (reading.label_column.lower(),)
    found = {}
    for key, names in (
        ("file", FILE_NAMES),
        ("onset", ONSET_NAMES),
        ("offset", OFFSET_NAMES),
        ("label", labels),
        ("score", SCORE_NAMES),
    ):
        position = next((lower.index(name) for name in names if name in lower), None)
        if position is not None:
            found[key] = position
    missing = [key for key in ("onset", "offset", "label") if key not in found]
    if missing == ["label"] and reading.label is not None and reading.label_column is None:
        missing = []
    if missing:
        name = missing[0]
        if name == "label" and reading.label_column is not None:
            name = reading.label_column
        shown = ", ".join(header[:12])
        raise DataError(f"{reading.path}: line 1: has no column {name!r} (it has {shown})")
    return found


def _delimited(
    path: Path, notes: list[str]
) -> tuple[list[str] | None, Iterator[tuple[str, list[str]]]]:
    text = read_text(path, notes)
    first = next((line for _, line in numbered(text)), "")
    delimiter = max(",\t;", key=lambda mark: (first.count(mark), mark == ","))
    found = records(text, delimiter, path)
    _, header = next(found, (0, None))
    if header is not None:
        header = [name.strip() for name in header]
    return header, ((f"line {n}", fields) for n, fields in found)


def _json_lines(
    path: Path, notes: list[str]
) -> tuple[list[str] | None, Iterator[tuple[str, list[str]]]]:
    values: list[tuple[str, dict[str, Any]]] = []
    for n, line in numbered(read_text(path, notes)):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {n}: is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}: line {n}: is not a JSON object with file, onset, ...")
        values.append((f"line {n}", value))
    if not values:
        return None, iter(())
    header = list(dict.fromkeys(str(key) for _, value in values for key in value))
    return header, ((where, [_text(value.get(name)) for name in header]) for where, value in values)


def _parquet(path: Path) -> tuple[list[str] | None, Iterator[tuple[str, list[str]]]]:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as Parquet ({reason})") from error
    return _frame(frame)


def _frame(frame: pd.DataFrame) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    columns = [[_text(value) for value in frame[name]] for name in frame.columns]
    header = [str(name) for name in frame.columns]
    rows = zip(*columns, strict=True)
    return header, ((f"row {i}", list(row)) for i, row in enumerate(rows, start=1))


def _text(value: Any) -> str:
    """A typed value as it would stand in a CSV file; lists (weak labels) joined by ";"."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return ";".join(_text(part) for part in value)
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return whole(value)
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def write(
    events: pd.DataFrame,
    path: Path,
    *,
    files: Sequence[str] = (),
    generic_seq: bool = False,
) -> None:
    """Writes a table by the path's ending: .csv, .tsv, .jsonl, .parquet; numbers return exactly.

    Args:
        events: as ``event_table`` makes them; other columns are written too.
        path: the file.
        files: all recordings; those without events get a row of their own.
        generic_seq: with the columns of crowsetta's "generic-seq" instead.
    """
    frame = events
    silent = [name for name in dict.fromkeys(files) if name not in set(events["file"])]
    if generic_seq:
        frame, silent = _generic(events, path), []
    elif frame["score"].isna().all():
        frame = frame.drop(columns="score")
    if silent:
        frame = pd.concat([frame, pd.DataFrame({"file": silent})], ignore_index=True)
    write_frame(frame, path)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes any table by the path's ending, whole or not at all; gaps are empty fields."""
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        with replaced(path) as part:
            frame.to_parquet(part, index=False)
        return
    if suffix == ".jsonl":
        lines = [
            json.dumps({k: _json(v) for k, v in row.items() if _text(v)}, ensure_ascii=False)
            for row in frame.to_dict("records")
        ]
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    table = [[str(name) for name in frame.columns]]
    table += [[_field(v) for v in row] for row in frame.itertuples(index=False, name=None)]
    write_text(path, write_records(table, "\t" if suffix == ".tsv" else ","))


def _field(value: Any) -> str:
    return digits(value) if isinstance(value, float) else _text(value)


def _json(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _generic(events: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The columns that crowsetta's GenericSeq asks for, in its order; one annotation a file."""
    order = {name: i for i, name in enumerate(dict.fromkeys(events["file"]))}
    values = (
        *(events["label"], events["onset"], events["offset"], events["file"]),
        *(os.fspath(path), 0, events["file"].map(order).astype(int)),
    )
    return pd.DataFrame(dict(zip(_GENERIC, values, strict=True)), columns=list(_GENERIC))
