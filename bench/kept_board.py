"""Rows of a committed scoreboard beside those that this machine has run.

A board's cells are not committed, its page is. A row that was not run here is taken from the page,
where its tasks have the same clips; what lies between it and a row that has changed is not known,
as that takes the answers clip by clip, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def with_kept_rows(board: Mapping[str, Any], page: Path) -> dict[str, Any]:
    """A board as ``suite_scores.collect`` gives it, with the rows of a page that it has not.

    Args:
        board: of this machine.
        page: NAME.json of ``write_scoreboard``; where it is missing, or has a task with other
            clips, the board stays as it is.

    Returns:
        The board; "kept" has the names of the rows that were taken over.
    """
    if not page.is_file():
        return dict(board)
    kept = json.loads(page.read_text(encoding="utf-8"))
    clips = {task["name"]: task["checksum"] for task in kept["tasks"]}
    if clips != {task["name"]: task["checksum"] for task in board["tasks"]}:
        return dict(board)
    before = {row["row"]: row for row in kept["rows"]}
    # A row that has not all its tasks yet is not better than one of before.
    mine = {row["row"] for row in board["rows"] if row["mean"] or row["row"] not in before}
    rows = [
        # How quick rows are is measured for all of them in one run.
        {**row, "times_real_time": before.get(row["row"], row)["times_real_time"]}
        for row in board["rows"]
        if row["row"] in mine
    ]
    rows += [row for name, row in before.items() if name not in mine]
    rows.sort(key=lambda row: -row["mean"]["value"] if row["mean"] else 0.0)
    # A row that was run again and is the same has the same to say of others.
    same = {row["row"] for row in rows if _values(before.get(row["row"])) == _values(row)}
    known = {frozenset((d["a"], d["b"])) for d in board["differences"]}
    pairs = [
        d
        for d in kept["differences"]
        if {d["a"], d["b"]} <= same and frozenset((d["a"], d["b"])) not in known
    ]
    names = [row["name"] for row in rows if row["row"] not in mine]
    return {**board, "rows": rows, "differences": [*board["differences"], *pairs], "kept": names}


def told(board: Mapping[str, Any]) -> list[str]:
    """What a page has to say of rows that were taken over."""
    if not board.get("kept"):
        return []
    return [
        f"Taken over from an earlier run of this command: {', '.join(board['kept'])}; what lies "
        "between them and rows that have changed since is left out. Times are of that run too."
    ]


def _values(row: Mapping[str, Any] | None) -> dict[str, float] | None:
    return row and {task: score["value"] for task, score in row["scores"].items()}
