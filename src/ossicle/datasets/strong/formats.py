"""The formats that labels with times come in: which one a file is, and the way in and out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from ossicle.datasets.strong import audacity, dcase, label_studio, raven, rttm, table
from ossicle.datasets.strong.lines import is_number, numbered, read_text
from ossicle.datasets.strong.rows import LabelFile, Reading, silent_row
from ossicle.errors import DataError
from ossicle.events import event_table

KINDS = ("audacity", "raven", "dcase", "rttm", "csv", "label_studio")
# What a file of each kind is called beside its recording: song.wav, song.selections.txt.
ENDINGS = {
    "audacity": ".txt",
    "raven": ".selections.txt",
    "dcase": ".tsv",
    "rttm": ".rttm",
    "csv": ".csv",
    "label_studio": ".json",
}
_BY_ENDING = {
    **{".rttm": "rttm", ".json": "label_studio"},
    **{".csv": "csv", ".jsonl": "csv", ".parquet": "csv", ".pq": "csv"},
}
TEXTS = (".txt", ".tsv", ".ann", ".tab")
SUFFIXES = (*_BY_ENDING, *TEXTS)
# What files of each kind may be called, where the kind is given.
SUFFIXES_OF = {
    "audacity": (".txt",),
    "raven": (".txt",),
    "dcase": TEXTS,
    "rttm": (".rttm", ".txt"),
    "csv": (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".pq"),
    "label_studio": (".json",),
}
_TABLE = re.compile(r"(\.Table\.\d+)?\.selections$|\.BirdNET(\.selection\.table|\.results)$", re.I)
_READERS = {
    "audacity": audacity.read,
    "raven": raven.read,
    "dcase": dcase.read,
    "rttm": rttm.read,
    "csv": table.read,
    "label_studio": label_studio.read,
}


def read_events(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    file: str | None = None,
    label: str | None = None,
    label_column: str | None = None,
) -> pd.DataFrame:
    """Events of one label file.

    Args:
        path: the label file.
        kind: of ``KINDS``; None takes what ending and content look like.
        file: the recording, for formats that do not name it (Audacity, some Raven and DCASE
            files); by default the label file's name without its ending.
        label: for events that have none; by default they are an error.
        label_column: of a Raven, CSV or other table; by default the first of the usual names.

    Returns:
        ``event_table``: file, onset, offset (s), label, score (NaN where the file has none), then
        what else the file says of each event (`low_hz`, `high_hz`, `channel`, other columns).

    Raises:
        DataError: in one line with the file and the line: what cannot be read and what to do. So
            for labels without times, too, which are no events: ``read_strong`` takes those.
    """
    found = read_label_file(path, kind=kind, file=file, label=label, label_column=label_column)
    weak = next((row for row in found.rows if row["weak"]), None)
    if weak is not None:
        raise DataError(
            f"{os.fspath(path)}: {weak['file']} has the label {weak['weak'][0]!r} without onset "
            "and offset: a weak label, no event; read_strong takes both"
        )
    return found.events(path)


def read_label_file(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    file: str | None = None,
    label: str | None = None,
    label_column: str | None = None,
    annotations: str = "one",
) -> LabelFile:
    """All that a label file says: events, weak labels, recordings without events, notes.

    Args:
        path, kind, label, label_column: as in ``read_events``.
        file: as there; where it is given, a file without rows says that nothing sounds in it.
        annotations: where several people annotated a Label Studio task, "one" takes the one
            marked as ground truth, else the newest; "all" takes all.

    Raises:
        DataError: as ``read_events``.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    kind = recognise(path) if kind is None else _known(kind, path)
    reading = Reading(str(path), file or stem(path), label, label_column, annotations)
    found = _READERS[kind](path, reading)
    found.kind = kind
    if not found.rows and file is not None:
        found.rows.append(silent_row(reading, file))
    return found


