"""Patches of a GUS put together into a SoundFont, so that what plays one can play the other.

The file is written by the "SoundFont Technical Specification", version 2.01, sections 4 to 8:
each patch an instrument, each of its samples a zone. What SoundFonts say in other units is
reckoned over: times in timecents, levels in centibels, pitch in keys and cents.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ossicle.corpus.gus_patch import PatchSample, read_patch
from ossicle.errors import DataError

KIT = 128  # the bank of drum kits
_KEYS = 128
_APART = 46  # silent frames after each sample, by the specification
# A fall by which times of falling are told.
_FALL_DB = 100.0
_SILENT_CB = 1000
_NAMED = re.compile(r"(\d{3})_(.+)$")
_GENERATORS = {
    **{"attack": 34, "decay": 36, "sustain": 37, "release": 38, "instrument": 41},
    **{"keys": 43, "attenuation": 48, "fine": 52, "sample": 53, "modes": 54, "scale": 56},
    "root": 58,
}


class Instrument(NamedTuple):
    """A patch at its place.

    Attributes:
        bank: 0, or `KIT` for a sound of the drum kit.
        program: 0-127 of General MIDI; of a drum its key.
        name: from the file's.
        samples: of the patch.
    """

    bank: int
    program: int
    name: str
    samples: Sequence[PatchSample]


def read_instruments(folder: Path) -> list[Instrument]:
    """The patches below a folder, by bank and program.

    Args:
        folder: with files such as ``Tone_000/056_Trumpet.pat`` and ``Drum_000/035_Kick_1.pat``;
            the digits of a name are the program or the drum's key.

    Raises:
        DataError: a patch cannot be read, or there is none.
    """
    found = []
    for path in sorted(folder.rglob("*.pat")):
        named = _NAMED.match(path.stem)
        if named is None or int(named[1]) >= _KEYS:
            continue
        bank = KIT if path.parent.name.lower().startswith("drum") else 0
        if samples := read_patch(path):
            found.append(Instrument(bank, int(named[1]), named[2].replace("_", " "), samples))
    if not found:
        raise DataError(f"{folder}: holds no patches named such as 056_Trumpet.pat")
    return sorted(found, key=lambda item: (item.bank, item.program, item.name))


def write_font(path: Path, instruments: Iterable[Instrument]) -> None:
    """Writes a SoundFont (.sf2): a preset for each instrument, one kit for all drums.

    Args:
        path: of the file.
        instruments: from ``read_instruments``. Each is brought to full scale, as players of
            patches do.
    """
    instruments = list(instruments)
    tones = [[item] for item in instruments if item.bank != KIT]
    kit = [item for item in instruments if item.bank == KIT]
    sound: list[np.ndarray] = []
    tables = dict.fromkeys(("phdr", "pbag", "pgen", "inst", "ibag", "igen", "shdr"), b"")
    at = zones = many = 0
    presets = [*tones, *([kit] if kit else [])]
    for number, items in enumerate(presets):
        first = items[0]
        bank, program = (KIT, 0) if first.bank == KIT else (0, first.program)
        tables["phdr"] += _name(first.name if bank == 0 else "kit")
        tables["phdr"] += struct.pack("<HHHIII", program, bank, number, 0, 0, 0)
        tables["pbag"] += struct.pack("<HH", number, 0)
        tables["pgen"] += struct.pack("<HH", _GENERATORS["instrument"], number)
        tables["inst"] += _name(first.name) + struct.pack("<H", zones)
        for item in items:
            loudest = max(int(np.abs(s.frames.astype(np.int32)).max()) for s in item.samples)
            for sample, low, high in _spans(item):
                tables["ibag"] += struct.pack("<HH", len(tables["igen"]) // 4, 0)
                tables["igen"] += _zone(item, sample, (low, high), many)
                zones += 1
                frames = np.round(sample.frames * (32767 / max(loudest, 1))).astype("<i2")
                start, after = sample.loop or (0, len(frames))
                tables["shdr"] += _name(item.name) + struct.pack(
                    *("<IIIIIBbHH", at, at + len(frames), at + start, at + after),
                    *(sample.rate, 60, 0, 0, 1),
                )
                sound += [frames, np.zeros(_APART, "<i2")]
                at += len(frames) + _APART
                many += 1
    count = len(presets)
    tables["phdr"] += _name("EOP") + struct.pack("<HHHIII", 0, 0, count, 0, 0, 0)
    tables["pbag"] += struct.pack("<HH", count, 0)
    tables["pgen"] += bytes(4)
    tables["inst"] += _name("EOI") + struct.pack("<H", zones)
    tables["ibag"] += struct.pack("<HH", len(tables["igen"]) // 4, 0)
    tables["igen"] += bytes(4)
    tables["shdr"] += _name("EOS") + bytes(26)
    tables |= {"pmod": bytes(10), "imod": bytes(10)}
    order = ("phdr", "pbag", "pmod", "pgen", "inst", "ibag", "imod", "igen", "shdr")
    info = _chunk("ifil", struct.pack("<HH", 2, 1)) + _chunk("INAM", b"patches\0")
    smpl = _chunk("smpl", b"".join(frames.tobytes() for frames in sound))
    body = _chunk("LIST", b"INFO" + info) + _chunk("LIST", b"sdta" + smpl)
    body += _chunk("LIST", b"pdta" + b"".join(_chunk(name, tables[name]) for name in order))
    path.write_bytes(_chunk("RIFF", b"sfbk" + body))


def _spans(item: Instrument) -> list[tuple[PatchSample, int, int]]:
    """Each sample with its lowest and highest key; a drum's is its own key."""
    if item.bank == KIT:
        return [(item.samples[0], item.program, item.program)]
    chosen = [_for_key(item.samples, key) for key in range(_KEYS)]
    spans, first = [], 0
    for key in range(1, _KEYS + 1):
        if key == _KEYS or chosen[key] != chosen[first]:
            spans.append((item.samples[chosen[first]], first, key - 1))
            first = key
    return spans


