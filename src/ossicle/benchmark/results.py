"""What a benchmark has found, as files: a run goes on where it stopped, other rows are added later.

FOLDER/tasks/NAME.npz and .json: targets, groups and texts of a task; FOLDER/rows/HASH.json: what
is told of a row; FOLDER/cells/HASH.npz and .json: scores of the tested clips of one fold. The JSON
file is written last: without it a cell is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.errors import DataError
from ossicle.record import json_safe, replaced, write_json


class Results:
    """The results of one suite.

    Args:
        folder: made where it is missing.
        suite: name; another suite's folder is refused.

    Raises:
        DataError: the folder holds another suite's results, or cannot be written.
    """

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder, self.suite = folder, suite
        about = folder / "suite.json"
        try:
            for name in ("tasks", "rows", "cells"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            if not about.is_file():
                write_json(about, {"suite": suite})
            held = json.loads(about.read_text(encoding="utf-8")).get("suite")
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{folder}: cannot hold results ({error})") from error
        if held != suite:
            raise DataError(f"{folder}: holds results of the suite {held}: choose another folder")

    def has(self, cell: Mapping[str, Any]) -> bool:
        """Whether the cell is done."""
        return self._cell(cell).with_suffix(".json").is_file()

    def put(
        self,
        cell: Mapping[str, Any],
        rows: np.ndarray,
        decisions: np.ndarray,
        info: Mapping[str, Any],
    ) -> None:
        """Keep a cell.

        Args:
            cell: what it is of: JSON values, among them row, task and fold.
            rows: (m,) of the task's clips.
            decisions: (m, K) scores.
            info: what was chosen.
        """
        path = self._cell(cell).with_suffix(".npz")
        with replaced(path) as part, part.open("wb") as file:
            np.savez_compressed(
                file, rows=rows.astype(np.int64), decisions=decisions.astype(np.float32)
            )
        write_json(path.with_suffix(".json"), {"cell": json_safe(cell), "info": json_safe(info)})

    def cells(self) -> list[tuple[dict[str, Any], dict[str, Any], Path]]:
        """(cell, what was chosen, file of its arrays) of all that are done."""
        found = []
        for path in sorted((self.folder / "cells").glob("*.json")):
            told = _read(path)
            if told is not None and path.with_suffix(".npz").is_file():
                found.append((told["cell"], told["info"], path.with_suffix(".npz")))
        return found

    def put_task(
        self,
        name: str,
        checksum: str,
        y: np.ndarray,
        groups: np.ndarray,
        told: Mapping[str, Any],
    ) -> None:
        """Keep what scoring needs of a task: (n,) or (n, K) targets, (n,) groups, texts."""
        path = self.folder / "tasks" / f"{name}-{checksum}.npz"
        if not path.with_suffix(".json").is_file():
            with replaced(path) as part, part.open("wb") as file:
                codes = np.unique(groups, return_inverse=True)[1]
                np.savez_compressed(file, y=y, groups=codes.ravel())
        write_json(path.with_suffix(".json"), json_safe({**told, "checksum": checksum}))

    def task(self, name: str, checksum: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Texts, targets and groups of a task.

        Raises:
            DataError: it is not there.
        """
        path = self.folder / "tasks" / f"{name}-{checksum}.npz"
        told = _read(path.with_suffix(".json"))
        if told is None or not path.is_file():
            raise DataError(f"{path}: gone; run the benchmark again")
        with np.load(path) as arrays:
            return told, arrays["y"], arrays["groups"]

    def put_row(self, row: str, told: Mapping[str, Any]) -> None:
        """Keep what is told of a row."""
        write_json(self.folder / "rows" / f"{_hash(row)}.json", json_safe({"row": row, **told}))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Row -> what is told of it."""
        told = [_read(path) for path in sorted((self.folder / "rows").glob("*.json"))]
        return {entry["row"]: entry for entry in told if entry is not None}

    def _cell(self, cell: Mapping[str, Any]) -> Path:
        text = json.dumps(json_safe(cell), sort_keys=True)
        return self.folder / "cells" / f"{_hash(text)}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read(path: Path) -> dict[str, Any] | None:
    """The object in a file; None for what is not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
