"""Where the verbs put reports and numbers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ossicle.console import counts, progress_bar

if TYPE_CHECKING:
    from ossicle.datasets.clips import Clips


def command_line() -> str:
    """What was typed."""
    return shlex.join(["ossicle", *sys.argv[1:]])


def name_of(path: Path) -> str:
    """A source's name: that of the folder, or of the manifest without its ending."""
    return path.resolve().stem if path.is_file() else path.resolve().name


def write_report(result: dict[str, Any], folder: Path, clips: Clips) -> Path:
    """The page of an evaluation."""
    from ossicle.report import write_report as write

    with progress_bar("writing the report") as tick:
        return write(result, folder, audio_root=clips.root, progress=counts(tick))


def write_numbers(result: dict[str, Any], folder: Path) -> Path:
    """``report.json`` alone."""
    from ossicle.record import json_safe, write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", json_safe(result))
    return folder / "report.json"
