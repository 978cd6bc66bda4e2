"""One thing to look at: a picture with its words, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure


class Exhibit(NamedTuple):
    """A picture or a table, or both.

    Attributes:
        name: of its files, without ending: letters, digits and underscores.
        section: the heading it stands under.
        title: of a few words.
        caption: what is seen, with the numbers that matter.
        alt: the picture in words, for those who do not see it.
        draw: makes the picture, in the colours that are set when it is called; None: there is none.
        table: the numbers, written as CSV; None: there are none.
        shown: whether the page shows the table as well.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str = ""
    draw: Callable[[], Figure] | None = None
    table: pd.DataFrame | None = None
    shown: bool = False


@dataclass
class Inspection:
    """All that was found.

    Attributes:
        title: of the page: what was looked into.
        facts: name -> value, a few words each.
        exhibits: in the order of the page.
        notes: what could not be shown, and why.
        numbers: those that a program may want, ready for JSON.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    exhibits: list[Exhibit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
