"""Which sources belong to train, valid and test: no clip, group or background is in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.datasets.folds import make_folds, predefined_folds
from ossicle.datasets.layouts import SPLITS
from ossicle.errors import DataError
from ossicle.mix.settings import PARTS

_SHARES = {"train": 3, "valid": 1, "test": 1}
_TAG = 0x6D697870  # keeps these random numbers apart from those of the soundscapes


class Span(NamedTuple):
    """A stretch of a background recording.

    Attributes:
        path: the file.
        name: what tables call it.
        onset: where it begins (s).
        offset: where it ends (s).
    """

    path: str
    name: str
    onset: float
    offset: float


def split_clips(
    clips: Clips,
    wanted: Sequence[str],
    *,
    valid_folds: Sequence[str] = (),
    test_folds: Sequence[str] = (),
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The foreground clips of each part.

    By folds where these are named; else by the split that the clips bring; else, where they bring
    folds, the last for test and the one before for valid; else drawn, stratified by class, groups
    whole (3 : 1 : 1). A part that a split lacks is drawn from its training part.

    Args:
        clips: the foreground.
        wanted: of "train", "valid", "test", those that soundscapes are made for.
        valid_folds, test_folds: values of the clips' fold; train has all others.
        seed: of what is drawn.

    Returns:
        Sorted positions of each wanted part's clips, and notes for the user.

    Raises:
        DataError: a fold or split is not known, a part has no clips, or a group is in two parts.
    """
    table = clips.table
    notes: list[str] = []
    if clips.task == "regression":
        raise DataError("soundscapes need clips with classes, and these labels are numbers")
    if valid_folds or test_folds:
        part = _by_folds(table["fold"], valid_folds, test_folds)
    elif table["split"].notna().any():
        part = _by_split(table["split"])
    elif table["fold"].notna().any():
        part, notes = _by_last_folds(table["fold"], wanted)
    else:
        # A single part needs no split.
        alone = wanted[0] if len(wanted) == 1 else "train"
        part = np.array([alone] * len(table), object)
    missing = [name for name in PARTS if name in wanted and not (part == name).any()]
    if "train" in missing or (missing and not (part == "train").any()):
        raise DataError(f"no clips are left for {missing[0]}: leave a fold or split for it")
    if missing:
        given = sorted(set(part))
        rows = np.flatnonzero(part == "train")
        part[rows] = _drawn(clips, rows, missing, seed)
        if given != ["train"]:
            notes.append(f"{' and '.join(missing)} drawn from the training part, groups whole")
    notes += _kept_apart(clips, part)
    notes += _absent_classes(clips, part, wanted)
    return {name: np.flatnonzero(part == name) for name in wanted}, notes


