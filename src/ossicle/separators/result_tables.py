"""The tables beside separated files: a row a file, and what could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ossicle.record import replaced
from ossicle.separators.journal import Entry

TABLE, ERRORS = "separated.csv", "errors.csv"
COLUMNS = ("file", "source", "path", "duration_s", "gain_db", "energy_share", "notes")


def write_result_tables(folder: Path, done: Sequence[tuple[str, Entry]]) -> None:
    """Write `separated.csv`, and `errors.csv` if there is anything to tell.

    Args:
        folder: of the results.
        done: (name of the recording, how it went).

    Raises:
        OSError: the folder cannot be written to.
    """
    rows = [
        {
            "file": name,
            "source": output["source"],
            "path": readable(output["path"]),
            "duration_s": entry.seconds,
            "gain_db": entry.gain_db,
            "energy_share": output["energy_share"],
            "notes": "; ".join(entry.notes),
        }
        for name, entry in done
        for output in entry.outputs
    ]
    _write(folder / TABLE, pd.DataFrame(rows, columns=list(COLUMNS)))
    errors = [
        {"file": name, "status": entry.status, "reason": readable(entry.reason)}
        for name, entry in done
        if entry.status != "ok"
    ]
    if errors:
        _write(folder / ERRORS, pd.DataFrame(errors))
    else:
        (folder / ERRORS).unlink(missing_ok=True)


def readable(name: str) -> str:
    """A file name that can be written as text: bytes of it that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _write(path: Path, table: pd.DataFrame) -> None:
    with replaced(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")
