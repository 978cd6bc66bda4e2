"""Labels and what they ask for: classes, several labels at once, or a number.

Strings stay the strings they are: "10" and "2" are classes, and so are "NA", "null" and "None".
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ossicle.errors import DataError

TASKS = ("classes", "multilabel", "regression")
# float() takes more than people write as numbers: "1_000", "infinity", "nan".
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_labels(
    raw: Sequence[Any], task: str | None, written: bool
) -> tuple[str, list[Any], list[str]]:
    """The task, one value a row, and notes.

    Args:
        raw: a string a row ("" where there is none), or a list of strings.
        task: "classes", "multilabel" or "regression" to force one; None to infer it.
        written: True for labels from a table; folder names are classes unless `task` says more.

    Returns:
        task; values: str | list[str] | float a row, None where the row has no label (with
        "multilabel" no label is the empty list, a value like others); notes.

    Inference: lists or any ";" make it multilabel; numbers, at least one of them with a fraction,
    make it regression; all else is classes. Raises DataError where a forced task does not fit.
    """
    if task is not None and task not in TASKS:
        raise DataError(f"--labels {task} is not known; use one of {', '.join(TASKS)}")
    notes: list[str] = []
    stripped: list[Any] = [r if isinstance(r, list) else r.strip() for r in raw]
    if any(isinstance(r, str) and r != s for r, s in zip(raw, stripped, strict=True)):
        notes.append("spaces around labels removed")
    if task is None:
        task = _infer(stripped) if written else "classes"
        if task == "multilabel":
            notes.append('labels are split at ";" (several a clip); --labels classes keeps them')
        if task == "regression":
            notes.append("labels are numbers with fractions: regression, or --labels classes")
    if task == "multilabel":
        parts = [s if isinstance(s, list) else s.split(";") for s in stripped]
        values: list[Any] = [list(dict.fromkeys(p.strip() for p in x if p.strip())) for x in parts]
        spelling = _one_spelling([label for row in values for label in row], notes)
        return task, [[spelling.get(x, x) for x in row] for row in values], notes
    if any(isinstance(s, list) for s in stripped):
        raise DataError(f"labels are lists, which --labels {task} cannot use; say multilabel")
    if task == "regression":
        return task, [_number(s) if s else None for s in stripped], notes
    spelling = _one_spelling(stripped, notes)
    return task, [spelling.get(s, s) or None for s in stripped], notes


def _infer(values: Sequence[Any]) -> str:
    if any(isinstance(v, list) or ";" in v for v in values):
        return "multilabel"
    given = [v for v in values if v]
    if given and all(_NUMBER.fullmatch(v) and math.isfinite(float(v)) for v in given):
        return "regression" if any(not float(v).is_integer() for v in given) else "classes"
    return "classes"


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise DataError(f"label {text!r} is not a finite number, as --labels regression needs")
    return float(text)


def _one_spelling(labels: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Maps labels that differ only in how an accent is encoded (NFC, NFD of macOS) to one."""
    by_form: dict[str, set[str]] = {}
    for label in set(labels):
        by_form.setdefault(unicodedata.normalize("NFC", label), set()).add(label)
    mapped = {
        x: form for form, spellings in by_form.items() if len(spellings) > 1 for x in spellings
    }
    if mapped:
        shown = ", ".join(sorted(set(mapped.values()))[:3])
        notes.append(f"labels with the same letters in two encodings made one: {shown}")
    return mapped
