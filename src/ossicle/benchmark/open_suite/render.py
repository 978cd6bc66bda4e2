"""SoundFonts played into files: single notes, and MIDI events. Files made before are found again.

TinySoundFont (https://github.com/schellingb/TinySoundFont, MIT, in the wheel `tinysoundfont`)
renders at 44.1 kHz, the rate of most samples, since it reads them without a filter: at 16 kHz it
would alias. soxr then takes the sound to 16 kHz. Symbols: N samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.audio import Audio, resample, save
from ossicle.errors import DataError, OssicleError
from ossicle.record import replaced

SAMPLE_RATE = 16_000
PERCUSSION = 9  # MIDI's channel 10
_RATE = 44_100
_BANKS = 128  # bank 128 holds drum kits
_VOICES = 256
_LOUDEST = 0.9
# Below a font's loudest: 16 bits leave no more than 9 there, and most such notes are a release
# noise or a zone that the font has not.
_SILENT_DB = -40.0
_INDEX = "rendered.json"

Row = dict[str, Any]


class Preset(NamedTuple):
    """An instrument of a SoundFont.

    Attributes:
        bank: 0 for the General MIDI set.
        program: 0-127.
        name: as in the font.
    """

    bank: int
    program: int
    name: str


class Event(NamedTuple):
    """Something that happens in a piece.

    Attributes:
        time: s from its beginning.
        channel: 0-15.
        kind: "on" (key, velocity), "off" (key), "program" (number), "control" (number, value) or
            "bend" (value of 0-16383).
        values: as the kind has them.
    """

    time: float
    channel: int
    kind: str
    values: tuple[int, ...]


class SoundFont:
    """A loaded SoundFont; each sound is as if it were the first.

    Args:
        path: an .sf2 or .sf3 file.

    Raises:
        OssicleError: tinysoundfont is not installed.
        DataError: the file is no SoundFont.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            from tinysoundfont import Synth
        except ImportError as error:
            raise OssicleError(
                "SoundFonts need tinysoundfont: pip install --no-deps tinysoundfont"
            ) from error
        self.path = Path(path)
        self._synth = Synth(samplerate=_RATE)
        try:
            # Bytes: a name that the file system's locale cannot hold does not matter then.
            self._id = self._synth.sfload(self.path.read_bytes(), max_voices=_VOICES)
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read as a SoundFont ({error})") from error

    def presets(self) -> list[Preset]:
        """All but drum kits, by bank and program."""
        found = (
            Preset(bank, program, (name or "").strip())
            for bank in range(_BANKS)
            for program in range(128)
            if (name := self._synth.sfpreset_name(self._id, bank, program)) is not None
        )
        return list(found)

    def note(
        self, bank: int, program: int, key: int, velocity: int, *, held_s: float, length_s: float
    ) -> np.ndarray:
        """(N,) float32 at 16 kHz, mono, not scaled: may go beyond [-1, 1].

        Args:
            bank: of the preset.
            program: of the preset.
            key: MIDI number, 60 for middle C.
            velocity: 1-127.
            held_s: until the key is let go, in s.
            length_s: of the sound, in s.

        Raises:
            DataError: the font has no such preset.
        """
        self._reset()
        try:
            self._synth.program_select(0, self._id, bank, program)
        except RuntimeError as error:
            raise DataError(f"{self.path}: has no preset {bank}:{program}") from error
        self._synth.noteon(0, key, velocity)
        held = self._take(round(held_s * _RATE))
        self._synth.noteoff(0, key)
        rest = self._take(round(length_s * _RATE) - len(held))
        return resample(np.concatenate([held, rest]), _RATE, SAMPLE_RATE)

    def play(self, events: Iterable[Event], *, onset_s: float, length_s: float) -> np.ndarray:
        """(N,) float32 at 16 kHz, mono, not scaled: an excerpt of a piece.

        Channel 10 plays the font's drum kits. A program that the font has not in the chosen bank
        is taken from bank 0.

        Args:
            events: in any order; those at one time keep it.
            onset_s: where the excerpt begins, in s; what was played before sounds on.
            length_s: of the excerpt, in s.
        """
        self._reset()
        for channel in range(16):
            self._program(channel, 0)
        end = round((onset_s + length_s) * _RATE)
        parts, now = [], 0
        for event in sorted(events, key=lambda event: event.time):
            at = min(round(event.time * _RATE), end)
            if at > now:
                parts.append(self._take(at - now))
                now = at
            if at == end:
                break
            self._send(event)
        parts.append(self._take(end - now))
        piece = np.concatenate(parts)[round(onset_s * _RATE) :]
        return resample(piece, _RATE, SAMPLE_RATE)

    def _reset(self) -> None:
        self._synth.soundfonts[self._id].reset()
        # Voices fade within 10 ms, by TinySoundFont's fast release, which rounds to its blocks.
        for _ in range(20):
            if not self._take(_RATE // 20).any():
                return

    def _program(self, channel: int, program: int) -> None:
        with suppress(RuntimeError):  # not there: it keeps what it plays, as synthesisers do
            self._synth.program_change(channel, program, channel == PERCUSSION)

    def _send(self, event: Event) -> None:
        synth, channel, values = self._synth, event.channel, event.values
        if event.kind == "on" and values[1] > 0:
            synth.noteon(channel, *values)
        elif event.kind in ("on", "off"):
            synth.noteoff(channel, values[0])
        elif event.kind == "program":
            self._program(channel, values[0])
        elif event.kind == "control":
            synth.control_change(channel, *values)
        elif event.kind == "bend":
            synth.pitchbend(channel, *values)

    def _take(self, frames: int) -> np.ndarray:
        if frames <= 0:
            return np.zeros(0, np.float32)
        stereo = np.frombuffer(self._synth.generate(frames), np.float32)
        return stereo.reshape(-1, 2).mean(axis=1)


def player() -> str:
    """Name and version of what plays, or "" where it is not installed."""
    try:
        return f"tinysoundfont {version('tinysoundfont')}"
    except ImportError:
        return ""


def read_midi(path: str | os.PathLike[str]) -> list[Event]:
    """The events of a standard MIDI file, with its tempo reckoned in.

    Raises:
        OssicleError: tinysoundfont is not installed.
        DataError: no MIDI file.
    """
    try:
        from tinysoundfont import midi
    except ImportError as error:
        raise OssicleError(
            "MIDI files need tinysoundfont: pip install --no-deps tinysoundfont"
        ) from error
    try:
        found = midi.load(os.fspath(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: cannot be read as MIDI ({error})") from error
    kinds: dict[type, tuple[str, tuple[str, ...]]] = {
        midi.NoteOn: ("on", ("key", "velocity")),
        midi.NoteOff: ("off", ("key",)),
        midi.ProgramChange: ("program", ("program",)),
        midi.ControlChange: ("control", ("control", "control_value")),
        midi.PitchBend: ("bend", ("pitch_bend",)),
    }
    events = []
    for item in found:
        kind, names = kinds[type(item.action)]
        values = tuple(int(getattr(item.action, name)) for name in names)
        events.append(Event(float(item.t), int(item.channel), kind, values))
    return events


def rendered(
    folder: Path,
    plan: Sequence[Row],
    fonts: Mapping[str, SoundFont],
    sound: Callable[[SoundFont, Row], np.ndarray],
    sources: Sequence[Mapping[str, Any]],
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Plays a plan into FLAC files, or finds the files where the same plan was played before.

    Each font has one gain for all its sounds, so that loud and soft stay so and nothing clips.
    What is silent, 40 dB below the font's loudest, is left out.

    Args:
        folder: for the files; made where missing.
        plan: a row a sound, ready for JSON: path (file name), font, and what ``sound`` reads.
        fonts: name of the font in the plan -> the font.
        sound: (font, row) -> (N,) at 16 kHz.
        sources: what the sounds depend on besides the plan, such as versions and checksums.
        progress: called with a line for each font.

    Returns:
        The rows of the plan that sound, in its order, with path absolute.

    Raises:
        DataError: a font has not what the plan asks for.
        AudioError: a file cannot be written.
    """
    folder = Path(folder).absolute()
    told = json.dumps([list(plan), list(sources), player(), _SILENT_DB], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()
    names = _found(folder, key)
    if names is None:
        folder.mkdir(parents=True, exist_ok=True)
        # Stopped half-way, the folder must not pass for what it was.
        (folder / _INDEX).unlink(missing_ok=True)
        audible: set[str] = set()
        for name, font in fonts.items():
            rows = [row for row in plan if row["font"] == name]
            if progress and rows:
                progress(f"playing {len(rows)} sounds of {font.path.name}")
            audible |= _play(folder, font, rows, sound)
        names = sorted(audible)
        with replaced(folder / _INDEX) as part:
            part.write_text(json.dumps({"key": key, "kept": names}) + "\n", encoding="utf-8")
    there = set(names)
    kept = [row for row in plan if row["path"] in there]
    return pd.DataFrame([{**row, "path": str(folder / row["path"])} for row in kept])


def _play(
    folder: Path,
    font: SoundFont,
    rows: Sequence[Row],
    sound: Callable[[SoundFont, Row], np.ndarray],
) -> set[str]:
    sounds = {row["path"]: sound(font, row) for row in rows}
    peaks = {name: float(np.abs(samples).max()) for name, samples in sounds.items()}
    loudest = max(peaks.values(), default=0.0)
    floor = loudest * 10 ** (_SILENT_DB / 20)
    audible = {name for name, peak in peaks.items() if peak > 0 and peak >= floor}
    for name in sorted(audible):
        target = folder / name
        save(target, Audio(sounds[name][None] * np.float32(_LOUDEST / loudest), SAMPLE_RATE))
    return audible


def _found(folder: Path, key: str) -> list[str] | None:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        names = [str(name) for name in index["kept"]]
        same = index["key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return None
    there = same and all((folder / name).is_file() for name in names)
    return names if there else None
