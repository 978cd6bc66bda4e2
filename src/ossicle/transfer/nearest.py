"""Nearest neighbours by cosine, after standardising; the number of neighbours chosen inside.

What is near says most about the features themselves: nothing is learnt but the number of
neighbours. Neighbours are counted among clips of other inner folds, hence of other groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import ClassifierProbe, RegressorProbe, regression_loss
from ossicle.transfer.problem import Problem
from ossicle.transfer.span import Span

NEIGHBOURS = (1, 3, 5, 9, 15, 25)


class _Neighbours:
    """Standardised clips, and what clips near to others are, for several numbers of neighbours."""

    def __init__(self, problem: Problem, values: np.ndarray) -> None:
        X, span = problem.X, Span(problem.X, problem.block_sizes)
        self.mean, self.inverse_scale = span.mean, span.inverse_scale
        self.Z = self.standardise(X)
        self.values = values

    def standardise(self, X: np.ndarray) -> np.ndarray:
        """(m, d) in the dtype of X."""
        return (X - self.mean.astype(X.dtype)) * self.inverse_scale.astype(X.dtype)

    def sums(self, Z: np.ndarray, counts: Sequence[int], among: np.ndarray) -> list[np.ndarray]:
        """For each count, the (m, k) sum of the values of that many neighbours among some clips."""
        most = min(max(counts), int(among.sum()))
        search = NearestNeighbors(n_neighbors=most, metric="cosine", algorithm="brute")
        nearest = search.fit(self.Z[among]).kneighbors(Z, return_distance=False)
        out = [np.empty((len(Z), self.values.shape[1])) for _ in counts]
        values = self.values[among]
        for start in range(0, len(Z), 256):  # what every neighbour is would not fit for many labels
            rows = slice(start, start + 256)
            running = np.cumsum(values[nearest[rows]], axis=1)  # (256, most, k)
            for total, count in zip(out, counts, strict=True):
                total[rows] = running[:, min(count, most) - 1]
        return out

    def held_out(self, counts: Sequence[int], folds: np.ndarray) -> list[np.ndarray]:
        """The same for every clip, among the clips of other folds."""
        out = [np.empty_like(self.values) for _ in counts]
        for fold in np.unique(folds):
            inside = folds == fold
            for total, part in zip(out, self.sums(self.Z[inside], counts, ~inside), strict=True):
                total[inside] = part
        return out


class KNNProbe(ClassifierProbe):
    """Cosine nearest neighbours for classes and for multi-label targets.

    Args:
        neighbours: numbers of neighbours to choose from.
        class_weight: weights of the neighbours' votes: None, "balanced" or a dict.
        task, n_folds, random_state: as for `RidgeProbe`.
    """

    def __init__(
        self,
        neighbours: Sequence[int] = NEIGHBOURS,
        *,
        class_weight: Any = None,
        task: str = "auto",
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.neighbours = neighbours
        self.class_weight = class_weight
        self.task = task
        self.n_folds = n_folds
        self.random_state = random_state

    def _votes(self, sums: np.ndarray) -> np.ndarray:
        """Log odds (labels) or log shares (classes) of votes, with one vote for the prior."""
        k = self._prior.shape[0]
        for_it, against = sums[:, :k] + self._prior, sums[:, k:] + self._rest
        if self.task_ == "multilabel":
            return np.log(for_it) - np.log(against)
        return np.log(for_it)

    def _fit(self, problem: Problem) -> np.ndarray:
        weight = problem.weight[:, None]
        # Votes for a class or label, and votes against it, side by side.
        values = np.concatenate([problem.targets * weight, (1 - problem.targets) * weight], axis=1)
        rate = (problem.weight @ problem.targets + 1) / (len(problem.X) + 2)
        self._prior, self._rest = rate, 1 - np.minimum(rate, 1 - 1e-6)
        self._neighbours = _Neighbours(problem, values)
        counts = [int(c) for c in self.neighbours]
        losses = []
        held_out = []
        for sums in self._neighbours.held_out(counts, problem.folds):
            held_out.append(self._votes(sums))
            loss = calibrate(held_out[-1], problem.targets, problem.weight, problem.task).loss
            losses.append(loss)
        best = int(np.argmin(losses))
        self.chosen_ = {"neighbours": counts[best]}
        self.inner_losses_ = dict(zip(counts, losses, strict=True))
        return held_out[best]

    def _decide(self, X: np.ndarray) -> np.ndarray:
        near = self._neighbours
        everyone = np.ones(len(near.Z), dtype=bool)
        (sums,) = near.sums(near.standardise(X), [self.chosen_["neighbours"]], everyone)
        return self._votes(sums)


class KNNRegressionProbe(RegressorProbe):
    """The mean of the cosine nearest neighbours' numbers.

    Args:
        neighbours: numbers of neighbours to choose from.
        n_folds, random_state: the inner folds.
    """

    def __init__(
        self, neighbours: Sequence[int] = NEIGHBOURS, *, n_folds: int = 5, random_state: Any = 0
    ) -> None:
        self.neighbours = neighbours
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        # A column of ones counts the neighbours, fewer than asked for in small sets.
        values = np.concatenate([problem.targets, np.ones((len(problem.X), 1))], axis=1)
        self._neighbours = _Neighbours(problem, values)
        counts = [int(c) for c in self.neighbours]
        held_out = [
            sums[:, :-1] / sums[:, -1:] for sums in self._neighbours.held_out(counts, problem.folds)
        ]
        losses = [regression_loss(predicted, problem.targets) for predicted in held_out]
        best = int(np.argmin(losses))
        self.chosen_ = {"neighbours": counts[best]}
        self.inner_losses_ = dict(zip(counts, losses, strict=True))
        return held_out[best]

    def _decide(self, X: np.ndarray) -> np.ndarray:
        near = self._neighbours
        everyone = np.ones(len(near.Z), dtype=bool)
        (sums,) = near.sums(near.standardise(X), [self.chosen_["neighbours"]], everyone)
        return sums[:, :-1] / sums[:, -1:]
