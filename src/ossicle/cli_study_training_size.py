"""`ossicle study training-size`: score against training size, "B needs k times the data of A"."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli_options import Folds, Groups, Json, Labels, NFolds, Seed, Source, Workers
from ossicle.console import answer, counts, progress_bar, say


def study_training_size(
    clips: Source,
    first: Annotated[
        str,
        typer.Option("--a", metavar="STRATEGY", help='"probe backbone=yamnet", or "NAME: ...".'),
    ],
    others: Annotated[
        list[str],
        typer.Option("--b", metavar="STRATEGY", help="What is set against it; may be repeated."),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder of tables and figure; a stopped run goes on."),
    ] = Path("training-size"),
    sizes: Annotated[
        str, typer.Option(help="Shares of the training part, or clips a class: 5,10,20.")
    ] = "10%,20%,40%,70%,100%",
    seeds: Annotated[int, typer.Option(min=1, help="Repeats: training sets and weights.")] = 5,
    draw: Annotated[
        str, typer.Option(help="Training sets grow by whole groups, or by single clips.")
    ] = "groups",
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    n_folds: NFolds = 5,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Score against training size: how many times the data does one setting need of another's?"""
    from ossicle.datasets.clips import read_clips
    from ossicle.line import count_workers
    from ossicle.study.training_size import training_size_study

    source = read_clips(clips, folds=folds, groups=groups, labels=labels)
    say([f"note: {note}" for note in source.notes])
    try:
        with progress_bar("trainings") as tick:
            result = training_size_study(
                source,
                [first, *others],
                out,
                sizes=sizes,
                seeds=seeds,
                n_folds=n_folds,
                draw_by=draw,
                seed=seed,
                workers=count_workers(workers),
                command=shlex.join(["ossicle", *sys.argv[1:]]),
                progress=counts(tick),
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {out}"])
        raise
    say([note for note in result["protocol"]["notes"] if note not in source.notes])
    found = [text.replace("**", "") for text in result["text"][: len(result["needs"])]]
    answer([*found, f"tables and figure: {out / 'training_size.md'}"], result, as_json)
