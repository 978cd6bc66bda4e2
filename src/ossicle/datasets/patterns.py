"""Values for each clip, taken from a column or from its path by a regular expression."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ossicle.errors import DataError


def relative_paths(paths: Sequence[str], root: Path) -> list[str]:
    """Paths below `root` in POSIX form ("dog/1.wav"); those outside keep their whole path."""
    prefix = str(root).rstrip(os.sep) + os.sep
    return [p.removeprefix(prefix).replace(os.sep, "/") for p in paths]


def is_pattern(text: str) -> bool:
    """Whether `text` is written as /a regular expression/."""
    return len(text) > 2 and text.startswith("/") and text.endswith("/")


def match_values(pattern: str, relative: Sequence[str]) -> list[str | None]:
    r"""What `pattern` (with its slashes) finds in each path; None where it finds nothing.

    Searched in the path relative to the root first, in the file name alone second, so that
    `/^(\d)-/` works on `dog/1-30226-A.ogg`. The value is the groups joined by "_", or the whole
    match where the pattern has no group.

    Raises DataError for a pattern that is no regular expression.
    """
    try:
        compiled = re.compile(pattern[1:-1])
    except re.error as error:
        raise DataError(f"{pattern} is not a regular expression: {error}") from error
    values: list[str | None] = []
    for path in relative:
        match = compiled.search(path) or compiled.search(path.rsplit("/", 1)[-1])
        if match is None:
            values.append(None)
        elif compiled.groups:
            values.append("_".join(g for g in match.groups() if g is not None))
        else:
            values.append(match.group())
    return values


def values_for(spec: str, table: pd.DataFrame, root: Path, what: str) -> list[str]:
    """The column or /pattern/ named by `spec`, one string a row.

    Args:
        spec: a column's name, or a regular expression between slashes.
        table: with the column `path` (absolute) and any others.
        root: the folder that the paths are matched below.
        what: "folds" or "groups", for messages.

    Raises DataError naming up to three clips without a value, or the columns there are.
    """
    relative = relative_paths(list(table["path"]), root)
    values: list[str | None]
    if is_pattern(spec):
        values = match_values(spec, relative)
        source = f"{what} pattern {spec}"
    else:
        names = [c for c in table.columns if c == spec]
        names += [c for c in table.columns if c.lower() == spec.lower()]
        if not names:
            columns = ", ".join(str(c) for c in table.columns)
            raise DataError(
                f"--{what} {spec}: is not a column (there are: {columns}); a regular expression on "
                f"file names is written between slashes: '/{spec}/'"
            )
        values = [v.strip() if isinstance(v, str) else None for v in table[names[0]]]
        source = f"{what} column {names[0]!r}"
    missing = [path for path, value in zip(relative, values, strict=True) if not value]
    if missing:
        shown = ", ".join(missing[:3])
        raise DataError(
            f"{source} gives nothing for {len(missing)} of {len(values)} clips: {shown}"
        )
    return [value for value in values if value]
