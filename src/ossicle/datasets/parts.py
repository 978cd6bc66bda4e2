"""The samples of many parts of one recording in one pass: linear time, memory of one part.

Opening a file anew for each part costs little in WAV; where a decoder cannot seek (M4A, AAC) it
decodes all that comes before, each time. Here the recording goes by once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ossicle.audio import load, resample, stream
from ossicle.datasets.clips import part_text
from ossicle.errors import AudioError
from ossicle.tally import Tally

Span = tuple[float | None, float | None]
# Long beside the cost of a call, short beside a recording.
BLOCK_S = 5.0
# Opening a file and finding a place takes about as long as decoding so much of it.
_SEEK_S = 0.5


def dense(spans: Sequence[Span], *, share: float = 0.1) -> list[tuple[float, float]] | None:
    """The spans where one pass over their recording is the quicker way to them, else None.

    Args:
        spans: (onset, offset) in seconds, None for the recording's start and end.
        share: of the time up to the last offset, how much the parts must make up, each with the
            time that finding it costs.
    """
    known = [(a, b) for a, b in spans if a is not None and b is not None]
    if len(known) < max(2, len(spans)) or any(a[0] > b[0] for a, b in pairwise(known)):
        return None
    wanted = sum(b - a + _SEEK_S for a, b in known)
    return known if wanted >= share * max(b for _, b in known) else None


def read_parts(
    path: str,
    spans: Sequence[tuple[float, float]],
    sample_rate: int,
    *,
    min_duration_s: float = 0.0,
    allow_silent: bool = True,
) -> Iterator[np.ndarray | AudioError]:
    """The parts of a recording, in order, each what `ossicle.audio.load` gives for it.

    Args:
        path: the file.
        spans: (onset, offset) in seconds, onsets ascending; they may overlap.
        sample_rate: of the result, in Hz; each part is resampled by itself.
        min_duration_s, allow_silent: as for `ossicle.audio.load`.

    Yields:
        For each span (N,) float32, the mean of the channels, or the error that tells why it cannot
        be used; one part's error does not touch the others.
    """
    tape: _Tape | None = _Tape(path)
    for onset, offset in spans:
        samples: np.ndarray | None = None
        if tape is not None and 0 <= onset < offset:
            try:
                samples = tape.between(onset, offset)
            except AudioError:
                # A file may be damaged at one place and sound elsewhere.
                tape = None
        try:
            if tape is None or samples is None:
                yield load(
                    path,
                    sample_rate=sample_rate,
                    onset=onset,
                    offset=offset,
                    min_duration_s=min_duration_s,
                    allow_silent=allow_silent,
                ).samples[0]
                continue
            tally = Tally(Path(path), tape.sample_rate)
            for _ in tally.watch([samples] if len(samples) else []):
                pass
            tally.check(onset, min_duration_s, allow_silent)
            part = resample(samples, tape.sample_rate, sample_rate)
            if not len(part):
                raise tally.too_short(sample_rate)
            yield part
        except AudioError as error:
            yield AudioError(error.path, f"{error.reason}{part_text(onset, offset)}")


class _Tape:
    """A recording at its own rate that goes by once; what is behind the reader is gone."""

    def __init__(self, path: str) -> None:
        self._blocks = stream(path, block_s=BLOCK_S)
        self._held = np.zeros(0, np.float32)
        self._at = 0  # frame number of the first one held
        self._ended = False
        self.sample_rate = 0

    def between(self, onset: float, offset: float) -> np.ndarray:
        """(N,) frames round(onset * rate) to round(offset * rate), as many as there are.

        Raises:
            AudioError: the recording cannot be read this far.
        """
        if not self.sample_rate:
            self._pull()
        start, stop = round(onset * self.sample_rate), round(offset * self.sample_rate)
        while not self._ended and self._at + len(self._held) < stop:
            self._pull()
            self._forget(start)
        return self._held[start - self._at : stop - self._at].copy()

    def _pull(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            return
        self.sample_rate = block.sample_rate
        self._held = np.concatenate([self._held, block.samples[0]])

    def _forget(self, start: int) -> None:
        gone = min(max(0, start - self._at), len(self._held))
        self._held, self._at = self._held[gone:], self._at + gone
