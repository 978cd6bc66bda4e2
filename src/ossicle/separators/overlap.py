"""A stream as overlapping blocks of one length, and what is made of the blocks as a stream again.

Where blocks stand depends on the stream alone, so that workers, pieces and stops change nothing.

Symbols: S sources, C channels, N samples; time last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ossicle.errors import OssicleError


class Plan(NamedTuple):
    """Where blocks stand.

    Attributes:
        block: samples of a block; a stream that is no longer is one block.
        overlap: samples that a block shares with the one before it, at least.
        grid: blocks begin at multiples of so many samples.
    """

    block: int
    overlap: int
    grid: int = 1

    @property
    def step(self) -> int:
        """Samples from one block's beginning to the next's."""
        return self.block - self.overlap


class Block(NamedTuple):
    """One block.

    Attributes:
        start: which sample of the stream is its first.
        samples: (C, N) float32.
        last: whether none follows.
    """

    start: int
    samples: np.ndarray
    last: bool


def plan_blocks(
    block_s: float, overlap_s: float, sample_rate: int, model_rate: int, hop_length: int = 1
) -> Plan:
    """The plan for a stream of one rate whose blocks are heard at another.

    Blocks begin where a sample of either rate lies, and a frame of the model: two blocks then give
    the model the same samples, in the same frames, of what they share.

    Args:
        block_s, overlap_s: in seconds.
        sample_rate, model_rate: Hz, of the stream and of the model.
        hop_length: from one of the model's frames to the next, samples at its rate.

    Raises:
        OssicleError: a block is shorter than twice what it shares, or nothing is shared.

    >>> plan_blocks(20.0, 4.0, 44100, 8000)
    Plan(block=882000, overlap=176400, grid=441)
    >>> plan_blocks(20.0, 4.0, 44100, 8000, hop_length=64)
    Plan(block=882000, overlap=176400, grid=1764)
    """
    if not (overlap_s > 0 and 2 * overlap_s <= block_s and math.isfinite(block_s)):
        raise OssicleError(
            f"blocks of {block_s:g} s that share {overlap_s:g} s: they must share something, "
            "and at most half"
        )
    overlap = max(1, round(overlap_s * sample_rate))
    step = max(overlap, round((block_s - overlap_s) * sample_rate))
    both = math.gcd(sample_rate, model_rate)
    meeting = sample_rate // both
    frames = meeting * hop_length // math.gcd(hop_length, model_rate // both)
    # Two rates may hardly ever meet: 44,101 and 8000 Hz.
    grid = next((grid for grid in (frames, meeting) if grid <= step // 4), 1)
    step = round(step / grid) * grid
    return Plan(step + overlap, overlap, grid)


def cut(pieces: Iterable[np.ndarray], plan: Plan) -> Iterator[Block]:
    """The blocks of a stream.

    The last block is moved back until it ends with the stream: it is as long as the others (up to
    a grid's step longer) and shares more with the one before it.

    Args:
        pieces: (C, n) each, of any lengths; none: no block.
        plan: of the blocks.
    """
    source = iter(pieces)
    held: list[np.ndarray] = []
    origin, available, begin = 0, 0, 0  # of the stream: first sample held, samples come, next block
    while True:
        ended = False
        while available <= begin + plan.block:
            piece = next(source, None)
            if piece is None:
                ended = True
                break
            held.append(piece)
            available += piece.shape[-1]
        if not available:
            return
        joined = held[0] if len(held) == 1 else np.concatenate(held, -1)
        if ended:
            if begin:
                begin = (available - plan.block) // plan.grid * plan.grid
            yield Block(begin, joined[:, begin - origin :], True)
            return
        yield Block(begin, joined[:, begin - origin : begin - origin + plan.block].copy(), False)
        # From this block's beginning on: the last one may begin right after it.
        held, origin = [joined[:, begin - origin :].copy()], begin
        begin += plan.step


def ramp(length: int) -> np.ndarray:
    """Weights (length,) float32 of a block where it begins; one minus them are of the one before.

    They rise as a squared sine over the middle half: what lies at the very edge of a block, where
    a model hears only one side, is not used.

    >>> ramp(8).astype(float).round(2).tolist()
    [0.0, 0.0, 0.04, 0.31, 0.69, 0.96, 1.0, 1.0]
    """
    place = (np.arange(length) + 0.5) / length
    rise = np.sin(np.pi / 2 * np.clip(2 * place - 0.5, 0.0, 1.0)) ** 2
    return rise.astype(np.float32)


class Join:
    """Blocks (S, C, N), in order, as one stream; what two share is cross-faded.

    Args:
        plan: that they were cut by.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ramp = ramp(plan.overlap)
        self._at = 0  # of the stream: where what is held begins
        self.tail: np.ndarray | None = None

    def shared(self, start: int, sources: np.ndarray) -> np.ndarray:
        """What of a new block (S, C, N) lies where ``tail`` (S, C, overlap) lies."""
        first = self._at - start
        return sources[..., first : first + self._plan.overlap]

    def push(self, start: int, sources: np.ndarray, last: bool) -> np.ndarray:
        """Take the next block; what of the stream is then certain, (S, C, n)."""
        sources = sources[..., self._at - start :]
        if self.tail is not None:
            faded = self.tail * (1 - self._ramp) + sources[..., : self._plan.overlap] * self._ramp
            sources = np.concatenate([faded, sources[..., self._plan.overlap :]], -1)
        if last:
            return sources
        keep = self._plan.overlap
        self.tail = sources[..., -keep:].copy()
        self._at += sources.shape[-1] - keep
        return sources[..., :-keep]
