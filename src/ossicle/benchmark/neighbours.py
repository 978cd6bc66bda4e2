"""Nearest neighbours without training, as X-ARES votes with them.

X-ARES (github.com/jimbozhang/xares, src/xares/trainer.py, ``KNN`` and ``KNNTrainer``): ten
neighbours by scalar product, votes weighted by a softmax of the products over 0.07. A test clip is
scaled to unit norm. Of the training clips it is each dimension, not each clip, that is scaled to
unit norm over all of them, since the matrix is transposed before it is normalised; published
numbers are made so, and so are ours.

Axes: n training clips, m test clips, d dimensions, k classes or labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from ossicle.benchmark.rows import chunks, read

NEIGHBOURS = 10
TEMPERATURE = 0.07
TINY = 1e-12  # norms below are taken for this, as torch.nn.functional.normalize does


def vote(
    X: Any,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """(m, k) shares of the weighted votes; a row sums to 1 where a clip has one class.

    Args:
        X: (N, d) features, see ``ossicle.benchmark.rows``.
        targets: (N, k) 0/1.
        train: (n,) rows that vote; read in chunks.
        test: (m,) rows that are voted on.
        neighbours: votes a clip, all of them where the training part is smaller.
        temperature: of the softmax.

    Raises:
        DataError: features are not finite.
    """
    d = X.shape[1]
    squares = np.zeros(d)
    for part in chunks(train, d):
        squares += (read(X, part).astype(np.float64) ** 2).sum(axis=0)
    inverse = (1 / np.maximum(np.sqrt(squares), TINY)).astype(np.float32)
    out = np.empty((len(test), targets.shape[1]))
    done = 0
    for asked in chunks(test, d):
        products, nearest = _nearest(X, train, read(X, asked), inverse, neighbours)
        weight = softmax(products / temperature, axis=1)
        for i in range(len(asked)):
            out[done + i] = np.minimum(weight[i] @ targets[nearest[i]], 1.0)  # but for rounding
        done += len(asked)
    return out


def _nearest(
    X: Any, train: np.ndarray, asked: np.ndarray, inverse: np.ndarray, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """(m, neighbours) largest products, descending, and the rows they are with."""
    norm = np.sqrt((asked.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    unit = asked / np.maximum(norm, TINY).astype(np.float32)
    products = np.empty((len(unit), 0))
    rows = np.empty((len(unit), 0), np.int64)
    for part in chunks(train, X.shape[1]):
        new = unit @ (read(X, part) * inverse).T
        products = np.concatenate([products, new.astype(np.float64)], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(part, new.shape)], axis=1)
        order = np.argsort(-products, axis=1, kind="stable")[:, :neighbours]
        products = np.take_along_axis(products, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    return products, rows
