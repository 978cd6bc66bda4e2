"""Which clips of many a recipe takes: each sound once, so many of each, the same on every machine.

A row is a dict with the columns of a recipe: path, label, group, fold, perhaps onset and offset.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ossicle.audio import info
from ossicle.datasets.groups import UnionFind
from ossicle.errors import AudioError, DataError

Item = TypeVar("Item")
Row = dict[str, Any]


def kept_once(rows: Iterable[Row]) -> list[Row]:
    """Rows of which no two have the same bytes.

    Where the rows agree in label and fold, the first by path is kept, and their groups become one.
    Where they contradict each other in the label, or stand in different folds, none is kept: the
    answer would not be in the sound, or would have been heard before.
    """
    rows = sorted(rows, key=lambda row: str(row["path"]))
    alike: dict[tuple[int, bytes], list[Row]] = {}
    sizes: dict[int, list[Row]] = {}
    for row in rows:
        sizes.setdefault(Path(row["path"]).stat().st_size, []).append(row)
    for size, same in sizes.items():
        for row in same:
            # Only files of one length can be the same.
            key = Path(row["path"]).read_bytes() if len(same) > 1 else str(row["path"]).encode()
            alike.setdefault((size, hashlib.sha256(key).digest()), []).append(row)
    together = UnionFind()
    kept = []
    for same in alike.values():
        if len({row["label"] for row in same}) == len({row["fold"] for row in same}) == 1:
            kept.append(same[0])
            for row in same:
                together.union(same[0]["group"], row["group"])
    return sorted(
        ({**row, "group": together.find(row["group"])} for row in kept),
        key=lambda row: str(row["path"]),
    )


def draw(items: Sequence[Item], most: int, seed: str) -> list[Item]:
    """At most so many items, drawn without replacement, in their order.

    Args:
        items: in an order that is the same everywhere.
        most: how many.
        seed: a text; another one for each draw, so that draws do not go alongside each other.
    """
    if len(items) <= most:
        return list(items)
    # A text seeds Python's generator by its SHA-512: the same on every machine.
    chosen = sorted(random.Random(seed).sample(range(len(items)), most))
    return [items[i] for i in chosen]


def shares(have: Mapping[str, int], total: int) -> dict[str, int]:
    """How many to take of each, as evenly as what is there allows, ``total`` together.

    Args:
        have: name -> how many there are.
        total: how many are wanted; with fewer there, all are taken.
    """
    taken: dict[str, int] = {}
    left = total
    names = sorted(have, key=lambda name: (have[name], name))
    for done, name in enumerate(names):
        taken[name] = min(have[name], left // (len(names) - done))
        left -= taken[name]
    return taken


def long_enough(
    paths: Sequence[Path],
    most: int,
    seconds: float,
    seed: str,
    length: Callable[[Path], float] | None = None,
) -> list[Path]:
    """At most so many files of at least some length, drawn; sorted by path.

    Args:
        paths: candidates.
        most: how many.
        seconds: the shortest length to accept (s); a file whose length cannot be read is passed by.
        seed: as in `draw`.
        length: path -> seconds; None: as ``ossicle.audio.info`` reads it.
    """
    order = sorted(paths)
    random.Random(seed).shuffle(order)
    chosen: list[Path] = []
    for path in order:
        if len(chosen) == most:
            break
        if (length or _duration)(path) >= seconds:
            chosen.append(path)
    return sorted(chosen)


def table(rows: Iterable[Row], name: str) -> pd.DataFrame:
    """The rows as a recipe returns them, sorted by path.

    Raises:
        DataError: no rows, or a group that stands in two folds.
    """
    frame = pd.DataFrame(sorted(rows, key=lambda row: str(row["path"])))
    if frame.empty:
        raise DataError(f"{name}: no clip was found in its packages; remove their folder and fetch")
    frame["path"] = [str(path) for path in frame["path"]]
    if (straddling := frame.groupby("group")["fold"].nunique()).gt(1).any():
        raise DataError(f"{name}: group {straddling.idxmax()} stands in several folds")
    return frame


def _duration(path: Path) -> float:
    try:
        return info(path).duration_s
    except AudioError:
        return 0.0
