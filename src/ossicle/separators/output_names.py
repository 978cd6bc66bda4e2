"""What the files of sources are called: `night/0412.wav` -> `OUT/night/0412_speech.wav`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ossicle.errors import DataError

# Endings beyond this would not fit a file system's 255 bytes with the recording's name before them.
_LONGEST = 60


def relative_names(paths: Sequence[str], root: Path) -> list[Path]:
    """Where each recording lies below the folder that was given.

    Where some lie outside of it: below the deepest folder that holds all; where that is the whole
    file system, their names alone, if no two are called alike.

    Args:
        paths: absolute.
        root: absolute.
    """
    if any(not Path(path).is_relative_to(root) for path in paths):
        try:
            root = Path(os.path.commonpath([root, *(Path(path).parent for path in paths)]))
        except ValueError:  # on several drives
            root = Path(root.anchor)
        if root == Path(root.anchor):
            bare = [Path(Path(path).name) for path in paths]
            if len(set(bare)) == len(bare):
                return bare
    return [
        Path(path).relative_to(root if Path(path).is_relative_to(root) else Path(path).anchor)
        for path in paths
    ]


def output_paths(
    names: Sequence[Path], folder: Path, sources: Sequence[str], kind: str
) -> list[list[Path]]:
    """For each recording its sources' files.

    Recordings that differ only in their ending (`a.wav`, `a.flac`) keep it in their names.

    Args:
        names: as `relative_names` gives them.
        folder: of the results.
        sources: of each recording; what a file name should not hold becomes "_".
        kind: "wav" or "flac".

    Raises:
        DataError: two recordings would have a result in the same file.
    """
    endings = [_word(source) for source in sources]
    if len({ending.lower() for ending in endings}) < len(endings):
        endings = [str(i + 1) for i in range(len(sources))]
    # Some file systems take "A" for "a".
    often = Counter(str(name.with_suffix("")).lower() for name in names)
    planned, owner = [], dict[str, Path]()
    for name in names:
        stem = name if often[str(name.with_suffix("")).lower()] > 1 else name.with_suffix("")
        outputs = [folder / stem.with_name(f"{stem.name}_{ending}.{kind}") for ending in endings]
        for output in outputs:
            other = owner.setdefault(str(output).lower(), name)
            if other != name:
                raise DataError(
                    f"{name} and {other} would both give {output.name}: separate them into "
                    "different folders"
                )
        planned.append(outputs)
    return planned


def check_free(
    planned: Sequence[Sequence[Path]], recordings: Sequence[str], made: set[Path]
) -> None:
    """Refuse to write over what is not a result of an earlier run in the same folder.

    Args:
        planned: the files to write.
        recordings: the inputs.
        made: what earlier runs in the same folder made, named as ``planned`` names it.

    Raises:
        DataError: a planned file is a recording, or is there already and was not made by us.
    """
    inputs = {Path(path).resolve() for path in recordings}
    for outputs in planned:
        for output in outputs:
            if output.resolve() in inputs:
                raise DataError(
                    f"{output}: is a recording and would be written over; choose another folder"
                )
            if output.exists() and output not in made:
                raise DataError(
                    f"{output}: is there already and no result of an earlier run; choose another "
                    "folder"
                )


def _word(name: str) -> str:
    word = re.sub(r"[^\w.-]+", "_", name).strip("._")
    return word.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore") or "source"
