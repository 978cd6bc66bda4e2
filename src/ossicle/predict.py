"""A model's scores for many clips, as a table: what `ossicle predict` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.datasets.clips import Clips
from ossicle.datasets.parts import dense, read_parts
from ossicle.datasets.patterns import relative_paths
from ossicle.datasets.windows import window_spans
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.features import (
    MIN_DURATION_S,
    Clip,
    Progress,
    ProgressCallback,
    as_clips,
    embed_clip,
    one_thread,
    read_clip,
    run_in_order,
)
from ossicle.model import Model
from ossicle.novelty import verdict
from ossicle.record import replaced

MULTILABEL_THRESHOLD = 0.5
COLUMNS = ("row", "file", "onset", "offset", "label", "score", "novelty", "value")
KINDS = (".csv", ".tsv", ".parquet", ".jsonl")


def predict(
    model: Model,
    items: Clips | Iterable[Any],
    *,
    workers: int = 1,
    unknown: float | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[pd.DataFrame, list[tuple[int, str, str]]]:
    """Label clips; many parts of one recording (`datasets.windows`) are read in one pass over it.

    Args:
        model: with a head.
        items: a clips table, paths, or (samples, sample_rate) pairs.
        workers: threads; no number changes the result.
        unknown: label a clip "unknown" (`novelty.unknown_label`) that is less familiar than this
            share of known sounds, such as 0.95; None: every clip gets a class.
        progress: called after every clip.

    Returns:
        A table with a row for each usable clip, in order: ``row`` (position among the items),
        ``file`` (a path as it was given; those of a clips table as ``shown_paths`` has them),
        where the items are parts of files ``onset`` and ``offset`` (s), ``label`` (of several a
        clip all from one half on, joined with ";"), ``score`` (the highest of any class), with
        `unknown` also ``novelty`` (in [0, 1), see `novelty.Novelty`), then a column for each class
        with its probability; for a regression ``value`` alone. And
        (row, file, reason) of each clip that could not be used.

    Raises:
        OssicleError: the model has no head, or cannot tell the unknown.
        DataError: an item is no clip.
    """
    if model.head is None:
        raise OssicleError("this model has no head: train one with `ossicle train`")
    if unknown is not None:
        check_unknown(model, unknown)
    clips = as_clips(items)
    if isinstance(items, Clips):
        names = shown_paths(items)
    else:
        names = [readable(clip.name) for clip in clips]
    model.eval()
    if clips:
        # Folds the network before threads share it.
        model.clip_scores(np.ones(model.sample_rate, np.float32))

    def run(clip: Clip | np.ndarray | AudioError) -> tuple[np.ndarray, float, float]:
        if isinstance(clip, AudioError):
            raise clip
        parts = model.readout_parts()
        if not isinstance(clip, Clip) or model.patches is not None or model.framewise:
            samples = read_clip(clip, model.sample_rate) if isinstance(clip, Clip) else clip
            length = len(samples) / model.sample_rate
            if unknown is None:
                return model.clip_scores(samples), float("nan"), length
            vectors = model.clip_features(samples, *parts)
        else:
            vectors, length = embed_clip(model, clip, *parts)
        new = float("nan") if unknown is None else model.novelty_from_blocks(vectors)
        return model.scores_from_blocks(vectors), new, length

    rows, scores, novelty, skipped, seconds = [], [], [], [], 0.0
    ahead: Any = _read_ahead(clips, model.sample_rate)
    with one_thread():
        for row, result in run_in_order(run, ahead, workers):
            if isinstance(result, AudioError):
                skipped.append((row, names[row], result.reason))
            else:
                seconds += result[2]
                rows.append(row)
                scores.append(result[0])
                novelty.append(result[1])
            if progress is not None:
                progress(Progress(row + 1, len(clips), seconds))
    width = model.head.sizes[-1]
    matrix = np.stack(scores) if scores else np.empty((0, width), np.float32)
    data = {"row": rows, "file": [names[row] for row in rows]}
    if unknown is not None:
        data["novelty"] = novelty
    frame = _table(model, [clips[row] for row in rows], data, matrix)
    if unknown is not None:
        frame["label"] = verdict(frame["label"], frame["novelty"], model.classes, accept=unknown)
    return frame, skipped


def check_unknown(model: Model, unknown: float) -> None:
    """Pass where the model can tell what it has never heard; to be asked before long work.

    Raises:
        OssicleError: it cannot, or `unknown` is no share of known sounds to accept.
    """
    if model.novelty is None or model.framewise or model.patches is not None:
        raise OssicleError(
            "this model cannot tell what it has never heard: train one with `ossicle train`"
        )
    if model.task == "regression":
        raise OssicleError("this model gives a number, which cannot be called unknown")
    verdict([], np.empty(0), accept=unknown)


def check_window(window_s: float | None, step_s: float | None) -> None:
    """Pass where windows of this length and step can be labelled; to be asked before long work.

    Raises:
        OssicleError: a step without a window, a window too short to hear anything in, or a number
            that is not positive.
    """
    if window_s is None:
        if step_s is not None:
            raise OssicleError("--step lays windows apart: say with --window how long they are")
        return
    window_spans(0.0, window_s, step_s)
    if window_s < MIN_DURATION_S:
        raise OssicleError(f"a window must last at least {MIN_DURATION_S} s, got {window_s}")


def _read_ahead(clips: Sequence[Clip], sample_rate: int) -> Iterator[Any]:
    """The clips; those that are many parts of one recording as their samples, or what is wrong.

    Read in a thread of its own, one part ahead: decoding and the network go on side by side, and
    Ctrl-C is not lost in a decoder's callback.
    """
    items: Iterator[Any] = _parts_read(clips, sample_rate)
    nothing = object()
    with ThreadPoolExecutor(1) as reader:
        future = reader.submit(next, items, nothing)
        while (item := future.result()) is not nothing:
            future = reader.submit(next, items, nothing)
            yield item


def _parts_read(
    clips: Sequence[Clip], sample_rate: int
) -> Iterator[Clip | np.ndarray | AudioError]:
    # Samples in memory are one item each.
    keys = [c.source if isinstance(c.source, str) else i for i, c in enumerate(clips)]
    for _, rows in groupby(range(len(clips)), keys.__getitem__):
        some = [clips[row] for row in rows]
        spans = dense([(clip.onset, clip.offset) for clip in some])
        if spans is None:
            yield from some
            continue
        path = str(some[0].source)
        yield from read_parts(
            path, spans, sample_rate, min_duration_s=MIN_DURATION_S, allow_silent=False
        )


def _table(
    model: Model, clips: list[Clip], data: dict[str, Any], scores: np.ndarray
) -> pd.DataFrame:
    if any(clip.onset is not None or clip.offset is not None for clip in clips):
        data["onset"] = np.array([clip.onset for clip in clips], float)
        data["offset"] = np.array([clip.offset for clip in clips], float)
    if model.task == "regression":
        return pd.DataFrame({**data, "value": scores[:, 0]})
    classes = model.classes
    if model.task == "multilabel":
        chosen = scores >= MULTILABEL_THRESHOLD
        data["label"] = [";".join(classes[c] for c in np.flatnonzero(row)) for row in chosen]
    else:
        data["label"] = [classes[c] for c in scores.argmax(1)] if len(scores) else []
    data["score"] = scores.max(1) if len(scores) else []
    data |= {"novelty": data.pop("novelty")} if "novelty" in data else {}  # beside the score
    frame = pd.DataFrame(data)
    return pd.concat([frame, pd.DataFrame(scores, columns=class_columns(model))], axis=1)


def class_columns(model: Model) -> list[str]:
    """Names of the columns of classes: the classes', unless a column or class is called so."""
    taken = {*COLUMNS, *model.classes}
    names = []
    for name in model.classes:
        column = name
        while column in COLUMNS or (column != name and column in taken):
            column = f"class {column}"
        names.append(column)
    return names


