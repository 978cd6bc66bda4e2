"""NSynth and MagnaTagATune, read from small trees in their official layout."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from ossicle.audio import Audio, save
from ossicle.benchmark.hares_suite import magnatagatune, nsynth
from ossicle.benchmark.task import differences
from ossicle.errors import DataError

TONE = Audio(np.sin(np.arange(800, dtype=np.float32))[np.newaxis] * 0.5, 8000)


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, TONE)


def message(read, folder):
    """The error of a reader: one line."""
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("task", [*nsynth.TASKS, magnatagatune.TASK], ids=lambda task: task.name)
def test_a_task_says_what_a_user_must_know(task, tmp_path):
    assert (task.suite, task.domain, task.probe) == ("hares", "music", "linear")
    assert task.metric == ("map" if task.name == "magnatagatune" else "accuracy")
    for line in (task.get, task.licence, task.source, task.title):
        assert line and "\n" not in line
    assert re.search(r"https?://\S+", task.get)
    assert "there is no such folder" in message(task.read, tmp_path / "nowhere")
    assert re.search(r"has no .*\.(csv|json)", message(task.read, tmp_path))


# --- NSynth -----------------------------------------------------------------------------------

# Note -> number of the family, as examples.json has it.
NOTES = {
    "train": {
        "bass_synthetic_033-022-050": 0,
        "bass_synthetic_033-100-075": 0,
        "vocal_acoustic_000-060-127": 10,
        "synth_lead_synthetic_009-060-025": 9,
    },
    "valid": {"keyboard_electronic_001-021-127": 4, "guitar_acoustic_010-108-025": 3},
    "test": {"keyboard_electronic_001-060-075": 4, "flute_acoustic_002-060-100": 2},
}
FAMILY_NAMES = [
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
    *("organ", "reed", "string", "synth_lead", "vocal"),
]


def examples(path, notes, **changed):
    entries = {
        name: {
            "note": 201034 + i,
            "note_str": name,
            "sample_rate": 16000,
            "qualities": [0, 1, 0],
            "qualities_str": ["dark"],
            "instrument_str": name[:-8],
            "pitch": int(name[-7:-4]),
            "velocity": int(name[-3:]),
            "instrument_family": family,
            "instrument_family_str": FAMILY_NAMES[family],
        }
        | changed
        for i, (name, family) in enumerate(notes.items())
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


@pytest.fixture
def notes(tmp_path):
    root = tmp_path / "nsynth"
    for part, of_part in NOTES.items():
        examples(root / f"nsynth-{part}" / "examples.json", of_part)
        for name in of_part:
            sound(root / f"nsynth-{part}" / "audio" / f"{name}.wav")
    return root


def test_nsynth_has_the_published_families_and_pitches():
    assert list(nsynth.FAMILIES) == FAMILY_NAMES and len(FAMILY_NAMES) == 11
    assert list(nsynth.PITCHES) == [str(midi) for midi in range(128)]
    # 305,979 notes in all, as the set's page has it.
    for task, classes in zip(nsynth.TASKS, (11, 128), strict=True):
        published = dict(task.published)
        assert published.pop("classes") == classes
        assert sum(published.values()) == 305_979


@pytest.mark.parametrize("read", [nsynth.read_nsynth_instrument, nsynth.read_nsynth_pitch])
def test_nsynth_keeps_the_official_parts(notes, read):
    data = read(notes)
    (fold,) = data.folds
    table = data.clips.table
    for rows, (part, of_part) in zip(fold, NOTES.items(), strict=True):
        paths = sorted(str(notes / f"nsynth-{part}" / "audio" / f"{name}.wav") for name in of_part)
        assert sorted(table["path"].iloc[rows]) == paths
    groups = data.clips.groups()
    assert not set(groups[fold.train]) & {*groups[fold.valid], *groups[fold.test]}
    assert len(set(groups[fold.train])) == 3 and "bass_synthetic_033" in groups


def test_nsynth_labels(notes):
    families = nsynth.read_nsynth_instrument(notes).clips
    pitches = nsynth.read_nsynth_pitch(notes).clips
    everything = {name: family for of_part in NOTES.values() for name, family in of_part.items()}
    assert (len(families.classes), len(pitches.classes)) == (11, 128)
    for clips, expected in (
        (families, everything),
        (pitches, {name: int(name.split("-")[-2]) for name in everything}),
    ):
        stems = [path.rsplit("/", 1)[1].removesuffix(".wav") for path in clips.table["path"]]
        assert dict(zip(stems, clips.y().tolist(), strict=True)) == expected
    assert set(families.table["label"]) == {
        *("bass", "vocal", "synth_lead", "keyboard", "guitar", "flute")
    }


def test_nsynth_tells_of_shared_instruments_and_of_classes_without_a_test(notes):
    assert nsynth.read_nsynth_instrument(notes).notes == [
        "the official split has 1 of 6 instruments in more than one part (test and valid), such "
        "as keyboard_electronic_001",
        "no test note is of 3 classes that are learnt, such as bass, synth_lead, vocal",
    ]
    # 22 and 100 are learnt; 21 and 108 are only in the validation part.
    assert nsynth.read_nsynth_pitch(notes).notes[1] == (
        "no test note is of 2 classes that are learnt, such as 22, 100"
    )


def test_nsynth_counts_are_compared_with_the_published_ones(notes):
    data = nsynth.read_nsynth_pitch(notes)
    assert differences(data, nsynth.TASKS[1].published) == [
        "train: 4, published 289,205",
        "valid: 2, published 12,678",
        "test: 2, published 4,096",
    ]


def test_nsynth_a_folder_deeper_in_flac_and_missing_notes(notes, tmp_path):
    (notes / "nsynth-train").rename(notes / "NSynth-Train")
    audio = notes / "NSynth-Train" / "audio"
    (audio / "bass_synthetic_033-022-050.wav").unlink()
    (audio / "bass_synthetic_033-100-075.wav").unlink()
    sound(audio / "bass_synthetic_033-100-075.flac")
    data = nsynth.read_nsynth_instrument(tmp_path)
    assert [len(part) for part in data.folds[0]] == [3, 2, 2]
    assert "1 of 8 clips are not there" in data.notes[-1]
    assert "bass_synthetic_033-022-050.wav" in data.notes[-1]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_nsynth_names_the_table_that_is_not_there(notes, part):
    (notes / f"nsynth-{part}" / "examples.json").unlink()
    error = message(nsynth.read_nsynth_instrument, notes)
    assert f"has no nsynth-{part}/examples.json" in error


def test_nsynth_names_what_is_broken(notes):
    path = notes / "nsynth-valid" / "examples.json"
    for entry, read, says in (
        ({"pitch": 128}, nsynth.read_nsynth_pitch, "pitch is 128, not 0 to 127"),
        ({"pitch": "60"}, nsynth.read_nsynth_pitch, "pitch is '60', not"),
        ({"pitch": True}, nsynth.read_nsynth_pitch, "pitch is True, not"),
        ({"instrument_family": 11}, nsynth.read_nsynth_instrument, "is 11, not 0 to 10"),
    ):
        examples(path, {"guitar_acoustic_010-108-025": 3}, **entry)
        error = message(read, notes)
        assert says in error and "guitar_acoustic_010-108-025" in error and str(path) in error
    for text, says in (
        ('{"guitar_acoustic_010-108-025": {"note": 1}}', "instrument_family is not there"),
        ('{"guitar_acoustic_010-108-025": {"pit', "is no JSON"),
        ("{}", "holds no notes"),
        ("[1]", "holds no notes"),
    ):
        path.write_text(text, encoding="utf-8")
        assert says in message(nsynth.read_nsynth_instrument, notes)


# --- MagnaTagATune ----------------------------------------------------------------------------

CLIPS = {
    "0/ame-ame-01-one-0-29.mp3": ["guitar", "rock"],
    "0/ame-ame-01-one-29-58.mp3": ["choral"],
    "b/ame-second_album-05-two-0-29.mp3": [],
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3": ["guitar"],
    "c/lvx_nova-lvx_nova-01-contimune-30-59.mp3": ["no vocals", "slow"],
    "d/bach-cantatas-01-aria-0-29.mp3": ["classical", "opera"],
    "e/bach-cantatas_2-02--59-88.mp3": ["classical"],
    "f/ame-third-03-three-0-29.mp3": ["guitar"],
}


def annotations(path, clips, **changed):
    # 188 columns as published: the fifty in no order, among others that are not used.
    others = [f"other {i}" for i in range(138)]
    tags = sorted([*magnatagatune.TAGS, *others])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["clip_id", *tags, "mp3_path"])
        for i, (mp3, given) in enumerate(clips.items()):
            values = {tag: str(int(tag in given)) for tag in tags} | dict.fromkeys(others, "1")
            writer.writerow([i + 2, *({**values, **changed}[tag] for tag in tags), mp3])


@pytest.fixture
def tunes(tmp_path):
    root = tmp_path / "magnatagatune"
    annotations(root / "annotations_final.csv", CLIPS)
    for mp3 in CLIPS:
        # Converted copies: the decoder's own formats are another test's business.
        sound((root / "mp3" / mp3).with_suffix(".wav"))
    return root


def test_magnatagatune_has_the_fifty_tags():
    # By falling count, as the models trained on them list them.
    text = """guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano,
    ambient, beat, violin, vocal, synth, female, indian, opera, male, singing, vocals, no vocals,
    harpsichord, loud, quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo, man,
    classic, choir, voice, new age, dance, male voice, female vocal, beats, harp, cello, no voice,
    weird, country, metal, female voice, choral"""
    assert [tag.strip() for tag in text.split(",")] == list(magnatagatune.TAGS)
    assert len(set(magnatagatune.TAGS)) == magnatagatune.TASK.published["classes"] == 50


def test_magnatagatune_splits_by_folder(tunes):
    data = magnatagatune.read_magnatagatune(tunes)
    (fold,) = data.folds
    folders = [path.split("/")[-2] for path in data.clips.table["path"]]
    assert [sorted({folders[row] for row in part}) for part in fold] == [
        *(["0", "b"], ["c"], ["d", "e", "f"])
    ]
    groups = data.clips.groups()
    assert sorted(set(groups)) == [
        *("ame-ame", "ame-second_album", "ame-third", "bach-cantatas", "bach-cantatas_2"),
        "lvx_nova-lvx_nova",
    ]
    assert not set(groups[fold.train]) & set(groups[fold.test])


def test_magnatagatune_labels(tunes):
    clips = magnatagatune.read_magnatagatune(tunes).clips
    assert clips.task == "multilabel" and clips.classes == magnatagatune.TAGS
    by_stem = {mp3.split("/")[1].removesuffix(".mp3"): tags for mp3, tags in CLIPS.items()}
    stems = [path.rsplit("/", 1)[1].removesuffix(".wav") for path in clips.table["path"]]
    for stem, row in zip(stems, clips.y(), strict=True):
        assert sorted(clips.classes[i] for i in np.flatnonzero(row)) == sorted(by_stem[stem])


def test_magnatagatune_leaves_out_the_three_broken_files(tunes):
    data = magnatagatune.read_magnatagatune(tunes)
    assert len(data.clips) == 7
    assert not any("norine_braun" in path for path in data.clips.table["path"])
    # 18,709, 1,825 and 5,329 with them, which makes 25,863; they lie in training folders.
    published = magnatagatune.TASK.published
    assert [published[part] for part in ("train", "valid", "test")] == [18_709 - 3, 1_825, 5_329]
    assert [mp3[:2] for mp3 in magnatagatune.BROKEN] == ["6/", "8/", "9/"]
    assert differences(data, published) == [
        "train: 3, published 18,706",
        "valid: 1, published 1,825",
        "test: 3, published 5,329",
    ]


def test_magnatagatune_tells_of_what_lies_in_several_parts(tunes):
    artists = (
        "the official split has 1 of 3 artists in more than one part (test and train), such as ame"
    )
    assert magnatagatune.read_magnatagatune(tunes).notes == [artists]
    split = {**CLIPS, "f/ame-ame-01-one-58-87.mp3": []}
    annotations(tunes / "annotations_final.csv", split)
    sound(tunes / "mp3" / "f" / "ame-ame-01-one-58-87.wav")
    albums = artists.replace("1 of 3 artists", "1 of 6 albums").replace("as ame", "as ame-ame")
    assert magnatagatune.read_magnatagatune(tunes).notes == [albums, artists]


def test_magnatagatune_tells_what_is_missing(tunes):
    (tunes / "mp3" / "d" / "bach-cantatas-01-aria-0-29.wav").unlink()
    data = magnatagatune.read_magnatagatune(tunes.parent)
    assert [len(part) for part in data.folds[0]] == [3, 1, 2]
    assert data.notes[-1].startswith("1 of 7 clips are not there")
    (tunes / "annotations_final.csv").unlink()
    assert "has no annotations_final.csv" in message(magnatagatune.read_magnatagatune, tunes)


def test_magnatagatune_names_what_is_broken(tunes):
    path = tunes / "annotations_final.csv"
    for value in ("", "2"):
        annotations(path, CLIPS, sitar=value)
        error = message(magnatagatune.read_magnatagatune, tunes)
        assert f"the tag 'sitar' is {value!r}, not 0 or 1" in error and "0/ame-ame-01" in error
    for mp3 in ("g/ame-ame-01-one-0-29.mp3", "0/ame.mp3", "ame-ame-01-one-0-29.mp3", ""):
        annotations(path, {mp3: []})
        assert f"{mp3!r} is not FOLDER/" in message(magnatagatune.read_magnatagatune, tunes)
    annotations(path, CLIPS)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], '"4"\t"0"']), encoding="utf-8")
    assert "line 4 has 2 fields" in message(magnatagatune.read_magnatagatune, tunes)
    path.write_text("\n".join(line.replace('"sitar"', '"zither"') for line in lines))
    assert "no column 'sitar'" in message(magnatagatune.read_magnatagatune, tunes)
