"""Which splits are taken, and what is said where there are none."""

from __future__ import annotations

import pandas as pd
import pytest

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.transfer.protocol import choose_protocol

HINT = "--groups none"


def clips_of(folder, labels, groups=None, **columns):
    """A row a label; the files are empty, as nothing here is decoded."""
    paths = [folder / f"{name}.wav" for name in columns.pop("names", range(len(labels)))]
    for path in paths:
        path.touch()
    table = {"path": [str(p) for p in paths], "label": list(labels), **columns}
    return read_clips(pd.DataFrame(table), groups=groups)


def test_classes_of_one_group_are_named_with_what_could_help(tmp_path):
    clips = clips_of(tmp_path, ["dog"] * 3 + ["rain"] * 3, group=list("aaabbb"))
    with pytest.raises(DataError, match="class 'dog' .* one group only, and so has 'rain'") as told:
        choose_protocol(clips)
    assert HINT in str(told.value) and "\n" not in str(told.value)
    apart = clips_of(tmp_path, ["dog"] * 3 + ["rain"] * 3, "none", group=list("aaabbb"))
    assert len(choose_protocol(apart).folds) == 3


def test_no_advice_that_cannot_help(tmp_path):
    alone = clips_of(tmp_path, ["dog", "rain"], "none")
    with pytest.raises(DataError, match="class 'dog' has one clip only") as told:
        choose_protocol(alone)
    assert HINT not in str(told.value)
    segments = clips_of(
        tmp_path,
        ["dog", "dog", "rain", "rain"],
        names=["a", "a", "b", "b"],
        onset=[0.0, 1.0, 0.0, 1.0],
        offset=[1.0, 2.0, 1.0, 2.0],
    )
    with pytest.raises(DataError, match="class 'dog' has clips of one group only") as told:
        choose_protocol(segments)
    assert HINT not in str(told.value)


def test_groups_that_were_named_do_not_give_way_to_folds(tmp_path):
    columns = {"speaker": list("aabbccdd"), "fold": list("12121212")}
    labels = list("xyxyxyxy")
    guessed = choose_protocol(clips_of(tmp_path, labels, **columns))
    assert len(guessed.folds) == 2 and any("inferred groups" in note for note in guessed.notes)
    columns["inferred"] = columns.pop("speaker")
    with pytest.raises(DataError, match="both trained on and tested"):
        choose_protocol(clips_of(tmp_path, labels, "inferred", **columns))
