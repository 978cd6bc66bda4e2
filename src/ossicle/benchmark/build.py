"""A recipe becomes a manifest: each clip decoded once, what is unfit left out and named.

A built task is two files: NAME.csv, a manifest that `read_clips` reads as well, and NAME.json,
which says where its clips come from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

from ossicle import __version__, audio
from ossicle.benchmark.packages import PACKAGES, Packages
from ossicle.benchmark.recipe import Recipe
from ossicle.benchmark.task import PARTS, TaskData, from_rows
from ossicle.datasets.clips import part_text
from ossicle.download import cache_dir
from ossicle.errors import AudioError, DataError
from ossicle.record import json_safe, replaced, write_json

_RATE = 16000
_SHORTEST_S = 0.02
_MOST_FOLDS = 6
_FORMAT = 1


@dataclass(frozen=True)
class Built:
    """A task on disk.

    Attributes:
        manifest: NAME.csv.
        about: what NAME.json says: name, domain, title, metric, task, licence, caveat, source;
            packages (package, version, sha256, licence, note); clips, classes (clips of each),
            groups, hours, parts or folds (clips of each), left_out (clip, reason), notes.
        fresh: whether it was built now; False: it was there.
    """

    manifest: Path
    about: dict[str, Any]
    fresh: bool


def build_task(
    recipe: Recipe,
    folder: Path,
    *,
    packages: Packages | None = None,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Built:
    """Fetch, unpack, render where the recipe does, decode, and write the manifest.

    A task that the same recipe built from the same packages is left as it is. Clips that cannot be
    read, are silent or shorter than 20 ms are left out; of clips that sound the same (their
    samples at 16 kHz), the first is kept, and none where their labels contradict each other.

    Args:
        recipe: what to build.
        folder: gets NAME.csv and NAME.json, beside packages/ and audio/NAME/; made where missing.
        packages: where packages lie, below ``folder``; None: in ``folder / "packages"``.
        workers: threads that decode.
        progress: called with a line now and then.

    Raises:
        DownloadError: a package is not to be had.
        DataError: the recipe's rows are no task; or with what is left out a class or a part is
            gone, or a class that is tested cannot be learnt.
    """
    say = progress or (lambda line: None)
    _check_name(recipe.name)
    # Absolute, with links in it resolved: so are the paths that it is cut off from.
    folder = Path(folder).resolve()
    packages = packages or Packages(folder / "packages", progress=progress)
    sources = [packages.about(name) for name in recipe.packages]
    key = _key(recipe, sources)
    if (there := _there(folder, recipe.name, key)) is not None:
        return Built(folder / f"{recipe.name}.csv", there, False)
    # Under the key: what another version of the recipe has rendered is not taken for this one's.
    rendered = folder / "audio" / recipe.name / key[:12]
    rendered.mkdir(parents=True, exist_ok=True)
    say(f"{recipe.name}: collecting clips")
    rows = _checked(recipe.build(packages, rendered, progress), recipe, folder)
    say(f"{recipe.name}: decoding {len(rows):,} clips")
    kept, left_out, seconds = _sound(rows, folder, workers)
    notes = [source["note"] for source in sources if source["note"]]
    notes += _check_left(rows, kept, recipe.name)
    if left_out:
        first = f"{left_out[0][0]}: {left_out[0][1]}"
        notes.append(f"{len(left_out)} of {len(rows)} clips left out, such as {first}")
    about = {
        "format": _FORMAT,
        "key": key,
        **_texts(recipe),
        "task": "multilabel" if kept["label"].str.contains(";").any() else "classes",
        "packages": sources,
        "clips": len(kept),
        "hours": seconds / 3600,
        "classes": _count([n for label in kept["label"] for n in label.split(";")]),
        "groups": int(kept["group"].nunique()),
        "parts" if "part" in kept else "folds": _count(kept["part" if "part" in kept else "fold"]),
        "left_out": left_out,
        "notes": notes,
    }
    manifest = folder / f"{recipe.name}.csv"
    with replaced(manifest) as part:
        kept.rename(columns={"part": "split"}).to_csv(part, index=False)
        about["manifest_sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    # The JSON last: it vouches for the manifest by its checksum.
    write_json(folder / f"{recipe.name}.json", json_safe(about))
    for old in rendered.parent.iterdir():
        if old != rendered:
            shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):  # empty where nothing was rendered
        rendered.rmdir()
        rendered.parent.rmdir()
    return Built(manifest, about, True)


def read_about(folder: Path, name: str) -> dict[str, Any] | None:
    """What NAME.json says of a built task (see ``Built``); None where it is not built.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / f"{_check_name(name)}.json"
    if not path.is_file() or not path.with_suffix(".csv").is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and build anew") from error
    if not isinstance(about, dict) or about.get("name") != name:
        raise DataError(f"{path}: is not about the task {name}; remove it and build anew")
    return about


