"""Speech Commands: ten words, silence and the rest (12 classes), and all words (35 classes).

The archives as they are: ``validation_list.txt`` and ``testing_list.txt`` beside a folder a word,
``_background_noise_`` with six long recordings, and for the twelve classes the test archive with
``_silence_`` and ``_unknown_``. n clips.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ossicle import audio
from ossicle.benchmark.task import Task, TaskData, differences, from_rows
from ossicle.datasets.layouts import audio_below
from ossicle.errors import DataError

TEN_WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
SILENCE, UNKNOWN, NOISE = "_silence_", "_unknown_", "_background_noise_"
TWELVE_CLASSES = (*TEN_WORDS, SILENCE, UNKNOWN)
NEW_WORDS = ("backward", "follow", "forward", "learn", "visual")  # not in archive v0.01
WORDS = tuple(
    sorted(
        {
            *(*TEN_WORDS, *NEW_WORDS),
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
        }
    )
)
VALID_NOISE = "running_tap"
RATE = 16_000  # Hz; silence is cut by its samples
PUBLISHED_12 = {
    "v0.01": {"test": 3081, "classes": 12},
    "v0.02": {"train": 85_511, "valid": 10_102, "test": 4890, "classes": 12},
}
_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
_SPEAKER = re.compile(r"([0-9a-f]{8})_nohash_")
_MAX_PER_CLASS = 2**27 - 1
_URL = "http://download.tensorflow.org/data"


class _Archive(NamedTuple):
    folder: Path
    words: dict[tuple[str, str], str]  # (word, stem) -> path below the root
    noises: dict[str, str]
    listed: dict[str, list[str]]  # part -> lines of its list
    version: str


def which_set(name: str, valid_percent: float = 10.0, test_percent: float = 10.0) -> str:
    """The part that a recording belongs to by the hash of its speaker: "train", "valid", "test".

    What stands before ``_nohash_`` is hashed with SHA-1; modulo 2^27 it is a share of 100
    (README of the archives).

    Args:
        name: of the file, with or without folders.
        valid_percent: share of the validation part, in percent.
        test_percent: share of the test part, in percent.
    """
    who = re.sub(r"_nohash_.*$", "", name.rpartition("/")[2])
    number = int(hashlib.sha1(who.encode(), usedforsecurity=False).hexdigest(), 16)
    percent = (number % (_MAX_PER_CLASS + 1)) * (100.0 / _MAX_PER_CLASS)
    if percent < valid_percent:
        return "valid"
    return "test" if percent < valid_percent + test_percent else "train"


def read_speech_commands_v1(folder: Path) -> TaskData:
    """Twelve classes: ten words, silence, unknown.

    As TensorFlow Datasets build it (``speech_commands``): every recording of another word is
    unknown; silence is the background noises cut into 1 s, one each 0.5 s, ``running_tap`` for
    validation and the others for training; the test part is the test archive. Archive v0.02 with
    its own test archive is read alike, and told.

    Raises:
        DataError: the lists, the noises or the test archive are not there.
    """
    root = Path(folder)
    archive = _read_archive(root, prefer_new=False)
    rows = [
        {**row, "label": row["label"] if row["label"] in TEN_WORDS else UNKNOWN}
        for row in _word_rows(archive)
        if row["part"] != "test"
    ]
    rows += _silence_rows(root, archive)
    rows += _test_rows(root, archive)
    notes = [f"archive {archive.version}", *_against_hash(rows)]
    data = from_rows(
        pd.DataFrame(rows),
        root,
        classes=TWELVE_CLASSES,
        group_source="the speaker's hash in the file name",
        notes=notes,
    )
    # Which counts hold depends on the archive, so that they are compared here.
    data.notes += differences(data, PUBLISHED_12[archive.version])
    return data


def read_speech_commands_v2(folder: Path) -> TaskData:
    """All 35 words of archive v0.02, parts by its lists.

    Raises:
        DataError: the lists are not there, or it is archive v0.01.
    """
    root = Path(folder)
    archive = _read_archive(root, prefer_new=True)
    if archive.version != "v0.02":
        raise DataError(
            f"{archive.folder}: has no folder {NEW_WORDS[0]}: that is archive v0.01; "
            f"get {_URL}/speech_commands_v0.02.tar.gz"
        )
    rows = _word_rows(archive)
    return from_rows(
        pd.DataFrame(rows),
        root,
        classes=WORDS,
        group_source="the speaker's hash in the file name",
        notes=_against_hash(rows),
    )


def _read_archive(root: Path, prefer_new: bool) -> _Archive:
    """The main archive in a folder or one level below it, read with one walk."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; unpack speech_commands_v0.01.tar.gz there")
    found = _nearest(root, _LISTS["valid"])
    if not found:
        raise DataError(
            f"{root}: {_LISTS['valid']} is not there: unpack the whole of "
            f"{_URL}/speech_commands_v0.0{2 if prefer_new else 1}.tar.gz"
        )
    is_new = [any((base / word).is_dir() for word in NEW_WORDS) for base in found]
    base = found[is_new.index(prefer_new)] if prefer_new in is_new else found[0]
    listed = {}
    for part, name in _LISTS.items():
        if not (base / name).is_file():
            raise DataError(f"{base}: {name} is not there: unpack the whole archive")
        text = (base / name).read_text(encoding="utf-8")
        listed[part] = [line.strip() for line in text.splitlines() if line.strip()]
    words, noises = {}, {}
    for parts in audio_below(base)[0]:
        path = str(base.joinpath(*parts).relative_to(root))
        if len(parts) == 2 and parts[0] in WORDS:
            words[parts[0], parts[1].rpartition(".")[0]] = path
        elif len(parts) == 2 and parts[0] == NOISE:
            noises[parts[1].rpartition(".")[0]] = path
    if not words:
        raise DataError(f"{base}: no folder of a word with audio in it, such as {base / 'yes'}")
    version = "v0.02" if any(word in NEW_WORDS for word, _ in words) else "v0.01"
    return _Archive(base, words, noises, listed, version)


