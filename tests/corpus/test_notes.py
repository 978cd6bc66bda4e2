"""Notes for training: patches read, fonts made of them, and what is played.

Witnesses: bytes laid out here, a slow count of the card's volume register, spectra of sines.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.open_suite.render import Preset, SoundFont
from ossicle.benchmark.open_suite.soundfonts import FAMILIES, family_of
from ossicle.benchmark.packages import Packages
from ossicle.corpus import notes, played
from ossicle.corpus.gus_patch import PatchSample, Shape, read_patch
from ossicle.corpus.patch_font import KIT, Instrument, read_instruments, write_font
from ossicle.download import cache_dir
from ossicle.errors import DataError

RATE = 22_050
PLAIN = (63, 63, 63, 63, 63, 63), (246, 246, 246, 246, 246, 246)


def patch(
    data: bytes,
    modes: int,
    *,
    loop: tuple[int, int] = (0, 0),
    hertz: tuple[float, float, float] = (20.0, 8000.0, 440.0),
    shape: tuple[tuple[int, ...], tuple[int, ...]] = PLAIN,
    scale: int = 1024,
) -> bytes:
    """A patch of one sample, laid out by hand."""
    head = b"GF1PATCH110\0" + b"ID#000002\0" + b"made here".ljust(60, b"\0")
    head += bytes([1, 14, 0]) + struct.pack("<HHI", 1, 127, len(data)) + bytes(36)
    instrument = struct.pack("<H", 0) + bytes(16) + struct.pack("<IB", 0, 1) + bytes(40)
    layer = bytes(2) + struct.pack("<IB", 0, 1) + bytes(40)
    low, high, root = (round(1000 * value) for value in hertz)
    sample = b"one".ljust(7, b"\0") + bytes(1) + struct.pack("<III", len(data), *loop)
    sample += struct.pack("<HIIIhB", RATE, low, high, root, 1, 7)
    sample += bytes(shape[0]) + bytes(shape[1]) + bytes(6) + bytes([modes])
    sample += struct.pack("<hH", 60, scale) + bytes(36)
    assert (len(head), len(instrument), len(layer), len(sample)) == (129, 63, 47, 96)
    return head + instrument + layer + sample + data


def read(tmp_path: Path, data: bytes) -> PatchSample:
    path = tmp_path / "000_One.pat"
    path.write_bytes(data)
    (found,) = read_patch(path)
    return found


def sine(hertz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.round(16_000 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def sample(hertz: float, low: float = 8.0, high: float = 13_000.0, **more: object) -> PatchSample:
    return PatchSample(sine(hertz), RATE, low, high, hertz, **more)  # type: ignore[arg-type]


def heard(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(np.argmax(spectrum) * 16_000 / (1 << 18))


def font_of(tmp_path: Path, *instruments: Instrument) -> SoundFont:
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    write_font(tmp_path / "made.sf2", instruments)
    return SoundFont(tmp_path / "made.sf2")


VALUES = np.array([0, 5, -7, 100, -32768, 32767, 12, -1], np.int16)


@pytest.mark.parametrize(
    ("data", "modes", "wanted"),
    [
        (VALUES.astype("<i2").tobytes(), 1, VALUES),
        ((VALUES.astype(np.int32) + 32768).astype("<u2").tobytes(), 3, VALUES),
        (bytes([0, 1, 255, 128]), 0, [0, 256, -256, -32768]),
        (bytes([128, 129, 127, 0]), 2, [0, 256, -256, -32768]),
        (VALUES.astype("<i2").tobytes(), 17, VALUES[::-1]),
    ],
    ids=["16 bits", "unsigned", "8 bits", "8 bits unsigned", "backwards"],
)
def test_the_frames_of_a_patch(tmp_path, data, modes, wanted):
    found = read(tmp_path, patch(data, modes))
    assert found.frames.dtype == np.int16
    assert found.frames.tolist() == list(wanted)
    assert found.rate == RATE
    assert (found.low_hz, found.high_hz, found.root_hz, found.scale) == (20.0, 8000.0, 440.0, 1.0)
    assert found.loop is None


def test_loops_are_told_in_frames_and_written_out_forwards(tmp_path):
    data = VALUES.astype("<i2").tobytes()
    assert read(tmp_path, patch(data, 5, loop=(4, 12))).loop == (2, 6)
    both = read(tmp_path, patch(data, 13, loop=(4, 12)))
    # There and back, the ends once each.
    first, after = both.loop
    around = np.concatenate([both.frames[:after], both.frames[first:after]])
    assert around.tolist() == VALUES[[0, 1, 2, 3, 4, 5, 4, 3, 2, 3, 4, 5, 4, 3]].tolist()
    back = read(tmp_path, patch(data, 21, loop=(4, 10)))
    assert back.frames[slice(*back.loop)].tolist() == VALUES[2:5][::-1].tolist()


def falls(rate: int, begin: int, end: int) -> float:
    """Seconds until the volume register, 12 bits, has come from one level of 8 bits to another."""
    wait, step = 8 ** (rate // 64), rate % 64
    register, ticks = begin * 16, 0
    while register > end * 16:
        register -= step
        ticks += wait
    return ticks / 44_100


def test_the_level_moves_as_the_card_moves_it(tmp_path):
    rates, levels = (63, 140, 70, 200, 63, 63), (246, 200, 150, 0, 0, 0)
    data = VALUES.astype("<i2").tobytes()
    shape = read(tmp_path, patch(data, 101, loop=(0, 8), shape=(rates, levels))).shape
    wanted = falls(140, 246, 200) + falls(70, 200, 150)
    assert shape.drop_s == pytest.approx(wanted, rel=0.01)
    assert shape.drop_db == pytest.approx((246 - 150) / 16 * 20 * np.log10(2))
    whole_db = 150 / 16 * 20 * np.log10(2)
    assert whole_db / shape.release_db_s == pytest.approx(falls(200, 150, 0), rel=0.01)
    # Without the bit that says "sustain" it falls on while the key is held.
    on = read(tmp_path, patch(data, 69, loop=(0, 8), shape=(rates, levels))).shape
    assert on.drop_db == np.inf
    assert on.drop_s == pytest.approx(wanted + falls(200, 150, 0), rel=0.01)


def test_what_is_no_patch_is_told(tmp_path):
    path = tmp_path / "000_One.pat"
    with pytest.raises(DataError, match="cannot be read"):
        read_patch(path)
    path.write_bytes(b"RIFF" * 100)
    with pytest.raises(DataError, match="is no patch file"):
        read_patch(path)
    whole = patch(VALUES.tobytes(), 1)
    for size in (len(whole) - 1, 250, 200):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="000_One.pat: is damaged"):
            read_patch(path)
    with pytest.raises(DataError, match="holds no patches"):
        read_instruments(tmp_path / "nothing")


def test_patches_of_a_folder_have_their_places(tmp_path):
    data = patch(sine(440).tobytes(), 1)
    names = "Tone_000/056_A_Trumpet.pat", "Drum_000/035_Kick_1.pat", "Tone_000/readme.pat"
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = [(item.bank, item.program, item.name) for item in read_instruments(tmp_path)]
    assert found == [(0, 56, "A Trumpet"), (KIT, 35, "Kick 1")]


def test_a_font_of_patches_sounds_at_the_key(tmp_path):
    # 452 Hz: between keys, so that cents matter.
    font = font_of(tmp_path, Instrument(0, 40, "V", [sample(452.0, loop=(0, RATE))]))
    assert font.presets() == [Preset(0, 40, "V")]
    for key in (45, 60, 69, 84):
        sound = font.note(0, 40, key, 100, held_s=1.4, length_s=1.5)
        assert heard(sound[:16_000]) == pytest.approx(440 * 2 ** ((key - 69) / 12), rel=2e-3)
        assert played.has_pitch(sound[:16_000], key)


def test_only_the_loop_goes_on(tmp_path):
    wave = np.concatenate([sine(1500.0, 0.2), sine(441.0, 0.2)])
    made = PatchSample(wave, RATE, 8.0, 13_000.0, 440.0, loop=(len(wave) // 2, len(wave)))
    font = font_of(tmp_path, Instrument(0, 0, "P", [made]))
    sound = font.note(0, 0, 69, 100, held_s=1.5, length_s=1.5)
    assert heard(sound[:3000]) == pytest.approx(1500.0, rel=5e-3)
    assert heard(sound[4000:]) == pytest.approx(441.0, rel=5e-3)
    once = font_of(tmp_path, Instrument(0, 0, "P", [made._replace(loop=None)]))
    assert np.abs(once.note(0, 0, 69, 100, held_s=1.5, length_s=1.5)[7000:]).max() < 1e-4


def test_each_key_has_the_sample_of_its_range(tmp_path):
    # Told to be other pitches than they are, so that it is heard which one plays.
    low = sample(300.0, 8.0, 261.0)._replace(root_hz=200.0)
    high = sample(500.0, 262.0, 900.0)._replace(root_hz=400.0)
    font = font_of(tmp_path, Instrument(0, 0, "P", [low, high]))
    for key, factor in ((40, 1.5), (59, 1.5), (61, 1.25), (80, 1.25), (90, 1.25)):
        hertz = 440 * 2 ** ((key - 69) / 12)
        sound = font.note(0, 0, key, 100, held_s=0.3, length_s=0.3)
        assert heard(sound) == pytest.approx(factor * hertz, rel=5e-3)


def test_a_drum_sounds_as_it_was_recorded_at_its_key_only(tmp_path):
    kick, hat = Instrument(KIT, 36, "K", [sample(150.0)]), Instrument(KIT, 42, "H", [sample(900.0)])
    font = font_of(tmp_path, Instrument(0, 0, "P", [sample(440.0)]), kick, hat)
    row = {"kind": "drum", "program": 0, "velocity": 100, "step_s": 0.0, "held_s": 0.5}
    for key, hertz in ((36, 150.0), (42, 900.0), (50, None)):
        sound = font.play(notes.events_of({**row, "keys": [key]}), onset_s=0, length_s=0.5)
        if hertz is None:
            assert not sound.any()
        else:
            assert heard(sound) == pytest.approx(hertz, rel=2e-3)


def test_levels_fall_and_stay_as_the_patch_says(tmp_path):
    def levels(shape: Shape) -> tuple[float, float, float]:
        made = sample(440.0, loop=(0, RATE), shape=shape)
        font = font_of(tmp_path, Instrument(0, 0, "P", [made]))
        sound = font.note(0, 0, 69, 127, held_s=1.5, length_s=2.5)
        parts = sound[1600:3200], sound[20_000:22_000], sound[36_000:]
        return tuple(20 * np.log10(np.sqrt(np.mean(part**2)) + 1e-9) for part in parts)

    begin, later, after = levels(Shape())
    assert later == pytest.approx(begin, abs=0.1)
    assert after < begin - 60
    begin, later, _ = levels(Shape(drop_db=12.0, drop_s=0.05))
    assert begin == pytest.approx(later, abs=0.1)
    assert begin == pytest.approx(levels(Shape())[0] - 12, abs=0.5)
    begin, later, _ = levels(Shape(drop_db=np.inf, drop_s=0.5))
    assert later < begin - 40
    # What sounds out does not mind the key.
    begin, _, after = levels(Shape(release_db_s=0.0))
    assert after > begin - 6


@pytest.mark.parametrize(
    ("tones", "key", "wanted"),
    [
        ([(1, 1.0)], 69, True),
        ([(1, 0.3), (2, 1.0), (3, 0.5)], 69, True),
        ([(2, 1.0), (3, 1.0)], 69, True),  # without its fundamental
        ([(1, 1.0)], 70, False),
        ([(1, 1.0)], 57, False),  # an octave above what the key says
        ([(1, 1.0)], 81, False),
        ([(3, 1.0)], 69, False),
        ([(1, 0.2), (2, 1.0)], 81, False),  # a weak tone an octave below
        ([(1, 1.0), (1.5, 1.0)], 69, False),  # a fifth with it
    ],
)
@pytest.mark.parametrize("octave", [-3, 0, 3])
def test_a_pitch_is_told_where_it_sounds(tones, key, wanted, octave):
    t = np.arange(8000) / 16_000
    hertz = 440 * 2.0**octave
    sound = sum(level * np.sin(2 * np.pi * times * hertz * t) for times, level in tones)
    if max(times for times, _ in tones) * hertz < 8000:
        assert played.has_pitch(sound, key + 12 * octave) is wanted


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(8000)
    assert not any(played.has_pitch(noise, key) for key in range(21, 109, 8))
    assert not played.has_pitch(np.zeros(8000), 69)


EVERY = {name: [Preset(0, program, "") for program in range(128)] for name in ("a", "b")}


def test_the_plan_is_balanced_and_as_drawn_by_its_seed():
    plan = notes.plan_notes(EVERY, 0)
    assert plan == notes.plan_notes(EVERY, 0)
    assert plan != notes.plan_notes(EVERY, 1)
    assert len({row["path"] for row in plan}) == len(plan)
    assert Counter(row["package"] for row in plan) == {
        name: notes.SINGLE + notes.TOGETHER + notes.DRUMS for name in EVERY
    }
    families = Counter(
        family_of(Preset(0, row["program"], "")) for row in plan if row["kind"] != "drum"
    )
    assert set(families) == {None, *FAMILIES}
    some = [count for name, count in families.items() if name]
    assert max(some) < 2.5 * min(some)
    keys = Counter(row["keys"][0] for row in plan if row["kind"] == "note")
    assert set(keys) == set(range(21, 109))
    assert min(keys.values()) >= 10
    for row in plan:
        assert 0.5 <= row["length_s"] <= 2 and 0 < row["held_s"] <= row["length_s"]
        assert -20 <= row["level_db"] <= -1
        assert row["keys"][-1] <= 108
        assert row["kind"] != "arpeggio" or row["step_s"] * len(row["keys"]) < row["length_s"]
        assert row["group"].startswith(f"{row['package']}:")


def test_instruments_that_are_not_there_are_not_played():
    plan = notes.plan_notes({"a": [Preset(0, 32, ""), Preset(8, 40, "x"), Preset(0, 127, "")]}, 0)
    tones = [row for row in plan if row["kind"] != "drum"]
    assert {row["program"] for row in tones} == {32}
    assert max(row["keys"][0] for row in tones) <= FAMILIES["bass"].keys[1] + 12


def test_facets_say_what_is_known():
    t = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * t)
    row = {"kind": "note", "program": 40, "keys": [69], "held_s": 0.8}
    assert notes.label_of(row, tone) == "pitch:69;instrument:string"
    assert notes.label_of({**row, "keys": [60]}, tone) == "instrument:string"
    assert notes.label_of({**row, "kind": "chord"}, tone) == "instrument:string"
    assert notes.label_of({**row, "program": 46}, tone) == "pitch:69;sound:harp"
    assert notes.label_of({**row, "program": 116}, tone) == "sound:taiko"
    assert notes.label_of({**row, "kind": "drum", "keys": [38]}, tone) == "sound:snare"


def test_what_is_played_is_written_once(tmp_path):
    plan = [
        {"path": f"{i}.flac", "group": "g", "package": "p", "version": "1", "licence": "l"}
        | {"level_db": -6.0, "gain": gain}
        for i, gain in enumerate((0.5, 0.0, 0.05))
    ]
    asked = []

    def sound(row):
        asked.append(row["path"])
        return np.float32(row["gain"]) * np.sin(np.arange(8000) / 5).astype(np.float32)

    def write(rows):
        return played.write_played(tmp_path / "x", rows, [], sound, lambda row, _: "sound:x")

    table = write(plan)
    assert table["path"].tolist() == ["0.flac", "2.flac"]
    assert list(table.columns) == list(played.COLUMNS)
    for name in table["path"]:
        samples, rate = soundfile.read(tmp_path / "x" / name)
        assert (rate, samples.shape) == (16_000, (8000,))
        assert np.abs(samples).max() == pytest.approx(10 ** (-6 / 20), abs=1e-3)
        assert abs(samples[-1]) < 1e-4
    assert len(asked) == 3
    assert write(plan).equals(table)
    assert len(asked) == 3
    (tmp_path / "x" / "0.flac").unlink()
    write(plan)
    assert len(asked) == 6
    write(plan[:2])
    assert len(asked) == 8


def test_the_suite_has_none_of_the_instruments():
    used = {package for recipe in RECIPES.values() for package in recipe.packages}
    assert not used & {played.OPL3, played.FREEPATS}


def test_real_instruments_play_what_they_are_told(tmp_path, monkeypatch):
    pytest.importorskip("tinysoundfont", reason="needs pip install --no-deps tinysoundfont")
    folder = cache_dir() / "data" / "packages"
    for name in (played.OPL3, played.FREEPATS):
        if not (folder / name).is_dir():
            pytest.skip(f"the package {name} is not at hand")
    for name, many in (("SINGLE", 60), ("TOGETHER", 6), ("DRUMS", 12)):
        monkeypatch.setattr(notes, name, many)
    table = notes.write_notes(tmp_path / "notes", Packages(folder), 3)
    assert len(table) > 140
    assert set(table["package"]) == {played.OPL3, played.FREEPATS}
    assert table["licence"].ne("").all()
    tones = table[table["path"].str.contains("_note_")]
    pitched = tones[tones["label"].str.contains("pitch:")]
    assert len(pitched) > 0.7 * len(tones)
    for row in pitched.itertuples():
        key = int(row.label.split(";")[0].removeprefix("pitch:"))
        assert row.path.endswith(f"_{key:03d}.flac")
        samples, _ = soundfile.read(tmp_path / "notes" / row.path)
        assert np.abs(samples).max() > 0.09
