"""Many recordings of any length in, their events out, in order and in constant memory.

One pass: blocks are read ahead (`blocks`), scored by some threads (`scorers`), and joined in order
(`averaging`, `decoder`). The threads change no number, since a block is scored by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ossicle.detect.averaging import WindowAverage
from ossicle.detect.blocks import Block, read_ahead
from ossicle.detect.decoder import Event, EventDecoder
from ossicle.detect.rules import Rules
from ossicle.detect.scorers import Part, Scorer
from ossicle.detect.spool import Spool
from ossicle.errors import AudioError
from ossicle.events import FrameScores
from ossicle.features import one_thread, run_in_order


class Sink(Protocol):
    """Where the frame scores of one recording go."""

    def add(self, frames: FrameScores) -> None:
        """Further frames."""

    def close(self, done: bool) -> None:
        """No more; keep them if ``done``."""


class Heard(NamedTuple):
    """How a recording went.

    Attributes:
        number: of the recording among those given.
        events: by onset, offset, class.
        seconds: that were heard.
        status: "ok", "damaged" or "failed".
        reason: why it is not "ok".
    """

    number: int
    events: list[Event]
    seconds: float
    status: str
    reason: str


class Tick(NamedTuple):
    """How far a run has come.

    Attributes:
        files: recordings done.
        seconds: of sound heard.
    """

    files: int
    seconds: float


class _Recording:
    """What is known of the recording that is being joined."""

    def __init__(self, classes: Sequence[str], scale: int, rules: Rules, sink: Sink | None) -> None:
        self.order = {name: i for i, name in enumerate(classes)}
        self.average = WindowAverage(len(classes), scale)
        self.decoder = EventDecoder(classes, rules)
        self.sink = sink
        self.events: list[Event] = []

    def take(self, part: Part, last: bool) -> None:
        pieces = [self.average.push(part)] + ([self.average.finish()] if last else [])
        for frames in pieces:
            if frames.scores.shape[1]:
                self.events += self.decoder.push(frames.edges, frames.scores)
                if self.sink is not None:
                    self.sink.add(frames)

    def finish(self) -> list[Event]:
        self.events += self.decoder.finish()
        key = self.order
        return sorted(self.events, key=lambda e: (e.onset, e.offset, key[e.label], e.score))


def hear(
    paths: Sequence[str],
    numbers: Sequence[int],
    scorer: Scorer,
    classes: Sequence[str],
    rules: Rules,
    *,
    sink: Callable[[int], Sink | None] = lambda number: None,
    spool: Callable[[int], Path | None] = lambda number: None,
    workers: int = 1,
    tick: Callable[[Tick], None] | None = None,
) -> Iterator[Heard]:
    """The events of each recording, as soon as it is through.

    Args:
        paths: the recordings.
        numbers: by which they are called, in the results and in ``sink`` and ``spool``.
        scorer: see `ossicle.detect.scorers.create_scorer`.
        classes: names of its outputs.
        rules: from scores to events.
        sink: number -> where its frame scores go; None: nowhere.
        spool: number -> the file for its scores while it is in work; None: none is kept.
        workers: threads that score, and that read; no number changes the result.
        tick: called after every block.
    """
    current: _Recording | None = None
    spools: dict[int, Spool] = {}
    done, seconds = 0, 0.0

    def known(number: int) -> Spool | None:
        if number not in spools:
            path = spool(number)
            if path is None:
                return None
            spools[number] = Spool(path, len(classes))
        return spools[number]

    def tasks() -> Iterator[tuple[Block | AudioError, Part | None]]:
        replay: Iterator[Part] = iter(())
        for number, item in blocks:
            if isinstance(item, Block) and item.number == 0:
                before = known(number)
                replay = iter(()) if before is None else before.parts()
            yield item, next(replay, None) if isinstance(item, Block) else None

    def score(task: tuple[Block | AudioError, Part | None]) -> tuple[Block, Part, bool]:
        block, before = task
        if isinstance(block, AudioError):
            raise block
        if before is not None:
            return block._replace(samples=block.samples[:0]), before, True
        return block._replace(samples=block.samples[:0]), scorer(block), False

    ahead = read_ahead(paths, numbers, scorer.sample_rate, scorer.layout, min(workers, 4))
    order = iter(numbers)
    try:
        with one_thread(), closing(ahead) as blocks:
            for _, result in run_in_order(score, tasks(), workers):  # type: ignore[arg-type]
                if isinstance(result, AudioError):
                    done += 1
                    yield Heard(next(order), [], 0.0, "failed", result.reason)
                    continue
                block, part, replayed = result
                if current is None:
                    current = _Recording(classes, scorer.scale, rules, sink(block.file))
                    next(order)
                keeper = spools.get(block.file)
                if keeper is not None and not replayed:
                    keeper.add(part)
                current.take(part, block.last)
                stop = block.stop if block.end is None else min(block.stop, block.end)
                seconds += (stop - block.begin) / scorer.sample_rate
                if block.last:
                    done += 1
                    heard, current = current, None
                    if heard.sink is not None:
                        heard.sink.close(True)
                    status = "damaged" if block.damage else "ok"
                    length = stop / scorer.sample_rate
                    yield Heard(block.file, heard.finish(), length, status, block.damage)
                    if keeper is not None:
                        keeper.remove()
                        del spools[block.file]
                if tick is not None:
                    tick(Tick(done, seconds))
    finally:
        if current is not None and current.sink is not None:
            current.sink.close(False)
        for keeper in spools.values():
            keeper.close()


def spool_name(*parts: object) -> str:
    """A file name for the scores of one recording under one set of parameters."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24] + ".scores"


def frame_scores(path: str, scorer: Scorer, classes: int) -> FrameScores:
    """All frame scores of one recording, in memory.

    Raises:
        AudioError: it cannot be read to its end.
    """
    average = WindowAverage(classes, scorer.scale)
    pieces: list[FrameScores] = []
    with one_thread(), closing(read_ahead([path], [0], scorer.sample_rate, scorer.layout, 1)) as a:
        for _, block in a:
            if isinstance(block, AudioError):
                raise block
            pieces.append(average.push(scorer(block)))
            if block.last:
                if block.damage:
                    raise AudioError(path, block.damage)
                pieces.append(average.finish())
    edges = [pieces[0].edges[:1], *(piece.edges[1:] for piece in pieces)]
    return FrameScores(np.concatenate([p.scores for p in pieces], 1), np.concatenate(edges))
