"""Mixtures as files, with their stems, a table and a record; a stopped run goes on.

DIR/train/00000/mixture.flac source1.flac source2.flac   16 bit; speech.flac noise.flac with roles
DIR/mixtures.csv                                         which mixture is made of what
DIR/mixtures.json                                        settings, counts, notes, versions, checksum
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.clips import Clips
from ossicle.datasets.mixtures.parts import split_clips
from ossicle.datasets.mixtures.plan import MixturePlan, Pool, clip_text, draw_mixture
from ossicle.datasets.mixtures.read import INFO, TABLE, read_mixtures
from ossicle.datasets.mixtures.render import STEPS, render
from ossicle.datasets.mixtures.settings import MAX_SOURCES, MIXTURE, PARTS, MixtureSettings
from ossicle.datasets.mixtures.sources import Clip, scan_clips
from ossicle.datasets.mixtures.table import Mixtures
from ossicle.errors import DataError
from ossicle.record import data_checksum, json_safe, record, replaced, write_json

# Raised when the same plan comes to sound otherwise, so that old files are not kept beside new.
FORMAT = 1
COUNTS = {"train": 1000, "valid": 200, "test": 200, "unseen": 0}
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def write_mixtures(
    tables: Sequence[Clips],
    out: str | os.PathLike[str],
    settings: MixtureSettings | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    names: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Mixtures:
    """Mix clips, keep what was mixed.

    The same arguments give the same bytes, whatever the number of workers and however often the
    run was stopped; more mixtures leave those there are as they are.

    Args:
        tables: one, whose clips are mixed with each other (speakers), or one a role (speech and
            noise): each mixture then has one source of each.
        out: the folder to write.
        settings: how mixtures are made; None: the defaults.
        counts: how many for "train", "valid", "test" and "unseen"; None: 1000, 200, 200, 0.
        names: of the roles; none: the names of the tables' folders.
        workers: threads.
        progress: called with (done, all): clips read, then mixtures.

    Raises:
        DataError: arguments or clips cannot be used, or `out` holds other things.
        AudioError: a clip cannot be read any more, or a file cannot be written.
    """
    settings = settings or MixtureSettings()
    counts = dict(COUNTS if counts is None else counts)
    folder = Path(out)
    wanted = _check(folder, counts, settings)
    roles = _roles(tables, names)
    total = sum(map(len, tables)) + sum(counts[part] for part in wanted)
    clips, notes = scan_clips(
        tables,
        settings,
        workers=workers,
        progress=progress and (lambda done: progress(done, total)),
    )
    called = list(roles) or ["clips"]
    for number, name in enumerate(called):
        if not any(clip.table == number for clip in clips):
            raise DataError(f"{name}: no clip can be used: {'; '.join(notes)}")
    chosen, told = split_clips(clips, called, settings)
    notes += told
    pools = {part: Pool(chosen[part], len(tables)) for part in wanted}
    for part in wanted:
        _enough(part, pools[part], called, settings)
    described = _described(chosen)
    _claim(folder, settings, roles, described, counts)
    plans = [
        draw_mixture(pools[part], settings, part, number)
        for part in wanted
        for number in range(counts[part])
    ]
    files = (MIXTURE, *(roles or [f"source{i + 1}" for i in range(settings.n_sources)]))
    before = total - len(plans)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        run = pool.map(lambda plan: _write(folder, plan, files, settings), plans)
        try:
            for number, _ in enumerate(run, start=1):
                if progress is not None:
                    progress(before + number, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for part in wanted:
        # What a run that was killed had begun.
        for left in (folder / part).glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
    table = pd.DataFrame([_row(plan, files, roles, settings) for plan in plans])
    with replaced(folder / TABLE) as part_file:
        table.to_csv(part_file, index=False)
    info = {
        **_made_with(settings, roles, described),
        "finished": True,
        "counts": {part: counts[part] for part in wanted},
        "clips": {part: _counted(chosen[part], called) for part in PARTS},
        "notes": notes,
        "hours": {
            part: sum(plan.size for plan in plans if plan.part == part)
            / (3600 * settings.sample_rate)
            for part in wanted
        },
        "checksum": data_checksum(
            [
                folder / TABLE,
                *(
                    folder / plan.folder / f"{name}{settings.suffix}"
                    for plan in plans
                    for name in files
                ),
            ]
        ),
        **record(
            {"settings": settings.to_json(), "counts": counts, "names": list(roles)},
            seed=settings.seed,
            data=sorted({clip.path for part in wanted for clip in chosen[part]}),
        ),
    }
    write_json(folder / INFO, json_safe(info))
    return read_mixtures(folder)


def _check(folder: Path, counts: Mapping[str, int], settings: MixtureSettings) -> list[str]:
    for part, many in counts.items():
        if part not in PARTS:
            raise DataError(f"there is no part {part}: use {', '.join(PARTS)}")
        if many < 0:
            raise DataError(f"{many} mixtures for {part}: give 0 or more")
    wanted = [part for part in PARTS if counts.get(part, 0) > 0]
    if not wanted:
        raise DataError(
            "no mixtures are asked for: give --n-train, --n-valid, --n-test or --n-unseen"
        )
    if "unseen" in wanted and not settings.unseen:
        raise DataError("unseen mixtures need groups of their own: give --unseen-groups, as in 0.2")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder to write")
    return wanted


def _roles(tables: Sequence[Clips], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the sources, or () where there is one table."""
    if not tables:
        raise DataError("nothing to mix: give a table of clips, or one for each source")
    if len(tables) == 1:
        if names:
            raise DataError(
                "names are for several tables, one a source; one table has like sources"
            )
        return ()
    if len(tables) > MAX_SOURCES:
        raise DataError(f"{len(tables)} tables: mix at most {MAX_SOURCES}")
    names = tuple(names) or tuple(clips.root.name for clips in tables)
    if len(names) != len(tables):
        raise DataError(f"{len(names)} names for {len(tables)} tables: give one each")
    for name in names:
        if not _ROLE.fullmatch(name) or name.lower() == MIXTURE:
            raise DataError(f"a source cannot be called {name!r}: use letters and digits")
    if len({name.lower() for name in names}) < len(names):
        raise DataError(f"sources need different names, not {', '.join(names)}: give --names")
    return names


