"""Where a head starts: a ridge on the frozen features, and the statistics that standardise them.

n clips, D columns, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.features import FeatureTable, extract
from ossicle.model import Model
from ossicle.transfer.probe import create_probe

# Of a block's usual deviation: columns that hardly move must not be blown up.
LEAST_DEVIATION = 0.1
# Below the smallest offset of the classes that are there.
UNLIKELY = 5.0


class Start(NamedTuple):
    """A head and the statistics of its columns.

    Attributes:
        head: (K, D) weight and (K,) bias on raw columns; None: it knows nothing.
        mean: (D,).
        deviation: (D,), above zero.
    """

    head: tuple[np.ndarray, np.ndarray] | None
    mean: np.ndarray
    deviation: np.ndarray


def frozen_features(
    model: Model,
    clips: Clips,
    rows: np.ndarray,
    readout: Sequence[str],
    table: FeatureTable | None,
    workers: int = 1,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Features of some clips, from a table where it has them.

    Args:
        model: frozen.
        clips: all of them.
        rows: those wanted, ascending.
        readout: blocks "LAYER/POOLING".
        table: of all clips; None, or without a block: extracted.
        workers: threads.

    Returns:
        (n,) rows that could be read, (n, D) their features, and the columns of each block.
    """
    names = list(readout)
    if table is not None and set(names) <= set(table.blocks):
        rows = np.intersect1d(rows, table.index)
        where = np.searchsorted(table.index, rows)
        return rows, table.matrix(names)[where], table.sizes(names)
    pairs = [name.rpartition("/")[::2] for name in names]
    table = extract(
        model,
        clips.subset(rows),
        layers=tuple(dict.fromkeys(layer for layer, _ in pairs)),
        poolings=tuple(dict.fromkeys(pooling for _, pooling in pairs)),
        workers=workers,
    )
    return rows[table.index], table.matrix(names), table.sizes(names)


def start_head(
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    sizes: Sequence[int],
    *,
    task: str,
    num_outputs: int,
    probe: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Start:
    """A ridge on features, and their statistics.

    Args:
        X: (n, D) features.
        y: (n,) class numbers or numbers, (n, K) 0/1.
        groups: (n,) of the clips.
        sizes: columns of each block.
        task: "classes", "multilabel" or "regression".
        num_outputs: K; a class without a clip starts as unlikely.
        probe: False: no head, the statistics alone.
        seed: of the probe.
        settings: further arguments of the probe.
    """
    deviation = X.std(axis=0, dtype=np.float64)
    for a, b in pairwise(np.cumsum([0, *sizes])):
        usual = float(np.sqrt(np.mean(deviation[a:b] ** 2))) or 1.0
        deviation[a:b] = np.maximum(deviation[a:b], LEAST_DEVIATION * usual)
    mean = X.mean(axis=0, dtype=np.float64)
    if not probe:
        return Start(None, mean, deviation)
    ridge: Any = create_probe("ridge", task, random_state=seed, **settings)
    ridge.fit(X, y, groups=groups, block_sizes=list(sizes))
    weight, bias = ridge.linear_head()
    weight, bias = weight.reshape(-1, X.shape[1]), bias.reshape(-1)
    if task == "classes" and len(weight) < num_outputs:
        whole = np.zeros((num_outputs, X.shape[1]), np.float32)
        offsets = np.full(num_outputs, bias.min() - UNLIKELY, np.float32)
        index = np.asarray(ridge.classes_, np.int64)
        whole[index], offsets[index] = weight, bias
        weight, bias = whole, offsets
    return Start((weight, bias), mean, deviation)
