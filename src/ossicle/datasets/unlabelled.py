"""Recordings without labels, for a model to label: files, folders, or a manifest of paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ossicle.datasets.clips import Clips
from ossicle.datasets.layouts import (
    OPTIONAL_COLUMNS,
    PATH_COLUMNS,
    absolute,
    audio_below,
    read_text_table,
    resolve,
)
from ossicle.errors import DataError

Row = tuple[str, float, float]
MANIFESTS = (".csv", ".tsv", ".jsonl", ".parquet", ".pq")


def unlabelled_clips(paths: Sequence[str | Path]) -> Clips:
    """All recordings among files, folders (at any depth, sorted) and manifests, without labels.

    A manifest has a column of paths, which count from its folder, and maybe `onset` and `offset`.

    Raises:
        DataError: a path does not exist, a manifest cannot be read, or there is no recording.
    """
    if not paths:
        raise DataError("no recordings given: pass files, folders or a manifest")
    found: list[Row] = []
    for path in (absolute(Path(path).expanduser()) for path in paths):
        if path.is_dir():
            below, _ = audio_below(path)
            found += [(str(path.joinpath(*parts)), math.nan, math.nan) for parts in below]
        elif not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        elif path.suffix.lower() in MANIFESTS:
            found += _manifest(path)
        else:
            found.append((str(path), math.nan, math.nan))
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: has no audio files")
    files, onsets, offsets = zip(*found, strict=True)
    # As objects: a file name may hold bytes that pandas' own strings refuse.
    names = pd.Series(files, dtype=object)
    table = pd.DataFrame(
        {"path": names, "label": "", "onset": onsets, "offset": offsets, "group": names}
    )
    table["split"] = table["fold"] = None
    first = absolute(Path(paths[0]).expanduser())
    root = first if first.is_dir() else first.parent
    return Clips(table, "classes", ("",), root, [], "each file")


def _manifest(path: Path) -> list[Row]:
    table = read_text_table(path)
    by_lower = {name.lower(): name for name in reversed(table.columns)}

    def find(names: Sequence[str]) -> str | None:
        return next((by_lower[name] for name in names if name in by_lower), None)

    def seconds(key: str) -> list[float]:
        column = find(OPTIONAL_COLUMNS[key])
        if column is None:
            return [math.nan] * len(table)
        return [_seconds(text, path, column) for text in table[column]]

    column = find(PATH_COLUMNS)
    if column is None:
        known = ", ".join(map(str, table.columns))
        raise DataError(f"{path}: has no column 'path' (its columns are {known})")
    files = [file.strip() for file in table[column]]
    if "" in files:
        raise DataError(f"{path}: row {files.index('') + 1} names no file")
    rows = zip(files, seconds("onset"), seconds("offset"), strict=True)
    return [(resolve(file, path.parent), onset, offset) for file, onset, offset in rows]


def _seconds(text: str, path: Path, column: str) -> float:
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise DataError(f"{path}: {column} {text!r} is not a number of seconds")
    return value
