"""A task as a row of a table, and its clips with the parts they are split into. It runs nothing.

n clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError

DOMAINS = ("environment", "speech", "music")
PARTS = ("train", "valid", "test")


class Fold(NamedTuple):
    """Row numbers: learnt from, chosen on (may be empty: inside the training part), reported on."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass
class TaskData:
    """The clips of a task and how they are split.

    Attributes:
        clips: all of them, with the groups that intervals are over.
        folds: no clip is tested twice.
        notes: what the user should know: files missing, counts that differ from the published.
    """

    clips: Clips
    folds: tuple[Fold, ...]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """A row of a suite.

    Attributes:
        name: as on the command line.
        suite: "hares" or "open".
        domain: one of DOMAINS.
        title: what is told apart, a few words.
        metric: "accuracy" or "map", as in ``ossicle.metrics``.
        read: folder of the set -> its clips; raises DataError where it is not there.
        get: how to get the set, one line.
        licence: of the audio.
        caveat: by what recording conditions could still give the answer away; "" for nothing known.
        probe: "linear", or "mlp" for one hidden layer.
        published: counts that the set is published with, such as {"train": 1600, "classes": 50}.
        source: paper or page of the set and of the split.
    """

    name: str
    suite: str
    domain: str
    title: str
    metric: str
    read: Callable[[Path], TaskData]
    get: str
    licence: str
    caveat: str = ""
    probe: str = "linear"
    published: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


def from_rows(
    rows: pd.DataFrame,
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    task: str = "classes",
    folds: Sequence[Fold] | None = None,
    group_source: str = "the set's own",
    notes: Sequence[str] = (),
) -> TaskData:
    """Task data from a table; rows whose file is missing are left out and told.

    Args:
        rows: columns path (absolute or relative to ``root``), label (str; list of str with
            "multilabel"), group (str: what must stay together); part ("train", "valid", "test"),
            unless ``folds`` or a column fold (each value of it is tested once by the others) is
            given; onset and offset (s) where not the whole file is meant.
        root: folder of the set.
        classes: names; None: those that occur, sorted. Where given, their order is kept.
        task: "classes" or "multilabel".
        folds: row numbers of ``rows``.
        group_source: where the groups come from.
        notes: passed on.

    Raises:
        DataError: no file is there, a label is not among the classes, or nothing is left to learn
            from or to test.
    """
    if rows.empty:
        raise DataError(f"{root}: no clips in it")
    table = rows.reset_index(drop=True).copy()
    table["path"] = [str(root / path) for path in table["path"]]
    there = {path: Path(path).is_file() for path in table["path"].unique()}
    kept = table["path"].map(there).to_numpy(bool)
    notes = list(notes)
    if not kept.all():
        missing = table["path"][~kept]
        first = Path(missing.iloc[0]).relative_to(root) if len(missing) else ""
        if not kept.any():
            raise DataError(f"{root}: none of the {len(table)} files is there, such as {first}")
        notes.append(f"{len(missing)} of {len(table)} clips are not there, such as {first}")
    found = sorted({name for label in table["label"] for name in _names(label)})
    if classes is not None and (unknown := sorted(set(found) - set(classes))):
        raise DataError(f"{root}: {unknown[0]!r} is not among the {len(classes)} classes")
    if folds is None:
        folds = _folds(table, root)
    number = np.cumsum(kept) - 1  # old row -> new row
    moved = tuple(
        Fold(*(number[part[kept[part]]].astype(np.int64) for part in fold)) for fold in folds
    )
    for fold in moved:
        if not len(fold.train) or not len(fold.test):
            raise DataError(f"{root}: no clip is left to {'test' if len(fold.train) else 'learn'}")
    table = table[kept].reset_index(drop=True)
    for column in ("onset", "offset"):
        given = table.get(column, np.nan)
        table[column] = pd.Series(given, index=table.index, dtype=np.float64)
    for column in ("split", "fold"):
        table[column] = pd.Series([None] * len(table), index=table.index, dtype=object)
    table["label"] = pd.Series(list(table["label"]), index=table.index, dtype=object)
    table["group"] = pd.Series([str(g) for g in table["group"]], index=table.index, dtype=object)
    columns = ["path", "label", "onset", "offset", "group", "split", "fold"]
    clips = Clips(table[columns], task, tuple(classes or found), root, list(notes), group_source)
    return TaskData(clips, moved, list(notes))


def targets(clips: Clips) -> np.ndarray:
    """(n,) int64 class indices, or (n, num_classes) uint8 0/1: a byte each, for millions of clips.

    Args:
        clips: of task "classes" or "multilabel".
    """
    if clips.task == "classes":
        return clips.y()
    index = {name: i for i, name in enumerate(clips.classes)}
    found = np.zeros((len(clips), len(index)), np.uint8)
    for row, names in enumerate(clips.table["label"]):
        found[row, [index[name] for name in names]] = 1
    return found


def differences(data: TaskData, published: Mapping[str, int]) -> list[str]:
    """What of the published counts does not hold: "train: 1,500 clips, published 1,600".

    Args:
        data: as read.
        published: keys train, valid, test (of the first fold), clips, classes.
    """
    fold = data.folds[0]
    have: dict[str, Any] = {
        "clips": len(data.clips),
        "classes": len(data.clips.classes),
        **{name: len(part) for name, part in zip(PARTS, fold, strict=True)},
    }
    return [
        f"{name}: {have[name]:,}, published {count:,}"
        for name, count in published.items()
        if have[name] != count
    ]


def _names(label: Any) -> Sequence[str]:
    return [label] if isinstance(label, str) else label


def _folds(table: pd.DataFrame, root: Path) -> tuple[Fold, ...]:
    none = np.zeros(0, np.int64)
    if "part" in table:
        part = table["part"].to_numpy(object)
        if unknown := sorted(set(part) - set(PARTS)):
            raise DataError(f"{root}: part {unknown[0]!r} is none of {', '.join(PARTS)}")
        return (Fold(*(np.flatnonzero(part == name) for name in PARTS)),)
    fold = table["fold"].to_numpy(object).astype(str)
    return tuple(
        Fold(np.flatnonzero(fold != name), none, np.flatnonzero(fold == name))
        for name in np.unique(fold)
    )
