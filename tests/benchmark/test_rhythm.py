"""Rhythm styles: what is played to what, the songs in time, and the program that is run.

MIDI files are written here byte by byte; a program of three lines stands in for MMA, and MMA
itself is run where its package is at hand.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from package_tree import Tree, check_frame
from tiny_soundfont import Tiny, write_sf2

from ossicle.benchmark.open_suite import rhythm
from ossicle.benchmark.open_suite.render import Event, read_midi
from ossicle.benchmark.open_suite.rhythm import (
    FOLDS,
    RHYTHM,
    STYLES,
    Accompanist,
    excerpts,
    grooves_of,
    plan_rhythm,
    song,
)
from ossicle.benchmark.open_suite.soundfonts import FONTS
from ossicle.benchmark.packages import PACKAGES, Packages
from ossicle.download import cache_dir
from ossicle.errors import DataError

FILES = sorted({file for kin in STYLES.values() for one in kin for file in one.split()})
GROOVES = {file: [f"{file}-A", f"{file}-B"] for file in FILES}
NEEDS = "needs pip install --no-deps tinysoundfont"


def midi_file(path: Path, events: list[tuple[int, bytes]], ticks: int = 100) -> Path:
    """Format 0; events are (ticks since the one before, message)."""
    track = b"".join(_length(gap) + message for gap, message in events) + b"\0\xff\x2f\0"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, ticks)
    path.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)
    return path


def _length(value: int) -> bytes:
    out = [value & 127]
    while value := value >> 7:
        out.append(128 | value & 127)
    return bytes(reversed(out))


def tempo(beats_a_minute: float) -> bytes:
    return b"\xff\x51\x03" + round(60e6 / beats_a_minute).to_bytes(3, "big")


def test_every_file_has_one_style_and_every_fold_every_style() -> None:
    named = [file for kin in STYLES.values() for one in kin for file in one.split()]
    assert len(named) == len(set(named))
    assert all(len(kin) >= len(FOLDS) for kin in STYLES.values())
    assert len(STYLES) == 11


def test_the_plan_gives_all_styles_the_same_music() -> None:
    rows = plan_rhythm(GROOVES)
    table = pd.DataFrame(rows)
    assert rows == plan_rhythm(dict(reversed(GROOVES.items())))
    assert table["path"].is_unique
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert (table.groupby("file")["group"].nunique() == 1).all()
    assert (table.groupby("group")["label"].nunique() == 1).all()
    assert (pd.crosstab(table["label"], table["fold"]) == 16).all().all()
    table["begins"] = [tuple(chords[:4]) for chords in table["chords"]]
    for fold in FOLDS:
        own = table[table["fold"] == fold]
        given = {
            style: list(zip(rows["begins"], rows["tempo"], rows["font"], strict=True))
            for style, rows in own.groupby("label")
        }
        assert len({str(music) for music in given.values()}) == 1
        assert set(own["font"]) == {"gmbank", "generaluser", "fluid"}
    assert table["tempo"].between(95, 145).all()
    # The excerpt is full, and the bars are no more than it takes.
    seconds = table["chords"].map(len) * table["beats"] * 60 / table["tempo"]
    assert seconds.min() >= rhythm.LENGTH_S + 1
    assert (seconds - table["beats"] * 60 / table["tempo"] < rhythm.LENGTH_S + 1).all()
    assert set(table["beats"][table["label"] == "waltz"]) == {3}
    assert set(table["beats"][table["label"] != "waltz"]) == {4}


def test_kin_stay_together_and_all_files_are_played() -> None:
    table = pd.DataFrame(plan_rhythm(GROOVES))
    assert set(table["file"]) == set(FILES)
    rumba = table[table["group"] == "stdlib/jazzrhumba"]
    assert set(rumba["file"]) == {"stdlib/jazzrhumba", "stdlib/rhumba", "stdlib/beguine"}
    with pytest.raises(DataError, match=r"kara/kbossa\.mma: defines no groove"):
        plan_rhythm({**GROOVES, "kara/kbossa": []})


def test_grooves_of_a_file() -> None:
    text = (
        "DefGroove TangoIntro\n  DefGroove Tango  A tango\nDEFGROOVE Tango\ndefgroove TangoSus x\n"
        "// DefGroove Comment\nDefGroove TangoFill\nDefGroove Tango1 y\nDefGroove Tango2\n"
    )
    assert grooves_of(text) == ["Tango", "Tango1"]
    assert grooves_of("DefGroove xFA\nDefGroove xEndingA\nDefGroove rock1E") == []


def test_songs_are_cut_into_their_excerpts() -> None:
    rows = [
        {"file": "a/b", "groove": "G", "tempo": 120, "beats": 4, "chords": ["C", "F"]},
        {"file": "a/b", "groove": "G", "tempo": 90, "beats": 3, "chords": ["Dm"]},
    ]
    lines = song(rows).splitlines()
    assert [line for line in lines if line[0].isdigit()] == ["1 C", "2 F", "3 Dm"]
    assert [line for line in lines if line.startswith("Tempo")] == ["Tempo 120", "Tempo 90"]
    assert lines.count("Groove a/b:G") == 2
    # The first lasts 2 bars of 2 s, the second 3 beats of 2/3 s.
    events = [
        Event(0.0, 1, "program", (33,)),
        Event(0.0, 1, "on", (40, 90)),
        Event(3.9, 1, "off", (40,)),
        Event(3.97, 1, "on", (41, 90)),  # a player who is early
        Event(4.5, 1, "control", (7, 90)),
        Event(5.0, 1, "on", (42, 90)),
    ]
    first, second = excerpts(rows, events)
    assert first == events[:3]
    assert [(event.kind, event.values) for event in second] == [
        ("program", (33,)),
        ("on", (41, 90)),
        ("control", (7, 90)),
        ("on", (42, 90)),
    ]
    assert [event.time for event in second] == pytest.approx([0, 0, 0.5, 1.0])


def test_midi_files_are_read_in_time(tmp_path: Path) -> None:
    pytest.importorskip("tinysoundfont", reason=NEEDS)
    path = midi_file(
        tmp_path / "x.mid",
        [
            (0, tempo(120)),
            (0, b"\xc2\x1c"),
            (100, b"\x92\x3c\x64"),  # a beat at 120 a minute: 0.5 s
            (0, tempo(60)),
            (150, b"\x82\x3c\x00"),  # and 1.5 s
            (50, b"\xb9\x07\x50"),
            (0, b"\xe2\x00\x40"),
        ],
    )
    events = read_midi(path)
    assert [event._replace(time=0.0) for event in events] == [
        Event(0.0, 2, "program", (28,)),
        Event(0.0, 2, "on", (60, 100)),
        Event(0.0, 2, "off", (60,)),
        Event(0.0, 9, "control", (7, 80)),
        Event(0.0, 2, "bend", (8192,)),
    ]
    times = [event.time for event in events]
    assert times == pytest.approx([0.0, 0.5, 2.0, 2.5, 2.5], abs=2e-3)
    (tmp_path / "y.mid").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"y\.mid: cannot be read as MIDI"):
        read_midi(tmp_path / "y.mid")


# A drum and a note on each of four beats of each bar. It checks how it is run.
STAND_IN = """
import os, struct, sys
from __main__ import MMAdir, platform
text = open(sys.argv[1]).read()
assert platform == "Linux" and os.path.isdir(os.path.join(MMAdir, "lib")), MMAdir
assert sys.argv[2:4] == ["-i", "empty"] and open("empty").read() == "", sys.argv
assert sys.flags.isolated and "SECRET" not in os.environ and os.getcwd() == os.environ["HOME"]
if "Loop" in text:
    while True: pass
