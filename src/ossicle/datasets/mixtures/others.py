"""Mixtures as other tools lay them out: a folder a stem (WSJ0-2mix, LibriMix), or one a mixture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.mixtures.settings import MAX_SOURCES, MIXTURE, PARTS
from ossicle.datasets.mixtures.table import Mixtures
from ossicle.errors import DataError

_PARTS = {
    **{"train": "train", "training": "train", "tr": "train"},
    **{"valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "cv": "valid"},
    **{"test": "test", "testing": "test", "tt": "test", "eval": "test", "unseen": "unseen"},
}
# In this order: where there are several, sources that add up to the mixture come first.
_MIXTURES = ("mix_clean", "mix", "mixture", "mixtures", "mix_both", "mix_single")
_STEM = re.compile(r"s(?:ource|pk|peaker)?_?(\d+)")
# LibriMix: 1034-121119-0049_1743-142912-0010; WSJ0-2mix: 011a0101_1.2345_22ga0106_-1.2345.
_LIBRI = re.compile(r"(\d+)-\d+-\d+")
_WSJ = re.compile(r"([0-9a-z]{3})[0-9a-z]{5}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_others(root: Path, mixture: str | None) -> Mixtures:
    """Mixtures of a folder without a table; see `ossicle.datasets.mixtures.read_mixtures`."""
    notes: list[str] = []
    places = [(folder, name) for folder in _folders(root) if (name := _part(folder.name))]
    if not places or _stems_in(root):
        named = _part(root.name)
        places = [(root, named or "test")]
        if not named:
            notes.append("no folders train, valid or test: all mixtures are taken for test")
    rows: list[dict[str, Any]] = []
    found: tuple[str, ...] | None = None
    for folder, part in places:
        names, made = _by_stem(folder, mixture, notes) or _by_mixture(folder) or ((), [])
        if not made:
            continue
        if found is not None and names != found:
            raise DataError(
                f"{folder}: has the sources {', '.join(names)}, and other parts {', '.join(found)}"
            )
        found = names
        rows += [{"split": part, **row} for row in made]
    if not found:
        raise DataError(
            f"{root}: has no mixtures: there is no mixtures.json, no mix/ with s1/ and s2/, and no "
            "folder with mixture.wav"
        )
    roles = () if all(_STEM.fullmatch(name) for name in found) else found
    rate = _checked(rows, len(found))
    rows = [_row(row, roles, len(found)) for row in rows]
    if all(row["group"] == row["clip1"] for row in rows):
        notes.append("file names tell no groups: each mixture is its own")
    rows.sort(key=lambda row: (PARTS.index(row["split"]), row["mixture"]))
    return Mixtures(pd.DataFrame(rows), roles, len(found), rate, root, list(dict.fromkeys(notes)))


def _part(name: str) -> str | None:
    """ "train-100" is a part of train."""
    return _PARTS.get(re.split(r"[-_.]", name.lower())[0])


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> dict[str, Path]:
    """Audio files by name without suffix."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return {path.stem: path for path in files if audio.is_audio(path)}


def _stems_in(folder: Path) -> list[Path]:
    """The folders s1, s2, ... by number."""
    found = [(int(m[1]), p) for p in _folders(folder) if (m := _STEM.fullmatch(p.name.lower()))]
    return [path for _, path in sorted(found)]


