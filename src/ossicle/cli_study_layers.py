"""`ossicle study layers`: which layers transfer, from audio or from a table of features."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli_options import DEFAULT_BACKBONE, Backbone, Json, Labels, NFolds, Seed, Set, Workers
from ossicle.console import answer, counts, progress_bar, say, working
from ossicle.errors import OssicleError


def study_layers(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Labelled clips, a task each; or one .npz with layers (clips, L, dims) and label."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write; of an .npz the JSON file."),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option(
            help="Column or '/regex/' that names the fold; once for all tasks, or once a task in "
            "their order, '' for none."
        ),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(help="Column, '/regex/', 'runs:K' or 'none'; as often as --folds."),
    ] = None,
    labels: Labels = None,
    backbone: Backbone = DEFAULT_BACKBONE,
    keywords: Set = None,
    random: Annotated[
        bool, typer.Option("--random", help="Study random weights instead of the trained ones.")
    ] = False,
    methods: Annotated[
        str | None,
        typer.Option(help="Of exhaustive, forward, backward, group-sparse; with commas."),
    ] = None,
    n_folds: NFolds = 5,
    seed: Seed = 0,
    workers: Workers = None,
    grid: Annotated[
        bool, typer.Option(help="Of an .npz: the published SVM grid; else the search alone.")
    ] = True,
    jobs: Annotated[int, typer.Option(help="Of an .npz: processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Which layers transfer: last, best, all, chosen ones, every set of few (Choi et al. 2017)."""
    tables = [path for path in sources if path.suffix == ".npz"]
    if tables:
        if len(sources) > 1:
            raise OssicleError(f"{tables[0]}: a table of features is studied by itself")
        _table(tables[0], out, grid, jobs, as_json)
        return
    from ossicle.datasets.clips import read_clips
    from ossicle.line import count_workers, pick_model
    from ossicle.study.layers_audio import layers_audio_study

    if out is not None and out.suffix == ".json":
        raise OssicleError(f"{out}: a study of audio writes a folder; leave out .json")
    tasks = {}
    for number, source in enumerate(sources):
        fold = _of(folds, number, len(sources), "--folds")
        group = _of(groups, number, len(sources), "--groups")
        clips = read_clips(source, folds=fold, groups=group, labels=labels)
        name = source.resolve().stem if source.is_file() else source.resolve().name
        if name in tasks:
            raise OssicleError(f"{source}: there is a task called {name} already")
        tasks[name] = clips
        say([f"{name}: {note}" for note in clips.notes])
    model = pick_model(backbone, random, seed, keywords or ())
    untrained = None
    if model.info.get("pretrained") and not random:
        untrained = pick_model(backbone, True, seed, keywords or ())
    with working("embedding") as (tick, tell):
        result = layers_audio_study(
            tasks,
            model,
            untrained,
            out,
            methods=None if methods is None else [m.strip() for m in methods.split(",")],
            n_folds=n_folds,
            seed=seed,
            workers=count_workers(workers),
            name=f"layers_{model.info.get('name') or 'model'}".replace("/", "_").replace(":", "_"),
            command=shlex.join(["ossicle", *sys.argv[1:]]),
            arguments={"backbone": backbone, "keywords": keywords, "random": random},
            progress=tick,
            tell=tell,
        )
    answer([*_lines(result), *result["text"], *_written(result)], result, as_json)


def _table(source: Path, out: Path | None, grid: bool, jobs: int, as_json: bool) -> None:
    from ossicle.study.layers import layers_study
    from ossicle.study.layers_table import layers_table

    with progress_bar("subsets") as tick:
        result = layers_study(source, out=out, grid=grid, n_jobs=jobs, progress=counts(tick))
    answer(layers_table(result).splitlines(), result, as_json)


def _of(given: list[str] | None, number: int, tasks: int, option: str) -> str | None:
    """The option's value for a task."""
    if not given:
        return None
    if len(given) not in (1, tasks):
        raise OssicleError(f"{option} is given {len(given)} times for {tasks} tasks: once, or each")
    return (given[number] if len(given) > 1 else given[0]) or None


def _lines(result: dict[str, Any]) -> list[str]:
    """Read-outs by task, one row each."""
    tasks = result["tasks"]
    readouts = list(next(iter(tasks.values()))["scores"])
    width = max(map(len, readouts))
    lines = [" " * width + "  " + "  ".join(tasks) + ("  mean" if result["means"] else "")]
    for readout in readouts:
        cells = [
            f"{entry['scores'][readout]['value']:.4f}".rjust(len(task))
            for task, entry in tasks.items()
        ]
        mean = [f"{result['means'][readout]:.4f}"] if result["means"] else []
        lines.append("  ".join([readout.ljust(width), *cells, *mean]))
    return lines


def _written(result: dict[str, Any]) -> list[str]:
    pages = [path for path in result.get("files", []) if path.endswith(".md")]
    return [f"written: {path}" for path in pages]
