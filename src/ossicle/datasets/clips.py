"""The clips table: which sounds there are, their labels, groups and splits.

`read_clips` reads a folder a class, a Hugging Face `audiofolder`, or a manifest, and tells in
`notes` all that it had to infer. Nothing is decoded here; a file that cannot be is found later.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.datasets.groups import assign_groups
from ossicle.datasets.labels import read_labels
from ossicle.datasets.layouts import Rows, absolute, read_rows
from ossicle.datasets.patterns import relative_paths, values_for
from ossicle.errors import DataError
from ossicle.record import replaced

COLUMNS = ("path", "label", "onset", "offset", "group", "split", "fold")


@dataclass
class Clips:
    """Labelled clips, one a row; several rows may be segments of one file.

    Attributes:
        table: columns path (absolute), label (str, list of str with "multilabel", float with
            "regression"), onset and offset (s; NaN where the whole file is meant), group (str),
            split and fold (str or None), then all other columns of the source, as strings.
        task: "classes", "multilabel" or "regression".
        classes: sorted names; empty with "regression".
        root: the folder that relative paths refer to.
        notes: what was inferred or left out, for the user.
        group_source: where the groups come from.
    """

    table: pd.DataFrame
    task: str
    classes: tuple[str, ...]
    root: Path
    notes: list[str] = field(default_factory=list)
    group_source: str = ""

    def __len__(self) -> int:
        return len(self.table)

    def y(self) -> np.ndarray:
        """Targets: (n,) int64 class indices, (n, num_classes) int64 0/1, or (n,) float32."""
        labels = self.table["label"]
        if self.task == "regression":
            return labels.to_numpy(np.float32)
        index = {name: i for i, name in enumerate(self.classes)}
        if self.task == "classes":
            return np.array([index[label] for label in labels], np.int64)
        targets = np.zeros((len(labels), len(index)), np.int64)
        for row, names in enumerate(labels):
            targets[row, [index[name] for name in names]] = 1
        return targets

    def groups(self) -> np.ndarray:
        """(n,) group names, as the splitters of `folds` and of scikit-learn take them."""
        return self.table["group"].to_numpy(object).astype(str)

    def subset(self, index: Any) -> Clips:
        """The rows at integer positions or under a boolean mask; classes stay as they are."""
        index = np.asarray(index)
        if index.dtype == bool and len(index) != len(self):
            raise DataError(f"the mask has {len(index)} entries for {len(self)} clips")
        if index.dtype == bool:
            index = np.flatnonzero(index)
        table = self.table.iloc[index.astype(np.int64)].reset_index(drop=True)
        return Clips(table, self.task, self.classes, self.root, list(self.notes), self.group_source)

    def describe(self) -> dict[str, Any]:
        """Counts, ready for JSON: clips, files, groups; clips and groups a class; splits, folds.

        `hours` is the sum of the segments where each row has onset and offset, else None: the
        length of a file is known once it is decoded.
        """
        table = self.table
        length = float((table["offset"] - table["onset"]).sum(skipna=False)) if len(table) else 0.0
        per_class = {
            name: {"clips": len(rows), "groups": int(table["group"].iloc[rows].nunique())}
            for name, rows in class_members(self.task, list(table["label"])).items()
        }
        return {
            "task": self.task,
            "n_clips": len(table),
            "n_files": int(table["path"].nunique()),
            "n_groups": int(table["group"].nunique()),
            "group_source": self.group_source,
            "classes": per_class if self.task != "regression" else {},
            "splits": _counts(table["split"]),
            "folds": _counts(table["fold"]),
            "hours": None if math.isnan(length) else length / 3600,
        }

    def content(self) -> str:
        """SHA-256 over labels, segments and the bytes of all files; the rows' order is no matter.

        The same data in another folder has the same checksum. Raises DataError for a file that
        is gone.
        """
        relative = relative_paths(list(self.table["path"]), self.root)
        files: dict[str, str] = {}
        lines = []
        for name, row in zip(relative, self.table.to_dict("records"), strict=True):
            if row["path"] not in files:
                files[row["path"]] = file_checksum(row["path"])
            lines.append(
                repr(
                    (name, files[row["path"]], row["label"], str(row["onset"]), str(row["offset"]))
                )
            )
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a manifest; paths below its folder are relative to it.

        `read_clips(path, labels=self.task)` reads it back.
        """
        with replaced(path) as part:
            self._written(Path(path)).to_csv(part, index=False)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """As `to_csv`, in Parquet."""
        with replaced(path) as part:
            self._written(Path(path)).to_parquet(part, index=False)

    def _written(self, path: Path) -> pd.DataFrame:
        table = self.table.copy()
        table["path"] = relative_paths(list(table["path"]), absolute(path.parent))
        if self.task == "multilabel":
            table["label"] = [";".join(names) for names in table["label"]]
        # A column of nothing would be read back as values that are all missing.
        return table.drop(columns=[c for c in COLUMNS if table[c].isna().all()])


