"""Label Studio's JSON exports of audio: JSON (tasks with annotations) and JSON-MIN.

A region of sound is a result of type "labels" whose `value` has start, end (s) and labels. What
is written are tasks that Label Studio imports: predictions where the events have scores, else
annotations.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd

from ossicle.audio import is_audio
from ossicle.datasets.strong.lines import read_text, write_text
from ossicle.datasets.strong.rows import LabelFile, Reading, Row, make_row, silent_row
from ossicle.errors import DataError

# Label Studio puts eight signs of a random name before that of an uploaded file.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
_NAN = math.nan


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of an export; a region with several labels is several events.

    Predictions count only where no task has an annotation. Tasks without regions are recordings
    in which nothing sounds; tasks that nobody annotated say nothing, and are told.

    Raises:
        DataError: it is not JSON, or no export of audio labels.
    """
    found = LabelFile([])
    text = read_text(path, found.notes)
    if not text.strip():
        return found
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error})") from error
    tasks = [tasks] if isinstance(tasks, dict) else tasks
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path}: is not a list of Label Studio tasks")
    full = any("data" in task for task in tasks)
    take = _full if full else _minimal
    for file, regions, where in take(tasks, reading, found.notes):
        rows = [row for region in regions for row in _rows(region, file, reading, where)]
        if not rows:
            rows = [silent_row(reading, file)]
        found.rows += rows
    return found


def _full(
    tasks: list[dict[str, Any]], reading: Reading, notes: list[str]
) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
    """(recording, regions, where) for each task, of the annotations that count."""
    given = [
        [a for a in _list(t.get("annotations", t.get("completions"))) if _counts(a)] for t in tasks
    ]
    if not any(given):
        guessed = [_list(task.get("predictions")) for task in tasks]
        if any(guessed):
            notes.append(f"{reading.path}: has no annotations; its predictions are taken")
            given = guessed
    several = sum(len(annotations) > 1 for annotations in given)
    if several:
        taken = (
            "all are" if reading.annotations == "all" else "one each (ground truth or newest) is"
        )
        notes.append(f"{reading.path}: {several} tasks have several annotations; {taken} taken")
    bare = sum(not annotations for annotations in given)
    if bare == len(given):
        raise DataError(f"{reading.path}: no task has an annotation; export those that have")
    if bare:
        notes.append(f"{reading.path}: {bare} tasks without an annotation left out")
    for i, (task, mine) in enumerate(zip(tasks, given, strict=True), start=1):
        where = f"{reading.path}: task {task.get('id', i)}"
        if not mine:
            continue
        if reading.annotations != "all":
            mine = [max(reversed(mine), key=_standing)]
        file = _recording(task.get("data"), task.get("file_upload"), where)
        yield file, [r for a in mine for r in _list(a.get("result"))], where


def _minimal(
    tasks: list[dict[str, Any]], reading: Reading, notes: list[str]
) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
    """As `_full`, for JSON-MIN: an annotation a row, its regions under the name of their tag."""
    by_task: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for i, row in enumerate(tasks, start=1):
        where = f"{reading.path}: row {i}"
        by_task.setdefault(str(row.get("id", f"row {i}")), []).append((where, row))
    several = sum(len(rows) > 1 for rows in by_task.values())
    if several:
        taken = "all are" if reading.annotations == "all" else "the newest of each is"
        notes.append(f"{reading.path}: {several} tasks have several annotations; {taken} taken")
    for rows in by_task.values():
        if reading.annotations != "all":
            rows = [max(reversed(rows), key=lambda item: str(item[1].get("updated_at", "")))]
        for where, row in rows:
            regions = [
                {"type": "labels", "value": region, "score": region.get("score")}
                for value in row.values()
                if isinstance(value, list)
                for region in value
                if isinstance(region, dict) and "start" in region and "labels" in region
            ]
            yield _recording(row, None, where), regions, where


def _rows(region: dict[str, Any], file: str, reading: Reading, where: str) -> Iterator[Row]:
    value = region.get("value")
    if region.get("type") != "labels" or not isinstance(value, dict):
        return
    onset, offset = (_seconds(value.get(key), key, where) for key in ("start", "end"))
    labels = value.get("labels")
    for label in labels if isinstance(labels, list) and labels else [""]:
        yield make_row(
            reading,
            where,
            file=file,
            onset=onset,
            offset=offset,
            label=label if isinstance(label, str) else str(label),
            score=_number(region.get("score")),
        )


def _seconds(value: Any, name: str, where: str) -> float:
    seconds = _number(value)
    if math.isnan(seconds):
        raise DataError(f"{where}: a region's {name} is {value!r}, not a number of seconds")
    return seconds


def _number(value: Any) -> float:
    """A finite number of JSON's; NaN for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _NAN
    try:
        number = float(value)
    except OverflowError:
        return _NAN
    return number if math.isfinite(number) else _NAN


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _counts(annotation: dict[str, Any]) -> bool:
    return not annotation.get("was_cancelled") and not annotation.get("skipped")


def _standing(annotation: dict[str, Any]) -> tuple[bool, str]:
    """What is to be preferred: ground truth, then the newest."""
    time = annotation.get("updated_at") or annotation.get("created_at") or ""
    return bool(annotation.get("ground_truth")), str(time)


def _recording(data: Any, upload: Any, where: str) -> str:
    """The file that a task is about, by the name that it had before it was uploaded."""
    texts = {k: v for k, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    found = texts.get("audio")
    if not found:
        heard = [v for v in texts.values() if is_audio(_path_of(v))]
        found = heard[0] if heard else upload if isinstance(upload, str) and upload else None
    if not found:
        raise DataError(f"{where}: names no audio (its data has {', '.join(texts) or 'nothing'})")
    return _path_of(found)


def _path_of(text: str) -> str:
    """The path within an address of Label Studio's; other texts as they are."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    remote = parts.scheme in ("http", "https")
    path = parts.path if remote else text
    for mark in ("/data/local-files/", "/data/upload/"):
        if not path.startswith(mark) and not (remote and mark in path):
            continue
        if mark == "/data/upload/":
            return _UPLOADED.sub("", unquote(path.rsplit("/", 1)[-1]))
        return (parse_qs(parts.query).get("d") or [text])[0]
    return text


def write(events: pd.DataFrame, path: Path, files: Sequence[str] = ()) -> None:
    """Writes tasks for import, one a recording; `data.audio` is the file as it is named.

    Args:
        events: as ``event_table`` makes them.
        path: the file.
        files: recordings to write though nothing sounds in them.
    """
    scored = not events["score"].isna().all()
    tasks = []
    by_file: dict[str, list[dict[str, Any]]] = {}
    for event in events.to_dict("records"):
        by_file.setdefault(event["file"], []).append(event)
    for i, file in enumerate(dict.fromkeys([*by_file, *files]), start=1):
        results = []
        for k, event in enumerate(by_file.get(file, []), start=1):
            region: dict[str, Any] = {
                "id": f"{i}-{k}",
                "from_name": "label",
                "to_name": "audio",
                "type": "labels",
                "value": {
                    "start": float(event["onset"]),
                    "end": float(event["offset"]),
                    "channel": 0,
                    "labels": [event["label"]],
                },
            }
            if not math.isnan(event["score"]):
                region["score"] = float(event["score"])
            results.append(region)
        task: dict[str, Any] = {"id": i, "data": {"audio": file}}
        task["predictions" if scored else "annotations"] = [{"result": results}]
        tasks.append(task)
    write_text(path, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