def read_built(folder: Path, name: str) -> TaskData:
    """The clips of a built task, classes sorted.

    Raises:
        DataError: it is not built, damaged, or its files are gone.
    """
    folder = Path(folder).resolve()
    about = read_about(folder, name)
    manifest = folder / f"{name}.csv"
    if about is None:
        raise DataError(f"{manifest}: is not there; `ossicle data get {name}` builds it")
    try:
        rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest}: cannot be read ({error}); build it anew") from error
    if lacking := {"path", "label", "group"} - set(rows) or not {"split", "fold"} & set(rows):
        missing = min(lacking) if isinstance(lacking, set) else "split"
        raise DataError(f"{manifest}: has no column {missing}; build it anew")
    for column in {"onset", "offset"} & set(rows):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    task = str(about.get("task", "classes"))
    if task == "multilabel":
        rows["label"] = pd.Series([text.split(";") for text in rows["label"]], index=rows.index)
    return from_rows(
        rows.rename(columns={"split": "part"}),
        folder,
        task=task,
        group_source="the recipe",
        notes=[str(note) for note in about.get("notes", [])],
    )


def megabytes(recipe: Recipe, folder: Path) -> float:
    """How much a build still has to fetch (10^6 bytes), as far as it is known."""
    debs = cache_dir() / "debs"
    missing = [
        name
        for name in recipe.packages
        if not (Path(folder) / "packages" / name).is_dir() and not any(debs.glob(f"{name}_*.deb"))
    ]
    return sum(PACKAGES[name].megabytes for name in missing if name in PACKAGES)


class _Heard(NamedTuple):
    """Of one clip: its content and length, or why it is unfit."""

    content: str
    seconds: float
    reason: str


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise DataError(f"{name!r}: a task's name has letters, digits, - and _ alone")
    return name


def _texts(recipe: Recipe) -> dict[str, str]:
    names = ("name", "domain", "title", "metric", "licence", "caveat", "source")
    return {name: getattr(recipe, name) for name in names}


