"""Layers chosen by a group lasso: whole layers enter or stay out as one penalty is lowered.

Yuan and Lin, "Model selection and estimation in regression with grouped variables", J. R. Statist.
Soc. B 68 (2006), equation 2.1, with several outputs:

    minimise  1 / (2 n) ||Y - sum_l Z_l B_l||_F^2 + penalty * sum_l w_l ||B_l||_F

for centred Z_l (n, r_l) and Y (n, k). A layer is out exactly where ||Z_l^T R||_F <= n penalty w_l,
with R what is left to explain, so all layers are out from

    max_l ||Z_l^T Y||_F / (n w_l)

on. Block coordinate descent: in coordinates in which Z_l^T Z_l / n is diagonal, D, the minimum for
one layer is B = (D + penalty w / t)^-1 V with V = Z_l^T R / n + D B and t = ||B||_F, which solves
one equation in t (their section 2.1 has the case D = I).

A wide layer is first turned into its principal coordinates: exact with all of them, because the
penalty of B does not change under rotation; economical with the first few.

Axes: n clips, d dimensions of a layer, r_l coordinates of layer l, k outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from ossicle.transfer.problem import FeatureError
from ossicle.transfer.span import Span

N_PENALTIES = 20
SMALLEST = 0.01  # of the penalty from which on all layers are out
COMPONENTS = 48
TOLERANCE = 1e-4
MAX_SWEEPS = 200


@dataclass(frozen=True)
class GroupSparsePath:
    """What each penalty keeps, and how well it does on clips held out.

    Attributes:
        penalties: descending; the first keeps nothing.
        layers: for each penalty the layers with weights, in the order of the blocks, all clips
            used.
        scores: for each penalty the score of clips that were held out, by models of that penalty.
        best: index of the penalty with the best score; never one that keeps no layer.
    """

    penalties: tuple[float, ...]
    layers: tuple[tuple[str, ...], ...]
    scores: tuple[float, ...]
    best: int


def principal_coordinates(products: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """The first principal coordinates of clips, their mean squared norm (of all) being 1.

    With equal norms the layers' weights in the penalty are equal: what Yuan and Lin's sqrt(d_l) is
    for standardised columns.

    Args:
        products: (n, n) scalar products of centred clips.
        components: how many at most.

    Returns:
        (n, r) float64; (n, 0) where all clips are alike.
    """
    n = len(products)
    mean = float(np.trace(products)) / n
    if not mean > 0:
        return np.zeros((n, 0))
    top = [max(0, n - components), n - 1]
    values, vectors = eigh(products, subset_by_index=top, check_finite=False)
    keep = values > 1e-7 * n * mean
    return vectors[:, keep] * np.sqrt(values[keep] / mean)


def layer_coordinates(X: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """The same of a layer's (n, d) features, each column standardised."""
    span = Span(X)
    if span.wide:
        return principal_coordinates(span.gram(), components)
    Z = span.standardised()
    mean = max(float(np.sum(Z**2)) / len(Z), np.finfo(np.float64).tiny)
    d = Z.shape[1]
    if d > components:
        top = [d - components, d - 1]
        Z = Z @ eigh(Z.T @ Z, subset_by_index=top, check_finite=False)[1]
    return Z / np.sqrt(mean)


def largest_penalty(
    blocks: Mapping[str, np.ndarray], Y: np.ndarray, weights: Sequence[float] | None = None
) -> float:
    """The smallest penalty that keeps no layer: max_l ||Z_l^T Y||_F / (n w_l), both centred."""
    moments = _Moments(blocks, Y, weights)
    return moments.largest()


