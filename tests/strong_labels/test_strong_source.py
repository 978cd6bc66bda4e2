"""Recordings with their labels, from folders and tables."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.strong import ENDINGS, KINDS, StrongClips, read_strong, write_events
from ossicle.errors import DataError
from ossicle.events import event_table


@pytest.fixture
def root(tmp_path):
    """Two recordings of 1 s, a third in a folder."""
    folder = tmp_path / "sounds"
    (folder / "yard").mkdir(parents=True)
    for name in ("a.wav", "b.wav", "yard/c.wav"):
        soundfile.write(folder / name, np.zeros(800, np.int16), 800)
    return folder


def rows(clips: StrongClips) -> list[list]:
    prefix = f"{clips.root}/"
    table = clips.events[["file", "onset", "offset", "label"]].values.tolist()
    return [[file.removeprefix(prefix), *rest] for file, *rest in table]


def recordings(clips: StrongClips) -> dict[str, tuple]:
    prefix = f"{clips.root}/"
    return {
        row["path"].removeprefix(prefix): (row["kind"], row["labels"])
        for row in clips.files.to_dict("records")
    }


# --- label files beside the recordings ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_label_files_beside_the_recordings(root, kind):
    found = {
        "a": [{"file": "a.wav", "onset": 0.25, "offset": 0.5, "label": "dog"}],
        "yard/c": [
            {"file": "c.wav", "onset": 0.1, "offset": 0.3, "label": "rain: heavy"},
            {"file": "c.wav", "onset": 0.2, "offset": 0.9, "label": "dog"},
        ],
    }
    for name, events in found.items():
        write_events(event_table(events), root / f"{name}{ENDINGS[kind]}", kind=kind)
    (root / f"b{ENDINGS[kind]}").write_text("")
    clips = read_strong(root)
    assert rows(clips) == [
        ["a.wav", 0.25, 0.5, "dog"],
        ["yard/c.wav", 0.1, 0.3, "rain: heavy"],
        ["yard/c.wav", 0.2, 0.9, "dog"],
    ]
    assert recordings(clips) == {
        "a.wav": ("strong", ["dog"]),
        "b.wav": ("strong", []),
        "yard/c.wav": ("strong", ["dog", "rain: heavy"]),
    }
    assert clips.classes == ("dog", "rain: heavy")
    assert clips.group_source == "each recording by itself"
    assert clips.groups().tolist() == ["a.wav", "b.wav", "yard/c.wav"]
    assert clips.files["split"].isna().all()
    assert clips.notes == []
    assert len(clips) == 3
    assert all(clips.files["path"].map(lambda p: p.startswith(str(root))))


@pytest.mark.parametrize(
    "name",
    ["a.Table.1.selections.txt", "a.selections.txt", "a.txt", "a.wav.txt", "a.labels.txt", "a.tsv"],
)
def test_names_of_label_files(root, name):
    if "selections" in name:
        (root / name).write_text("Begin Time (s)\tEnd Time (s)\tSpecies\n0.5\t0.75\tdog\n")
    else:
        (root / name).write_text("0.5\t0.75\tdog\n")
    clips = read_strong(root)
    assert rows(clips) == [["a.wav", 0.5, 0.75, "dog"]]
    (note,) = clips.notes
    assert note.startswith("2 recordings without a label file left out: b.wav, yard/c.wav")


def test_the_longest_name_is_the_recording_s(root):
    shutil.copy(root / "a.wav", root / "a.b.wav")
    (root / "a.txt").write_text("0\t0.1\tshort\n")
    (root / "a.b.txt").write_text("0\t0.1\tlong\n")
    assert rows(read_strong(root)) == [["a.b.wav", 0.0, 0.1, "long"], ["a.wav", 0.0, 0.1, "short"]]


def test_several_tables_of_raven_are_one_other_files_refused(root):
    head = "Begin Time (s)\tEnd Time (s)\tSpecies\n"
    (root / "a.Table.1.selections.txt").write_text(f"{head}0.5\t0.75\tdog\n")
    (root / "a.Table.2.selections.txt").write_text(f"{head}0.1\t0.2\tcat\n")
    assert rows(read_strong(root)) == [["a.wav", 0.1, 0.2, "cat"], ["a.wav", 0.5, 0.75, "dog"]]
    (root / "a.json").write_text('{"about": "no labels"}')
    with pytest.raises(DataError, match=r"a\.wav: has 3 label files \(a\.Table\.1"):
        read_strong(root)
    assert len(read_strong(root, kind="raven").events) == 2


def test_labels_in_another_folder(root, tmp_path):
    (tmp_path / "labels/yard").mkdir(parents=True)
    (tmp_path / "labels/a.txt").write_text("0\t0.1\tdog\n")
    (tmp_path / "labels/yard/c.txt").write_text("0\t0.2\tcat\n")
    (root / "a.txt").write_text("0\t1\tnot this one\n")
    clips = read_strong(root, labels=tmp_path / "labels")
    assert rows(clips) == [["a.wav", 0.0, 0.1, "dog"], ["yard/c.wav", 0.0, 0.2, "cat"]]


def test_a_label_file_that_names_others(root):
    line = "SPEAKER {} 1 0.1 0.2 <NA> <NA> x <NA> <NA>\n"
    (root / "a.rttm").write_text(line.format("a") + line.format("b"))
    clips = read_strong(root)
    assert rows(clips) == [["a.wav", 0.1, 0.3, "x"]]
    assert "names 2 recordings; those of a.wav are taken" in clips.notes[0]
    (root / "a.rttm").write_text(line.format("old"))
    clips = read_strong(root)
    assert rows(clips) == [["a.wav", 0.1, 0.3, "x"]]
    assert "names old; taken for the labels of a.wav" in clips.notes[0]
    (root / "a.rttm").write_text(line.format("x") + line.format("y"))
    with pytest.raises(DataError, match=r"names 2 recordings, but not a\.wav"):
        read_strong(root)


def test_folders_without_labels_or_sounds(root, tmp_path):
    with pytest.raises(DataError, match=r"has no labels for a\.wav, b\.wav, yard/c\.wav; put a"):
        read_strong(root)
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", root / "a.wav", tmp_path / "none"):
        with pytest.raises(DataError) as told:
            read_strong(source)
        assert str(source) in str(told.value)
        assert "\n" not in str(told.value)


# --- tables ---------------------------------------------------------------------------------------

TABLE = (
    "file,onset,offset,label,split,group,snr_db\n"
    "a.wav,0.5,0.75,dog,train,dog park,3.5\n"
    "a.wav,0.1,0.2,cat,train,dog park,-1\n"
    "b.wav,,,,valid,,\n"
    "yard/c.wav,,,dog;rain,test,yard,\n"
)


@pytest.mark.parametrize("name", ["events.csv", "labels.csv"])
def test_a_table_in_the_folder(root, name):
    (root / name).write_text(TABLE)
    clips = read_strong(root)
    assert rows(clips) == [["a.wav", 0.1, 0.2, "cat"], ["a.wav", 0.5, 0.75, "dog"]]
    assert recordings(clips) == {
        "a.wav": ("strong", ["cat", "dog"]),
        "b.wav": ("strong", []),
        "yard/c.wav": ("weak", ["dog", "rain"]),
    }
    assert clips.files["split"].tolist() == ["train", "validation", "test"]
    assert clips.groups().tolist() == ["dog park", "file b.wav", "yard"]
    assert clips.group_source == "column 'group'"
    assert clips.classes == ("cat", "dog", "rain")
    assert clips.events["snr_db"].tolist() == ["-1", "3.5"]
    assert clips.presence().tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    same = read_strong(root / name)
    pd.testing.assert_frame_equal(same.files, clips.files)
    pd.testing.assert_frame_equal(same.events, clips.events)


def test_a_table_elsewhere_counts_from_the_source(root, tmp_path):
    (tmp_path / "labels.tsv").write_text(TABLE.replace(",", "\t"))
    clips = read_strong(root, labels=tmp_path / "labels.tsv")
    assert list(recordings(clips)) == ["a.wav", "b.wav", "yard/c.wav"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_written_table_returns(root, ending):
    (root / "events.csv").write_text(TABLE)
    clips = read_strong(root)
    clips.to_table(root / f"again{ending}")
    again = read_strong(root / f"again{ending}")
    pd.testing.assert_frame_equal(again.files, clips.files)
    pd.testing.assert_frame_equal(again.events, clips.events)
    assert again.classes == clips.classes
    assert again.content() == clips.content()


def test_a_frame_counts_from_the_work_folder(root, monkeypatch):
    monkeypatch.chdir(root)
    frame = pd.DataFrame(
        {
            "file": ["yard/c.wav", "a.wav"],
            "onset": [0.0, math.nan],
            "offset": [1.0, None],
            "label": ["dog", None],
        }
    )
    clips = read_strong(frame)
    assert recordings(clips) == {"yard/c.wav": ("strong", ["dog"]), "a.wav": ("strong", [])}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        *(("yard/c.wav", False), ("yard/c", False), ("c.wav", False), ("c", False)),
        *(("yard\\c.wav", False), ("./yard/c.wav", False), ("D:\\birds\\c.wav", True)),
        *(("/elsewhere/yard/c.wav", True), ("/elsewhere/c.wav", True), ("sounds/yard/c.wav", True)),
    ],
)
def test_recordings_are_found_by_what_is_left_of_their_names(root, written, told):
    (root / "events.csv").write_text(f"file,onset,offset,label\n{written},0,1,dog\n")
    clips = read_strong(root)
    assert rows(clips) == [["yard/c.wav", 0.0, 1.0, "dog"]]
    ends = [f"recordings found by the end of their paths: {written} is yard/c.wav"]
    assert clips.notes[:-1] == (ends if told else [])
    assert clips.notes[-1].startswith("2 recordings that events.csv does not name left out: a.wav")


def test_names_that_mean_two_recordings_are_refused(root):
    shutil.copy(root / "yard/c.wav", root / "c.flac")
    (root / "x.csv").write_text("file,onset,offset,label\nyard/c,0,1,dog\nc,0,1,cat\n")
    assert len(read_strong(root / "x.csv")) == 2
    shutil.copy(root / "a.wav", root / "a.flac")
    (root / "x.csv").write_text("file,onset,offset,label\na,0,1,dog\n")
    with pytest.raises(DataError, match=r"a: could be any of a\.flac, a\.wav"):
        read_strong(root / "x.csv")


def test_two_names_for_one_recording_are_refused_where_either_is_a_guess(root):
    head = "file,onset,offset,label\n"
    (root / "x.csv").write_text(f"{head}/one/b.wav,0,1,dog\n/two/b.wav,0,1,cat\n")
    with pytest.raises(DataError, match=r"/one/b\.wav and /two/b\.wav: would both be b\.wav"):
        read_strong(root / "x.csv")
    (root / "x.csv").write_text(f"{head}b.wav,0,1,dog\nb,0,1,cat\n")
    assert len(read_strong(root / "x.csv")) == 1


def test_a_name_in_a_folder_is_not_taken_for_one_in_another(root):
    (root / "pond").mkdir()
    (root / "x.csv").write_text("file,onset,offset,label\npond/c.wav,0,1,dog\na.wav,0,1,dog\n")
    clips = read_strong(root / "x.csv")
    assert list(recordings(clips)) == ["a.wav"]
    assert clips.notes == ["1 recordings named do not exist, left out: pond/c.wav"]


def test_recordings_that_are_not_there_are_named(root):
    line = "file,onset,offset,label\n{},0,1,dog\ngone.wav,0,1,dog\n"
    (root / "x.csv").write_text(line.format("a.wav"))
    assert read_strong(root / "x.csv").notes == [
        "1 recordings named do not exist, left out: gone.wav"
    ]
    (root / "x.csv").write_text(line.format("lost.wav"))
    with pytest.raises(DataError, match=r"none of the 2 recordings named exists: lost\.wav, gone"):
        read_strong(root / "x.csv")


def test_folders_are_the_split_where_all_are(tmp_path):
    for name in ("train/a", "valid/x/b", "test/c"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(f"{path}.wav", np.zeros(80, np.int16), 800)
        path.with_name(f"{path.name}.txt").write_text("0\t0.1\tdog\n")
    clips = read_strong(tmp_path / "set")
    by_name = dict(zip(clips.files["path"].map(lambda p: p[-5]), clips.files["split"], strict=True))
    assert by_name == {"a": "train", "b": "validation", "c": "test"}
    assert clips.notes == ["the folders test, train, valid are taken as the split"]
    for name in ("train", "test"):
        text = f"file,onset,offset,label\n{'a' if name == 'train' else 'c'}.wav,0,0.1,{name}\n"
        (tmp_path / "set" / name / "events.csv").write_text(text)
    clips = read_strong(tmp_path / "set")
    assert rows(clips) == [
        ["test/c.wav", 0.0, 0.1, "test"],
        ["train/a.wav", 0.0, 0.1, "train"],
    ]


def test_rows_that_contradict_each_other(root):
    head = "file,onset,offset,label,split,group\n"
    (root / "x.csv").write_text(f"{head}a.wav,0,1,dog,train,g\na.wav,,,cat,train,g\n")
    with pytest.raises(DataError, match=r"a\.wav: has events and, without times, 'cat'"):
        read_strong(root / "x.csv")
    (root / "x.csv").write_text(f"{head}a.wav,0,1,dog,train,g\na.wav,0,1,cat,test,g\n")
    with pytest.raises(DataError, match=r"a\.wav: has several values of 'split': test, train"):
        read_strong(root / "x.csv")
    (root / "x.csv").write_text(f"{head}a.wav,0,1,dog,train,g\nb.wav,0,1,cat,test,g\n")
    assert "1 groups are in several splits, such as 'g'" in read_strong(root / "x.csv").notes[0]


def test_overlapping_events_of_a_label_stay_and_are_told(root):
    text = "0\t0.9\tdog\n0.1\t0.2\tdog\n0.3\t0.4\tdog\n0.9\t1\tdog\n0.5\t0.6\tcat\n"
    (root / "a.txt").write_text(text)
    (root / "b.txt").write_text("0\t1\tdog\n")
    clips = read_strong(root)
    assert len(clips.events) == 6
    note = "2 events overlap one of the same label, kept: the first 'dog' at 0.1 s of a.wav"
    assert note in clips.notes


def test_groups_can_be_chosen(root):
    (root / "events.csv").write_text(TABLE.replace("group,snr_db", "site,snr_db"))
    assert read_strong(root).groups().tolist() == ["a.wav", "b.wav", "yard/c.wav"]
    assert read_strong(root, groups="/^([a-z]+)/").groups().tolist() == ["a", "b", "yard"]
    assert read_strong(root, groups="none").groups().tolist() == ["a.wav", "b.wav", "yard/c.wav"]
    with pytest.raises(DataError, match="--groups who: is not a column"):
        read_strong(root, groups="who")
    (root / "events.csv").write_text(
        TABLE.replace("group,snr_db", "site,snr_db").replace(",,\n", ",z,\n")
    )
    clips = read_strong(root, groups="site")
    assert clips.groups().tolist() == ["dog park", "z", "yard"]
    assert clips.files["site"].tolist() == ["dog park", "z", "yard"]


# --- what is asked of them ------------------------------------------------------------------------


def test_subsets_keep_classes_and_the_order_that_is_asked_for(root):
    (root / "events.csv").write_text(
        "file,onset,offset,label\na.wav,0,1,dog\na.wav,0.5,1,cat\nb.wav,,,\nyard/c.wav,0,0.5,cat\n"
    )
    clips = read_strong(root)
    part = clips.subset([2, 0])
    assert list(recordings(part)) == ["yard/c.wav", "a.wav"]
    assert rows(part) == [
        ["yard/c.wav", 0.0, 0.5, "cat"],
        ["a.wav", 0.0, 1.0, "dog"],
        ["a.wav", 0.5, 1.0, "cat"],
    ]
    assert part.classes == clips.classes
    assert list(recordings(clips.subset(np.array([False, True, False])))) == ["b.wav"]
    assert clips.subset([1]).events.empty
    with pytest.raises(DataError, match="2 entries for 3 recordings"):
        clips.subset([True, False])


def test_events_past_the_end_are_told_when_lengths_are_asked_for(root):
    (root / "a.txt").write_text("0\t1\tdog\n0.5\t1.25\tcat\n")
    clips = read_strong(root)
    assert clips.durations() == {str(root / "a.wav"): 1.0}
    late = clips.past_end()
    assert late[["offset", "label", "duration"]].values.tolist() == [[1.25, "cat", 1.0]]
    assert clips.past_end({str(root / "a.wav"): 2.0}).empty


def test_counts(root):
    (root / "events.csv").write_text(TABLE)
    told = read_strong(root).describe()
    assert told["n_files"] == 3
    assert (told["n_strong"], told["n_weak"], told["n_without_events"]) == (2, 1, 1)
    assert (told["n_events"], told["n_groups"]) == (2, 3)
    assert told["splits"] == {"test": 1, "train": 1, "validation": 1}
    assert told["classes"]["dog"] == {"events": 1, "seconds": 0.25, "files": 1, "weak_files": 1}
    assert told["classes"]["rain"] == {"events": 0, "seconds": 0.0, "files": 0, "weak_files": 1}


def test_the_checksum_is_of_labels_times_and_sounds(root, tmp_path):
    (root / "a.txt").write_text("0\t1\tdog\n0.5\t0.75\tcat\n")
    first = read_strong(root).content()
    shutil.copytree(root, tmp_path / "moved")
    assert read_strong(tmp_path / "moved").content() == first
    (root / "a.txt").write_text("0.5\t0.75\tcat\n0\t1\tdog\n")
    assert read_strong(root).content() == first
    (root / "a.txt").write_text("0.5\t0.75\tcat\n0\t0.99\tdog\n")
    assert read_strong(root).content() != first
    (tmp_path / "moved/a.wav").write_bytes((root / "a.wav").read_bytes()[:-2])
    assert read_strong(tmp_path / "moved").content() != first


def test_weak_labels_that_cannot_be_written(root):
    (root / "weak.tsv").write_text("filename\tevent_labels\na.wav\tx;y,z\n")
    clips = read_strong(root, labels=root / "weak.tsv")
    assert recordings(clips) == {"a.wav": ("weak", ["x;y", "z"])}
    with pytest.raises(DataError, match="the weak label 'x;y' holds ';'"):
        clips.to_table(root / "out.csv")
    assert not (root / "out.csv").exists()
