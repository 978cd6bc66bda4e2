"""Excerpts of games' MIDI files, faster or slower and in other keys, played by two sets of sounds.

A style is told where the title says it ("Stephenson blues"); nothing else is labelled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ossicle.benchmark.open_suite.render import (
    PERCUSSION,
    Event,
    Row,
    read_midi,
)
from ossicle.benchmark.packages import Packages
from ossicle.corpus.played import fonts, source, told_by, write_played
from ossicle.errors import DataError

MUSIC = ("freedink-data", "openttd-openmsx", "simutrans-data")
LENGTH_S = 8.0
EXCERPTS = 690  # about 1.5 hours
_SPEED = (0.8, 1.25)
_SHIFT = 5  # semitones up or down
_LEVEL_DB = (-14.0, -1.0)
# Notes that began this long before still sound.
_BEFORE_S = 3.0
_STYLES = {
    **{"blues": r"\bblues\b", "boogie": r"\bboogi", "house": r"^house\b", "march": r"\bmarch$"},
    **{"rock": r"\brocking?\b", "swing": r"\bswing$", "techno": r"\btechno\b"},
}


def style_of(name: str) -> str | None:
    """The style that the name of a MIDI file tells, such as blues of ``13-Stephenson-blues``."""
    title = " ".join(re.findall(r"[a-z]+", name.lower()))
    told = [style for style, pattern in _STYLES.items() if re.search(pattern, title)]
    return told[0] if len(told) == 1 else None


def plan_tunes(
    lengths: Mapping[tuple[str, str], float], sets: Sequence[str], seed: int
) -> list[Row]:
    """Which excerpts are played.

    Pieces by turns, each round in another order, so that a piece has as many excerpts as any.

    Args:
        lengths: (package, name of the file without its suffix) -> s from its first note to its
            last.
        sets: the instruments' packages, by turns too.
        seed: of all that is drawn.

    Returns:
        Rows: path, package, piece, instruments, group (package and piece), onset_s (after the
        first note, at the piece's own tempo), speed, shift (semitones), level_db.
    """
    drawn = random.Random(f"tunes {seed}")
    pieces = sorted(lengths)
    deck: list[tuple[str, str]] = []
    rows: list[Row] = []
    for number in range(EXCERPTS if pieces else 0):
        if not deck:
            deck = drawn.sample(pieces, len(pieces))
        package, piece = deck.pop()
        speed = drawn.uniform(*_SPEED)
        onset = drawn.uniform(0, max(0.0, lengths[package, piece] - LENGTH_S * speed))
        rows.append(
            {
                "path": f"{package}_{number:04d}.flac",
                "package": package,
                "piece": piece,
                "instruments": drawn.choice(list(sets)),
                "group": f"{package}:{piece}",
                "onset_s": round(onset, 3),
                "speed": round(speed, 4),
                "shift": drawn.randint(-_SHIFT, _SHIFT),
                "level_db": round(drawn.uniform(*_LEVEL_DB), 2),
            }
        )
    return rows


def excerpt(events: Sequence[Event], row: Row) -> list[Event]:
    """The events of an excerpt, `_BEFORE_S` earlier than it begins, at its tempo and in its key.

    What was chosen before (programs, controls, bends) is chosen at its beginning; drums keep their
    keys.

    Args:
        events: of the whole piece.
        row: of ``plan_tunes``.
    """
    speed, shift = row["speed"], row["shift"]
    begin = span(events)[0] + row["onset_s"] - _BEFORE_S * speed
    end = begin + (_BEFORE_S + LENGTH_S) * speed
    found = []
    for event in sorted(events, key=lambda event: event.time):
        note = event.kind in ("on", "off")
        if event.time >= end or (note and event.time < begin):
            continue
        values = event.values
        if note and event.channel != PERCUSSION:
            values = (min(max(values[0] + shift, 0), 127), *values[1:])
        found.append(event._replace(time=max(0.0, (event.time - begin) / speed), values=values))
    return found


def span(events: Sequence[Event]) -> tuple[float, float]:
    """When the first note of a piece begins and when the last one does, in s.

    Raises:
        DataError: it has no notes.
    """
    times = [event.time for event in events if event.kind == "on" and event.values[1] > 0]
    if not times:
        raise DataError("the MIDI file has no notes")
    return min(times), max(times)


def write_tunes(
    folder: Path,
    packages: Packages,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Plays the excerpts into FLAC files of 16 kHz, mono, or finds what the same plan left.

    Args:
        folder: for the files; made where missing.
        packages: where MIDI files and instruments are, or are fetched to.
        seed: of what is played.
        progress: called with a line from time to time.

    Returns:
        The manifest's rows: path (relative to the folder), label (``rhythm:STYLE`` or nothing),
        group, package (of the MIDI file), version, licence (of both).

    Raises:
        DownloadError: a package cannot be had.
        OssicleError: tinysoundfont is not installed.
        DataError: a package has no instruments, or a MIDI file cannot be read.
    """
    loaded = fonts(packages)
    sources = {name: source(packages, name) for name in (*MUSIC, *loaded)}
    pieces = read_pieces(packages, MUSIC)
    lengths = {}
    for name, events in pieces.items():
        first, last = span(events)
        lengths[name] = last - first
    programs = {
        name: [preset.program for preset in font.presets() if preset.bank == 0]
        for name, font in loaded.items()
    }
    plan = plan_tunes(lengths, sorted(loaded), seed)

    def played(row: Row) -> np.ndarray:
        events = excerpt(pieces[row["package"], row["piece"]], row)
        chosen = with_programs(events, programs[row["instruments"]])
        font = loaded[row["instruments"]]
        return font.play(chosen, onset_s=_BEFORE_S, length_s=LENGTH_S)

    return write_played(
        folder,
        [{**r, **told_by(sources[r["package"]], sources[r["instruments"]])} for r in plan],
        list(sources.values()),
        played,
        lambda row, _: f"rhythm:{style}" if (style := style_of(row["piece"])) else "",
        progress,
    )


def read_pieces(packages: Packages, names: Sequence[str]) -> dict[tuple[str, str], list[Event]]:
    """The MIDI files of packages: (package, name without suffix) -> events.

    Raises:
        DownloadError: a package cannot be had.
        DataError: a MIDI file cannot be read.
    """
    found = {}
    for name in names:
        for path in sorted(packages.files(name).rglob("*.mid")):
            found[name, path.stem] = read_midi(path)
    return found


def with_programs(events: Sequence[Event], programs: Sequence[int]) -> list[Event]:
    """Events with programs that are there: the nearest of the same eight, which are of one kind.

    Args:
        events: of a piece.
        programs: of the instruments at hand, 0-127; at least one.
    """
    found = []
    for event in events:
        if event.kind == "program" and event.channel != PERCUSSION:
            wanted = event.values[0]
            near = min(programs, key=lambda p: (p // 8 != wanted // 8, abs(p - wanted)))
            event = event._replace(values=(near,))
        found.append(event)
    return found
