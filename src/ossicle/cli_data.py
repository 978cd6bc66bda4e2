"""`ossicle data`: the tasks of the open suite, fetched and built, and audio to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Workers
from ossicle.console import answer, say
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.benchmark.recipe import Recipe

data = typer.Typer(
    no_args_is_help=True, help="Open tasks: fetch, build, list, describe; audio to train on."
)

Folder = Annotated[
    Path | None,
    typer.Option("--data", help="Where built tasks lie; default: data in the cache."),
]


@data.command("get")
def data_get(
    names: Annotated[list[str], typer.Argument(help="Tasks of `ossicle data list`, or all.")],
    folder: Folder = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Fetch the packages of tasks and build them: audio and a manifest each.

    A task that cannot be built does not keep the others from being built.
    """
    from ossicle.benchmark.build import build_task, megabytes
    from ossicle.line import count_workers

    chosen, root = _recipes(names), _root(folder)
    threads = count_workers(workers)
    lines: list[str] = []
    tasks: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for recipe in chosen:
        fetched = megabytes(recipe, root)
        try:
            built = build_task(recipe, root, workers=threads, progress=lambda line: say([line]))
        except OssicleError as error:
            failed[recipe.name] = str(error)
            continue
        about = built.about
        tasks.append(
            {**_told(about), "manifest": built.manifest, "built": built.fresh, "mb": fetched}
        )
        lines += [
            f"{recipe.name}: {about['clips']:,} clips, {len(about['classes'])} classes, "
            f"{_length(about['hours'])}" + ("" if built.fresh else "; was there"),
            f"  licence: {recipe.licence}",
            f"  packages: {len(recipe.packages)}"
            + (f", {fetched:,.1f} MB fetched" if fetched else ""),
            *([f"  what could give it away: {recipe.caveat}"] if recipe.caveat else []),
            *(f"  note: {note}" for note in about["notes"]),
            f"  manifest: {built.manifest}",
        ]
    answer(lines, {"data": root, "tasks": tasks, "failed": failed}, as_json)
    if len(failed) > 1:
        say([f"{name}: {reason}" for name, reason in failed.items()])
        raise OssicleError(f"not built: {', '.join(failed)}; see above")
    for reason in failed.values():
        raise OssicleError(reason)