def read_clips(
    source: str | os.PathLike[str] | pd.DataFrame,
    *,
    folds: str | None = None,
    groups: str | None = None,
    labels: str | None = None,
) -> Clips:
    r"""Reads labelled clips.

    Args:
        source: a folder with a folder a class (`root/dog/1.wav`; deeper folders belong to the
            class at the top; `root/train/dog/1.wav` gives the split), a folder with
            `metadata.csv` (Hugging Face `audiofolder`), a manifest (.csv, .tsv, .jsonl, .parquet)
            with `path,label[,onset,offset,group,split,fold]`, or such a DataFrame.
        folds: the column with each clip's fold, or a "/regex/" on its path or file name;
            "none" disregards a column `fold`.
        groups: clips that must stay together: a column, a "/regex/", "runs:K" for blocks of K
            consecutive numbers, "none"; inferred where not given.
        labels: "classes", "multilabel" or "regression" instead of what the labels look like.

    The notes and errors name these options as the command line does: `--groups none` there is
    `groups="none"` here.

    Labels stay the strings they are. ";" separates several labels of one clip. Files that a
    manifest names and that are not there are left out, and told in the notes.

    Raises DataError, in one line, for a source that cannot be used.
    """
    rows = read_rows(source)
    table = _existing(rows)
    task, values, notes = read_labels(list(table["label"]), labels, rows.kind != "folder")
    rows.notes += notes
    table["label"] = pd.Series(values, index=table.index, dtype=object)
    unlabelled = table["label"].isna()
    if unlabelled.any():
        rows.notes.append(f"{int(unlabelled.sum())} rows without a label left out")
        table = table[~unlabelled].reset_index(drop=True)
    if table.empty:
        raise DataError(f"{_name(source)}: no row has a label")
    for column in ("onset", "offset"):
        table[column] = _seconds(table, column, source)
    _check_segments(table, source)
    table = _without_repeats(table, rows.notes)
    for column in ("split", "fold"):
        given = table[column] if column in table else [None] * len(table)
        stripped = [v.strip() or None if isinstance(v, str) else None for v in given]
        table[column] = pd.Series(stripped, index=table.index, dtype=object)
    if folds is not None:
        fold = None if folds.lower() == "none" else values_for(folds, table, rows.root, "folds")
        table["fold"] = pd.Series(fold, index=table.index, dtype=object)
    members = class_members(task, list(table["label"]))
    group, group_source, notes = assign_groups(table, rows.root, groups, members)
    table["group"] = pd.Series(group, index=table.index, dtype=object)
    rows.notes += notes
    classes = () if task == "regression" else tuple(sorted(members))
    if len(classes) == 1:
        rows.notes.append(f"there is one class only: {classes[0]}")
    extra = [c for c in table.columns if c not in COLUMNS]
    return Clips(table[[*COLUMNS, *extra]], task, classes, rows.root, rows.notes, group_source)


