"""Where the labels of recordings lie: beside each of them, or in one table for all."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ossicle import audio
from ossicle.datasets.layouts import SPLITS, absolute, audio_below
from ossicle.datasets.patterns import relative_paths
from ossicle.datasets.strong import table
from ossicle.datasets.strong.formats import SUFFIXES, SUFFIXES_OF, read_label_file
from ossicle.datasets.strong.names import Names
from ossicle.datasets.strong.rows import LabelFile, Reading, Row
from ossicle.errors import DataError

TABLE_NAMES = tuple(
    name + suffix
    for name in ("events", "labels", "annotations", "metadata")
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet", ".json", ".rttm")
)


@dataclass
class Labelled:
    """Rows of all label files; `file` is the recording's absolute path.

    Attributes:
        rows: as ``ossicle.datasets.strong.rows`` describes them.
        root: the folder that relative paths refer to.
        name: what messages call the labels.
        notes: what was decided, for the user.
    """

    rows: list[Row]
    root: Path
    name: str
    notes: list[str] = field(default_factory=list)


def find_labels(
    source: str | os.PathLike[str] | pd.DataFrame,
    labels: str | os.PathLike[str] | None,
    kind: str | None,
    label: str | None,
    label_column: str | None,
) -> Labelled:
    """All rows of a source, as ``read_strong`` takes it.

    Raises:
        DataError: the source is not there, has no audio, no labels, or names no audio there is.
    """
    how: dict[str, Any] = {"kind": kind, "label": label, "label_column": label_column}
    if isinstance(source, pd.DataFrame):
        found = table.frame_rows(source, Reading("the table", "", label, label_column))
        return _resolved([(found, Path.cwd())], None, "the table", None)
    path = absolute(Path(source).expanduser())
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file():
        if audio.is_audio(path):
            raise DataError(f"{path}: is a recording; give its folder, or a table of events")
        if labels is not None:
            raise DataError(f"{path}: is a file; with labels={os.fspath(labels)} give a folder")
        return _resolved(
            [(read_label_file(path, **how), path.parent)], path.parent, str(path), None
        )
    if labels is not None:
        place = absolute(Path(labels).expanduser())
        if not place.exists():
            raise DataError(f"{place}: there is no such file or folder")
        if place.is_file():
            return _resolved([(read_label_file(place, **how), path)], path, str(place), path)
        return _beside(path, place, how)
    tables = _tables(path)
    if tables:
        read = [(read_label_file(file, **how), file.parent) for file in tables]
        return _resolved(read, path, str(tables[0]), path)
    return _beside(path, path, how)


def _tables(root: Path) -> list[Path]:
    """The table for all recordings, or those in the folders of the splits."""

    def within(folder: Path) -> Path | None:
        return next((folder / name for name in TABLE_NAMES if (folder / name).is_file()), None)

    first = within(root)
    if first is not None:
        return [first]
    folders = sorted(f for f in root.iterdir() if f.is_dir() and f.name.lower() in SPLITS)
    return [file for folder in folders if (file := within(folder)) is not None]


# --- a label file beside each recording ---------------------------------------------------------


def _beside(root: Path, place: Path, how: dict[str, Any]) -> Labelled:
    """Labels by the name of the recording, in its folder or in the same one below `place`."""
    recordings, _ = audio_below(root)
    if not recordings:
        raise DataError(f"{root}: has no audio files (known: {' '.join(sorted(audio.EXTENSIONS))})")
    found = Labelled([], root, str(place))
    by_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for parts in recordings:
        by_folder[parts[:-1]].append(parts[-1])
    bare = []
    for above, names in by_folder.items():
        folder = place.joinpath(*above)
        label_files = _label_files(folder, names, how["kind"])
        for name in names:
            shown = "/".join((*above, name))
            if name not in label_files:
                bare.append(shown)
            for file in _of_one_kind(label_files.get(name, []), shown):
                found.rows += _own(
                    folder / file, str(root.joinpath(*above, name)), how, found.notes
                )
    if not found.rows:
        shown = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        raise DataError(
            f"{place}: has no labels for {shown}; put a label file beside each recording "
            "(song.wav, song.txt), or events.csv with file,onset,offset,label into the folder"
        )
    if bare:
        shown = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        found.notes.append(
            f"{len(bare)} recordings without a label file left out: {shown}; an empty label file "
            "says that nothing sounds"
        )
    return found


def _label_files(folder: Path, recordings: list[str], kind: str | None) -> dict[str, list[str]]:
    """Recording -> names of its label files: `a.b.txt` is of `a.b.wav`, if not there of `a.wav`."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name in recordings:
        owners[name].append(name)
        if PurePosixPath(name).stem != name:
            owners[PurePosixPath(name).stem].append(name)
    suffixes = SUFFIXES if kind is None else SUFFIXES_OF.get(kind, SUFFIXES)
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.lower().endswith(suffixes) or path.name.startswith("."):
            continue
        beginning = path.name
        while "." in beginning:
            beginning = beginning.rpartition(".")[0]
            if beginning in owners:
                for name in owners[beginning]:
                    found[name].append(path.name)
                break
    return found


