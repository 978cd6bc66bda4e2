"""From frame scores to events, in constant memory, however the frames are cut into pushes.

What the events of a class are, by its `ClassRule`:

1. A score that is NaN is 0. Scores are filtered by a running median (`ossicle.detect.median`).
2. A run of frames whose filtered score is at least ``low`` is an event if in at least one of them
   it is at least ``threshold``. (Scores are float32, and both are rounded to it.)
3. Two events with a gap shorter than ``min_gap_s`` between them become one, gap included; any
   number in a row.
4. Events shorter than ``min_duration_s`` are dropped. Lengths are compared to the microsecond.

Onset and offset are edges of frames, bit for bit. The score is made of the unfiltered scores of
the frames from onset to offset. "max" is the greatest of them. Where there is a median filter it is
not less than the threshold, which the filtered score did reach, if need be on the strength of the
frames beside. "mean" is the average over time, and may well be below the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ossicle.detect.median import Reached, RunningMedian
from ossicle.detect.rules import Rules
from ossicle.errors import DataError
from ossicle.events import FrameScores

# Lengths in seconds are differences of float64 edges; shorter than a sample of any recording.
SLACK_S = 1e-6
# Scores looked at in one go: 4 MiB of float32.
_BLOCK = 2**20


class Event(NamedTuple):
    """One sound. `Event._asdict` with a file is a row of `ossicle.events.event_table`.

    Attributes:
        onset: seconds from the start of the recording.
        offset: seconds from the start of the recording.
        label: the class.
        score: in [0, 1], see the module.
    """

    onset: float
    offset: float
    label: str
    score: float


class _Spans(NamedTuple):
    """Events and runs in work: (n,) each, by row, then by time.

    ``top`` is the greatest score before the block; within the block they hold the frames from
    ``first`` to ``stop``. ``begin`` and ``end`` are the time integral of the score at onset and
    offset.
    """

    row: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    top: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    begin: np.ndarray
    end: np.ndarray


class EventDecoder:
    """Turns a stream of frames into events.

    What it remembers of a class: the run that is going on (onset and statistics), the event that a
    later one might be joined to, and as many frames as the longest median filter is long.

    Args:
        classes: names of the K rows of scores.
        rules: one rule for each of them; others are ignored.

    Raises:
        DataError: a class has no rule.
    """

    def __init__(self, classes: Sequence[str], rules: Rules) -> None:
        self.classes = tuple(classes)
        chosen = [rules[label] for label in self.classes]
        levels = [
            [rule.threshold for rule in chosen],
            [rule.threshold if rule.low is None else rule.low for rule in chosen],
        ]
        self._levels = np.array(levels, np.float32).reshape(2, len(chosen))
        self._hysteresis = bool((self._levels[0] != self._levels[1]).any())
        medians = np.array([rule.median_s for rule in chosen])
        self._floor = np.where(medians > 0, self._levels[0], np.float32(0))
        kept = slice(None) if self._hysteresis else slice(1)
        self._median = RunningMedian(medians, self._levels[kept])
        self._min_duration = np.array([rule.min_duration_s for rule in chosen]) - SLACK_S
        self._min_gap = np.array([rule.min_gap_s for rule in chosen]) - SLACK_S
        self._mean = rules.score == "mean"
        n = len(chosen)
        self._integral = np.zeros(n)  # of the score over time, to the last frame that came out
        self._now = 0.0
        self._finished = False
        # The run that goes on: since when, its greatest score, whether it reached the threshold.
        self._running, self._sure = np.zeros(n, bool), np.zeros(n, bool)
        self._run_onset, self._run_top, self._run_begin = (np.zeros(n) for _ in range(3))
        # The event that ended and may be joined; the greatest score since it ended.
        self._waiting = np.zeros(n, bool)
        self._wait_onset, self._wait_offset, self._wait_top, self._since = (
            np.zeros(n) for _ in range(4)
        )
        self._wait_begin, self._wait_end = np.zeros(n), np.zeros(n)

    def push(self, edges: np.ndarray, scores: np.ndarray) -> list[Event]:
        """Takes the next frames; gives the events that nothing later can change.

        All pushes and `finish` together give the same events wherever the frames are cut. An event
        comes once it is over, so a long one after shorter ones that began later.

        Args:
            edges: (t + 1,) seconds, each later than the one before; the first is the last of the
                push before.
            scores: (K, t) in [0, 1] or NaN.

        Returns:
            Events by onset, offset, label.

        Raises:
            DataError: the shapes do not fit, the edges do not ascend or do not follow on, or the
                decoder is finished.
        """
        if self._finished:
            raise DataError("this decoder is finished: a recording needs one of its own")
        events: list[Event] = []
        for part, values in _blocks(np.asarray(edges), np.asarray(scores)):
            events += self._decode(self._median.push(part, values))
        return sorted(events, key=_order)

    def finish(self) -> list[Event]:
        """The events that are left; the recording has ended."""
        if self._finished:
            return []
        self._finished = True
        events = self._decode(self._median.finish())
        rows = np.flatnonzero(self._waiting)
        events += self._events(
            rows,
            self._wait_onset[rows],
            self._wait_offset[rows],
            self._wait_top[rows],
            self._wait_end[rows] - self._wait_begin[rows],
        )
        rows = np.flatnonzero(self._running & self._sure)
        events += self._events(
            rows,
            self._run_onset[rows],
            np.full(len(rows), self._now),
            self._run_top[rows],
            self._integral[rows] - self._run_begin[rows],
        )
        return sorted(events, key=_order)

    def _decode(self, block: Reached) -> list[Event]:
        edges, n = block.edges, block.scores.shape[1]
        if not n:
            return []
        self._now = float(edges[-1])
        hit, live = block.reached[0], block.reached[-1]
        rows = np.flatnonzero(live.any(axis=1) | self._running | self._waiting)
        totals = None
        if self._mean:
            # A running sum adds in order, so that cuts between pushes do not change its bits.
            parts = [self._integral[:, None], block.scores * np.diff(edges)]
            totals = np.cumsum(np.concatenate(parts, axis=1), axis=1)
            self._integral = totals[:, -1].copy()
            totals = totals[rows]
        if not len(rows):
            return []
        every = len(rows) == len(self.classes)
        scores = block.scores if every else block.scores[rows]
        # The number after the last is for spans that end with it.
        scores = np.append(np.ascontiguousarray(scores).ravel(), np.float32(0))
        runs, going = self._runs(rows, live[rows], edges, totals)
        tops = np.maximum(_greatest(scores, runs, n), runs.top)
        continued = (runs.first == 0) & (runs.onset < edges[0])
        sure = np.ones(len(runs.row), bool)
        if self._hysteresis:
            reached = np.append(hit[rows].ravel(), False)
            sure = (_greatest(reached, runs, n) > 0) | (continued & self._sure[rows[runs.row]])
        self._running[rows] = False
        open_row = rows[runs.row[going]]
        self._running[open_row], self._sure[open_row] = True, sure[going]
        self._run_onset[open_row], self._run_top[open_row] = runs.onset[going], tops[going]
        self._run_begin[open_row] = runs.begin[going]
        return self._join(rows, runs, sure, going, scores, edges)

    def _runs(
        self, rows: np.ndarray, live: np.ndarray, edges: np.ndarray, totals: np.ndarray | None
    ) -> tuple[_Spans, np.ndarray]:
        """All runs of the block, those that go on from before included; which go on after it."""
        n_rows, n = live.shape
        padded = np.zeros((n_rows, n + 3), bool)
        padded[:, 1] = self._running[rows]
        padded[:, 2:-1] = live
        turns = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
        row, start = np.divmod(turns[::2], n + 2)
        stop = turns[1::2] - row * (n + 2) - 1
        before, first = start == 0, np.maximum(start - 1, 0)
        of_class = rows[row]
        if totals is None:
            begin = end = np.zeros(len(row))
        else:
            begin = np.where(before, self._run_begin[of_class], totals[row, first])
            end = totals[row, stop]
        spans = _Spans(
            row,
            np.where(before, self._run_onset[of_class], edges[first]),
            edges[stop],
            np.where(before, self._run_top[of_class], 0.0),
            first,
            stop,
            begin,
            end,
        )
        # A run that ends where the block ends has its last turn in the last place of all.
        return spans, turns[1::2] - row * (n + 2) == n + 1

    def _join(
        self,
        rows: np.ndarray,
        runs: _Spans,
        sure: np.ndarray,
        going: np.ndarray,
        scores: np.ndarray,
        edges: np.ndarray,
    ) -> list[Event]:
        """Closes gaps; keeps what may still change and gives the other events."""
        n = len(edges) - 1
        gap = self._min_gap[rows]
        spans, waited, goes = self._with_waiting(rows, runs, sure, going)
        apart = np.ones(len(spans.row), bool)
        apart[1:] = spans.row[1:] != spans.row[:-1]
        apart[1:] |= spans.onset[1:] - spans.offset[:-1] >= gap[spans.row[1:]]
        head = np.flatnonzero(apart)
        tail = np.append(head[1:], len(apart))[: len(head)] - 1
        joined = _Spans(
            spans.row[head],
            spans.onset[head],
            spans.offset[tail],
            spans.top[head],
            spans.first[head],
            spans.stop[tail],
            spans.begin[head],
            spans.end[tail],
        )
        of_class = rows[joined.row]
        before = np.where(waited[head] & (tail > head), self._since[of_class], 0.0)
        tops = np.maximum(np.maximum(_greatest(scores, joined, n), joined.top), before)
        last = np.append(joined.row[1:] != joined.row[:-1], True)[: len(head)]
        goes = goes[tail] & last
        # The next event begins no earlier than an unsure run that goes on, or than now.
        until = np.full(len(rows), edges[-1])
        unsure = runs.row[going & ~sure]
        until[unsure] = runs.onset[going & ~sure]
        waits = last & ~goes & (until[joined.row] - joined.offset < gap[joined.row])
        grown = of_class[goes]
        self._run_onset[grown], self._run_top[grown] = joined.onset[goes], tops[goes]
        self._run_begin[grown] = joined.begin[goes]
        rest = joined._replace(first=joined.stop, stop=np.full(len(head), n))
        old = np.where(waited[head] & (tail == head), self._since[of_class], 0.0)
        since = np.maximum(_greatest(scores, rest, n, waits), old)
        self._waiting[rows] = False
        held = of_class[waits]
        self._waiting[held] = True
        self._wait_onset[held], self._wait_offset[held] = joined.onset[waits], joined.offset[waits]
        self._wait_top[held], self._since[held] = tops[waits], since[waits]
        self._wait_begin[held], self._wait_end[held] = joined.begin[waits], joined.end[waits]
        over = ~(goes | waits)
        return self._events(
            of_class[over],
            joined.onset[over],
            joined.offset[over],
            tops[over],
            joined.end[over] - joined.begin[over],
        )

    def _with_waiting(
        self, rows: np.ndarray, runs: _Spans, sure: np.ndarray, going: np.ndarray
    ) -> tuple[_Spans, np.ndarray, np.ndarray]:
        """The sure runs after the events that wait; which of them waited, and which go on."""
        held = np.flatnonzero(self._waiting[rows])
        of_class = rows[held]
        none = np.zeros(len(held), np.int64)
        waiting = _Spans(
            held,
            self._wait_onset[of_class],
            self._wait_offset[of_class],
            self._wait_top[of_class],
            none,
            none,
            self._wait_begin[of_class],
            self._wait_end[of_class],
        )
        merged = _Spans(*(np.concatenate([a, b[sure]]) for a, b in zip(waiting, runs, strict=True)))
        order = np.argsort(merged.row, kind="stable")
        waited = np.arange(len(order)) < len(held)
        goes = np.concatenate([np.zeros(len(held), bool), going[sure]])
        return _Spans(*(values[order] for values in merged)), waited[order], goes[order]

    def _events(
        self,
        rows: np.ndarray,
        onset: np.ndarray,
        offset: np.ndarray,
        top: np.ndarray,
        integral: np.ndarray,
    ) -> list[Event]:
        kept = offset - onset >= self._min_duration[rows]
        rows, onset, offset = rows[kept], onset[kept], offset[kept]
        if self._mean:
            score = np.minimum(integral[kept] / (offset - onset), top[kept])
        else:
            score = np.maximum(top[kept], self._floor[rows])
        columns = (onset.tolist(), offset.tolist(), rows.tolist(), score.tolist())
        return [Event(a, b, self.classes[k], s) for a, b, k, s in zip(*columns, strict=True)]


def decode(frames: FrameScores, classes: Sequence[str], rules: Rules) -> list[Event]:
    """The events of a whole recording, by onset, offset, label.

    Args:
        frames: scores (K, T).
        classes: names of the K rows.
        rules: one rule for each of them.

    Raises:
        DataError: the shapes do not fit, edges do not ascend, or a class has no rule.
    """
    decoder = EventDecoder(classes, rules)
    return sorted(decoder.push(frames.edges, frames.scores) + decoder.finish(), key=_order)


def _order(event: Event) -> tuple[float, float, str]:
    return event.onset, event.offset, event.label


def _blocks(edges: np.ndarray, scores: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Long pushes in parts, so that what is made of them on the way stays small."""
    n = scores.shape[1] if scores.ndim == 2 and edges.ndim == 1 else 0
    if n + 1 != len(edges):
        yield edges, scores  # for its message
        return
    step = max(_BLOCK // max(len(scores), 1), 1024)
    for begin in range(0, n, step):
        end = min(begin + step, n)
        yield edges[begin : end + 1], scores[:, begin:end]


def _greatest(
    values: np.ndarray, spans: _Spans, n: int, where: np.ndarray | None = None
) -> np.ndarray:
    """The greatest of ``values`` (rows x n, flat, and one more) in each span; 0 where it is empty.

    Args:
        where: the spans to look at; 0 for the others.
    """
    result = np.zeros(len(spans.row))
    some = spans.stop > spans.first
    if where is not None:
        some &= where
    if some.any():
        bounds = np.stack([spans.first[some], spans.stop[some]], axis=1)
        bounds += spans.row[some, None] * n
        result[some] = np.maximum.reduceat(values, bounds.ravel())[::2]
    return result
