"""Ridge on any set of layers from one matrix a layer, weighed as the ridge probe weighs them.

The probe gives a block (a layer under a pooling) of s columns the weight of sqrt(s) and damps its
nearly dead channels (`span.Span`). So the scalar products of concatenated layers are sums of what
each layer contributes, and after one pass over the features every set of layers costs what a
matrix of clips costs: `SumsProbe` is the ridge probe itself on a set, `SumsSearch` a quick ranking
of many sets.

The ranking works in a basis of r directions, the principal ones of all layers together: with
U (n, r) and M = U^T K U, ridge without fold g is

    (S M + a I) X = U_rest^T Y_rest,  S = U_rest^T U_rest,  predictions U_g M X

with everything centred on the clips that are not in g. It is exact where there are at most r clips.

Axes: n clips that are learnt from, m others, r directions, k outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import eigh

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import regression_loss
from ossicle.transfer.group_sparse import COMPONENTS, principal_coordinates
from ossicle.transfer.layer_kernels import Setting
from ossicle.transfer.problem import FeatureError, Problem
from ossicle.transfer.ridge import RidgeProbe, RidgeRegressionProbe
from ossicle.transfer.ridge_path import RELATIVE_PENALTIES, RidgePath, choose_penalty
from ossicle.transfer.span import Span

RANK = 192
# Multiples of a clip's mean squared norm: what wide features are best with, by steps of ten.
SUMS_PENALTIES = (1e-2, 1e-1, 1.0)


class LayerSums:
    """Scalar products of clips, layer by layer.

    Args:
        blocks: layer -> (n + m, d_l) features, finite.
        train: (n,) rows that are learnt from: they alone give means and scales.
        others: (m,) rows that are not; None: none.
        block_sizes: layer -> columns of each block of it; None, or a layer that is not in it: one
            block.

    Attributes:
        names: the layers.
        products: layer -> (n, n) float32, of the clips that are learnt from.
        cross: layer -> (m, n) float32, of the others with them.
    """

    def __init__(
        self,
        blocks: Mapping[str, np.ndarray],
        train: np.ndarray | None = None,
        others: np.ndarray | None = None,
        block_sizes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if not blocks:
            raise FeatureError("no layers to choose from")
        self.names = tuple(blocks)
        self.products: dict[str, np.ndarray] = {}
        self.cross: dict[str, np.ndarray] = {}
        for name, X in blocks.items():
            sizes = (block_sizes or {}).get(name, [X.shape[1]])
            span = Span(X if train is None else X[train], sizes)
            # `Span` makes the squared weights of its columns average 1; sums need them as they are.
            factor = float(np.sqrt(sizes).sum()) / X.shape[1]
            self.products[name] = (factor * span.gram()).astype(np.float32)
            if others is not None:
                self.cross[name] = (factor * _cross(span, X[others])).astype(np.float32)
        self.n = len(next(iter(self.products.values())))

    def __len__(self) -> int:
        return self.n

    def kernel(self, subset: Sequence[str]) -> np.ndarray:
        """(n, n) float64 products of the concatenation of some layers."""
        return _summed(self.products, subset)

    def rows(self, subset: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """(len(rows), n) products of clips with those that are learnt from; others come after n."""
        learnt, rest = rows < self.n, rows >= self.n
        out = np.empty((len(rows), self.n))
        if learnt.any():
            out[learnt] = _summed(
                {name: self.products[name][rows[learnt]] for name in subset}, subset
            )
        if rest.any():
            out[rest] = _summed(
                {name: self.cross[name][rows[rest] - self.n] for name in subset}, subset
            )
        return out

    def beside(self, other: LayerSums) -> LayerSums:
        """The layers of both, of the same clips in the same order."""
        joined = object.__new__(LayerSums)
        joined.names, joined.n = self.names + other.names, self.n
        joined.products = {**self.products, **other.products}
        joined.cross = {**self.cross, **other.cross}
        if len(joined.products) < len(joined.names) or self.n != other.n:
            raise FeatureError("products of other clips, or of layers of the same name")
        return joined

    @cached_property
    def basis(self) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]:
        """U (n, r), layer -> M_l (r, r), and layer -> the mean squared norm of a clip."""
        norms = {name: float(np.trace(K)) / self.n for name, K in self.products.items()}
        mean = np.zeros((self.n, self.n))
        for name, K in self.products.items():
            if norms[name] > 0:
                mean += K / norms[name]
        top = [max(0, self.n - RANK), self.n - 1]
        values, U = eigh(mean, subset_by_index=top, overwrite_a=True, check_finite=False)
        U = U[:, values > 1e-7 * max(float(values[-1]), 1e-300)]
        small = U.astype(np.float32)
        return (
            U,
            {n: (small.T @ (K @ small)).astype(np.float64) for n, K in self.products.items()},
            norms,
        )

    def coordinates(self, components: int = COMPONENTS) -> dict[str, np.ndarray]:
        """Layer -> (n, r_l) principal coordinates, as `group_sparse` takes them."""
        U, among, norms = self.basis
        found = {}
        for name, M in among.items():
            inside = principal_coordinates(M, components) if norms[name] > 0 else M[:, :0]
            # Those were scaled as for r clips whose norms are the trace of M.
            scale = np.sqrt(float(np.trace(M)) / len(M) / norms[name]) if norms[name] > 0 else 1.0
            found[name] = U @ inside * scale
        return found


def _cross(span: Span, X: np.ndarray) -> np.ndarray:
    """(m, n) products of other clips with those of a span, block by block in its precision."""
    total = np.zeros((len(X), len(span.X)))
    for part, block in span.blocks():
        other = (X[:, part].astype(np.float64) - span.mean[part]) * span.inverse_scale[part]
        total += other.astype(block.dtype) @ block.T
    return total


def _summed(matrices: Mapping[str, np.ndarray], subset: Sequence[str]) -> np.ndarray:
    total = matrices[subset[0]].astype(np.float64)
    for name in subset[1:]:
        total += matrices[name]
    return total


class SumsPath(RidgePath):
    """`RidgePath` for a matrix of scalar products.

    Args:
        K: (n, n) float64 products of standardised clips; overwritten.
        Y: (n, k) targets.
        weight: (n,) positive weights of the clips, or None.
    """

    def __init__(self, K: np.ndarray, Y: np.ndarray, weight: np.ndarray | None = None) -> None:
        n = len(K)
        weight = np.ones(n) if weight is None else np.maximum(weight / weight.mean(), 1e-8)
        self.weight, self.root, self.Y, self.A = weight, np.sqrt(weight), Y, None
        share = weight / weight.sum()
        self.mean_y = share @ Y
        self.y = self.root[:, None] * (Y - self.mean_y)
        self.scale = max(float(np.trace(K)) / n, 1e-12)
        self.across = share @ K
        K += share @ self.across - self.across[:, None] - self.across[None, :]
        K *= self.root[:, None]
        K *= self.root[None, :]
        values, U = eigh(K, overwrite_a=True, check_finite=False)
        keep = values > 1e-9 * max(values[-1], 1e-300)
        self.values, self.U = values[keep], U[:, keep]

    def dual(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) weights of the clips, (k,) intercepts: decisions are products @ weights + them."""
        inner = (self.U.T @ self.y) / (self.values + penalty)[:, None]
        weight = self.root[:, None] * (self.U @ inner)
        return weight, self.mean_y - self.across @ weight


