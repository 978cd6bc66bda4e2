"""The files that a detection leaves: one table of all events, and label files for other programs.

All are written from the journal once every recording is through, one recording in memory at a
time, each under a temporary name first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ossicle.datasets.strong import ENDINGS, write_events
from ossicle.detect.journal import Entry
from ossicle.detect.rules import Rules
from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.record import replaced

EVENTS, FILES = "events", "files.csv"
SCORES = "scores"
# Rows that are turned into text, or into a group of a Parquet file, at once.
_ROWS = 20_000
# Scores are float32 probabilities; more digits would be noise.
DIGITS = 6
_MARK = b"ossicle"
_TEXT = ("file", "label", "model")


def event_rows(
    entry: Entry, name: str, classes: Sequence[str], rules: Rules, constant: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of one recording: what sounds, and the parameters under which it was found."""
    rows = []
    for onset, offset, number, score in entry.events:
        label = classes[number]
        rule = rules.by_class.get(label)
        low = rule and (rule.threshold if rule.low is None else rule.low)
        rows.append(
            {
                "file": name,
                "onset": onset,
                "offset": offset,
                "label": label,
                "score": score,
                "threshold": rule.threshold if rule else np.nan,
                "low": low if rule else np.nan,
                "median_s": rule.median_s if rule else np.nan,
                "min_duration_s": rule.min_duration_s if rule else np.nan,
                "min_gap_s": rule.min_gap_s if rule else np.nan,
                **constant,
            }
        )
    return rows


def columns_of(constant: Mapping[str, Any]) -> list[str]:
    """The columns of the table of events, in order."""
    rule = ("threshold", "low", "median_s", "min_duration_s", "min_gap_s")
    return ["file", "onset", "offset", "label", "score", *rule, *constant]


def write_event_tables(
    folder: Path, rows: Iterable[list[dict[str, Any]]], constant: Mapping[str, Any]
) -> int:
    """Write `events.csv` and `events.parquet` from the rows of each recording; how many there are.

    Raises:
        DataError: the folder cannot be written to.
    """
    columns = columns_of(constant)
    schema = pa.schema([(n, pa.string() if n in _TEXT else pa.float64()) for n in columns])
    total = 0
    try:
        with ExitStack() as stack:
            text = stack.enter_context(replaced(folder / f"{EVENTS}.csv"))
            binary = stack.enter_context(replaced(folder / f"{EVENTS}.parquet"))
            out = stack.enter_context(text.open("w", encoding="utf-8", newline=""))
            table = stack.enter_context(pq.ParquetWriter(binary, schema))
            pd.DataFrame(columns=columns).to_csv(out, index=False, lineterminator="\n")
            waiting: list[dict[str, Any]] = []

            def put(some: list[dict[str, Any]]) -> None:
                frame = pd.DataFrame(some, columns=columns)
                frame.to_csv(out, index=False, header=False, lineterminator="\n")
                table.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))

            for some in rows:
                waiting += some
                total += len(some)
                while len(waiting) >= _ROWS:
                    put(waiting[:_ROWS])
                    waiting = waiting[_ROWS:]
            if waiting:
                put(waiting)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return total


def write_file_table(folder: Path, entries: Iterable[tuple[str, Entry]]) -> Path:
    """Write `files.csv`: what became of each recording."""
    path = folder / FILES
    rows = (
        {
            "file": name,
            "status": entry.status,
            "seconds": entry.seconds,
            "events": len(entry.events),
            "reason": entry.reason,
            "sha256": entry.sha256,
        }
        for name, entry in entries
    )
    frame = pd.DataFrame(rows, columns=["file", "status", "seconds", "events", "reason", "sha256"])
    try:
        with replaced(path) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def label_names(names: Sequence[str]) -> list[str]:
    """File names without endings for label files; with them where two would be called alike.

    >>> label_names(["a/1.wav", "a/2.wav", "a/2.flac"])
    ['a/1', 'a/2.wav', 'a/2.flac']
    """
    short = [str(Path(name).with_suffix("")) for name in names]
    often = Counter(short)
    return [cut if often[cut] == 1 else name for cut, name in zip(short, names, strict=True)]


def write_label_file(
    folder: Path, kind: str, name: str, file: str, events: Sequence[Mapping[str, Any]]
) -> Path:
    """Write one recording's events under ``folder/kind``, in the form of another program."""
    # JSON lines are a table like CSV, told apart by the ending.
    ending = ".jsonl" if kind == "jsonl" else ENDINGS[kind]
    path = folder / kind / _inside(f"{name}{ending}")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["file", "onset", "offset", "label", "score"]
    frame = pd.DataFrame(list(events), columns=columns)
    frame["file"] = file
    write_events(frame, path, kind="csv" if kind == "jsonl" else kind)
    return path


def _inside(name: str) -> Path:
    """A relative path that stays below its folder, whatever the recording is called."""
    parts = [part for part in Path(name).parts if part not in ("..", "/", "\\")]
    return Path(*parts)


class ScoreFile:
    """Frame scores of one recording as Parquet: onset, offset, and a column for each class.

    Args:
        path: of the file, which appears once all frames are in.
        columns: names of the classes' columns.
        mark: what the scores are of, for `has_scores`.
    """

    def __init__(self, path: Path, columns: Sequence[str], mark: str = "") -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        times = [("onset", pa.float64()), ("offset", pa.float64())]
        scores = [(name, pa.float32()) for name in columns]
        self._schema = pa.schema([*times, *scores], metadata={_MARK: mark.encode()})
        self._writer = pq.ParquetWriter(self._part, self._schema)
        self._waiting: list[FrameScores] = []
        self._frames = 0

    def add(self, frames: FrameScores) -> None:
        """Further frames."""
        self._waiting.append(frames)
        self._frames += frames.scores.shape[1]
        if self._frames >= _ROWS:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate([f.scores for f in self._waiting], 1)
        onsets = np.concatenate([f.edges[:-1] for f in self._waiting])
        offsets = np.concatenate([f.edges[1:] for f in self._waiting])
        arrays = [pa.array(onsets), pa.array(offsets), *map(pa.array, scores)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting, self._frames = [], 0

    def close(self, done: bool) -> None:
        """Give the file its name if all frames are in; otherwise take it away."""
        if done:
            self._write()
        self._writer.close()
        if done:
            self._part.replace(self.path)
        else:
            with suppress(OSError):
                self._part.unlink()


def has_scores(path: Path, mark: str) -> bool:
    """Whether a file holds the frame scores of this recording under these parameters."""
    try:
        return (pq.read_schema(path).metadata or {}).get(_MARK) == mark.encode()
    except (OSError, pa.ArrowException):
        return False


def read_scores(path: Path) -> tuple[FrameScores, tuple[str, ...]]:
    """The frame scores that `ScoreFile` wrote, and the names of their columns.

    Raises:
        DataError: it is no such file.
    """
    try:
        table = pq.read_table(path)
        onsets, offsets = (table[name].to_numpy() for name in ("onset", "offset"))
        names = tuple(name for name in table.column_names if name not in ("onset", "offset"))
        scores = np.stack([table[name].to_numpy() for name in names]).astype(np.float32)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path}: no frame scores of `ossicle detect --scores`") from error
    edges = np.concatenate([onsets, offsets[-1:]])
    return FrameScores(scores, edges), names
