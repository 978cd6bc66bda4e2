"""An inspection as a folder: pictures, numbers, a record, and the page that shows them all."""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from ossicle.errors import OssicleError
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.inspection.pictures import DPI, LIGHT, THEMES, style
from ossicle.record import json_safe, write_json
from ossicle.report.inspection import Plate, inspection_page

NUMBERS, PAGE = "inspect.json", "index.html"
# A drawing larger than this is better looked at as pixels.
MOST_SVG_BYTES = 150_000


def write_inspection(
    found: Inspection,
    folder: Path,
    *,
    record: Mapping[str, Any],
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `index.html`, `inspect.json`, and for each exhibit its pictures and its CSV.

    The folder appears whole or not at all; an older inspection there is replaced.

    Args:
        found: what to write.
        folder: new, empty, or an older inspection.
        record: what it was made with, see ``ossicle.record.record``.
        command: that makes it again.
        progress: called with (exhibits done, all).

    Returns:
        The path of the page.

    Raises:
        OssicleError: the folder holds something else, or cannot be written.
    """
    check_folder(folder)
    temporary = folder.parent / f".{folder.name[:32]}.{secrets.token_hex(4)}.part"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        plates = []
        for number, exhibit in enumerate(found.exhibits, start=1):
            plates.append(_plate(exhibit, temporary))
            if progress is not None:
                progress(number, len(found.exhibits))
        page = inspection_page(
            title=found.title,
            facts=found.facts,
            plates=plates,
            notes=found.notes,
            made_with=_made_with(record),
            command=command,
        )
        (temporary / PAGE).write_bytes(page.encode("utf-8", "replace"))
        write_json(temporary / NUMBERS, summary(found, record, command))
        _put(temporary, folder)
    except OSError as error:
        raise OssicleError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / PAGE


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an older inspection.

    Raises:
        OssicleError: it does.
    """
    if folder.exists() and not folder.is_dir():
        raise OssicleError(f"{folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NUMBERS).is_file():
        raise OssicleError(f"{folder}: holds something else; name a new folder")


def summary(
    found: Inspection, record: Mapping[str, Any] | None = None, command: str = ""
) -> dict[str, Any]:
    """What is in `inspect.json`: title, facts, notes, numbers, exhibits, command, record."""
    told: dict[str, Any] = json_safe(
        {
            "title": found.title,
            "facts": found.facts,
            "notes": found.notes,
            "numbers": found.numbers,
            "exhibits": [
                {"name": e.name, "section": e.section, "title": e.title, "caption": e.caption}
                for e in found.exhibits
            ],
            "command": command,
            "record": record,
        }
    )
    return told


def _plate(exhibit: Exhibit, folder: Path) -> Plate:
    files, light, dark, size = [], "", "", (0, 0)
    if exhibit.draw is not None:
        for theme in THEMES:
            name = exhibit.name if theme is LIGHT else f"{exhibit.name}-{theme.name}"
            with mpl.rc_context(style(theme)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a font that lacks a sign in a label
                figure = exhibit.draw()
                metadata: dict[str, Any] = {"Software": None}
                figure.savefig(folder / f"{name}.png", dpi=DPI, metadata=metadata)
                if theme is LIGHT:
                    drawing = folder / f"{name}.svg"
                    figure.savefig(drawing, metadata={"Date": None})
                    if drawing.stat().st_size > MOST_SVG_BYTES:
                        drawing.unlink()
                    else:
                        files.append(("drawing (SVG)", drawing.name))
                size = tuple(round(inches * DPI) for inches in figure.get_size_inches())
        light, dark = f"{exhibit.name}.png", f"{exhibit.name}-dark.png"
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    if exhibit.table is not None:
        exhibit.table.to_csv(folder / f"{exhibit.name}.csv", index=False)
        files.append(("numbers (CSV)", f"{exhibit.name}.csv"))
        if exhibit.shown:
            columns = tuple(map(str, exhibit.table.columns))
            rows = list(exhibit.table.itertuples(index=False, name=None))
    return Plate(
        exhibit.section,
        exhibit.title,
        exhibit.caption,
        exhibit.alt,
        light,
        dark,
        size[0],
        size[1],
        files,
        columns,
        rows,
    )


def _put(temporary: Path, folder: Path) -> None:
    """Give the new folder its name; what else lies in an older one is ours and goes."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = temporary.with_suffix(".old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _made_with(record: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return (
        f"ossicle {record['ossicle']}, {record['python']}, {versions}; {record['time']}; "
        f"seed {record['seed']}."
    )
