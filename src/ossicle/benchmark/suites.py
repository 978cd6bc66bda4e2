"""The suites by name: which tasks, and where their sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ossicle.benchmark.build import read_built
from ossicle.benchmark.open_suite.at_hand import AT_HAND
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.recipe import Recipe
from ossicle.benchmark.task import Task
from ossicle.download import cache_dir
from ossicle.errors import OssicleError

SUITES = ("open", "hares")


def open_task(recipe: Recipe) -> Task:
    """A recipe as a task that reads what was built of it."""
    return Task(
        name=recipe.name,
        suite="open",
        domain=recipe.domain,
        title=recipe.title,
        metric=recipe.metric,
        read=lambda folder: read_built(folder, recipe.name),
        get=f"ossicle data get {recipe.name}",
        licence=recipe.licence,
        caveat=recipe.caveat,
        source=recipe.source,
    )


def suite_tasks(
    suite: str,
    data: Path | None = None,
    *,
    only: Sequence[str] | None = None,
    at: Mapping[str, Path] | None = None,
    at_hand: bool = False,
) -> tuple[dict[str, Task], dict[str, Path]]:
    """The tasks of a suite, and the folder of each task's set.

    Args:
        suite: "open" or "hares".
        data: of hares: the folder that has the sets' folders; of open: where its tasks are built,
            the cache's folder data where None.
        only: names of tasks; None is all.
        at: name of a set or task -> its folder, where it is elsewhere.
        at_hand: of open, also the measuring sets, which no machine can fetch by itself, where they
            are: in the folder data of OSSICLE_SHARED, default ../shared.

    Raises:
        OssicleError: there is no such suite or task, or hares lacks its folder.
    """
    if suite == "hares":
        from ossicle.benchmark.hares_suite.tasks import FOLDERS, HARES

        if data is None and not at:
            raise OssicleError("--suite hares: say with --data DIR where the sets lie")
        base = Path() if data is None else data
        tasks = dict(HARES)
        folders = {name: base / FOLDERS[name] for name in tasks}
        sets = dict(FOLDERS)
    elif suite == "open":
        base = cache_dir() / "data" if data is None else data
        tasks = {name: open_task(recipe) for name, recipe in RECIPES.items()}
        folders = dict.fromkeys(tasks, base)
        shared = Path(os.environ.get("OSSICLE_SHARED", "../shared")).expanduser() / "data"
        for name, task in AT_HAND.items():
            asked = name in (only or ()) or name in (at or ())
            if asked or (at_hand and (shared / name).is_dir()):
                tasks[name], folders[name] = task, shared / name
        sets = {name: name for name in tasks}
    else:
        raise OssicleError(f"no suite {suite!r}: choose one of {', '.join(SUITES)}")
    for name, folder in (at or {}).items():
        known = [task for task, of in sets.items() if name in (task, of)]
        if not known:
            raise OssicleError(f"--at {name}: no such set; there are {', '.join(tasks)}")
        folders.update(dict.fromkeys(known, folder))
    if only:
        for name in only:
            if name not in tasks:
                raise OssicleError(f"no task {name!r} in {suite}: there are {', '.join(tasks)}")
        tasks = {name: tasks[name] for name in tasks if name in only}
    return tasks, {name: folders[name] for name in tasks}
