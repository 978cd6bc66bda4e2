"""`ossicle pretrain`: recordings in, a trained network out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli_options import Json, Labels, Seed, Set, Workers
from ossicle.console import answer, progress_bar, say, steps_of
from ossicle.errors import OssicleError


def pretrain(
    clips: Annotated[
        Path | None,
        typer.Argument(help="Folder of recordings or a manifest; with labels where they are used."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")] = Path(
        "pretrained.ossicle"
    ),
    objective: Annotated[
        str, typer.Option(help="simclr, byol, cpc, supervised, joint or distill.")
    ] = "simclr",
    backbone: Annotated[
        str, typer.Option(help="A name from `ossicle backbones`.")
    ] = "slowfast_nfnet_f0",
    keywords: Set = None,
    teachers: Annotated[
        str,
        typer.Option(help="Of distill: networks, with commas; NAME/last is its last layer alone."),
    ] = "",
    windows: Annotated[
        str, typer.Option(help="Of distill: seconds of the windows, with commas.")
    ] = "1,2,4",
    mixtures: Annotated[
        float, typer.Option(help="Of distill: made windows, changed and mixed, for each real one.")
    ] = 0.0,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of the objective: temperature=0.2."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Begin from published weights.")
    ] = False,
    begin: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Begin with what the run of this bundle learnt."),
    ] = None,
    labels: Labels = None,
    tags: Annotated[
        int | None, typer.Option(help="Train on the N most frequent tags alone.")
    ] = None,
    tag_table: Annotated[
        Path | None,
        typer.Option(help="Table with a line for each track,tag,score of the recordings in CLIPS."),
    ] = None,
    min_score: Annotated[float, typer.Option(help="A tag of that table counts above this.")] = 50.0,
    balance: Annotated[bool, typer.Option("--balance", help="Draw classes equally often.")] = False,
    held_out: Annotated[
        float, typer.Option(help="Share of the groups to score a labelled run on.")
    ] = 0.1,
    epochs: Annotated[float, typer.Option(help="Times that every 10 s are heard.")] = 10.0,
    steps: Annotated[int | None, typer.Option(help="Batches in all, instead of epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Items a batch, over all processes.")] = 64,
    crop: Annotated[float, typer.Option(help="Seconds that are heard at once.")] = 1.28,
    jitter: Annotated[
        float, typer.Option(help="Seconds that two views of a sound lie apart at most.")
    ] = 0.5,
    neighbours: Annotated[
        int, typer.Option(help="Segments of one folder that come together in a batch.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="Of weights, not of biases.")] = 1e-2,
    optimiser: Annotated[str, typer.Option(help="adamw, adam, muon or sgd.")] = "adamw",
    clipping: Annotated[
        float | None, typer.Option(help="Adaptive gradient clipping; 0 is none.")
    ] = None,
    average: Annotated[
        float, typer.Option(help="Decay of the moving average of weights; 0 is none.")
    ] = 0.0,
    synthetic: Annotated[
        float, typer.Option(help="Share of synthetic pairs; without CLIPS all are.")
    ] = 0.0,
    delta: Annotated[float, typer.Option(help="How far a synthetic pair lies apart.")] = 0.25,
    probe: Annotated[
        Path | None, typer.Option(help="Labelled clips to score the frozen features on.")
    ] = None,
    probe_every: Annotated[int, typer.Option(help="Steps between; 0: at the end.")] = 0,
    checkpoint_minutes: Annotated[float, typer.Option(help="Between checkpoints.")] = 10.0,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")] = "32-true",
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, or GPUs.")] = 1,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train a network on recordings, with or without labels; a stopped run goes on."""
    from ossicle.backbones import BACKBONES
    from ossicle.datasets.clips import read_clips
    from ossicle.keywords import parse_keywords
    from ossicle.line import count_workers, read_any
    from ossicle.pretrain import run
    from ossicle.pretrain.tags import read_tag_table, top_tags

    if backbone not in BACKBONES:
        raise OssicleError(f"unknown backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
    if objective not in run.OBJECTIVES:
        known = ", ".join(run.OBJECTIVES)
        raise OssicleError(f"unknown objective {objective!r}: choose one of {known}")
    settings = run.Settings(
        objective=objective,
        backbone=backbone,
        config=parse_keywords(keywords or [], BACKBONES[backbone], backbone),
        options=parse_keywords(options or [], run.OBJECTIVES[objective], objective),
        teachers=tuple(name.strip() for name in teachers.split(",") if name.strip()),
        window_s=_seconds(windows),
        mixtures=mixtures,
        pretrained=pretrained,
        begin="" if begin is None else str(begin),
        balance=balance,
        held_out=held_out,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        crop_s=crop,
        jitter_s=jitter,
        neighbours=neighbours,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        optimiser=optimiser,
        clipping=clipping,
        average=average,
        synthetic=synthetic,
        delta=delta,
        precision=precision,
        accelerator=accelerator,
        devices=devices,
        seed=seed,
    )
    source = None
    if clips is not None:
        labelled = objective in run.LABELLED or bool(settings.options.get("labels"))
        if tag_table is not None:
            source = read_tag_table(tag_table, clips, min_score=min_score)
        else:
            source = read_clips(clips, labels=labels) if labelled else read_any(clips)
        if tags is not None:
            source = top_tags(source, tags)
    small = read_clips(probe) if probe is not None else None
    run.check_run(source, out, settings)
    say([f"note: {note}" for note in source.notes] if source is not None else [])
    with progress_bar("decoding") as tick:
        run.decode_all(source, settings, workers=count_workers(workers), progress=tick)
    if objective == "distill":
        with progress_bar("asking teachers") as tick:
            run.ask_teachers(source, settings, workers=count_workers(workers), progress=tick)
    try:
        with steps_of("training") as progress:
            done = run.pretrain(
                source,
                out,
                settings,
                probe=small,
                probe_every=probe_every,
                checkpoint_minutes=checkpoint_minutes,
                workers=count_workers(workers),
                progress=progress,
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {run.training_folder(out)}"])
        raise
    say([f"skipped {path}: {reason}" for _, path, reason in done.skipped])
    last = done.trained.history[-1] if done.trained.history else {}
    told: dict[str, Any] = {
        "out": str(out),
        "hours": done.hours,
        "steps": done.trained.steps,
        "seconds": done.trained.seconds,
        "waiting": done.trained.waiting,
        "last": last,
        "n_skipped": len(done.skipped),
        "held_out": done.scores,
    }
    length = f"{done.hours:.1f} h" if done.hours >= 1 else f"{60 * done.hours:.1f} min"
    heard = f"{length} of recordings" if clips is not None else "synthetic sounds"
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in ("step", "lr"))
    lines = [
        f"{objective}, {done.trained.steps} steps, {heard}: {numbers}",
        f"log and checkpoint: {done.folder}",
        f"model: {out}",
    ]
    if done.scores is not None:
        about = f"{done.scores['n_clips']} clips of {done.scores['n_groups']} groups held out"
        shown = [
            f"{name} {s['value']:.4f} ({s['low']:.4f} to {s['high']:.4f})"
            for name, s in done.scores["scores"].items()
        ]
        if done.scores["absent"]:
            about += f" (none of {', '.join(done.scores['absent'])})"
        lines.insert(1, f"{about}: {', '.join(shown)}")
    elif objective in run.LABELLED and held_out:
        lines.insert(1, "not scored: the groups held out have one class only")
    answer(lines, told, as_json)


def _seconds(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise OssicleError(f"windows {text!r}: give seconds with commas, such as 1,2,4") from error
