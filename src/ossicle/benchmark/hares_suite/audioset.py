"""AudioSet, 527 kinds of sounds in clips of YouTube.

Gemmeke et al., ICASSP 2017; https://research.google.com/audioset/download.html.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ossicle.benchmark.hares_suite.tree import Tree
from ossicle.benchmark.task import Fold, Task, TaskData
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError

_GET = (
    "AudioSet: the tables from https://research.google.com/audioset/download.html; the clips are "
    "cut from YouTube by yourself, or come with a copy that you know of"
)
_CLASSES = "class_labels_indices.csv"
_TRAIN = ("balanced_train_segments.csv", "unbalanced_train_segments.csv")
_TEST = "eval_segments.csv"
_COLUMNS = ["id", "start", "end", "labels", "more"]
# ID_30_40, ID_30.000, ID_0.0-10.0, ID_30000_40000: what may follow a video's id.
_TIMES = re.compile(r"(?:[_-]\d+(?:\.\d+)?){0,2}")
_ID = 11  # characters of a YouTube id


def read_audioset(folder: Path) -> TaskData:
    """AudioSet from its tables of segments and the clips below the folder.

    Read: class_labels_indices.csv, eval_segments.csv, and balanced_train_segments.csv,
    unbalanced_train_segments.csv or both. Clips are files named by the video: ID, YID, ID_START,
    ID_START_END (s or ms), with any known ending, in any folder. The whole file is the clip.

    Args:
        folder: of the set.

    Returns:
        Labels: lists of display names. Learnt from both training tables, tested on the
        evaluation's; no validation part. Groups: videos.

    Raises:
        DataError: a table is not there or broken, names an unknown class, or no clip is there.
    """
    tree = Tree(folder)
    names = _class_names(tree)
    parts = [path for name in _TRAIN if (path := tree.find(name)) is not None]
    if not parts:
        tree.need(_TRAIN[0])
    notes = [
        f"{name} is not there: learnt from the other training table alone"
        for name in _TRAIN
        if tree.find(name) is None
    ]
    # The evaluation first: what it has is not learnt from.
    paths = [tree.need(_TEST), *parts]
    tables = [_segments(path, names) for path in paths]
    rows = pd.concat(tables, keys=range(len(tables)), names=["table"]).reset_index("table")
    repeated = rows["id"].duplicated()
    if repeated.any():
        first = rows["id"][repeated].iloc[0]
        notes.append(f"{int(repeated.sum()):,} videos named twice are used once, such as {first}")
        rows = rows[~repeated]
    rows = rows.reset_index(drop=True)
    rows["path"] = _clip_paths(tree, rows["id"])
    there = rows["path"].notna().to_numpy()
    for number, path in enumerate(paths):
        of_table = (rows["table"] == number).to_numpy()
        gone = rows["id"][of_table & ~there]
        if len(gone):
            notes.append(
                f"{len(gone):,} of {int(of_table.sum()):,} clips of {path.name} are not there, "
                f"such as {gone.iloc[0]}"
            )
    if not there.any():
        raise DataError(f"{tree.root}: none of the {len(rows):,} clips is there")
    rows = rows[there].reset_index(drop=True)
    tested = (rows["table"] == 0).to_numpy()
    fold = Fold(np.flatnonzero(~tested), np.zeros(0, np.int64), np.flatnonzero(tested))
    if not len(fold.train) or not len(fold.test):
        what = "learn from" if len(fold.test) else "test on"
        raise DataError(f"{tree.root}: no clip is there to {what}")
    empty = pd.Series(np.nan, index=rows.index, dtype=np.float64)
    nothing = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    table = pd.DataFrame(
        {
            "path": rows["path"].astype(object),
            "label": rows["labels"],
            "onset": empty,
            "offset": empty,
            "group": rows["id"].astype(object),
            "split": nothing,
            "fold": nothing,
        }
    )
    classes = tuple(names.values())
    clips = Clips(table, "multilabel", classes, tree.root, list(notes), "the YouTube video")
    return TaskData(clips, (fold,), notes)


def _class_names(tree: Tree) -> dict[str, str]:
    """Machine id -> display name, in the order of the table."""
    table = tree.read(_CLASSES, ("index", "mid", "display_name"))
    mids, names = list(table["mid"]), list(table["display_name"])
    if len(set(mids)) < len(mids) or not all(names):
        raise DataError(f"{tree.need(_CLASSES)}: names a class twice or not at all; get it anew")
    # Classes are told apart by name here; of two alike each takes its id along.
    unique = [f"{n} ({m})" if names.count(n) > 1 else n for m, n in zip(mids, names, strict=True)]
    return dict(zip(mids, unique, strict=True))


def _segments(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """Columns id (str) and labels (list of names, shared by rows with equal labels)."""
    try:
        table = pd.read_csv(
            path,
            names=_COLUMNS,
            header=None,
            comment="#",
            skipinitialspace=True,
            # As categories, columns of a few texts take little memory.
            dtype={"id": str} | dict.fromkeys(_COLUMNS[1:], "category"),
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except (ValueError, OSError) as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is no table of segments ({reason}); get it anew") from error
    table = table[table["id"].str.lower() != "ytid"]
    # What a short row lacks is "" or a gap, by pandas' version.
    given = table[["labels", "more"]].notna() & (table[["labels", "more"]] != "")
    wrong = (table["id"].str.len() != _ID) | ~given["labels"] | given["more"]
    if wrong.any():
        row = table[wrong].iloc[0]
        raise DataError(
            f'{path}: the row of {row["id"]!r} is not ID, start, end, "labels in quotes"; '
            "get the table anew"
        )
    if table.empty:
        raise DataError(f"{path}: has no segments; get it anew")
    # A few hundred thousand combinations for two million rows: each list is made once.
    codes, combinations = pd.factorize(table["labels"])
    lists = np.empty(len(combinations), object)
    for i, text in enumerate(combinations):
        mids = [mid.strip() for mid in text.split(",")]
        unknown = [mid for mid in mids if mid not in names]
        if unknown:
            raise DataError(f"{path}: the class {unknown[0]!r} is not among those of {_CLASSES}")
        lists[i] = list(dict.fromkeys(names[mid] for mid in mids))
    return pd.DataFrame({"id": table["id"].to_numpy(object), "labels": lists[codes]})


def _clip_paths(tree: Tree, ids: pd.Series) -> np.ndarray:
    """(n,) absolute paths of the clips of the videos; None where there is none."""
    rows = {video: row for row, video in enumerate(ids)}
    paths = np.full(len(ids), None, object)
    for folder, names in tree.audio:
        place = str(tree.root / folder)
        for name in names:
            row = _row(os.path.splitext(name)[0], rows)  # noqa: PTH122 - of millions of names
            if row is not None and paths[row] is None:
                paths[row] = f"{place}{os.sep}{name}"
    return paths


def _row(stem: str, rows: dict[str, int]) -> int | None:
    for start in (0, 1) if stem.startswith("Y") else (0,):
        row = rows.get(stem[start : start + _ID])
        if row is not None and _TIMES.fullmatch(stem, start + _ID):
            return row
    return None


TASK = Task(
    name="audioset",
    suite="hares",
    domain="environment",
    title="sounds of all kinds, several a clip",
    metric="map",
    read=read_audioset,
    get=_GET,
    licence="labels CC BY 4.0; clips as their uploaders on YouTube have it",
    caveat="videos are in one part each, but an uploader may have videos in both",
    probe="mlp",
    # 2,084,320 clips in all, less 22,160 balanced and 20,371 of the evaluation, are unbalanced.
    published={"train": 2_063_949, "test": 20_371, "classes": 527},
    source="Gemmeke et al., ICASSP 2017; https://research.google.com/audioset/download.html "
    "(counts: headers of the tables)",
)
