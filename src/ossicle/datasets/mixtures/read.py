"""Mixtures from a folder: what `write_mixtures` wrote, or the layouts of others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle.datasets.layouts import absolute
from ossicle.datasets.mixtures.others import read_others
from ossicle.datasets.mixtures.table import Mixtures
from ossicle.errors import DataError

TABLE = "mixtures.csv"
INFO = "mixtures.json"


def read_mixtures(folder: str | os.PathLike[str], *, mixture: str | None = None) -> Mixtures:
    """Read mixtures and their stems.

    Args:
        folder: one that `write_mixtures` wrote; or one laid out as WSJ0-2mix and LibriMix are,
            with or without a folder for each part, [tr|cv|tt|train-100|dev|test]/mix/NAME.wav and
            s1/NAME.wav, s2/NAME.wav, ...; or one folder a mixture, as MUSDB18 has it,
            [train|test]/NAME/mixture.wav, vocals.wav, ...
        mixture: which folder holds the mixtures, where there are several (mix_clean, mix_both,
            mix_single); None: the first of these that there is.

    Raises:
        DataError: there are no mixtures, a stem is missing, or has another length or rate than its
            mixture; the message names the file.
    """
    root = absolute(Path(folder).expanduser())
    if not root.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if not (root / INFO).is_file():
        return read_others(root, mixture)
    info = _info(root / INFO)
    if not info.get("finished") or not (root / TABLE).is_file():
        raise DataError(f"{root}: its making was stopped; run the same command again to finish it")
    try:
        sources = tuple(str(name) for name in info["sources"])
        settings = info["settings"]
        n_sources, sample_rate = len(sources) or settings["n_sources"], settings["sample_rate"]
        n_sources, sample_rate = int(n_sources), int(sample_rate)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{root / INFO}: is no record of mixtures") from None
    try:
        table = pd.read_csv(root / TABLE, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{root / TABLE}: cannot be read as a table: {error}") from None
    needed = ["mixture", "group", "split"]
    for i in range(1, n_sources + 1):
        needed += [f"{name}{i}" for name in ("source", "name", "group", "level_db", "clip")]
    missing = [name for name in needed if name not in table]
    if missing or table.empty:
        what = f"has no column {missing[0]}" if missing else "has no rows"
        raise DataError(f"{root / TABLE}: {what}")
    for name in ["mixture", *(f"source{i}" for i in range(1, n_sources + 1))]:
        table[name] = [str(root / path) for path in table[name]]
    for i in range(1, n_sources + 1):
        try:
            table[f"level_db{i}"] = table[f"level_db{i}"].astype(float)
        except ValueError:
            raise DataError(f"{root / TABLE}: level_db{i} has values that are no numbers") from None
    notes = [str(note) for note in info.get("notes", [])]
    return Mixtures(table[needed], sources, n_sources, sample_rate, root, notes)


def _info(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: cannot be read as JSON")
    return value