def _enough(part: str, pool: Pool, called: Sequence[str], settings: MixtureSettings) -> None:
    for name, there in zip(called, pool.names, strict=True):
        least = settings.n_sources if len(called) == 1 else 1
        if len(there) >= least:
            continue
        if len(called) == 1:
            raise DataError(
                f"{part}: has clips of {len(there)} groups and a mixture needs {least}: give more "
                "groups, other shares, or parts that are disjoint in clips only (--disjoint clips)"
            )
        raise DataError(
            f"{part}: has no clips of {name}: give more groups or other shares, or parts that are "
            "disjoint in clips only (--disjoint clips)"
        )


def _described(chosen: Mapping[str, Sequence[Clip]]) -> str:
    """One checksum over which clips are in which part."""
    total = hashlib.sha256()
    for part in PARTS:
        for c in chosen[part]:
            text = (part, c.table, c.name, c.onset, c.offset, c.identity, c.group, c.sha256)
            total.update(f"{text!r}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _counted(clips: Sequence[Clip], called: Sequence[str]) -> dict[str, Any]:
    """Of each table."""
    counted = {}
    for number, name in enumerate(called):
        members = [clip for clip in clips if clip.table == number]
        groups = sorted({clip.identity for clip in members})
        counted[name] = {"clips": len(members), "groups": len(groups), "names": groups[:100]}
    return counted


def _made_with(settings: MixtureSettings, roles: Sequence[str], described: str) -> dict[str, Any]:
    """What all mixtures of a folder share."""
    return {
        "format": FORMAT,
        "settings": settings.to_json(),
        "sources": list(roles),
        "clips_sha256": described,
    }


def _claim(
    folder: Path,
    settings: MixtureSettings,
    roles: Sequence[str],
    described: str,
    counts: Mapping[str, int],
) -> None:
    """Make the folder ours, or see that what it holds was made with the same settings."""
    made_with = _made_with(settings, roles, described)
    marker = folder / INFO
    if not marker.exists():
        if folder.exists() and any(path.suffix != ".part" for path in folder.iterdir()):
            raise DataError(f"{folder}: holds files that are no mixtures; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(marker, {**made_with, "finished": False})
    before = _json(marker)
    differ = [key for key, value in made_with.items() if before.get(key) != value]
    if differ:
        then = before.get("settings")
        then = then if isinstance(then, dict) else {}
        now = made_with["settings"]
        names = [name for name, value in now.items() if then.get(name) != value]
        what = {"format": "versions of ossicle", "sources": "names", "clips_sha256": "clips"}
        told = ", ".join(names) or what.get(differ[0], differ[0])
        raise DataError(f"{folder}: holds mixtures made with other {told}; choose another folder")
    for part in PARTS:
        there = sum(path.name.isdecimal() for path in (folder / part).glob("*"))
        if there > counts.get(part, 0):
            raise DataError(
                f"{folder}: holds {there} mixtures of {part}, more than the "
                f"{counts.get(part, 0)} asked for; ask for as many, or choose another folder"
            )


def _write(
    folder: Path, plan: MixturePlan, files: Sequence[str], settings: MixtureSettings
) -> None:
    """A mixture's folder, whole or not at all; one that is there is kept."""
    place = folder / plan.folder
    if all((place / f"{name}{settings.suffix}").is_file() for name in files):
        return
    mixture, stems = render(plan, settings)
    part = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    part.mkdir(parents=True)
    try:
        for name, steps in zip(files, (mixture, *stems), strict=True):
            # What the file holds is this integer, and a reader divides it by the same number.
            wave = audio.Audio((steps / STEPS).astype(np.float32), settings.sample_rate)
            audio.save(part / f"{name}{settings.suffix}", wave)
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _row(
    plan: MixturePlan, files: Sequence[str], roles: Sequence[str], settings: MixtureSettings
) -> dict[str, Any]:
    groups = [source.pieces[0].clip.group for source in plan.sources]
    # Like sources are told apart by what they were drawn by, which may be a label.
    names = [source.pieces[0].clip.identity for source in plan.sources]
    row: dict[str, Any] = {
        "split": plan.part,
        "group": "+".join(groups if roles else sorted(names)),
        "mixture": f"{plan.folder}/{files[0]}{settings.suffix}",
    }
    for i, source in enumerate(plan.sources):
        row |= {
            f"source{i + 1}": f"{plan.folder}/{files[i + 1]}{settings.suffix}",
            f"name{i + 1}": roles[i] if roles else names[i],
            f"group{i + 1}": groups[i],
            f"level_db{i + 1}": source.level_db,
            f"clip{i + 1}": clip_text(source, settings.sample_rate),
        }
    return row


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
