"""A recipe: how the clips of an open task come out of Debian packages. It runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ossicle.benchmark.packages import Packages

Progress = Callable[[str], None]
Builder = Callable[[Packages, Path, Progress | None], pd.DataFrame]


@dataclass(frozen=True)
class Recipe:
    """A task of the open suite, before it is built.

    Attributes:
        name: as on the command line; letters, digits, "-" and "_".
        domain: one of ``ossicle.benchmark.task.DOMAINS``.
        title: what is told apart, a few words.
        packages: Debian packages that the audio comes from.
        licence: of the audio, as the packages' copyright files have it.
        caveat: by what recording conditions could still give the answer away; "" for nothing known.
        build: (packages, folder for rendered audio, progress) -> a row a clip: path (absolute),
            label (str), group (str: what must stay together), and either part ("train", "valid",
            "test") or fold (str, each value tested once by the others); onset and offset (s) where
            not the whole file is meant. The same packages give the same rows.
        metric: "accuracy" or "map", as in ``ossicle.metrics``.
        source: where the idea or the split comes from.
    """

    name: str
    domain: str
    title: str
    packages: tuple[str, ...]
    licence: str
    caveat: str
    build: Builder
    metric: str = "accuracy"
    source: str = ""
