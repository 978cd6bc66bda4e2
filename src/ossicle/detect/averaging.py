"""From windows that overlap to frames that do not: each frame is the mean of its windows."""

from __future__ import annotations

import numpy as np

from ossicle.detect.scorers import Part
from ossicle.events import FrameScores


class WindowAverage:
    """Frames between all borders of windows, window by window, in constant memory.

    A frame's score is the mean over the windows that hear it; where none does (steps longer than
    windows) it is NaN. How the windows are cut into pushes changes nothing.

    Args:
        classes: K.
        scale: units of a second, of onsets and offsets.
    """

    def __init__(self, classes: int, scale: int) -> None:
        nothing = np.zeros(0, np.int64)
        self.scale = scale
        self._held = Part(nothing, nothing, np.zeros((classes, 0), np.float32))
        self._done = 0  # frames up to here are out

    def push(self, part: Part) -> FrameScores:
        """Take further windows; the frames that no later window can change."""
        if not len(part.onsets):
            return self._frames(self._done)
        pairs = zip(self._held, part, strict=True)
        self._held = Part(*(np.concatenate(pair, -1) for pair in pairs))
        return self._frames(int(self._held.onsets[-1]))

    def finish(self) -> FrameScores:
        """The frames that are left."""
        return self._frames(int(self._held.offsets.max(initial=self._done)))

    def _frames(self, until: int) -> FrameScores:
        onsets, offsets, scores = self._held
        borders = np.unique(np.concatenate([onsets, offsets, [self._done, until]]))
        borders = borders[(borders >= self._done) & (borders <= until)]
        begin = borders[:-1]
        # Windows ascend at both ends: those over a frame are neighbours.
        first = np.searchsorted(offsets, begin, side="right")
        after = np.searchsorted(onsets, begin, side="right")
        total = np.zeros((len(scores), len(begin)))
        for step in range(int((after - first).max(initial=0))):
            heard = first + step < after
            total[:, heard] += scores[:, (first + step)[heard]]
        count = (after - first).astype(float)
        with np.errstate(invalid="ignore"):
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        self._done = until
        kept = offsets > until
        self._held = Part(onsets[kept], offsets[kept], scores[:, kept])
        return FrameScores(mean, borders / self.scale)
