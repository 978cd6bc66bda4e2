"""Soundscapes as files: WAV, the table of events, the record; a stopped run goes on.

DIR/train/soundscape_00000.wav, ...   16 bit
DIR/events.csv                        what sounds when
DIR/mix.json                          settings, sources, counts, versions
DIR/plans/train/soundscape_00000.json what a soundscape holds, and its file's checksum
DIR/plans/made_with.json              settings and sources, which all plans here share
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.clips import Clips, file_checksum
from ossicle.errors import DataError
from ossicle.mix.parts import Span, split_backgrounds, split_clips, split_files
from ossicle.mix.plan import ScapePlan, draw_scapes, label_rows, most_at_once
from ossicle.mix.render import render
from ossicle.mix.settings import PARTS, MixSettings
from ossicle.mix.sources import (
    Reader,
    Sources,
    audio_files,
    read_durations,
    read_foreground,
    without_copies,
)
from ossicle.record import json_safe, record, replaced, write_json

COLUMNS = (
    *("file", "onset", "offset", "label", "split", "group"),
    *("snr_db", "source", "source_group"),
)
# Raised when the same plan comes to sound otherwise, so that old files are not kept beside new.
FORMAT = 1
Counted = Callable[[int, int], None]


class Mixed(NamedTuple):
    """What was written.

    Attributes:
        events: the table of `events.csv`.
        info: what `mix.json` holds.
        rendered: soundscapes made by this run.
        kept: soundscapes that were there.
    """

    events: pd.DataFrame
    info: dict[str, Any]
    rendered: int
    kept: int


def mix_soundscapes(
    foreground: Clips,
    out: str | os.PathLike[str],
    settings: MixSettings | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    backgrounds: Sequence[str | os.PathLike[str]] = (),
    rooms: Sequence[str | os.PathLike[str]] = (),
    valid_folds: Sequence[str] = (),
    test_folds: Sequence[str] = (),
    workers: int = 1,
    progress: Counted | None = None,
) -> Mixed:
    """Make soundscapes with known events.

    The same arguments give the same bytes, whatever the number of workers and however often the
    run was stopped; more soundscapes leave the first ones as they are.

    Args:
        foreground: clips with classes.
        out: the folder to write.
        settings: how soundscapes are made; None: the defaults.
        counts: how many for "train", "valid" and "test"; None: 400, 100, 100.
        backgrounds: files or folders of recordings in which no class sounds; none: noise.
        rooms: files or folders of impulse responses; none: rooms are made up.
        valid_folds, test_folds: values of the clips' fold, see `parts.split_clips`.
        workers: threads.
        progress: called with (done, all): clips read, then soundscapes.

    Raises:
        DataError: arguments or sources cannot be used, or `out` holds other things.
        AudioError: a background or an impulse response cannot be read.
    """
    settings = settings or MixSettings()
    counts = {"train": 400, "valid": 100, "test": 100} if counts is None else dict(counts)
    folder = Path(out)
    wanted = _check(folder, counts)
    chosen, notes = split_clips(
        foreground,
        wanted,
        valid_folds=valid_folds,
        test_folds=test_folds,
        seed=settings.seed,
    )
    # Before the clips are read, which takes a while.
    others = _others(backgrounds, rooms, wanted, settings.seed)
    reader = Reader(settings.sample_rate)
    total = len(foreground) + sum(counts[part] for part in wanted)
    read, told = read_foreground(
        foreground,
        reader,
        settings,
        workers=workers,
        progress=progress and (lambda done, _: progress(done, total)),
    )
    notes += told
    clips, told = without_copies(
        {part: [clip for i in chosen[part] if (clip := read[i]) is not None] for part in wanted}
    )
    notes += told
    sources = {
        part: Sources(tuple(clips[part]), tuple(others[part][0]), tuple(others[part][1]))
        for part in wanted
    }
    for part in wanted:
        if not sources[part].clips:
            raise DataError(f"no clip can be used for {part}: see the notes of its clips")
    described = {part: _described(sources[part]) for part in wanted}
    _claim(folder, settings, described, counts)
    plans = {
        part: list(draw_scapes(sources[part], settings, part, counts[part])) for part in wanted
    }
    tasks = [(plan, sources[part]) for part in wanted for plan in plans[part]]
    gains, kept = [], 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        run = pool.map(lambda task: _scape(folder, task[0], task[1], settings, reader), tasks)
        try:
            for number, (gain, was_there) in enumerate(run, start=1):
                gains.append(gain)
                kept += was_there
                if progress is not None:
                    progress(len(foreground) + number, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = [row for part in wanted for plan in plans[part] for row in label_rows(plan, settings)]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    with replaced(folder / "events.csv") as part_file:
        table.to_csv(part_file, index=False)
    info = {
        "settings": settings.to_json(),
        "counts": {part: counts[part] for part in wanted},
        "parts": {part: _summary(plans[part], table, settings) for part in wanted},
        "gain": {"lowest": min(gains), "changed": sum(gain < 1 for gain in gains)},
        "notes": notes,
        "sources": described,
        **record(
            {
                "settings": settings.to_json(),
                "counts": counts,
                "valid_folds": list(valid_folds),
                "test_folds": list(test_folds),
            },
            seed=settings.seed,
            data=sorted(
                {clip.path for part in wanted for clip in sources[part].clips}
                | {span.path for part in wanted for span in sources[part].backgrounds}
                | {room for part in wanted for room in sources[part].rooms}
            ),
        ),
    }
    write_json(folder / "mix.json", json_safe(info))
    return Mixed(table, info, len(tasks) - kept, kept)


def _check(folder: Path, counts: Mapping[str, int]) -> list[str]:
    for part, many in counts.items():
        if part not in PARTS:
            raise DataError(f"there is no part {part}: use {', '.join(PARTS)}")
        if many < 0:
            raise DataError(f"{many} soundscapes for {part}: give 0 or more")
    wanted = [part for part in PARTS if counts.get(part, 0) > 0]
    if not wanted:
        raise DataError("no soundscapes are asked for: give --n-train, --n-valid or --n-test")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder to write")
    return wanted


def _others(
    backgrounds: Sequence[str | os.PathLike[str]],
    rooms: Sequence[str | os.PathLike[str]],
    wanted: Sequence[str],
    seed: int,
) -> dict[str, tuple[list[Span], list[str]]]:
    """Backgrounds and rooms of each part."""
    spans: dict[str, list[Span]] = {part: [] for part in wanted}
    if backgrounds:
        durations = read_durations(audio_files([Path(path) for path in backgrounds]))
        root = Path(os.path.commonpath([Path(path).parent for path in durations]))
        names = {path: Path(path).relative_to(root).as_posix() for path in durations}
        spans = split_backgrounds(durations, names, wanted, seed)
    dealt: dict[str, list[str]] = {part: [] for part in wanted}
    if rooms:
        files = list(read_durations(audio_files([Path(path) for path in rooms])))
        if len(files) < len(wanted):
            raise DataError(
                f"{len(files)} impulse responses for {len(wanted)} parts: each needs its own"
            )
        dealt = split_files(files, wanted, seed)
    return {part: (spans[part], dealt[part]) for part in wanted}


def _described(sources: Sources) -> dict[str, Any]:
    """The sources of a part, ready for JSON."""
    clips = [
        {
            "file": clip.name,
            "sha256": clip.sha256,
            "labels": list(clip.labels),
            "group": clip.group,
            "onset": clip.onset,
            "offset": clip.offset,
            "stretches": [list(stretch) for stretch in clip.stretches],
        }
        for clip in sources.clips
    ]
    return {
        "clips": clips,
        "backgrounds": [
            {
                "file": span.name,
                "sha256": file_checksum(span.path),
                "onset": span.onset,
                "offset": span.offset,
            }
            for span in sources.backgrounds
        ],
        "rooms": [
            {"file": Path(room).name, "sha256": file_checksum(room)} for room in sources.rooms
        ],
    }


def _claim(
    folder: Path,
    settings: MixSettings,
    described: Mapping[str, Any],
    counts: Mapping[str, int],
) -> None:
    """Make the folder ours, or see that what it holds was made with the same settings."""
    made_with = {"format": FORMAT, "settings": settings.to_json(), "sources": dict(described)}
    marker = folder / "plans" / "made_with.json"
    if not marker.exists():
        if any(path.is_file() and path.suffix != ".part" for path in folder.rglob("*")):
            raise DataError(f"{folder}: holds files that are no soundscapes; choose another folder")
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_json(marker, made_with)
    before = _json(marker)
    if before != made_with:
        now, then = settings.to_json(), before.get("settings", {})
        differ = ", ".join(name for name, value in now.items() if then.get(name) != value)
        if not differ:
            differ = "sources" if before.get("sources") != described else "versions of ossicle"
        raise DataError(
            f"{folder}: holds soundscapes made with other {differ}; choose another folder"
        )
    for part in PARTS:
        there = len(list((folder / part).glob("soundscape_*.wav")))
        if there > counts.get(part, 0):
            raise DataError(
                f"{folder}: holds {there} soundscapes of {part}, more than the "
                f"{counts.get(part, 0)} asked for; ask for as many, or choose another folder"
            )
        if counts.get(part, 0):
            (folder / part).mkdir(exist_ok=True)
            (folder / "plans" / part).mkdir(exist_ok=True)


def _scape(
    folder: Path, plan: ScapePlan, sources: Sources, settings: MixSettings, reader: Reader
) -> tuple[float, bool]:
    """The soundscape's gain, and whether it was there."""
    path = folder / plan.file
    note = (folder / "plans" / plan.file).with_suffix(".json")
    checksum = plan.checksum()
    if note.exists() and path.exists():
        there = _json(note)
        if there.get("checksum") == checksum and there.get("sha256") == file_checksum(path):
            return float(there["gain"]), True
    made = render(plan, sources, settings, reader)
    audio.save(path, audio.Audio(made.samples, settings.sample_rate))
    write_json(
        note,
        {
            "checksum": checksum,
            "sha256": file_checksum(path),
            "gain": made.gain,
            "plan": plan.to_json(),
        },
    )
    return made.gain, False


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _summary(
    plans: Sequence[ScapePlan], table: pd.DataFrame, settings: MixSettings
) -> dict[str, Any]:
    """Counts of one part."""
    rows = table[(table["split"] == plans[0].part) & table["label"].notna()]
    length = rows["offset"] - rows["onset"]
    tally = most_at_once(list(plans))
    total = sum(tally.values())
    return {
        "soundscapes": len(plans),
        "hours": len(plans) * settings.duration_s / 3600,
        "events": len(rows),
        "empty": sum(not plan.events for plan in plans),
        "left_out": sum(plan.left_out for plan in plans),
        "reverberant": sum(plan.t60_s is not None or plan.room is not None for plan in plans),
        "classes": {
            str(label): {
                "events": int((rows["label"] == label).sum()),
                "seconds": round(float(length[rows["label"] == label].sum()), 3),
                "median_s": round(float(np.median(length[rows["label"] == label])), 3),
            }
            for label in sorted(set(rows["label"]))
        },
        "share_of_time_with_classes": {
            str(many): round(tally[many] / total, 4) for many in sorted(tally)
        },
    }