@data.command("list")
def data_list(folder: Folder = None, as_json: Json = False) -> None:
    """List the open tasks: what each tells apart, its size, what is left to fetch."""
    from ossicle.benchmark.build import megabytes, read_about

    recipes, root = _all(), _root(folder)
    rows: list[dict[str, Any]] = []
    for name, recipe in recipes.items():
        about = read_about(root, name)
        rows.append(
            {
                "name": name,
                "domain": recipe.domain,
                "title": recipe.title,
                "built": about is not None,
                "clips": about and about["clips"],
                "hours": about and about["hours"],
                "mb": megabytes(recipe, root),
            }
        )
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        size = f"{row['clips']:,} clips, {_length(row['hours'])}" if row["built"] else "not built"
        fetch = f", {row['mb']:,.1f} MB to fetch" if row["mb"] else ""
        lines.append(f"{row['name']:<{width}}  {row['domain']:<11}  {row['title']} ({size}{fetch})")
    answer(lines, {"data": root, "tasks": rows}, as_json)


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A task of `ossicle data list`.")],
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Describe a task: source, licence, packages, what could give it away, and what is built."""
    from ossicle.benchmark.build import megabytes, read_about
    from ossicle.benchmark.packages import PACKAGES

    (recipe,), root = _recipes([name]), _root(folder)
    about = read_about(root, name)
    packages = [
        {"package": p, "version": PACKAGES[p].version, "mb": PACKAGES[p].megabytes,
         "licence": PACKAGES[p].licence, "sha256": PACKAGES[p].sha256}
        if p in PACKAGES
        else {"package": p}
        for p in recipe.packages
    ]  # fmt: skip
    told: dict[str, Any] = {
        "name": recipe.name,
        "domain": recipe.domain,
        "title": recipe.title,
        "metric": recipe.metric,
        "licence": recipe.licence,
        "caveat": recipe.caveat,
        "source": recipe.source,
        "packages": packages,
        "mb": megabytes(recipe, root),
        "built": about,
    }
    lines = [f"{recipe.name}: {recipe.title} ({recipe.domain}, {recipe.metric})"]
    lines += [f"licence: {recipe.licence}"]
    lines += [f"what could give it away: {recipe.caveat}"] if recipe.caveat else []
    lines += [f"source: {recipe.source}"] if recipe.source else []
    lines += [
        f"package: {p['package']} {p.get('version', 'of any version')}"
        + (f", {p['mb']:,.1f} MB, {p['licence']}" if "mb" in p else "")
        for p in packages
    ]
    if about is None:
        lines.append(f"not built: `ossicle data get {name}` fetches {told['mb']:,.1f} MB")
    else:
        parts = about.get("parts") or about.get("folds") or {}
        lines += [
            f"clips: {about['clips']:,} in {about['groups']:,} groups, {_length(about['hours'])}",
            "classes: " + ", ".join(f"{c} {n}" for c, n in about["classes"].items()),
            ("parts: " if "parts" in about else "folds: ")
            + ", ".join(f"{c} {n}" for c, n in parts.items()),
            *(f"left out: {clip}: {reason}" for clip, reason in about["left_out"]),
            *(f"note: {note}" for note in about["notes"]),
            f"manifest: {root / name}.csv",
        ]
    answer(lines, told, as_json)


@data.command("corpus")
def data_corpus(
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of corpus.csv; default: corpus in the data's."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Of packages, notes, tunes, words; again for more. Default: all."),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="At most so many; packages give way first, all alike.")
    ] = None,
    windows: Annotated[
        int,
        typer.Option("--windows-per-package", min=1, help="Windows of 4 s taken of a package."),
    ] = 420,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose audio must not be in it; again for more."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of what is taken and rendered.")
    ] = 0,
    folder: Folder = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Fetch and render audio to train on, none of it what the open tasks measure.

    Repeats are left out, and what sounds like a clip of an open task that is built, or of a folder
    named with --evaluation.
    """
    from ossicle.corpus.collect import collect
    from ossicle.corpus.sources import SOURCES
    from ossicle.line import count_workers

    root = _root(folder)
    made = collect(
        (out.expanduser() if out is not None else root / "corpus").absolute(),
        data=root,
        sources=source or tuple(SOURCES),
        evaluation=[path.expanduser() for path in evaluation or ()],
        windows=windows,
        hours=hours,
        seed=seed,
        workers=count_workers(workers),
        progress=lambda line: say([line]),
    )
    about = made.about
    left_out = ", ".join(f"{n:,} {why}" for why, n in about["reasons"].items())
    near = ", ".join(f"{name} {n}" for name, n in about["near_copies"].items())
    lines = [
        f"corpus: {about['clips']:,} clips of {about['files']:,} files, {_length(about['hours'])}",
        *_by("kind", about["by_kind"]),
        *_by("licence", about["by_licence"]),
        *_by("package", about["by_package"]),
        f"  compared with: {', '.join(about['evaluation']) or 'no evaluation set is at hand'}",
        *([f"  files like a clip of an evaluation set: {near}"] if near else []),
        *([f"  left out: {left_out}; named in corpus.json"] if left_out else []),
        *(f"  note: {note}" for note in about["notes"]),
        f"  manifest: {made.manifest}",
    ]
    answer(lines, {**_told(about), "manifest": made.manifest}, as_json)


def _by(what: str, hours: dict[str, float]) -> list[str]:
    return [f"  {what} {name}: {_length(some)}" for name, some in hours.items()]


def _all() -> dict[str, Recipe]:
    from ossicle.benchmark.open_suite.recipes import RECIPES

    return dict(RECIPES)


def _recipes(names: list[str]) -> list[Recipe]:
    recipes = _all()
    if "all" in names:
        return list(recipes.values())
    for name in names:
        if name not in recipes:
            raise OssicleError(f"no open task is called {name!r}; `ossicle data list` lists all")
    return [recipes[name] for name in dict.fromkeys(names)]


def _root(folder: Path | None) -> Path:
    from ossicle.download import cache_dir

    return (folder.expanduser() if folder is not None else cache_dir() / "data").absolute()


def _length(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _told(about: dict[str, Any]) -> dict[str, Any]:
    """Of what a task is, that which a script needs; the rest is in its JSON."""
    return {key: value for key, value in about.items() if key not in ("format", "key")}
