"""What has been separated so far, a line a recording: what a stopped run goes on from.

Lines are appended and count when they are whole, so that a run may be killed at any moment. Three
kinds: under which parameters a run goes on; which files are about to be written; how a recording
went. An entry is used again for the same recording (size and time, or else content) under the same
parameters, as long as its results are there.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ossicle.datasets.clips import file_checksum
from ossicle.errors import DataError

NAME = "journal.jsonl"
_FORMAT = "ossicle separation 1"


@dataclass
class Entry:
    """How one recording went.

    Attributes:
        path: absolute.
        stamp: size in bytes (-1: no file) and time of the last change, ns.
        sha256: of its content; "" where it cannot be read.
        status: "ok", "damaged" (separated up to the damage) or "failed".
        reason: why it is not "ok".
        seconds: that were separated.
        gain_db: of all its results.
        notes: for the user.
        outputs: of each result, source, path (below the folder), bytes and energy_share.
    """

    path: str
    stamp: list[int]
    sha256: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    gain_db: float = 0.0
    notes: list[str] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


def stamp(path: str | Path) -> list[int]:
    """Size and time of a file; [-1, 0] where it is gone."""
    try:
        about = Path(path).stat()
    except OSError:
        return [-1, 0]
    return [about.st_size, about.st_mtime_ns]


def checksum(path: str) -> str:
    """SHA-256 of a file, or "" where it cannot be read."""
    try:
        return file_checksum(path)
    except DataError:
        return ""


class Journal:
    """The lines of one folder; several threads may add some.

    Args:
        folder: that the results go to; there already.

    Attributes:
        made: all files that runs here, under any parameters, have written or begun to.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._parameters = ""
        self.made: set[Path] = set()
        try:
            self._file: IO[bytes] = self._path.open("a+b")
            self._read()
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        while line := self._file.readline():
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut")
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError):
                # What was being written when a run ended.
                self._file.truncate(self._file.tell() - len(line))
                return

    def _take(self, value: dict[str, Any]) -> None:
        if "parameters" in value:
            if (value["format"], value["parameters"]) != (_FORMAT, self._parameters):
                # Other parameters wrote over the results of those before.
                self._entries = {}
            self._parameters = value["parameters"]
        elif "made" in value:
            self.made |= {self._folder / name for name in value["made"]}
        else:
            entry = Entry(**value)
            self._entries[entry.path] = entry

    def _add(self, value: dict[str, Any]) -> None:
        try:
            with self._lock:
                self._file.write((json.dumps(value) + "\n").encode())
                self._file.flush()
                self._take(value)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> DataError:
        return DataError(f"{self._path}: cannot be written ({error.strerror})")

    def begin(self, parameters: str) -> None:
        """Go on under these parameters (a checksum of all that results depend on)."""
        if parameters != self._parameters:
            self._add({"format": _FORMAT, "parameters": parameters})

    def announce(self, outputs: list[Path]) -> None:
        """Tell which files below the folder are about to be written: they are ours from now on."""
        self._add({"made": [str(path.relative_to(self._folder)) for path in outputs]})

    def add(self, entry: Entry) -> None:
        """How a recording went; the line is there, whole or not at all, whatever happens."""
        self._add(asdict(entry))

    def find(self, path: str, outputs: list[Path]) -> Entry | None:
        """What is known of a recording as it is now; None where it must be separated.

        Args:
            path: of the recording, absolute.
            outputs: where its results must be.
        """
        entry = self._entries.get(path)
        if entry is None:
            return None
        if entry.status != "failed":
            there = [self._folder / output["path"] for output in entry.outputs]
            sizes = [output["bytes"] for output in entry.outputs]
            if there != outputs or [stamp(result)[0] for result in there] != sizes:
                return None
        if entry.stamp == stamp(path):
            return entry
        same = entry.sha256 != "" and entry.sha256 == checksum(path)
        return entry if same else None

    def entry(self, path: str) -> Entry | None:
        """The line of a recording."""
        return self._entries.get(path)
