"""Notes of SoundFonts: what is played, how it sounds, and what stays apart.

The witness for pitch and level is a font of one sine, written here byte by byte.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from package_tree import Tree, check_frame
from tiny_soundfont import Tiny, write_sf2

from ossicle.benchmark.open_suite import soundfonts
from ossicle.benchmark.open_suite.render import Event, Preset, SoundFont, rendered
from ossicle.benchmark.open_suite.soundfonts import (
    FAMILIES,
    FONTS,
    SOUNDFONTS,
    family_of,
    plan_instrument,
    plan_pitch,
)
from ossicle.errors import DataError, OssicleError

RECIPES = {recipe.name: recipe for recipe in SOUNDFONTS}
ALL_PROGRAMS = {font: [Preset(0, program, "x") for program in range(128)] for font in FONTS}


@pytest.fixture
def font(tmp_path: Path) -> SoundFont:
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    presets = [
        Tiny(0, 0, "Piano"),
        Tiny(0, 5, "Soft", softer_cb=200),
        Tiny(0, 7, "Low only", keys=(0, 60)),
        Tiny(8, 24, "Ukulele"),
        Tiny(0, 9, "Hardly", softer_cb=450),
        Tiny(128, 0, "Kit", softer_cb=200),
    ]
    return SoundFont(write_sf2(tmp_path / "fonts" / "tiny.sf2", presets))


def hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(np.argmax(spectrum) * 16_000 / (1 << 18))


def note(font: SoundFont, program: int, key: int, velocity: int = 100) -> np.ndarray:
    return font.note(0, program, key, velocity, held_s=0.8, length_s=1.0)


def test_a_note_has_the_key_asked_for(font: SoundFont) -> None:
    for key in (45, 57, 69, 88, 100):
        sound = note(font, 0, key)
        assert sound.shape == (16_000,)
        assert sound.dtype == np.float32
        wanted = 440 * 2 ** ((key - 69) / 12)
        assert abs(12 * np.log2(hertz(sound[:12_000]) / wanted)) < 0.03


def test_a_note_ends_when_it_is_let_go(font: SoundFont) -> None:
    sound = np.abs(note(font, 0, 69))
    assert sound[11_000:12_000].max() > 0.02
    assert sound[15_000:].max() < 1e-3 * sound.max()


def test_high_harmonics_do_not_come_back_as_low_ones(font: SoundFont) -> None:
    """10,548 Hz, above what 16 kHz can hold: nothing is left, nor an image at 5,452 Hz."""
    steady = slice(2_000, 11_000)
    assert np.abs(note(font, 0, 124)[steady]).max() < 0.01 * np.abs(note(font, 0, 69)).max()


def test_every_note_is_as_if_it_were_the_first(font: SoundFont, tmp_path: Path) -> None:
    first = note(font, 0, 69)
    font.play(
        [Event(0.0, 0, "control", (7, 20)), Event(0, 0, "on", (50, 99))], onset_s=0, length_s=1
    )
    note(font, 5, 40)
    assert np.array_equal(note(font, 0, 69), first)
    assert np.array_equal(note(SoundFont(font.path), 0, 69), first)


def test_presets_are_all_but_the_kits(font: SoundFont) -> None:
    assert font.presets() == [
        Preset(0, 0, "Piano"),
        Preset(0, 5, "Soft"),
        Preset(0, 7, "Low only"),
        Preset(0, 9, "Hardly"),
        Preset(8, 24, "Ukulele"),
    ]
    with pytest.raises(DataError, match="has no preset 0:1"):
        note(font, 1, 60)


def test_a_piece_is_played_in_time_and_cut(font: SoundFont) -> None:
    events = [
        Event(1.5, 0, "off", (69,)),
        Event(0.5, 0, "on", (69, 100)),
        Event(2.0, 3, "on", (57, 100)),
        Event(9.0, 0, "on", (60, 100)),
    ]
    piece = font.play(events, onset_s=0.0, length_s=3.0)
    assert piece.shape == (48_000,)
    assert np.abs(piece[:7_500]).max() < 1e-6  # but for the resampler's ringing
    assert hertz(piece[9_000:23_000]) == pytest.approx(440, rel=2e-3)
    assert np.abs(piece[26_000:31_900]).max() < 1e-3
    assert hertz(piece[33_000:]) == pytest.approx(220, rel=2e-3)
    later = font.play(events, onset_s=1.0, length_s=2.0)
    assert later.shape == (32_000,)
    # Away from the resampler's edges it is the same sound.
    np.testing.assert_allclose(later[500:-500], piece[16_500:-500], atol=1e-4)


def test_channel_ten_is_the_kit_and_lost_programs_are_found(font: SoundFont) -> None:
    def loudness(*events: Event) -> float:
        return float(np.abs(font.play(events, onset_s=0.0, length_s=1.0)).max())

    plain = loudness(Event(0, 0, "on", (60, 99)))
    assert 0.02 < loudness(Event(0, 9, "on", (60, 99))) < 0.6 * plain
    # Bank 8 has no program 5; bank 0 has, and softer.
    bank = [Event(0, 0, "control", (0, 8)), Event(0, 0, "program", (5,))]
    assert loudness(*bank, Event(0, 0, "on", (60, 99))) < 0.6 * plain
    # Nobody has program 99: the one before stays.
    assert loudness(Event(0, 0, "program", (99,)), Event(0, 0, "on", (60, 99))) == plain


def rows_of(*notes: tuple[int, int, int]) -> list[dict[str, object]]:
    return [
        {"path": f"{p}_{k}_{v}.flac", "font": "tiny", "program": p, "key": k, "velocity": v}
        for p, k, v in notes
    ]


def test_one_gain_for_a_font_and_silence_left_out(font: SoundFont, tmp_path: Path) -> None:
    # The last two: 40 dB below the loudest, and beyond the keys that the preset has.
    plan = rows_of((0, 69, 127), (0, 69, 60), (5, 50, 100), (7, 50, 90), (9, 69, 60), (7, 72, 90))
    assert 0 < np.abs(note(font, 9, 69, 60)).max() < 0.01 * np.abs(note(font, 0, 69, 127)).max()
    calls = []

    def sound(font: SoundFont, row: dict) -> np.ndarray:
        calls.append(row["path"])
        return note(font, row["program"], row["key"], row["velocity"])

    def play(plan: list, version: str = "1") -> pd.DataFrame:
        calls.clear()
        return rendered(tmp_path / "out", plan, {"tiny": font}, sound, [{"version": version}])

    frame = play(plan)
    names = [Path(path).name for path in frame["path"]]
    assert names == [row["path"] for row in plan[:4]]
    files = {path: soundfile.read(path, dtype="float32") for path in frame["path"]}
    assert {rate for _, rate in files.values()} == {16_000}
    raw = [
        np.abs(note(font, *triple)).max() for triple in ((0, 69, 127), (0, 69, 60), (5, 50, 100))
    ]
    peaks = [np.abs(samples).max() for samples, _ in files.values()]
    assert max(peaks) == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_allclose(np.array(peaks[:3]) / peaks[0], np.array(raw) / raw[0], atol=1e-3)

    pd.testing.assert_frame_equal(play(plan), frame)
    assert not calls
    Path(frame["path"][1]).unlink()
    pd.testing.assert_frame_equal(play(plan), frame)
    assert len(calls) == 6
    play(plan, "2")
    assert len(calls) == 6
    play(plan[:3], "2")
    assert len(calls) == 3
    assert not list((tmp_path / "out").glob(".*"))


def test_stopped_half_way_it_is_played_again(font: SoundFont, tmp_path: Path) -> None:
    plan = rows_of((0, 69, 127), (0, 60, 60))

    def sound(font: SoundFont, row: dict) -> np.ndarray:
        return note(font, row["program"], row["key"], row["velocity"])

    def broken(font: SoundFont, row: dict) -> np.ndarray:
        raise KeyboardInterrupt

    rendered(tmp_path / "out", plan, {"tiny": font}, sound, [])
    with pytest.raises(KeyboardInterrupt):
        rendered(tmp_path / "out", plan, {"tiny": font}, broken, [{"other": 1}])
    with pytest.raises(KeyboardInterrupt):
        rendered(tmp_path / "out", plan, {"tiny": font}, broken, [])


@pytest.mark.parametrize(
    ("preset", "family"),
    [
        (Preset(0, 0, "Yamaha Grand"), "keyboard"),
        (Preset(0, 12, "Marimba"), "mallet"),
        (Preset(0, 19, "Church Organ"), "organ"),
        (Preset(0, 22, "Harmonica"), None),
        (Preset(0, 24, "Nylon-str.Guita"), "guitar"),
        (Preset(0, 39, "Synth Bass 2"), "bass"),
        (Preset(0, 42, "Cello"), "string"),
        (Preset(0, 47, "Timpani"), None),
        (Preset(0, 52, "Ahh Choir"), "vocal"),
        (Preset(0, 55, "Orchestra Hit"), None),
        (Preset(0, 60, "French Horns"), "brass"),
        (Preset(0, 71, "Clarinet"), "reed"),
        (Preset(0, 72, "Piccolo"), "flute"),
        (Preset(0, 81, "Saw Wave"), "synth_lead"),
        (Preset(0, 85, "Solo Vox"), "vocal"),
        (Preset(0, 120, "Fret Noise"), None),
        (Preset(8, 14, "Church Bell"), None),
        (Preset(8, 24, "Ukulele"), "guitar"),
        (Preset(8, 48, "Orchestral Pad"), None),
        (Preset(8, 63, "Synth Brass 4"), "brass"),
        (Preset(11, 5, "Piano & FM EP"), None),
        (Preset(127, 16, "Elec Organ"), None),
    ],
)
def test_families(preset: Preset, family: str | None) -> None:
    assert family_of(preset) == family


def test_no_program_has_two_families() -> None:
    programs = Counter(program for family in FAMILIES.values() for program in family.programs)
    assert set(programs.values()) == {1}
    assert len(FAMILIES) == 11


def check_plan(rows: list[dict]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    assert table["path"].is_unique
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert (table.groupby("font")["fold"].nunique() == 1).all()
    assert table["fold"].nunique() == 3
    assert pd.crosstab(table["label"], table["fold"]).to_numpy().min() > 0
    left_out = {(0, 2), (0, 3), (0, 6), (0, 31), (0, 34), (0, 53), (0, 79)}
    of_font = table[table["font"] == "generaluser"]
    assert not left_out & set(zip(of_font["bank"], of_font["program"], strict=True))
    return table


def test_the_plan_for_instruments() -> None:
    rows = plan_instrument(ALL_PROGRAMS)
    table = check_plan(rows)
    assert rows == plan_instrument({font: ALL_PROGRAMS[font][::-1] for font in reversed(FONTS)})
    assert set(table["label"]) == set(FAMILIES)
    for row in table.itertuples():
        low, high = FAMILIES[row.label].keys
        assert low <= row.key <= high
    counts = pd.crosstab(table["label"], table["fold"]).to_numpy()
    assert counts.min() >= 18
    assert counts.max() <= 75
    assert (table.groupby(["font", "bank", "program"])["velocity"].nunique() == 2).all()
    # One group for the two fonts that share samples.
    assert (table.groupby("group")["font"].nunique() == 2).any()


def test_the_plan_for_pitch() -> None:
    rows = plan_pitch(ALL_PROGRAMS)
    table = check_plan(rows)
    assert rows == plan_pitch({font: ALL_PROGRAMS[font][::-1] for font in reversed(FONTS)})
    assert sorted(set(table["label"])) == [f"{key:03d}" for key in range(21, 109)]
    assert (table["label"].astype(int) == table["key"]).all()
    assert (pd.crosstab(table["label"], table["fold"]) == 9).all().all()
    assert (table.groupby(["fold", "key"])["font"].count() == 9).all()
    assert not table.duplicated(["font", "bank", "program", "key"]).any()
    # Drums, effects, organs, bells and fifths have no one pitch that the key tells.
    assert not set(table["program"]) & {14, *range(16, 20), 31, 47, 55, 86, 87, *range(96, 128)}


@pytest.fixture
def packages(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "packages")
    for i, font in enumerate(FONTS.values()):
        # Differences between the fonts, so that no two notes are the same.
        presets = [
            Tiny(0, program, f"p{program}", softer_cb=7 * i + n)
            for n, program in enumerate((0, 12, 33, 42, 56, 73))
        ]
        write_sf2(tree.package(font.package) / "usr/share/sounds" / font.file, presets)
    return tree


@pytest.mark.parametrize("name", ["instrument", "pitch"])
def test_the_recipes(
    packages: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    monkeypatch.setattr(soundfonts, "_KEYS", range(58, 64))
    said: list[str] = []
    recipe = RECIPES[name]
    frame = recipe.build(packages.packages(), tmp_path / "made", said.append)
    check_frame(frame)
    assert len(said) == 4
    lengths = {soundfile.info(path).duration for path in frame["path"]}
    assert lengths == {4.0 if name == "instrument" else 1.5}
    for path, label in zip(frame["path"], frame["label"], strict=True):
        samples, _ = soundfile.read(path, dtype="float32")
        key = int(Path(path).stem.split("_")[3])
        assert hertz(samples[:16_000]) == pytest.approx(440 * 2 ** ((key - 69) / 12), rel=3e-3)
        assert name == "instrument" or int(label) == key
    pd.testing.assert_frame_equal(
        recipe.build(packages.packages(), tmp_path / "made", said.append), frame
    )
    assert len(said) == 4


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path / "packages")
    tree.package("csound-soundfont")
    with pytest.raises(DataError, match=r"holds no sf_GMbank.sf2"):
        RECIPES["pitch"].build(tree.packages(), tmp_path / "made", None)
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(OssicleError, match="pip install --no-deps tinysoundfont"):
        SoundFont(write_sf2(tmp_path / "a.sf2", [Tiny(0, 0, "a")]))


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no font at all" * 99])
def test_what_is_no_font_is_told(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    (tmp_path / "x.sf2").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.sf2: cannot be read as a SoundFont"):
        SoundFont(tmp_path / "x.sf2")
