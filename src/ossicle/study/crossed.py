"""Intervals for settings that were each trained from several seeds and tested on the same clips.

Two things are drawn anew when such a study is repeated: the clips it is tested on, by whole groups,
and the seeds. Both are resampled at once, each with replacement and without regard to the other
(Owen 2007, "The pigeonhole bootstrap", The Annals of Applied Statistics 1, 386-411). All settings
share the draws, so that what makes a clip hard or a seed lucky for all of them leaves their
differences alone.

The interval is the value plus and minus t times the resampled deviation: three seeds have few
different resamples, so that quantiles of them say little. The degrees of freedom are those of the
sum of two variances (Satterthwaite 1946, Biometrics Bulletin 2, 110-114), G - 1 and S - 1.

Symbols: A settings, S seeds, n clips in G groups, R resamples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from ossicle.errors import DataError
from ossicle.metrics import PRIMARY, score
from ossicle.metrics.bootstrap import agreement_interval, group_codes
from ossicle.metrics.weighted import (
    count_statistics,
    ranking_statistics,
    regression_statistics,
)

# Numbers of a block of weights that are held at a time.
_BLOCK = 2**18
SEED_DRAWS, GROUP_DRAWS = 1, 2


def metrics_of(task: str) -> tuple[str, ...]:
    """What is compared: the macro AUC where there is one, then the task's own metric."""
    return (PRIMARY[task],) if task == "regression" else ("auc", PRIMARY[task])