def group_lasso(
    blocks: Mapping[str, np.ndarray],
    Y: np.ndarray,
    penalties: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    max_sweeps: int = MAX_SWEEPS,
) -> list[dict[str, np.ndarray]]:
    """Fit the group lasso for each penalty, each begun from the one before.

    Args:
        blocks: layer -> (n, r_l) coordinates; they are centred here.
        Y: (n, k) targets; they are centred here.
        penalties: descending.
        weights: w_l of each layer; None: 1.
        tolerance: of the stationarity conditions, as a share of `largest_penalty`.
        max_sweeps: over the layers, for one penalty.

    Returns:
        For each penalty: layer -> (r_l, k) weights, of those that are not zero.

    Raises:
        FeatureError: blocks, targets or weights that do not match.
    """
    moments = _Moments(blocks, Y, weights)
    return [
        {name: moments.raw(name, B[s]) for name, s in moments.slices.items() if B[s].any()}
        for B in moments.path(penalties, tolerance, max_sweeps)
    ]


def group_sparse_path(
    blocks: Mapping[str, np.ndarray],
    Y: np.ndarray,
    folds: np.ndarray,
    score: Callable[[np.ndarray], float],
    *,
    key: Callable[[np.ndarray], float] | None = None,
    n_penalties: int = N_PENALTIES,
    smallest: float = SMALLEST,
    tolerance: float = TOLERANCE,
    max_sweeps: int = MAX_SWEEPS,
    progress: Callable[[int, int], None] | None = None,
) -> GroupSparsePath:
    """Fit the path on all clips, and without each fold, whose clips then judge the penalties.

    Args:
        blocks: layer -> (n, r_l) coordinates, see `principal_coordinates`.
        Y: (n, k) targets.
        folds: (n,) fold of each clip; groups are to be whole.
        score: of (n, k) held-out predictions, higher is better.
        key: what the penalty is chosen by, higher is better; None: the score. Where it is equal,
            the squared error decides, then the larger penalty.
        n_penalties: from the largest down, evenly spaced by ratio.
        smallest: the last, as a share of the largest.
        tolerance, max_sweeps: as for `group_lasso`.
        progress: called with (fits done, fits in all).

    Raises:
        FeatureError: no layer has anything to do with the targets.
    """
    largest = largest_penalty(blocks, Y)
    if not largest > 0:
        raise FeatureError("no layer varies with the targets: there is nothing to choose from")
    penalties = largest * np.geomspace(1.0, smallest, n_penalties)
    parts = np.unique(folds)
    held_out = np.empty((n_penalties, *Y.shape))
    for number, fold in enumerate(parts, start=1):
        inside, outside = folds != fold, folds == fold
        moments = _Moments({name: Z[inside] for name, Z in blocks.items()}, Y[inside])
        others = np.concatenate([Z[outside] for Z in blocks.values()], axis=1) - moments.mean
        others = np.concatenate(
            [others[:, s] @ moments.rotation[name] for name, s in moments.slices.items()], axis=1
        )
        for i, B in enumerate(moments.path(penalties, tolerance, max_sweeps)):
            held_out[i, outside] = others @ B + moments.mean_y
        if progress is not None:
            progress(number, len(parts) + 1)
    moments = _Moments(blocks, Y)
    layers = tuple(
        tuple(name for name, s in moments.slices.items() if B[s].any())
        for B in moments.path(penalties, tolerance, max_sweeps)
    )
    if progress is not None:
        progress(len(parts) + 1, len(parts) + 1)
    scores = tuple(score(predicted) for predicted in held_out)
    keys = scores if key is None else tuple(key(predicted) for predicted in held_out)
    errors = np.mean((held_out - Y) ** 2, axis=(1, 2))
    kept = [i for i in range(n_penalties) if layers[i]]
    if not kept:
        raise FeatureError("the group lasso kept no layer: lower `smallest`")
    best = max(kept, key=lambda i: (keys[i], -errors[i], -i))
    return GroupSparsePath(tuple(map(float, penalties)), layers, scores, best)


