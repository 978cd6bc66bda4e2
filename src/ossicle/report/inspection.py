"""The page of an inspection: pictures with captions, in light and dark; it opens offline."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

MOST_ROWS = 60


class Plate(NamedTuple):
    """A picture or a table of the page.

    Attributes:
        section: the heading that it stands under.
        title, caption, alt: words; ``alt`` is the picture for those who do not see it.
        light, dark: names of the picture's files beside the page; empty: there is none.
        width, height: of the picture, pixels.
        files: (words, name) of other files of it: the drawing, the numbers.
        columns, rows: a table that the page shows; empty: none.
    """

    section: str
    title: str
    caption: str
    alt: str = ""
    light: str = ""
    dark: str = ""
    width: int = 0
    height: int = 0
    files: Sequence[tuple[str, str]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


def inspection_page(
    *,
    title: str,
    facts: Mapping[str, str],
    plates: Sequence[Plate],
    notes: Sequence[str] = (),
    made_with: str = "",
    command: str = "",
) -> str:
    """The page's HTML; pictures are files beside it.

    Args:
        title: what was looked into.
        facts: name -> value, shown at the top.
        plates: in order; those of one section stand together.
        notes: what could not be shown, and why.
        made_with: versions, machine, time.
        command: that makes the page again.
    """
    sections: dict[str, list[Plate]] = {}
    for plate in plates:
        sections.setdefault(plate.section, []).append(plate)
    return _template().render(
        title=title,
        facts=facts,
        sections=sections,
        notes=notes,
        made_with=made_with,
        command=command,
        most_rows=MOST_ROWS,
    )


def cell(value: Any) -> str:
    """A value as the page's tables show it: four digits, nothing for what is not known."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = cell
    return environment.get_template("inspection.html")
