"""Windows and rules for a model that there is already, from recordings whose events are known.

A clip model that was trained on clips does not know from which score on its sounds are there, nor
how long a stretch tells most. Both are chosen on validation recordings, by event score, and go into
the bundle; what is reported is of other recordings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.strong import StrongClips
from ossicle.detect.parameters import DEFAULT_WINDOW_S, window_of
from ossicle.detect.rules import Rules
from ossicle.detect.scorers import Scorer, create_scorer
from ossicle.detect.stream import frame_scores
from ossicle.detect.tune import fit_rules
from ossicle.errors import AudioError, DataError
from ossicle.events import FrameScores
from ossicle.features import Progress, run_in_order
from ossicle.model import Model
from ossicle.strong.evaluated import Tested, evaluate_frames

WINDOWS_S = (0.5, DEFAULT_WINDOW_S, 2.0)
Ticker = Callable[[Progress], None]


class Tuned(NamedTuple):
    """A model with its rules, and how they were found.

    Attributes:
        model: a copy, whose ``info["detection"]`` holds windows and rules.
        account: of ``fit_rules``, and the macro F1 of every window that was tried.
        tested: on the test part; None where there is none.
        skipped: (path, reason) of recordings that could not be read.
    """

    model: Model
    account: dict[str, Any]
    tested: Tested | None
    skipped: list[tuple[str, str]]


def tune(
    model: Model,
    clips: StrongClips,
    *,
    windows_s: Sequence[float] = WINDOWS_S,
    overlap: float | None = None,
    shared: bool = False,
    criterion: str = "event",
    seed: int = 0,
    workers: int = 1,
    progress: Ticker | None = None,
) -> Tuned:
    """Choose windows and rules on the validation part, score them on the test part.

    The validation part is what the data calls so; without one all that is not its test part.

    Args:
        model: of clips, or a `Detector`, which has no windows.
        clips: recordings with strong labels; events of classes that the model does not know are
            left out, and told in ``account["notes"]``.
        windows_s: lengths to choose from, in seconds.
        overlap: share of a window that the next one hears; None: a half.
        shared: read windows out of shared maps, see `ossicle.detect.scorers`.
        criterion: see `ossicle.detect.tune.fit_rules`.
        seed: of folds and intervals.
        workers: threads; no number changes the result.
        progress: called after every recording.

    Raises:
        DataError: no event is of a class that the model knows, or there is nothing to tune on.
        OssicleError: the model cannot detect, or a window is out of its range.
    """
    clips, notes = of_model(clips, model)
    split = clips.files["split"].astype(object)
    is_strong = (clips.files["kind"] == "strong").to_numpy()
    test = (split == "test").to_numpy() & is_strong
    validation = (split == "validation").to_numpy() & is_strong
    own = validation if validation.any() else ~test & is_strong
    if not own.any():
        raise DataError(f"{clips.root}: has no recordings with events outside of its test part")
    groups = dict(zip(clips.files["path"], clips.files["group"], strict=True))
    lengths: Sequence[float | None] = [None] if model.framewise else list(windows_s)
    total, done = (int(own.sum()) * len(lengths) + int(test.sum())), 0
    best: tuple[float, float | None, Rules, dict[str, Any]] | None = None
    tried, skipped = [], []

    def heard(rows: np.ndarray, window_s: float | None) -> dict[str, FrameScores]:
        nonlocal done
        scorer = create_scorer(model, window_of(model, window_s, None, overlap), shared=shared)
        found, lost = _frames(clips.subset(rows), scorer, len(model.classes), workers, ticked)
        done += int(rows.sum())
        skipped.extend(lost)
        return found

    def ticked(number: int, seconds: float) -> None:
        if progress is not None:
            progress(Progress(done + number, total, seconds))

    for window_s in lengths:
        frames = heard(own, window_s)
        part = clips.subset(clips.files["path"].isin(set(frames)).to_numpy())
        rules, account = fit_rules(
            frames,
            part.events,
            model.classes,
            groups={file: groups[file] for file in frames},
            criterion=criterion,
            random_state=seed,
        )
        both = account["macro"]["both"] or {}
        score = both.get("cross_validated", account["macro"]["f1"])
        score = -1.0 if score is None else float(score)
        tried.append({"window_s": window_s, "f1": score})
        if best is None or score > best[0]:
            best = score, window_s, rules, account
    assert best is not None
    _, window_s, rules, account = best
    kept: dict[str, Any] = {"rules": rules.to_json()}
    if window_s is not None:
        grid = window_of(model, window_s, None, overlap)
        assert grid is not None
        kept |= {"window_s": grid.seconds(grid.width), "step_s": grid.seconds(grid.stride)}
        kept["shared"] = shared
    made = copy.copy(model)
    made.info = {**model.info, "detection": kept}
    account = {**account, "windows": tried, "notes": [*notes, *account["notes"]]}
    tested = None
    if test.any():
        frames = heard(test, window_s)
        part = clips.subset(clips.files["path"].isin(set(frames)).to_numpy())
        tested = Tested(*evaluate_frames(frames, part, rules, seed=seed), [])
    return Tuned(made, account, tested, list(dict.fromkeys(skipped)))


def of_model(clips: StrongClips, model: Model) -> tuple[StrongClips, list[str]]:
    """The recordings with the model's classes, in the model's order, and what was left out.

    Raises:
        DataError: no event is of one of them.
    """
    foreign = [name for name in clips.classes if name not in model.classes]
    events = clips.events[clips.events["label"].isin(set(model.classes))].reset_index(drop=True)
    if events.empty:
        raise DataError(
            f"{clips.root}: none of its labels ({', '.join(clips.classes[:5])}) is a class of the "
            f"model ({', '.join(model.classes[:5])})"
        )
    files = clips.files.copy()
    files["labels"] = [[n for n in names if n not in set(foreign)] for names in files["labels"]]
    notes = []
    if foreign:
        left = len(clips.events) - len(events)
        notes.append(
            f"{left} events of classes unknown to the model left out: {', '.join(foreign)}"
        )
    silent = [name for name in model.classes if name not in clips.classes]
    if silent:
        notes.append(f"no events of {', '.join(silent)}: their rules are the default")
    known = StrongClips(
        files, events, model.classes, clips.root, list(clips.notes), clips.group_source
    )
    return known, notes


def _frames(
    clips: StrongClips,
    scorer: Scorer,
    classes: int,
    workers: int,
    ticked: Callable[[int, float], None],
) -> tuple[dict[str, FrameScores], list[tuple[str, str]]]:
    frames: dict[str, FrameScores] = {}
    lost, seconds = [], 0.0

    def run(path: Any) -> FrameScores:
        return frame_scores(path, scorer, classes)

    paths: list[Any] = list(clips.files["path"])
    for row, result in run_in_order(run, paths, workers):
        if isinstance(result, AudioError):
            lost.append((paths[row], result.reason))
        else:
            frames[paths[row]] = result
            seconds += float(result.edges[-1])
        ticked(row + 1, seconds)
    if not frames:
        raise DataError(f"none of the recordings could be read; the first: {': '.join(lost[0])}")
    return frames, lost
