"""Results of a study's cells, written as they come: a stopped study goes on where it stopped.

A file of lines of JSON. The first says what study it is; each other line is one cell (a setting, a
seed, a fold) with its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ossicle.errors import DataError
from ossicle.record import json_safe, replaced

CELLS = "cells.jsonl"
Cell = Mapping[str, Any]


class Cells:
    """The cells that are done, in a folder.

    Args:
        folder: made where it is missing.
        of: what makes the study the same study: arguments, checksum of the data.

    Raises:
        DataError: the folder holds another study, or a file of that name which is none.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any]) -> None:
        self.path = folder / CELLS
        self.of = json_safe(of)
        self.done: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = _lines(self.path)
        if not lines and self.path.is_file() and self.path.stat().st_size:
            raise DataError(f"{self.path}: is no study's; choose another folder, or delete it")
        if lines and lines[0]["of"] != self.of:
            raise DataError(
                f"{folder}: holds a study with other arguments or clips; choose another folder, "
                f"or delete {CELLS} in it to start anew"
            )
        self.done = {_key(line["cell"]): line["result"] for line in lines[1:]}
        # Written anew, without a line that a crash cut short.
        kept = [{"of": self.of}, *lines[1:]]
        with replaced(self.path) as part:
            part.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")

    def has(self, cell: Cell) -> bool:
        """Whether the cell is done."""
        return _key(cell) in self.done

    def run(
        self,
        cells: Sequence[Cell],
        compute: Callable[[Cell], Mapping[str, Any]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Compute what is missing.

        Args:
            cells: what tells each from the others; JSON values.
            compute: cell -> result; JSON values, and NaN or infinity as texts.
            progress: called with (cells done, cells in all), also for those done before.

        Returns:
            {**cell, **result} in the order of ``cells``.
        """
        rows = []
        for number, cell in enumerate(cells, start=1):
            key = _key(cell)
            if key not in self.done:
                result = json_safe(compute(cell))
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"cell": json_safe(cell), "result": result}) + "\n")
                self.done[key] = result
            rows.append({**cell, **self.done[key]})
            if progress is not None:
                progress(number, len(cells))
        return rows


def _key(cell: Cell) -> str:
    return json.dumps(json_safe(cell), sort_keys=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines, up to the first that is broken."""
    if not path.is_file():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        wanted = {"cell", "result"} if lines else {"of"}
        if not isinstance(line, dict) or not wanted <= line.keys():
            break
        lines.append(line)
    return lines
