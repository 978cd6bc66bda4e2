"""The speech sets of HARES, each on a small tree in the layout of its archives."""

from __future__ import annotations

import hashlib
import random
import wave
from pathlib import Path

import numpy as np
import pytest

from ossicle.benchmark.hares_suite import fluent_speech, speech_commands, voxceleb1, voxforge
from ossicle.benchmark.hares_suite.fluent_speech import read_fluent_speech
from ossicle.benchmark.hares_suite.speech_commands import (
    read_speech_commands_v1,
    read_speech_commands_v2,
    which_set,
)
from ossicle.benchmark.hares_suite.voxceleb1 import read_voxceleb1
from ossicle.benchmark.hares_suite.voxforge import read_voxforge, split_users
from ossicle.benchmark.task import DOMAINS, Task, TaskData
from ossicle.errors import DataError

TEN = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"]
THIRTY = [
    *TEN,
    *["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    *["bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"],
]
FIVE_NEW = ["backward", "forward", "follow", "learn", "visual"]
# Of the official test archive v0.02, folder _unknown_.
TESTED = (
    *("a4383927", "85d2ac4b", "82b99576", "f292725f"),
    *("0c40e715", "5828dfa2", "f17d21b5", "220ee1ef"),
)


def sound(path: Path, seconds: float = 0.01, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = random.Random(str(path)).randbytes(2 * round(seconds * rate))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return path


def part_of(data: TaskData) -> dict[str, tuple[str, str, str]]:
    """Path below the root (or its last two names) -> (part, label, group)."""
    table, fold = data.clips.table, data.folds[0]
    where = {row: name for name, rows in zip(fold._fields, fold, strict=True) for row in rows}
    assert sorted(where) == list(range(len(table))), "each clip lies in one part"
    return {
        "/".join(Path(path).parts[-2:]): (where[i], label, group)
        for i, (path, label, group) in enumerate(
            zip(table["path"], table["label"], table["group"], strict=True)
        )
    }


def groups_are_apart(data: TaskData) -> bool:
    groups = data.clips.groups()
    parts = [set(groups[part]) for part in data.folds[0]]
    return not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


@pytest.mark.parametrize(
    "task", [*speech_commands.TASKS, fluent_speech.TASK, voxceleb1.TASK, voxforge.TASK]
)
def test_rows_of_the_suite(task: Task):
    assert (task.suite, task.domain, task.metric, task.probe) == (
        *("hares", "speech", "accuracy", "linear"),
    )
    assert task.domain in DOMAINS
    for text in (task.title, task.get, task.licence, task.source):
        assert text
        assert "\n" not in text


# --- Speech Commands ---------------------------------------------------------------------------


def speakers(part: str, count: int) -> list[str]:
    """Hashes whose part, by the README of the archives written down again, is the wanted one."""
    found = []
    for i in range(10_000):
        name = f"{i:08x}"
        share = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 2**27 * (100 / (2**27 - 1))
        if {"valid": share < 10, "test": 10 <= share < 20, "train": share >= 20}[part]:
            found.append(name)
        if len(found) == count:
            return found
    raise AssertionError


def archive(base: Path, words: list[str], suffix: str = ".wav") -> Path:
    """Three speakers a part say every word twice; six noises."""
    lists: dict[str, list[str]] = {"valid": [], "test": [], "train": []}
    for part in lists:
        for word in words:
            for who in speakers(part, 3):
                for i in range(2):
                    sound(base / word / f"{who}_nohash_{i}{suffix}")
                    lists[part].append(f"{word}/{who}_nohash_{i}.wav")
    (base / "validation_list.txt").write_text("\n".join(lists["valid"]) + "\n")
    (base / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    for name in ("running_tap", "white_noise", "dude_miaowing"):
        sound(base / "_background_noise_" / f"{name}{suffix}", 2.6)
    (base / "_background_noise_" / "README.md").write_text("noises")
    return base


def test_archive(base: Path, other: list[str]) -> Path:
    """As published: names of other words stand before the speaker, with the suffix twice."""
    for word in TEN:
        for who in speakers("test", 2):
            sound(base / word / f"{who}_nohash_0.wav")
    for word in other:
        sound(base / "_unknown_" / f"{word}_{speakers('test', 1)[0]}_nohash_0.wav.wav")
    for i in (104, 1035, 1047):
        sound(base / "_silence_" / f"{i}.wav")
    return base


test_archive.__test__ = False  # type: ignore[attr-defined]


def test_parts_by_hash_are_the_published_ones():
    assert {which_set(f"{who}_nohash_0.wav") for who in TESTED} == {"test"}
    for part in ("train", "valid", "test"):
        for who in speakers(part, 20):
            assert which_set(f"bed/{who}_nohash_3.wav") == part
    names = [f"{i:08x}_nohash_0.wav" for i in range(4000)]
    shares = [np.mean([which_set(name) == part for name in names]) for part in ("valid", "test")]
    assert np.allclose(shares, 0.1, atol=0.02)
    assert {which_set(name, 0, 100) for name in names} == {"test"}


def test_twelve_classes(tmp_path):
    archive(tmp_path / "speech_commands_v0.01", THIRTY)
    test_archive(tmp_path / "speech_commands_test_set_v0.01", ["bird", "dog", "wow"])
    data = read_speech_commands_v1(tmp_path)
    assert data.clips.classes == (*TEN, "_silence_", "_unknown_")
    found = part_of(data)
    labels = data.clips.table["label"].to_numpy(object)
    count = {
        part: {name: int((labels[rows] == name).sum()) for name in data.clips.classes}
        for part, rows in zip(data.folds[0]._fields, data.folds[0], strict=True)
    }
    # 41,600 samples: pieces begin at 0, 8,000, ... below 25,600.
    for part, silent in (("train", 2 * 4), ("valid", 4)):
        assert count[part] == {**dict.fromkeys(TEN, 6), "_silence_": silent, "_unknown_": 20 * 6}
    assert count["test"] == {**dict.fromkeys(TEN, 2), "_silence_": 3, "_unknown_": 3}
    assert groups_are_apart(data)
    who = speakers("test", 1)[0]
    assert found[f"_unknown_/bird_{who}_nohash_0.wav.wav"] == ("test", "_unknown_", who)
    assert found["_background_noise_/running_tap.wav"][0] == "valid"
    table = data.clips.table
    tap = table[table["path"].str.endswith("running_tap.wav")]
    assert tap["onset"].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert (tap["offset"] - tap["onset"] == 1.0).all()
    assert table["onset"].isna().sum() == len(table) - 12
    assert "archive v0.01" in data.notes
    assert "test: 26, published 3,081" in data.notes
    assert not any("hash" in note for note in data.notes)


def test_twelve_classes_of_the_later_archive(tmp_path):
    """What HARES has counted; the test archive lies beside the set's folder."""
    archive(tmp_path / "sc", [*THIRTY, *FIVE_NEW])
    test_archive(tmp_path / "speech_commands_test_set_v0.02", ["visual"])
    data = read_speech_commands_v1(tmp_path / "sc")
    assert "archive v0.02" in data.notes
    assert any(note.endswith("published 85,511") for note in data.notes)
    labels = data.clips.table["label"].to_numpy(object)
    assert (labels[data.folds[0].train] == "_unknown_").sum() == 25 * 6


def test_each_version_finds_its_own_where_both_are(tmp_path):
    for version, words in (("v0.01", THIRTY), ("v0.02", [*THIRTY, *FIVE_NEW])):
        archive(tmp_path / f"speech_commands_{version}", words)
        test_archive(tmp_path / f"speech_commands_test_set_{version}", ["dog"])
    first, second = read_speech_commands_v1(tmp_path), read_speech_commands_v2(tmp_path)
    paths = first.clips.table["path"]
    assert paths.str.contains("v0.01").all()
    assert not second.clips.table["path"].str.contains("v0.01|test_set").any()


def test_thirty_five_words(tmp_path):
    archive(tmp_path, [*THIRTY, *FIVE_NEW])
    data = read_speech_commands_v2(tmp_path)
    assert data.clips.classes == tuple(sorted([*THIRTY, *FIVE_NEW]))
    assert len(data.clips.classes) == 35
    assert [len(part) for part in data.folds[0]] == [35 * 6] * 3
    assert groups_are_apart(data)
    assert not data.clips.table["path"].str.contains("_background_noise_").any()
    assert data.notes == []


def test_copies_in_another_format_and_missing_files(tmp_path):
    base = archive(tmp_path / "down" / "copies", [*THIRTY, *FIVE_NEW])
    for path in (base / "yes").iterdir():
        path.rename(path.with_suffix(".flac"))  # read by name alone here
    lost = base / "no" / f"{speakers('test', 1)[0]}_nohash_1.wav"
    lost.unlink()
    moved = base / "go" / f"{speakers('train', 1)[0]}_nohash_0.wav"
    with (base / "testing_list.txt").open("a") as file:
        file.write(f"go/{moved.name}\n")
    data = read_speech_commands_v2(tmp_path / "down")
    assert (data.clips.table["label"] == "yes").sum() == 18
    assert f"1 of 630 clips are not there, such as no/{lost.name}" in data.notes
    assert any(note.startswith("1 clips lie in another part than the hash") for note in data.notes)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("main/validation_list.txt", "validation_list.txt is not there: unpack"),
        ("main/testing_list.txt", "testing_list.txt is not there: unpack"),
        ("main/_background_noise_", "_background_noise_: is not there: unpack"),
        ("test", "the test archive is not there: unpack http://download"),
    ],
)
def test_what_is_missing_is_said(tmp_path, gone, told):
    archive(tmp_path / "main", ["yes", "bed"])
    test_archive(tmp_path / "test", ["bed"])
    (tmp_path / gone).rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(DataError, match=told) as error:
        read_speech_commands_v1(tmp_path)
    assert "\n" not in str(error.value)


def test_the_first_archive_has_no_35_words(tmp_path):
    archive(tmp_path, THIRTY[:2])
    with pytest.raises(DataError, match=r"that is archive v0\.01; get .*v0\.02"):
        read_speech_commands_v2(tmp_path)


# --- Fluent Speech Commands --------------------------------------------------------------------


def fluent(base: Path, nested: str = "", suffix: str = ".wav") -> Path:
    base = base / nested
    (base / "data").mkdir(parents=True)
    intents = [("activate", "lights", "kitchen"), ("change language", "none", "none")]
    for part, who in (("train", "2BqVo8kVB2Skwgyb"), ("valid", "4BrX8aDqK2cLZRYl"), ("test", "x")):
        lines = [",path,speakerId,transcription,action,object,location"]
        for i, (action, thing, place) in enumerate(intents):
            name = f"{part}-452c-11e9-{i}"
            sound(base / "wavs" / "speakers" / who / f"{name}{suffix}")
            lines.append(
                f'{i},wavs/speakers/{who}/{name}.wav,{who},"Well, do it",{action},{thing},{place}'
            )
        (base / "data" / f"{part}_data.csv").write_text("\n".join(lines) + "\n")
    return base


INTENTS = """
activate|lamp|none activate|lights|bedroom activate|lights|kitchen activate|lights|none
activate|lights|washroom activate|music|none bring|juice|none bring|newspaper|none
bring|shoes|none bring|socks|none change_language|Chinese|none change_language|English|none
change_language|German|none change_language|Korean|none change_language|none|none
deactivate|lamp|none deactivate|lights|bedroom deactivate|lights|kitchen deactivate|lights|none
deactivate|lights|washroom deactivate|music|none decrease|heat|bedroom decrease|heat|kitchen
decrease|heat|none decrease|heat|washroom decrease|volume|none increase|heat|bedroom
increase|heat|kitchen increase|heat|none increase|heat|washroom increase|volume|none
""".replace("_", " ").split()


def test_intents(tmp_path):
    assert [i.count("|") for i in fluent_speech.INTENTS] == [2] * 31
    fluent(tmp_path, "fluent_speech_commands_dataset", ".ogg")
    data = read_fluent_speech(tmp_path)
    wanted = " ".join(INTENTS).replace("change language", "change_language").split()
    assert [name.replace(" ", "_") for name in data.clips.classes] == wanted
    found = part_of(data)
    assert len(found) == 6
    assert found["2BqVo8kVB2Skwgyb/train-452c-11e9-0.ogg"] == (
        *("train", "activate|lights|kitchen", "2BqVo8kVB2Skwgyb"),
    )
    assert found["x/test-452c-11e9-1.ogg"] == ("test", "change language|none|none", "x")
    assert groups_are_apart(data)
    assert data.notes == []


def test_what_fluent_lacks_is_said(tmp_path):
    base = fluent(tmp_path)
    (base / "wavs/speakers/x/test-452c-11e9-0.wav").unlink()
    notes = read_fluent_speech(tmp_path).notes
    assert notes == ["1 of 6 clips are not there, such as wavs/speakers/x/test-452c-11e9-0.wav"]
    table = base / "data/valid_data.csv"
    text = table.read_text()
    table.write_text(text.replace("speakerId", "who"))
    with pytest.raises(DataError, match=r"valid_data\.csv: has no column speakerId"):
        read_fluent_speech(tmp_path)
    table.write_text(text.replace("activate,lights,kitchen", "activate,lights,cellar"))
    with pytest.raises(DataError, match=r"lights\|cellar' is not among the 31 classes"):
        read_fluent_speech(tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"valid_data\.csv: is not there: unpack"):
        read_fluent_speech(tmp_path)
    with pytest.raises(DataError, match=r"data/train_data\.csv is not there: unpack"):
        read_fluent_speech(tmp_path / "nowhere")


# --- VoxCeleb1 ---------------------------------------------------------------------------------


def celebrities(base: Path, folders: tuple[str, ...], suffix: str = ".wav") -> list[str]:
    lines = []
    for n in range(10_001, 10_005):
        for part, video in ((1, "aAa-_1"), (1, "bBb"), (2, "cCc"), (3, "dDd")):
            for clip in ("00001", "00002"):
                path = f"id{n}/{video}{n}/{clip}"
                sound(base / folders[n % len(folders)] / f"{path}{suffix}")
                lines.append(f"{part} {path}.wav")
    random.Random(0).shuffle(lines)
    (base / "iden_split.txt").write_text("\n".join(lines) + "\n")
    return lines


@pytest.mark.parametrize(
    ("folders", "suffix"),
    [(("vox1_dev_wav/wav", "vox1_test_wav/wav"), ".wav"), (("",), ".flac"), (("wav",), ".m4a")],
)
def test_speakers(tmp_path, folders, suffix):
    lines = celebrities(tmp_path, folders, suffix)
    data = read_voxceleb1(tmp_path)
    assert data.clips.classes == ("id10001", "id10002", "id10003", "id10004")
    assert [len(part) for part in data.folds[0]] == [16, 8, 8]
    names = {"1": "train", "2": "valid", "3": "test"}
    table, fold = data.clips.table, data.folds[0]
    for part, rows in zip(fold._fields, fold, strict=True):
        got = {"/".join(Path(p).with_suffix(".wav").parts[-3:]) for p in table["path"].iloc[rows]}
        assert got == {line[2:] for line in lines if names[line[0]] == part}
    assert [Path(p).parts[-3] for p in table["path"]] == table["label"].tolist()
    assert [Path(p).parts[-2] for p in table["path"]] == table["group"].tolist()
    assert groups_are_apart(data)
    assert data.notes == []


def test_what_voxceleb1_lacks_is_said(tmp_path):
    celebrities(tmp_path / "vox", ("wav",))
    file = tmp_path / "vox" / "iden_split.txt"
    with file.open("a") as more:
        more.write("1 id10005/eEe/00001.wav\n3 id10001/aAa-_110001/00009.wav\n\n")
    data = read_voxceleb1(tmp_path)  # one level up
    assert "id10005" in data.clips.classes
    assert "2 of 34 clips are not there, such as id10005/eEe/00001.wav" in data.notes
    assert "1 videos have clips in several parts, as the list has them" in data.notes
    file.write_text("4 id10001/aAa/00001.wav\n")
    with pytest.raises(DataError, match=r"iden_split\.txt: line 1 is not"):
        read_voxceleb1(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"iden_split\.txt is not there: put it"):
        read_voxceleb1(tmp_path)


# --- VoxForge ----------------------------------------------------------------------------------


def forge(base: Path, users: int = 30, inside: str = "{code}/{archive}/wav") -> list[str]:
    """Each user reads one language; those called anonymous read all."""
    archives = []
    for i in range(users):
        code = ("de", "en", "es", "fr", "it", "ru")[i % 6]
        for who in (f"user{i}", "anonymous"):
            archive = f"{who}-2008{i % 12 + 1:02d}01-{code}{i}"
            archives.append(f"{code}/{archive}")
            folder = base / inside.format(code=code, archive=archive)
            for name in ("a0001", "b0002"):
                sound(folder / f"{name}.wav")
    return archives


def test_languages(tmp_path):
    archives = forge(tmp_path)
    sound(tmp_path / "de/user0-20080101-de0/flac/a0001.wav")
    (tmp_path / "de/user0-20080101-de0/etc").mkdir()
    (tmp_path / "de/user0-20080101-de0/etc/PROMPTS").write_text("a0001 HALLO")
    late = sound(tmp_path / "de/user0-20200101-new/wav/a0001.wav")
    sound(tmp_path / "nl/user0-20080101-nl/wav/a0001.wav")
    data = read_voxforge(tmp_path)
    assert data.clips.classes == ("de", "en", "es", "fr", "it", "ru")
    assert len(data.clips) == 2 * len(archives)
    table = data.clips.table
    assert str(late) not in set(table["path"])
    assert [Path(p).parts[-4] for p in table["path"]] == table["label"].tolist()
    assert groups_are_apart(data)
    groups = data.clips.groups()
    assert set(groups) == {"anonymous", *(f"user{i}" for i in range(30))}
    # 31 users: 21 to learn from, 3 to choose on, 7 to be tested on.
    assert [len(set(groups[part])) for part in data.folds[0]] == [21, 3, 7]
    for told in ("1 files in folders called flac", "1 archives of 2020", "1 files not below"):
        assert any(note.startswith(told) for note in data.notes), told
    assert any("without voxforge_urls.txt" in note for note in data.notes)


def test_users_are_dealt_as_by_tensorflow_datasets():
    """Their shuffle in its own words: a permutation of positions with the same generator."""
    names = [f"u{i:03d}" for i in range(97)]
    order = np.random.RandomState(0).permutation(97)
    part = split_users([*reversed(names), *names[:5]])
    places = ["train"] * 67 + ["valid"] * 10 + ["test"] * 20
    want = {names[k]: place for k, place in zip(order, places, strict=True)}
    assert part == want


def test_the_list_gives_the_same_parts_whatever_is_there(tmp_path):
    archives = forge(tmp_path / "flat", inside="{archive}/wav")
    for code in ("en", "Main/16kHz_16bit"):
        sound(tmp_path / "flat" / code / "stranger-20090101-x" / "wav" / "a.wav")
    with pytest.raises(DataError, match="no folder of a language") as error:
        for path in sorted((tmp_path / "flat" / "en").rglob("*.wav")):
            path.unlink()
        read_voxforge(tmp_path)
    assert "\n" not in str(error.value)
    host = "www.repository.voxforge1.org/downloads"
    lines = [
        f'"{host}/{code}/Trunk/Audio/Main/16kHz_16bit/{archive}.tgz"'
        for code, archive in (name.split("/") for name in archives)
    ]
    (tmp_path / "voxforge_urls.txt").write_text("\n".join(lines) + "\n")
    data = read_voxforge(tmp_path)
    assert len(data.clips) == 2 * len(archives)
    assert "1 archives not in voxforge_urls.txt left out, such as stranger-20090101-x" in data.notes
    language = {archive: code for code, archive in (name.split("/") for name in archives)}
    table = data.clips.table
    assert [language[Path(p).parts[-3]] for p in table["path"]] == table["label"].tolist()
    before = {path: what for path, what in part_of_full(data).items() if "user" in path}
    for i in range(0, 30, 3):
        for path in (tmp_path / "flat").glob(f"user{i}-*/wav/*.wav"):
            path.unlink()
    fewer = read_voxforge(tmp_path)
    assert any(note.startswith("10 of 60 archives are not there") for note in fewer.notes)
    after = {path: what for path, what in part_of_full(fewer).items() if "user" in path}
    assert len(after) == len(before) - 20
    assert all(before[path] == what for path, what in after.items())


def part_of_full(data: TaskData) -> dict[str, str]:
    fold, paths = data.folds[0], data.clips.table["path"]
    return {
        paths.iloc[row]: name for name, rows in zip(fold._fields, fold, strict=True) for row in rows
    }


@pytest.mark.parametrize(
    "inside",
    [
        "voxforge_{code}/{archive}/wav",
        "downloads/{code}/Trunk/Audio/Main/16kHz_16bit/{archive}/wav",
        "{code}/{archive}",
    ],
)
def test_where_archives_are_unpacked(tmp_path, inside):
    archives = forge(tmp_path, 12, inside)
    data = read_voxforge(tmp_path)
    assert len(data.clips) == 2 * len(archives)
    assert groups_are_apart(data)


def test_what_voxforge_lacks_is_said(tmp_path):
    with pytest.raises(DataError, match="no such folder; unpack"):
        read_voxforge(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no audio of VoxForge"):
        read_voxforge(tmp_path)
    forge(tmp_path, 12)
    (tmp_path / "voxforge_urls.txt").write_text("host/downloads/xx/user-1.tgz\n")
    with pytest.raises(DataError, match="no language in 'host/downloads"):
        read_voxforge(tmp_path)
    (tmp_path / "voxforge_urls.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty; get the list again"):
        read_voxforge(tmp_path)
