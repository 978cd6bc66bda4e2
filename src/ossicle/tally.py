"""Judge a file by its samples while they go by: length, finite values, silence.

Blocks are (N,) or (N, C) float32, decoded and not yet resampled: a resampler's ringing would hide
a constant signal, and spread one NaN over its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ossicle.errors import AudioError

_SILENCE = 1e-7


class Tally:
    """What is known of one file's samples after its blocks have passed.

    Args:
        path: the file, for errors.
        sample_rate: in Hz.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._path = path
        self._rate = sample_rate
        self._frames = 0
        self._low: np.ndarray | float = math.inf  # of each channel
        self._high: np.ndarray | float = -math.inf

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass blocks on; AudioError at the first value that is not finite."""
        for block in blocks:
            # Extremes tell of silence, and NaN passes through them: one look for both.
            low, high = block.min(axis=0), block.max(axis=0)
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise AudioError(self._path, "holds NaN or infinite samples; replace the file")
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
            self._frames += len(block)
            yield block

    def check(self, onset: float | None, min_duration_s: float, allow_silent: bool) -> None:
        """AudioError if what went by is nothing, too short, or silent where that is an error."""
        if self._frames == 0:
            if onset:
                raise AudioError(self._path, f"has no samples at or after its onset of {onset:g} s")
            raise AudioError(self._path, "holds no samples")
        duration_s = self._frames / self._rate
        if duration_s < min_duration_s:
            raise AudioError(
                self._path, f"lasts {duration_s:g} s, less than the {min_duration_s:g} s needed"
            )
        if not allow_silent:
            is_flat = np.all(self._low == self._high)
            if is_flat or max(np.max(self._high), -np.min(self._low)) < _SILENCE:
                raise AudioError(self._path, "is silent")

    def too_short(self, rate: int) -> AudioError:
        """The error for a file of which no sample is left at another rate."""
        return AudioError(
            self._path,
            f"is too short: {self._frames} samples at {self._rate} Hz leave none at {rate} Hz",
        )