def _by_stem(
    folder: Path, mixture: str | None, notes: list[str]
) -> tuple[tuple[str, ...], list[dict[str, Any]]] | None:
    stems = _stems_in(folder)
    if not stems:
        return None
    there = {path.name: path for path in _folders(folder)}
    options = [name for name in _MIXTURES if name in there]
    chosen = mixture if mixture is not None else next(iter(options), None)
    if chosen is None or chosen not in there:
        raise DataError(
            f"{folder}: has stems and no folder {chosen or 'mix'}/ with their mixtures"
            + (f"; there is {', '.join(options)}" if options else "")
        )
    if len(options) > 1 and mixture is None:
        notes.append(f"mixtures are those of {chosen}/, not of {', '.join(options[1:])}/")
    names = tuple(f"s{i + 1}" for i in range(len(stems)))
    if chosen == "mix_single" and "noise" in there:
        stems, names = [stems[0], there["noise"]], ("speech", "noise")
    elif chosen == "mix_both" or (len(stems) == 1 and "noise" in there):
        if len(stems) == 1:
            stems, names = [stems[0], there["noise"]], ("speech", "noise")
        else:
            notes.append("the mixtures hold noise too, which is none of the sources")
    if len(stems) < 2:
        raise DataError(f"{folder}: has one source only, {stems[0].name}/")
    mixtures = _files(there[chosen])
    of_stem = [_files(stem) for stem in stems]
    rows = []
    for name, path in mixtures.items():
        for stem, files in zip(stems, of_stem, strict=True):
            if name not in files:
                raise DataError(f"{path}: has no stem {stem.name}/{path.name} beside it")
        rows.append({"mixture": path, "name": name, "stems": [f[name] for f in of_stem]})
    return names, rows


def _by_mixture(folder: Path) -> tuple[tuple[str, ...], list[dict[str, Any]]] | None:
    rows: list[dict[str, Any]] = []
    names: tuple[str, ...] = ()
    for place in _folders(folder):
        files = _files(place)
        mixture = files.pop(MIXTURE, None) or files.pop("mix", None)
        if mixture is None:
            continue
        ours = tuple(sorted(files, key=_order))
        if rows and ours != names:
            raise DataError(
                f"{place}: has the stems {', '.join(ours) or 'none'}, and {rows[0]['name']} "
                f"{', '.join(names)}"
            )
        names = ours
        rows.append({"mixture": mixture, "name": place.name, "stems": [files[n] for n in ours]})
    if rows and not 2 <= len(names) <= MAX_SOURCES:
        raise DataError(f"{folder}: {rows[0]['name']} has {len(names)} stems; give two or more")
    return (names, rows) if rows else None


def _order(name: str) -> tuple[int, str]:
    match = _STEM.fullmatch(name.lower())
    return (int(match[1]) if match else 0, name)


def _checked(rows: Sequence[dict[str, Any]], n_sources: int) -> int:
    """The rate of all files. Raises DataError naming one of another rate or length."""
    first = audio.info(rows[0]["mixture"]).sample_rate
    for row in rows:
        length = None
        for path in (row["mixture"], *row["stems"]):
            told = audio.info(path)
            if told.sample_rate != first:
                raise DataError(
                    f"{path}: has a rate of {told.sample_rate} Hz, {rows[0]['mixture']} has "
                    f"{first} Hz; resample it"
                )
            size = round(told.duration_s * told.sample_rate)
            if length is None:
                length = size
            elif size != length:
                raise DataError(
                    f"{path}: has {size} samples and its mixture {row['mixture']} {length}; "
                    "stems must be as long as their mixture"
                )
    return first


def _row(row: dict[str, Any], roles: Sequence[str], n_sources: int) -> dict[str, Any]:
    name = row["name"]
    speakers = _speakers(name)
    if len(speakers) != n_sources:
        # Of a speech file mixed with noise the name tells the speaker alone.
        speakers = [speakers[0] if speakers and i == 0 else name for i in range(n_sources)]
    table: dict[str, Any] = {
        "mixture": str(row["mixture"]),
        # One name stands for a mixture whose sources have no names of their own.
        "group": "+".join(dict.fromkeys(speakers if roles else sorted(speakers))),
        "split": row["split"],
    }
    for i, path in enumerate(row["stems"]):
        table |= {
            f"source{i + 1}": str(path),
            f"name{i + 1}": roles[i] if roles else speakers[i],
            f"group{i + 1}": speakers[i],
            f"level_db{i + 1}": np.nan if i else 0.0,
            f"clip{i + 1}": name,
        }
    return table


def _speakers(name: str) -> list[str]:
    """Speakers that a file's name tells, or none."""
    tokens = [token for token in name.split("_") if not _NUMBER.fullmatch(token)]
    pattern = _LIBRI if len(tokens) == len(name.split("_")) else _WSJ
    matches = [pattern.fullmatch(token.lower()) for token in tokens]
    return [match[1] for match in matches if match] if all(matches) else []
