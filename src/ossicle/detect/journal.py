"""What has been detected so far, a line a recording: what a stopped run goes on from.

A line counts when it is whole, so that a run may be killed at any moment. It is used again only for
the same recording (path, size and time, or else content) under the same parameters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from ossicle.datasets.clips import file_checksum
from ossicle.errors import DataError

NAME = "journal.jsonl"
FORMAT = "ossicle detections 1"


class Stamp(NamedTuple):
    """Which file a line is about.

    Attributes:
        size: in bytes, -1 where there is no file.
        modified_ns: time of its last change.
    """

    size: int
    modified_ns: int


class Entry(NamedTuple):
    """How one recording went.

    Attributes:
        path: absolute.
        stamp: the file's size and time.
        sha256: of its content; "" where it cannot be read.
        status: "ok", "damaged" (heard up to the damage) or "failed" (nothing of it could be used).
        reason: why it is not "ok".
        seconds: that were heard.
        events: (onset, offset, number of the class, score), by onset, offset, class.
    """

    path: str
    stamp: Stamp
    sha256: str
    status: str
    reason: str
    seconds: float
    events: list[tuple[float, float, int, float]]


def stamp(path: str) -> Stamp:
    """Size and time of a file; (-1, 0) where it is gone."""
    try:
        about = Path(path).stat()
    except OSError:
        return Stamp(-1, 0)
    return Stamp(about.st_size, about.st_mtime_ns)


def checksum(path: str) -> str:
    """SHA-256 of a file, or "" where it cannot be read."""
    try:
        return file_checksum(path)
    except DataError:
        return ""


class Journal:
    """The lines of one folder; lines under other parameters are dropped.

    Args:
        folder: that the results go to; there already.
        parameters: a checksum of all that the results depend on besides the recordings.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, parameters: str) -> None:
        self._path = folder / NAME
        self._places: dict[str, int] = {}
        head = json.dumps({"format": FORMAT, "parameters": parameters}) + "\n"
        try:
            self._file: IO[bytes] = self._path.open("a+b")
            self.dropped = not self._read(head.encode())
            if self.dropped:
                self._file.truncate(0)
                self._file.write(head.encode())
                self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, head: bytes) -> bool:
        """Find the whole lines; False where the file was begun for something else, or is new."""
        self._file.seek(0)
        if self._file.readline() != head:
            return False
        while True:
            place = self._file.tell()
            line = self._file.readline()
            entry = _parsed(line)
            if entry is None:
                # What was being written when the run ended.
                self._file.truncate(place)
                return True
            self._places[entry.path] = place

    def find(self, path: str) -> Entry | None:
        """What is known of a recording as it is now; None where it must be heard."""
        place = self._places.get(path)
        if place is None:
            return None
        entry = self._at(place)
        if entry.stamp == stamp(path):
            return entry
        same = entry.sha256 != "" and entry.sha256 == checksum(path)
        return entry if same else None

    def add(self, entry: Entry) -> None:
        """Write a line; it is there, whole or not at all, whatever happens to this process."""
        line = json.dumps({**entry._asdict(), "stamp": list(entry.stamp)}) + "\n"
        self._places[entry.path] = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror})") from error

    def entries(self, paths: list[str]) -> Iterator[Entry]:
        """The lines of recordings that have one, in the order given, one at a time."""
        for path in paths:
            place = self._places.get(path)
            if place is not None:
                yield self._at(place)

    def _at(self, place: int) -> Entry:
        self._file.seek(place)
        entry = _parsed(self._file.readline())
        if entry is None:
            raise DataError(f"{self._path}: was changed while in use; delete it and start again")
        return entry


def _parsed(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value: dict[str, Any] = json.loads(line)
        value["stamp"] = Stamp(*value["stamp"])
        value["events"] = [(float(a), float(b), int(k), float(s)) for a, b, k, s in value["events"]]
        return Entry(**value)
    except (ValueError, TypeError, KeyError):
        return None
