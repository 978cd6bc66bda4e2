"""Rows of a feature matrix that may lie on disk: read in chunks, and their moments in one pass.

A matrix is anything with ``.shape`` (n, d) for which ``X[rows]`` yields (len(rows), d) float32.

Axes: n clips in the matrix, m of them asked for, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ossicle.errors import DataError

CHUNK = 2**23  # values read at a time


class Moments(NamedTuple):
    """Of each column: mean, and one over the standard deviation (0 where it is constant)."""

    mean: np.ndarray
    inverse: np.ndarray

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Standardise (m, d) float32 in place."""
        block -= self.mean
        block *= self.inverse
        return block


def read(X: Any, rows: np.ndarray) -> np.ndarray:
    """(m, d) float32, a copy, rows in the order asked for but read in ascending order.

    Raises:
        DataError: a value is not finite; names the row.
    """
    order = np.argsort(rows, kind="stable")
    block = np.empty((len(rows), X.shape[1]), np.float32)
    block[order] = X[rows[order]]
    if not np.isfinite(block).all():
        bad = int(rows[~np.isfinite(block).all(axis=1)].min())
        raise DataError(f"features of row {bad} are NaN or infinite: leave the clip out")
    return block


def moments(X: Any, rows: np.ndarray) -> Moments:
    """Mean and deviation of each column over rows, in one pass in float64 (Chan et al. 1979).

    Raises:
        DataError: no column varies, or a value is not finite.
    """
    return _moments(read(X, part) for part in chunks(np.asarray(rows), X.shape[1]))


def read_all(X: Any, rows: np.ndarray) -> np.ndarray:
    """(m, d) float32 copy of rows, read in chunks.

    Raises:
        DataError: a value is not finite.
    """
    out = np.empty((len(rows), X.shape[1]), np.float32)
    done = 0
    for part in chunks(rows, X.shape[1]):
        out[done : done + len(part)] = read(X, part)
        done += len(part)
    return out


def chunks(rows: np.ndarray, d: int) -> Iterator[np.ndarray]:
    """Row numbers in parts of about CHUNK values."""
    size = max(1, CHUNK // max(1, d))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _moments(blocks: Iterator[np.ndarray]) -> Moments:
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        wide = block.astype(np.float64)
        own_mean = wide.mean(axis=0)
        own = ((wide - own_mean) ** 2).sum(axis=0)
        total = count + len(wide)
        shift = own_mean - mean
        squares = squares + own + shift**2 * (count * len(wide) / total)
        mean = mean + shift * (len(wide) / total)
        count = total
    deviation = np.sqrt(squares / max(count, 1))
    # Rounding gives a constant column a deviation of some ulps of its value.
    constant = (deviation <= 1e-7 * np.abs(mean)) | (deviation < np.finfo(np.float32).tiny)
    if constant.all():
        raise DataError(
            f"all {len(constant)} features are the same for every training clip: "
            "there is nothing to learn from"
        )
    inverse = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    return Moments(mean.astype(np.float32), inverse.astype(np.float32))