def _key(recipe: Recipe, sources: list[dict[str, Any]]) -> str:
    """Tells builds apart: the recipe's texts and code, ossicle's version, the packages."""
    build: Any = recipe.build
    given: list[Any] = []
    while isinstance(build, functools.partial):
        given.append(json_safe([build.args, build.keywords]))
        build = build.func
    module = inspect.getmodule(build)
    code = sorted(_code(module).items()) if module else repr(json_safe(build))
    shas = [[source["package"], source["version"], source["sha256"]] for source in sources]
    parts = [_FORMAT, __version__, _texts(recipe), shas, given, code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code(module: ModuleType, seen: dict[str, str] | None = None) -> dict[str, str]:
    """Source of a module and of what it uses of its own package, by name."""
    seen = {} if seen is None else seen
    if module.__name__ not in seen:
        try:
            seen[module.__name__] = inspect.getsource(module)
        except (OSError, TypeError):  # typed in by hand
            seen[module.__name__] = ""
        package = module.__name__.rpartition(".")[0]
        for value in list(vars(module).values()) if package else []:
            used = value if inspect.ismodule(value) else inspect.getmodule(value)
            if used is not None and used.__name__.startswith(f"{package}."):
                _code(used, seen)
    return seen


def _there(folder: Path, name: str, key: str) -> dict[str, Any] | None:
    """What is built already, if it is by this key, whole, and all its files are there."""
    manifest = folder / f"{name}.csv"
    try:
        about = read_about(folder, name)
        if about is None or about.get("key") != key:
            return None
        if hashlib.sha256(manifest.read_bytes()).hexdigest() != about.get("manifest_sha256"):
            return None
        paths = pd.read_csv(manifest, dtype=str, keep_default_na=False)["path"]
    except (DataError, OSError, ValueError, KeyError):
        return None
    return about if all((folder / path).is_file() for path in paths.unique()) else None


def _checked(rows: pd.DataFrame, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """The recipe's rows with paths relative to the folder, or a DataError that names it."""
    name = f"recipe {recipe.name}"
    if lacking := {"path", "label", "group"} - set(rows):
        raise DataError(f"{name}: its rows have no {min(lacking)}")
    if ("part" in rows) == ("fold" in rows):
        raise DataError(f"{name}: its rows need a part or a fold, one of them")
    if rows.empty:
        raise DataError(f"{name}: found no clips; remove {folder / 'packages'} and get it anew")
    column = "part" if "part" in rows else "fold"
    wanted = ["path", "label", "group", column]
    table = rows.reset_index(drop=True)[
        [*wanted, *(c for c in ("onset", "offset") if c in rows and rows[c].notna().any())]
    ].copy()
    paths = []
    for path in table["path"]:
        try:
            relative = Path(path).relative_to(folder)
        except ValueError:
            raise DataError(f"{name}: {path} is not below {folder}") from None
        paths.append(PurePosixPath(*relative.parts).as_posix())
    table["path"] = paths
    for text in wanted[1:]:
        table[text] = [str(value) for value in table[text]]
        if (table[text].str.strip() == "").any():
            raise DataError(f"{name}: a clip has no {text}")
    values = set(table[column])
    if column == "part" and values - set(PARTS):
        raise DataError(f"{name}: part {min(values - set(PARTS))!r} is none of {', '.join(PARTS)}")
    if column == "part" and not {"train", "test"} <= values:
        raise DataError(f"{name}: has no clip to {'test' if 'train' in values else 'learn from'}")
    if column == "fold" and not 2 <= len(values) <= _MOST_FOLDS:
        raise DataError(f"{name}: has {len(values)} folds, not 2 to {_MOST_FOLDS}")
    straddling = table.groupby("group")[column].nunique()
    if (straddling > 1).any():
        raise DataError(f"{name}: the group {straddling.idxmax()!r} stands in several {column}s")
    return table


def _sound(
    rows: pd.DataFrame, folder: Path, workers: int
) -> tuple[pd.DataFrame, list[list[str]], float]:
    """Rows whose clips are fit and sound different; (clip, reason) of the others; seconds kept."""

    def listen(row: dict[str, Any]) -> _Heard:
        try:
            samples, rate = audio.load(
                folder / row["path"],
                sample_rate=_RATE,
                onset=row.get("onset"),
                offset=row.get("offset"),
                min_duration_s=_SHORTEST_S,
                allow_silent=False,
            )
        except AudioError as error:
            return _Heard("", 0.0, error.reason)
        content = hashlib.sha256(samples.tobytes()).hexdigest()
        return _Heard(content, samples.shape[1] / rate, "")

    records: list[dict[str, Any]] = [
        {str(k): v for k, v in r.items()} for r in rows.to_dict("records")
    ]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        heard = list(pool.map(listen, records))
    names = [row["path"] + part_text(row.get("onset"), row.get("offset")) for row in records]
    first: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    for i, clip in enumerate(heard):
        first.setdefault(clip.content, i)
        labels.setdefault(clip.content, set()).add(records[i]["label"])
    keep, left_out, seconds = [], [], 0.0
    for i, clip in enumerate(heard):
        reason = clip.reason
        if not reason and len(labels[clip.content]) > 1:
            reason = f"sounds the same under the labels {', '.join(sorted(labels[clip.content]))}"
        elif not reason and first[clip.content] != i:
            reason = f"sounds the same as {names[first[clip.content]]}"
        if reason:
            left_out.append([names[i], reason])
        else:
            keep.append(i)
            seconds += clip.seconds
    return rows.iloc[keep].reset_index(drop=True), left_out, seconds


def _check_left(rows: pd.DataFrame, kept: pd.DataFrame, name: str) -> list[str]:
    """Notes; a DataError where the task is no longer the one that was asked for."""
    column = "part" if "part" in rows else "fold"
    if gone := sorted(set(rows[column]) - set(kept[column])):
        raise DataError(f"{name}: no clip of the {column} {gone[0]} is fit; it is not built")
    if lost := sorted(_classes(rows) - _classes(kept)):
        raise DataError(f"{name}: no clip of the class {lost[0]} is fit; it is not built")
    tested = kept if column == "fold" else kept[kept["part"] == "test"]
    for value in sorted(set(tested[column])):
        learnt = kept[kept[column] != value] if column == "fold" else kept[kept["part"] == "train"]
        if unknown := sorted(_classes(kept[kept[column] == value]) - _classes(learnt)):
            raise DataError(
                f"{name}: {unknown[0]} is tested in {column} {value}, with no clip to learn it "
                "from; it is not built"
            )
    idle = sorted(_classes(kept) - _classes(tested))
    return [f"no clip to test of: {', '.join(idle)}"] if idle else []


def _classes(rows: pd.DataFrame) -> set[str]:
    return {name for label in rows["label"] for name in label.split(";")}


def _count(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
