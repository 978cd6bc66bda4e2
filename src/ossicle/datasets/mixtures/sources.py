"""What mixtures are made of: every clip read once for its checksum, its length and its level."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ossicle import audio
from ossicle.datasets.clips import Clips, file_checksum, part_text
from ossicle.datasets.mixtures.settings import MixtureSettings
from ossicle.datasets.patterns import relative_paths, values_for
from ossicle.errors import AudioError, DataError

# Long beside a period of a low voice, short beside a word.
BLOCK_S = 0.05
# The square of what 16-bit files cannot hold any more.
_SILENT = 1e-10
_TOLD = 5


class Clip(NamedTuple):
    """A clip that can be mixed.

    Attributes:
        table: which of the tables it is from.
        path: its file.
        name: the file relative to the table's folder.
        onset, offset: the part of the file that is the clip (s); None: from its start, to its end.
        identity: what the sources of a mixture differ in: a speaker, a label; the group where
            there are several tables.
        group: of the table.
        label: of the table, several joined with ";".
        apart: what no two parts share, besides the file.
        split, fold: of the table, or None.
        sha256: of the file.
        size: samples at the mixtures' rate.
        active: (blocks,) bool, which 50 ms of it sound.
    """

    table: int
    path: str
    name: str
    onset: float | None
    offset: float | None
    identity: str
    group: str
    label: str
    apart: tuple[str, ...]
    split: str | None
    fold: str | None
    sha256: str
    size: int
    active: np.ndarray


def scan_clips(
    tables: Sequence[Clips],
    settings: MixtureSettings,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Clip], list[str]]:
    """Every clip that can be mixed, and notes that tell of those that cannot.

    Args:
        tables: one, or one a role.
        settings: what is too short, what is silence, what sources differ in.
        workers: threads.
        progress: called with the number of clips that were read.

    Raises:
        DataError: a table lacks the column that sources differ in or parts are kept apart by.
    """
    found: list[Clip] = []
    notes: list[str] = []
    done = 0
    # Once a file, however many clips it holds.
    checksum = functools.cache(file_checksum)
    for number, clips in enumerate(tables):
        rows = _rows(clips, number, settings, alone=len(tables) == 1)
        refused: dict[str, list[str]] = {}
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for clip, reason in pool.map(lambda row: _look(row, settings, checksum), rows):
                if reason:
                    span = part_text(clip.onset, clip.offset)
                    refused.setdefault(reason, []).append(f"{clip.name}{span}")
                else:
                    found.append(clip)
                done += 1
                if progress is not None:
                    progress(done)
        for reason, names in refused.items():
            more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
            notes.append(f"left out {len(names)} clips, {reason}: {', '.join(names[:_TOLD])}{more}")
    return found, notes


def _rows(clips: Clips, number: int, settings: MixtureSettings, *, alone: bool) -> list[Clip]:
    """The rows of a table, not yet read."""
    table = clips.table
    names = relative_paths(list(table["path"]), clips.root)
    labels = [";".join(v) if isinstance(v, list) else str(v) for v in table["label"]]
    groups = list(clips.groups())
    identities = groups
    if alone and settings.by == "label":
        if clips.task != "classes":
            raise DataError(f"sources can differ in their label with classes, not {clips.task}")
        identities = labels
    elif alone and settings.by != "group":
        identities = values_for(settings.by, table, clips.root, "by")
    if settings.disjoint == "clips":
        apart: list[tuple[str, ...]] = [()] * len(table)
    elif settings.disjoint == "groups":
        # Speakers named by a column of their own are kept apart like groups; labels recur.
        own = identities if settings.by != "label" else groups
        apart = [(f"group {a}", f"by {b}") for a, b in zip(groups, own, strict=True)]
    else:
        apart = [(value,) for value in values_for(settings.disjoint, table, clips.root, "disjoint")]
    return [
        Clip(
            table=number,
            path=row["path"],
            name=names[i],
            onset=_seconds(row["onset"]),
            offset=_seconds(row["offset"]),
            identity=identities[i],
            group=groups[i],
            label=labels[i],
            apart=apart[i],
            split=row["split"],
            fold=row["fold"],
            sha256="",
            size=0,
            active=np.zeros(0, bool),
        )
        for i, row in enumerate(table.to_dict("records"))
    ]


def _look(
    clip: Clip, settings: MixtureSettings, checksum: Callable[[str], str]
) -> tuple[Clip, str]:
    """The clip with what its file tells, and why it cannot be used, or ""."""
    try:
        power, seconds = _block_powers(clip.path, clip.onset, clip.offset)
    except AudioError as error:
        return clip, error.reason
    if seconds < settings.min_duration_s:
        return clip, f"shorter than {settings.min_duration_s:g} s"
    loudest = float(power.max(initial=0.0))
    if loudest <= _SILENT:
        return clip, "silent"
    size = round(seconds * settings.sample_rate)
    active = power >= loudest * 10 ** (-settings.active_db / 10)
    return clip._replace(sha256=checksum(clip.path), size=size, active=active), ""


def _block_powers(path: str, onset: float | None, offset: float | None) -> tuple[np.ndarray, float]:
    """Mean squares of 50 ms each, without the clip's constant part, and the length (s)."""
    if onset is None and offset is None:
        pieces = audio.stream(path, block_s=200 * BLOCK_S)
    else:
        pieces = iter([audio.load(path, onset=onset, offset=offset)])
    total, sums, squares, sizes, rate = 0, [], [], [], 1
    for piece in pieces:
        samples, rate = piece.samples[0].astype(np.float64), piece.sample_rate
        # Where a block is no whole number of samples, their borders still do not drift.
        block = BLOCK_S * rate
        starts = np.floor(np.arange(np.ceil(len(samples) / block)) * block).astype(np.int64)
        total += len(samples)
        sums.append(np.add.reduceat(samples, starts))
        squares.append(np.add.reduceat(samples**2, starts))
        sizes.append(np.diff(np.append(starts, len(samples))))
    if not total:
        return np.zeros(0), 0.0
    each, square, size = (np.concatenate(parts) for parts in (sums, squares, sizes))
    mean = each.sum() / total
    return np.maximum(square / size - 2 * mean * each / size + mean**2, 0.0), total / rate


def _seconds(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
