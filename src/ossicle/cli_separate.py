"""`ossicle separate run`: recordings in, their sources out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Workers
from ossicle.cli_report import command_line, name_of
from ossicle.console import answer, say, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.separators.base import Separator
    from ossicle.separators.many_files import Tick

# Of so many recordings the headers are read, so that the bar knows how much there is to hear.
_FEW = 200
_ARGUMENTS = ("bundle", "recordings", "sources", "mask", "kind", "only", "band")


def run(
    bundle: Annotated[str, typer.Argument(help="What `ossicle separate train` made.")],
    recordings: Annotated[
        list[Path], typer.Argument(help="Audio files, folders, or a manifest of paths.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the results.")],
    sources: Annotated[
        int | None,
        typer.Option(
            "--sources",
            "--speakers",
            help="How many there are, where the bundle gives sources without names; default 2.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Write this source alone; may be given several times."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="soft or binary, where the bundle has the choice (deep_clustering)."),
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="wav or flac.")] = "wav",
    band: Annotated[
        str,
        typer.Option(
            help="all: what lies above the band that the model hears is dealt out to the sources; "
            "model: it is dropped."
        ),
    ] = "all",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="A page with spectrograms and players.")
    ] = True,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Take recordings of any length apart; run again, it goes on where it stopped."""
    from ossicle.bundle import load_separator
    from ossicle.datasets.unlabelled import unlabelled_clips
    from ossicle.detect.run import known_seconds
    from ossicle.line import count_workers
    from ossicle.separate.results import (
        failures,
        problem_lines,
        result_lines,
        summary,
        write_page,
    )
    from ossicle.separators.many_files import RunSettings, separate_files

    arguments = {name: value for name, value in locals().items() if name in _ARGUMENTS}
    separator = load_separator(bundle)
    if mask is not None:
        _choose_mask(separator, mask)
    settings = RunSettings(
        n_sources=sources, keep=tuple(only) if only else None, kind=kind, band=band
    )
    clips = unlabelled_clips(recordings)
    paths = list(dict.fromkeys(clips.table["path"]))
    with working("separating", "" if len(paths) <= _FEW else "files") as (tick, tell):
        total_s = known_seconds(paths) if tick is not None and len(paths) <= _FEW else None
        made = separate_files(
            separator,
            clips,
            out,
            settings,
            workers=count_workers(workers),
            arguments=arguments,
            progress=None if tick is None else _bar(tick, len(paths), total_s),
            tell=tell,
        )
    if failures(made) == made.recordings:
        say(problem_lines(made))
        raise OssicleError(f"none of the {made.recordings} recordings could be used")
    lines = result_lines(made)
    page = None
    if report:
        page = write_page(made, separator, f"{name_of(Path(bundle))}: {out.name}", command_line())
        lines.append(f"to look and listen: {page}")
    answer(lines, summary(made, page), as_json)


def _choose_mask(separator: Separator, mask: str) -> None:
    if not hasattr(separator, "mask"):
        raise OssicleError(f"{type(separator).__name__} has one kind of mask: leave --mask out")
    if mask not in ("soft", "binary"):
        raise OssicleError(f"no mask {mask!r}: choose soft or binary")
    separator.mask = mask  # type: ignore[assignment]


def _bar(tick: Callable[[Any], None], files: int, total_s: float | None) -> Callable[[Tick], None]:
    from ossicle.features import Progress

    def update(now: Tick) -> None:
        if total_s is not None:
            done = min(now.seconds, total_s)
            tick(Progress(max(1, round(done)), max(1, round(total_s)), now.seconds))
        else:
            tick(Progress(max(1, now.files), files, now.seconds))

    return update
