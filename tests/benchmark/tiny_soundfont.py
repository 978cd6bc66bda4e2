"""SoundFonts of one sine, written by the SoundFont 2.01 specification, sections 4 to 7."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 44_100
ROOT = 69  # the sample is the A of 440 Hz
HERTZ = 441.0  # 100 frames a period: the loop closes exactly
TUNING = 1200 * np.log2(440 / HERTZ)  # cents that make it 440 Hz


class Tiny(NamedTuple):
    """A preset: its keys beyond ``keys`` are silent; ``softer_cb`` is in centibels."""

    bank: int
    program: int
    name: str
    keys: tuple[int, int] = (0, 127)
    softer_cb: int = 0


def write_sf2(path: Path, presets: Sequence[Tiny]) -> Path:
    """A file with an instrument for each preset."""
    sine = 0.5 * np.sin(2 * np.pi * np.arange(RATE) * HERTZ / RATE)
    samples = np.concatenate([np.round(sine * 32767), np.zeros(46)]).astype("<i2").tobytes()
    phdr, pbag, pgen = b"", b"", b""
    inst, ibag, igen = b"", b"", b""
    for number, preset in enumerate(presets):
        low, high = preset.keys
        phdr += _name(preset.name) + struct.pack(
            "<HHHIII", preset.program, preset.bank, number, 0, 0, 0
        )
        pbag += struct.pack("<HH", number, 0)
        pgen += struct.pack("<HH", 41, number)
        inst += _name(preset.name) + struct.pack("<H", number)
        ibag += struct.pack("<HH", 5 * number, 0)
        igen += struct.pack("<HBB", 43, low, high) + struct.pack("<HH", 48, preset.softer_cb)
        igen += struct.pack("<Hh", 52, round(TUNING)) + struct.pack("<HH", 54, 1)
        igen += struct.pack("<HH", 53, 0)
    many = len(presets)
    phdr += _name("EOP") + struct.pack("<HHHIII", 0, 0, many, 0, 0, 0)
    pbag += struct.pack("<HH", many, 0)
    pgen += struct.pack("<HH", 0, 0)
    inst += _name("EOI") + struct.pack("<H", many)
    ibag += struct.pack("<HH", 5 * many, 0)
    igen += struct.pack("<HH", 0, 0)
    shdr = _name("sine") + struct.pack("<IIIIIBbHH", 0, RATE, 100, RATE - 100, RATE, ROOT, 0, 0, 1)
    shdr += _name("EOS") + struct.pack("<IIIIIBbHH", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    pdta = {
        **{"phdr": phdr, "pbag": pbag, "pmod": bytes(10), "pgen": pgen},
        **{"inst": inst, "ibag": ibag, "imod": bytes(10), "igen": igen, "shdr": shdr},
    }
    info = _chunk("ifil", struct.pack("<HH", 2, 1)) + _chunk("INAM", b"tiny\0\0")
    body = _chunk("LIST", b"INFO" + info) + _chunk("LIST", b"sdta" + _chunk("smpl", samples))
    body += _chunk("LIST", b"pdta" + b"".join(_chunk(k, v) for k, v in pdta.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_chunk("RIFF", b"sfbk" + body))
    return path


def _name(text: str) -> bytes:
    return text.encode().ljust(20, b"\0")


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(data)) + data
