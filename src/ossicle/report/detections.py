"""The page of detections: what was found, when, and to listen to; one HTML file that opens offline.

With a reference it begins with what is wrong. The parts:

* `detection_matches`: hits, misses and false alarms.
* `detection_activity`, `detection_tables`: what is counted.
* `detection_media`: which sounds and pictures are carried.
* `detections.html`, with `style.html`, `detections_style.html` and `detections_script.html`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ossicle import record
from ossicle.errors import OssicleError
from ossicle.events import FrameScores, event_table
from ossicle.report import detection_tables as tables
from ossicle.report.clips import shown_path
from ossicle.report.detection_activity import activity
from ossicle.report.detection_matches import Verdicts, judge, verdict_counts
from ossicle.report.detection_media import Carrier, wanted
from ossicle.report.detection_tracks import thresholds_of
from ossicle.report.page import plain
from ossicle.report.words import duration, plural

#: Events that the page lists and draws; all are counted.
MOST_EVENTS = 60_000
MOST_SKIPPED = 500
NAME = "detections.html"


def write_detection_report(
    out_dir: str | Path,
    *,
    files: Sequence[str],
    events: pd.DataFrame,
    classes: Sequence[str],
    durations: Mapping[str, float],
    parameters: Mapping[str, Any],
    audio_root: str | Path | None = None,
    frames: Mapping[str, FrameScores] | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    reference: pd.DataFrame | None = None,
    skipped: Sequence[Mapping[str, Any] | tuple[str, str]] = (),
    scores: Mapping[str, Any] | None = None,
    matching: Mapping[str, Any] | None = None,
    max_audio_bytes: int = 12_000_000,
    sample_rate: int | None = None,
    title: str = "Detections",
    command: str = "",
    table: str = "events.csv",
    name: str = NAME,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a page, `detections.html`; it appears whole or not at all.

    Args:
        out_dir: made where it is missing.
        files: all recordings that were heard, with events or without; names as in the tables.
        events: what was found: see ``ossicle.events.event_table``.
        classes: K names; labels of the tables that are not among them follow.
        durations: of the files, seconds; unknown ones may be missing.
        parameters: what it was found with, for the page's end; may be nested.
        audio_root: what the files' names are relative to; None is the working folder.
        frames: scores (K, T) by file, for curves; only those of pictures are looked up.
        thresholds: of the scores, by class or one for all.
        reference: the true events of the same files; hits, misses and false alarms are then told.
        skipped: (file, reason) or {"path", "reason"} of what could not be used.
        scores: name -> number, {"value", "low", "high"} or such dicts, shown as they are.
        matching: collar_s, offset_share and onset_only, as ``detection_matches.judge`` takes them,
            so that hits are those of the scores.
        max_audio_bytes: the most that sounds and pictures take in the page, as they stand in it.
        sample_rate: that of the model, Hz; pictures end at half of it.
        title, command: shown; how to do this again.
        table: the name of the table beside the page that holds all events.
        name: of the page.
        progress: called with (events done, events in all) while sounds are gathered.

    Returns:
        The path of the page.

    Raises:
        DataError: a table holds what is no event.
        OssicleError: the page cannot be written.
    """
    root = None if audio_root is None else Path(audio_root)
    events = event_table(events, "events")
    truth = None if reference is None else event_table(reference, "reference")
    both = [events] if truth is None else [events, truth]
    names = list(dict.fromkeys([*map(str, files), *(f for t in both for f in t["file"])]))
    labels = list(
        dict.fromkeys([*map(str, classes), *sorted({x for t in both for x in t["label"]})])
    )
    lengths = {str(k): float(v) for k, v in durations.items() if np.isfinite(v)}
    verdicts = None if truth is None else judge(events, truth, **(matching or {}))
    marked = mark(events, truth, verdicts)
    rows = tables.file_rows(names, lengths, marked, labels)

    carrier = Carrier(
        names,
        [Path(name) if root is None else root / name for name in names],
        lengths,
        classes=labels,
        frames=_padded(frames, len(classes), len(labels)),
        most_bytes=max_audio_bytes,
        sample_rate=sample_rate,
    )
    number_of = {name: i for i, name in enumerate(names)}
    class_of = {name: k for k, name in enumerate(labels)}
    marked["f"], marked["k"] = marked["file"].map(number_of), marked["label"].map(class_of)
    order = wanted(marked)
    with_events = set(marked["file"])
    overviews = carrier.overviews([i for i in rows["order"] if names[i] in with_events])
    head = marked.loc[order, ["f", "onset", "offset", "k"]].itertuples(index=False, name=None)
    media = dict(zip(order, carrier.excerpts(list(head), progress), strict=True))
    data = page_data(marked, rows["order"], media, overviews, carrier, labels, lengths)
    limits = thresholds_of(thresholds, labels)
    data["thresholds"] = [limits.get(name) for name in labels]
    data["names"] = [shown_path(name, root) for name in names]

    recorded = sum(lengths.get(name, 0.0) for name in names)
    judged = (
        None
        if verdicts is None or truth is None
        else verdict_counts(verdicts, list(events["label"]), list(truth["label"]))
    )
    n_classes = events["label"].nunique()
    page = _template().render(
        title=title,
        events=f"{len(events):,}",
        meaning=f"{'event' if len(events) == 1 else 'events'} of "
        f"{plural(n_classes, 'class', 'classes')} in {plural(len(names), 'recording')}",
        under=_under(events, recorded, tables.sounding(events), judged),
        scores=tables.score_rows(scores),
        classes=tables.class_rows(events, labels, recorded, judged, truth),
        maps=[tables.map_rows(a, labels) for a in activity(events, labels, lengths)],
        files=rows,
        names=data["names"],
        judged=verdicts is not None,
        skipped=_skipped(skipped, root)[:MOST_SKIPPED],
        n_skipped=len(skipped),
        parameters=tables.parameter_rows(plain(parameters)),
        command=command,
        table=table,
        n_listed=len(data["events"]["f"]),
        n_left_out=len(marked) - len(data["events"]["f"]),
        n_carried=sum(medium["audio"] is not None for medium in carrier.media),
        has_curves=any(medium["curves"] for medium in carrier.media),
        has_thresholds=bool(limits),
        data=data,
    )
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with record.replaced(out / name) as part:
            # A file name that is not UTF-8 is shown with "?".
            part.write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise OssicleError(f"{out}: the report cannot be written: {error.strerror}") from error
    return out / name


