"""Events as the targets of frames: how much of each frame a class sounds in.

K classes, T frames; times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor


class Targets(NamedTuple):
    """What a batch of windows should be scored as; B windows.

    Attributes:
        frames: (B, K, T) share of each frame in which a class sounds; 0 where it is not known.
        known: (B, T) whether the frame's target is known: it lies in a recording with strong
            labels, not in the filling.
        clips: (B, K) 1 where a class sounds anywhere in the window.
        valid: (B, T) whether the frame is of the recording, not of the filling.
    """

    frames: Tensor
    known: Tensor
    clips: Tensor
    valid: Tensor


def pack(frames: np.ndarray, known: np.ndarray, clips: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """One window's targets in one array, (K + 2, T + 1), as a batch carries them.

    Args:
        frames: (K, T).
        known: (T,).
        clips: (K,).
        valid: (T,).
    """
    k, t = frames.shape
    packed = np.zeros((k + 2, t + 1), np.float32)
    packed[:k, :t], packed[:k, t] = frames, clips
    packed[k, :t], packed[k + 1, :t] = known, valid
    return packed


def unpack(packed: Tensor) -> Targets:
    """(B, K + 2, T + 1) as ``pack`` makes them -> what they hold."""
    frames, known, valid = packed[:, :-2, :-1], packed[:, -2, :-1], packed[:, -1, :-1]
    return Targets(frames, known > 0, packed[:, :-2, -1], valid > 0)


def frame_targets(
    events: Mapping[str, Sequence[tuple[float, float]]] | pd.DataFrame,
    edges: np.ndarray,
    classes: Sequence[str],
) -> np.ndarray:
    """(K, T) float32: the share of each frame in which a class sounds.

    Events of one class that overlap count once. One that is shorter than the frame which its
    middle lies in fills that frame: a click is heard too.

    Args:
        events: class -> (onset, offset) pairs, or a table with label, onset and offset; events
            outside of the edges and of other classes are passed over.
        edges: (T + 1,) ascending.
        classes: of the rows.
    """
    if isinstance(events, pd.DataFrame):
        events = spans(events)
    targets = np.zeros((len(classes), len(edges) - 1), np.float64)
    lengths = np.diff(edges)
    for row, name in zip(targets, classes, strict=True):
        for onset, offset in merged(events.get(name, ())):
            if offset < edges[0] or onset >= edges[-1]:
                continue
            start, end = max(onset, edges[0]), min(offset, edges[-1])
            first = max(int(np.searchsorted(edges, start, "right")) - 1, 0)
            last = max(int(np.searchsorted(edges, end, "left")), first + 1)
            low, high = edges[first:last], edges[first + 1 : last + 1]
            row[first:last] += np.clip(np.minimum(high, end) - np.maximum(low, start), 0, None)
            middle = min(int(np.searchsorted(edges, (onset + offset) / 2, "right")) - 1, len(row))
            if 0 <= middle < len(row) and offset - onset < lengths[middle]:
                row[middle] = lengths[middle]
    return np.clip(targets / lengths, 0, 1).astype(np.float32)


def spans(events: pd.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """Class -> (onset, offset) of its events."""
    found: dict[str, list[tuple[float, float]]] = {}
    for label, onset, offset in zip(
        events["label"], events["onset"], events["offset"], strict=True
    ):
        found.setdefault(str(label), []).append((float(onset), float(offset)))
    return found


def merged(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals, as intervals that do not overlap, ascending.

    >>> merged([(2, 3), (0, 1), (0.5, 2)])
    [(0, 3)]
    """
    union: list[tuple[float, float]] = []
    for onset, offset in sorted(pairs):
        if union and onset <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], offset))
        else:
            union.append((onset, offset))
    return union


def binary_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The binary cross entropy of each value, targets from 0 to 1; shapes alike."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
