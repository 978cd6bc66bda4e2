"""The terminal side of the command line: answers on standard output, the rest on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from ossicle.features import Progress


def fail(message: str) -> NoReturn:
    """The message on standard error, and exit code 2."""
    typer.echo(message, err=True)
    sys.exit(2)


def answer(lines: list[str], value: dict[str, Any], as_json: bool) -> None:
    """Lines for people on standard output, or on standard error beside one JSON line."""
    from ossicle.record import json_safe

    if as_json:
        say(lines)
        typer.echo(json.dumps(json_safe(value), ensure_ascii=False, allow_nan=False))
    else:
        for line in lines:
            typer.echo(line)


def say(lines: list[str]) -> None:
    """Lines on standard error."""
    for line in lines:
        typer.echo(line, err=True)


@contextmanager
def steps_of(verb: str) -> Iterator[Callable[[int, int, float], None] | None]:
    """A bar that counts (steps done, all steps, seconds of audio heard); None if no terminal."""
    with working(verb, "steps") as (tick, _):
        from ossicle.features import Progress

        yield tick and (lambda done, total, seconds: tick(Progress(done, total, seconds)))


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on standard error with files/s, times real time and time left; None if no terminal."""
    with working(verb) as (tick, _):
        yield tick


@contextmanager
def working(
    verb: str,
    unit: str = "files",
) -> Iterator[tuple[Callable[[Progress], None] | None, Callable[[str], None] | None]]:
    """The bar of ``progress_bar``, and a way to say what is done once the clips are through.

    Both are None where standard error is no terminal. Without a unit the speed is told in times
    real time alone.
    """
    if not sys.stderr.isatty():
        yield None, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None, speed="")
        start = time.perf_counter()

        before: list[Progress] = []

        def tick(p: Progress) -> None:
            elapsed = max(time.perf_counter() - start, 1e-9)
            if not before:  # what a resumed run had done is not this one's speed
                each = p.seconds_read / p.done
                before.append(p._replace(done=p.done - 1, seconds_read=p.seconds_read - each))
            speed = [f"{(p.done - before[0].done) / elapsed:.1f} {unit}/s"] if unit else []
            if p.seconds_read:
                heard = p.seconds_read - before[0].seconds_read
                speed.append(f"{heard / elapsed:.0f} times real time")
            bar.update(task, total=p.total, completed=p.done, speed=", ".join(speed))

        yield tick, lambda text: bar.update(task, description=text)


def counts(tick: Callable[[Progress], None] | None) -> Callable[[int, int], None] | None:
    """The bar of ``progress_bar`` for work that reports (done, total)."""
    from ossicle.features import Progress

    return None if tick is None else lambda done, total: tick(Progress(done, total, 0.0))
