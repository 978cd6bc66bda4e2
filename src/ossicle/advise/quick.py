"""Cheap looks at a task: a sample that keeps classes and groups, and scores without a fit.

Nearest class centroid and nearest neighbours have nothing to fit or to choose, so that they tell
about features in milliseconds. They are no substitute for a probe: `ossicle.advise.expect` learns
from measured tasks what they are worth.

Symbols: n clips, d dimensions, k classes, labels or outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.datasets.folds import Folds
from ossicle.transfer.layer_choice import held_out_score
from ossicle.transfer.span import Span

NEIGHBOURS = 5


def sample_clips(clips: Clips, limit: int, seed: int = 0) -> np.ndarray:
    """At most ``limit`` rows: classes alike where it can be, from as many groups as can be.

    Within a class the clips are taken group by group in turns, so that a sample of 8 clips from 10
    recordings holds 8 recordings. Multi-label and regression tasks are drawn by groups alone.

    Returns:
        Rows, ascending.
    """
    n = len(clips)
    if n <= limit:
        return np.arange(n)
    generator = np.random.default_rng(seed)
    order = generator.permutation(n)
    y = clips.y() if clips.task == "classes" else np.zeros(n, np.int64)
    fold = [str(v) for v in clips.table["fold"]]
    split = [str(v) for v in clips.table["split"]]
    groups = clips.groups()
    # Turn of a clip: how many of its class, fold and split were taken from its group before it;
    # then rank among its class by turn. The lowest ranks are every class's first clips.
    turn = _ranks([(y[i], fold[i], split[i], groups[i]) for i in range(n)], order)
    by_turn = order[np.argsort(turn[order], kind="stable")]
    # Folds and splits keep their shares: their clips come up in turns as well.
    share = _ranks([(y[i], fold[i], split[i]) for i in range(n)], by_turn)
    counts: dict[tuple[str, str], int] = {}
    for key in zip(fold, split, strict=True):
        counts[key] = counts.get(key, 0) + 1
    weight = np.array([counts[key] for key in zip(fold, split, strict=True)], np.float64)
    by_share = by_turn[np.argsort((share / weight)[by_turn], kind="stable")]
    rank = _ranks(list(y), by_share)
    return np.sort(by_share[np.argsort(rank[by_share], kind="stable")][:limit])


def _ranks(keys: Sequence[object], order: np.ndarray) -> np.ndarray:
    """(n,) how many rows of the same key come earlier in the order."""
    seen: dict[object, int] = {}
    ranks = np.empty(len(order), np.int64)
    for row in order:
        ranks[row] = seen.get(keys[row], 0)
        seen[keys[row]] = ranks[row] + 1
    return ranks


def targets_of(task: str, y: np.ndarray) -> np.ndarray:
    """(n, k) float64: one-hot classes, 0/1 labels, or numbers."""
    if task == "classes":
        return np.eye(int(y.max()) + 1)[y]
    return np.asarray(y, np.float64).reshape(len(y), -1)


def chance_of(task: str, y: np.ndarray) -> float:
    """The score of the best answer that ignores the sound: accuracy, mAP or R^2."""
    if task == "classes":
        return float(np.bincount(y).max() / len(y))
    return float(y.mean()) if task == "multilabel" else 0.0


def quick_scores(
    X: np.ndarray, y: np.ndarray, folds: Folds, task: str, block_sizes: Sequence[int] | None = None
) -> dict[str, float]:
    """Held-out scores of nearest centroid and nearest neighbours, by cosine.

    Features are standardised with the training part's mean and deviation, blocks weighed as the
    probes weigh them (``ossicle.transfer.span``).

    Args:
        X: (n, d) features.
        y: targets as ``Clips.y`` gives them.
        folds: (train, test) rows.
        task: "classes", "multilabel" or "regression".
        block_sizes: columns of each block of X.

    Returns:
        "centroid" (of "classes" only) and "neighbours": accuracy, mAP or R^2.
    """
    targets = targets_of(task, y)
    rows = np.concatenate([test for _, test in folds])
    near = np.zeros((len(rows), targets.shape[1]))
    central = np.zeros_like(near)
    start = 0
    for train, test in folds:
        part = slice(start, start + len(test))
        start += len(test)
        span = Span(X[train], block_sizes)
        known, asked = (_unit((X[some] - span.mean) * span.inverse_scale) for some in (train, test))
        cosine = asked @ known.T
        k = min(NEIGHBOURS, len(train))
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        # The nearest breaks ties: votes weigh a little more where the cosine is higher.
        votes = 1 + 1e-3 * np.take_along_axis(cosine, nearest, axis=1)
        values = targets[train][nearest]
        near[part] = (votes[..., None] * values).sum(1) / votes.sum(1)[:, None]
        if task == "classes":
            sums = targets[train].T @ known
            central[part] = asked @ _unit(sums).T
            central[part][:, targets[train].sum(0) == 0] = -np.inf
    scores = {"neighbours": held_out_score(task, targets[rows], near)}
    if task == "classes":
        scores["centroid"] = held_out_score(task, targets[rows], central)
    return scores


def _unit(Z: np.ndarray) -> np.ndarray:
    """Rows of length one; rows of zeros stay."""
    length = np.linalg.norm(Z, axis=1, keepdims=True)
    return Z / np.where(length > 0, length, 1.0)
