"""`ossicle train --strong`: recordings whose events are known in, a detector out."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Seed, Set, Workers
from ossicle.console import answer, say, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.features import Progress

Strong = Annotated[
    Path,
    typer.Argument(help="Folder of recordings with label files beside, or a table of events."),
]


def train_detector(
    clips: Strong,
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    labels: Annotated[
        Path | None, typer.Option(help="The label files, where they lie elsewhere.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Column, '/regex/', 'runs:K' or 'none': kept together.")
    ] = None,
    inputs: Annotated[
        str, typer.Option(help="mel, features (of the frozen backbone) or both.")
    ] = "features",
    backbone: Annotated[
        str | None, typer.Option(help="Whose frames are read; it stays frozen; default yamnet.")
    ] = None,
    keywords: Set = None,
    epochs: Annotated[int | None, typer.Option(help="At most; default 12, or 300 steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, mask or mix.")] = None,
    precompute: Annotated[
        bool, typer.Option(help="Keep what the frozen front makes, on the disk, for the run.")
    ] = True,
    clip_weight: Annotated[
        float | None, typer.Option(help="Of the loss of whole windows, and of weak labels.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation score; 0: no stop.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share set aside to stop by, without a split in the data.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(help="Share to tell scores of, without a split in the data.")
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train a detector on recordings with strong labels: what sounds when; resumable."""
    given = {
        "inputs": inputs,
        "backbone": backbone,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "window_s": window,
        "augment": augment,
        "precompute": precompute,
        "clip_weight": clip_weight,
        "patience": patience,
        "validation": validation,
        "test": test,
        "seed": seed,
    }
    train_strong(
        clips,
        out,
        {name: value for name, value in given.items() if value is not None},
        labels=labels,
        groups=groups,
        keywords=keywords,
        workers=workers,
        as_json=as_json,
    )


def train_strong(
    clips: Path,
    out: Path,
    given: dict[str, Any],
    *,
    labels: Path | None = None,
    groups: str | None = None,
    keywords: list[str] | None = None,
    workers: int | None = None,
    as_json: bool = False,
) -> None:
    """Train, score on the test part, and write bundle, ``scores.json`` and ``test_events.csv``.

    Args:
        clips: of ``ossicle.datasets.strong.read_strong``.
        out: the bundle.
        given: values of ``ossicle.strong.settings.StrongSettings`` that are not its defaults.
        labels: label files, where they lie elsewhere.
        groups: what must not straddle a split.
        keywords: KEY=VALUE texts for the detector's network.
        workers: threads; None: all cores.
        as_json: one JSON object as the last line.

    Raises:
        OssicleError: settings or recordings cannot be used, or ``out`` is something else.
    """
    from dataclasses import asdict

    from ossicle import bundle
    from ossicle.backbones.frame_crnn import FrameCRNN
    from ossicle.cli_report import command_line
    from ossicle.datasets.strong import read_strong
    from ossicle.keywords import parse_keywords
    from ossicle.line import count_workers
    from ossicle.record import json_safe, record, write_json
    from ossicle.strong.evaluated import card_of, evaluate_detector, summary
    from ossicle.strong.run import train_detector as train
    from ossicle.strong.settings import StrongSettings

    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    settings = StrongSettings(**given).check()
    network = parse_keywords(keywords or [], FrameCRNN, "the detector")
    source = read_strong(clips, labels=labels, groups=groups)
    say([f"note: {note}" for note in source.notes])
    threads = count_workers(workers)
    folder = out.with_name(f"{out.name.removesuffix('.ossicle')}-training")
    try:
        with working("training", "steps") as (tick, tell):
            trained = train(
                source,
                settings,
                folder,
                network=network,
                workers=threads,
                progress=_steps(tick),
                tell=tell,
            )
        with working("scoring the test part") as (tick, _):
            tested = evaluate_detector(
                trained.detector,
                source.subset(trained.parts.test),
                trained.rules,
                workers=threads,
                seed=settings.seed,
                progress=tick,
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {folder}"])
        raise
    detector = trained.detector
    arguments = {**asdict(settings), "clips": str(clips), "network": network}
    run = record(arguments, seed=settings.seed)
    detector.info.update(score=tested.headline, protocol=trained.parts.text, created=run["time"])
    skipped = [*trained.skipped, *tested.skipped]
    scores: dict[str, Any] = {
        "command": command_line(),
        "scores": tested.scores,
        "protocol": trained.parts.text,
        "recordings": {
            name: len(getattr(trained.parts, name)) for name in ("train", "validation", "test")
        },
        "rules": trained.rules.to_json(),
        "taken_after": trained.epoch,
        "validation_score": trained.validation,
        "history": trained.history,
        "skipped": skipped,
        "seconds": trained.seconds,
        "notes": [*source.notes, *trained.notes],
        "record": run,
    }
    bundle.save(detector, out, card=card_of(detector, tested, out.resolve().name))
    write_json(out / "scores.json", json_safe(scores))
    tested.events.to_csv(out / "test_events.csv", index=False)
    # The model is whole: what a stopped run would need is no longer needed.
    shutil.rmtree(folder / "front", ignore_errors=True)
    for name in ("checkpoint.pt", "log.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with suppress(OSError):  # where somebody else's files lie
        folder.rmdir()
    lines = [f"skipped {path}: {reason}" for _, path, reason in skipped]
    lines += [f"note: {note}" for note in trained.notes]
    lines += [*summary(tested), f"weights of epoch {trained.epoch}", f"model: {out}"]
    told = {
        "model": str(out),
        "scores": tested.scores,
        "taken_after": trained.epoch,
        "seconds": trained.seconds,
        "notes": scores["notes"],
    }
    answer(lines, told, as_json)


def _steps(tick: Any) -> Any:
    """A bar that counts (steps done, all steps, seconds of audio heard)."""
    from ossicle.features import Progress as Done

    def count(done: int, total: int, seconds: float) -> Progress:
        return tick(Done(done, total, seconds))

    return tick and count
