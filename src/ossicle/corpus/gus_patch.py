"""Instruments of the Gravis UltraSound, .pat files: recorded sounds with their keys and loops.

The layout is Forte Technologies' (GF1PATCH110, little endian): a header of 129 bytes, an instrument
of 63, a layer of 47, then each sample's header of 96 bytes with its data. Symbols: N frames.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ossicle.errors import DataError

_MAGIC = (b"GF1PATCH100\0", b"GF1PATCH110\0")
_HEADER, _INSTRUMENT = 129, 63
_LAYER = struct.Struct("<BBIB40x")
_SAMPLE = struct.Struct("<7sBIIIHIIIhB6B6B6xBhH36x")
_WIDE, _UNSIGNED, _LOOPED, _BOTH_WAYS, _BACKWARDS, _HOLDS, _SHAPED = (1 << i for i in range(7))
_SCALED = 1024  # a key is a semitone
# The volume is logarithmic: 16 steps an octave of amplitude, moved at 44.1 kHz at most.
_STEPS_DB = 20 * math.log10(2) / 16
_STEPS_A_S = 44_100 / 16
# The last 24 dB: what is below is not heard as a rise.
_HEARD_STEPS = 64


class Shape(NamedTuple):
    """How the level moves.

    Attributes:
        attack_s: until it is full.
        drop_db: from there until the key is let go, infinite for silence.
        drop_s: that the drop takes.
        release_db_s: dB a second after the key is let go; 0 where it sounds out.
    """

    attack_s: float = 0.0
    drop_db: float = 0.0
    drop_s: float = 0.0
    release_db_s: float = 200.0


class PatchSample(NamedTuple):
    """A recording of an instrument.

    Attributes:
        frames: (N,) int16, forwards.
        rate: Hz.
        low_hz: lowest frequency that it is for.
        high_hz: highest.
        root_hz: what it sounds when played at its rate.
        loop: first frame and the one after the last that repeat, None where it is played once.
        scale: semitones a key.
        shape: of its level.
    """

    frames: np.ndarray
    rate: int
    low_hz: float
    high_hz: float
    root_hz: float
    loop: tuple[int, int] | None = None
    scale: float = 1.0
    shape: Shape = Shape()


def read_patch(path: str | os.PathLike[str]) -> list[PatchSample]:
    """The samples of the first layer of a patch file.

    Args:
        path: a .pat file. A loop both ways is written out forwards; vibrato, tremolo and pan are
            left out.

    Raises:
        DataError: it cannot be read, is no patch, or ends too early.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    if data[:12] not in _MAGIC:
        raise DataError(f"{os.fspath(path)}: is no patch file of a GUS")
    try:
        return list(_samples(data))
    except (struct.error, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: is damaged ({error})") from error


def _samples(data: bytes) -> list[PatchSample]:
    at = _HEADER + _INSTRUMENT
    many = _LAYER.unpack_from(data, at)[3]
    at += _LAYER.size
    found = []
    for _ in range(many):
        row = _SAMPLE.unpack_from(data, at)
        size, modes = row[2], row[23]
        at += _SAMPLE.size
        if at + size > len(data):
            raise ValueError("ends too early")
        if size and row[5] and row[8]:
            found.append(_sample(data[at : at + size], row, modes))
        at += size
    return found


def _sample(data: bytes, row: tuple[int, ...], modes: int) -> PatchSample:
    width = 2 if modes & _WIDE else 1
    data = data[: len(data) // width * width]
    if width == 2:
        frames = np.frombuffer(data, "<u2" if modes & _UNSIGNED else "<i2").astype(np.int32)
        frames = frames - (32768 if modes & _UNSIGNED else 0)
    else:
        frames = np.frombuffer(data, "u1" if modes & _UNSIGNED else "i1").astype(np.int32)
        frames = (frames - (128 if modes & _UNSIGNED else 0)) * 256
    first, after = row[3] // width, min(row[4] // width, len(frames))
    if modes & _BACKWARDS:
        frames, first, after = frames[::-1], len(frames) - after, len(frames) - first
    loop = (first, after) if modes & _LOOPED and after - first > 1 else None
    if loop and modes & _BOTH_WAYS:
        frames = np.concatenate([frames[:after], frames[first + 1 : after - 1][::-1]])
        loop = (first, len(frames))
    return PatchSample(
        frames.astype(np.int16),
        row[5],
        *(row[6] / 1000, row[7] / 1000, row[8] / 1000),
        loop,
        row[25] / _SCALED,
        _shape(row[11:17], row[17:23], modes, loop is not None),
    )


def _shape(rates: tuple[int, ...], levels: tuple[int, ...], modes: int, looped: bool) -> Shape:
    if not modes & _SHAPED:
        return Shape()
    # Two bits say by how many eighths slower than the other six.
    speeds = [max(r & 63, 1) * _STEPS_A_S / 8 ** (r >> 6) for r in rates]
    stays = 3 if modes & _HOLDS else 6
    drop_s = sum(abs(levels[i] - levels[i - 1]) / speeds[i] for i in range(1, stays))
    steps = max(0, levels[0] - levels[stays - 1])
    fall = levels[2] - levels[5]
    sounds_out = not looped and fall <= 0
    return Shape(
        min(levels[0], _HEARD_STEPS) / speeds[0],
        math.inf if levels[stays - 1] == 0 else steps * _STEPS_DB,
        drop_s if steps else 0.0,
        0.0 if sounds_out else speeds[3] * _STEPS_DB if fall > 0 else Shape().release_db_s,
    )
