"""Held-out predictions for any set of layers, from sums of what was computed once for each layer.

The scalar products of concatenated layers are the sums of the layers' own, and so are squared
distances; in the primal, the moments of a subset are a part of the moments of all. So no subset is
computed from its features. Each is a kernel ridge (least-squares support vector machine, Suykens
and Vandewalle 1999) with an unpenalised intercept, and its predictions for each held-out fold are
exact, from one inverse of the whole kernel (Cawley and Talbot 2004; An, Liu, Venkatesh 2007):

    residual_g = (C_gg)^-1 (C y)_g,   C = A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1),   A = K + a I

Each layer is standardised once with the statistics of all clips given, which uses no label. The
kernel of a subset of d dimensions is K = (sum of products) / d, or exp(-width / d * squared
distance), so that widths and penalties suit subsets of any size.

Axes: n clips, d dimensions, m landmarks, k outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.linalg import cholesky, lapack, solve, solve_triangular

from ossicle.transfer.span import Span

Setting = dict[str, float]
LINEAR_PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2)
RBF_PENALTIES = (1e-2, 1e-1)
RBF_WIDTHS = (0.25, 1.0)


class FoldMoments:
    """Moments of features without each fold: ridge for any columns, held out exactly.

    Args:
        Z: (n, d) features.
        Y: (n, k) targets.
        members: for each fold, the indices of its clips.
    """

    def __init__(self, Z: np.ndarray, Y: np.ndarray, members: Sequence[np.ndarray]) -> None:
        self.Z, self.shape, self.members = Z, Y.shape, members
        parts = [(Z[g].T @ Z[g], Z[g].T @ Y[g], Z[g].sum(0), Y[g].sum(0)) for g in members]
        G, B, z, y = (np.sum([p[i] for p in parts], axis=0, dtype=np.float64) for i in range(4))
        self.rest = []
        for g, (G_g, B_g, z_g, y_g) in zip(members, parts, strict=True):
            count = len(Z) - len(g)
            mean_z, mean_y = (z - z_g) / count, (y - y_g) / count
            self.rest.append(
                (
                    G - G_g - count * np.outer(mean_z, mean_z),
                    B - B_g - count * np.outer(mean_z, mean_y),
                    mean_z,
                    mean_y,
                )
            )

    def held_out(self, penalty: float, columns: np.ndarray | None = None) -> np.ndarray:
        """(n, k) predictions for each clip by ridge on some columns, fitted without its fold."""
        out = np.empty(self.shape)
        c = np.arange(self.Z.shape[1]) if columns is None else columns
        for g, (G, B, mean_z, mean_y) in zip(self.members, self.rest, strict=True):
            A = G[np.ix_(c, c)]
            A[np.diag_indices_from(A)] += penalty
            beta = solve(A, B[c], assume_a="pos", overwrite_a=True, check_finite=False)
            Z = self.Z[g] if columns is None else self.Z[np.ix_(g, c)]
            out[g] = Z @ beta + (mean_y - mean_z[c] @ beta)
        return out


def held_out_exact(
    K: np.ndarray, Y: np.ndarray, penalty: float, members: Sequence[np.ndarray]
) -> np.ndarray:
    """(n, k) kernel ridge predictions, each fold by the model fitted without it.

    Args:
        K: (n, n) float64 kernel.
        Y: (n, k) targets.
        penalty: added to the diagonal.
        members: for each fold, the indices of its clips.
    """
    A = K.copy(order="F")
    A[np.diag_indices_from(A)] += penalty
    factor, info = lapack.dpotrf(A, lower=1, overwrite_a=1)
    if info != 0:
        raise np.linalg.LinAlgError(f"kernel plus {penalty:g} is not positive definite")
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    ones = inverse.sum(axis=1)
    total = ones.sum()
    theta = inverse @ Y
    theta -= np.outer(ones, ones @ Y) / total
    out = np.empty_like(Y)
    for g in members:
        C = inverse[np.ix_(g, g)] - np.outer(ones[g], ones[g]) / total
        out[g] = Y[g] - np.linalg.solve(C, theta[g])
    return out


class LayerKernels:
    """What each layer contributes, computed once, and held-out predictions for any subset.

    Args:
        blocks: layer -> (n, d_l) features, finite.
        Y: (n, k) targets.
        folds: (n,) fold of each clip.
        kernel: "linear" or "rbf".
        penalties, widths: the settings tried for each subset.
        max_exact: above this many clips, kernels are approximated from landmarks (Nystroem),
            unless the features are linear and narrow enough for exact moments.
        n_landmarks: m, how many.
        random_state: draws the landmarks.
    """

    def __init__(
        self,
        blocks: Mapping[str, np.ndarray],
        Y: np.ndarray,
        folds: np.ndarray,
        *,
        kernel: str,
        penalties: Sequence[float],
        widths: Sequence[float],
        max_exact: int,
        n_landmarks: int,
        random_state: int | None,
    ) -> None:
        self.Y, self.kernel, self.penalties = Y, kernel, penalties
        self.widths = widths if kernel == "rbf" else (0.0,)
        self.members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        self.dims = {name: X.shape[1] for name, X in blocks.items()}
        n, total = len(Y), sum(self.dims.values())
        if kernel == "linear" and total <= min(n, 2048):
            self.mode = "moments"
            start = 0
            self.columns: dict[str, np.ndarray] = {}
            for name, dim in self.dims.items():
                self.columns[name] = np.arange(start, start + dim)
                start += dim
            Z = np.concatenate([Span(X).standardised() for X in blocks.values()], axis=1)
            self.moments = FoldMoments(Z, Y, self.members)
        elif n <= max_exact:
            self.mode = "exact"
            self.products = {name: _products(Span(X), kernel) for name, X in blocks.items()}
        else:
            self.mode = "landmarks"
            generator = np.random.default_rng(random_state)
            self.landmarks = np.sort(generator.choice(n, min(n_landmarks, n), replace=False))
            self.products = {
                name: _products_with(Span(X), X[self.landmarks], kernel)
                for name, X in blocks.items()
            }

    def held_out(self, subset: Sequence[str]) -> Iterator[tuple[Setting, np.ndarray]]:
        """Yields (setting, (n, k) held-out predictions) of a subset for every setting."""
        dim = sum(self.dims[name] for name in subset)
        if self.mode == "moments":
            columns = np.concatenate([self.columns[name] for name in subset])
            for penalty in self.penalties:
                yield {"penalty": penalty}, self.moments.held_out(penalty * dim, columns)
            return
        first, *others = (self.products[name] for name in subset)
        summed = first / dim
        for other in others:
            summed += other / dim
        for width in self.widths:
            K = np.exp(-width * summed) if self.kernel == "rbf" else summed
            setting = {"width": width} if self.kernel == "rbf" else {}
            if self.mode == "exact":
                for penalty in self.penalties:
                    predicted = held_out_exact(K, self.Y, penalty, self.members)
                    yield {**setting, "penalty": penalty}, predicted
            else:
                moments = FoldMoments(self._features(K), self.Y, self.members)
                for penalty in self.penalties:
                    yield {**setting, "penalty": penalty}, moments.held_out(penalty)

    def _features(self, K: np.ndarray) -> np.ndarray:
        """(n, m) features whose products approximate the kernel of which K is (n, m) columns."""
        among = K[self.landmarks].astype(np.float64)
        among[np.diag_indices_from(among)] += 1e-6 * max(float(np.trace(among)) / len(among), 1e-9)
        L = cholesky(among, lower=True).astype(K.dtype)
        return solve_triangular(L, K.T, lower=True, check_finite=False).T


def _products(span: Span, kernel: str) -> np.ndarray:
    """(n, n) scalar products or squared distances of the standardised clips of a layer."""
    K = span.gram()
    if kernel == "linear":
        return K
    square = K.diagonal()
    return np.maximum(square[:, None] + square[None, :] - 2 * K, 0.0)


def _products_with(span: Span, landmarks: np.ndarray, kernel: str) -> np.ndarray:
    """(n, m) float32 scalar products or squared distances with landmarks."""
    products, at_landmarks = span.cross(landmarks)
    if kernel == "linear":
        return products.T.astype(np.float32)
    squares = np.zeros(len(span.X))
    for _, block in span.blocks():
        squares += (block.astype(np.float64) ** 2).sum(axis=1)
    distances = squares[:, None] + at_landmarks[None, :] - 2 * products.T
    return np.maximum(distances, 0.0).astype(np.float32)
