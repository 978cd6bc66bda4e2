"""`ossicle detect`: recordings of any length and number in, a folder of what sounds when out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle import record
from ossicle.datasets.clips import Clips
from ossicle.decode import open_decoder
from ossicle.detect.journal import Entry, Journal, Stamp, checksum, stamp
from ossicle.detect.parameters import parameters_of, rules_of, shares_maps, window_of
from ossicle.detect.rules import ClassRule, Rules
from ossicle.detect.scorers import SomeRows, create_scorer, rows_of
from ossicle.detect.stream import Heard, Tick, hear, spool_name
from ossicle.detect.tables import (
    DIGITS,
    SCORES,
    ScoreFile,
    event_rows,
    has_scores,
    label_names,
    write_event_tables,
    write_file_table,
    write_label_file,
)
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.model import Model
from ossicle.predict import class_columns, shown_paths

LABELS = ("audacity", "raven", "rttm", "dcase", "jsonl")
_WORK = ".in_work"


@dataclass
class Detection:
    """What a run found.

    Attributes:
        folder: of the results.
        recordings: how many were given.
        heard, resumed: recordings that this run heard, and that an earlier one had.
        seconds: of sound in all.
        events: how many were found.
        problems: (file, status, reason) of what is not "ok".
        parameters: under which it was found.
        root: the folder that the names in the tables refer to.
    """

    folder: Path
    recordings: int
    heard: int = 0
    resumed: int = 0
    seconds: float = 0.0
    events: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    root: Path = Path()


def detect(
    model: Model,
    recordings: Clips,
    folder: str | Path,
    *,
    window_s: float | None = None,
    step_s: float | None = None,
    overlap: float | None = None,
    shared: bool | None = None,
    rules: Rules | None = None,
    classes: Sequence[str] | None = None,
    labels: Sequence[str] = LABELS,
    scores: bool = False,
    unknown: float | None = None,
    workers: int = 1,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[Tick], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Detection:
    """Find a model's sounds in recordings, in constant memory; a stopped run is gone on with.

    Writes ``events.csv`` and ``events.parquet`` (file, onset, offset, label, score and the
    parameters), ``files.csv`` (what became of each recording), ``run.json``, a label file for each
    recording and program, and ``journal.jsonl``, which the next run in this folder goes on from.

    Args:
        model: with a head: of clips, which is slid over the recordings, or a `Detector`.
        recordings: see `ossicle.datasets.unlabelled.unlabelled_clips`; whole files.
        folder: for the results; made where it is missing.
        window_s, step_s, overlap: of the windows of a clip model, see `window_of`.
        shared: read windows out of shared maps, see `ossicle.detect.scorers`; None: as the bundle
            says, else no.
        rules: from scores to events; None: the model's own, else a threshold of one half.
        classes: those to find; None: all that the model knows.
        labels: of `LABELS`, the programs to write label files for.
        scores: keep the scores of all frames, ``scores/NAME.parquet``.
        unknown: mark what is less familiar to the model than this share of known sounds, such as
            0.95, as "unknown" instead of any class; None: do not.
        workers: threads; no number changes the result.
        arguments: of the command, for the record.
        progress: called after every block.
        tell: called with lines for the user.

    Raises:
        OssicleError: the model, or a parameter, cannot be used.
        DataError: the folder cannot be used, or a row names a part of a recording.
    """
    grid = window_of(model, window_s, step_s, overlap)
    rules = rules_of(model) if rules is None else rules
    foreign = sorted(set(labels) - set(LABELS))
    if foreign:
        raise OssicleError(f"no labels of kind {foreign[0]!r}: choose from {', '.join(LABELS)}")
    shared = shares_maps(model, shared)
    scorer = create_scorer(model, grid, unknown, shared=shared)
    if unknown is not None:
        name = rows_of(model, unknown)[-1]
        rules = Rules({**rules.by_class, name: ClassRule()}, rules.score)
    names_of = dict(zip(rules.classes, class_columns(model), strict=False))
    if classes is not None:
        wanted_classes = _known(classes, model)
        kept = [name for name in rules.classes if name in wanted_classes or name not in names_of]
        scorer = SomeRows(scorer, [rules.classes.index(name) for name in kept])
        rules = Rules({name: rules.by_class[name] for name in kept}, rules.score)
    paths, names = _whole_files(recordings)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})") from error
    parameters = parameters_of(model, grid, rules, unknown, shared)
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    root = Path(paths[0][: -len(names[0])]) if paths[0].endswith(names[0]) else Path()
    result = Detection(folder, len(paths), parameters=parameters, root=root)
    score_paths = [folder / SCORES / f"{name}.parquet" for name in label_names(names)]
    score_marks = [spool_name(key, path) for path in paths]
    classes_found = rules.classes
    with Journal(folder, key) as journal:
        wanted = []
        for number, path in enumerate(paths):
            entry = journal.find(path)
            lacks = scores and not has_scores(score_paths[number], score_marks[number])
            if entry is None or (lacks and entry.status != "failed"):
                wanted.append(number)
        result.resumed, result.heard = len(paths) - len(wanted), len(wanted)
        if result.resumed and tell is not None:
            tell(f"{result.resumed} of {len(paths)} recordings are done already")
        marks: dict[int, Stamp] = {}

        def spool(number: int) -> Path:
            marks[number] = stamp(paths[number])
            return folder / _WORK / spool_name(key, paths[number], *marks[number])

        order = {name: i for i, name in enumerate(classes_found)}
        columns = [names_of.get(name, name) for name in classes_found]
        for heard in hear(
            [paths[number] for number in wanted],
            wanted,
            scorer,
            classes_found,
            rules,
            sink=lambda n: ScoreFile(score_paths[n], columns, score_marks[n]) if scores else None,
            spool=spool,
            workers=workers,
            tick=progress,
        ):
            journal.add(_entry(heard, paths[heard.number], marks, order))
        _write(
            folder,
            lambda: zip(names, journal.entries(paths), strict=True),
            names,
            rules,
            labels,
            result,
        )
    with suppress(OSError):
        (folder / _WORK).rmdir()
    record.write_json(
        folder / "run.json",
        {
            "parameters": parameters,
            "recordings": len(paths),
            "seconds": result.seconds,
            "events": result.events,
            **record.record(arguments or {}, seed=None),
        },
    )
    return result


def _entry(heard: Heard, path: str, marks: Mapping[int, Stamp], order: Mapping[str, int]) -> Entry:
    rows = [
        (event.onset, event.offset, order[event.label], round(float(event.score), DIGITS))
        for event in heard.events
    ]
    return Entry(
        path,
        marks.get(heard.number) or stamp(path),
        checksum(path),
        heard.status,
        heard.reason,
        heard.seconds,
        rows,
    )


def _write(
    folder: Path,
    found: Callable[[], Iterator[tuple[str, Entry]]],
    names: Sequence[str],
    rules: Rules,
    labels: Sequence[str],
    result: Detection,
) -> None:
    """All tables, recording by recording, from the journal."""
    constant = {
        "window_s": result.parameters["window_s"] or math.nan,
        "step_s": result.parameters["step_s"] or math.nan,
        "model": result.parameters["model"][:12],
    }
    short = label_names(names)

    def rows() -> Iterator[list[dict[str, Any]]]:
        for number, (name, entry) in enumerate(found()):
            some = event_rows(entry, name, rules.classes, rules, constant)
            result.seconds += entry.seconds
            if entry.status != "ok":
                result.problems.append((name, entry.status, entry.reason))
            if entry.status != "failed":
                for kind in labels:
                    write_label_file(folder, kind, short[number], name, some)
            yield some

    result.events = write_event_tables(folder, rows(), constant)
    write_file_table(folder, found())


def known_seconds(paths: Sequence[str]) -> float | None:
    """Length of all recordings together, where their headers tell it; None where one does not."""
    total = 0.0
    for path in paths:
        try:
            with open_decoder(path) as decoder:
                if decoder.frames is None:
                    return None
                total += decoder.frames / decoder.sample_rate
        except AudioError:
            continue
    return total


def _known(classes: Sequence[str], model: Model) -> set[str]:
    foreign = [name for name in classes if name not in model.classes]
    if foreign or not classes:
        raise OssicleError(
            f"no class {foreign[0] if foreign else ''!r}: the model knows "
            f"{', '.join(model.classes[:20])}{', ...' if len(model.classes) > 20 else ''}"
        )
    return set(classes)


def _whole_files(recordings: Clips) -> tuple[list[str], list[str]]:
    """Paths, each once, and the names that tables give them."""
    table = recordings.table
    if table["onset"].notna().any() or table["offset"].notna().any():
        raise DataError("detect hears whole recordings: leave onset and offset out of the manifest")
    named = dict(zip(table["path"], shown_paths(recordings), strict=True))
    return list(named), list(named.values())
