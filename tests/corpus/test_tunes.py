"""Excerpts of MIDI files: what is cut out, how it is moved, and how it sounds.

Witnesses: times and keys reckoned by hand, spectra of a font of one sine.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.open_suite.render import PERCUSSION, Event, SoundFont
from ossicle.benchmark.packages import Packages
from ossicle.corpus import played, tunes
from ossicle.corpus.gus_patch import PatchSample
from ossicle.corpus.patch_font import Instrument, write_font
from ossicle.download import cache_dir
from ossicle.errors import DataError

RATE = 22_050


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("13-Stephenson-blues", "blues"),
        ("city_blues_redfarn", "blues"),
        ("17-The-Benevolent-Dictators-March", "march"),
        ("27-March-Winds", None),
        ("04-Simutrans-B-Theme", None),
        ("Rocking-Blues", None),
        ("104", None),
    ],
)
def test_a_style_is_told_by_one_word_of_the_title(name, style):
    assert tunes.style_of(name) == style


def test_the_plan_has_as_much_of_each_piece():
    lengths = {("p", f"{i}"): 5.0 + 10 * i for i in range(7)}
    plan = tunes.plan_tunes(lengths, ["x", "y"], 0)
    assert plan == tunes.plan_tunes(lengths, ["x", "y"], 0)
    assert plan != tunes.plan_tunes(lengths, ["x", "y"], 1)
    assert len(plan) == len({row["path"] for row in plan}) == tunes.EXCERPTS
    many = Counter(row["piece"] for row in plan)
    assert max(many.values()) - min(many.values()) <= 1
    assert {row["instruments"] for row in plan} == {"x", "y"}
    assert {row["shift"] for row in plan} == set(range(-5, 6))
    for row in plan:
        assert 0.8 <= row["speed"] <= 1.25
        length = lengths["p", row["piece"]]
        assert row["onset_s"] == 0 or row["onset_s"] + 8 * row["speed"] <= length + 1e-2
    assert tunes.plan_tunes({}, ["x"], 0) == []


ROW = {"onset_s": 10.0, "speed": 1.25, "shift": 3}
# The excerpt: 12 to 22 s of the piece, heard from 8.25 s on.
PIECE = [
    Event(0.0, 0, "program", (40,)),
    Event(2.0, 0, "on", (60, 90)),
    Event(3.0, 0, "off", (60,)),
    Event(9.5, 0, "on", (62, 90)),
    Event(13.25, PERCUSSION, "on", (36, 90)),
    Event(14.0, 0, "control", (7, 100)),
    Event(15.75, 0, "off", (62,)),
    Event(17.0, 0, "on", (126, 90)),
    Event(22.5, 0, "on", (64, 90)),
]


def test_an_excerpt_is_moved_in_time_and_key():
    found = tunes.excerpt(PIECE, ROW)
    assert [(round(e.time, 6), e.channel, e.kind, e.values) for e in found] == [
        (0.0, 0, "program", (40,)),
        (1.0, 0, "on", (65, 90)),
        (4.0, PERCUSSION, "on", (36, 90)),
        (4.6, 0, "control", (7, 100)),
        (6.0, 0, "off", (65,)),
        (7.0, 0, "on", (127, 90)),
    ]


def test_a_piece_without_notes_is_told():
    assert tunes.span(PIECE) == (2.0, 22.5)
    with pytest.raises(DataError, match="no notes"):
        tunes.span([PIECE[0], Event(1.0, 0, "on", (60, 0))])


def test_programs_that_are_not_there_become_the_nearest_of_their_kind():
    events = [Event(0.0, c, "program", (p,)) for c, p in ((0, 3), (1, 8), (2, 120), (9, 3))]
    found = tunes.with_programs([*events, PIECE[1]], [0, 1, 7, 13, 40])
    assert [event.values[0] for event in found] == [1, 13, 40, 3, 60]


def test_an_excerpt_sounds_when_and_as_high_as_it_is_told(tmp_path: Path):
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    wave = np.round(16_000 * np.sin(2 * np.pi * 441 * np.arange(RATE) / RATE)).astype(np.int16)
    made = PatchSample(wave, RATE, 8.0, 13_000.0, 441.0, loop=(0, RATE))
    write_font(tmp_path / "made.sf2", [Instrument(0, 40, "V", [made])])
    font = SoundFont(tmp_path / "made.sf2")
    events = [
        Event(0.0, 0, "program", (40,)),
        Event(1.0, 0, "on", (50, 90)),
        Event(1.5, 0, "off", (50,)),
        Event(14.0, 0, "on", (69, 90)),
        Event(16.0, 0, "off", (69,)),
        Event(40.0, 0, "on", (69, 90)),
    ]
    row = {"onset_s": 11.0, "speed": 0.8, "shift": -2}
    cut = tunes.excerpt(events, row)
    sound = font.play(cut, onset_s=tunes._BEFORE_S, length_s=tunes.LENGTH_S)
    assert len(sound) == 8 * 16_000
    # 12 s of the piece come first; the note of 14 to 16 s sounds from 2.5 to 5 s.
    loud = np.flatnonzero(np.abs(sound) > 0.02) / 16_000
    assert loud[0] == pytest.approx(2.5, abs=0.02)
    assert 5.0 <= loud[-1] < 5.6
    spectrum = np.abs(np.fft.rfft(sound[48_000:72_000] * np.hanning(24_000), 1 << 18))
    assert np.argmax(spectrum) * 16_000 / (1 << 18) == pytest.approx(440 * 2 ** (-2 / 12), rel=2e-3)


def test_the_suite_has_none_of_the_music():
    used = {package for recipe in RECIPES.values() for package in recipe.packages}
    assert not used & set(tunes.MUSIC)


def test_real_music_is_played(tmp_path, monkeypatch):
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    folder = cache_dir() / "data" / "packages"
    for name in (played.OPL3, played.FREEPATS, "freedink-data"):
        if not (folder / name).is_dir():
            pytest.skip(f"the package {name} is not at hand")
    monkeypatch.setattr(tunes, "EXCERPTS", 12)
    monkeypatch.setattr(tunes, "MUSIC", ("freedink-data",))
    table = tunes.write_tunes(tmp_path / "tunes", Packages(folder), 1)
    assert len(table) == 12
    assert set(table["package"]) <= set(tunes.MUSIC)
    assert table["licence"].str.contains("; ").all()
    assert table["group"].nunique() == 12
    for path in table["path"]:
        samples, rate = soundfile.read(tmp_path / "tunes" / path)
        assert (rate, len(samples)) == (16_000, 8 * 16_000)
        # Music goes on: no more than a third of the tenths of a second are silent.
        parts = np.abs(samples.reshape(-1, 1600)).max(axis=1)
        assert (parts < 1e-3).mean() < 1 / 3
