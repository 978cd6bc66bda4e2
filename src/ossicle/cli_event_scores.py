"""`ossicle events score`: what was found against what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Seed
from ossicle.console import answer
from ossicle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from ossicle.datasets.strong import StrongClips

# Scores of `metrics.events.all_scores.score_events` that are told, and what they are called.
_TOLD = {
    "event": "by collars (onset within {collar_s:g} s, offset within {collar_s:g} s or a share "
    "of {offset_share:g})",
    "onset": "by onsets (within {collar_s:g} s)",
    "segment": "in segments of {segment_s:g} s",
    "intersection": "by intersection ({dtc:g} of what is found, {gtc:g} of what there is)",
}


def score_events(
    reference: Annotated[
        Path, typer.Argument(help="Recordings with label files beside, or a table of events.")
    ],
    found: Annotated[
        Path, typer.Argument(help="Events to judge: events.csv of `detect`, or any label file.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="All scores, per class, as .json.")
    ] = None,
    collar: Annotated[float, typer.Option(help="Seconds that onsets may be off.")] = 0.2,
    offset_share: Annotated[
        float, typer.Option(help="Share of an event's length that its offset may be off.")
    ] = 0.2,
    segment: Annotated[float, typer.Option(help="Seconds of a segment.")] = 1.0,
    split: Annotated[
        str | None, typer.Option(help="Only recordings of this part: train, validation, test.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score events against the true ones: segment, event and intersection F1, with intervals."""
    from ossicle.datasets.strong import read_events, read_strong
    from ossicle.metrics.events import score_events as score
    from ossicle.record import write_json

    clips = read_strong(reference)
    if split is not None:
        clips = clips.subset((clips.files["split"] == split).to_numpy())
    clips = clips.subset((clips.files["kind"] == "strong").to_numpy())
    if not len(clips):
        raise DataError(f"{reference}: has no recordings with known events to score against")
    estimate = in_names_of(clips, read_events(found), found, partial=split is not None)
    notes = list(clips.notes)
    foreign = sorted(set(estimate["label"]) - set(clips.classes))
    if foreign:
        shown = ", ".join(foreign[:10]) + (", ..." if len(foreign) > 10 else "")
        notes.append(f"found, but never labelled: {shown}; false alarms in the micro scores")
    groups = dict(zip(clips.files["path"], clips.files["group"], strict=True))
    scores = score(
        clips.events,
        estimate,
        clips.durations(),
        sorted({*clips.classes, *foreign}),
        groups=groups,
        collar_s=collar,
        offset_share=offset_share,
        segment_s=segment,
        random_state=seed,
    )
    lines = [f"note: {note}" for note in notes]
    lines.append(
        f"{scores['recordings']} recordings, {scores['reference_events']} events, "
        f"{scores['estimated_events']} found"
    )
    values = {"collar_s": collar, "offset_share": offset_share, "segment_s": segment}
    values |= {"dtc": scores["settings"]["dtc"], "gtc": scores["settings"]["gtc"]}
    for name, text in _TOLD.items():
        lines.append(f"F1 {text.format(**values)}: {_f1(scores[name])}")
    if out is not None:
        write_json(out, scores)
        lines.append(f"all scores: {out}")
    answer(lines, scores, as_json)


def in_names_of(
    clips: StrongClips, found: pd.DataFrame, source: Path, *, partial: bool = False
) -> pd.DataFrame:
    """Events under the paths of the recordings that they were found in.

    A name stands for the one recording whose path ends in it, with or without its ending.

    Args:
        clips: the recordings.
        found: events.
        source: of the events, for messages.
        partial: events of recordings that are not among these are left out.

    Raises:
        DataError: a name fits several recordings, or none.
    """
    by_tail: dict[str, set[str]] = {}
    for path in clips.files["path"]:
        parts = Path(path).parts
        for at in range(len(parts)):
            tail = Path(*parts[at:])
            for name in {str(tail), str(tail.with_suffix(""))}:
                by_tail.setdefault(name, set()).add(path)
    named: dict[str, str | None] = {}
    for name in dict.fromkeys(found["file"]):
        fits = by_tail.get(str(Path(name)), set())
        if len(fits) > 1:
            raise DataError(f"{source}: {name} fits {len(fits)} recordings: give more of its path")
        if not fits and not partial:
            raise DataError(f"{source}: {name} is none of the {len(clips)} recordings")
        named[name] = next(iter(fits), None)
    renamed = found.assign(file=found["file"].map(named))
    return renamed[renamed["file"].notna()].reset_index(drop=True)


def _f1(scores: dict[str, Any]) -> str:
    parts = []
    for name in ("macro", "micro"):
        value = scores[name]["f1"]
        if value["value"] is None:
            parts.append(f"{name} not to be told")
            continue
        text = f"{name} {value['value']:.3f}"
        if value["low"] is not None:
            text += f" ({value['low']:.3f} to {value['high']:.3f})"
        parts.append(text)
    return ", ".join(parts)
