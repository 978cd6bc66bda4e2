"""Do probabilities mean what they say: reliability, and what each threshold costs, with intervals.

Two views. *Top-1* (task "classes"): the confidence is the highest probability of a clip, and it
is right where that class is the true one. *Each class by itself* (both tasks): the confidence is
the class's probability, and it is right where the class is there; over all labels together for
"multilabel".

A model is calibrated if of the answers with confidence p a share p is right. The diagram shows
that share for bins of like confidence (DeGroot & Fienberg 1983, The Statistician 32, 12-22;
Niculescu-Mizil & Caruana, ICML 2005). One number of it is the expected calibration error: the
distance of share and mean confidence, weighted by the bins' sizes (Naeini, Cooper, Hauskrecht,
AAAI 2015; Guo et al., ICML 2017, equation 3). It depends on the bins and, with few clips, is not
zero even of a calibrated model; Brier score and negative log-likelihood, which are proper, stand
beside it. Bins of equal mass (Nguyen & O'Connor, EMNLP 2015) have as many clips each.

Thresholds: a clip is answered where its confidence reaches the threshold. *Coverage* is the share
that is answered, *precision* the share of the answered that is right, *recall* the share of all
that is answered and right (for classes and labels: of those that are there). For classes this is
selective classification (Geifman & El-Yaniv, NeurIPS 2017: coverage and selective risk, which is
one minus precision).

All intervals are of the cluster bootstrap, see `bootstrap`.

Symbols: n clips, K classes, G groups, R resamples, T thresholds, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import Groups, draw, group_codes, group_sums, limits
from ossicle.metrics.weighted import ratio

#: Where precision, recall and coverage are told, from "everything is answered" on.
THRESHOLDS = (0.0, *(round(0.05 * i, 2) for i in range(1, 20)), 0.98, 0.99)
#: Those told class by class.
CLASS_THRESHOLDS = (0.5, 0.7, 0.9)
N_BINS = 10
# Fewer clips than this say nothing about a bin of equal mass.
_BIN_CLIPS = 10
_BLOCK = 2**18
# Resamples times groups that are held; with more groups there are fewer resamples, at least 200.
_WORK = 2 * 10**7


class Bins(NamedTuple):
    """Answers in bins of like confidence; empty bins are left out.

    Attributes:
        low, high: (B,) edges: low < confidence <= high, and the first bin holds its low edge too.
        size: (B,) answers in the bin.
        confidence: (B,) their mean confidence.
        accuracy: (B,) the share of them that is right.
        place: (n,) bin of each answer.
    """

    low: np.ndarray
    high: np.ndarray
    size: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    place: np.ndarray


def bin_answers(
    confidence: ArrayLike, right: ArrayLike, *, n_bins: int = N_BINS, strategy: str = "mass"
) -> Bins:
    """Sort answers into bins of like confidence.

    Args:
        confidence: (n,) in [0, 1].
        right: (n,) 0/1.
        n_bins: how many; equal confidences stay together, so that there may be fewer.
        strategy: "mass" (as many answers each) or "width" (equal parts of [0, 1]).

    Raises:
        DataError: no answers, unequal lengths, confidences outside [0, 1], another strategy.
    """
    sure, hit = _checked(confidence, right)
    if strategy == "width":
        edges = np.linspace(0.0, 1.0, n_bins + 1)
    elif strategy == "mass":
        edges = np.percentile(sure, 100 * np.linspace(0.0, 1.0, n_bins + 1))
    else:
        raise DataError(f"bins of equal {strategy!r}: choose mass or width")
    place = np.searchsorted(edges[1:-1], sure)
    count = np.bincount(place, minlength=n_bins)
    kept = np.flatnonzero(count)
    return Bins(
        edges[kept],
        edges[kept + 1],
        count[kept],
        np.bincount(place, sure, n_bins)[kept] / count[kept],
        np.bincount(place, hit, n_bins)[kept] / count[kept],
        np.searchsorted(kept, place),
    )


def calibration_error(
    confidence: ArrayLike, right: ArrayLike, *, n_bins: int = N_BINS, strategy: str = "mass"
) -> float:
    """Expected calibration error: sum over bins of count / n times |accuracy - confidence|.

    Arguments and errors as for `bin_answers`; in [0, 1].
    """
    bins = bin_answers(confidence, right, n_bins=n_bins, strategy=strategy)
    weight = bins.size / bins.size.sum()
    return float(weight @ np.abs(bins.accuracy - bins.confidence))


def brier(y_true: ArrayLike, y_score: ArrayLike) -> np.ndarray:
    """(n,) squared distances of (n, K) probabilities from (n, K) truths 0/1, summed over classes.

    Brier (1950, Monthly Weather Review 78, 1-3): in [0, 2] for classes; for labels, which are
    independent answers, divide by K.
    """
    return ((np.asarray(y_score, float) - np.asarray(y_true, float)) ** 2).sum(axis=-1)


def log_loss(y_true: ArrayLike, y_score: ArrayLike, *, labels: bool = False) -> np.ndarray:
    """(n,) negative log-likelihoods (nats) of (n, K) truths 0/1 under (n, K) probabilities.

    Probabilities are kept from 0 and 1 by the float64 epsilon, as scikit-learn has it, so that
    one impossible clip does not make the mean infinite.

    Args:
        y_true: (n, K) 0/1.
        y_score: (n, K) probabilities.
        labels: the K answers are independent of one another: the mean of their losses.
    """
    tiny = np.finfo(np.float64).eps
    p = np.clip(np.asarray(y_score, float), tiny, 1 - tiny)
    t = np.asarray(y_true, float)
    if labels:
        return -(t * np.log(p) + (1 - t) * np.log1p(-p)).mean(axis=-1)
    return -(t * np.log(p)).sum(axis=-1)


def reliability(
    task: str,
    y_true: ArrayLike,
    y_score: ArrayLike,
    classes: Sequence[str],
    *,
    groups: Groups = None,
    thresholds: Sequence[float] = THRESHOLDS,
    class_thresholds: Sequence[float] = CLASS_THRESHOLDS,
    n_bins: int = N_BINS,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> dict[str, Any]:
    """Reliability, and precision, recall and coverage at each threshold, ready for JSON.

    Args:
        task: "classes" or "multilabel".
        y_true: (n,) class indices, or (n, K) 0/1.
        y_score: (n, K) probabilities.
        classes: the K names.
        groups: (n,) group of each clip; None: the clip on its own.
        thresholds, class_thresholds: of all classes together, and class by class.
        n_bins: at most; of equal mass no more than leave ten answers in each.
        n_resamples, confidence, random_state: as for `ossicle.metrics.interval`; of more than
            20,000 groups there are fewer resamples, at least 200.

    Returns:
        kind ("top-1" or "labels"), n (answers), confidence and accuracy (their means),
        ece_mass, ece_width, brier, nll: each {"value", "low", "high"};
        bins: {"mass": [...], "width": [...]}, each bin low, high, n, confidence,
        accuracy {"value", "low", "high"};
        thresholds: [{threshold, n, coverage, precision, recall}], the last three with intervals;
        per_class: [{class, n (clips of it), ece, thresholds}].
        What is not defined (the precision of no answers) is NaN.

    Raises:
        DataError: another task, shapes that do not fit, probabilities outside [0, 1].
    """
    truth, p, codes, n_groups = _inputs(task, y_true, y_score, classes, groups)
    n_resamples = min(n_resamples, max(200, _WORK // n_groups))
    counts = np.concatenate(list(draw(n_groups, n_resamples, random_state, n_resamples)))
    boot = _Boot(codes, n_groups, counts, confidence)
    single = task == "classes"
    if single:
        rows = np.arange(len(p))
        top = p.argmax(axis=1)
        sure, right = p[rows, top], truth[rows, top]
        where, there = codes, np.ones(len(p))
    else:
        sure, right, where = p.ravel(), truth.ravel(), np.repeat(codes, p.shape[1])
        there = right
    losses = {
        "brier": (brier(truth, p) / (1 if single else p.shape[1]), 2.0 if single else 1.0),
        "nll": (log_loss(truth, p, labels=not single), np.inf),
    }
    mass = max(2, min(n_bins, len(sure) // _BIN_CLIPS))
    sorted_into = {
        "mass": bin_answers(sure, right, n_bins=mass, strategy="mass"),
        "width": bin_answers(sure, right, n_bins=n_bins, strategy="width"),
    }
    result: dict[str, Any] = {
        "kind": "top-1" if single else "labels",
        "n": len(sure),
        "confidence": float(sure.mean()),
        "accuracy": float(right.mean()),
    }
    for name, bins in sorted_into.items():
        result[f"ece_{name}"] = boot.error(bins, sure, right, where)
    for name, (loss, most) in losses.items():
        result[name] = boot.mean(loss, np.ones(len(loss)), codes, (0.0, most))
    result["bins"] = {name: boot.bins(bins, right, where) for name, bins in sorted_into.items()}
    result["thresholds"] = boot.thresholds(sure, right, there, where, thresholds)
    if not single:
        # A clip is answered where any of its labels is.
        for row, share in zip(
            result["thresholds"],
            boot.shares(p.max(axis=1, keepdims=True) >= np.asarray(thresholds), codes),
            strict=True,
        ):
            row["coverage"] = share if row["threshold"] > 0 else row["coverage"]
    result["per_class"] = []
    for k, name in enumerate(classes):
        # Of the "classes" task, an answer is the top class alone.
        said = np.where(p.argmax(axis=1) == k, p[:, k], -1.0) if single else p[:, k]
        result["per_class"].append(
            {
                "class": str(name),
                "n": int(truth[:, k].sum()),
                "ece": calibration_error(p[:, k], truth[:, k], n_bins=mass, strategy="mass"),
                "thresholds": boot.thresholds(
                    said, truth[:, k], truth[:, k], codes, class_thresholds
                ),
            }
        )
    return result


class _Boot:
    """Resamples of groups, and the intervals of ratios of sums over them."""

    def __init__(
        self, codes: np.ndarray, n_groups: int, counts: np.ndarray, confidence: float
    ) -> None:
        self.codes, self.n_groups, self.level = codes, n_groups, confidence
        self.counts = counts.astype(np.float64)  # (R, G)

    def sums(self, columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """(n, C) values -> (G, C) sums of each group."""
        return np.stack([group_sums(column, codes, self.n_groups) for column in columns.T], 1)

    def ratios(
        self,
        above: np.ndarray,
        below: np.ndarray,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> list[dict[str, float]]:
        """(G, C) sums over (G, C) sums -> C times {"value", "low", "high"}.

        What an interval rests on are the groups that have a part in it.
        """
        found = []
        width = max(1, _BLOCK // len(self.counts))
        for start in range(0, above.shape[1], width):
            part = slice(start, start + width)
            samples = ratio(self.counts @ above[:, part], self.counts @ below[:, part])
            values = ratio(above[:, part].sum(0), below[:, part].sum(0))
            rest = (below[:, part] > 0).sum(0)
            for value, sample, own in zip(values, samples.T, rest, strict=True):
                low, high = limits(sample, float(value), int(own), self.level, bounds)
                found.append({"value": float(value), "low": low, "high": high})
        return found

    def mean(
        self, above: np.ndarray, below: np.ndarray, codes: np.ndarray, bounds: tuple[float, float]
    ) -> dict[str, float]:
        """The ratio of the sums of (n,) values and (n,) weights."""
        sums = self.sums(np.stack([above, below], 1), codes)
        return self.ratios(sums[:, :1], sums[:, 1:], bounds)[0]

    def shares(self, inside: np.ndarray, codes: np.ndarray) -> list[dict[str, float]]:
        """Of (n, C) bool, the share of each column."""
        sums = self.sums(inside.astype(np.float64), codes)
        everyone = self.sums(np.ones((len(inside), 1)), codes)
        return self.ratios(sums, np.broadcast_to(everyone, sums.shape))

    def bins(self, bins: Bins, right: np.ndarray, codes: np.ndarray) -> list[dict[str, Any]]:
        """Rows of a reliability diagram."""
        inside = np.eye(len(bins.size))[bins.place]
        shares = self.ratios(self.sums(inside * right[:, None], codes), self.sums(inside, codes))
        return [
            {
                "low": float(low),
                "high": float(high),
                "n": int(count),
                "confidence": float(sure),
                "accuracy": share,
            }
            for low, high, count, sure, share in zip(*bins[:4], shares, strict=True)
        ]

    def error(
        self, bins: Bins, sure: np.ndarray, right: np.ndarray, codes: np.ndarray
    ) -> dict[str, float]:
        """The expected calibration error, the bins staying as they are in all resamples."""
        inside = np.eye(len(bins.size))[bins.place]
        gap = self.sums(inside * (right - sure)[:, None], codes)
        size = np.bincount(codes, minlength=self.n_groups)
        samples = np.abs(self.counts @ gap).sum(1) / (self.counts @ size)
        value = float(np.abs(gap.sum(0)).sum() / size.sum())
        low, high = limits(samples, value, int((size > 0).sum()), self.level, (0.0, 1.0))
        return {"value": value, "low": low, "high": high}

    def thresholds(
        self,
        sure: np.ndarray,
        right: np.ndarray,
        there: np.ndarray,
        codes: np.ndarray,
        thresholds: Sequence[float],
    ) -> list[dict[str, Any]]:
        """Rows of threshold, n, coverage, precision, recall.

        Args:
            sure: (n,) confidence of each answer; below 0: no answer whatever the threshold.
            right: (n,) 0/1.
            there: (n,) what recall is counted of.
            codes: (n,) groups.
            thresholds: (T,).
        """
        shape = (self.n_groups, len(thresholds))
        answered, hits = np.zeros(shape), np.zeros(shape)
        for i, threshold in enumerate(thresholds):  # all at once would be n x T numbers
            said = sure >= threshold
            answered[:, i] = group_sums(said, codes, self.n_groups)
            hits[:, i] = group_sums(said * right, codes, self.n_groups)
        every = self.sums(np.stack([np.ones(len(sure)), there], 1), codes)
        coverage = self.ratios(answered, np.broadcast_to(every[:, :1], shape))
        precision = self.ratios(hits, answered)
        recall = self.ratios(hits, np.broadcast_to(every[:, 1:], shape))
        whole = {"value": 1.0, "low": 1.0, "high": 1.0}  # by definition, nothing was measured
        return [
            {
                "threshold": float(threshold),
                "n": int(n),
                "coverage": coverage[i] if threshold > 0 or n < len(sure) else dict(whole),
                "precision": precision[i],
                "recall": recall[i],
            }
            for i, (threshold, n) in enumerate(zip(thresholds, answered.sum(0), strict=True))
        ]


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sure, hit = np.asarray(confidence, float).ravel(), np.asarray(right, float).ravel()
    # A softmax of float32 may end a little above 1.
    sure = np.where(np.abs(sure - 0.5) <= 0.5 + 1e-5, np.clip(sure, 0.0, 1.0), sure)
    if len(sure) != len(hit) or not len(sure):
        raise DataError(f"there are {len(sure)} confidences and {len(hit)} answers")
    # NaN fails the comparison.
    if not ((sure >= 0) & (sure <= 1)).all():
        raise DataError("confidences must be probabilities, in [0, 1]")
    return sure, hit


def _inputs(
    task: str, y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str], groups: Groups
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(n, K) truths 0/1, (n, K) probabilities, (n,) group codes, G."""
    if task not in ("classes", "multilabel"):
        raise DataError(f"task {task!r} has no probabilities: use classes or multilabel")
    p, y = np.asarray(y_score, float), np.asarray(y_true)
    if p.ndim != 2 or not len(p) or p.shape[1] != len(classes) or len(y) != len(p):
        raise DataError(
            f"probabilities {p.shape} do not fit {len(y)} clips, {len(classes)} classes"
        )
    p = _checked(p, p)[0].reshape(p.shape)
    if task == "classes":
        if y.ndim != 1 or not ((y >= 0) & (y < len(classes))).all():
            raise DataError("y_true must be (n,) indices of the classes")
        truth = np.eye(len(classes))[y.astype(np.int64)]
    else:
        if y.shape != p.shape or not np.isin(y, (0, 1)).all():
            raise DataError(f"y_true must be 0/1 of shape {p.shape}, it is {y.shape}")
        truth = y.astype(np.float64)
    return truth, p, *group_codes(groups, len(p))
