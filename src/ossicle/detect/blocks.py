"""A recording as blocks with the sound around them: what a scorer hears at once.

Blocks stand at fixed places, whatever is read before or beside them, so that neither the number of
workers nor a stop changes what is heard.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np

from ossicle.audio import stream
from ossicle.errors import AudioError
from ossicle.features import MIN_DURATION_S

# What is decoded at once.
_PIECE_S = 5.0
# Blocks that a reader holds ready, besides those in work.
_AHEAD = 2


class Layout(NamedTuple):
    """How much a scorer hears at once, in samples.

    Attributes:
        core: length of the stretch that a block is for.
        left, right: of the sound before and after it that comes along, where there is any.
    """

    core: int
    left: int
    right: int


class Block(NamedTuple):
    """One block.

    Attributes:
        file: number of the recording.
        number: of the block in its recording, from 0.
        samples: (N,) float32, from ``start`` on.
        start: which sample of the recording is the first of ``samples``.
        begin, stop: the stretch that the block is for; ``stop`` may lie past the end.
        end: samples in the recording, where the end lies within ``samples``; else None.
        last: whether no block follows.
        damage: what is wrong with the recording after this block; "" where nothing is.
    """

    file: int
    number: int
    samples: np.ndarray
    start: int
    begin: int
    stop: int
    end: int | None
    last: bool
    damage: str


Channel = queue.Queue["Block | AudioError | None"]


def blocks_of(path: str, file: int, sample_rate: int, layout: Layout) -> Iterator[Block]:
    """The blocks of a recording, in order, in constant memory.

    A recording that cannot be read to its end is one that ends there, with ``damage`` on its last
    block.

    Args:
        path: the file.
        file: number to give to the blocks.
        sample_rate: Hz, of the samples.
        layout: of the blocks.

    Raises:
        AudioError: not even the beginning can be read, or it is shorter than `MIN_DURATION_S`.
    """
    pieces = stream(
        path,
        sample_rate=sample_rate,
        block_s=_PIECE_S,
        min_duration_s=MIN_DURATION_S,
        truncated=True,
    )
    held: list[np.ndarray] = []
    start, available, damage, ended = 0, 0, "", False
    begin, number = 0, 0
    while True:
        while not ended and available < begin + layout.core + layout.right:
            try:
                piece = next(pieces, None)
            except AudioError as error:
                if not available:
                    raise
                piece, damage = None, error.reason
            if piece is None:
                ended = True
            else:
                held.append(piece.samples[0])
                available += piece.samples.shape[1]
        samples = np.concatenate(held) if len(held) != 1 else held[0]
        stop = begin + layout.core
        last = ended and stop >= available
        wanted = min(available, stop + layout.right) - start
        yield Block(
            file,
            number,
            samples[:wanted],
            start,
            begin,
            stop,
            available if ended and available <= stop + layout.right else None,
            last,
            damage if last else "",
        )
        if last:
            return
        begin, number = stop, number + 1
        gone = max(0, begin - layout.left - start)
        held, start = [samples[gone:].copy()], start + gone


def read_ahead(
    paths: Sequence[str], numbers: Sequence[int], sample_rate: int, layout: Layout, readers: int
) -> Generator[tuple[int, Block | AudioError]]:
    """(number, block or error) of several recordings, in order, read in threads of their own.

    Decoding and the network go on side by side, and the next recordings are opened while one is
    heard. Memory holds a few blocks a reader.

    Args:
        paths: the files.
        numbers: of the files, for their blocks.
        sample_rate, layout: as for ``blocks_of``.
        readers: threads, one a recording.
    """
    stopped = threading.Event()
    surprises: list[BaseException] = []

    def fill(channel: Channel, path: str, number: int) -> None:
        def put(item: Block | AudioError | None) -> bool:
            while not stopped.is_set():
                try:
                    channel.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return True
            return False

        try:
            for block in blocks_of(path, number, sample_rate, layout):
                if not put(block):
                    return
        except AudioError as error:
            put(error)
        except BaseException as error:
            # Raised where somebody looks: in the thread that reads the channel.
            surprises.append(error)
        put(None)

    pool = ThreadPoolExecutor(readers)
    files = iter(zip(paths, numbers, strict=True))
    waiting: deque[tuple[int, Channel]] = deque()

    def open_next() -> None:
        for path, number in islice(files, 1):
            channel: Channel = queue.Queue(_AHEAD)
            pool.submit(fill, channel, path, number)
            waiting.append((number, channel))

    try:
        for _ in range(readers):
            open_next()
        while waiting:
            number, channel = waiting.popleft()
            while (item := channel.get()) is not None:
                yield number, item
            if surprises:
                raise surprises[0]
            open_next()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
