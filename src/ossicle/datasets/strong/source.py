"""Recordings with their labels: which files there are, what sounds in them, and when.

`read_strong` takes a folder with label files beside the recordings, or a table of events. Nothing
is decoded here: times past the end of a recording are found when lengths are asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.clips import file_checksum
from ossicle.datasets.groups import assign_groups
from ossicle.datasets.layouts import OPTIONAL_COLUMNS, SPLITS, absolute
from ossicle.datasets.patterns import relative_paths
from ossicle.datasets.strong import table
from ossicle.datasets.strong.places import find_labels
from ossicle.datasets.strong.rows import Row, is_event
from ossicle.errors import DataError
from ossicle.events import COLUMNS, event_table

FILE_COLUMNS = ("path", "group", "split", "kind", "labels")


@dataclass
class StrongClips:
    """Recordings and the events in them.

    Attributes:
        files: a recording a row: path (absolute), group (str), split ("train", "validation",
            "test", another name as it stands, or None), kind ("strong": its events are all that
            sounds of the classes; "weak": known is what sounds, not when), labels (sorted list of
            str: those of its events, or the weak labels), then other columns that say the same
            in all rows of each recording.
        events: ``event_table`` of the strong recordings; `file` is `path`. A strong recording
            without events is one in which none of the classes sounds.
        classes: sorted names of all labels, strong and weak.
        root: the folder that relative paths refer to.
        notes: what was inferred or left out, for the user.
        group_source: where the groups come from.
    """

    files: pd.DataFrame
    events: pd.DataFrame
    classes: tuple[str, ...]
    root: Path
    notes: list[str] = field(default_factory=list)
    group_source: str = ""

    def __len__(self) -> int:
        return len(self.files)

    def groups(self) -> np.ndarray:
        """(n,) group names of the recordings, as splitters take them."""
        return self.files["group"].to_numpy(object).astype(str)

    def presence(self) -> np.ndarray:
        """(n, K) float32: 1 where the class sounds in the recording, strong or weak."""
        index = {name: k for k, name in enumerate(self.classes)}
        found = np.zeros((len(self), len(self.classes)), np.float32)
        for row, labels in enumerate(self.files["labels"]):
            found[row, [index[name] for name in labels]] = 1
        return found

    def subset(self, index: Any) -> StrongClips:
        """The recordings at integer positions or under a boolean mask; classes stay."""
        index = np.asarray(index)
        if index.dtype == bool and len(index) != len(self):
            raise DataError(f"the mask has {len(index)} entries for {len(self)} recordings")
        if index.dtype == bool:
            index = np.flatnonzero(index)
        files = self.files.iloc[index.astype(np.int64)].reset_index(drop=True)
        order = {path: i for i, path in enumerate(files["path"])}
        events = self.events[self.events["file"].isin(order)]
        position = events["file"].map(order).astype(float)
        events = events.iloc[np.argsort(position.to_numpy(), kind="stable")].reset_index(drop=True)
        return StrongClips(
            files, events, self.classes, self.root, list(self.notes), self.group_source
        )

    def durations(self) -> dict[str, float]:
        """Seconds of each recording, by `path`; reads the files' headers.

        Raises:
            AudioError: a recording cannot be read.
        """
        return {path: audio.info(path).duration_s for path in self.files["path"]}

    def past_end(self, durations: Mapping[str, float] | None = None) -> pd.DataFrame:
        """The events that end after their recording, with a column `duration` (s).

        Args:
            durations: seconds by `path`; None reads them.
        """
        lengths = self.durations() if durations is None else durations
        duration = self.events["file"].map(dict(lengths)).astype(float)
        late = self.events["offset"] > duration
        return self.events.assign(duration=duration)[late].reset_index(drop=True)

    def describe(self) -> dict[str, Any]:
        """Counts, ready for JSON: recordings, groups, splits; events and seconds a class."""
        strong = self.files["kind"] == "strong"
        weak = Counter(name for labels in self.files["labels"][~strong] for name in labels)
        classes: dict[str, dict[str, float]] = {}
        for name in self.classes:
            rows = self.events[self.events["label"] == name]
            classes[name] = {
                "events": len(rows),
                "seconds": float((rows["offset"] - rows["onset"]).sum()),
                "files": int(rows["file"].nunique()),
                "weak_files": weak[name],
            }
        splits = Counter(v for v in self.files["split"] if isinstance(v, str))
        return {
            "n_files": len(self),
            "n_strong": int(strong.sum()),
            "n_weak": int((~strong).sum()),
            "n_without_events": int((strong & ~self.files["path"].isin(self.events["file"])).sum()),
            "n_events": len(self.events),
            "n_groups": int(self.files["group"].nunique()),
            "group_source": self.group_source,
            "splits": dict(sorted(splits.items())),
            "classes": classes,
        }

    def content(self) -> str:
        """SHA-256 over labels, times and the bytes of all files; order and folder are no matter.

        Raises:
            DataError: a file is gone.
        """
        names = dict(
            zip(
                self.files["path"], relative_paths(list(self.files["path"]), self.root), strict=True
            )
        )
        lines = [
            repr((names[row.path], file_checksum(row.path), row.kind, row.labels))
            for row in self.files.itertuples(index=False)
        ]
        lines += [
            repr((names[row.file], row.onset, row.offset, row.label))
            for row in self.events.itertuples(index=False)
        ]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    def to_table(self, path: str | os.PathLike[str]) -> None:
        """Writes all as one table (.csv, .tsv, .jsonl, .parquet); `read_strong` reads it back.

        Paths below the table's folder are relative to it.

        Raises:
            DataError: a weak label holds ";", which separates labels there.
        """
        target = Path(path).expanduser()
        rows = []
        columns = [name for name in self.files if name not in FILE_COLUMNS]
        by_file: dict[str, list[dict[Any, Any]]] = {}
        for event in self.events.to_dict("records"):
            by_file.setdefault(event["file"], []).append(event)
        for file in self.files.to_dict("records"):
            about = {name: file[name] for name in ("split", "group", *columns)}
            if file["kind"] == "weak":
                wrong = next((label for label in file["labels"] if ";" in label), None)
                if wrong is not None:
                    raise DataError(f"{target}: the weak label {wrong!r} holds ';'; rename it")
                rows.append({"file": file["path"], "label": ";".join(file["labels"]), **about})
            elif file["path"] in by_file:
                rows += [{**event, **about} for event in by_file[file["path"]]]
            else:
                rows.append({"file": file["path"], **about})
        names = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
        frame = pd.DataFrame(rows, columns=list(names))
        frame["file"] = relative_paths(list(frame["file"]), absolute(target).parent)
        empty = [name for name in ("score", "split") if frame[name].isna().all()]
        table.write_frame(frame.drop(columns=empty), target)


def read_strong(
    source: str | os.PathLike[str] | pd.DataFrame,
    *,
    labels: str | os.PathLike[str] | None = None,
    kind: str | None = None,
    label: str | None = None,
    label_column: str | None = None,
    groups: str | None = None,
) -> StrongClips:
    r"""Reads recordings with their events.

    Args:
        source: a folder of audio with a label file beside each recording (`song.wav` with
            `song.txt`, `song.selections.txt`, `song.rttm`, ...), or with one table for all
            (`events.csv`, `labels.csv`, ...); or such a table, of any format that names files; or
            a DataFrame. Paths in a table count from its folder (a DataFrame's: the work folder).
        labels: the table, or a folder of label files, where it lies elsewhere; paths then count
            from `source`.
        kind: of ``KINDS``; None takes what each file looks like.
        label: for events that have none; by default they are an error.
        label_column: the column of labels.
        groups: recordings that must stay together: a column, a "/regex/", "runs:K", "none"; by
            default the column `group`, else each recording by itself.

    A row without times and label is a recording in which nothing sounds, one with labels but no
    times (several with ";") is weakly labelled. `split` (`subset`, `partition`) is a column, or
    the first folder where all are called train, valid, test or the like. Recordings that no
    label file speaks of are left out, since silence about a recording is not silence in it.

    Raises DataError, in one line, for a source that cannot be used.
    """
    found = find_labels(source, labels, kind, label, label_column)
    rows, notes, root = found.rows, found.notes, found.root
    files = _files(rows, root, notes)
    group, group_source, told = assign_groups(
        files,
        root,
        groups or ("group" if "group" in files else "none"),
        {"": list(range(len(files)))},
    )
    if groups is None and "group" not in files:
        group_source = "each recording by itself"
    files["group"] = pd.Series(group, index=files.index, dtype=object)
    notes += told
    _tell_straddling(files, notes)
    rest = [name for name in files if name not in FILE_COLUMNS]
    files = files[[*FILE_COLUMNS, *rest]]
    about = {*OPTIONAL_COLUMNS["split"], *OPTIONAL_COLUMNS["group"], "weak"}
    timed = [
        {k: v for k, v in row.items() if k.lower() not in about} for row in rows if is_event(row)
    ]
    frame = pd.DataFrame(timed) if timed else pd.DataFrame(columns=list(COLUMNS))
    events = event_table(frame, found.name)
    _tell_overlaps(events, root, notes)
    classes = tuple(sorted({name for names in files["labels"] for name in names}))
    if not classes:
        notes.append("no recording has a label")
    odd = [name for name in classes if ";" in name]
    if odd:
        notes.append(f"labels of events are not split at ';', such as {odd[0]!r}")
    return StrongClips(files, events, classes, root, notes, group_source)


def _files(rows: list[Row], root: Path, notes: list[str]) -> pd.DataFrame:
    """A row a recording: path, split, kind, labels, and what all its rows say alike."""
    by_file: dict[str, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row["file"], []).append(row)
    known = {"file", *COLUMNS, "weak", "low_hz", "high_hz", "channel"}
    names = dict.fromkeys(name for row in rows for name in row if name not in known)
    split_of = next((n for n in names if n.lower() in OPTIONAL_COLUMNS["split"]), None)
    group_of = next((n for n in names if n.lower() in OPTIONAL_COLUMNS["group"]), None)
    of_files = [
        name
        for name in names
        if all(len({row.get(name) for row in mine}) == 1 for mine in by_file.values())
    ]
    of_files = [name for name in of_files if name not in (split_of, group_of)]
    table: dict[str, list[Any]] = {"path": [], "split": [], "kind": [], "labels": []}
    if group_of is not None:
        table["group"] = []
    for name in of_files:
        table[name] = []
    for path, mine in by_file.items():
        timed = {row["label"] for row in mine if is_event(row)}
        weak = {label for row in mine for label in row["weak"]}
        shown = relative_paths([path], root)[0]
        if timed and weak:
            raise DataError(
                f"{shown}: has events and, without times, {sorted(weak)[0]!r}; a recording is "
                "labelled with all its events or weakly, not both"
            )
        table["path"].append(path)
        table["kind"].append("weak" if weak else "strong")
        table["labels"].append(sorted(timed | weak))
        split = _one(mine, split_of, shown)
        table["split"].append(SPLITS.get(split.lower(), split) if split else None)
        if group_of is not None:
            table["group"].append(_one(mine, group_of, shown) or f"file {shown}")
        for name in of_files:
            table[name].append(mine[0].get(name))
    files = pd.DataFrame({name: pd.Series(v, dtype=object) for name, v in table.items()})
    if split_of is None and len(files):
        first = [Path(p).parts[:-1][:1] for p in relative_paths(list(files["path"]), root)]
        if all(part and part[0].lower() in SPLITS for part in first):
            files["split"] = [SPLITS[part[0].lower()] for part in first]
            folders = ", ".join(sorted({part[0] for part in first}))
            notes.append(f"the folders {folders} are taken as the split")
    return files


def _one(rows: list[Row], name: str | None, shown: str) -> str:
    """What the rows of a recording say in a column; "" where they say nothing."""
    values = {str(row.get(name) or "").strip() for row in rows} - {""} if name else set()
    if len(values) > 1:
        raise DataError(f"{shown}: has several values of {name!r}: {', '.join(sorted(values))}")
    return next(iter(values), "")


def _tell_straddling(files: pd.DataFrame, notes: list[str]) -> None:
    named = files[files["split"].map(lambda value: isinstance(value, str))]
    several = named.groupby("group")["split"].nunique()
    straddling = sorted(several[several > 1].index)
    if straddling:
        notes.append(
            f"{len(straddling)} groups are in several splits, such as {straddling[0]!r}: scores on "
            "the test split will be too high"
        )


def _tell_overlaps(events: pd.DataFrame, root: Path, notes: list[str]) -> None:
    """Events of one label that overlap are kept, as two of a kind may sound at once."""
    count, first = 0, ""
    for (file, label), rows in events.groupby(["file", "label"], sort=False):
        onsets, offsets = rows["onset"].to_numpy(), rows["offset"].to_numpy()
        latest = np.maximum.accumulate(offsets)[:-1]
        wrong = np.flatnonzero(onsets[1:] < latest)
        if len(wrong) and not count:
            shown = relative_paths([str(file)], root)[0]
            first = f"{label!r} at {onsets[wrong[0] + 1]:g} s of {shown}"
        count += len(wrong)
    if count:
        notes.append(f"{count} events overlap one of the same label, kept: the first {first}")