def split_files(files: Sequence[str], wanted: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Files dealt out in the ratio 3 : 1 : 1, each part at least one.

    Args:
        files: as many as there are parts, or more.
        wanted: the parts.
        seed: of the deal.
    """
    order = _generator(seed).permutation(len(files))
    total = sum(_SHARES[name] for name in wanted)
    counts = {name: max(1, len(files) * _SHARES[name] // total) for name in wanted}
    largest = max(wanted, key=lambda name: _SHARES[name])
    counts[largest] += len(files) - sum(counts.values())
    dealt: dict[str, list[str]] = {}
    at = 0
    for name in wanted:
        dealt[name] = [files[i] for i in sorted(order[at : at + counts[name]])]
        at += counts[name]
    return dealt


def split_backgrounds(
    durations: dict[str, float], names: Mapping[str, str], wanted: Sequence[str], seed: int
) -> dict[str, list[Span]]:
    """Backgrounds of each part: whole files, or where these are too few, stretches of each.

    Args:
        durations: length (s) of each file.
        names: what tables call each file.
        wanted: the parts.
        seed: of the deal.

    Returns:
        The spans of each part. Where files are cut, they are in the ratio 3 : 1 : 1, in the order
        train, valid, test, with 1 s (at most a twentieth of the file) left out between two.
    """
    if len(durations) >= len(wanted):
        dealt = split_files(list(durations), wanted, seed)
        return {
            name: [Span(path, names[path], 0.0, durations[path]) for path in paths]
            for name, paths in dealt.items()
        }
    spans: dict[str, list[Span]] = {name: [] for name in wanted}
    total = sum(_SHARES[name] for name in wanted)
    for path, duration in durations.items():
        pause = min(1.0, duration / 20)
        room = duration - pause * (len(wanted) - 1)
        at = 0.0
        for name in wanted:
            end = at + room * _SHARES[name] / total
            spans[name].append(Span(path, names[path], at, end))
            at = end + pause
    return spans


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng([_TAG, seed])


def _by_folds(fold: Any, valid: Sequence[str], test: Sequence[str]) -> np.ndarray:
    known = sorted({value for value in fold if value is not None})
    if not known:
        raise DataError("the clips have no folds: name them with --folds COLUMN or '/regex/'")
    for name in (*valid, *test):
        if name not in known:
            raise DataError(f"there is no fold {name}: the clips have {', '.join(known)}")
    both = sorted(set(valid) & set(test))
    if both:
        raise DataError(f"fold {both[0]} cannot be both for valid and for test")
    if fold.isna().any():
        raise DataError(f"{int(fold.isna().sum())} of {len(fold)} clips have no fold")
    names = ["valid" if f in valid else "test" if f in test else "train" for f in fold]
    return np.array(names, object)


def _by_split(split: Any) -> np.ndarray:
    short = {"train": "train", "validation": "valid", "test": "test"}
    unknown = sorted({str(value) for value in split if str(value).lower() not in SPLITS})
    if unknown:
        shown = ", ".join("(nothing)" if value == "None" else value for value in unknown[:5])
        raise DataError(
            f"split has values that are not known: {shown}; use train, validation, test"
        )
    return np.array([short[SPLITS[value.lower()]] for value in split], object)


def _by_last_folds(fold: Any, wanted: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    held = [test for _, test in predefined_folds(list(fold))]
    part = np.array(["train"] * len(fold), object)
    notes = []
    for name in ("test", "valid"):
        if name in wanted and len(held) > 1:
            rows = held.pop()
            part[rows] = name
            notes.append(f"fold {fold.iloc[rows[0]]} for {name} (--{name}-folds takes others)")
    return part, notes


def _drawn(clips: Clips, rows: np.ndarray, missing: Sequence[str], seed: int) -> np.ndarray:
    """Parts of `rows`: "train", or one of `missing`."""
    part = np.array(["train"] * len(rows), object)
    folds = make_folds(
        clips.y()[rows],
        clips.groups()[rows],
        5,
        task=clips.task,
        random_state=seed,
        rare="train",
        classes=clips.classes,
    )
    if len(folds) <= len(missing):
        raise DataError(
            f"there are too few groups to draw {' and '.join(missing)} from: only {len(folds)} in "
            "any class; set --n-valid 0 or --n-test 0, or give more recordings"
        )
    for name, (_, test) in zip(reversed(missing), folds, strict=False):
        part[test] = name
    return part


def _kept_apart(clips: Clips, part: np.ndarray) -> list[str]:
    """Notes where inferred groups give way to the data's own parts; errors where others do."""
    notes = []
    for what, values in (("group", clips.groups()), ("file", clips.table["path"].to_numpy())):
        places: dict[str, set[str]] = {}
        for value, name in zip(values, part, strict=True):
            places.setdefault(value, set()).add(name)
        torn = sorted(value for value, names in places.items() if len(names) > 1)
        if not torn:
            continue
        parts = " and ".join(sorted(places[torn[0]]))
        if what == "group" and clips.group_source.startswith("inferred"):
            notes.append(
                f"{len(torn)} groups ({clips.group_source}) are in several parts, such as "
                f"{torn[0]!r}: they give way to the split or folds that were given"
            )
            continue
        raise DataError(
            f"{what} {torn[0]} is in {parts}, and {len(torn)} such are: choose folds that keep "
            "groups whole, or --groups that fit"
        )
    return notes


def _absent_classes(clips: Clips, part: np.ndarray, wanted: Sequence[str]) -> list[str]:
    notes = []
    y = clips.y()
    for name in wanted:
        rows = y[part == name]
        has = set(rows.tolist()) if y.ndim == 1 else set(np.flatnonzero(rows.any(axis=0)).tolist())
        absent = [label for i, label in enumerate(clips.classes) if i not in has]
        if absent:
            notes.append(f"{name} has no clips of {', '.join(absent)}")
    return notes
