"""What a study leaves: a table (CSV, Markdown), figures (PNG, SVG), numbers and record (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ossicle.record import json_safe, replaced, write_json

# Okabe and Ito's colours, which the colour-blind tell apart (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "legend.frameon": False,
    # The same figure gives the same file.
    "svg.hashsalt": "ossicle",
    "svg.fonttype": "none",
}


def new_figure(
    width: float = 7.0, height: float = 4.0, rows: int = 1, cols: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, cols) axes, in the one look that all studies have.

    Args:
        width, height: inches.
        rows, cols: of axes.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, cols, squeeze=False)
    return figure, axes


def write_study(
    folder: Path,
    name: str,
    *,
    title: str,
    text: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    result: Mapping[str, Any],
    record: Mapping[str, Any],
    command: str,
) -> list[Path]:
    """Write NAME.json, NAME.md, a CSV a table and PNG and SVG a figure; each whole or not at all.

    Args:
        folder: made where it is missing.
        name: of the files.
        title: of the page.
        text: what was found, a sentence or a paragraph each.
        tables: heading -> table; the first is NAME.csv, others NAME-HEADING.csv.
        figures: heading -> figure: NAME-HEADING.png and .svg.
        result: the study's numbers.
        record: what it was made with, see ``ossicle.record.record``.
        command: that makes it again.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json"]
    write_json(files[0], json_safe({**result, "command": command, "record": record}))
    lines = [f"# {title}", "", "```", command, "```", ""]
    for paragraph in text:
        lines += [paragraph, ""]
    for number, (heading, table) in enumerate(tables.items()):
        path = folder / (f"{name}.csv" if number == 0 else f"{name}-{_slug(heading)}.csv")
        with replaced(path) as part:
            table.to_csv(part, index=False)
        files.append(path)
        lines += [f"## {heading}", "", *_markdown(table), ""]
    for heading, figure in figures.items():
        stem = f"{name}-{_slug(heading)}"
        with mpl.rc_context(_STYLE):
            for kind in ("png", "svg"):
                path = folder / f"{stem}.{kind}"
                with replaced(path) as part:
                    # Without a date, the same figure gives the same file.
                    metadata = {"Date": None} if kind == "svg" else {"Software": None}
                    figure.savefig(part, format=kind, dpi=DPI, metadata=metadata)
                files.append(path)
        lines += [f"![{heading}]({stem}.png)", ""]
    lines += ["## Made with", "", made_with(record)]
    page = folder / f"{name}.md"
    with replaced(page) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*files, page]


def made_with(record: Mapping[str, Any]) -> str:
    """Versions, machine, time and seed of a record, in one line."""
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return (
        f"ossicle {record['ossicle']}, {record['python']}, {versions}; "
        f"{record['platform']['cpu']}; {record['time']}; seed {record['seed']}."
    )


def _slug(heading: str) -> str:
    kept = "".join(c if c.isalnum() else "_" for c in heading.lower())
    return "_".join(part for part in kept.split("_") if part)


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|")


def _markdown(table: pd.DataFrame) -> list[str]:
    lines = ["| " + " | ".join(_cell(str(c)) for c in table.columns) + " |"]
    lines.append("|" + "---|" * len(table.columns))
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
    return lines
