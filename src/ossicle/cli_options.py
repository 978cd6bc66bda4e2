"""Arguments that several verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ossicle

DEFAULT_BACKBONE = ossicle.DEFAULT_BACKBONE

Source = Annotated[
    Path,
    typer.Argument(help="Folder per class, folder with metadata.csv, or a CSV/Parquet manifest."),
]
Folds = Annotated[
    str | None, typer.Option(help="Column, or '/regex/' on the file name, that names the fold.")
]
Groups = Annotated[
    str | None,
    typer.Option(
        help="Column, '/regex/', 'runs:K' or 'none': what must not straddle a split "
        "(recording, speaker, site)."
    ),
]
Labels = Annotated[str | None, typer.Option(help="Force classes, multilabel or regression.")]
Backbone = Annotated[
    str, typer.Option(help="A name from `ossicle backbones`, hf:NAME, hear:MODULE, or a bundle.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Of the backbone: width=1/8, multiscale=true."),
]
Random = Annotated[bool, typer.Option("--random", help="Random weights: the untrained baseline.")]
Layers = Annotated[str, typer.Option(help="all, last, names, numbers from 1, ranges: 1-5,last.")]
Pooling = Annotated[str | None, typer.Option(help="Of mean, max, std, band; with commas.")]
Probe = Annotated[str, typer.Option(help="ridge, logistic, svm, knn or mlp.")]
Choose = Annotated[bool, typer.Option("--choose-layers", help="Choose layers, nested.")]
Calibration = Annotated[str, typer.Option(help="Of probabilities: temperature, isotonic or none.")]
Balance = Annotated[bool, typer.Option("--balance", help="Weigh rare classes up.")]
NFolds = Annotated[int, typer.Option(help="Folds where the data brings none.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Of folds, random weights and resampling.")
]
Workers = Annotated[int | None, typer.Option(help="Threads; default: all cores.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
