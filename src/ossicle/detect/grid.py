"""Where windows stand in a recording whose end is not known yet: the grid of `datasets.windows`.

Onsets are whole numbers over a common denominator, never sums of floats: window i begins at
i * step exactly, after a day as after a second.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from ossicle.errors import OssicleError

# More would be the same sound heard over and over.
MAX_OVERLAP = 0.99


class Grid(NamedTuple):
    """Windows of ``width / scale`` seconds every ``stride / scale`` seconds.

    Attributes:
        width, stride: in units of 1 / scale seconds.
        scale: units in a second; a multiple of the sample rate.
    """

    width: int
    stride: int
    scale: int

    def between(self, begin: int, stop: int, end: int | None) -> list[tuple[int, int]]:
        """The windows that begin within [begin, stop), in units.

        Args:
            begin, stop: the stretch.
            end: where the recording ends; None: later than ``stop + width``.

        Returns:
            (onset, offset) of each, ascending; over all stretches of a recording those of
            ``ossicle.datasets.windows.window_spans``.
        """
        first = -(-begin // self.stride)
        count = max(0, -(-stop // self.stride) - first)
        if end is None:
            onsets = range(first * self.stride, (first + count) * self.stride, self.stride)
            return [(onset, onset + self.width) for onset in onsets]
        if end <= self.width:
            return [(0, end)] if begin <= 0 < stop and end > 0 else []
        full = (end - self.width) // self.stride + 1
        spans = [
            (i * self.stride, i * self.stride + self.width)
            for i in range(first, min(first + count, full))
        ]
        following = full * self.stride
        if following - self.stride + self.width < end:
            late = following if 2 * (end - following) >= self.width else end - self.width
            if begin <= late < stop:
                spans.append((late, end))
        return spans

    def seconds(self, units: int) -> float:
        """The float nearest to ``units / scale`` seconds."""
        return units / self.scale

    def samples(self, units: int, sample_rate: int) -> int:
        """The sample nearest to a time; a half goes up."""
        return (2 * units * sample_rate + self.scale) // (2 * self.scale)


def lay_grid(
    window_s: float, step_s: float | None, overlap: float | None, sample_rate: int
) -> Grid:
    """The grid of windows, from a step in seconds or a share of overlap; 0.1 means a tenth.

    Args:
        window_s: length of a window in seconds.
        step_s: from one onset to the next in seconds.
        overlap: share of a window that the next one hears again, 0 to 0.99, instead of a step.
        sample_rate: Hz, so that the ends of recordings are whole units too.

    Raises:
        OssicleError: a length that is not positive, a share out of its range, both step and
            overlap, or a step shorter than a sample.
    """
    window = _exact(window_s, "a window")
    if step_s is not None and overlap is not None:
        raise OssicleError("pass a step or an overlap, not both")
    if overlap is not None:
        if not 0 <= overlap <= MAX_OVERLAP:
            raise OssicleError(f"an overlap is a share from 0 to {MAX_OVERLAP}, got {overlap}")
        step = window * (1 - Fraction(repr(float(overlap))))
    else:
        step = window if step_s is None else _exact(step_s, "a step")
    if step * sample_rate < 1:
        raise OssicleError(f"a step of {float(step):g} s is less than a sample")
    scale = math.lcm(window.denominator, step.denominator, sample_rate)
    return Grid(int(window * scale), int(step * scale), scale)


def _exact(seconds: float, what: str) -> Fraction:
    if not (math.isfinite(seconds) and seconds > 0):
        raise OssicleError(f"{what} must be a positive number of seconds, got {seconds}")
    return Fraction(repr(float(seconds)))
