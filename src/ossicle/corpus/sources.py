"""Where training audio comes from, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ossicle.benchmark.packages import Packages

Progress = Callable[[str], None]
# (folder, packages, seed, progress) -> a row a clip: path (absolute, or below the folder), label
# (facets joined with ";"), group, package, version, licence; onset and offset (s) where not the
# whole file is meant.
# What is rendered goes into the folder. The same packages and seed give the same rows.
Source = Callable[[Path, "Packages", int, "Progress | None"], "pd.DataFrame"]


def _packages(
    folder: Path, packages: Packages, seed: int, progress: Progress | None
) -> pd.DataFrame:
    from ossicle.corpus.recordings import write_recordings

    return write_recordings(folder, packages, seed=seed, progress=progress)


def _notes(folder: Path, packages: Packages, seed: int, progress: Progress | None) -> pd.DataFrame:
    from ossicle.corpus.notes import write_notes

    return write_notes(folder, packages, seed=seed, progress=progress)


def _tunes(folder: Path, packages: Packages, seed: int, progress: Progress | None) -> pd.DataFrame:
    from ossicle.corpus.tunes import write_tunes

    return write_tunes(folder, packages, seed=seed, progress=progress)


def _words(folder: Path, packages: Packages, seed: int, progress: Progress | None) -> pd.DataFrame:
    from ossicle.corpus.words import write_words

    return write_words(folder, packages, seed=seed, progress=progress)


SOURCES: dict[str, Source] = {
    "packages": _packages,
    "notes": _notes,
    "tunes": _tunes,
    "words": _words,
}
