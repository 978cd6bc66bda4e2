"""`ossicle study preprocessing`: twelve ways from a spectrogram to a network's input, compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli_options import Folds, Groups, Json, Labels, NFolds, Seed, Source, Workers
from ossicle.console import answer, counts, progress_bar, say

Excerpt = Annotated[
    float | None,
    typer.Option(help="Seconds heard at once; default: the median clip, at most 29."),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Of each training.")]
Rate = Annotated[float | None, typer.Option(help="Of the network, at its peak.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Clips a step.")]


def study_preprocessing(
    clips: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of table and figures.")] = Path(
        "preprocessing"
    ),
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    excerpt: Excerpt = None,
    power: Annotated[
        int, typer.Option(min=1, max=2, help="Of |STFT| in the mel bands: 1 or 2.")
    ] = 1,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    batch_size: Batch = None,
    n_folds: NFolds = 5,
    max_folds: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many folds.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Networks a setting.")] = 3,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Log or not, weighted or not, times 10 or not: a convnet trained on each (Choi 2017)."""
    from dataclasses import replace

    from ossicle.datasets.clips import read_clips
    from ossicle.line import count_workers
    from ossicle.study.preprocessing import preprocessing_study
    from ossicle.study.preprocessing_page import findings
    from ossicle.study.preprocessing_plan import TRAINING

    changes: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    asked = {
        "folds": folds,
        "groups": groups,
        "labels": labels,
        "excerpt": excerpt,
        "power": power if power != 1 else None,
        **changes,
        "n_folds": n_folds if n_folds != 5 else None,
        "max_folds": max_folds,
        "seeds": seeds if seeds != 3 else None,
        "seed": seed or None,
    }
    words = ["ossicle", "study", "preprocessing", str(clips), "-o", str(out)]
    for name, value in asked.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    source = read_clips(clips, folds=folds, groups=groups, labels=labels)
    say([f"note: {note}" for note in source.notes])
    with progress_bar("networks") as tick:
        result = preprocessing_study(
            source,
            out,
            seeds=seeds,
            seed=seed,
            excerpt_s=excerpt,
            power=power,
            training=replace(TRAINING, **changes),
            n_folds=n_folds,
            max_folds=max_folds,
            workers=count_workers(workers),
            arguments={**asked, "clips": clips, "seeds": seeds, "n_folds": n_folds},
            command=shlex.join(words),
            progress=counts(tick),
        )
    lines = [*findings(result), f"table and figures: {out / 'preprocessing.md'}"]
    answer(lines, result, as_json)
