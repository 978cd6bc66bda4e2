"""What lies below the folder of a set: its tables and recordings, found in one walk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from ossicle.audio import EXTENSIONS
from ossicle.datasets.layouts import absolute, read_text_table
from ossicle.errors import DataError

_TABLES = (".csv", ".tsv", ".txt", ".json")


class Tree:
    """What lies below the folder of a set, found in one walk.

    A set is often unpacked one folder deeper than meant, converted to FLAC or renamed in capitals:
    tables are looked up by name wherever they lie, recordings by name without the ending.
    Hidden names and `__MACOSX` are passed over, links followed.

    Args:
        root: the folder.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = absolute(Path(root).expanduser())
        if not self.root.is_dir():
            raise DataError(f"{self.root}: there is no such folder")
        self.audio: list[tuple[str, list[str]]] = []  # (folder below root, names), sorted
        self.tables: list[str] = []  # paths below root, shallow ones first
        self._stems: dict[str, list[str]] | None = None
        for folder, names in sorted(_walk(self.root)):
            audio = []
            for name in names:
                ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - of millions of names
                if ending in EXTENSIONS:
                    audio.append(name)
                elif ending in _TABLES:
                    self.tables.append(f"{folder}/{name}" if folder else name)
            if audio:
                self.audio.append((folder, sorted(audio)))
        self.tables.sort(key=lambda path: (path.count("/"), path))

    def find(self, name: str, folders: Sequence[str] = ()) -> Path | None:
        """The table of that name, in any case, that lies least deep.

        Args:
            name: such as "esc50.csv".
            folders: names, in lower case, of which the table's own folder must have one.
        """
        for path in self.tables:
            parts = PurePosixPath(path.lower()).parts
            here = parts[-2] if len(parts) > 1 else self.root.name.lower()
            if parts[-1] == name.lower() and (not folders or here in folders):
                return self.root / path
        return None

    def need(self, name: str, folders: Sequence[str] = ()) -> Path:
        """As `find`. Raises DataError if it is not there."""
        found = self.find(name, folders)
        if found is None:
            shown = f"{folders[0]}/{name}" if folders else name
            raise DataError(f"{self.root}: has no {shown}, which comes with the set")
        return found

    def read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A table with a header, every value as the string it is.

        Raises DataError where it is not there, is broken, or lacks one of the columns.
        """
        path = self.need(name)
        table = read_text_table(path)
        table.columns = [column.strip() for column in table.columns]
        for column in columns:
            if column not in table:
                raise DataError(f"{path}: has no column {column!r}; get the set's own file anew")
        return table

    def place(self, official: Iterable[str]) -> list[str]:
        """Where the recordings are, for their official paths below the set's folder.

        The file may lie elsewhere, be converted or be written in capitals; of several, the one at
        the official place, else the first by name. A recording that is not there keeps its
        official path.
        """
        if self._stems is None:
            self._stems = {}
            for folder, names in self.audio:
                for name in names:
                    path = f"{folder}/{name}" if folder else name
                    self._stems.setdefault(_stem(name), []).append(path)
        found = []
        for path in official:
            there = self._stems.get(_stem(path), [path])
            exact = [p for p in there if f"/{p}".lower().endswith(f"/{path}".lower())]
            found.append((exact or there)[0])
        return found


def groups_in_both(rows: pd.DataFrame, column: str, what: str) -> list[str]:
    """A note where groups lie in several parts or folds; none where they do not.

    Args:
        rows: columns group and ``column``.
        column: "part" or "fold".
        what: the groups' name in the plural, such as "instruments".
    """
    parts = rows.groupby("group", sort=True)[column].agg(lambda values: sorted(set(values)))
    several = parts[parts.map(len) > 1]
    if several.empty:
        return []
    where = " and ".join(sorted({part for parts in several for part in parts}))
    first = several.index[0]
    return [
        f"the official split has {len(several)} of {len(parts)} {what} in more than one {column} "
        f"({where}), such as {first}"
    ]


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder below root in POSIX form, names of its files), each real folder once."""
    waiting, seen = [""], set()
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in seen:
            continue
        seen.add(real)
        names = []
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if entry.is_dir():
                        waiting.append(f"{folder}/{entry.name}" if folder else entry.name)
                    else:
                        names.append(entry.name)
        except OSError as error:
            raise DataError(f"{root / folder}: cannot be read ({error.strerror})") from error
        yield folder, names


def _stem(path: str) -> str:
    return PurePosixPath(path).stem.lower()