def class_members(task: str, labels: Sequence[Any]) -> dict[str, list[int]]:
    """Class name -> positions of its clips; with "regression" all under one empty name."""
    members: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        names = [""] if task == "regression" else [label] if task == "classes" else label
        for name in names:
            members.setdefault(name, []).append(i)
    return dict(sorted(members.items()))


def part_text(onset: float | None, offset: float | None) -> str:
    """Which part of a file is meant: " (2.5 to 5.0 s)", or "" for the whole file.

    Args:
        onset: where it starts (s); None or NaN for the file's start.
        offset: where it ends (s); None or NaN for the file's end.
    """
    start = 0.0 if onset is None or math.isnan(onset) else round(float(onset), 3)
    if offset is None or math.isnan(offset):
        return f" (from {start} s)" if start else ""
    return f" ({start} to {round(float(offset), 3)} s)"


def file_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes. Raises DataError where it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error


def _existing(rows: Rows) -> pd.DataFrame:
    """The rows whose file is there."""
    there = {path: Path(path).is_file() for path in rows.table["path"].unique()}
    kept = rows.table["path"].map(there).astype(bool)
    missing = list(dict.fromkeys(rows.table["path"][~kept]))
    if missing:
        shown = ", ".join(relative_paths(missing[:3], rows.root))
        more = ", ..." if len(missing) > 3 else ""
        if not kept.any():
            raise DataError(
                f"none of the {len(missing)} files named exists: {shown}{more}; "
                f"paths are looked up from {rows.root}"
            )
        rows.notes.append(f"{len(missing)} files named do not exist, left out: {shown}{more}")
    return rows.table[kept].reset_index(drop=True)


def _seconds(table: pd.DataFrame, column: str, source: Any) -> pd.Series:
    if column not in table:
        return pd.Series(np.nan, index=table.index, dtype=np.float64)
    seconds = []
    for i, text in enumerate(table[column]):
        try:
            value = float(text) if isinstance(text, str) and text.strip() else math.nan
            if math.isinf(value):
                raise ValueError
        except ValueError:
            where = f"{_name(source)}: {table['path'][i]}"
            raise DataError(f"{where}: {column} {text!r} is not a number of seconds") from None
        seconds.append(value)
    return pd.Series(seconds, index=table.index, dtype=np.float64)


def _check_segments(table: pd.DataFrame, source: Any) -> None:
    onset = table["onset"].fillna(0.0)
    wrong = (onset < 0) | (table["offset"] <= onset)
    if wrong.any():
        row = table[wrong].iloc[0]
        raise DataError(
            f"{_name(source)}: {row['path']}: onset {row['onset']} and offset {row['offset']} "
            "(seconds) must be 0 <= onset < offset"
        )


def _without_repeats(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """One row for rows that say the same; rows that contradict each other stay, and are told."""
    segment = list(
        zip(table["path"], table["onset"].fillna(0.0), table["offset"].fillna(-1.0), strict=True)
    )
    labels = [tuple(v) if isinstance(v, list) else v for v in table["label"]]
    keys = pd.Series(list(zip(segment, labels, strict=True)), index=table.index)
    repeated = keys.duplicated()
    if repeated.any():
        notes.append(f"{int(repeated.sum())} rows that repeat another left out")
    often = Counter(k[0] for k in keys[~repeated])
    several = [key[0] for key, n in often.items() if n > 1]
    if several:
        notes.append(
            f"{len(several)} clips have several rows with different labels, such as "
            f"{Path(several[0]).name}; for several labels a clip write them in one row with ';'"
        )
    return table[~repeated].reset_index(drop=True)


def _counts(column: pd.Series) -> dict[str, int]:
    return dict(sorted(Counter(v for v in column if isinstance(v, str)).items()))


def _name(source: Any) -> str:
    return "the table" if isinstance(source, pd.DataFrame) else os.fspath(source)
