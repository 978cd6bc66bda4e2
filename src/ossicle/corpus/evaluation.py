"""The sets that models are measured on, as far as they are at hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ossicle.audio import is_audio
from ossicle.benchmark.build import read_about, read_built
from ossicle.corpus.near_copies import Stretch
from ossicle.errors import DataError


def evaluation_sets(data: Path, folders: Iterable[Path] = ()) -> dict[str, list[Stretch]]:
    """Clips by set: the open tasks that are built, and folders of audio.

    Args:
        data: where tasks are built.
        folders: each is a set under its own name; all audio below counts.

    Raises:
        DataError: a built task is damaged, or a folder is not there or has no audio.
    """
    sets: dict[str, list[Stretch]] = {}
    for path in sorted(data.glob("*.json")):
        if not path.with_suffix(".csv").is_file() or read_about(data, path.stem) is None:
            continue
        table = read_built(data, path.stem).clips.table
        spans = zip(table["path"], table["onset"], table["offset"], strict=True)
        sets[path.stem] = [Stretch.of(*span) for span in spans]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: is no folder; name one with the audio of an evaluation set")
        found = sorted(p for p in folder.rglob("*") if is_audio(p) and p.is_file())
        if not found:
            raise DataError(f"{folder}: holds no audio to be kept out of the corpus")
        name = folder.resolve().name
        sets[f"{name} ({folder})" if name in sets else name] = [Stretch(str(p)) for p in found]
    return sets
