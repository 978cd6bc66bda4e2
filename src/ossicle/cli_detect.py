"""`ossicle detect`: hours of audio in, what sounds when out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Workers
from ossicle.console import answer, say, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.detect.stream import Tick

# Problems that are told on the terminal; all are in files.csv.
_TOLD = 20
Rule = Annotated[str | None, typer.Option(metavar="S|CLASS=S,...", help="Seconds.")]


def detect(
    model: Annotated[
        str, typer.Argument(help="A bundle, or a network with published classes, such as yamnet.")
    ],
    recordings: Annotated[
        list[Path], typer.Argument(help="Audio files, folders, or a manifest of paths.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the results.")],
    window: Annotated[
        float | None, typer.Option(help="Seconds that a clip model hears at once.")
    ] = None,
    step: Annotated[float | None, typer.Option(help="Seconds from one window to the next.")] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Instead of --step: share of a window that the next hears; default .5."),
    ] = None,
    shared: Annotated[
        bool | None,
        typer.Option(
            "--shared/--no-shared",
            help="Read windows out of shared maps: overlap is nearly free, but a window hears "
            "what is beside it.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Find this class alone; may be given several times."),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="X|CLASS=X,...",
            help="Score from which on a class sounds; default: the bundle's own, else .5.",
        ),
    ] = None,
    low: Annotated[
        str | None,
        typer.Option(metavar="X|CLASS=X,...", help="Score down to which an event goes on."),
    ] = None,
    median: Annotated[
        str | None, typer.Option(metavar="S|CLASS=S,...", help="Seconds of the median filter.")
    ] = None,
    min_duration: Annotated[
        str | None,
        typer.Option(metavar="S|CLASS=S,...", help="Seconds: shorter events are dropped."),
    ] = None,
    min_gap: Annotated[
        str | None,
        typer.Option(metavar="S|CLASS=S,...", help="Seconds: shorter gaps are closed."),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="Label files for each recording: all, none, or of audacity, raven, rttm, dcase, "
            "jsonl; with commas."
        ),
    ] = "all",
    scores: Annotated[
        bool, typer.Option("--scores", help="Keep the scores of all frames, as Parquet.")
    ] = False,
    unknown: Annotated[
        float | None,
        typer.Option(
            help="Mark as unknown what is less familiar than this share of known sounds: .95."
        ),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Find a model's sounds in recordings of any length; run again, it goes on where it stopped."""
    from ossicle.datasets.unlabelled import unlabelled_clips
    from ossicle.detect.parameters import rules_of
    from ossicle.detect.run import LABELS, known_seconds
    from ossicle.detect.run import detect as find
    from ossicle.line import count_workers, open_model
    from ossicle.report.words import plural

    arguments = {name: value for name, value in locals().items() if name in _ARGUMENTS}
    network = open_model(model)
    rules = rules_of(network).with_overrides(
        threshold=threshold,
        low=low,
        median_s=median,
        min_duration_s=min_duration,
        min_gap_s=min_gap,
    )
    kinds = {"all": list(LABELS), "none": []}.get(labels, [k.strip() for k in labels.split(",")])
    clips = unlabelled_clips(recordings)
    paths = list(dict.fromkeys(clips.table["path"]))
    with working("detecting", "" if len(paths) <= _FEW else "files") as (tick, tell):
        total_s = known_seconds(paths) if tick is not None and len(paths) <= _FEW else None
        found = find(
            network,
            clips,
            out,
            window_s=window,
            step_s=step,
            overlap=overlap,
            shared=shared,
            rules=rules,
            classes=classes,
            labels=kinds,
            scores=scores,
            unknown=unknown,
            workers=count_workers(workers),
            arguments=arguments,
            progress=None if tick is None else _bar(tick, len(paths), total_s),
            tell=tell,
        )
    lines = [f"{status}: {file}: {reason}" for file, status, reason in found.problems[:_TOLD]]
    if len(found.problems) > _TOLD:
        lines.append(f"and {len(found.problems) - _TOLD} more, see {out / 'files.csv'}")
    failed = sum(status == "failed" for _, status, _ in found.problems)
    if failed == found.recordings:
        say(lines)
        raise OssicleError(f"none of the {failed} recordings could be heard")
    if found.resumed:
        lines.append(f"{found.resumed} recordings were done before, {found.heard} heard now")
    lines.append(
        f"{found.events} events in {plural(found.recordings - failed, 'recording')} "
        f"({_length(found.seconds)}): {out / 'events.csv'}"
    )
    if found.events:
        root = found.root if len(paths) > 1 else Path(paths[0])
        lines.append(
            f"to look and listen: ossicle picture {shlex.quote(str(root))} "
            f"{shlex.quote(str(out / 'events.csv'))} -o {shlex.quote(str(out / 'page.html'))}"
        )
    answer(
        lines,
        {
            "events": found.events,
            "recordings": found.recordings,
            "resumed": found.resumed,
            "failed": failed,
            "damaged": len(found.problems) - failed,
            "seconds": found.seconds,
            "out": str(out),
        },
        as_json,
    )


_ARGUMENTS = (
    *("model", "recordings", "window", "step", "overlap", "threshold", "low", "median"),
    *("min_duration", "min_gap", "labels", "scores", "unknown", "classes", "shared"),
)
# Of so many recordings the headers are read, so that the bar knows how much there is to hear.
_FEW = 200


def _bar(tick: Callable[[Any], None], files: int, total_s: float | None) -> Callable[[Tick], None]:
    from ossicle.features import Progress

    def update(now: Tick) -> None:
        if total_s is not None:
            done = min(now.seconds, total_s)
            tick(Progress(max(1, round(done)), max(1, round(total_s)), now.seconds))
        else:
            tick(Progress(max(1, now.files), files, now.seconds))

    return update


def _length(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
