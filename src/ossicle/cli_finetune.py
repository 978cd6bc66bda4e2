"""`ossicle finetune`: labelled clips in, a network whose weights learnt from them out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import (
    DEFAULT_BACKBONE,
    Backbone,
    Folds,
    Groups,
    Json,
    Labels,
    NFolds,
    Pooling,
    Seed,
    Set,
    Source,
    Workers,
)
from ossicle.console import answer, say, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.features import Progress
    from ossicle.finetune.settings import FinetuneSettings


def finetune(
    clips: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    backbone: Backbone = DEFAULT_BACKBONE,
    keywords: Set = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="From random weights: nothing is transferred.")
    ] = False,
    frontend: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the front end, from scratch: scaling=linear."),
    ] = None,
    unfreeze: Annotated[
        str, typer.Option(help="head, all, or the number of last layers that learn.")
    ] = "all",
    layers: Annotated[
        str | None, typer.Option(help="That the head reads; default: all, from scratch the last.")
    ] = None,
    pooling: Pooling = None,
    epochs: Annotated[
        int | None, typer.Option(help="At most; default 20, from scratch 40.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips a step.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the last layer; default 3e-4, from scratch 2e-3.")
    ] = None,
    layer_decay: Annotated[
        float, typer.Option(help="Factor on the rate from a layer to the one before it.")
    ] = 0.9,
    head_start: Annotated[
        str, typer.Option(help="The head begins as a probe on frozen features, or new.")
    ] = "probe",
    unfreeze_every: Annotated[
        int, typer.Option(help="Epochs between layers of gradual unfreezing; 0: all at once.")
    ] = 0,
    frozen_norms: Annotated[
        bool, typer.Option(help="Batch norms keep the statistics they came with.")
    ] = True,
    augment: Annotated[str, typer.Option(help="none, mask or mix.")] = "none",
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation loss; 0: no stop.")
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share of the groups of each training part that it stops by.")
    ] = 0.15,
    refit: Annotated[
        bool, typer.Option(help="Then train anew on those too, for as many epochs as were best.")
    ] = True,
    crop: Annotated[
        float | None, typer.Option(help="Seconds heard at once; default: the median clip.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of weights, not of biases.")] = 1e-2,
    balance: Annotated[bool, typer.Option("--balance", help="Draw classes equally often.")] = False,
    seeds: Annotated[int, typer.Option(help="Networks that are trained and folded into one.")] = 1,
    evaluate: Annotated[bool, typer.Option(help="Cross-validate it, training once a fold.")] = True,
    n_folds: NFolds = 5,
    seed: Seed = 0,
    workers: Workers = None,
    quick: Annotated[bool, typer.Option("--quick", help="The score alone, no report.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network's weights on labelled clips, measured by cross-validation; resumable."""
    from dataclasses import replace

    import numpy as np

    from ossicle import bundle
    from ossicle.cli_report import command_line, write_report
    from ossicle.datasets.clips import read_clips
    from ossicle.features import extract
    from ossicle.finetune.evaluated import evaluate_finetuning
    from ossicle.finetune.models import build
    from ossicle.finetune.run import finetune as tune
    from ossicle.finetune.settings import FinetuneSettings
    from ossicle.finetune.strategy import (
        SCRATCH,
        Strategy,
        frontend_keywords,
        network_keywords,
    )
    from ossicle.line import count_workers, split_poolings
    from ossicle.transfer.summary import brief, summary

    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    chosen: dict[str, Any] = {
        "unfreeze": _unfreeze(unfreeze),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "layer_decay": layer_decay,
        "head_start": head_start,
        "unfreeze_every": unfreeze_every,
        "frozen_norms": frozen_norms,
        "augment": augment,
        "patience": patience,
        "validation": validation,
        "refit": refit,
        "crop_s": crop,
        "weight_decay": weight_decay,
        "balance": balance,
        "seeds": seeds,
        "seed": seed,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = replace(SCRATCH if scratch else FinetuneSettings(), **given).check()
    if scratch:
        _refuse_transfer(settings)
    config = network_keywords(backbone, keywords or [])
    kind = "scratch" if scratch else "finetune"
    changes = frontend_keywords(backbone, frontend or [])
    start = Strategy(
        kind, backbone, config=config, frontend=changes, layers=layers, pooling=pooling
    )
    model = build(start, seed)
    model.backbone.config()  # which refuses what no bundle can carry
    source = read_clips(clips, folds=folds, groups=groups, labels=labels)
    if balance and source.task == "regression":
        raise OssicleError("--balance weighs classes, and these labels are numbers: leave it out")
    poolings, threads = split_poolings(pooling), count_workers(workers)
    folder = out.with_name(f"{out.name.removesuffix('.ossicle')}-finetuning")
    shared: dict[str, Any] = {
        "layers": layers,
        "poolings": poolings,
        "scratch": scratch,
        "workers": threads,
    }
    try:
        with working("embedding") as (tick, _):
            wanted = None if scratch else poolings
            table = extract(model, source, poolings=wanted, workers=threads, progress=tick)
        result = None
        if evaluate:
            with working("training", "steps") as (tick, tell):
                result = evaluate_finetuning(
                    source,
                    table,
                    model,
                    settings,
                    n_folds=n_folds,
                    diagnostics=not quick,
                    folder=folder,
                    arguments={**given, "clips": str(clips), "strategy": start.text()},
                    say=tell,
                    progress=_steps(tick),
                    **shared,
                )
        used = source.subset(table.index)
        own = replace(table, index=np.arange(len(table)))
        rows = np.arange(len(used))
        with working("training on all clips", "steps") as (tick, _):
            tuned = tune(
                model,
                used,
                rows,
                settings,
                table=own,
                folder=folder / "all",
                progress=_steps(tick),
                **shared,
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {folder}"])
        raise
    told: dict[str, Any] = {
        "model": str(out),
        "epochs": tuned.epochs,
        "validation": tuned.validation,
        "ensemble": tuned.ensemble,
        "seconds": tuned.seconds,
    }
    lines = [] if result is not None else [f"skipped {p}: {r}" for _, p, r in table.skipped]
    if result is not None:
        result["command"] = command_line()
        tuned.model.info.update(
            score={"metric": result["metric"], **result["score"]},
            protocol=result["protocol"]["text"],
            created=result["created"],
        )
        lines = list(summary(result))
        told = {**brief(result), **told}
    lines += [f"note: {note}" for note in tuned.notes]
    lines.append(_how(tuned.epochs, tuned.ensemble, settings.head_start))
    bundle.save(tuned.model, out)
    lines.append(f"model: {out}")
    if result is not None and not quick:
        lines.append(f"report: {write_report(result, out.with_name(f'{out.stem}-report'), source)}")
    # The model is whole: what a stopped run would need is no longer needed.
    for part in (folder / "all", *folder.glob("fold[0-9]*")):
        shutil.rmtree(part, ignore_errors=True)
    with suppress(OSError):  # where somebody else's files lie
        folder.rmdir()
    answer(lines, told, as_json)


def _unfreeze(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


def _steps(tick: Callable[[Progress], None] | None) -> Callable[[int, int, float], None] | None:
    from ossicle.features import Progress as Done

    return tick and (lambda done, total, seconds: tick(Done(done, total, seconds)))


def _refuse_transfer(settings: FinetuneSettings) -> None:
    """What concerns weights that were there before says nothing about random ones."""
    given = {
        "--unfreeze": settings.unfreeze != "all",
        "--unfreeze-every": settings.unfreeze_every != 0,
        "--head-start": settings.head_start != "probe",
        "--no-frozen-norms": not settings.frozen_norms,
    }
    for option, is_given in given.items():
        if is_given:
            raise OssicleError(f"{option} is of trained weights: leave it out with --scratch")


def _how(epochs: list[int], ensemble: dict[str, Any], head_start: str) -> str:
    """How the model came about, in a line."""
    if epochs == [0] * len(epochs):
        if head_start == "new":
            return "no epoch bettered a head that knows nothing: try more --epochs"
        return "no epoch bettered the probe on frozen features: the model is that probe"
    n = ensemble["seeds"]
    chosen = "the best" if "losses" in ensemble else "the first"
    why = "their mean was worse" if "losses" in ensemble else "nothing was held out to judge a mean"
    kinds = {
        "single": "one network",
        "heads": f"the mean of {n} heads on one frozen network",
        "weights": f"the mean of the weights of {n} networks",
        "best": f"{chosen} of {n} networks, as {why}",
    }
    return f"{kinds[ensemble['kind']]}, taken after epoch {', '.join(map(str, epochs))}"