def _nearest(root: Path, name: str) -> list[Path]:
    """The folders that hold a name: the root, else those one level below, else two."""
    levels = (sorted(p.parent for p in root.glob(f"{level}{name}")) for level in ("", "*/", "*/*/"))
    return next((found for found in levels if found), [])


def _word_rows(archive: _Archive) -> list[dict[str, Any]]:
    """All words, those of the lists in their parts; a listed file that is gone is kept as a row."""
    rows, seen = [], set()
    for part, lines in archive.listed.items():
        for line in lines:
            word, _, name = line.rpartition("/")
            key = (word, name.rpartition(".")[0])
            seen.add(key)
            path = archive.words.get(key, line)
            rows.append({"path": path, "label": word, "part": part, "group": _speaker(name)})
    rows += [
        {"path": path, "label": word, "part": "train", "group": _speaker(stem)}
        for (word, stem), path in archive.words.items()
        if (word, stem) not in seen
    ]
    return rows


def _silence_rows(root: Path, archive: _Archive) -> list[dict[str, Any]]:
    """The noises in pieces of 1 s, one each 0.5 s, while more than 1 s is left."""
    if not archive.noises:
        raise DataError(f"{archive.folder / NOISE}: is not there: unpack the whole archive")
    rows = []
    for stem, path in archive.noises.items():
        samples = round(audio.info(root / path).duration_s * RATE)
        for start in range(0, samples - RATE, RATE // 2):
            rows.append(
                {
                    "path": path,
                    "label": SILENCE,
                    "part": "valid" if stem == VALID_NOISE else "train",
                    "group": f"{NOISE}/{stem}",
                    "onset": start / RATE,
                    "offset": start / RATE + 1.0,
                }
            )
    return rows


def _test_rows(root: Path, archive: _Archive) -> list[dict[str, Any]]:
    """The test archive: below the root, or beside the main one."""
    name = f"speech_commands_test_set_{archive.version}"
    below = _nearest(root, UNKNOWN)
    beside = [p for p in (archive.folder.parent / name, root.parent / name) if p.is_dir()]
    # Where both versions lie side by side, the one of the main archive's.
    found = sorted(below, key=lambda p: archive.version not in p.name) + beside
    if not found:
        raise DataError(f"{root}: the test archive is not there: unpack {_URL}/{name}.tar.gz there")
    rows = []
    for parts in audio_below(found[0])[0]:
        if len(parts) != 2 or parts[0] not in TWELVE_CLASSES:
            continue
        label, stem = parts[0], parts[1].rpartition(".")[0]
        group = f"{SILENCE}/{stem}" if label == SILENCE else _speaker(stem)
        path = str(found[0].joinpath(*parts))
        rows.append({"path": path, "label": label, "part": "test", "group": group})
    return rows


def _speaker(name: str) -> str:
    match = _SPEAKER.search(name)
    return match.group(1) if match else name.partition(".")[0]


def _against_hash(rows: list[dict[str, Any]]) -> list[str]:
    """Which files lie in another part than the hash of their speaker gives."""
    part = {row["group"]: which_set(row["group"]) for row in rows}
    wrong = [r for r in rows if _SPEAKER.search(r["path"]) and part[r["group"]] != r["part"]]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"{len(wrong)} clips lie in another part than the hash of their speaker gives, such as "
        f"{first['path']} in {first['part']}"
    ]


V1 = Task(
    name="speech_commands_v1",
    suite="hares",
    domain="speech",
    title="ten words, silence, unknown",
    metric="accuracy",
    read=read_speech_commands_v1,
    get=(
        f"unpack {_URL}/speech_commands_v0.01.tar.gz and "
        f"{_URL}/speech_commands_test_set_v0.01.tar.gz, each in a folder of its own"
    ),
    licence="CC BY 4.0",
    caveat="silence is cut from six noises; the test archive does not say which ones its own is of",
    published={"classes": 12},
    source=(
        "Warden 2018, arXiv 1804.03209; built as TensorFlow Datasets' speech_commands; test count "
        "from Hugging Face's card of speech_commands. The table of HARES has 90 k clips: that is "
        "TensorFlow Datasets' build from archive v0.02 (85,511 to train on + 4,890 to test), while "
        "archive v0.01, which it links, holds 64,727 files; either archive is read"
    ),
)
V2 = Task(
    name="speech_commands_v2",
    suite="hares",
    domain="speech",
    title="35 words",
    metric="accuracy",
    read=read_speech_commands_v2,
    get=f"unpack {_URL}/speech_commands_v0.02.tar.gz",
    licence="CC BY 4.0",
    published={"train": 84_843, "valid": 9981, "test": 11_005, "classes": 35},
    source="Warden 2018, arXiv 1804.03209; parts by the archive's own lists",
)
TASKS = (V1, V2)
