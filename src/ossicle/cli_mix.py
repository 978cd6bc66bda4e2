"""`ossicle mix`: soundscapes with known events, made from clips and backgrounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli_options import Folds, Groups, Json, Labels, Seed, Source, Workers
from ossicle.console import answer, counts, progress_bar, say
from ossicle.errors import OssicleError


def mix(
    foreground: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder; a stopped run goes on.")],
    background: Annotated[
        list[Path] | None,
        typer.Option(help="Recordings without the classes: files, folders; default: noise."),
    ] = None,
    rooms: Annotated[
        list[Path] | None,
        typer.Option(help="Impulse responses: files, folders; default: made up."),
    ] = None,
    n_train: Annotated[int, typer.Option(min=0, help="Soundscapes to train on.")] = 400,
    n_valid: Annotated[int, typer.Option(min=0, help="Soundscapes to choose by.")] = 100,
    n_test: Annotated[int, typer.Option(min=0, help="Soundscapes to report on.")] = 100,
    valid_folds: Annotated[
        str | None, typer.Option(help="Folds of the clips for valid, with commas: 4.")
    ] = None,
    test_folds: Annotated[
        str | None, typer.Option(help="Folds of the clips for test; train has the others.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Length of a soundscape (s).")] = 10.0,
    events: Annotated[str, typer.Option(help="Fewest,most events in a soundscape.")] = "1,6",
    empty: Annotated[float, typer.Option(help="Share of soundscapes without events.")] = 0.1,
    snr_db: Annotated[
        str, typer.Option(help="Lowest,highest level of events over the background (dB).")
    ] = "6,24",
    max_overlap: Annotated[int, typer.Option(help="Most classes at one moment.")] = 3,
    reverb: Annotated[float, typer.Option(help="Share of soundscapes in a room.")] = 0.2,
    t60: Annotated[
        str, typer.Option(help="Shortest,longest reverberation time of made-up rooms (s).")
    ] = "0.2,0.8",
    speed: Annotated[
        str, typer.Option(help="Slowest,fastest speed of events, pitch and all: 0.9,1.1.")
    ] = "1,1",
    gap: Annotated[float, typer.Option(help="Clips are cut at pauses longer than this (s).")] = 0.5,
    keep_gaps: Annotated[
        bool, typer.Option("--keep-gaps", help="A clip is one event, pauses and all.")
    ] = False,
    threshold_db: Annotated[
        float, typer.Option(help="So far below a clip's loudest is silence (dB).")
    ] = 30.0,
    min_event: Annotated[float, typer.Option(help="Shorter events are not used (s).")] = 0.1,
    max_event: Annotated[
        str, typer.Option(help="Longer ones are cut to a length drawn between these (s).")
    ] = "1,5",
    fade_ms: Annotated[float, typer.Option(help="Fades at cuts (ms).")] = 10.0,
    cut_at_end: Annotated[
        bool, typer.Option("--cut-at-end", help="Events may run past the end, and are cut there.")
    ] = False,
    sample_rate: Annotated[int, typer.Option(help="Of the files (Hz).")] = 16000,
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make soundscapes with known events from clips and backgrounds: WAV files and a table."""
    from ossicle.datasets.clips import read_clips
    from ossicle.line import count_workers
    from ossicle.mix import MixSettings, mix_soundscapes

    low, high = _pair("--events", events)
    settings = MixSettings(
        duration_s=duration,
        sample_rate=sample_rate,
        events=(_whole("--events", low), _whole("--events", high)),
        empty=empty,
        snr_db=_pair("--snr-db", snr_db),
        max_overlap=max_overlap,
        cut_at_end=cut_at_end,
        gap_s=None if keep_gaps else gap,
        threshold_db=threshold_db,
        min_event_s=min_event,
        max_event_s=_pair("--max-event", max_event),
        fade_s=fade_ms / 1000,
        speed=_pair("--speed", speed),
        reverb=reverb,
        t60_s=_pair("--t60", t60),
        seed=seed,
    )
    for source in (foreground, *(background or ()), *(rooms or ())):
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise OssicleError(f"{out}: lies in {source}, which is read; choose another folder")
    clips = read_clips(foreground, folds=folds, groups=groups, labels=labels)
    say([f"note: {note}" for note in clips.notes])
    try:
        with progress_bar("mixing") as tick:
            done = mix_soundscapes(
                clips,
                out,
                settings,
                counts={"train": n_train, "valid": n_valid, "test": n_test},
                backgrounds=background or (),
                rooms=rooms or (),
                valid_folds=_names(valid_folds),
                test_folds=_names(test_folds),
                workers=count_workers(workers),
                progress=counts(tick),
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {out}"])
        raise
    say([f"note: {note}" for note in done.info["notes"]])
    lines = [_line(part, value) for part, value in done.info["parts"].items()]
    if done.kept:
        lines.append(f"{done.kept} were there already, {done.rendered} made")
    lines.append(f"events: {out / 'events.csv'}")
    told = {
        "out": str(out),
        "parts": done.info["parts"],
        "rendered": done.rendered,
        "kept": done.kept,
        "notes": done.info["notes"],
    }
    answer(lines, told, as_json)


def _line(part: str, value: dict[str, Any]) -> str:
    return (
        f"{part}: {value['soundscapes']} soundscapes, {value['hours']:.2f} h, "
        f"{value['events']} events of {len(value['classes'])} classes, "
        f"{value['empty']} without any"
    )


def _pair(option: str, text: str) -> tuple[float, float]:
    """ "6,24" as two numbers; one number stands for both."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise OssicleError(f"{option} {text}: write two numbers with a comma between, as in 1,6")
    return numbers[0], numbers[-1]


def _whole(option: str, value: float) -> int:
    if not value.is_integer():
        raise OssicleError(f"{option} {value:g}: give whole numbers")
    return int(value)


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []
