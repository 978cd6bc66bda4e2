"""Scores of transfer and of scratch by the share of the training data: intervals and tables.

All arms are tried on the same test clips with the same seeds, so that differences are paired: one
set of resampled groups judges every arm, and seed s of one arm meets seed s of the other.

The interval of a mean over S seeds: its variance is that over resampled groups (of the score
averaged over seeds), G / (G - 1) times, as in ossicle.metrics.bootstrap, and that of the S scores
over S. The limits are Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, "An
approximate distribution of estimates of variance components", Biometrics Bulletin 2(6), 110-114),
so that three seeds that disagree make it as wide as three numbers deserve. With one seed it speaks
of test clips alone.

Axes: S seeds, n test clips, G groups of them, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import agreement_interval, draw, group_codes
from ossicle.metrics.weighted import ranking_statistics, regression_statistics
from ossicle.study.size_curve import draw_means

CONFIDENCE = 0.95
N_RESAMPLES = 1000
BOUNDS = {"classes": (0.0, 1.0), "multilabel": (0.0, 1.0), "regression": (-np.inf, 1.0)}
ARMS = {
    "scratch": "random weights, all of them trained on the target",
    "transfer": "weights of the source, a new classifier, all of them trained on the target",
    "probe": "ridge on the frozen layers of the source's network",
    "untrained": "ridge on the frozen layers of a network with random weights",
}


class Trial(NamedTuple):
    """What one arm is: networks of a source (None: no source), on a share of a target's clips."""

    source: str | None
    target: str
    network: str
    arm: str
    share: float


@dataclass
class Target:
    """The clips of a target that all arms are tested on.

    Attributes:
        task: "classes", "multilabel" or "regression".
        metric: its primary score.
        y: (n,) or (n, K) labels.
        groups: (n,) names.
    """

    task: str
    metric: str
    y: np.ndarray
    groups: np.ndarray


@dataclass
class Resampled:
    """A score, or a difference of scores, by seed: ``values`` (S,), ``samples`` (S, R)."""

    values: np.ndarray
    samples: np.ndarray
    n_groups: int
    bounds: tuple[float, float]

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(self.values.mean())

    def __sub__(self, other: Resampled) -> Resampled:
        (low, high), (other_low, other_high) = self.bounds, other.bounds
        bounds = (low - other_high, high - other_low)
        samples = self.samples - other.samples
        return Resampled(self.values - other.values, samples, self.n_groups, bounds)

    def interval(self) -> dict[str, float]:
        """{"value", "low", "high"}; NaN limits where there is nothing to tell them from."""
        n_seeds, value = len(self.values), self.value
        over_groups = self.samples.mean(axis=0)
        known = over_groups[~np.isnan(over_groups)]
        low, high = self.bounds
        if self.n_groups < 2 or 2 * len(known) < len(over_groups):
            return {"value": value, "low": float("nan"), "high": float("nan")}
        parts = [(float(known.var()) * self.n_groups / (self.n_groups - 1), self.n_groups - 1)]
        if n_seeds > 1:
            parts.append((float(self.values.var(ddof=1)) / n_seeds, n_seeds - 1))
        variance = sum(part for part, _ in parts)
        if variance < 1e-24:
            if not np.isfinite(self.bounds).all():
                return {"value": value, "low": float("nan"), "high": float("nan")}
            limits = agreement_interval(value, self.n_groups, CONFIDENCE, self.bounds)
            return {"value": value, "low": limits.low, "high": limits.high}
        freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
        reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
        return {"value": value, "low": max(low, value - reach), "high": min(high, value + reach)}


def mean_of(scores: Sequence[Resampled]) -> Resampled:
    """The mean of several scores, such as those of all shares."""
    values = np.mean([score.values for score in scores], axis=0)
    samples = np.mean([score.samples for score in scores], axis=0)
    return Resampled(values, samples, scores[0].n_groups, scores[0].bounds)


