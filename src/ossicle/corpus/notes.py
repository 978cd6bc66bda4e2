"""Notes, chords and strokes of drums, played by instruments that the open suite does not use.

What is known of them becomes their facets: the key as `pitch`, where the sound itself repeats with
that period; NSynth's family as `instrument`; other instruments and drums as `sound`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.benchmark.open_suite.render import PERCUSSION, SAMPLE_RATE, Event, Preset, Row
from ossicle.benchmark.open_suite.soundfonts import FAMILIES, family_of
from ossicle.benchmark.packages import Packages
from ossicle.corpus.played import (
    FREEPATS,
    OPL3,
    fonts,
    has_pitch,
    source,
    told_by,
    write_played,
)

# Sounds of each kind that are planned for each package, some of which will be silent.
SINGLE, TOGETHER, DRUMS = 2300, 500, 400
_LENGTH_S = (0.5, 2.0)
_HELD = (0.3, 1.0)  # of the length
_LEVEL_DB = (-20.0, -1.0)
_VELOCITY = (30, 127)
_KEYS = (21, 108)  # a piano's
_MIDDLE = (36, 96)  # of what is in no family
_REACH = 12
_OTHER_SHARE = 0.2
# Programs of General MIDI in none of NSynth's families; noises from 119 on are left out.
OTHERS = {
    **{15: "dulcimer", 21: "accordion", 22: "harmonica", 23: "accordion", 46: "harp"},
    **{47: "timpani", **dict.fromkeys(range(88, 104), "pad"), 104: "sitar", 105: "banjo"},
    **{106: "shamisen", 107: "koto", 108: "kalimba", 109: "bagpipe", 110: "fiddle"},
    **{111: "shanai", 112: "bell", 113: "agogo", 114: "steel_drum", 115: "woodblock"},
    **{116: "taiko", 117: "tom", 118: "tom"},
}
_NO_PITCH = (113, 115, 116, 117, 118)
# General MIDI's keys of a drum kit, with GS's below 35 and above 81.
DRUM_KEYS = {
    **{25: "snare_roll", 26: "snap", 31: "sticks", 35: "kick", 36: "kick", 37: "rim"},
    **{38: "snare", 39: "clap", 40: "snare", 41: "tom", 42: "closed_hat", 43: "tom"},
    **{44: "closed_hat", 45: "tom", 46: "open_hat", 47: "tom", 48: "tom", 49: "crash"},
    **{50: "tom", 51: "ride", 52: "china", 53: "ride_bell", 54: "tambourine", 55: "splash"},
    **{56: "cowbell", 57: "crash", 58: "vibraslap", 59: "ride", 60: "bongo", 61: "bongo"},
    **{62: "conga", 63: "conga", 64: "conga", 65: "timbale", 66: "timbale", 67: "agogo"},
    **{68: "agogo", 69: "cabasa", 70: "maracas", 71: "whistle", 72: "whistle", 73: "guiro"},
    **{74: "guiro", 75: "claves", 76: "woodblock", 77: "woodblock", 78: "cuica"},
    **{79: "cuica", 80: "triangle", 81: "triangle", 82: "shaker", 84: "bell_tree"},
}
# Semitones above the lowest note.
_CHORDS = (
    *((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10), (0, 4, 7, 11), (0, 5, 7)),
    *((0, 3, 6), (0, 7, 12), (0, 12), (0, 7), (0, 4), (0, 4, 7, 12, 16)),
)


def plan_notes(presets: Mapping[str, Sequence[Preset]], seed: int) -> list[Row]:
    """What is played.

    Half of the single notes are drawn by family, so that each has as many, then over the family's
    range and an octave beyond, for keyboards and organs over a piano's; half by key, so that each
    has as many, then by a family that reaches it.

    Args:
        presets: package -> its presets.
        seed: of all that is drawn.

    Returns:
        Rows: path, package, group (package and program), kind ("note", "chord", "arpeggio" or
        "drum"), program, keys, velocity, step_s (between the beginnings of notes), held_s,
        length_s, level_db.
    """
    rows = []
    for package in sorted(presets):
        drawn = random.Random(f"notes {seed} {package}")
        able: dict[str, list[_Able]] = {}
        for preset in sorted(presets[package]):
            name = family_of(preset)
            if preset.bank == 0 and (name or preset.program in OTHERS):
                able.setdefault(name or "", []).append(_Able(preset.program, *_range(name)))
        for number in range(SINGLE + TOGETHER):
            kind = "note" if number < SINGLE else drawn.choice(("chord", "arpeggio"))
            # Every second note by its key first, or the highest and lowest would be rare.
            wanted = drawn.randint(*_KEYS) if kind == "note" and number % 2 else None
            chosen = _drawn_preset(able, wanted, drawn)
            if chosen is None:
                continue
            steps = (0,) if kind == "note" else drawn.choice(_CHORDS)
            key = wanted or drawn.randint(chosen.low, max(chosen.low, chosen.high - steps[-1]))
            keys = [key + step for step in steps]
            rows.append(_row(package, kind, number, chosen.program, keys, drawn))
        for number in range(DRUMS):
            key = drawn.choice(list(DRUM_KEYS))
            rows.append(_row(package, "drum", number, 0, [key], drawn))
    return rows


def events_of(row: Row) -> list[Event]:
    """What an instrument is told to play a row of ``plan_notes``."""
    channel = PERCUSSION if row["kind"] == "drum" else 0
    events = [Event(0.0, channel, "program", (row["program"],))]
    for number, key in enumerate(row["keys"]):
        begin = number * row["step_s"]
        end = max(begin + 0.05, row["held_s"])
        events.append(Event(begin, channel, "on", (key, row["velocity"])))
        events.append(Event(end, channel, "off", (key,)))
    return events


def label_of(row: Row, samples: np.ndarray) -> str:
    """The facets of a row of ``plan_notes``, with what it sounds: (N,) at 16 kHz."""
    if row["kind"] == "drum":
        return f"sound:{DRUM_KEYS[row['keys'][0]]}"
    program = row["program"]
    family = family_of(Preset(0, program, ""))
    facets = [f"instrument:{family}" if family else f"sound:{OTHERS[program]}"]
    if row["kind"] == "note" and program not in _NO_PITCH:
        # Before the key is let go, past the stroke.
        held = samples[: max(round(row["held_s"] * SAMPLE_RATE), SAMPLE_RATE // 4)]
        if has_pitch(held[len(held) // 8 :], row["keys"][0]):
            facets.insert(0, f"pitch:{row['keys'][0]}")
    return ";".join(facets)


def write_notes(
    folder: Path,
    packages: Packages,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Plays the notes into FLAC files of 16 kHz, mono, or finds what the same plan left.

    Args:
        folder: for the files; made where missing.
        packages: where the instruments are, or are fetched to.
        seed: of what is played.
        progress: called with a line from time to time.

    Returns:
        The manifest's rows: path (relative to the folder), label (facets, joined by ";"), group,
        package, version, licence.

    Raises:
        DownloadError: a package cannot be had.
        OssicleError: tinysoundfont is not installed.
        DataError: a package has no instruments.
    """
    loaded = fonts(packages)
    sources = {name: source(packages, name) for name in (FREEPATS, OPL3)}
    plan = plan_notes({name: font.presets() for name, font in loaded.items()}, seed)
    return write_played(
        folder,
        [{**row, **told_by(sources[row["package"]])} for row in plan],
        list(sources.values()),
        lambda row: loaded[row["package"]].play(
            events_of(row), onset_s=0.0, length_s=row["length_s"]
        ),
        label_of,
        progress,
    )


