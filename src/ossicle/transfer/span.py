"""Standardised features in the span of their clips: exact, and small when features are wide.

A linear model with a quadratic penalty has its weights in the span of the training clips (the
representer theorem), and distances and scalar products of those clips need only their Gram
matrix. So n clips of d > n dimensions are worked with as n coordinates, without loss, and what was
learnt is lifted back to d dimensions at the end. Features are read in blocks of columns; a
standardised copy of them is never made.

Axes: n clips, d dimensions, r coordinates (d where d <= n, else the rank), k outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import eigh

from ossicle.transfer.problem import FeatureError

DAMPED_BELOW = 0.1  # of a block's typical deviation
BLOCK = 1024  # columns at a time: 40 MB of float64 for 5,000 clips


class Span:
    """Features, their mean and scale, and their coordinates.

    Args:
        X: (n, d) float32 or float64 features, finite.
        block_sizes: columns of each block that stands in X, in order; see `block_weights` and
            `damping`. None: all columns weigh the same.

    Attributes:
        mean: (d,) means.
        inverse_scale: (d,) one over the standard deviation, 0 for constant columns, times the
            weight of the column's block and the column's damping.
    """

    def __init__(self, X: np.ndarray, block_sizes: Sequence[int] | None = None) -> None:
        self.X = X
        n, d = X.shape
        self.wide = d > n
        self.mean = np.empty(d)
        self.inverse_scale = np.empty(d)
        deviations = np.empty(d)
        for start in range(0, d, BLOCK):
            part = slice(start, start + BLOCK)
            block = X[:, part].astype(np.float64)
            mean = block.mean(axis=0)
            deviation = np.sqrt(np.mean((block - mean) ** 2, axis=0))
            # Rounding gives a constant column a deviation of some ulps of its value.
            constant = (
                deviation <= 1e-7 * np.abs(mean)
                if X.dtype == np.float32
                else (deviation <= 1e-14 * np.abs(mean))
            )
            constant |= deviation < np.finfo(np.float32).tiny
            self.mean[part] = mean
            deviations[part] = deviation
            self.inverse_scale[part] = np.where(constant, 0.0, 1 / np.where(constant, 1, deviation))
        if block_sizes is not None:
            self.inverse_scale *= block_weights(block_sizes, d) * damping(deviations, block_sizes)
        self._rotation: np.ndarray | None = None

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields (columns, (n, at most BLOCK) standardised features) in the dtype of `X`."""
        for start in range(0, self.X.shape[1], BLOCK):
            part = slice(start, start + BLOCK)
            block = (self.X[:, part].astype(np.float64) - self.mean[part]) * self.inverse_scale[
                part
            ]
            yield part, block.astype(self.X.dtype)

    def gram(self) -> np.ndarray:
        """(n, n) float64 scalar products of the standardised clips, summed over blocks."""
        n = len(self.X)
        total = np.zeros((n, n))
        for _, block in self.blocks():
            # In the features' own precision, summed in float64. A matrix by its own transpose is
            # half a product to NumPy, which, unlike SciPy's BLAS, lets other threads run.
            total += block @ block.T
        return total

    def standardised(self) -> np.ndarray:
        """(n, d) float64 standardised features: for d <= n, where they are small."""
        return (self.X.astype(np.float64) - self.mean) * self.inverse_scale

    def coordinates(self) -> np.ndarray:
        """(n, r) float64 coordinates with the same distances as the standardised features."""
        if not self.wide:
            return self.standardised()
        values, vectors = eigh(self.gram(), check_finite=False)
        keep = values > 1e-7 * max(values[-1], np.finfo(np.float64).tiny)
        values, vectors = values[keep], vectors[:, keep]
        self._rotation = vectors / np.sqrt(values)  # (n, r): directions are Z^T of these columns
        return vectors * np.sqrt(values)

    def combine(self, v: np.ndarray) -> np.ndarray:
        """Z^T v: (n, k) weights of clips to (d, k) weights of standardised features."""
        out = np.empty((self.X.shape[1], v.shape[1]))
        for part, block in self.blocks():
            out[part] = block.T.astype(np.float64) @ v
        return out

    def lift(self, w: np.ndarray) -> np.ndarray:
        """(r, k) weights of the last `coordinates()` as (d, k) weights of standardised features."""
        return w if self._rotation is None else self.combine(self._rotation @ w)

    def cross(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, n) products of other clips, (m, d), with these, and (m,) their squared norms."""
        products, squares = np.zeros((len(X), len(self.X))), np.zeros(len(X))
        for part, block in self.blocks():
            other = (X[:, part] - self.mean[part]) * self.inverse_scale[part]
            products += other @ block.T.astype(np.float64)
            squares += (other**2).sum(axis=1)
        return products, squares

    def unscale(self, w: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights for raw features: (d, k) and (k,) of standardised ones to (k, d) and (k,)."""
        weight = (w * self.inverse_scale[:, None]).T
        return weight, bias - weight @ self.mean


def block_weights(block_sizes: Sequence[int], d: int) -> np.ndarray:
    """(d,) factors that let a block of s columns count as sqrt(s), their squares' mean being 1.

    Halfway between columns that all weigh the same, where wide layers drown narrow ones, and
    blocks that all weigh the same, where a column of a narrow layer outweighs fifty of a wide one.

    Raises:
        FeatureError: the sizes do not add up to d.
    """
    sizes = np.asarray(block_sizes, dtype=np.int64)
    if sizes.sum() != d or (sizes < 1).any():
        raise FeatureError(f"blocks of {sizes.sum()} columns in all for features of {d}")
    return np.repeat(sizes**-0.25, sizes) * np.sqrt(d / np.sqrt(sizes).sum())


def damping(deviations: np.ndarray, block_sizes: Sequence[int]) -> np.ndarray:
    """(d,) factors in (0, 1] for columns that move little beside the others of their block.

    With s the deviation and r the root mean square of the deviations of the block,
    s / sqrt(s^2 + (0.1 r)^2): a channel that hardly ever fires would, at unit variance, be little
    but its few accidents.
    """
    factors = np.ones_like(deviations)
    start = 0
    for size in block_sizes:
        part = slice(start, start + size)
        start += size
        floor = DAMPED_BELOW * np.sqrt(np.mean(deviations[part] ** 2))
        if floor > 0:
            factors[part] = deviations[part] / np.hypot(deviations[part], floor)
    return factors


def linear_decisions(X: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """X @ weight.T + bias in float64, in blocks of clips: (n, d), (k, d), (k,) -> (n, k)."""
    rows = max(1, 2**24 // max(1, X.shape[1]))
    parts = [X[i : i + rows].astype(np.float64) @ weight.T for i in range(0, len(X), rows)]
    return np.concatenate(parts) + bias if parts else np.zeros((0, len(bias)))
