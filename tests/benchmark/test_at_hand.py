"""Sets that the user keeps: their folds and groups, and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ossicle.benchmark.open_suite.at_hand import AT_HAND
from ossicle.benchmark.task import DOMAINS, TaskData, differences
from ossicle.errors import DataError


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def check_folds(data: TaskData) -> None:
    groups = data.clips.groups()
    tested = np.concatenate([fold.test for fold in data.folds])
    assert len(np.unique(tested)) == len(tested)
    for fold in data.folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert not len(fold.valid)


@pytest.fixture
def esc10(tmp_path: Path) -> Path:
    names = [
        f"esc10/{label}/{fold}-{recording + fold}-{take}.ogg"
        for label, recording in (("dog_bark", 100), ("rain", 200))
        for fold in (1, 2, 3)
        for take in "AB"
    ]
    fill(tmp_path, names)
    return tmp_path


def test_esc10_keeps_its_folds_and_recordings(esc10: Path) -> None:
    data = AT_HAND["esc10"].read(esc10)
    check_folds(data)
    assert len(data.folds) == 3
    for fold in data.folds:
        names = [Path(path).name for path in data.clips.table["path"].iloc[fold.test]]
        assert len({name[0] for name in names}) == 1
        assert len(names) == 4
    assert sorted(set(data.clips.groups())) == ["101", "102", "103", "201", "202", "203"]


def test_the_sets_own_folder_will_do(esc10: Path) -> None:
    below = AT_HAND["esc10"].read(esc10).clips.table
    itself = AT_HAND["esc10"].read(esc10 / "esc10").clips.table
    assert list(below["path"]) == list(itself["path"])


def test_fsdd_leaves_one_speaker_out(tmp_path: Path) -> None:
    speakers = ("george", "jackson", "lucas")
    fill(tmp_path, [f"fsdd/{d}/{d}_{who}_{i}.wav" for d in "089" for who in speakers for i in "01"])
    data = AT_HAND["fsdd"].read(tmp_path)
    check_folds(data)
    tested = [set(data.clips.groups()[fold.test]) for fold in data.folds]
    assert sorted(map(sorted, tested)) == [[name] for name in speakers]
    assert data.clips.classes == ("0", "8", "9")


def test_snoring_keeps_blocks_of_numbers_together(tmp_path: Path) -> None:
    # "snoring/snoring" is a class, not the set.
    fill(tmp_path, [f"snoring/snoring/1_{i}.wav" for i in range(100)])
    fill(tmp_path, [f"snoring/no_snoring/0_{i}.wav" for i in range(100)])
    for folder in (tmp_path, tmp_path / "snoring"):
        data = AT_HAND["snoring"].read(folder)
        check_folds(data)
        assert data.clips.classes == ("no_snoring", "snoring")
        assert len(set(data.clips.groups())) == 10


@pytest.mark.parametrize("name", sorted(AT_HAND))
def test_what_is_missing_is_named_with_how_to_get_it(name: str, tmp_path: Path) -> None:
    task = AT_HAND[name]
    with pytest.raises(DataError) as error:
        task.read(tmp_path)
    assert f"{tmp_path}: {name} is not there" in str(error.value)
    assert task.get in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(AT_HAND))
def test_the_real_set_is_as_published(name: str, shared_data: Path) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"needs {name} in {shared_data}")
    task = AT_HAND[name]
    data = task.read(shared_data)
    check_folds(data)
    assert differences(data, task.published) == []
    assert task.suite == "open"
    assert task.domain in DOMAINS
    folds = {"esc10": 5, "fsdd": 4, "speech_commands_6": 1, "urbansound_2folds": 2, "snoring": 5}
    assert len(data.folds) == folds[name]