class Crossed:
    """The scores of A settings x S seeds, as they are and resampled.

    Args:
        task: "classes", "multilabel" or "regression".
        y: (n,) or (n, K) targets.
        decisions: (A, S, n, K) probabilities, or (A, S, n, 1) predicted numbers.
        classes: K names.
        groups: (n,) what must stay together.
        n_resamples: R.
        confidence: coverage of the intervals.
        seed: of the resampling.
        metrics: what is compared; None: see ``metrics_of``.

    Attributes:
        scores: metric -> (A, S).

    Raises:
        DataError: decisions and targets do not fit.
    """

    def __init__(
        self,
        task: str,
        y: np.ndarray,
        decisions: np.ndarray,
        classes: Sequence[str],
        groups: np.ndarray,
        *,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        metrics: Sequence[str] | None = None,
    ) -> None:
        if decisions.ndim != 4 or decisions.shape[2] != len(y):
            raise DataError(
                f"decisions are {decisions.shape}, not (settings, seeds, {len(y)}, outputs)"
            )
        self.task, self.classes, self.confidence = task, tuple(classes), confidence
        self.metrics = metrics_of(task) if metrics is None else tuple(metrics)
        a, s = decisions.shape[:2]
        codes, self.n_groups = group_codes(groups, len(y))
        self.n_seeds = s
        runs = [(i, j) for i in range(a) for j in range(s)]
        self.scores = {name: np.zeros((a, s)) for name in self.metrics}
        for i, j in runs:
            for name, value in self._score(y, decisions[i, j]).items():
                self.scores[name][i, j] = value
        statistics = {run: self._statistics(y, decisions[run]) for run in runs}
        self._resampled = {name: np.full((a, s, n_resamples), np.nan) for name in self.metrics}
        step = max(1, _BLOCK // len(y))
        # One fewer than there are: the mean of G - 1 draws varies as the mean of G groups does.
        counts = _draws(self.n_groups, n_resamples, np.random.default_rng((seed, GROUP_DRAWS)))
        for first in range(0, n_resamples, step):
            weights = counts[first : first + step][:, codes].astype(np.float64)
            for run, statistic in statistics.items():
                for name, values in statistic(weights).items():
                    if name in self._resampled:
                        self._resampled[name][*run, first : first + len(values)] = values
        drawn = _draws(s, n_resamples, np.random.default_rng((seed, SEED_DRAWS)))
        self._shares = drawn / drawn.sum(axis=1, keepdims=True)

    def _score(self, y: np.ndarray, decisions: np.ndarray) -> dict[str, float]:
        given = decisions[:, 0] if self.task == "regression" else None
        scores = None if self.task == "regression" else decisions
        if self.task == "classes" and not {"auc", "map"} & set(self.metrics):
            # The rankings of a hundred classes would take most of the time.
            given, scores = decisions.argmax(1), None
        values = score(self.task, y, given, scores, self.classes)
        return {name: values[name] for name in self.metrics}

    def _statistics(self, y: np.ndarray, decisions: np.ndarray):  # type: ignore[no-untyped-def]
        """Weights (R, n) -> {metric: (R,)}."""
        if self.task == "regression":
            return regression_statistics(np.asarray(y, np.float64), decisions[:, 0])
        k = len(self.classes)
        true = y.astype(bool) if y.ndim == 2 else np.eye(k, dtype=bool)[y]
        binary = self.task == "classes" and k == 2
        if self.task == "multilabel":
            return ranking_statistics(true, decisions, binary=binary)
        predicted = np.eye(k, dtype=bool)[decisions.argmax(1)]
        counting = count_statistics(true, predicted, single=True)
        if not {"auc", "map"} & set(self.metrics):
            return counting
        ranking = ranking_statistics(true, decisions, binary=binary)
        return lambda weights: {**ranking(weights), **counting(weights)}

    def contrast(self, metric: str, weights: Sequence[float] | np.ndarray) -> dict[str, float]:
        """A weighted sum over settings of the mean score over seeds, with its interval.

        Args:
            metric: of ``metrics``.
            weights: (A,): a one among zeros is a setting's score; weights that sum to 0 are a
                difference.

        Returns:
            "value", "low", "high" (NaN where they cannot be told) and "deviation", the standard
            deviation of the value if clips and seeds were drawn anew.
        """
        w = np.asarray(weights, np.float64)
        value, both, freedom = self.draws(metric, w)
        known = ~np.isnan(both)
        nothing = {"value": value, "low": float("nan"), "high": float("nan")}
        if np.isnan(value) or 2 * known.sum() < len(known) or self.n_groups < 2:
            return {**nothing, "deviation": float("nan")}
        deviation = float(both[known].std())
        lowest, highest = self._bounds(metric, w)
        if deviation < 1e-12:
            if not np.isfinite([lowest, highest]).all():
                return {**nothing, "deviation": deviation}
            low, high = agreement_interval(value, self.n_groups, self.confidence, (lowest, highest))
            return {"value": value, "low": low, "high": high, "deviation": deviation}
        reach = student.ppf((1 + self.confidence) / 2, freedom) * deviation
        return {
            "value": value,
            "low": float(max(value - reach, lowest)),
            "high": float(min(value + reach, highest)),
            "deviation": deviation,
        }

    def draws(self, metric: str, weights: np.ndarray) -> tuple[float, np.ndarray, float]:
        """A contrast, (R,) what it would have been on other clips and seeds, degrees of freedom.

        Args:
            metric, weights: as for ``contrast``.
        """
        by_seed = weights @ self.scores[metric]
        resampled = np.tensordot(weights, self._resampled[metric], axes=1)  # (S, R)
        both = np.einsum("sr,rs->r", resampled, self._shares)
        over_clips = resampled.mean(axis=0)[~np.isnan(both)]
        freedom = _freedom(
            float(over_clips.var()) if len(over_clips) else 0.0,
            self.n_groups,
            float(by_seed.var(ddof=1)) / self.n_seeds if self.n_seeds > 1 else 0.0,
            self.n_seeds,
        )
        return float(by_seed.mean()), both, freedom

    def _bounds(self, metric: str, weights: np.ndarray) -> tuple[float, float]:
        """What the contrast can be: scores lie in 0 to 1, R2 below 1."""
        up, down = weights[weights > 0].sum(), weights[weights < 0].sum()
        if metric == "r2":
            return -np.inf, np.inf if down else float(up)
        return float(down), float(up)

    def how(self) -> str:
        """The intervals in words."""
        seeds = (
            f"{self.n_seeds} seeds" if self.n_seeds > 1 else "one seed, so that its luck is not in"
        )
        return (
            f"Intervals ({100 * self.confidence:g} %) are over {self.n_groups} groups of clips "
            f"and {seeds}, resampled together; all settings share the draws, so that differences "
            "are paired."
        )


def _draws(n: int, n_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """(R, n) how often each of n is drawn in n - 1 draws; a single one is always drawn."""
    if n == 1:
        return np.ones((n_resamples, 1), np.int64)
    return generator.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples)


def _freedom(groups: float, n_groups: int, seeds: float, n_seeds: int) -> float:
    """Satterthwaite's degrees of freedom of the sum of the two variances."""
    below = groups**2 / max(n_groups - 1, 1)
    if n_seeds > 1:
        below += seeds**2 / (n_seeds - 1)
    return (groups + seeds) ** 2 / below if below > 0 else float(max(n_groups - 1, 1))
