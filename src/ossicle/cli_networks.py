"""`ossicle backbones` and `ossicle export-hear`: which networks there are, and ours for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli_options import Json
from ossicle.console import answer
from ossicle.errors import OssicleError


def backbones(
    pattern: Annotated[str, typer.Argument(help="Names with wildcards, such as '*net*'.")] = "*",
    as_json: Json = False,
) -> None:
    """List the networks: parameters, rate, layers, embedding size, weights and their licence."""
    from ossicle.describe import describe_families, describe_models

    rows = describe_models(pattern)
    if not rows:
        raise OssicleError(f"no backbone is called {pattern!r}; `ossicle backbones` lists all")
    width = max(len(row["name"]) for row in rows)
    lines = []
    for row in rows:
        lines.append(
            f"{row['name']:<{width}}  {row['parameters']:>10,} parameters  "
            f"{row['sample_rate']:>6} Hz  layers {row['layers']:>3}  "
            f"{row['embedding']:>5} values  {row['weights']} [{row['licence']}]"
        )
    families = describe_families() if pattern == "*" else []
    lines += [f"{family['usage']}: {family['description']}" for family in families]
    answer(lines, {"backbones": rows, "families": families}, as_json)


def export_hear(
    source: Annotated[str, typer.Argument(help="A bundle, or a backbone's name.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the module.")],
    as_json: Json = False,
) -> None:
    """Write a module with the API of the HEAR benchmark, beside its bundle."""
    from ossicle.hear_export import write_module

    path = write_module(source, out)
    answer([f"HEAR module: {path}"], {"module": str(path)}, as_json)
