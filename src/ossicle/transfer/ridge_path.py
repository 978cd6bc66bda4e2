"""Ridge in closed form: the whole path of penalties, each scored on clips it was not fitted on.

For clips with weights w, the model minimises sum_i w_i (y_i - f_i)^2 + a |beta|^2 with an
unpenalised intercept. With root = sqrt(w), A = root * (Z - weighted mean of Z), its thin singular
value decomposition A = U S V^T and s = root, the matrix

    C = a * top-left block of inverse [[root K root + a I, s], [s^T, 0]]
      = I - s s^T / (s^T s) - U diag(S^2 / (S^2 + a)) U^T

yields for every held-out group g, exactly as if the model were fitted again without it,

    residual_g = (C_gg)^-1 (C y)_g / root_g

(Cawley and Talbot 2004, section 3, for one clip; An, Liu, Venkatesh 2007, for several. The
bordered system holds the intercept, so leaving g out fits it anew as well.)

Axes: n clips, d dimensions, k outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import eigh

from ossicle.transfer.span import Span

# Penalties relative to the mean squared norm of a clip: from next to none to next to all.
RELATIVE_PENALTIES = np.logspace(-4, 4, 17)


class RidgePath:
    """Ridge for any penalty, from one decomposition.

    Args:
        X: (n, d) features.
        Y: (n, k) targets.
        weight: (n,) positive weights of the clips, or None for equal ones.
        block_sizes: columns of each block of X, see `Span`.

    Attributes:
        scale: the mean squared norm of a standardised clip; penalties are multiples of it.
    """

    def __init__(
        self,
        X: np.ndarray,
        Y: np.ndarray,
        weight: np.ndarray | None = None,
        block_sizes: Sequence[int] | None = None,
    ) -> None:
        self.span = Span(X, block_sizes)
        n = len(X)
        weight = np.ones(n) if weight is None else np.maximum(weight / weight.mean(), 1e-8)
        self.weight, self.root, self.Y = weight, np.sqrt(weight), Y
        share = weight / weight.sum()
        self.mean_y = share @ Y
        self.y = self.root[:, None] * (Y - self.mean_y)
        self.A: np.ndarray | None = None
        if self.span.wide:
            K = self.span.gram()
            self.scale = max(float(np.trace(K)) / n, 1e-12)
            across = share @ K
            K += share @ across - across[:, None] - across[None, :]
            K *= self.root[:, None]
            K *= self.root[None, :]
            values, U = eigh(K, overwrite_a=True, check_finite=False)
            keep = values > 1e-9 * max(values[-1], 1e-300)
            self.values, self.U = values[keep], U[:, keep]
        else:
            Z = self.span.standardised()
            self.scale = max(float(np.sum(Z**2)) / n, 1e-12)
            self.A = self.root[:, None] * (Z - share @ Z)
            values, V = eigh(self.A.T @ self.A, check_finite=False)
            keep = values > 1e-12 * max(values[-1], 1e-300)
            self.values, self.V = values[keep], V[:, keep]
            self.U = self.A @ self.V / np.sqrt(self.values)

    def coefficients(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """(k, d) weights and (k,) intercepts for raw features, all clips used."""
        projected = self.U.T @ self.y
        if self.A is None:
            alpha = self.U @ (projected / (self.values + penalty)[:, None])
            beta = self.span.combine(self.root[:, None] * alpha)
        else:
            beta = self.V @ (projected * (np.sqrt(self.values) / (self.values + penalty))[:, None])
        weight, bias = self.span.unscale(beta, self.mean_y)
        # The weighted mean of standardised features is not zero.
        shift = self.span.combine((self.weight / self.weight.sum())[:, None])
        return weight, bias - (beta.T @ shift)[:, 0]

    def held_out(self, penalty: float, folds: np.ndarray) -> np.ndarray:
        """(n, k) predictions for every clip by the model fitted without the clip's fold.

        Args:
            penalty: the penalty a.
            folds: (n,) fold (or group) of each clip, at least two of them.
        """
        order = np.argsort(folds, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(folds[order])) + 1)
        if self.A is not None and max(map(len, members)) > 2 * self.A.shape[1]:
            return self._refitted(penalty, members)
        shrink = self.values / (self.values + penalty)
        theta = self.y - self.U @ (shrink[:, None] * (self.U.T @ self.y))
        s = self.root / np.linalg.norm(self.root)
        residual = np.empty_like(self.y)
        single = np.array([m[0] for m in members if len(m) == 1], dtype=np.intp)
        if single.size:
            U = self.U[single]
            diagonal = 1 - s[single] ** 2 - (U * U) @ shrink
            residual[single] = theta[single] / np.maximum(diagonal, 1e-12)[:, None]
        for member in members:
            if len(member) > 1:
                U = self.U[member]
                C = np.eye(len(member)) - np.outer(s[member], s[member]) - (U * shrink) @ U.T
                residual[member] = np.linalg.solve(C, theta[member])
        return self.Y - residual / self.root[:, None]

    def _refitted(self, penalty: float, members: list[np.ndarray]) -> np.ndarray:
        """The same by downdating (d, d) moments: for folds much larger than d."""
        assert self.A is not None
        G, B = self.A.T @ self.A, self.A.T @ self.y
        out = np.empty_like(self.Y)
        for member in members:
            root = self.root[member, None]
            A, y = self.A[member], self.y[member]
            # All clips are centred, so what the others sum to is minus what these sum to.
            rest = self.weight.sum() - self.weight[member].sum()
            mean_a, mean_y = -(root * A).sum(axis=0) / rest, -(root * y).sum(axis=0) / rest
            G_rest = G - A.T @ A - rest * np.outer(mean_a, mean_a)
            B_rest = B - A.T @ y - rest * np.outer(mean_a, mean_y)
            G_rest[np.diag_indices_from(G_rest)] += penalty
            beta = np.linalg.solve(G_rest, B_rest)
            out[member] = (A / root - mean_a) @ beta + mean_y + self.mean_y
        return out


def choose_penalty(
    path: RidgePath,
    folds: np.ndarray,
    loss: Callable[[np.ndarray], float],
    relative: np.ndarray = RELATIVE_PENALTIES,
) -> tuple[float, np.ndarray, dict[float, float]]:
    """The penalty whose held-out predictions have the smallest loss.

    Every second penalty of the grid is tried, then the neighbours of the best.

    Args:
        path: the decomposed problem.
        folds: (n,) fold of each clip.
        loss: of (n, k) held-out predictions.
        relative: ascending penalties, as multiples of `path.scale`.

    Returns:
        The penalty, its (n, k) held-out predictions, and relative penalty -> loss for those tried.
    """
    held_out: dict[int, np.ndarray] = {}
    losses: dict[int, float] = {}

    def attempt(index: int) -> None:
        if 0 <= index < len(relative) and index not in losses:
            predicted = path.held_out(float(relative[index]) * path.scale, folds)
            losses[index] = loss(predicted)
            # Only the best is worth its memory.
            if losses[index] <= min(losses.values()):
                held_out.clear()
                held_out[index] = predicted

    for index in range(0, len(relative), 2):
        attempt(index)
    (middle,) = held_out
    attempt(middle - 1)
    attempt(middle + 1)
    ((best, predicted),) = held_out.items()
    tried = {float(relative[i]): losses[i] for i in sorted(losses)}
    return float(relative[best]) * path.scale, predicted, tried
