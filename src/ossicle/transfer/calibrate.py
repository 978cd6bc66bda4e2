"""From decision values to probabilities: a temperature for classes, sigmoids for labels.

Fitted on decision values of clips that the classifier was not fitted on. The smoothed negative
log-likelihood that is minimised here is also what probes choose their regularisation by: it is
proper, does not mind the scale of the decision values (the temperature takes it up), and varies
smoothly where accuracy moves in steps of one clip.

Sources: Guo et al. (ICML 2017, section 4.2) for the temperature; Platt (1999) with the targets and
the Newton step of Lin, Lin, Weng (2007) for the sigmoids.

Axes: n clips, k classes or labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, softmax


class Calibration(NamedTuple):
    """Logits are `slope * decisions + offset`; `loss` is the mean held-out loss per clip."""

    slope: np.ndarray  # (k,)
    offset: np.ndarray  # (k,)
    loss: float

    def logits(self, decisions: np.ndarray) -> np.ndarray:
        """(n, k) logits of (n, k) decision values."""
        return decisions * self.slope + self.offset

    def fold(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The last layer, (k, d) weight and (k,) bias, with the calibration inside."""
        return weight * self.slope[:, None], bias * self.slope + self.offset


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Softmax over classes, or a sigmoid for each label; (n, k)."""
    return expit(logits) if task == "multilabel" else softmax(logits, axis=1)


def calibrate(
    decisions: np.ndarray, targets: np.ndarray, weight: np.ndarray, task: str
) -> Calibration:
    """Fit the calibration of a task on decision values of held-out clips.

    Args:
        decisions: (n, k) decision values, higher for "more likely".
        targets: (n, k), 1 where the class or label is true.
        weight: (n,) weights of the clips.
        task: "classes" (one temperature, no offsets) or "multilabel" (a sigmoid a label).
    """
    if task == "multilabel":
        return _sigmoids(decisions, targets, weight)
    return _temperature(decisions, targets, weight)


def _temperature(decisions: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> Calibration:
    n, k = decisions.shape
    # One imagined clip a class, as Laplace: perfectly separated clips keep a finite temperature.
    smoothed = (n * targets + 1.0) / (n + k)
    weight = weight / weight.sum()
    centred = decisions - decisions.mean(axis=1, keepdims=True)
    scale = float(np.sqrt(np.mean(centred**2))) or 1.0
    centred = centred / scale
    wanted = float(weight @ (smoothed * centred).sum(axis=1))

    # The loss is convex in the inverse temperature t, so its slope is monotone: Newton's step,
    # kept within a bracket that halves when the step leaves it.
    low, high, t = 1e-3, 1e4, 1.0
    for _ in range(60):
        p = softmax(t * centred, axis=1)
        mean = (p * centred).sum(axis=1)
        slope = float(weight @ mean) - wanted
        curvature = float(weight @ ((p * centred**2).sum(axis=1) - mean**2))
        low, high = (t, high) if slope < 0 else (low, t)
        step = t - slope / curvature if curvature > 1e-12 else -1.0
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - t) <= 1e-9 * t or high / low < 1 + 1e-9:
            break
        t = following
    loss = -float(weight @ (smoothed * log_softmax(t * centred, axis=1)).sum(axis=1))
    return Calibration(np.full(k, t / scale), np.zeros(k), loss)


def _sigmoids(decisions: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> Calibration:
    weight = weight / weight.mean()
    positive = weight @ targets
    negative = weight.sum() - positive
    wanted = np.where(targets > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    spread = decisions.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    centre = decisions.mean(axis=0)
    s = (decisions - centre) / spread
    w = weight[:, None]

    a = np.zeros(s.shape[1])
    b = np.log((positive + 1) / (negative + 1))

    def loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        z = a * s + b
        return (w * (np.logaddexp(0, z) - wanted * z)).sum(axis=0)

    current = loss(a, b)
    for _ in range(50):
        p = expit(a * s + b)
        error, variance = w * (p - wanted), w * p * (1 - p)
        ga, gb = (error * s).sum(axis=0), error.sum(axis=0)
        haa = (variance * s * s).sum(axis=0) + 1e-9
        hab, hbb = (variance * s).sum(axis=0), variance.sum(axis=0) + 1e-9
        det = np.maximum(haa * hbb - hab**2, 1e-18)
        da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
        rate = np.ones_like(a)
        for _ in range(12):  # Newton's step is halved for the labels whose loss it would raise.
            proposed = loss(a - rate * da, b - rate * db)
            worse = ~(proposed <= current + 1e-12)
            if not worse.any():
                break
            rate = np.where(worse, rate / 2, rate)
        a, b = a - rate * da, b - rate * db
        done = np.max(np.abs(current - proposed)) < 1e-9 * len(s)
        current = proposed
        if done:
            break
    # Where held-out decisions point the wrong way the label's rate is the best that can be said.
    wrong = a <= 0
    a = np.where(wrong, 0.0, a)
    b = np.where(wrong, np.log((positive + 1) / (negative + 1)), b)
    mean_loss = float(loss(a, b).mean() / len(s))
    return Calibration(a / spread, b - a * centre / spread, mean_loss)