class _Able(NamedTuple):
    """A program with the lowest and the highest key that it may play."""

    program: int
    low: int
    high: int


def _drawn_preset(
    able: Mapping[str, Sequence[_Able]], key: int | None, drawn: random.Random
) -> _Able | None:
    """One whose range has the key, where there is a key."""
    reaching = {}
    for name in sorted(able):
        found = [item for item in able[name] if key is None or item.low <= key <= item.high]
        if found:
            reaching[name] = found
    families = [name for name in reaching if name]
    if "" in reaching and (not families or drawn.random() < _OTHER_SHARE):
        return drawn.choice(reaching[""])
    return drawn.choice(reaching[drawn.choice(families)]) if families else None


def _range(family: str | None) -> tuple[int, int]:
    if family is None:
        return _MIDDLE
    if family in ("keyboard", "organ"):
        return _KEYS
    low, high = FAMILIES[family].keys
    return max(_KEYS[0], low - _REACH), min(_KEYS[1], high + _REACH)


def _row(
    package: str, kind: str, number: int, program: int, keys: list[int], drawn: random.Random
) -> Row:
    length = drawn.uniform(*_LENGTH_S)
    step = 0.0
    if kind == "arpeggio":
        step = drawn.uniform(0.05, 0.6 * length / len(keys))
    where = "kit" if kind == "drum" else f"{program:03d}"
    return {
        "path": f"{package}_{kind}_{number:05d}_{where}_{keys[0]:03d}.flac",
        "package": package,
        "group": f"{package}:{where}",
        "kind": kind,
        "program": program,
        "keys": keys,
        "velocity": drawn.randint(*_VELOCITY),
        "step_s": round(step, 4),
        "held_s": round(length * drawn.uniform(*_HELD), 4),
        "length_s": round(length, 4),
        "level_db": round(drawn.uniform(*_LEVEL_DB), 2),
    }
