"""`ossicle advise`: what to do with labelled clips, before anything is trained."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import (
    DEFAULT_BACKBONE,
    Folds,
    Groups,
    Json,
    Labels,
    NFolds,
    Seed,
    Source,
    Workers,
)
from ossicle.console import answer, say, working

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def advise(
    clips: Source,
    backbone: Annotated[
        str, typer.Option(help="A name from `ossicle backbones`, hf:NAME, or a bundle.")
    ] = DEFAULT_BACKBONE,
    source: Annotated[
        Path | None,
        typer.Option(help="Recordings like those that the network learnt from, labelled or not."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run the alternatives: was the advice right?")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="Of last, all, chosen, random, mfcc, finetune_last, finetune_all, scratch; "
            "with commas."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of page, table, figure and record.")
    ] = None,
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    n_folds: NFolds = 5,
    sample: Annotated[int, typer.Option(min=20, help="Clips to measure on, at most.")] = 300,
    verify_on: Annotated[int, typer.Option(min=20, help="Clips to verify on, at most.")] = 300,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Which way to a model? What to do, what it will cost, and the score to expect."""
    from ossicle.advise.advice import advise as advice
    from ossicle.advise.words import advice_lines
    from ossicle.datasets.clips import read_clips
    from ossicle.line import count_workers, read_any

    arguments = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in locals().items()
        if name not in ("advice", "advice_lines", "read_clips", "count_workers", "read_any")
    }
    read = read_clips(clips, folds=folds, groups=groups, labels=labels)
    there = read_any(source) if source is not None else None
    say([f"note: {note}" for note in read.notes])
    with working("measuring") as (_, tell):
        result = advice(
            read,
            backbone,
            source=there,
            only=None if only is None else [name.strip() for name in only.split(",")],
            verified=verify,
            n_folds=n_folds,
            sample=sample,
            verify_on=verify_on,
            seed=seed,
            workers=count_workers(workers),
            arguments=arguments,
            say=tell,
        )
    reading = {"--folds": folds, "--groups": groups, "--labels": labels}
    options = [word for name, value in reading.items() if value for word in (name, value)]
    lines = advice_lines(result, str(clips), options)
    if out is not None:
        files = _written(out, result, lines)
        lines.append(f"page: {files}")
    answer(lines, result, as_json)


def _written(folder: Path, result: Mapping[str, Any], lines: list[str]) -> Path:
    """Page, table, figure and numbers; the page."""
    from ossicle.advise.words import table
    from ossicle.study.outputs import write_study

    numbers = {key: value for key, value in result.items() if key != "record"}
    return write_study(
        folder,
        "advice",
        title=f"Advice on {result['title']}",
        text=["```\n" + "\n".join(lines) + "\n```"],
        tables={"Alternatives": table(result)},
        figures={"Expected": _figure(result)},
        result=numbers,
        record=result["record"],
        command=shlex.join(["ossicle", *sys.argv[1:]]),
    )[-1]


def _figure(result: Mapping[str, Any]) -> Figure:
    """Expected scores with their intervals, and what was verified."""
    from ossicle.advise.words import table
    from ossicle.study.outputs import COLOURS, new_figure

    rows = table(result)[::-1].reset_index(drop=True)
    figure, axes = new_figure(7.0, 0.8 + 0.4 * len(rows))
    axis, at = axes[0, 0], range(len(rows))

    def bars(prefix: str, value: str, shift: float, colour: str, label: str) -> None:
        centre = rows[value]
        ends = [centre - rows[f"{prefix}low"], rows[f"{prefix}high"] - centre]
        axis.errorbar(
            centre,
            [y + shift for y in at],
            xerr=[e.clip(lower=0) for e in ends],
            fmt="o",
            color=colour,
            capsize=2,
            label=label,
        )

    bars("", "expected", 0.1, COLOURS[0], f"expected ({100 * result['level']:.0f} % interval)")
    if result["verified"] is not None:
        bars("verified ", "verified value", -0.1, COLOURS[1], "verified (95 % interval)")
    axis.axvline(result["facts"]["sample"]["chance"], color=COLOURS[6], lw=0.8, ls=":")
    axis.set_yticks(list(at), list(rows["what"]))
    axis.set_xlabel("score (dotted: chance)")
    axis.legend(loc="lower left")
    return figure