class SumsProbe(RidgeProbe):
    """The ridge probe on a set of layers whose products are known.

    Fitted and asked with row numbers, (n, 1), instead of features: `np.arange(n)[:, None]` are the
    clips that are learnt from, the others follow.

    Args:
        sums: the products.
        layers: the set.
        task, random_state: as for `RidgeProbe`.
    """

    def __init__(
        self, sums: LayerSums, layers: Sequence[str], *, task: str = "auto", random_state: Any = 0
    ) -> None:
        super().__init__(task=task, random_state=random_state)
        self.sums, self.layers = sums, layers

    def _fit(self, problem: Problem) -> np.ndarray:
        path = SumsPath(self.sums.kernel(self.layers), 2 * problem.targets - 1, problem.weight)
        penalty, held_out, self.inner_losses_ = choose_penalty(
            path,
            problem.groups,
            lambda d: calibrate(d, problem.targets, problem.weight, problem.task).loss,
            RELATIVE_PENALTIES,
        )
        self.dual_ = path.dual(penalty)
        self.chosen_ = {"penalty": penalty / path.scale}
        return held_out

    def _decide(self, X: np.ndarray) -> np.ndarray:
        weight, bias = self.dual_
        return self.sums.rows(self.layers, X[:, 0].astype(np.int64)) @ weight + bias