if "Wrong" in text:
    print("Error: <Line 2> what is Wrong"); sys.exit(1)
if "Silent" in text:
    sys.exit(0)
track = b""
for line in text.splitlines():
    name, *rest = line.split()
    if name == "Tempo":
        track += bytes([0]) + bytes([255, 81, 3]) + round(60e6 / int(rest[0])).to_bytes(3, "big")
    elif name == "Groove":
        key = 30 + sum(map(ord, rest[0])) % 60
    elif name.isdigit():
        for _ in range(4):
            track += bytes([0, 0x99, key, 100, 50, 0x89, key, 0, 50, 0x90, key + 7, 90, 10, 0x80])
            track += bytes([key + 7, 0])
track += bytes([0, 255, 47, 0])
head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 110)
open(sys.argv[5], "wb").write(head + b"MTrk" + struct.pack(">I", len(track)) + track)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    pytest.importorskip("tinysoundfont", reason=NEEDS)
    tree = Tree(tmp_path / "packages")
    home = tree.package("mma") / "usr/share/mma"
    (home / "MMA").mkdir(parents=True)
    (home / "MMA/__init__.py").write_text("")
    (home / "MMA/main.py").write_text(STAND_IN)
    for file in FILES:
        path = home / "lib" / f"{file}.mma"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"DefGroove {name}\n" for name in GROOVES[file]))
    pinned = PACKAGES["mma"]._replace(sha256="0" * 64)
    monkeypatch.setitem(PACKAGES, "mma", pinned)
    monkeypatch.setenv("SECRET", "x")
    return tree