def _of_one_kind(names: list[str], recording: str) -> list[str]:
    """The label files of a recording: one, or several tables of Raven's."""
    if len(names) > 1 and not all(name.lower().endswith(".selections.txt") for name in names):
        raise DataError(
            f"{recording}: has {len(names)} label files ({', '.join(names)}); keep one, say "
            "their kind, or put those that count into a folder of their own and give it as labels"
        )
    return names


def _own(path: Path, recording: str, how: dict[str, Any], notes: list[str]) -> list[Row]:
    """The rows of a label file beside a recording, under the recording's path."""
    found = read_label_file(path, file=recording, **how)
    notes += found.notes
    names, own = found.files(), _base(recording)
    known = (recording, own, PurePosixPath(own).stem)
    mine = [name for name in names if name == recording or _base(name) in known]
    if not mine and len(names) > 1:
        raise DataError(f"{path}: names {len(names)} recordings, but not {own}")
    if not mine:
        notes.append(f"{path}: names {names[0]}; taken for the labels of {own}")
        mine = names
    if len(mine) < len(names):
        notes.append(f"{path}: names {len(names)} recordings; those of {own} are taken")
    return [{**row, "file": recording} for row in found.rows if row["file"] in mine]


# --- one table for all --------------------------------------------------------------------------


def _resolved(
    parts: list[tuple[LabelFile, Path]], root: Path | None, name: str, searched: Path | None
) -> Labelled:
    """Rows of tables, their files looked up from the folder that goes with each.

    Args:
        parts: (rows, the folder that their paths count from).
        root: the folder that relative paths refer to, where names that are not paths are looked
            for too; None: the work folder, where they are not.
        name: what messages call the labels.
        searched: the folder whose recordings are all known, so that those left out can be told.
    """
    found = Labelled([], root or Path.cwd(), name)
    missing: list[str] = []
    names = Names(root, found.notes)
    for label_file, folder in parts:
        found.notes += label_file.notes
        where: dict[str, str | None] = {}
        for file in label_file.files():
            where[file] = names.find(file, folder)
            if where[file] is None:
                missing.append(file)
        found.rows += [
            {**row, "file": where[row["file"]]} for row in label_file.rows if where[row["file"]]
        ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        if not found.rows:
            raise DataError(
                f"{name}: none of the {len(missing)} recordings named exists: {shown}; paths are "
                f"looked up from {found.root}"
            )
        found.notes.append(f"{len(missing)} recordings named do not exist, left out: {shown}")
    if not found.rows:
        raise DataError(f"{name}: has no rows")
    if searched is not None:
        named = {row["file"] for row in found.rows}
        there = [str(searched.joinpath(*p)) for p in audio_below(searched)[0]]
        bare = relative_paths([p for p in there if p not in named], searched)
        if bare:
            shown = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
            found.notes.append(
                f"{len(bare)} recordings that {Path(name).name} does not name left out: {shown}; "
                "a row with the file alone says that nothing sounds"
            )
    return found


def _base(name: str) -> str:
    """The last part of a path of any system."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
