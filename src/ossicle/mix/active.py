"""Which stretches of a clip sound: its onsets and offsets by energy, to a millisecond.

Clips are often padded with silence, or hold a sound several times with pauses between. An event
that is to have a true onset and offset is one such stretch, not the clip.
"""

from __future__ import annotations

import numpy as np

# Onsets and offsets fall on borders of such blocks.
BLOCK_S = 0.001
# Long beside a period of a low sound, short beside a syllable.
_SMOOTH_S = 0.01
_LOUDEST_S = 0.05
# The square of what 16-bit files cannot hold any more.
_SILENT = 1e-10


def active_stretches(
    samples: np.ndarray,
    sample_rate: int,
    *,
    threshold_db: float = 30.0,
    gap_s: float | None = 0.5,
    min_s: float = 0.1,
) -> list[tuple[int, int]]:
    """Stretches that sound.

    The level is the power over 10 ms. A stretch sounds where it is no more than `threshold_db`
    below the loudest 50 ms of the clip; pauses up to `gap_s` belong to it. It starts with its
    first millisecond above that threshold and ends with its last. Stretches are left out that are
    shorter than `min_s`, or that stay more than half of `threshold_db` below the loudest: these are
    what is heard between the events.

    Args:
        samples: (N,).
        sample_rate: in Hz.
        threshold_db: how far below the loudest 50 ms silence begins (dB).
        gap_s: longest pause within a stretch (s); None: all is one stretch, pauses and all.
        min_s: shortest stretch (s).

    Returns:
        (first sample, sample after the last) of each, in order; empty for a silent clip.
    """
    block = max(1, round(BLOCK_S * sample_rate))
    power = _block_power(samples, block)
    blocks_a_second = sample_rate / block
    loudest = float(_mean_around(power, round(_LOUDEST_S * blocks_a_second)).max(initial=0.0))
    if loudest <= _SILENT:
        return []
    low = loudest * 10 ** (-threshold_db / 10)
    high = loudest * 10 ** (-threshold_db / 20)
    level = _mean_around(power, round(_SMOOTH_S * blocks_a_second))
    runs = [_shrunk(power, low, run) for run in _runs(level >= low)]
    found = []
    for start, stop in _joined(runs, None if gap_s is None else gap_s * blocks_a_second):
        first, last = start * block, min(stop * block, len(samples))
        if last - first >= min_s * sample_rate and level[start:stop].max() >= high:
            found.append((first, last))
    return found


def _block_power(samples: np.ndarray, block: int) -> np.ndarray:
    """(N,) -> (ceil(N / block),) mean squares; the last over what is left."""
    starts = np.arange(0, len(samples), block)
    squares = np.square(samples, dtype=np.float64)
    sums = np.add.reduceat(squares, starts) if len(starts) else np.zeros(0)
    return sums / np.minimum(block, len(samples) - starts)


def _mean_around(power: np.ndarray, width: int) -> np.ndarray:
    """(T,) -> (T,) mean over `width` values around each, at the ends over those that are there."""
    width = max(1, width)
    total = np.concatenate([[0.0], np.cumsum(power)])
    at = np.arange(len(power))
    start = np.maximum(at - width // 2, 0)
    stop = np.minimum(at - width // 2 + width, len(power))
    # Differences of sums may fall below zero by their last bits.
    return np.maximum(total[stop] - total[start], 0.0) / np.maximum(stop - start, 1)


def _runs(on: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], on, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _shrunk(power: np.ndarray, low: float, run: tuple[int, int]) -> tuple[int, int]:
    """The run from its first loud block to its last: smoothing had widened it."""
    loud = np.flatnonzero(power[run[0] : run[1]] >= low)
    return (run[0] + int(loud[0]), run[0] + int(loud[-1]) + 1) if len(loud) else run


def _joined(runs: list[tuple[int, int]], gap: float | None) -> list[tuple[int, int]]:
    """Runs with no more than `gap` blocks between them as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and (gap is None or start - joined[-1][1] <= gap):
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
