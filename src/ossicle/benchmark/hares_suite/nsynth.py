"""NSynth: the family of the instrument, and the pitch, of single notes.

Engel et al., ICML 2017, arXiv 1704.01279; https://magenta.tensorflow.org/datasets/nsynth.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle.benchmark.hares_suite.tree import Tree, groups_in_both
from ossicle.benchmark.task import PARTS, Task, TaskData, from_rows
from ossicle.errors import DataError

# In the order of their numbers (instrument_family).
FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
    *("organ", "reed", "string", "synth_lead", "vocal"),
)
PITCHES = tuple(str(number) for number in range(128))  # MIDI numbers
_GET = (
    "NSynth, json/wav files nsynth-train, nsynth-valid and nsynth-test: "
    "https://magenta.tensorflow.org/datasets/nsynth"
)


def read_nsynth_instrument(folder: Path) -> TaskData:
    """The eleven families, from nsynth-{train,valid,test}/examples.json and their audio/.

    Args:
        folder: that holds the three.

    Returns:
        Groups: instruments. Those of the training part are in no other; validation and test
        may share some, and a note then says so.

    Raises:
        DataError: a table is not there or broken, has another family or pitch, or no note is there.
    """
    return _read(folder, "instrument_family", FAMILIES)


def read_nsynth_pitch(folder: Path) -> TaskData:
    """The pitch, MIDI numbers 0 to 127 as strings; else as `read_nsynth_instrument`."""
    return _read(folder, "pitch", PITCHES)


def _read(folder: Path, column: str, classes: tuple[str, ...]) -> TaskData:
    tree = Tree(folder)
    tables = []
    for part in PARTS:
        names = (f"nsynth-{part}", part, f"nsynth_{part}", *(["validation"] * (part == "valid")))
        path = tree.need("examples.json", names)
        numbers = _numbers(path, column, len(classes))
        table = pd.DataFrame({"note": list(numbers), "number": list(numbers.values())})
        table["part"] = part
        table["path"] = [f"{path.parent.name}/audio/{note}.wav" for note in table["note"]]
        tables.append(table)
    rows = pd.concat(tables, ignore_index=True)
    rows["path"] = tree.place(rows["path"])
    rows["label"] = [classes[number] for number in rows["number"]]
    # bass_synthetic_033-022-050: the instrument, the pitch, the velocity.
    rows["group"] = rows["note"].str.rsplit("-", n=2).str[0]
    learnt, tested = (set(rows["number"][rows["part"] == part]) for part in ("train", "test"))
    untested = sorted(learnt - tested)
    notes = groups_in_both(rows, "part", "instruments")
    if untested:
        shown = ", ".join(classes[number] for number in untested[:3])
        notes.append(f"no test note is of {len(untested)} classes that are learnt, such as {shown}")
    return from_rows(
        rows[["path", "label", "group", "part"]],
        tree.root,
        classes=classes,
        group_source="the instrument",
        notes=notes,
    )


def _numbers(path: Path, column: str, count: int) -> dict[str, int]:
    """Note -> class number."""

    def keep(entry: dict[str, Any]) -> Any:
        # Hundreds of megabytes as dicts: of each note one number is kept while reading.
        return entry.get(column, entry)

    try:
        with path.open(encoding="utf-8") as stream:
            numbers = json.load(stream, object_hook=keep)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no JSON that can be read ({error}); get it anew") from error
    if not isinstance(numbers, dict) or not numbers:
        raise DataError(f"{path}: holds no notes; get it anew")
    for note, number in numbers.items():
        if type(number) is not int or not 0 <= number < count:
            shown = repr(number) if isinstance(number, int | float | str) else "not there"
            raise DataError(f"{path}: {note}: {column} is {shown}, not 0 to {count - 1}")
    return numbers


_INSTRUMENT = Task(
    name="nsynth_instrument",
    suite="hares",
    domain="music",
    title="family of the instrument of a note",
    metric="accuracy",
    read=read_nsynth_instrument,
    get=_GET,
    licence="CC BY 4.0",
    caveat="tested instruments are not learnt from, but may be among those chosen on",
    published={"train": 289_205, "valid": 12_678, "test": 4_096, "classes": 11},
    source="Engel et al., ICML 2017, arXiv 1704.01279; "
    "https://magenta.tensorflow.org/datasets/nsynth",
)
_PITCH = replace(
    _INSTRUMENT,
    name="nsynth_pitch",
    title="pitch of a note",
    read=read_nsynth_pitch,
    published={**_INSTRUMENT.published, "classes": 128},
)
TASKS = (_INSTRUMENT, _PITCH)
