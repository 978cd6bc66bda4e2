"""Frame scores of whole recordings, by a detector or by anything else that scores samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ossicle.datasets.strong import StrongClips
from ossicle.errors import AudioError, DataError
from ossicle.events import FrameScores
from ossicle.features import Clip, Progress, one_thread, read_clip, run_in_order
from ossicle.strong.data import recordings

Scorer = Callable[[np.ndarray], FrameScores]


def frames_of(
    clips: StrongClips,
    scorer: Scorer,
    sample_rate: int,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, FrameScores], list[tuple[int, str, str]]]:
    """Frame scores of recordings, each heard by itself and whole.

    Args:
        clips: whose recordings.
        scorer: (N,) samples -> scores over all of them.
        sample_rate: Hz that it takes.
        workers: threads, each with a recording at a time; no number changes the scores.
        progress: called after every recording.

    Returns:
        Path -> scores, whose last edge is the recording's length; and (row, path, reason) of those
        that could not be read.

    Raises:
        DataError: none could be read.
    """
    items = recordings(clips)
    frames: dict[str, FrameScores] = {}
    skipped: list[tuple[int, str, str]] = []
    seconds = 0.0

    def score(clip: Clip) -> FrameScores:
        return scorer(read_clip(clip, sample_rate))

    with one_thread():
        for row, result in run_in_order(score, items, workers):
            if isinstance(result, AudioError):
                skipped.append((row, items[row].name, result.reason))
            else:
                frames[items[row].name] = result
                seconds += float(result.edges[-1])
            if progress is not None:
                progress(Progress(row + 1, len(items), seconds))
    if not frames:
        _, path, reason = skipped[0] if skipped else (0, str(clips.root), "has no recordings")
        raise DataError(f"none of the recordings could be scored; the first: {path}: {reason}")
    return frames, skipped
