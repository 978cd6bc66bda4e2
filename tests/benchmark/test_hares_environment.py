"""AudioSet, Birdsong, TUT18 and ESC-50, read from small trees in their official layout."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ossicle.audio import Audio, save
from ossicle.benchmark.hares_suite import audioset, birdsong, esc50, tut18
from ossicle.benchmark.hares_suite.tree import Tree
from ossicle.benchmark.task import DOMAINS, differences
from ossicle.errors import DataError

TONE = Audio(np.sin(np.arange(800, dtype=np.float32))[np.newaxis] * 0.5, 8000)


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, TONE)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def names(data, part):
    """File names of a part of the first fold, without ending."""
    paths = data.clips.table["path"].iloc[part]
    return sorted(path.rsplit("/", 1)[1].rsplit(".", 1)[0] for path in paths)


def message(read, folder):
    """The error of a reader: one line."""
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("task", [audioset.TASK, birdsong.TASK, tut18.TASK, esc50.TASK])
def test_a_task_says_what_a_user_must_know(task, tmp_path):
    assert (task.suite, task.domain) == ("hares", "environment") and task.domain in DOMAINS
    assert task.metric == ("map" if task.name == "audioset" else "accuracy")
    assert task.probe == ("mlp" if task.name == "audioset" else "linear")
    for line in (task.get, task.licence, task.source, task.title):
        assert line and "\n" not in line
    assert re.search(r"https?://\S+", task.get)
    assert "there is no such folder" in message(task.read, tmp_path / "nowhere")
    assert re.search(r"has no .*\.(csv|txt)", message(task.read, tmp_path))


# --- AudioSet ---------------------------------------------------------------------------------

CLASSES = (
    "index,mid,display_name",
    '0,/m/09x0r,"Speech"',
    '1,/m/05zppz,"Male speech, man speaking"',
    '2,/m/0k4j,"Car"',
)
HEAD = ("# Segments csv created Sun Mar  5 10:54:31 2017", "# num_ytids=2, num_segs=2")
COLUMNS = "# YTID, start_seconds, end_seconds, positive_labels"


def segments(path, *rows):
    text(path, *HEAD, COLUMNS, *(f'{video}, 30.000, 40.000, "{mids}"' for video, mids in rows))


@pytest.fixture
def audio_set(tmp_path):
    root = tmp_path / "audioset"
    text(root / "class_labels_indices.csv", *CLASSES)
    segments(
        root / "balanced_train_segments.csv",
        ("--PJHxphWEs", "/m/09x0r,/m/05zppz"),
        ("Yabcdefghij", "/m/0k4j"),
        ("gonegonegon", "/m/0k4j"),
    )
    segments(
        root / "unbalanced_train_segments.csv",
        ("_-0123456-_", "/m/0k4j"),
        ("a_b-c_d-e_f", "/m/09x0r"),
    )
    segments(root / "eval_segments.csv", ("-0RWZT-miFs", "/m/0k4j"), ("zzzzzzzzzzz", "/m/09x0r"))
    sound(root / "balanced_train" / "--PJHxphWEs.wav")
    sound(root / "balanced_train" / "Yabcdefghij_30.000_40.000.flac")
    sound(root / "unbalanced" / "part00" / "Y_-0123456-_.wav")
    sound(root / "unbalanced" / "part01" / "a_b-c_d-e_f_30000.WAV")
    sound(root / "eval" / "Y-0RWZT-miFs_30.0-40.0.wav")
    sound(root / "eval" / "zzzzzzzzzzz_30_40.wav")
    # Neither is a clip of the set.
    sound(root / "eval" / "notinthetab_30_40.wav")
    sound(root / "eval" / "gonegonegon_mixture.wav")
    return root


def test_audioset_finds_clips_by_every_way_of_naming_them(audio_set):
    data = audioset.read_audioset(audio_set)
    (fold,) = data.folds
    assert names(data, fold.train) == [
        *("--PJHxphWEs", "Y_-0123456-_", "Yabcdefghij_30.000_40.000", "a_b-c_d-e_f_30000")
    ]
    assert names(data, fold.test) == ["Y-0RWZT-miFs_30.0-40.0", "zzzzzzzzzzz_30_40"]
    assert len(fold.valid) == 0
    table = data.clips.table
    assert sorted(table["group"]) == sorted(
        [
            *("--PJHxphWEs", "Yabcdefghij", "_-0123456-_", "a_b-c_d-e_f"),
            *("-0RWZT-miFs", "zzzzzzzzzzz"),
        ]
    )
    assert all(group in path for group, path in zip(table["group"], table["path"], strict=True))
    assert table["onset"].isna().all() and table["offset"].isna().all()


def test_audioset_labels_are_display_names_in_the_order_of_the_table(audio_set):
    clips = audioset.read_audioset(audio_set).clips
    assert clips.task == "multilabel"
    assert clips.classes == ("Speech", "Male speech, man speaking", "Car")
    of = dict(zip(clips.groups(), clips.y().tolist(), strict=True))
    assert of["--PJHxphWEs"] == [1, 1, 0]
    assert of["-0RWZT-miFs"] == of["Yabcdefghij"] == of["_-0123456-_"] == [0, 0, 1]
    assert of["zzzzzzzzzzz"] == [1, 0, 0]


def test_audioset_counts_what_is_gone_by_table(audio_set):
    notes = audioset.read_audioset(audio_set).notes
    gone = "1 of 3 clips of balanced_train_segments.csv are not there, such as gonegonegon"
    assert notes == [gone]
    (audio_set / "unbalanced_train_segments.csv").unlink()
    data = audioset.read_audioset(audio_set)
    assert [len(part) for part in data.folds[0]] == [2, 0, 2]
    alone = "unbalanced_train_segments.csv is not there: learnt from the other training table alone"
    assert data.notes == [alone, gone]


def test_audioset_counts_are_compared_with_the_published_ones(audio_set):
    # Gemmeke et al. 2017 have 2,084,320 clips in all; the headers of the tables have the rest.
    published = audioset.TASK.published
    assert published["train"] + published["test"] == 2_084_320
    assert differences(audioset.read_audioset(audio_set), published) == [
        "train: 4, published 2,063,949",
        "test: 2, published 20,371",
        "classes: 3, published 527",
    ]


def test_audioset_learns_from_no_video_that_it_tests(audio_set):
    segments(
        audio_set / "balanced_train_segments.csv",
        ("--PJHxphWEs", "/m/09x0r"),
        ("-0RWZT-miFs", "/m/09x0r"),
    )
    data = audioset.read_audioset(audio_set)
    assert "-0RWZT-miFs" not in data.clips.groups()[data.folds[0].train]
    assert data.notes == ["1 videos named twice are used once, such as -0RWZT-miFs"]


def test_audioset_tables_without_hash_marks_and_a_folder_deeper(audio_set, tmp_path):
    text(
        audio_set / "eval_segments.csv",
        "YTID,start_seconds,end_seconds,positive_labels",
        '-0RWZT-miFs,30,40,"/m/0k4j"',
    )
    outer = tmp_path / "outer"
    outer.mkdir()
    audio_set.rename(outer / "AudioSet")
    data = audioset.read_audioset(outer)
    assert [len(part) for part in data.folds[0]] == [4, 0, 1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("zzzzzzzzzzz, 30.000, 40.000, /m/09x0r,/m/0k4j", "labels in quotes"),
        ("zzzzzzzzzzz, 30.000", "labels in quotes"),
        ('short, 30.000, 40.000, "/m/09x0r"', "'short'"),
        ("zzzzzzzzzzz, 30.000, 40.000, /m/09x0r,/m/0k4j,/m/05zppz", "line 5"),
        ('zzzzzzzzzzz, 30.000, 40.000, "/m/00000"', "'/m/00000'"),
    ],
)
def test_audioset_names_a_broken_row(audio_set, line, says):
    text(audio_set / "eval_segments.csv", *HEAD, COLUMNS, '-0RWZT-miFs, 30, 40, "/m/0k4j"', line)
    error = message(audioset.read_audioset, audio_set)
    assert "eval_segments.csv" in error and says in error


@pytest.mark.parametrize("name", ["class_labels_indices.csv", "eval_segments.csv"])
def test_audioset_names_the_table_that_is_not_there(audio_set, name):
    (audio_set / name).unlink()
    assert f"has no {name}" in message(audioset.read_audioset, audio_set)


def test_audioset_without_training_tables_or_clips(audio_set):
    for path in audio_set.glob("eval/*"):
        path.unlink()
    assert "no clip is there to test on" in message(audioset.read_audioset, audio_set)
    for path in sorted(audio_set.rglob("*")):
        if path.suffix.lower() in (".wav", ".flac"):
            path.unlink()
    assert "none of the 7 clips is there" in message(audioset.read_audioset, audio_set)
    for name in ("balanced", "unbalanced"):
        (audio_set / f"{name}_train_segments.csv").unlink()
    assert "has no balanced_train_segments.csv" in message(audioset.read_audioset, audio_set)


def test_audioset_classes_of_one_name_stay_two(audio_set):
    text(audio_set / "class_labels_indices.csv", *CLASSES, '3,/t/dd00001,"Car"')
    classes = audioset.read_audioset(audio_set).clips.classes
    assert classes[2:] == ("Car (/m/0k4j)", "Car (/t/dd00001)")


# --- what lies below a folder -----------------------------------------------------------------


def test_a_recording_is_found_at_its_place_first_then_anywhere(tmp_path):
    for path in ("a/x.wav", "audio/X.FLAC", "audio_16k/x.wav", ".hidden/y.wav", "__MACOSX/y.wav"):
        sound(tmp_path / path)
    tree = Tree(tmp_path)
    assert tree.place(["audio_16k/x.wav", "b/x.wav", "c/y.wav"]) == [
        *("audio_16k/x.wav", "a/x.wav", "c/y.wav")
    ]


def test_a_recording_in_capitals_or_another_format_is_found(tmp_path):
    sound(tmp_path / "AUDIO" / "1-2-A-3.FLAC")
    assert Tree(tmp_path).place(["audio/1-2-a-3.wav"]) == ["AUDIO/1-2-A-3.FLAC"]
    assert Tree(tmp_path).place(["audio/1-2-A-3.wav"]) == ["AUDIO/1-2-A-3.FLAC"]


def test_a_loop_of_links_ends(tmp_path):
    sound(tmp_path / "a" / "x.wav")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert Tree(tmp_path).audio == [("a", ["x.wav"])]


def test_the_table_that_lies_least_deep_is_read(tmp_path):
    text(tmp_path / "a" / "b" / "T.csv", "x", "deep")
    text(tmp_path / "z" / "t.CSV", "x", "shallow")
    tree = Tree(tmp_path)
    assert list(tree.read("t.csv", ["x"])["x"]) == ["shallow"]
    assert tree.find("t.csv", ["b"]) == tmp_path / "a" / "b" / "T.csv"
    with pytest.raises(DataError, match="no column 'y'"):
        tree.read("t.csv", ["x", "y"])


# --- ESC-50 -----------------------------------------------------------------------------------

ESC = "filename,fold,target,category,esc10,src_file,take"


@pytest.fixture
def esc(tmp_path):
    root = tmp_path / "ESC-50-master"
    rows = []
    for fold in range(1, 6):
        for target, category in ((0, "dog"), (14, "chirping_birds"), (49, "hand_saw")):
            for take in "AB":
                name = f"{fold}-{fold}00{target}-{take}-{target}.wav"
                rows.append(f"{name},{fold},{target},{category},True,{fold}00{target},{take}")
                sound(root / "audio" / name)
    text(root / "meta" / "esc50.csv", ESC, *rows)
    return root


def test_esc50_has_the_published_classes_in_order():
    # Numbers and names as in rows of meta/esc50.csv.
    known = {
        **{0: "dog", 1: "rooster", 2: "pig", 3: "cow", 4: "frog", 5: "cat", 6: "hen"},
        **{7: "insects", 8: "sheep", 9: "crow", 10: "rain", 11: "sea_waves", 12: "crackling_fire"},
        **{14: "chirping_birds", 15: "water_drops", 16: "wind", 17: "pouring_water"},
        **{18: "toilet_flush", 19: "thunderstorm", 20: "crying_baby", 21: "sneezing"},
        **{22: "clapping", 23: "breathing", 24: "coughing", 25: "footsteps", 26: "laughing"},
        **{27: "brushing_teeth", 28: "snoring", 29: "drinking_sipping", 30: "door_wood_knock"},
        **{31: "mouse_click", 32: "keyboard_typing", 33: "door_wood_creaks", 34: "can_opening"},
        **{35: "washing_machine", 36: "vacuum_cleaner", 37: "clock_alarm", 38: "clock_tick"},
        **{39: "glass_breaking", 40: "helicopter", 41: "chainsaw", 42: "siren", 43: "car_horn"},
        **{44: "engine", 45: "train", 46: "church_bells", 47: "airplane", 48: "fireworks"},
        **{49: "hand_saw", 13: "crickets"},
    }
    assert dict(enumerate(esc50.CLASSES)) == known


def test_esc50_has_five_folds_that_part_no_recording(esc):
    data = esc50.read_esc50(esc)
    assert [len(fold.test) for fold in data.folds] == [6] * 5 and data.notes == []
    groups = data.clips.groups()
    for number, fold in enumerate(data.folds, 1):
        assert all(name.startswith(f"{number}-") for name in names(data, fold.test))
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert sorted([*fold.train, *fold.test]) == list(range(30)) and len(fold.valid) == 0
    assert data.clips.table["group"].nunique() == 15
    assert differences(data, esc50.TASK.published) == ["clips: 30, published 2,000"]


def test_esc50_a_folder_deeper_in_flac_and_capitals(esc):
    (esc / "audio" / "1-1000-A-0.wav").unlink()
    sound(esc / "Audio2" / "1-1000-A-0.FLAC")
    (esc / "meta" / "esc50.csv").rename(esc / "meta" / "ESC50.csv")
    data = esc50.read_esc50(esc.parent)
    assert len(data.clips) == 30 and names(data, data.folds[0].test)[0] == "1-1000-A-0"


def test_esc50_tells_what_is_missing(esc):
    (esc / "audio" / "3-30014-B-14.wav").unlink()
    data = esc50.read_esc50(esc)
    assert [len(fold.test) for fold in data.folds] == [6, 6, 5, 6, 6]
    assert data.notes == ["1 of 30 clips are not there, such as audio/3-30014-B-14.wav"]
    for path in (esc / "audio").iterdir():
        path.unlink()
    assert "none of the 30 files is there" in message(esc50.read_esc50, esc)
    (esc / "meta" / "esc50.csv").unlink()
    assert "has no esc50.csv" in message(esc50.read_esc50, esc)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1-1-A-0.wav,6,0,dog,True,1,A", "fold '6'"),
        ("1-1-A-0.wav,1,0,wolf,True,1,A", "'wolf' is not among the 50 classes"),
        ("1-1-A-0.wav,1,1,dog,True,1,A", "dog does not have the number '1'"),
        ("1-1-A-0.wav,1,0,dog", "line 2 has 4 fields"),
    ],
)
def test_esc50_names_a_broken_row(esc, row, says):
    text(esc / "meta" / "esc50.csv", ESC, row)
    assert says in message(esc50.read_esc50, esc)


def test_esc50_tells_of_a_recording_in_two_folds(esc):
    path = esc / "meta" / "esc50.csv"
    path.write_text(path.read_text().replace(",20014,", ",10014,"))
    assert esc50.read_esc50(esc).notes == [
        "the official split has 1 of 14 recordings in more than one fold (1 and 2), such as 10014"
    ]


# --- TUT Urban Acoustic Scenes 2018 -----------------------------------------------------------


@pytest.fixture
def tut(tmp_path):
    root = tmp_path / "TUT-urban-acoustic-scenes-2018-development"
    lists = {"train": [], "evaluate": []}
    for scene in ("airport", "metro", "street_traffic"):
        for place, part in ((0, "train"), (1, "train"), (2, "evaluate")):
            for segment in (10, 11):
                name = f"audio/{scene}-barcelona-{scene[0]}{place}-{segment}-a.wav"
                name = name.replace(f"-{scene[0]}{place}-", f"-{len(scene)}{place}-")
                lists[part].append(f"{name}\t{scene}")
                sound(root / name)
    for part, lines in lists.items():
        text(root / "evaluation_setup" / f"fold1_{part}.txt", *lines)
    text(root / "meta.csv", "filename\tscene_label\tidentifier\tsource_label")
    return root


def test_tut18_has_the_ten_scenes():
    # As the set's README lists them.
    scenes = "airport shopping_mall metro_station street_pedestrian public_square street_traffic"
    assert list(tut18.SCENES) == f"{scenes} tram bus metro park".split()


def test_tut18_tests_new_places(tut):
    data = tut18.read_tut18(tut)
    (fold,) = data.folds
    assert [len(part) for part in fold] == [12, 0, 6] and data.notes == []
    groups = data.clips.groups()
    assert set(groups[fold.test]) == {"barcelona-72", "barcelona-52", "barcelona-142"}
    assert not set(groups[fold.train]) & set(groups[fold.test])
    assert data.clips.classes == tut18.SCENES
    assert set(data.clips.table["label"]) == {"airport", "metro", "street_traffic"}
    assert all(f"/{row.label}-" in row.path for row in data.clips.table.itertuples())
    assert differences(data, tut18.TASK.published) == ["clips: 18, published 8,640"]


def test_tut18_tells_what_is_missing(tut):
    (tut / "audio" / "metro-barcelona-52-10-a.wav").unlink()
    data = tut18.read_tut18(tut.parent)
    assert [len(part) for part in data.folds[0]] == [12, 0, 5]
    assert len(data.notes) == 1 and "metro-barcelona-52-10-a.wav" in data.notes[0]
    (tut / "evaluation_setup" / "fold1_evaluate.txt").unlink()
    assert "has no fold1_evaluate.txt" in message(tut18.read_tut18, tut)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("audio/metro-paris-1-1-a.wav", "line 1 is not"),
        ("audio/metro-paris-1-1-a.wav metro", "line 1 is not"),
        ("audio/metro-paris.wav\tmetro", "line 1 is not"),
        ("audio/beach-paris-1-1-a.wav\tbeach", "'beach' is none of the ten"),
        ("audio/metro-paris-1-1-a.wav\ttram", "'tram' is not that of the name"),
        ("audio/metro-barcelona-50-10-a.wav\tmetro", "metro-barcelona-50-10-a.wav twice"),
    ],
)
def test_tut18_names_a_broken_line(tut, line, says):
    text(tut / "evaluation_setup" / "fold1_evaluate.txt", line)
    assert says in message(tut18.read_tut18, tut)


def test_tut18_tells_of_a_place_in_both_parts(tut):
    name = "audio/metro-barcelona-50-12-a.wav"
    sound(tut / name)
    text(tut / "evaluation_setup" / "fold1_evaluate.txt", f"{name}\tmetro")
    assert tut18.read_tut18(tut).notes == [
        "the official split has 1 of 6 places in more than one part (test and train), such as "
        "barcelona-50"
    ]


# --- Birdsong ---------------------------------------------------------------------------------

SETS = {
    "BirdVox-DCASE-20k": (
        "BirdVoxDCASE20k_csvpublic.csv",
        {"00053d90-e4b": 1, "000db435-a40": 0},
    ),
    "ff1010bird": ("ff1010bird_metadata_2018.csv", {"64486": 0, "2525": 1, "165746": 0}),
    "warblrb10k": ("warblrb10k_public_metadata_2018.csv", {"759808e5-f824": 1, "1d94fc4a-1c63": 1}),
}


@pytest.fixture
def birds(tmp_path):
    root = tmp_path / "birdsong"
    for name, (table, labels) in SETS.items():
        rows = [f"{item},{name},{value}" for item, value in labels.items()]
        text(root / table, "itemid,datasetid,hasbird", *rows)
        for item in labels:
            sound(root / name / "wav" / f"{item}.wav")
    return root


def test_birdsong_tests_each_set_by_the_others(birds):
    data = birdsong.read_birdsong(birds)
    assert [names(data, fold.test) for fold in data.folds] == [
        sorted(labels) for _, labels in SETS.values()
    ]
    groups = data.clips.groups()
    for fold in data.folds:
        assert sorted([*fold.train, *fold.test]) == list(range(7)) and len(fold.valid) == 0
        assert not set(groups[fold.train]) & set(groups[fold.test])
    y = dict(zip(groups, data.clips.y(), strict=True))
    assert y == {f"{n}/{item}": v for n, (_, labels) in SETS.items() for item, v in labels.items()}
    assert data.clips.classes == ("no bird", "bird")


def test_birdsong_counts_are_compared_with_the_published_ones(birds):
    data = birdsong.read_birdsong(birds)
    assert data.notes == [
        "BirdVox-DCASE-20k: 2 clips, published 20,000",
        "ff1010bird: 3 clips, published 7,690",
        "warblrb10k: 2 clips, published 8,000",
    ]
    assert sum(count for _, count in birdsong.TABLES.values()) == birdsong.TASK.published["clips"]
    assert differences(data, birdsong.TASK.published) == ["clips: 7, published 35,690"]


def test_birdsong_with_one_set_less_or_two(birds):
    (birds / SETS["warblrb10k"][0]).unlink()
    data = birdsong.read_birdsong(birds)
    assert [len(fold.test) for fold in data.folds] == [2, 3]
    assert "warblrb10k is not there: two folds instead of three" in data.notes
    (birds / SETS["ff1010bird"][0]).unlink()
    error = message(birdsong.read_birdsong, birds)
    assert "only BirdVox-DCASE-20k is there" in error and "ff1010bird or warblrb10k" in error
    (birds / SETS["BirdVox-DCASE-20k"][0]).unlink()
    assert "has no table with the columns" in message(birdsong.read_birdsong, birds)


def test_birdsong_tables_of_any_name_beside_other_tables(birds):
    (birds / SETS["ff1010bird"][0]).rename(birds / "ff1010bird" / "metadata.csv")
    text(birds / "notes.csv", "a,b", "1,2")
    text(birds / "copy.csv", "itemid,datasetid,hasbird", "2525,ff1010bird,1")
    (birds / "ff1010bird" / "wav" / "64486.wav").unlink()
    data = birdsong.read_birdsong(birds)
    assert len(data.clips) == 6
    assert "1 clips that a second table names are used once" in data.notes
    assert any("1 of 7 clips are not there" in note and "64486" in note for note in data.notes)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2525,ff1010bird,", "2525: hasbird is ''"),
        ("2525,ff1010bird,2", "2525: hasbird is '2'"),
        ("2525,Chernobyl,1", "'Chernobyl' is none of"),
        ("2525,ff1010bird", "line 2 has 2 fields"),
    ],
)
def test_birdsong_names_a_broken_row(birds, row, says):
    text(birds / SETS["ff1010bird"][0], "itemid,datasetid,hasbird", row)
    assert says in message(birdsong.read_birdsong, birds)