def write_events(
    events: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    files: Sequence[str] = (),
    label_column: str = "Annotation",
    durations: Mapping[str, float] | None = None,
    band_hz: tuple[float, float] = (0.0, 8000.0),
    generic_seq: bool = False,
) -> None:
    """Writes events; the file appears whole or not at all.

    Every time returns as just the float it was. Kept by each format, and what it cannot hold:
    Audacity labels one recording without its name, no scores; DCASE no scores; the others all.

    Args:
        events: as ``event_table`` makes them. `low_hz`, `high_hz` are written to Audacity labels
            and Raven tables, `channel` to Raven and RTTM, other columns to tables.
        path: the file.
        kind: of ``KINDS``; None goes by the ending: .selections.txt, .txt (Audacity), .tsv
            (DCASE), .rttm, .json (Label Studio), .csv, .jsonl, .parquet.
        files: recordings to name though nothing sounds in them (CSV, DCASE, Label Studio).
        label_column: Raven: the column of labels.
        durations: Raven: seconds of each file, where the table has several; their times then
            count from the start of the first, as Raven counts in a sequence of files.
        band_hz: Raven: the box of events without `low_hz` and `high_hz`.
        generic_seq: CSV: the columns of crowsetta's "generic-seq" instead of ours.

    Raises:
        DataError: the format cannot hold these events: several recordings in Audacity labels, a
            tab or line break in a label.
    """
    path = Path(path).expanduser()
    kind = kind_to_write(path) if kind is None else _known(kind, path)
    events = event_table(events, "the events to write")
    if kind == "audacity":
        audacity.write(events, path)
    elif kind == "raven":
        raven.write(events, path, label_column, durations, band_hz)
    elif kind == "dcase":
        dcase.write(events, path, files)
    elif kind == "rttm":
        rttm.write(events, path)
    elif kind == "label_studio":
        label_studio.write(events, path, files)
    else:
        table.write(events, path, files=files, generic_seq=generic_seq)


def recognise(path: Path) -> str:
    """The kind of a label file, by its ending where that says enough, else by its first line.

    Raises:
        DataError: neither tells.
    """
    suffix = path.suffix.lower()
    if suffix in _BY_ENDING:
        return _BY_ENDING[suffix]
    first = next((line for _, line in numbered(read_text(path, []))), None)
    if first is None:
        return kind_to_write(path) if suffix in TEXTS else "csv"
    fields = [field.strip().lower() for field in first.split("\t")]
    # Numbers first: the label of an event may be any word that a header has.
    plain = [is_number(field.replace(",", ".")) for field in fields]
    if len(fields) >= 2 and plain[0]:
        return "audacity" if suffix == ".txt" else "dcase"
    if any(a and b for a, b in pairwise(plain)):
        return "dcase"
    if "begin time (s)" in fields:
        return "raven"
    if re.match(r"SPEAKER\s|;;", first):
        return "rttm"
    if first.lstrip()[:1] in "[{":
        return "label_studio"
    if "event_label" in fields or "event_labels" in fields:
        return "dcase"
    columns = {field.strip().lower() for field in re.split("[,;\t]", first)}
    if columns & {*table.ONSET_NAMES}:
        return "csv"
    raise DataError(
        f"{path}: is not recognised as a file of labels with times; say its kind: "
        f"{', '.join(KINDS)}"
    )


def kind_to_write(path: Path) -> str:
    """The kind that a name stands for.

    Raises:
        DataError: it stands for none.
    """
    suffix = path.suffix.lower()
    if suffix in _BY_ENDING:
        return _BY_ENDING[suffix]
    if suffix == ".txt":
        return "raven" if _TABLE.search(path.stem) else "audacity"
    if suffix in TEXTS:
        return "dcase"
    raise DataError(f"{path}: its ending stands for no format; say its kind: {', '.join(KINDS)}")


def stem(path: Path) -> str:
    """The name of the recording that a label file seems to lie beside: without its endings."""
    return _TABLE.sub("", path.stem) or path.stem


def _known(kind: str, path: Path) -> str:
    if kind not in KINDS:
        raise DataError(f"{path}: {kind!r} is not a kind of labels; there are {', '.join(KINDS)}")
    return kind
