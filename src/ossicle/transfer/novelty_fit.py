"""Fitting `Novelty` on training clips, and asking how well it would notice a class unheard.

Everything is computed in the span of the clips (`span.Span`), where d columns are at most n
coordinates. Covariances are shrunk towards a multiple of the identity by a fixed share (as in
Ledoit & Wolf 2004, J. Multivariate Analysis 88, 365-411, who estimate the share).

The subspace holds the directions between the class means first, then the main ones within classes.
It is that of the deepest layer of the read-out: what wide shallow layers know tells recordings
apart rather than kinds of sound. The entropy of the answer, which the head makes of all layers, is
weighed so that among known clips, held out, it varies as much as the distance does. Shrinkage,
rank, the weight of what lies outside, the layer and the sum were chosen on four sets;
docs/results/novelty.md has the table.

Axes: n clips, m other clips, d dimensions, N coordinates, r rank, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh

from ossicle.datasets.folds import Folds
from ossicle.errors import DataError
from ossicle.novelty import MAX_RANK, Novelty, entropy
from ossicle.transfer.diagnose import restrict, sample_rows
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.isotonic import logits_of
from ossicle.transfer.kernel_answers import kernel_answers
from ossicle.transfer.span import Span
from ossicle.transfer.unheard import leave_classes_out

SHRINKAGE = 0.3
OUTSIDE = 0.05
# The cost grows with the square of these.
MAX_CLIPS = 1500
MAX_CLIPS_AUC = 600
INNER_FOLDS = 3


def memberships(y: np.ndarray, task: str) -> np.ndarray:
    """(n, K') shares of each clip in each class, rows summing to one; no column is empty.

    A clip of several labels belongs to each in equal parts; those of none make a class of their
    own. Numbers have no classes: all clips are of one.
    """
    if task == "regression":
        return np.ones((len(y), 1))
    if task == "classes":
        shares = (np.asarray(y)[:, None] == np.unique(y)).astype(np.float64)
    else:
        labels = np.asarray(y, np.float64)
        labels = np.column_stack([labels, labels.sum(axis=1) == 0])
        shares = labels / labels.sum(axis=1, keepdims=True)
    return shares[:, shares.sum(axis=0) > 0]


def last_layer(names: Sequence[str], sizes: Sequence[int]) -> tuple[int, list[int]]:
    """(first column, columns of each block) of the deepest layer's blocks "LAYER/POOLING"."""
    layer = names[-1].rpartition("/")[0]
    own = [size for name, size in zip(names, sizes, strict=True) if _of(name) == layer]
    if [_of(name) for name in names[-len(own) :]] != [layer] * len(own):
        raise DataError("the blocks of the read-out do not come layer by layer")
    return sum(sizes) - sum(own), own


def fit_novelty(
    X: np.ndarray,
    y: np.ndarray,
    *,
    task: str,
    groups: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    block_sizes: Sequence[int] | None = None,
    first: int = 0,
    rank: int = MAX_RANK,
    random_state: int = 0,
) -> Novelty:
    """Fit on clips; scores of known sounds come from inner folds that keep groups together.

    Args:
        X: (n, d) the columns of the read-out to look at, finite.
        y: (n,) class indices, (n, K) 0/1, or (n,) numbers.
        task: "classes", "multilabel" or "regression".
        groups: (n,) group of each clip; None: each for itself.
        held_out: (n, k) probabilities of the clips by models that had not heard their group, as a
            probe's `held_out_proba_`; None: the score is the distance alone.
        block_sizes: columns of each block of X, see `span.block_weights`.
        first: where X stands in the read-out.
        rank: r, at most; never more than clips allow.
        random_state: of inner folds, and of the draw among more than ``MAX_CLIPS`` clips.

    Raises:
        DataError: fewer than three clips.
    """
    if len(X) < 3:
        raise DataError(f"{len(X)} clips: too few to tell what is known from what is not")
    rows = sample_rows(y, MAX_CLIPS, task, random_state)
    X, y = X[rows], np.asarray(y)[rows]
    groups = None if groups is None else np.asarray(groups)[rows]
    fold = inner_folds(y, groups, task=task, n_folds=5, random_state=random_state)
    shares = memberships(y, task)
    known = _held_out_distances(X, shares, fold, block_sizes, rank)
    unsure = 0.0
    if held_out is not None and task != "regression":
        doubt = entropies(logits_of(held_out[rows], task), task)
        unsure = scale_of(known, doubt)
        known = known + unsure * doubt
    fitted = _fit(X, shares, block_sizes, rank, first, len(known))
    fitted.unsure.fill_(unsure)
    fitted.known.copy_(torch.from_numpy(np.sort(known)))
    return fitted.eval()


def entropies(logits: np.ndarray, task: str) -> np.ndarray:
    """(n, k) logits -> (n,) float64 entropies of the answers, see `novelty.entropy`."""
    found = entropy(torch.from_numpy(np.ascontiguousarray(logits, np.float64)), task)
    assert found is not None
    return found.numpy()


def scale_of(distance: np.ndarray, doubt: np.ndarray) -> float:
    """The weight under which entropies of known clips, (n,), vary as much as their distances."""
    return float(np.std(distance) / max(float(np.std(doubt)), 1e-6))


def novelty_auc(
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    folds: Folds,
    *,
    task: str,
    classes: Sequence[str],
    kernel: np.ndarray | None = None,
    block_sizes: Sequence[int] | None = None,
    rank: int = MAX_RANK,
    random_state: int = 0,
) -> dict[str, Any] | None:
    """Would it notice what it has never heard? Each class in turn is left out, see `unheard`.

    The answers are those of a kernel ridge, fitted anew, like the distance, without the class.

    Args:
        X, y, task, block_sizes, rank: as for `fit_novelty`; of more than ``MAX_CLIPS_AUC`` clips
            some are drawn.
        groups: (n,) group of each clip.
        folds: (train, test) rows.
        classes: names of the K classes.
        kernel: (n, n) products of all that the head reads, for the answers; None: the distance
            alone.
        random_state: of inner folds, draws and the bootstrap.

    Returns:
        What `unheard.leave_classes_out` returns; None for numbers, or too few classes.
    """
    if task == "regression":
        return None
    y = np.asarray(y)
    rows = sample_rows(y, MAX_CLIPS_AUC, task, random_state)
    folds = restrict(folds, rows, len(y))
    X, y, groups = X[rows], y[rows], np.asarray(groups)[rows]
    kernel = None if kernel is None else kernel[np.ix_(rows, rows)]

    def scorer(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        shares = memberships(y[train], task)
        distance = _distances(_fit(X[train], shares, block_sizes, rank), X[test])
        own = inner_folds(
            y[train], groups[train], task=task, n_folds=INNER_FOLDS, random_state=random_state
        )
        if kernel is None or (task == "classes" and len(np.unique(y[train])) < 2):
            return distance
        known = _held_out_distances(X[train], shares, own, block_sizes, rank)
        held_out, told = kernel_answers(kernel, y, train, test, own, task)
        return distance + scale_of(known, entropies(held_out, task)) * entropies(told, task)

    truth = y[:, None] == np.arange(len(classes)) if task == "classes" else y.astype(bool)
    return leave_classes_out(truth, groups, folds, scorer, classes, random_state=random_state)


def _held_out_distances(
    X: np.ndarray,
    shares: np.ndarray,
    fold: np.ndarray,
    block_sizes: Sequence[int] | None,
    rank: int,
) -> np.ndarray:
    """(n,) distances of the clips of each fold by a model fitted on the others."""
    known = np.empty(len(X), np.float32)
    for number in np.unique(fold):
        own = fold == number
        part = shares[~own]
        model = _fit(X[~own], part[:, part.sum(axis=0) > 0], block_sizes, rank)
        known[own] = _distances(model, X[own])
    return known


def _fit(
    X: np.ndarray,
    shares: np.ndarray,
    block_sizes: Sequence[int] | None,
    rank: int,
    first: int = 0,
    known: int = 1,
) -> Novelty:
    """Everything but the scores of known sounds; (n, d) clips and their (n, K) memberships."""
    n = len(X)
    span = Span(X, block_sizes)
    C = span.coordinates()  # (n, N), mean zero
    flat = C.shape[1] == 0  # clips all alike
    C = np.zeros((n, 1)) if flat else C
    full = max(1, min(n - 1, int((span.inverse_scale > 0).sum())))
    size = shares.sum(axis=0)
    M = (shares.T @ C) / size[:, None]  # (K, N)
    # Of any shares that sum to one, sum over clips and classes of share times (x - m)(x - m)'.
    within = (C.T @ C - (M.T * size) @ M) / n
    Q = _directions(M, within, min(rank, full, C.shape[1], MAX_RANK))  # (N, r)
    r = Q.shape[1]
    A, S = C @ Q, Q.T @ within @ Q
    T = A.T @ A / n
    S = (1 - SHRINKAGE) * S + SHRINKAGE * _level(np.trace(within) / full) * np.eye(r)
    spread = np.mean(C**2) * C.shape[1]  # the trace of the covariance of all
    level = SHRINKAGE * spread / full
    rest = (1 - SHRINKAGE) * max(spread - np.trace(T), 0.0) / max(full - r, 1) + level
    T = (1 - SHRINKAGE) * T + _level(level) * np.eye(r)
    whiten = _root(S)
    # |v total| = |u root(T)| for v = u whiten.
    total = np.linalg.solve(whiten, _root(T))
    outside = OUTSIDE / _level(rest)
    if len(M) == 1:  # nothing to be nearer to than the mean of all
        total, outside = np.zeros((r, r)), 1 / _level(rest)
    basis = np.zeros((X.shape[1], 1)) if flat else span.lift(Q)
    made = Novelty(first=first, dims=X.shape[1], rank=r, means=len(M), known=known)
    values = {
        **{"mean": span.mean, "scale": span.inverse_scale, "basis": basis},
        **{"whiten": whiten, "centres": M @ Q @ whiten, "total": total, "outside": [outside]},
    }
    for name, value in values.items():
        getattr(made, name).copy_(torch.from_numpy(np.asarray(value, np.float64)))
    return made.eval()


def _directions(M: np.ndarray, within: np.ndarray, rank: int) -> np.ndarray:
    """(N, r) orthonormal: those between the (K, N) class means, then the main ones within."""
    between = np.zeros((M.shape[1], 0))
    if len(M) > 1:
        _, strength, V = np.linalg.svd(M - M.mean(axis=0), full_matrices=False)
        between = V[strength > 1e-9 * max(strength[0], 1e-30)][:rank].T
    more = rank - between.shape[1]
    if more < 1:
        return between
    # The part of the covariance that is orthogonal to the directions there are.
    left = within - between @ (between.T @ within)
    left = left - (left @ between) @ between.T
    N = len(left)
    left = (left + left.T) / 2
    _, V = eigh(left, subset_by_index=(max(0, N - more), N - 1), check_finite=False)
    # Where the rank is nearly N, directions without any variance may repeat those between.
    joined, triangle = np.linalg.qr(np.hstack([between, V[:, ::-1]]))
    return joined[:, np.abs(np.diag(triangle)) > 1e-6]


def _root(S: np.ndarray) -> np.ndarray:
    """(r, r) W with W W' the inverse of the covariance S: |u W| is the Mahalanobis distance."""
    values, vectors = eigh(S, check_finite=False)
    return vectors / np.sqrt(values)


def _level(value: float) -> float:
    """A variance that can be divided by: clips that are all alike have none."""
    return float(max(value, 1e-12))


@torch.inference_mode()
def _distances(model: Novelty, X: np.ndarray) -> np.ndarray:
    """(m,) float32 raw scores of (m, d) columns that the model looks at."""
    return model.distance(torch.from_numpy(np.ascontiguousarray(X, np.float32))).numpy()


def _of(name: str) -> str:
    return name.rpartition("/")[0]
