"""Scores of a recording in work, block by block, so that a stopped run need not hear them again."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ossicle.detect.scorers import Part

# Recordings of fewer blocks are heard anew as quickly.
MIN_BLOCKS = 20
_HEAD = struct.Struct("<4sII")
_MARK = b"part"


class Spool:
    """A file of parts; only whole ones count.

    Args:
        path: one file for one recording under one set of parameters.
        classes: K.
    """

    def __init__(self, path: Path, classes: int) -> None:
        self.path, self.classes = path, classes
        self._file: IO[bytes] | None = None
        self._first: list[Part] = []  # until there are enough of them to be worth a file
        self.blocks = 0
        if path.exists():
            whole = 0
            with path.open("rb") as file:
                for _ in self._parts(file):
                    self.blocks += 1
                    whole = file.tell()
            with path.open("r+b") as file:
                file.truncate(whole)

    def parts(self) -> Iterator[Part]:
        """The parts that are there, in order."""
        if self.blocks:
            with self.path.open("rb") as file:
                yield from self._parts(file)

    def add(self, part: Part) -> None:
        """Append a part; the first ones reach the disk together, once there are `MIN_BLOCKS`."""
        if self._file is None and not self.blocks:
            self._first.append(part)
            if len(self._first) < MIN_BLOCKS:
                return
        for one in self._first or [part]:
            self._write(one)
        self._first = []

    def _write(self, part: Part) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in part)
        self._file.write(_HEAD.pack(_MARK, len(part.onsets), len(body)) + body)
        self._file.flush()

    def close(self) -> None:
        """Keep what is there."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """The recording is done."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _parts(self, file: IO[bytes]) -> Iterator[Part]:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            mark, count, length = _HEAD.unpack(head)
            if mark != _MARK or length != count * (16 + 4 * self.classes):
                return
            body = file.read(length)
            if len(body) < length:
                return
            times = np.frombuffer(body, np.int64, 2 * count).reshape(2, count)
            scores = np.frombuffer(body, np.float32, offset=16 * count)
            yield Part(times[0], times[1], scores.reshape(self.classes, count))
