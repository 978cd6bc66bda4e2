"""How much of any stretch of time the events of a class fill: prefix sums instead of pairs.

Of G groups (a class in a recording), n events. The time that the events of a group fill up to t is
the sum of t - onset over those begun less the sum of t - offset over those ended; two look-ups tell
it, however many events there are. Where events of one class overlap, their times add up (Bilen et
al. 2020, equation 1, sums over events). All times are int64 microseconds, so sums are exact.
"""

from __future__ import annotations

import numpy as np


class Coverage:
    """The events of all groups, ready to be asked.

    Args:
        group: (n,) int64 group of each event, from 0.
        onset, offset: (n,) int64.
        end: no time asked for is later, nor any offset.
    """

    def __init__(self, group: np.ndarray, onset: np.ndarray, offset: np.ndarray, end: int) -> None:
        self.step = int(end) + 1
        order = np.lexsort((onset, group))
        self.order = order
        self.onset, self.offset = onset[order], offset[order]
        self.on_key = group[order] * self.step + onset[order]
        by_end = np.lexsort((offset, group))
        self.off_key = group[by_end] * self.step + offset[by_end]
        self.on_sum = np.concatenate([[0], np.cumsum(onset[order])])
        self.off_sum = np.concatenate([[0], np.cumsum(offset[by_end])])
        # The latest end of the events up to each: grows within a group and from group to group.
        reach = group[order] * self.step + offset[order]
        self.reach = np.maximum.accumulate(reach) if len(reach) else reach

    def between(self, group: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The time that events of each group fill between low and high: (q,) int64."""
        return self._until(group, high) - self._until(group, low)

    def meeting(
        self, group: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The run of events (in `order`) that can meet each stretch: first, one past the last.

        Those before the first end at `low` or before; those past the last begin at `high` or later.
        """
        return (
            np.searchsorted(self.reach, group * self.step + low, side="right"),
            np.searchsorted(self.on_key, group * self.step + high, side="left"),
        )

    def _until(self, group: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The time filled up to `time`, and a constant that is the same within a group."""
        key = group * self.step + time
        # Events of the groups before have both begun and ended.
        begun = np.searchsorted(self.on_key, key, side="right")
        ended = np.searchsorted(self.off_key, key, side="right")
        return np.asarray(time * (begun - ended) - self.on_sum[begun] + self.off_sum[ended])
