"""Is there a bird? DCASE 2018 task 3, development data: three sets of ten-second clips.

Stowell, Wood, Stylianou, Glotin, MLSP 2016, arXiv 1608.03417;
http://dcase.community/challenge2018/task-bird-audio-detection.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ossicle.benchmark.hares_suite.tree import Tree
from ossicle.benchmark.task import Task, TaskData, from_rows
from ossicle.datasets.layouts import read_text_table
from ossicle.errors import DataError

CLASSES = ("no bird", "bird")
# Set -> its table, and the clips it is published with.
TABLES = {
    "BirdVox-DCASE-20k": ("BirdVoxDCASE20k_csvpublic.csv", 20_000),
    "ff1010bird": ("ff1010bird_metadata_2018.csv", 7_690),
    "warblrb10k": ("warblrb10k_public_metadata_2018.csv", 8_000),
}
_GET = (
    "DCASE 2018 task 3, development data of ff1010bird, warblrb10k and BirdVox-DCASE-20k: "
    "http://dcase.community/challenge2018/task-bird-audio-detection"
)
_COLUMNS = ("itemid", "datasetid", "hasbird")


def read_birdsong(folder: Path) -> TaskData:
    """The three sets, each from a table itemid,datasetid,hasbird and clips named ITEMID.

    Tables are known by their columns, whatever they are called. Each set is tested by what was
    learnt from the others, as the challenge recommends. HARES has lists of its own (Tagliasacchi
    et al. 2020, linked from its page), which are not read. Recording units and recordists are not
    told in the tables, so any split within a set may have them on both sides.

    Args:
        folder: of the three sets, with a folder each or with all clips in one.

    Returns:
        One fold a set; groups: clips.

    Raises:
        DataError: fewer than two sets are there, a table is broken, or has another label.
    """
    tree = Tree(folder)
    tables = [table for path in tree.tables if (table := _labels(tree.root / path)) is not None]
    if not tables:
        raise DataError(
            f"{tree.root}: has no table with the columns {','.join(_COLUMNS)}, such as "
            f"{TABLES['ff1010bird'][0]}"
        )
    rows = pd.concat(tables, ignore_index=True)
    repeated = rows.duplicated(["datasetid", "itemid"])
    notes = []
    if repeated.any():
        notes.append(f"{int(repeated.sum()):,} clips that a second table names are used once")
        rows = rows[~repeated].reset_index(drop=True)
    known = {name.lower(): name for name in TABLES}
    names = rows["datasetid"].str.lower().map(known)
    if names.isna().any():
        other = rows["datasetid"][names.isna()].iloc[0]
        raise DataError(f"{tree.root}: the set {other!r} is none of {', '.join(TABLES)}")
    rows["fold"] = names
    missing = [name for name in TABLES if name not in set(names)]
    if len(missing) > 1:
        raise DataError(
            f"{tree.root}: only {names.iloc[0]} is there, and each set is tested by the others; "
            f"get {' or '.join(missing)}"
        )
    for name in missing:
        notes.append(f"{name} is not there: two folds instead of three")
    for name, (_, count) in TABLES.items():
        have = int((names == name).sum())
        if have and have != count:
            notes.append(f"{name}: {have:,} clips, published {count:,}")
    rows["path"] = tree.place(
        f"{n}/wav/{item}.wav" for n, item in zip(names, rows["itemid"], strict=True)
    )
    rows["label"] = [CLASSES[int(value)] for value in rows["hasbird"]]
    rows["group"] = names + "/" + rows["itemid"]
    return from_rows(
        rows, tree.root, classes=CLASSES, group_source="none known: the clip", notes=notes
    )


def _labels(path: Path) -> pd.DataFrame | None:
    """The rows of a table of labels; None for another table."""
    if path.suffix.lower() != ".csv":
        return None
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = [name.strip().strip('"') for name in stream.readline().split(",")]
    except (OSError, UnicodeDecodeError):
        return None
    if not set(_COLUMNS) <= set(header):
        return None
    table = read_text_table(path)
    wrong = ~table["hasbird"].isin(["0", "1"])
    if wrong.any():
        row = table[wrong].iloc[0]
        raise DataError(
            f"{path}: {row['itemid']}: hasbird is {row['hasbird']!r}, not 0 or 1; "
            "get the development labels"
        )
    return table[list(_COLUMNS)]


TASK = Task(
    name="birdsong",
    suite="hares",
    domain="environment",
    title="is there a bird",
    metric="accuracy",
    read=read_birdsong,
    get=_GET,
    licence="labels CC BY; audio Creative Commons, which one see the page of each set",
    caveat="three sets, each tested by the others, not the lists of HARES; the share of clips with "
    "birds differs from set to set; recorders are not told, so intervals take clips as independent",
    published={"clips": 35_690, "classes": 2},
    source="Stowell et al., MLSP 2016, arXiv 1608.03417; "
    "http://dcase.community/challenge2018/task-bird-audio-detection",
)