class _Moments:
    """Z^T Z / n and Z^T Y / n of centred blocks, each turned so that its own part is diagonal."""

    def __init__(
        self,
        blocks: Mapping[str, np.ndarray],
        Y: np.ndarray,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not blocks or any(Z.ndim != 2 or len(Z) != len(Y) for Z in blocks.values()):
            raise FeatureError(f"each layer needs coordinates (n, r) of the {len(Y)} clips")
        self.weights = np.ones(len(blocks)) if weights is None else np.asarray(weights, np.float64)
        if self.weights.shape != (len(blocks),) or not (self.weights > 0).all():
            raise FeatureError(f"{len(blocks)} layers need as many positive weights")
        n = len(Y)
        Z = np.concatenate([block.astype(np.float64) for block in blocks.values()], axis=1)
        self.mean, self.mean_y = Z.mean(axis=0), Y.mean(axis=0)
        Z -= self.mean
        self.slices: dict[str, slice] = {}
        self.rotation: dict[str, np.ndarray] = {}
        start = 0
        for name, block in blocks.items():
            part = slice(start, start + block.shape[1])
            self.slices[name], start = part, part.stop
            self.rotation[name] = (
                eigh(Z[:, part].T @ Z[:, part], check_finite=False)[1]
                if block.shape[1]
                else np.zeros((0, 0))
            )
            Z[:, part] = Z[:, part] @ self.rotation[name]
        self.G = Z.T @ Z / n
        self.c = Z.T @ (Y - self.mean_y) / n
        self.diagonal = self.G.diagonal().copy()

    def largest(self) -> float:
        norms = [np.linalg.norm(self.c[s]) for s in self.slices.values()]
        return float(np.max(norms / self.weights))

    def raw(self, name: str, B: np.ndarray) -> np.ndarray:
        """Weights in the coordinates that were given."""
        return self.rotation[name] @ B

    def path(
        self, penalties: Sequence[float] | np.ndarray, tolerance: float, max_sweeps: int
    ) -> list[np.ndarray]:
        """(p, k) weights for each penalty, in the turned coordinates."""
        B, rest = np.zeros_like(self.c), self.c.copy()
        allowed = tolerance * self.largest()
        found = []
        for penalty in penalties:
            parts = [
                (s, float(penalty * w))
                for s, w in zip(self.slices.values(), self.weights, strict=True)
            ]
            for _ in range(max_sweeps):
                # Layers outside first: most sweeps are over the few that are inside.
                inside = [(s, cost) for s, cost in parts if B[s].any()]
                if self._violation(inside, B, rest) <= allowed:
                    outside = [p for p in parts if not B[p[0]].any()]
                    entering = [p for p in outside if np.linalg.norm(rest[p[0]]) > p[1] + allowed]
                    if not entering:
                        break
                    inside = entering
                for s, cost in inside:
                    change = self._minimum(s, cost, B[s], rest[s]) - B[s]
                    B[s] += change
                    rest -= self.G[:, s] @ change
            found.append(B.copy())
        return found

    def _violation(
        self, parts: Sequence[tuple[slice, float]], B: np.ndarray, rest: np.ndarray
    ) -> float:
        """How far the gradient of any layer inside is from that of its penalty."""
        far = [np.linalg.norm(rest[s] - cost * B[s] / np.linalg.norm(B[s])) for s, cost in parts]
        return float(max(far, default=0.0))

    def _minimum(self, s: slice, cost: float, B: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """The best (r, k) weights of one layer, the others being what they are."""
        D = np.maximum(self.diagonal[s], 0.0)
        V = rest + D[:, None] * B
        a = np.sum(V**2, axis=1)
        # Directions in which no clip differs carry nothing but rounding.
        a[1e-12 * D.max(initial=0.0) > D] = 0.0
        if a.sum() <= cost**2:
            return np.zeros_like(B)
        # sum a / (D t + cost)^2 = 1 for t = ||B||: one over its root is concave, so Newton's steps
        # rise to the solution from 0 without passing it.
        t = 0.0
        for _ in range(100):
            below = D * t + cost
            value = np.sum(a / below**2)
            slope = np.sum(a * D / below**3) * value**-1.5
            step = (1.0 - value**-0.5) / slope
            t += step
            if step <= 1e-14 * t:
                break
        return np.where(a[:, None] > 0, V, 0.0) / (D + cost / t)[:, None]