class Judge:
    """Scores decisions on the same clips under the same resampled groups.

    Args:
        tested: the clips.
        seed: of the resamples.
        n_resamples: R.
    """

    def __init__(self, tested: Target, *, seed: int = 0, n_resamples: int = N_RESAMPLES) -> None:
        codes, self.n_groups = group_codes(tested.groups, len(tested.y))
        blocks = draw(self.n_groups, n_resamples, seed, n_resamples)
        self.weights = np.concatenate(list(blocks))[:, codes].astype(np.float64)
        self.tested = tested

    def score(self, decisions: np.ndarray) -> Resampled:
        """Decisions of each seed -> the task's primary score.

        Args:
            decisions: (S, n) predicted classes, (S, n, K) probabilities of labels, or (S, n)
                predicted numbers.
        """
        once = np.ones((1, self.weights.shape[1]))
        pairs = [(self._one(d, once)[0], self._one(d, self.weights)) for d in decisions]
        values, samples = (np.array(column) for column in zip(*pairs, strict=True))
        return Resampled(values, samples, self.n_groups, BOUNDS[self.tested.task])

    def _one(self, decisions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        y = self.tested.y
        if self.tested.task == "classes":
            return weights @ (decisions == y) / weights.sum(axis=1)
        if self.tested.task == "multilabel":
            return ranking_statistics(y == 1, decisions, binary=False)(weights)["map"]
        return regression_statistics(y, decisions)(weights)["r2"]


def matching_share(
    shares: Sequence[float], transfer: Sequence[Resampled], whole: Resampled, seed: int = 0
) -> dict[str, Any]:
    """From which share on transfer is as good as ``whole``, which is scratch on everything.

    Args:
        shares: ascending.
        transfer: the score at each.
        whole: what is to be matched.
        seed: of the draws.

    Returns:
        "share": the smallest from which on all shares tried score at least as much, or None;
        "low", "high": the same in 2.5 % and 97.5 % of draws of groups and seeds (see
        ``ossicle.study.size_curve.draw_means``). None means that no share tried does.
    """
    gains = [score - whole for score in transfer]
    resampled = np.stack([gain.samples.mean(axis=0) for gain in gains], axis=-1)
    draws = draw_means(
        np.stack([gain.values for gain in gains])[None],
        resampled[:, None],
        whole.n_groups,
        random_state=seed,
    )
    observed = np.array([gain.value for gain in gains])

    def first(gain: np.ndarray) -> np.ndarray:
        # Rounding of a mean must not make equal scores differ.
        reached = np.logical_and.accumulate((gain >= -1e-12)[..., ::-1], axis=-1)
        at = np.append(np.asarray(shares, float), np.inf)
        return at[len(shares) - reached.sum(axis=-1)]

    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(first(draws[:, 0]), tails, method="inverted_cdf")
    named = {"share": float(first(observed)), "low": low, "high": high}
    return {key: None if np.isinf(share) else float(share) for key, share in named.items()}


@dataclass
class Curves:
    """Every arm's score, and what is asked of them.

    Attributes:
        scores: of each arm.
        sizes: (target, share) -> clips learnt from, the mean over folds and seeds.
        metrics: target -> name of its score.
        shares: ascending, the last is 1.
        networks: "plain", and "multiscale" where it was tried.
        pairs: (source, target), each of two sets.
    """

    scores: Mapping[Trial, Resampled]
    sizes: Mapping[tuple[str, float], float]
    metrics: Mapping[str, str]
    shares: tuple[float, ...]
    networks: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def arm(self, source: str | None, target: str, network: str, arm: str) -> list[Resampled]:
        """The scores at all shares; scratch has no source.

        Raises:
            DataError: there is no such arm.
        """
        trials = [Trial(source, target, network, arm, share) for share in self.shares]
        if trials[0] not in self.scores:
            raise DataError(f"{target}: {network} networks have no arm {arm!r} from {source}")
        return [self.scores[trial] for trial in trials]

    def gain(self, source: str, target: str, network: str) -> list[Resampled]:
        """Transfer less scratch at all shares."""
        transfer = self.arm(source, target, network, "transfer")
        scratch = self.arm(None, target, network, "scratch")
        return [a - b for a, b in zip(transfer, scratch, strict=True)]

    def interaction(self, source: str, target: str) -> list[Resampled]:
        """(TM - T) - (M - base) at all shares: what both give beyond the sum of each alone.

        McMahan & Rao 2018: T transfer, M the multiscale input, TM both, base neither.
        """
        with_both = self.gain(source, target, "multiscale")
        return [a - b for a, b in zip(with_both, self.gain(source, target, "plain"), strict=True)]

    def gains(self) -> pd.DataFrame:
        """Source, target, network, share, clips; scratch, transfer, and the gain with limits."""
        rows = []
        for (source, target), network in self._each():
            scratch = self.arm(None, target, network, "scratch")
            transfer = self.arm(source, target, network, "transfer")
            for name, a, b in self._with_mean(transfer, scratch):
                gain = (a - b).interval()
                rows.append(
                    {
                        **{"source": source, "target": target, "network": network},
                        **{"share": name, "clips": self._clips(target, name)},
                        **{"scratch": b.value, "transfer": a.value, "gain": gain["value"]},
                        **{"low": gain["low"], "high": gain["high"]},
                    }
                )
        return pd.DataFrame(rows)

    def interactions(self) -> pd.DataFrame:
        """Source, target, share, and the interaction with limits; empty without both networks."""
        rows = []
        for source, target in self.pairs if len(self.networks) > 1 else ():
            both = self.interaction(source, target)
            names = [*map(percent, self.shares), "mean"]
            for name, term in zip(names, [*both, mean_of(both)], strict=True):
                rows.append({"source": source, "target": target, "share": name, **term.interval()})
        return pd.DataFrame(rows).rename(columns={"value": "interaction"})

    def matches(self) -> pd.DataFrame:
        """From which share on transfer matches scratch on everything, of its own network and plain.

        "none" stands for none that was tried.
        """
        rows = []
        for (source, target), network in self._each():
            transfer = self.arm(source, target, network, "transfer")
            for fresh in dict.fromkeys((network, "plain")):
                whole = self.arm(None, target, fresh, "scratch")[-1]
                found = matching_share(self.shares, transfer, whole)
                rows.append(
                    {
                        **{"source": source, "target": target, "network": network},
                        **{"scratch": fresh, "clips": round(self.sizes[target, self.shares[-1]])},
                        **{key: _percent_or_none(share) for key, share in found.items()},
                    }
                )
        return pd.DataFrame(rows)

    def table(self) -> pd.DataFrame:
        """Every score: source, target, network, arm, share, clips, the score with its limits."""
        rows = []
        for trial, score in self.scores.items():
            found = score.interval()
            rows.append(
                {
                    **trial._asdict(),
                    "source": trial.source or "",
                    "share": percent(trial.share),
                    "clips": round(self.sizes[trial.target, trial.share]),
                    "metric": self.metrics[trial.target],
                    **{"score": found["value"], "low": found["low"], "high": found["high"]},
                }
            )
        return pd.DataFrame(rows)

    def _each(self) -> Iterable[tuple[tuple[str, str], str]]:
        return ((pair, network) for pair in self.pairs for network in self.networks)

    def _with_mean(
        self, a: list[Resampled], b: list[Resampled]
    ) -> list[tuple[str, Resampled, Resampled]]:
        names = [percent(share) for share in self.shares]
        return [*zip(names, a, b, strict=True), ("mean", mean_of(a), mean_of(b))]

    def _clips(self, target: str, name: str) -> int | None:
        known = {percent(share): share for share in self.shares}
        return round(self.sizes[target, known[name]]) if name in known else None


def percent(share: float) -> str:
    """0.1 -> "10 %"."""
    return f"{100 * share:g} %"


def _percent_or_none(share: float | None) -> str:
    return "none" if share is None else percent(share)
