"""`ossicle bench`: how good a representation is, over many tasks under one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Set, Workers
from ossicle.console import answer, say, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.benchmark.entries import Entry


def bench(
    suite: Annotated[str, typer.Option(help="open or hares.")] = "open",
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="A network or bundle; several times for several rows."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the sets; of open: where they are built.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Results; rows are added to what is there.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Of these alone; with commas.")] = None,
    at: Annotated[
        list[str] | None, typer.Option(metavar="SET=DIR", help="A set that lies elsewhere.")
    ] = None,
    at_hand: Annotated[
        bool, typer.Option("--at-hand", help="Of open, also the sets in OSSICLE_SHARED/data.")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="ossicle, hares, hear, xares, xares-knn or evar; default: hares for hares, "
            "ossicle for open."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="all, last, names, ranges; default: the protocol's.")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Of mean, max, std, band.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights.")] = False,
    keywords: Set = None,
    row: Annotated[
        list[str] | None,
        typer.Option(metavar="[LABEL:]STRATEGY", help="'probe backbone=yamnet layers=last'."),
    ] = None,
    heard: Annotated[
        str, typer.Option(help="What of the suite's audio the networks were trained on.")
    ] = "",
    comparisons: Annotated[
        bool, typer.Option("--comparisons", help="Also baselines and published networks.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of random weights, of probes.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray: local, auto or an address.")
    ] = None,
    fetch: Annotated[bool, typer.Option(help="Fetch and build what of open is missing.")] = True,
    features: Annotated[
        Path | None, typer.Option(help="Cache of features; default: in ossicle's cache.")
    ] = None,
    keep_features: Annotated[
        bool, typer.Option(help="Leave them there for other read-outs and protocols.")
    ] = True,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Score frozen networks on a suite; what is done is kept, and other rows can be added."""
    from ossicle.benchmark.executors import open_executor
    from ossicle.benchmark.results import Results
    from ossicle.benchmark.run import load_tasks, run
    from ossicle.benchmark.scoreboard import lines_of, write_scoreboard
    from ossicle.benchmark.suite_scores import collect
    from ossicle.benchmark.suites import suite_tasks
    from ossicle.cli_report import command_line
    from ossicle.download import cache_dir
    from ossicle.line import count_workers
    from ossicle.record import record

    entries = _entries(
        backbone or [], row or [], layers, pooling, random, keywords or [], comparisons, heard
    )
    protocol = protocol or ("hares" if suite == "hares" else "ossicle")
    only = tasks.split(",") if tasks else None
    chosen, folders = suite_tasks(suite, data, only=only, at=_places(at or []), at_hand=at_hand)
    folder = Path(f"bench-{suite}") if out is None else out
    results = Results(folder, suite)
    unbuilt = _build(chosen, folders, suite) if fetch and suite == "open" else {}
    loaded, missing = load_tasks(chosen, folders, lambda text: None)
    missing |= {name: why for name, why in unbuilt.items() if name in missing}
    say([f"missing {name}: {why}" for name, why in missing.items()])
    if not loaded:
        raise OssicleError(f"none of the {len(chosen)} tasks of {suite} can be run")
    say([f"note: {each.task.name}: {note}" for each in loaded for note in each.data.notes])
    number = count_workers(workers)
    with open_executor(ray, number) as executor, working("features") as (tick, describe):
        ran = run(
            entries,
            loaded,
            results,
            cache=features or cache_dir() / "bench",
            executor=executor,
            protocol=protocol,
            seeds=range(seeds),
            keep_features=keep_features,
            say=describe,
            bar=tick,
        )
    say([f"skipped {line}" for line in ran.skipped])
    say(ran.failures)
    clips = {each.task.name: each.checksum for each in loaded}
    board = collect(results, only=list(chosen), clips=clips)
    command = command_line()
    about = record({"command": command, "protocol": protocol, "seeds": seeds}, seed=0)
    files = write_scoreboard(folder, "scoreboard", board, about, command, missing)
    told: dict[str, Any] = {
        "out": str(folder),
        "files": [str(path) for path in files],
        "missing": missing,
        "failures": ran.failures,
        "skipped": ran.skipped,
        "scoreboard": board,
    }
    answer([*lines_of(board), f"scoreboard: {folder / 'scoreboard.html'}"], told, as_json)
    if ran.failures:
        n = len(ran.failures)
        raise OssicleError(f"{n} parts could not be scored; the first: {ran.failures[0]}")


def _entries(
    backbones: list[str],
    rows: list[str],
    layers: str | None,
    pooling: str | None,
    random: bool,
    keywords: list[str],
    with_comparisons: bool,
    heard: str,
) -> list[Entry]:
    from ossicle.benchmark.comparisons import comparisons
    from ossicle.benchmark.entries import Entry
    from ossicle.finetune.strategy import Strategy, network_keywords

    if not (backbones or rows or with_comparisons):
        raise OssicleError("name a network: --backbone yamnet; or --comparisons for a scoreboard")
    entries = comparisons() if with_comparisons else []
    for name in backbones:
        strategy = Strategy(
            backbone=name,
            random=random,
            config=network_keywords(name, keywords),
            layers=layers,
            pooling=pooling,
        )
        entries.append(Entry(strategy, heard=heard))
    for text in rows:
        # Labels and names of networks may have colons of their own.
        label, found, rest = text.partition(":probe ")
        label, written = (label, f"probe {rest}") if found else ("", text)
        entries.append(Entry(Strategy.parse(written), label.strip(), heard))
    return entries


def _places(texts: list[str]) -> dict[str, Path]:
    places = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise OssicleError(f"--at {text!r}: write SET=DIR")
        places[name] = Path(folder).expanduser()
    return places


def _build(tasks: dict[str, Any], folders: dict[str, Path], suite: str) -> dict[str, str]:
    """Fetch and build the tasks that are not there; name -> why not."""
    from ossicle.benchmark.build import build_task
    from ossicle.benchmark.open_suite.recipes import RECIPES

    failed = {}
    with working("data") as (_, describe):
        for name in tasks:
            if name not in RECIPES:
                continue
            try:
                build_task(RECIPES[name], folders[name], progress=describe)
            except OssicleError as error:
                failed[name] = str(error)
    return failed