def test_what_is_run_is_alone_and_its_errors_are_told(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Accompanist(tree.packages()) as mma:
        events = mma.compose("Tempo 60\nGroove a:b\n1 C\n")
        assert [event.time for event in events if event.kind == "on"] == pytest.approx(
            [t for beat in range(4) for t in (beat, beat + 100 / 110)], abs=2e-3
        )
        with pytest.raises(DataError, match=r"mma: .*what is Wrong"):
            mma.compose("Wrong")
        with pytest.raises(DataError, match="mma: wrote nothing"):
            mma.compose("Silent")
        monkeypatch.setattr(rhythm, "_LIMIT_S", 0.5)
        with pytest.raises(DataError, match="mma cannot be run"):
            mma.compose("Loop")
        scratch = mma._folder
        assert scratch.is_dir()
    assert not scratch.exists()
    # Nothing is left in the package, not even compiled modules.
    assert not list((tree.folder / "mma").rglob("__pycache__"))


def test_another_package_than_the_pinned_one_is_not_run(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "mma", PACKAGES["mma"]._replace(sha256="1" * 64))
    refused = pytest.raises(DataError, match="is not the pinned .*it is not run")
    with Accompanist(tree.packages()) as mma, refused:
        mma.compose("Tempo 60\nGroove a:b\n1 C\n")


def test_the_recipe(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythm, "_A_STYLE_AND_FOLD", 3)
    monkeypatch.setattr(rhythm, "STYLES", {name: STYLES[name] for name in ("rock", "waltz")})
    monkeypatch.setattr(rhythm, "LENGTH_S", 2.0)
    for i, font in enumerate(FONTS.values()):
        presets = [Tiny(0, 0, "Piano", softer_cb=9 * i), Tiny(128, 0, "Kit")]
        write_sf2(tree.package(font.package) / "usr/share/sounds" / font.file, presets)
    said: list[str] = []
    frame = RHYTHM[0].build(tree.packages(), tmp_path / "made", said.append)
    check_frame(frame)
    assert pd.crosstab(frame["label"], frame["fold"]).to_numpy().tolist() == [[3, 3, 3]] * 2
    for path in frame["path"]:
        samples, rate = soundfile.read(path, dtype="float32")
        assert (len(samples), rate) == (32_000, 16_000)
        assert np.abs(samples[:4_000]).max() > 0.01
    again = RHYTHM[0].build(tree.packages(), tmp_path / "made", None)
    pd.testing.assert_frame_equal(again, frame)
    (tree.folder / "mma/usr/share/mma/lib/casio/rock1.mma").unlink()
    with pytest.raises(DataError, match=r"rock1\.mma"):
        RHYTHM[0].build(tree.packages(), tmp_path / "made", None)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    pytest.importorskip("tinysoundfont", reason=NEEDS)
    if not list((cache_dir() / "debs").glob("mma_21.09*.deb")):
        pytest.skip(f"needs the package mma in {cache_dir() / 'debs'}")
    return Packages(tmp_path_factory.mktemp("packages"))


def test_mma_plays_in_time_and_alike_each_time(real: Packages) -> None:
    rows = [
        {"file": "stdlib/waltz", "groove": "Waltz", "tempo": 90, "beats": 3, "chords": ["C"] * 4},
        {"file": "stdlib/waltz", "groove": "Waltz", "tempo": 140, "beats": 3, "chords": ["G7"] * 4},
    ]
    with Accompanist(real) as mma:
        events = mma.compose(song(rows))
        assert mma.compose(song(rows)) == events
    # 12 beats of 2/3 s, then 12 of 3/7 s: the last is the last beat.
    onsets = [event.time for event in events if event.kind == "on" and event.values[1]]
    assert max(onsets) == pytest.approx(8 + 11 * 3 / 7, abs=0.25)
    played = defaultdict(set)
    for part, row in zip(excerpts(rows, events), rows, strict=True):
        beat = 60 / row["tempo"]
        for event in part:
            if event.kind == "on" and event.channel != 9 and event.values[1]:
                played[row["chords"][0]].add(event.values[0] % 12)
                assert -0.01 <= event.time <= 12 * beat
    assert {0, 4, 7} <= played["C"]  # C, E, G
    assert {7, 11, 2} <= played["G7"]  # G, B, D
    assert 11 not in played["C"]


def test_every_groove_of_the_plan_is_in_the_library(real: Packages) -> None:
    library = real.files("mma") / "usr/share/mma/lib"
    grooves = {file: grooves_of((library / f"{file}.mma").read_text("latin-1")) for file in FILES}
    rows = plan_rhythm(grooves)
    assert {row["file"] for row in rows} == set(FILES)
    for file in FILES:
        three = any(file in kin.split() for kin in STYLES["waltz"])
        lines = (library / f"{file}.mma").read_text("latin-1").lower().split("\n")
        times = {line.split()[1] for line in lines if line.startswith("time ")}
        assert times == {"3" if three else "4"}, file