def _for_key(samples: Sequence[PatchSample], key: int) -> int:
    """The sample whose range holds the key, else the one of the nearest root."""
    hertz = 440.0 * 2 ** ((key - 69) / 12)
    for i, sample in enumerate(samples):
        # mHz are cut off, so that a bound may lie a hair below its key.
        if sample.low_hz * 0.999 <= hertz <= sample.high_hz * 1.001:
            return i
    return min(range(len(samples)), key=lambda i: abs(math.log(samples[i].root_hz / hertz)))


def _zone(item: Instrument, sample: PatchSample, keys: tuple[int, int], number: int) -> bytes:
    shape = sample.shape
    pitch = 69 + 12 * math.log2(sample.root_hz / 440.0)
    # A drum sounds as it was recorded, whatever its key.
    root = item.program if item.bank == KIT else round(min(max(pitch, 0), _KEYS - 1))
    fine = 0 if item.bank == KIT else round(100 * (root - pitch) * sample.scale)
    drop_cb = min(round(10 * shape.drop_db), _SILENT_CB) if shape.drop_db < 1e3 else _SILENT_CB
    values = {
        "attack": _timecents(shape.attack_s),
        "decay": _timecents(shape.drop_s * _FALL_DB * 10 / max(drop_cb, 1)),
        "sustain": drop_cb,
        "release": _timecents(_FALL_DB / shape.release_db_s if shape.release_db_s else 100.0),
        "fine": max(-32768, min(fine, 32767)),
        "scale": round(100 * sample.scale),
        "root": root,
        "modes": int(sample.loop is not None),
    }
    told = struct.pack("<HBB", _GENERATORS["keys"], *keys)
    told += b"".join(struct.pack("<Hh", _GENERATORS[name], v) for name, v in values.items())
    return told + struct.pack("<HH", _GENERATORS["sample"], number)


def _timecents(seconds: float) -> int:
    return max(-12000, min(8000, round(1200 * math.log2(max(seconds, 1e-3)))))


def _name(text: str) -> bytes:
    return text.encode("ascii", "replace")[:19].ljust(20, b"\0")


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
