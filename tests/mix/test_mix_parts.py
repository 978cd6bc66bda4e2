"""Sources of train, valid and test: disjoint by group, by file, by content, by time."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.mix.parts import split_backgrounds, split_clips, split_files
from ossicle.mix.settings import PARTS, MixSettings
from ossicle.mix.sources import Reader, read_foreground, without_copies


def parts_of(clips, wanted=PARTS, **chosen):
    parts, notes = split_clips(clips, wanted, **chosen)
    return {name: clips.table.iloc[rows] for name, rows in parts.items()}, notes


def disjoint(parts, column):
    sets = [set(table[column]) for table in parts.values()]
    return sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize("seed", range(5))
def test_drawn_parts_keep_groups_whole_and_have_every_class(tones, seed):
    clips = read_clips(tones)
    parts, notes = parts_of(clips, seed=seed)
    assert disjoint(parts, "group")
    assert disjoint(parts, "path")
    assert sum(map(len, parts.values())) == len(clips)
    assert all(set(table["label"]) == set(clips.classes) for table in parts.values())
    assert len(parts["train"]) > 2 * len(parts["test"]) > 0
    assert notes == []
    again, _ = parts_of(clips, seed=seed)
    assert all((parts[name]["path"] == again[name]["path"]).all() for name in PARTS)


def test_seeds_draw_differently(tones):
    clips = read_clips(tones)
    tests = {tuple(split_clips(clips, PARTS, seed=seed)[0]["test"]) for seed in range(6)}
    assert len(tests) > 1


def test_named_folds(tones):
    clips = read_clips(tones, folds=r"/(\d)-/")
    parts, _ = parts_of(clips, valid_folds=["4"], test_folds=["5", "0"])
    assert {name: sorted(set(t["fold"])) for name, t in parts.items()} == {
        "train": ["1", "2", "3"],
        "valid": ["4"],
        "test": ["0", "5"],
    }
    # Valid is not named: it comes from what is left for training, by groups.
    parts, notes = parts_of(clips, test_folds=["5"])
    assert set(parts["test"]["fold"]) == {"5"}
    assert len(parts["valid"]) > 0
    assert disjoint(parts, "group")
    assert "valid drawn from the training part" in notes[0]


def test_folds_without_choice_take_the_last(tones):
    parts, notes = parts_of(read_clips(tones, folds=r"/(\d)-/"))
    assert set(parts["test"]["fold"]) == {"5"}
    assert set(parts["valid"]["fold"]) == {"4"}
    assert len(notes) == 2


def manifest(tones, **columns):
    table = read_clips(tones).table[["path", "label", "group"]].copy()
    for name, make in columns.items():
        table[name] = [make(path) for path in table["path"]]
    return table


def test_the_split_of_the_clips_is_kept(tones):
    names = {"0": "test", "1": "val"}
    table = manifest(tones, split=lambda path: names.get(Path(path).name[1], "training"))
    parts, _ = parts_of(read_clips(table))
    for path, split in zip(table["path"], table["split"], strict=True):
        part = {"test": "test", "val": "valid", "training": "train"}[split]
        assert path in set(parts[part]["path"])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"test_folds": ["9"]}, "no fold 9: the clips have 0, 1, 2, 3, 4, 5"),
        ({"test_folds": ["1"], "valid_folds": ["1"]}, "fold 1 cannot be both"),
        ({"test_folds": ["0", "1", "2"], "valid_folds": ["3", "4", "5"]}, "no clips are left"),
    ],
)
def test_folds_that_cannot_be(tones, chosen, message):
    with pytest.raises(DataError, match=message):
        split_clips(read_clips(tones, folds=r"/(\d)-/"), PARTS, **chosen)


def test_folds_are_asked_for(tones):
    with pytest.raises(DataError, match="have no folds"):
        split_clips(read_clips(tones), PARTS, test_folds=["1"])


def test_groups_that_straddle_are_refused_and_inferred_ones_give_way(tones):
    clips = read_clips(tones, folds=r"/-([AB])/", groups=r"/([a-z]\d)-/")
    with pytest.raises(DataError, match=r"group h0 is in test and train, and 18 such are"):
        split_clips(clips, ("train", "test"), test_folds=["B"])
    parts, notes = parts_of(
        read_clips(tones, folds=r"/-([AB])/"), ("train", "test"), test_folds=["B"]
    )
    assert any("give way" in note for note in notes)
    assert disjoint(parts, "path")


def test_a_file_of_segments_is_never_torn(tones):
    table = manifest(tones)
    table = pd.concat([table.assign(onset=0.0, offset=0.5), table.assign(onset=0.5, offset=1.0)])
    table["fold"] = np.where(table["onset"] == 0, "1", "2")
    clips = read_clips(table.drop(columns="group"))
    with pytest.raises(DataError, match="is in"):
        split_clips(clips, ("train", "test"), test_folds=["2"])


def test_too_few_groups(tones):
    few = read_clips(tones)
    few = few.subset([i for i, g in enumerate(few.groups()) if g[-1] in "01"])
    with pytest.raises(DataError, match="too few groups"):
        split_clips(few, PARTS)
    parts, _ = split_clips(few, ("train", "test"))
    assert len(parts["test"]) == len(parts["train"]) == 6


def test_one_part_has_all_clips(tones):
    clips = read_clips(tones)
    assert len(split_clips(clips, ["test"])[0]["test"]) == len(clips)


def test_numbers_are_refused(tones):
    table = manifest(tones)
    table["label"] = [str(i / 7) for i in range(len(table))]
    with pytest.raises(DataError, match="numbers"):
        split_clips(read_clips(table, labels="regression"), PARTS)


def test_absent_classes_are_told(tones):
    clips = read_clips(tones, folds=r"/(\d)-/")
    keep = [i for i, p in enumerate(clips.table["path"]) if "low/l5" not in p]
    _, notes = split_clips(clips.subset(keep), PARTS, valid_folds=["4"], test_folds=["5"])
    assert notes == ["test has no clips of low"]


def test_the_same_bytes_in_two_parts_stay_in_one(tones, tmp_path):
    for label in ("high", "low"):
        shutil.copytree(tones / label, tmp_path / label)
    shutil.copy(tmp_path / "high" / "h5-A.wav", tmp_path / "high" / "h0-C.wav")
    clips = read_clips(tmp_path, folds=r"/(\d)-/", groups=r"/([a-z]\d)-/")
    rows, _ = split_clips(clips, PARTS, valid_folds=["4"], test_folds=["5"])
    read, _ = read_foreground(clips, Reader(16000), MixSettings())
    parts, notes = without_copies({name: [read[i] for i in rows[name]] for name in PARTS})
    assert notes == ["left out high/h0-C.wav of train: the same file is in test"]
    sums = [{clip.sha256 for clip in parts[name]} for name in PARTS]
    assert sum(map(len, sums)) == len(set.union(*sums))
    assert list(parts) == list(PARTS)


def test_stretches_end_where_the_sound_does(tones):
    clips = read_clips(tones)
    read, notes = read_foreground(clips, Reader(16000), MixSettings(), workers=2)
    assert notes == []
    for clip in read:
        samples = soundfile.read(clip.path)[0]
        sounding = np.flatnonzero(np.abs(samples) > 1e-3)
        ((start, stop),) = clip.stretches
        assert abs(start - sounding[0]) <= 16
        assert abs(stop - sounding[-1]) <= 16


def test_what_cannot_be_used_is_named(tones, tmp_path):
    shutil.copytree(tones / "high", tmp_path / "high")
    soundfile.write(tmp_path / "high" / "silent.wav", np.zeros(9000), 16000)
    (tmp_path / "high" / "broken.wav").write_bytes(b"RIFF")
    clips = read_clips(tmp_path)
    read, notes = read_foreground(clips, Reader(16000), MixSettings())
    assert sum(clip is None for clip in read) == 2
    assert notes[0].startswith("left out high/broken.wav: ")
    assert notes[1] == "left out high/silent.wav: no sound of 0.1 s or more in it"


@pytest.mark.parametrize("many", [3, 4, 5, 17])
def test_files_are_dealt_out(many):
    files = [f"{i}.wav" for i in range(many)]
    dealt = split_files(files, PARTS, seed=3)
    assert sorted(name for own in dealt.values() for name in own) == sorted(files)
    assert min(map(len, dealt.values())) >= 1
    assert dealt["train"] == max(dealt.values(), key=len)


def test_few_backgrounds_are_cut_in_time():
    spans = split_backgrounds({"a": 100.0, "b": 10.0}, {"a": "a", "b": "b"}, PARTS, 0)
    for path, length, pause in (("a", 100.0, 1.0), ("b", 10.0, 0.5)):
        own = [span for name in PARTS for span in spans[name] if span.path == path]
        assert own[0].onset == 0
        assert own[-1].offset == pytest.approx(length)
        for before, after in pairwise(own):
            assert after.onset - before.offset == pytest.approx(pause)
        assert (own[0].offset - own[0].onset) == pytest.approx(0.6 * (length - 2 * pause))
    whole = split_backgrounds(dict.fromkeys("abcd", 5.0), {c: c for c in "abcd"}, PARTS, 0)
    assert sorted(s.path for part in whole.values() for s in part) == list("abcd")
    assert all(s.offset - s.onset == 5.0 for part in whole.values() for s in part)


def test_a_constant_part_is_no_sound(tones, tmp_path):
    shutil.copytree(tones / "high", tmp_path / "plain" / "high")
    (tmp_path / "moved" / "high").mkdir(parents=True)
    for path in (tmp_path / "plain" / "high").iterdir():
        samples = soundfile.read(path)[0]
        soundfile.write(tmp_path / "moved" / "high" / path.name, samples + 0.3, 16000)
    found = [
        [clip.stretches for clip in read_foreground(read_clips(f), Reader(16000), MixSettings())[0]]
        for f in (tmp_path / "plain", tmp_path / "moved")
    ]
    assert found[0] == found[1]
