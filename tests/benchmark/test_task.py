"""Tables of clips as tasks: parts, folds, what is missing, targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ossicle.audio import Audio, save
from ossicle.benchmark.task import Fold, differences, from_rows, targets
from ossicle.errors import DataError


@pytest.fixture
def rows(tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.wav", Audio(np.full((1, 400), 0.1, np.float32), 8000))
    return pd.DataFrame(
        {
            "path": [f"{n}.wav" for n in range(6)],
            "label": list("abcabc"),
            "group": list("uvwxyz"),
        }
    )


def test_parts_become_one_fold(rows, tmp_path):
    parts = ["train", "train", "valid", "test", "train", "test"]
    data = from_rows(rows.assign(part=parts), tmp_path)
    assert [part.tolist() for part in data.folds[0]] == [[0, 1, 4], [2], [3, 5]]
    assert data.clips.classes == ("a", "b", "c")


def test_each_fold_is_tested_once(rows, tmp_path):
    data = from_rows(rows.assign(fold=list("112233")), tmp_path)
    tested = np.concatenate([fold.test for fold in data.folds])
    assert sorted(tested.tolist()) == list(range(6))
    assert all(not set(fold.train) & set(fold.test) for fold in data.folds)


def test_missing_files_are_told_and_rows_keep_their_parts(rows, tmp_path):
    (tmp_path / "1.wav").unlink()
    parts = ["train", "train", "valid", "test", "train", "test"]
    data = from_rows(rows.assign(part=parts), tmp_path)
    assert data.notes == ["1 of 6 clips are not there, such as 1.wav"]
    groups = data.clips.groups()
    assert [groups[part].tolist() for part in data.folds[0]] == [["u", "y"], ["w"], ["x", "z"]]


def test_given_folds_and_given_classes_are_kept(rows, tmp_path):
    fold = Fold(np.array([0, 1]), np.array([2]), np.array([3]))
    data = from_rows(rows, tmp_path, folds=[fold], classes=("c", "b", "a", "d"))
    assert data.clips.classes == ("c", "b", "a", "d")
    assert data.clips.y().tolist() == [2, 1, 0, 2, 1, 0]
    published = {"clips": 6, "classes": 5, "train": 2, "valid": 3}
    assert differences(data, published) == ["classes: 4, published 5", "valid: 1, published 3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": ["train"] * 6}, "left to test"),
        ({"part": ["test"] * 6}, "left to learn"),
        ({"part": ["train"] * 5 + ["dev"]}, "'dev' is none of"),
        ({"part": ["train"] * 5 + ["test"], "path": [f"x{n}.wav" for n in range(6)]}, "none of"),
    ],
)
def test_what_is_no_task_is_refused(rows, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        from_rows(rows.assign(**change), tmp_path)


def test_a_label_that_is_no_class_is_refused(rows, tmp_path):
    with pytest.raises(DataError, match="'c' is not among the 2 classes"):
        from_rows(rows.assign(part=["train"] * 5 + ["test"]), tmp_path, classes=("a", "b"))


def test_targets_of_several_labels_are_those_of_the_clips_in_bytes(rows, tmp_path):
    labels = [["a"], ["a", "b"], [], ["c"], ["b"], ["a", "b", "c"]]
    some = rows.assign(label=labels, part=["train"] * 4 + ["test"] * 2)
    data = from_rows(some, tmp_path, task="multilabel")
    found = targets(data.clips)
    assert found.dtype == np.uint8
    assert found.tolist() == data.clips.y().tolist()
    assert found.tolist()[1] == [1, 1, 0]