def shown_paths(clips: Clips) -> list[str]:
    """How tables name each clip's file, so that they join with others on the same clips.

    Relative to the source's folder: "dog/1.wav" of the folder that holds dog, or as a manifest
    beside the files names them. Where some lie outside of it (several folders, a manifest of
    files elsewhere), relative to the deepest folder that holds all of them; where only the root
    of the file system does, the whole path.
    """
    paths = [str(path) for path in clips.table["path"]]
    root = clips.root
    if any(not Path(path).is_relative_to(root) for path in paths):
        try:
            root = Path(os.path.commonpath([root, *(os.path.dirname(path) for path in paths)]))  # noqa: PTH120
        except ValueError:  # on several drives, or not all are whole paths
            root = Path(root.anchor)
    if root != Path(root.anchor):
        paths = relative_paths(paths, root)
    return [readable(path) for path in paths]


def readable(name: str) -> str:
    """A file name that can be written as text: bytes of it that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def table_kind(path: str | Path) -> str:
    """The ending of a table's name, in lower case; to be asked for before long work.

    Raises:
        DataError: it is none that ``write_table`` knows.
    """
    kind = Path(path).suffix.lower()
    if kind not in KINDS:
        raise DataError(f"{path}: the name must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return kind


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write CSV, TSV, Parquet or JSON lines, by the file's ending; whole or not at all.

    Raises:
        DataError: another ending, or a folder that cannot be written to.
    """
    path = Path(path)
    kind = table_kind(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            if kind == ".parquet":
                frame.to_parquet(temporary, index=False)
            elif kind == ".jsonl":
                frame.to_json(temporary, orient="records", lines=True, force_ascii=False)
            else:
                frame.to_csv(temporary, index=False, sep="\t" if kind == ".tsv" else ",")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path
