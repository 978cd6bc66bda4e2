"""Read-outs of many windows from one pass over a stretch: overlap costs next to nothing.

A convolution hears no further than its reach, so that the maps of a long stretch are those of its
windows, but for the zeros that a window cut out would see at its borders: there the sound around
is heard instead. B batch, C channels, F bands, T frames, W windows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ossicle.heads import COARSE_BANDS


def window_frames(
    onsets: np.ndarray, lengths: np.ndarray, stride: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which frames of a layer belong to which window.

    Args:
        onsets: (W,) where windows begin, in front-end frames (not whole ones, maybe) from the
            stretch's start.
        lengths: (W,) front-end frames of each window.
        stride: front-end frames for each frame of the layer.
        frames: T of the layer.

    Returns:
        (W,) first frames and (W,) frames after the last: as many as the window alone has,
        ceil(length / stride), from the frame nearest to its onset on; at least one.
    """
    count = np.maximum(1, -(-lengths // stride))
    first = np.floor(onsets / stride + 0.5).astype(np.int64)
    last = np.clip(first + count, 1, frames)
    return np.clip(first, 0, last - 1), last


def pool_windows(
    maps: Tensor, first: np.ndarray, last: np.ndarray, poolings: Sequence[str]
) -> OrderedDict[str, Tensor]:
    """Poolings of windows of one map, as `ossicle.heads.pool` gives them for each by itself.

    Args:
        maps: (1, C, F, T) or (1, C, T).
        first, last: (W,) frames of each window, [first, last).
        poolings: names.

    Returns:
        name -> (W, dims).
    """
    maps = maps.unsqueeze(2) if maps.dim() == 3 else maps
    values = maps[0].permute(1, 2, 0)  # (F, T, C): convolutions leave channels side by side
    spans = list(zip(first.tolist(), last.tolist(), strict=True))
    pooled: OrderedDict[str, Tensor] = OrderedDict()
    # Bands are joined first, for all windows at once: what is left is small.
    if {"mean", "band"} & set(poolings):
        coarse = _coarse(values)
        counts = torch.tensor([b - a for a, b in spans])[:, None, None]
        means = torch.stack([coarse[:, a:b].sum(1) for a, b in spans]) / counts  # (W, K, C)
    for name in poolings:
        if name == "max":
            highest = values.amax(0)
            pooled[name] = torch.stack([highest[a:b].amax(0) for a, b in spans])
        elif name == "mean":
            # Groups of bands of unlike size have no common mean.
            whole = means.mean(1) if len(values) % means.shape[1] == 0 else _mean(values, spans)
            pooled[name] = whole
        elif name == "band":
            pooled[name] = means.transpose(1, 2).flatten(1)  # channel by channel
        else:
            parts = [values[:, a:b].flatten(0, 1) for a, b in spans]
            pooled[name] = torch.stack([part.std(0, correction=0) for part in parts])
    return pooled


def _mean(values: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    profile = values.mean(0)
    return torch.stack([profile[a:b].mean(0) for a, b in spans])


def _coarse(values: Tensor) -> Tensor:
    """(F, T, C) -> (K, T, C): means over K = min(F, 8) groups of bands."""
    bands = len(values)
    coarse = min(bands, COARSE_BANDS)
    if bands % coarse == 0:
        return values.unflatten(0, (coarse, -1)).mean(1)
    # The borders of torch's adaptive pooling.
    edges = [(k * bands // coarse, -(-(k + 1) * bands // coarse)) for k in range(coarse)]
    return torch.stack([values[a:b].mean(0) for a, b in edges])