class SumsRegressionProbe(RidgeRegressionProbe):
    """The same for numbers."""

    def __init__(self, sums: LayerSums, layers: Sequence[str], *, random_state: Any = 0) -> None:
        super().__init__(random_state=random_state)
        self.sums, self.layers = sums, layers

    def _fit(self, problem: Problem) -> np.ndarray:
        path = SumsPath(self.sums.kernel(self.layers), problem.targets)
        penalty, held_out, self.inner_losses_ = choose_penalty(
            path,
            problem.groups,
            lambda predicted: regression_loss(predicted, problem.targets),
            RELATIVE_PENALTIES,
        )
        self.dual_ = path.dual(penalty)
        self.chosen_ = {"penalty": penalty / path.scale}
        return held_out

    def _decide(self, X: np.ndarray) -> np.ndarray:
        weight, bias = self.dual_
        return self.sums.rows(self.layers, X[:, 0].astype(np.int64)) @ weight + bias


def sums_probe(
    sums: LayerSums, layers: Sequence[str], task: str, *, random_state: Any = 0
) -> SumsProbe | SumsRegressionProbe:
    """The ridge probe of a task on a set of layers, to be fitted with row numbers."""
    if task == "regression":
        return SumsRegressionProbe(sums, layers, random_state=random_state)
    return SumsProbe(sums, layers, task=task, random_state=random_state)


class SumsSearch:
    """Held-out predictions for any set of layers, as `LayerKernels` gives them.

    Args:
        sums: the products.
        Y: (n, k) targets.
        folds: (n,) fold of each clip.
        penalties: as multiples of the mean squared norm of a clip.
        dtype: of the solves; float32 is twice as fast, and exact enough to rank by.
    """

    def __init__(
        self,
        sums: LayerSums,
        Y: np.ndarray,
        folds: np.ndarray,
        penalties: Sequence[float] = SUMS_PENALTIES,
        dtype: Any = np.float32,
    ) -> None:
        self.Y, self.penalties = Y, penalties
        self.U, among, self.norms = sums.basis
        self.among = {name: M.astype(dtype) for name, M in among.items()}
        self.members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        r = self.U.shape[1]
        self.S = np.empty((len(self.members), r, r), dtype)
        self.B = np.empty((len(self.members), r, Y.shape[1]), dtype)
        self.means = []
        for i, g in enumerate(self.members):
            rest = np.setdiff1d(np.arange(len(Y)), g)
            mean, mean_y = self.U[rest].mean(axis=0), Y[rest].mean(axis=0)
            U = self.U[rest] - mean
            self.S[i], self.B[i] = U.T @ U, U.T @ (Y[rest] - mean_y)
            self.means.append((mean, mean_y))

    def held_out(self, subset: Sequence[str]) -> Iterator[tuple[Setting, np.ndarray]]:
        """Yields (setting, (n, k) held-out predictions) of a subset for every penalty."""
        norm = sum(self.norms[name] for name in subset)
        M = (_summed(self.among, subset) / max(norm, 1e-300)).astype(self.S.dtype)
        products = self.S @ M
        diagonal = np.arange(len(M))
        before = 0.0
        for penalty in self.penalties:
            products[:, diagonal, diagonal] += penalty - before
            before = penalty
            weights = M @ np.linalg.solve(products, self.B)
            out = np.empty(self.Y.shape)
            for g, w, (mean, mean_y) in zip(self.members, weights, self.means, strict=True):
                out[g] = (self.U[g] - mean) @ w + mean_y
            yield {"penalty": penalty}, out
