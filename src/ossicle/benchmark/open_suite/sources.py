"""Named clips of several sources (packages, drum kits): repeats, shares, folds by source."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from ossicle.audio import info
from ossicle.datasets.clips import COLUMNS, Clips
from ossicle.datasets.groups import UnionFind
from ossicle.download import sha256_file
from ossicle.errors import AudioError, DataError
from ossicle.leaks import audit

Progress = Callable[[str], None]


T = TypeVar("T")


class Clip(NamedTuple):
    """A file, what its name says it is, and where it comes from."""

    path: Path
    label: str
    source: str


def words(name: str) -> tuple[str, ...]:
    """The words of a file's name, lower case: "sfx_DoorSlam2.wav" -> ("sfx", "door", "slam").

    Digits and all that is no letter of ASCII part words, and so does a capital after a small one.
    """
    stem = re.sub(r"(\.[A-Za-z]\w{1,3})+$", "", name)
    return tuple(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", stem).lower()))


def without_repeats(clips: Iterable[Clip], *, join: bool = True) -> list[Clip]:
    """Files of the same bytes once, as ``without_copies``; quick, nothing is decoded."""
    ordered = sorted(set(clips))
    sizes = [clip.path.stat().st_size for clip in ordered]
    often = Counter(sizes)
    first: dict[str, int] = {}
    pairs = []
    for row, (clip, size) in enumerate(zip(ordered, sizes, strict=True)):
        if often[size] > 1:
            pairs.append((first.setdefault(sha256_file(clip.path), row), row))
    return _once(ordered, pairs, join)


def without_copies(
    clips: Iterable[Clip], *, join: bool = True, progress: Progress | None = None
) -> list[Clip]:
    """The same sound once, however it is coded or cut (``ossicle.leaks.audit``).

    The first of several by path is kept; of those under different labels, none.

    Args:
        clips: with all files there.
        join: sources that hold the same sound become one, under the first name of them, since
            they have more in common than is found. Else what two of them hold is left out.
        progress: called with a line before all files are decoded.

    Returns:
        Sorted by path.
    """
    ordered = sorted(set(clips))
    if not ordered:
        return []
    if progress is not None:
        progress(f"looking for copies among {len(ordered)} files")
    rows = [(str(c.path), c.label, None, None, c.source, None, None) for c in ordered]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"onset": float, "offset": float})
    classes = tuple(sorted({clip.label for clip in ordered}))
    report = audit(Clips(table, "classes", classes, Path(ordered[0].path.anchor)), folds=[])
    same = [*report["bytes"], *([pair["a"], pair["b"]] for pair in report["samples"])]
    return _once(ordered, [(a, b) for a, b in same], join)


def _once(ordered: Sequence[Clip], pairs: Sequence[tuple[int, int]], join: bool) -> list[Clip]:
    sounds, sources = UnionFind(), UnionFind()
    for a, b in pairs:
        sounds.union(a, b)
    alike: dict[object, list[Clip]] = defaultdict(list)
    for row, clip in enumerate(ordered):
        alike[sounds.find(row)].append(clip)
    kept = []
    for copies in alike.values():
        several = len({clip.source for clip in copies}) > 1
        if several and join:
            for clip in copies[1:]:
                sources.union(copies[0].source, clip.source)
        if len({clip.label for clip in copies}) == 1 and (join or not several):
            kept.append(copies[0])
    return sorted(clip._replace(source=str(sources.find(clip.source))) for clip in kept)


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly over their order."""
    n = min(len(items), most)
    return [items[i * len(items) // n] for i in range(n)]


def at_most(clips: Sequence[Clip], most: int) -> list[Clip]:
    """At most so many clips of a label and a source, evenly spread over the sorted paths.

    Neighbours by name are variants of one recording, so that a spread holds more than a head.
    """
    members: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in sorted(clips):
        members[clip.source, clip.label].append(clip)
    return sorted(clip for found in members.values() for clip in spread(found, most))


def fold_of_sources(clips: Sequence[Clip], folds: int) -> dict[str, int]:
    """Source -> its fold, such that the classes are spread over the folds as evenly as they can.

    The largest source first, each where least of its classes is yet (shares of a class are what
    counts, so that rare classes weigh as much as common ones); ties go to the emptier fold.

    Args:
        clips: source is what must stay together.
        folds: how many, 2 or more.

    Raises:
        DataError: a class comes out of one source or lies in one fold, so that it could not be
            both learnt and tested.
    """
    total = Counter(clip.label for clip in clips)
    shares: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for clip in clips:
        shares[clip.source][clip.label] += 1 / total[clip.label]
    load: list[dict[str, float]] = [defaultdict(float) for _ in range(folds)]
    chosen: dict[str, int] = {}
    for source in sorted(shares, key=lambda name: (-sum(shares[name].values()), name)):
        own = shares[source]
        crowd = [sum(part * here[label] for label, part in own.items()) for here in load]
        full = [sum(here.values()) for here in load]
        fold = min(range(folds), key=lambda k: (round(crowd[k], 9), round(full[k], 9), k))
        chosen[source] = fold
        for label, part in own.items():
            load[fold][label] += part
    for label in sorted(total):
        if sum(here[label] > 0 for here in load) < 2:
            raise DataError(f"{label!r}: all its clips are in one fold; it needs more sources")
    return chosen


def in_folds(
    clips: Sequence[Clip], folds: int, *, longest_s: float, progress: Progress | None = None
) -> pd.DataFrame:
    """Rows of a recipe: path, label, group (the source), fold, onset and offset (s).

    Args:
        clips: as of ``at_most``.
        folds: how many; sources never straddle them.
        longest_s: of longer files the first so many seconds are meant; onset and offset are
            missing where it is the whole file.
        progress: called with a line before all files are looked at.

    Raises:
        DataError: there is no clip; or as in ``fold_of_sources``.
    """
    if not clips:
        raise DataError("none of the packages holds a file whose name says what it is")
    chosen = fold_of_sources(clips, folds)
    if progress is not None:
        progress(f"{len(clips)} clips of {len(chosen)} sources")
    rows = []
    for path, label, source in sorted(clips):
        long = _seconds(path) > longest_s
        span = (0.0, longest_s) if long else (float("nan"), float("nan"))
        rows.append((str(path), label, source, str(chosen[source]), *span))
    return pd.DataFrame(rows, columns=["path", "label", "group", "fold", "onset", "offset"])


def _seconds(path: Path) -> float:
    try:
        return info(path).duration_s
    except AudioError:
        return 0.0  # what cannot be read is left out, and named, when the task is built
