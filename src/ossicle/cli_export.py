"""`ossicle export-xares`: a network of ours as a file that X-ARES runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli_options import Json
from ossicle.console import answer


def export_xares(
    source: Annotated[str, typer.Argument(help="A bundle, or a backbone's name.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .py file to write.")],
    layers: Annotated[
        str | None,
        typer.Option(help="all, last, names, numbers: 1-5,last; default: the head's, or all."),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="One frame a clip with these, such as mean,max; default: 50 ms frames."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an encoder for the X-ARES benchmark, beside its bundle."""
    from ossicle.line import split_poolings
    from ossicle.xares_export import write_encoder

    path = write_encoder(source, out, layers=layers, poolings=split_poolings(pooling))
    # The benchmark imports the file by its path from where it runs.
    run = f"run in {path.resolve().parent}: python -m xares.run {path.name} TASKS"
    lines = [f"X-ARES encoder: {path}", run]
    answer(lines, {"encoder": str(path)}, as_json)
