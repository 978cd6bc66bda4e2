"""The layouts a data set may come in, each read into the same plain table of strings.

Known: a folder a class, a Hugging Face `audiofolder` (`metadata.csv` beside the audio), and a
manifest (CSV, TSV, JSON Lines, Parquet or a DataFrame). Nothing is decoded here.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle import audio
from ossicle.errors import DataError

# Read from left to right: the first that a manifest has is used.
PATH_COLUMNS = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "fname"),
    *("audio_path", "audio_file", "audio_filepath", "audio", "slice_file_name", "wav_path", "wav"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "category", "categories", "tags", "tag"),
    *("target", "targets", "y"),
)
OPTIONAL_COLUMNS = {
    "onset": ("onset", "onset_s"),
    "offset": ("offset", "offset_s"),
    "group": ("group",),
    "split": ("split", "subset", "partition"),
    "fold": ("fold",),
}
SPLITS = {
    **{"train": "train", "training": "train"},
    **{"valid": "validation", "validation": "validation", "val": "validation"},
    **{"dev": "validation", "test": "test", "testing": "test"},
}
METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


@dataclass
class Rows:
    """What a layout yields.

    Attributes:
        table: `path` (absolute), `label` (str, list of str for list-valued Parquet, or None),
            and where the source has them onset, offset, group, split, fold, and every other
            column under its own name; all values are strings as they stand in the source.
        root: the folder that relative paths and patterns refer to.
        kind: "folder", "audiofolder" or "manifest".
        notes: what was decided, for the user.
    """

    table: pd.DataFrame
    root: Path
    kind: str
    notes: list[str] = field(default_factory=list)


def read_rows(source: str | os.PathLike[str] | pd.DataFrame) -> Rows:
    """The rows of a folder, a manifest or a DataFrame (its relative paths: from the work folder).

    Raises DataError for a source that is not there, has no audio, or lacks paths or labels.
    """
    if isinstance(source, pd.DataFrame):
        notes: list[str] = []
        table = _standard_columns(_frame_of_text(source), Path.cwd(), "the table", notes)
        return Rows(table, Path.cwd(), "manifest", notes)
    path = Path(source).expanduser()
    if not _is_text(str(absolute(path))):
        raise DataError(f"{_shown(str(path))}: its name is not UTF-8; rename it")
    if path.is_dir():
        path = absolute(path)
        return _read_audiofolder(path) or _read_folder(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    path = absolute(path)
    if audio.is_audio(path):
        raise DataError(f"{path}: is one audio file; give the folder of classes or a manifest")
    notes = []
    table = _standard_columns(read_text_table(path), path.parent, str(path), notes)
    return Rows(table, path.parent, "manifest", notes)


# --- a folder a class -------------------------------------------------------------------------


def audio_below(root: Path) -> tuple[list[tuple[str, ...]], int]:
    """Audio files under `root` as tuples of path parts, sorted, and the count of other files.

    Hidden names (`.x`, the `._x` that macOS leaves) and `__MACOSX` are passed over; links are
    followed, each real folder once, so that a loop of links ends.
    """
    found: list[tuple[str, ...]] = []
    others = 0
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        relative = Path(folder).relative_to(root).parts
        for name in files:
            if name.startswith("."):
                continue
            if audio.is_audio(name):
                found.append((*relative, name))
            else:
                others += 1
    return sorted(found), others


def _read_folder(root: Path) -> Rows:
    files, others = audio_below(root)
    if not files:
        raise DataError(f"{root}: has no audio files (known: {' '.join(sorted(audio.EXTENSIONS))})")
    notes = []
    if others:
        notes.append(f"{_count(others, 'file')} that {_be(others)} not audio passed over")
    nested = [parts for parts in files if len(parts) > 1]
    if not nested:
        raise DataError(
            f"{root}: has audio but no classes; put each class into a folder of its own, or add a "
            "metadata.csv with the columns file_name,label"
        )
    if len(nested) < len(files):
        n = len(files) - len(nested)
        notes.append(f"{_count(n, 'audio file')} outside the class folders left out")
    first = {parts[0] for parts in nested}
    level, splits = 0, all(name.lower() in SPLITS for name in first)
    if splits:
        level = 1
        notes.append(f"the folders {_listed(sorted(first))} are taken as the split")
    elif len(first) == 1 and all(len(p) > 2 for p in nested) and len({p[1] for p in nested}) > 1:
        level = 1
        notes.append(f"the folders inside {min(first)}/ are taken as the classes")
    kept = [parts for parts in nested if len(parts) > level + 1]
    if not kept:
        raise DataError(
            f"{root}: {_listed(sorted(first))} look like a split, but hold no class folders; put "
            "each class into a folder of its own inside them"
        )
    if len(kept) < len(nested):
        n = len(nested) - len(kept)
        notes.append(f"{_count(n, 'audio file')} outside the class folders left out")
    for name in {name for parts in kept for name in parts[: level + 1]}:
        # The name of a class goes into files and models, so its clips are not left out in silence.
        if not _is_text(name):
            raise DataError(f"{root}: the folder {_shown(name)}: its name is not UTF-8; rename it")
    legible = [parts for parts in kept if _is_text("/".join(parts))]
    if len(legible) < len(kept):
        n = len(kept) - len(legible)
        notes.append(f"{_count(n, 'audio file')} with a name that is not UTF-8 left out: rename")
        if not legible:
            raise DataError(f"{root}: has no audio file with a name that is UTF-8; rename them")
    kept = legible
    columns: dict[str, list[Any]] = {
        "path": [str(root.joinpath(*parts)) for parts in kept],
        "label": [parts[level] for parts in kept],
    }
    if splits:
        columns["split"] = [parts[0] for parts in kept]
    if any(len(parts) > level + 2 for parts in kept):
        columns["subfolder"] = ["/".join(parts[level + 1 : -1]) for parts in kept]
    return Rows(pd.DataFrame(columns, dtype=object), root, "folder", notes)


# --- Hugging Face audiofolder -----------------------------------------------------------------


def _read_audiofolder(root: Path) -> Rows | None:
    """Rows by `metadata.*` in `root`, or in each of its split folders; None where there is none."""
    found = _metadata_in(root)
    if found is not None:
        parts: list[tuple[Path, str | None]] = [(found, None)]
    else:
        folders = sorted(f for f in root.iterdir() if f.is_dir() and f.name.lower() in SPLITS)
        each = [(_metadata_in(folder), folder.name) for folder in folders]
        parts = [(file, split) for file, split in each if file is not None]
        if not parts:
            return None
    notes: list[str] = []
    tables = []
    for file, split in parts:
        table = _standard_columns(
            read_text_table(file), file.parent, str(file), notes, folder_labels=True
        )
        if split is not None and "split" not in table:
            table["split"] = split
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    listed = {os.path.normpath(p) for p in table["path"]}
    files, _ = audio_below(root)
    unlisted = sum(str(root.joinpath(*p)) not in listed for p in files)
    if unlisted:
        name = parts[0][0].name
        notes.append(f"{_count(unlisted, 'audio file')} not listed in {name} left out")
    return Rows(table, root, "audiofolder", notes)


def _metadata_in(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA_NAMES if (folder / name).is_file()), None)


# --- tables ------------------------------------------------------------------------------------


def read_text_table(path: Path) -> pd.DataFrame:
    """A manifest with every value as the string it is, lists of Parquet as lists of strings.

    Raises DataError for another kind of file, or one that cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return _frame_of_text(pd.read_parquet(path))
        if suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return _frame_of_text(pd.DataFrame([json.loads(x) for x in lines if x.strip()]))
        if suffix in (".csv", ".tsv", ".txt"):
            return _read_csv(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except (ValueError, csv.Error, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a table ({reason})") from error
    raise DataError(f"{path}: is not a known source; give a folder, .csv, .tsv, .jsonl, .parquet")


def _read_csv(path: Path) -> pd.DataFrame:
    """Every field as the string it is: pandas would turn "NA" into a gap and "007" into 7."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        stream.seek(0)
        delimiter = max(",\t;", key=lambda mark: (first.count(mark), mark == ","))
        reader = csv.reader(stream, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise DataError(f"{path}: is empty; its first line must name the columns: path,label")
        repeated = [name for name, n in Counter(header).items() if n > 1 and name]
        if repeated:
            raise DataError(f"{path}: has the column {repeated[0]!r} more than once")
        rows = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, the header "
                    f"{len(header)}; put quotes round a field that has {delimiter!r} in it"
                )
            rows.append(row)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    return table.drop(columns=[""], errors="ignore")


def _frame_of_text(frame: pd.DataFrame) -> pd.DataFrame:
    """A typed table as strings: 3 and 3.0 become "3", gaps become "", lists stay lists."""

    def text(value: Any) -> Any:
        if isinstance(value, str):
            return _checked_text(value)
        if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
            return [_checked_text(str(v)) for v in value]
        if value is None or value is pd.NA or value is pd.NaT or value != value:
            return ""
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value)

    columns = {str(name): [text(v) for v in frame[name]] for name in frame.columns}
    return pd.DataFrame(columns, dtype=object)


def _standard_columns(
    table: pd.DataFrame, root: Path, source: str, notes: list[str], folder_labels: bool = False
) -> pd.DataFrame:
    """Adds path (absolute), label, onset, ... under their standard names; keeps all others."""
    by_lower = {name.lower(): name for name in reversed(table.columns)}

    def find(names: tuple[str, ...]) -> str | None:
        return next((by_lower[name] for name in names if name in by_lower), None)

    path_column = find(PATH_COLUMNS)
    if path_column is None:
        hint = (
            "the first line must name the columns, such as path,label"
            if any(audio.is_audio(str(name)) for name in table.columns)
            else f"its columns are {_listed(list(table.columns))}; name that of the files 'path'"
        )
        raise DataError(f"{source}: has no column of file paths; {hint}")
    if table.empty:
        raise DataError(f"{source}: has no rows")
    result = table.copy()
    raw = table[path_column]
    if not all(isinstance(value, str) for value in raw):
        raise DataError(f"{source}: column {path_column!r} must hold paths, one a row")
    result["path"] = [resolve(value.strip(), root) for value in raw]
    label_column = find(LABEL_COLUMNS)
    if label_column is not None:
        result["label"] = table[label_column]
        rivals = [by_lower[n] for n in LABEL_COLUMNS if n in by_lower and by_lower[n] in table]
        rivals = [name for name in rivals if name != label_column]
        if label_column != "label" or rivals:
            but = f" (not {_listed(rivals)})" if rivals else ""
            notes.append(f"labels: column {label_column!r}{but}")
    elif folder_labels:
        parents = [Path(p).relative_to(root).parts if _inside(p, root) else () for p in result.path]
        if any(len(p) < 2 for p in parents):
            raise DataError(f"{source}: has no column 'label', nor are the files in class folders")
        result["label"] = [p[0] for p in parents]
        notes.append(f"labels: folder names, as {Path(source).name} has no column 'label'")
    else:
        raise DataError(
            f"{source}: has no column of labels; its columns are {_listed(list(table.columns))}; "
            "name that of the classes 'label'"
        )
    if path_column.lower() not in ("path", "file_name"):
        notes.append(f"files: column {path_column!r}")
    for standard, names in OPTIONAL_COLUMNS.items():
        column = find(names)
        if column is not None:
            result[standard] = table[column]
            if column != standard:
                notes.append(f"{standard}: column {column!r}")
    return result


def _is_text(name: str) -> bool:
    """Whether a file's name can be written down; on POSIX systems it may be any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked_text(value: str) -> str:
    if not _is_text(value):
        raise DataError(f"the table: {_shown(value)} is not UTF-8; rename it, or leave it out")
    return value


def _shown(name: str) -> str:
    """A name that is not UTF-8, as a terminal can print it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _inside(path: str, root: Path) -> bool:
    return Path(path).is_relative_to(root)


def absolute(path: Path) -> Path:
    """`path` from the root of the file system, without "..", links as they are.

    Links are kept, as a data set may be made of links whose targets have other names.
    """
    return Path(os.path.normpath(path.absolute()))


def resolve(value: str, root: Path) -> str:
    """An absolute path; a manifest written on Windows has backslashes where this one has not."""
    if not value:
        return ""
    path = os.path.normpath(root / value)
    if "\\" in value and os.sep == "/" and not Path(path).exists():
        return os.path.normpath(root / value.replace("\\", "/"))
    return path


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _be(n: int) -> str:
    return "is" if n == 1 else "are"
