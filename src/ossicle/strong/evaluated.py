"""How well a detector, or anything else that scores frames, finds events: scores with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ossicle.card import plain_card
from ossicle.datasets.strong import StrongClips
from ossicle.detect.decoder import decode
from ossicle.detect.median import filtered
from ossicle.detect.rules import Rules
from ossicle.detector import Detector
from ossicle.events import COLUMNS, FrameScores, event_table
from ossicle.features import Progress
from ossicle.metrics.events import score_events
from ossicle.strong.scoring import Scorer, frames_of

# As they are told: what they are called, and where they lie in the scores.
TOLD = (
    ("event F1, macro (onset within 0.2 s, offset within 0.2 s or 20 %)", ("event", "macro", "f1")),
    ("event F1, micro", ("event", "micro", "f1")),
    ("segment F1, macro (1 s)", ("segment", "macro", "f1")),
    ("PSDS 1", ("psds1", "psds")),
    ("PSDS 2", ("psds2", "psds")),
)
HEADLINE = "event F1"


class Tested(NamedTuple):
    """What an evaluation found.

    Attributes:
        scores: as of ``ossicle.metrics.events.score_events``.
        events: what was found, an event table.
        skipped: (row, path, reason) of recordings that could not be read.
    """

    scores: dict[str, Any]
    events: pd.DataFrame
    skipped: list[tuple[int, str, str]]

    @property
    def headline(self) -> dict[str, Any]:
        """The macro event F1 with its interval, as a bundle's label holds scores."""
        return {"metric": HEADLINE, **self.scores["event"]["macro"]["f1"]}


def evaluate_detector(
    detector: Detector,
    clips: StrongClips,
    rules: Rules,
    *,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Tested:
    """Score a detector on recordings that it has not learnt from.

    Args:
        detector: scores frames.
        clips: recordings with strong labels.
        rules: that make events of them, fitted on other recordings.
        workers: threads; no number changes the scores.
        seed: of the bootstrap.
        progress: called after every recording.

    Raises:
        DataError: none of the recordings could be read.
    """
    return evaluate_scorer(
        detector.frame_scores,
        detector.sample_rate,
        clips,
        rules,
        workers=workers,
        seed=seed,
        progress=progress,
    )


def evaluate_scorer(
    scorer: Scorer,
    sample_rate: int,
    clips: StrongClips,
    rules: Rules,
    *,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Tested:
    """As ``evaluate_detector``, of whatever scores frames.

    Args:
        scorer: (N,) samples -> scores over all of them, the classes in the order of ``clips``.
        sample_rate: Hz that it takes.
        clips, rules, workers, seed, progress: as for ``evaluate_detector``.
    """
    frames, skipped = frames_of(clips, scorer, sample_rate, workers, progress)
    scores, events = evaluate_frames(frames, clips, rules, seed=seed)
    return Tested(scores, events, skipped)


def evaluate_frames(
    frames: Mapping[str, FrameScores], clips: StrongClips, rules: Rules, *, seed: int = 0
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores of recordings, and the events found in them.

    What needs no threshold (PSDS, the best F1) is of scores that went through the rules' median
    filters; intervals are over groups of recordings.

    Args:
        frames: file -> scores, of all that are judged; others of ``clips`` are left out.
        clips: with the events that sound in them.
        rules: that make events of scores.
        seed: of the bootstrap.
    """
    classes = clips.classes
    medians = [rules[name].median_s for name in classes]
    smooth = {file: filtered(one, medians) for file, one in frames.items()}
    found = events_of(frames, classes, rules)
    reference = clips.events[clips.events["file"].isin(set(frames))]
    groups = dict(zip(clips.files["path"], clips.files["group"], strict=True))
    scores = score_events(
        reference.reset_index(drop=True),
        found,
        {file: float(one.edges[-1]) for file, one in frames.items()},
        classes,
        scores=smooth,
        groups={file: groups[file] for file in frames},
        random_state=seed,
    )
    return scores, found


def events_of(
    frames: Mapping[str, FrameScores], classes: Sequence[str], rules: Rules
) -> pd.DataFrame:
    """What rules find in recordings: an event table."""
    rows = [
        {"file": file, **event._asdict()}
        for file, one in frames.items()
        for event in decode(one, classes, rules)
    ]
    return event_table(pd.DataFrame(rows, columns=None if rows else list(COLUMNS)), "found events")


def summary(tested: Tested) -> list[str]:
    """The scores that matter, a line each, with their intervals."""
    scores = tested.scores
    lines = [
        f"{scores['recordings']} test recordings, {60 * scores['hours']:.1f} minutes, "
        f"{scores['reference_events']} events, {scores['estimated_events']} found"
    ]
    for name, where in TOLD:
        value: Any = scores
        for key in where:
            value = value[key]
        lines.append(f"{name}: {_told(value)}")
    return lines


def card_of(detector: Detector, tested: Tested, title: str) -> str:
    """The model card of a trained detector: the plain one, its scores told as they were measured.

    Args:
        detector: with its label.
        tested: on recordings that it has not learnt from.
        title: the heading.
    """
    before, _, after = plain_card(detector, title).partition("## How well it does")
    _, _, rest = after.partition("## What it is made of")
    protocol = str(detector.info.get("protocol", ""))
    lines = [f"- {line}" for line in summary(tested)]
    per_class = tested.scores["event"]["per_class"]
    rows = [f"| {_cell(name)} | {_told(row['f1'])} |" for name, row in per_class.items()]
    text = [
        "## How well it does",
        "",
        *lines,
        "",
        f"Intervals are of 95 %, over recordings. Measured by {protocol}; this very model was "
        "measured, on recordings that it has not learnt from.",
        "",
        "| class | event F1 |",
        "|---|---|",
        *rows,
        "",
        "## What it is made of",
    ]
    return before + "\n".join(text) + rest


def _told(value: Mapping[str, float | None]) -> str:
    """A score in words."""
    if value["value"] is None:
        return "not to be told: there are no such events"
    text = f"{value['value']:.3f}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} (95 % interval {value['low']:.3f} to {value['high']:.3f})"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
