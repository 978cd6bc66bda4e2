"""Which recordings are learnt from, which rules are fitted on, and which scores are told of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ossicle.datasets.clips import COLUMNS, Clips
from ossicle.datasets.folds import check_folds, predefined_split
from ossicle.datasets.strong import StrongClips
from ossicle.errors import DataError
from ossicle.pretrain.supervised import split_groups

NAMES = ("train", "validation", "test")


@dataclass
class Parts:
    """Rows of the recordings; no group is in two parts.

    Attributes:
        train: to learn from; with weak labels or strong ones.
        validation: to stop by and to fit rules on; strong labels only.
        test: that scores are told of; strong labels only.
        text: what they are, one sentence.
        notes: what the user should know.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    text: str
    notes: list[str] = field(default_factory=list)


def choose_parts(
    clips: StrongClips, *, validation: float = 0.15, test: float = 0.2, seed: int = 0
) -> Parts:
    """The data's own split where it has one, else a grouped, stratified one.

    Recordings with weak labels say nothing of when: they are learnt from, or left out where they
    stand in another part or their group does.

    Args:
        clips: recordings with strong or weak labels.
        validation: share of the recordings with strong labels, about.
        test: share of them, about.
        seed: the same gives the same parts.

    Raises:
        DataError: there are too few recordings with strong labels or too few groups, or groups
            that the caller named straddle the data's own split.
    """
    files = clips.files
    strong = (files["kind"] == "strong").to_numpy(bool)
    if not strong.any():
        raise DataError(
            f"{clips.root}: no recording has strong labels (onset and offset of its events): "
            "without them nothing says when a class sounds; `ossicle train` learns what sounds"
        )
    notes: list[str] = []
    if files["split"].notna().any():
        parts = _given(clips, strong, validation, seed, notes)
    else:
        parts = _drawn(clips, strong, validation, test, seed, notes)
    groups = files["group"].to_numpy(object).astype(str)
    train, held, tested = parts.train, parts.validation, parts.test
    try:
        check_folds([(train, held), (train, tested), (held, tested)], groups)
    except DataError as error:
        if not clips.group_source.startswith("inferred"):
            raise DataError(
                f"{clips.root}: a group is in two parts of the split: {error}"
            ) from None
        notes.append(f"the inferred groups do not fit the data's split and are not used: {error}")
    for name, rows in zip(NAMES, (train, held, tested), strict=True):
        heard = {label for labels in files["labels"].iloc[rows] for label in labels}
        missing = [label for label in clips.classes if label not in heard]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            notes.append(f"not in the {name} part: {shown}")
    parts.notes = notes
    return parts


def _given(
    clips: StrongClips, strong: np.ndarray, validation: float, seed: int, notes: list[str]
) -> Parts:
    """The parts that the column split names; a missing validation part is taken from train."""
    split = predefined_split(list(clips.files["split"]))
    held, tested = split.validation[strong[split.validation]], split.test[strong[split.test]]
    n_weak = len(split.validation) + len(split.test) - len(held) - len(tested)
    if n_weak:
        notes.append(
            f"{n_weak} recordings with weak labels in the validation and test parts are left out: "
            "they do not say when"
        )
    text = "the data's own split: fitted on train, rules on validation, scores on test"
    train = split.train
    if not len(tested):
        raise DataError(f"{clips.root}: the test part has no recording with strong labels")
    if not len(held):
        if len(split.validation):
            notes.append("the validation part has no strong labels: one is taken from train")
        train, held = _taken(clips, train, strong, validation, seed, notes)
        text = (
            f"the data's own split; {len(held)} recordings of its training part, with groups of "
            "their own, are set aside to fit rules on"
        )
    return Parts(train, held, tested, text)


def _drawn(
    clips: StrongClips,
    strong: np.ndarray,
    validation: float,
    test: float,
    seed: int,
    notes: list[str],
) -> Parts:
    rest, tested = _taken(clips, np.arange(len(clips.files)), strong, test, seed, notes)
    train, held = _taken(clips, rest, strong, validation / (1 - test), seed, notes)
    return Parts(train, held, tested, "a stratified split, no group in two of its three parts")


def _taken(
    clips: StrongClips,
    rows: np.ndarray,
    strong: np.ndarray,
    share: float,
    seed: int,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """(rows that stay, rows set aside): a share of those with strong labels, by groups.

    Rows with weak labels stay, but for those whose group is set aside.
    """
    telling = rows[strong[rows]]
    table = _as_clips(clips, telling)
    if table.table["group"].nunique() < 2:
        raise DataError(
            f"{clips.root}: its recordings with strong labels are of one group "
            f"({table.table['group'].iloc[0]!r}): to fit and to judge rules it takes three; pass "
            "--groups, or give the recordings a column split"
        )
    kept, aside = (telling[part] for part in split_groups(table, share, seed))
    groups = clips.files["group"].to_numpy(object).astype(str)
    weak = rows[~strong[rows]]
    free = weak[~np.isin(groups[weak], groups[aside])]
    if len(free) < len(weak):
        notes.append(
            f"{len(weak) - len(free)} recordings with weak labels are left out: others of their "
            "group are set aside"
        )
    return np.sort(np.concatenate([kept, free])), aside


def _as_clips(clips: StrongClips, rows: np.ndarray) -> Clips:
    """Recordings as clips with several labels, for what splits those."""
    files = clips.files.iloc[rows]
    table = pd.DataFrame({name: None for name in COLUMNS}, index=range(len(files)), dtype=object)
    table["path"], table["group"] = files["path"].to_numpy(), files["group"].to_numpy()
    table["label"] = pd.Series(list(files["labels"]), index=table.index, dtype=object)
    return Clips(table, "multilabel", clips.classes, clips.root, [], clips.group_source)
