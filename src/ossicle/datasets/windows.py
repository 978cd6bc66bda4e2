"""A long recording as many clips: windows of one length at equal steps, to the recording's end.

Onsets are computed, not counted up: window i begins at i * step in exact fractions of a second, so
that the last window of a night stands where the first says it must. `parts` reads their samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pandas as pd

from ossicle.audio import info
from ossicle.datasets.clips import Clips
from ossicle.errors import AudioError, DataError

Seconds = float | Fraction


def window_spans(
    end_s: Seconds, window_s: float, step_s: float | None = None, *, onset_s: Seconds = 0.0
) -> list[tuple[float, float]]:
    """Where the windows of a stretch of sound begin and end.

    Full windows stand at ``onset_s + i * step_s`` as long as they end within the stretch. Where
    sound is left after the last of them, the next one is cut at the end and kept if at least half
    a window is in it; a shorter rest is heard by a full window that ends with the stretch. A
    stretch that is too short for a window is one part.

    Args:
        end_s: end of the stretch in seconds, from the recording's start.
        window_s: length of a window in seconds.
        step_s: from one onset to the next in seconds; None: the window's length, no overlap. A
            longer step leaves gaps.
        onset_s: start of the stretch in seconds.

    Returns:
        (onset, offset) in seconds, each the float nearest to the exact number (0.1 and its like
        are taken for what they are written as); both ascend, and no offset is past ``end_s``.

    Raises:
        DataError: a length or step that is not a positive number.

    >>> window_spans(2.75, 1.0, 0.5)
    [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5), (2.0, 2.75)]
    >>> window_spans(2.25, 1.0)
    [(0.0, 1.0), (1.0, 2.0), (1.25, 2.25)]
    """
    window = _positive(window_s, "a window")
    step = window if step_s is None else _positive(step_s, "a step")
    begin, end = _exact(onset_s), _exact(end_s)
    length = end - begin
    if length <= 0:
        return []
    if length <= window:
        return [(_seconds(begin), _seconds(end))]
    count = (length - window) // step + 1
    # Onset i is (start + i * stride) / scale in whole numbers, whose quotient Python rounds right.
    scale = math.lcm(begin.denominator, step.denominator, window.denominator)
    start, stride, width = (int(value * scale) for value in (begin, step, window))
    spans = [
        ((start + i * stride) / scale, (start + i * stride + width) / scale) for i in range(count)
    ]
    following = begin + count * step
    if following - step + window < end:
        late = following if 2 * (end - following) >= window else end - window
        spans.append((_seconds(late), _seconds(end)))
    return spans


def window_clips(
    clips: Clips,
    window_s: float,
    step_s: float | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Clips:
    """A row for each window of each recording, in order.

    Lengths are those of what is really decoded (`ossicle.audio.info`), so an MP3 is decoded once
    for its length. Rows that are parts of files are cut within these parts.

    Args:
        clips: recordings, labelled or not; each window has what its recording had.
        window_s, step_s: as for `window_spans`.
        progress: called with (recordings measured, recordings).

    Returns:
        As `clips`, with `onset` and `offset` (s) of each window. A recording that cannot be read,
        or a part that holds no sound, keeps its row as it is: reading it tells why.

    Raises:
        DataError: a length or step that is not a positive number.
    """
    window_spans(0.0, window_s, step_s)
    table = clips.table
    lengths: dict[str, Fraction | None] = {}
    rows, onsets, offsets = [], [], []
    given = zip(table["path"], table["onset"], table["offset"], strict=True)
    for row, (path, onset, offset) in enumerate(given):
        if path not in lengths:
            lengths[path] = _length(path)
        end = lengths[path]
        spans: list[tuple[float, float]] = []
        if end is not None:
            stop = end if math.isnan(offset) else min(end, _exact(offset))
            begin = 0.0 if math.isnan(onset) else onset
            spans = window_spans(stop, window_s, step_s, onset_s=begin)
        spans = spans or [(onset, offset)]
        rows += [row] * len(spans)
        onsets += [span[0] for span in spans]
        offsets += [span[1] for span in spans]
        if progress is not None:
            progress(row + 1, len(table))
    cut = clips.subset(np.array(rows, np.int64))
    cut.table["onset"] = pd.Series(onsets, dtype=np.float64)
    cut.table["offset"] = pd.Series(offsets, dtype=np.float64)
    return cut


def _length(path: str) -> Fraction | None:
    """Exact seconds, by counting frames; None where the file cannot be read."""
    try:
        about = info(path)
    except AudioError:
        return None
    return Fraction(round(about.duration_s * about.sample_rate), about.sample_rate)


def _exact(seconds: Seconds) -> Fraction:
    """0.1 is a tenth, not the binary fraction next to it."""
    return seconds if isinstance(seconds, Fraction) else Fraction(repr(float(seconds)))


def _seconds(exact: Fraction) -> float:
    return exact.numerator / exact.denominator


def _positive(seconds: float, what: str) -> Fraction:
    if not (math.isfinite(seconds) and seconds > 0):
        raise DataError(f"{what} must be a positive number of seconds, got {seconds}")
    return _exact(seconds)
