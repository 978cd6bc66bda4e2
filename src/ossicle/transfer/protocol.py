"""Which clips are learnt from and which are reported on: one rule, told to the user in words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.datasets.folds import (
    Folds,
    TooFewGroupsError,
    check_folds,
    make_folds,
    predefined_folds,
    predefined_split,
    usable_folds,
)
from ossicle.errors import DataError


@dataclass
class Protocol:
    """The splits of an evaluation.

    Attributes:
        folds: (train_index, test_index) pairs; no clip is tested twice.
        text: what they are, one sentence.
        groups: (n,) group of each clip.
        group_source: where the groups come from.
        notes: what the user should know.
    """

    folds: Folds
    text: str
    groups: np.ndarray
    group_source: str
    notes: list[str] = field(default_factory=list)

    @property
    def tested(self) -> np.ndarray:
        """Rows that are reported on, ascending."""
        return np.sort(np.concatenate([test for _, test in self.folds]))


def choose_protocol(clips: Clips, *, n_folds: int = 5, random_state: int = 0) -> Protocol:
    """The data's own folds or split where it has them, else grouped, stratified folds.

    Groups that the caller named must not straddle the folds; groups that were only inferred give
    way to the data's own folds, and a note says so.

    Raises:
        DataError: groups straddle the folds, or there are too few to make any.
    """
    groups, notes = clips.groups(), []
    table = clips.table
    if table["fold"].notna().any():
        folds = predefined_folds(list(table["fold"]))
        text = f"{len(folds)} folds of the data: each is reported on by a probe fitted on the rest"
    elif table["split"].notna().any():
        split = predefined_split(list(table["split"]))
        # Penalties are chosen inside the training part, so validation clips are for fitting too.
        train = np.sort(np.concatenate([split.train, split.validation]))
        folds, text = [(train, split.test)], f"the data's own split: {split.note}"
    else:
        wanted, note = _usable_folds(clips, n_folds)
        notes += [note] if note else []
        folds = make_folds(
            clips.y(),
            groups,
            wanted,
            task=clips.task,
            random_state=random_state,
            rare="train",
            classes=clips.classes,
        )
        untested = len(clips) - sum(len(test) for _, test in folds)
        if untested:
            clip = "1 clip is" if untested == 1 else f"{untested} clips are"
            notes.append(f"{clip} only learnt from: the class comes from one group alone")
        text = f"{len(folds)}-fold cross-validation, stratified, no group on both sides of a split"
        return Protocol(folds, text, groups, clips.group_source, notes)
    try:
        check_folds(folds, groups)
    except DataError as error:
        if not inferred(clips):
            raise
        notes.append(f"the inferred groups do not fit the data's folds and are not used: {error}")
        return Protocol(folds, text, np.arange(len(clips)).astype(str), "each clip", notes)
    if len(np.unique(groups)) == len(groups) and len(folds) > 1:
        notes.append(
            "the interval is over single clips; if each fold is a speaker, a site or a day of its "
            "own, pass the same as --groups, and the interval will say what few of them allow"
        )
    return Protocol(folds, text, groups, clips.group_source, notes)


def inferred(clips: Clips) -> bool:
    """Whether the groups were guessed, not named by the caller or by a column called group."""
    return clips.group_source.startswith("inferred")


def _usable_folds(clips: Clips, n_folds: int) -> tuple[int, str | None]:
    """`usable_folds` of the clips; where there are too few groups, with what could help."""
    groups = clips.groups()
    try:
        return usable_folds(
            clips.y(), groups, n_folds, task=clips.task, rare="train", classes=clips.classes
        )
    except TooFewGroupsError as error:
        if len(np.unique(groups)) == clips.table["path"].nunique():
            raise
        raise TooFewGroupsError(f"{error}; --groups none takes each file for itself") from error