def mark(
    events: pd.DataFrame, truth: pd.DataFrame | None, verdicts: Verdicts | None
) -> pd.DataFrame:
    """Events and reference in one table: file, onset, offset, label, score, kind, off.

    kind is "found" where there is no reference; otherwise "hit" or "alarm" for the events found,
    "miss" or "known" (it was found) for those of the reference. off: the times are off.
    """
    columns = ["file", "onset", "offset", "label", "score"]
    if truth is None or verdicts is None:
        return events[columns].assign(kind="found", off=False)
    kinds = np.where(verdicts.right, "hit", "alarm")
    found = events[columns].assign(kind=kinds, off=verdicts.found_off)
    kinds = np.where(verdicts.hit, "known", "miss")
    true = truth[columns].assign(score=np.nan, kind=kinds, off=verdicts.missed_off)
    parts = [part for part in (found, true) if len(part)] or [found]
    return pd.concat(parts, ignore_index=True)


def page_data(
    marked: pd.DataFrame,
    file_order: Sequence[int],
    media: Mapping[int, int | None],
    overviews: Mapping[int, int],
    carrier: Carrier,
    classes: Sequence[str],
    durations: Mapping[str, float],
) -> dict[str, Any]:
    """What the page's script needs: columns of events, the recordings, what is carried.

    Of more than ``MOST_EVENTS`` those that can be heard stay, then whole recordings in the order
    of the page's table.
    """
    shown = marked
    if len(marked) > MOST_EVENTS:
        place = np.empty(len(carrier.files), int)
        place[list(file_order)] = np.arange(len(file_order))
        audible = np.array([media.get(i) is None for i in marked.index])
        order = np.lexsort((place[marked["f"].to_numpy(int)], audible))
        shown = marked.iloc[np.sort(order[:MOST_EVENTS])]
    score = [None if x != x else round(x, 4) for x in shown["score"].tolist()]
    kinds = ("found", "hit", "alarm", "miss", "known")
    return {
        "classes": list(classes),
        "files": [durations.get(name) for name in carrier.files],
        "first": file_order[0] if len(file_order) else None,
        "notes": {str(i): text for i, text in carrier.notes.items()},
        "overviews": {str(i): medium for i, medium in overviews.items()},
        "media": carrier.media,
        "kinds": list(kinds),
        "events": {
            "f": shown["f"].tolist(),
            "on": shown["onset"].round(3).tolist(),
            "off": shown["offset"].round(3).tolist(),
            "k": shown["k"].tolist(),
            "s": score,
            "kind": [kinds.index(kind) for kind in shown["kind"]],
            "shifted": shown["off"].astype(int).tolist(),
            "m": [media.get(i) for i in shown.index],
        },
    }


def _under(
    events: pd.DataFrame,
    recorded: float,
    seconds: Mapping[str, float],
    judged: pd.DataFrame | None,
) -> str:
    parts = [f"{duration(recorded)} of sound were heard."] if recorded else []
    if judged is not None:
        hits, misses, alarms = (int(judged[k].sum()) for k in ("hits", "misses", "alarms"))
        parts.append(
            f"Of {plural(hits + misses, 'true event')} {hits:,} were found and {misses:,} missed; "
            f"{plural(alarms, 'false alarm')}."
        )
    elif len(events) and seconds:
        most = max(seconds, key=lambda name: seconds[name])
        parts.append(f"Longest in all: {most}, {duration(seconds[most])}.")
    return " ".join(parts)


def _skipped(
    skipped: Sequence[Mapping[str, Any] | tuple[str, str]], root: Path | None
) -> list[dict[str, str]]:
    pairs = [
        (x.get("path"), x.get("reason")) if isinstance(x, Mapping) else tuple(x) for x in skipped
    ]
    return [
        {"path": shown_path(str(path), root), "reason": str(record.json_safe(str(reason or "")))}
        for path, reason in pairs
    ]


def _padded(
    frames: Mapping[str, FrameScores] | None, known: int, wanted_rows: int
) -> Mapping[str, FrameScores] | None:
    """Scores with rows of 0 for labels that the model does not have."""
    if frames is None or known == wanted_rows:
        return frames
    return _Padded(frames, wanted_rows - known)


class _Padded(Mapping[str, FrameScores]):
    def __init__(self, frames: Mapping[str, FrameScores], rows: int) -> None:
        self._frames, self._rows = frames, rows

    def __getitem__(self, name: str) -> FrameScores:
        some = self._frames[name]
        return FrameScores(np.pad(np.asarray(some.scores), ((0, self._rows), (0, 0))), some.edges)

    def __iter__(self) -> Any:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # `tojson` itself makes the text safe inside a script element.
    settings = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = settings
    return environment.get_template("detections.html")
