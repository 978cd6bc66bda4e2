"""Isotonic calibration: the best never-descending map from probabilities to shares, and the choice.

Where a temperature has the shape of the error wrong (unsure where it may be sure, and the other way
round), a free monotone map can mend it; it needs many more held-out clips to do so, some thousand
answers, and with few it follows their accidents (Niculescu-Mizil & Caruana, ICML 2005, section 5).

It is fitted, like the temperature, on answers for clips by models that had not heard their group
(`held_out_proba_` of the probe), on top of the temperature. Classes share one map, fitted on all
pairs of clip and class together: K times the answers to fit it on, and the order of classes stays
(`ossicle.calibrated`). Labels have a map each.

Axes: n clips, k classes or labels.
"""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from ossicle.calibrated import MAX_KNOTS, CalibrationTable
from ossicle.transfer.calibrate import Calibration, probabilities
from ossicle.transfer.estimator import ClassifierProbe
from ossicle.transfer.problem import FeatureError

CALIBRATIONS = ("temperature", "isotonic", "none")


def check_calibration(kind: str, task: str) -> None:
    """Pass where there is such a calibration, to be asked before long work.

    Raises:
        FeatureError: there is none of this name, or numbers were to be calibrated.
    """
    if kind not in CALIBRATIONS:
        raise FeatureError(f"calibration {kind!r}: choose one of {', '.join(CALIBRATIONS)}")
    if task == "regression" and kind != "temperature":
        raise FeatureError(f"calibration {kind!r}: numbers have no probabilities to calibrate")


def fit_isotonic(
    probabilities: np.ndarray, targets: np.ndarray, weight: np.ndarray, task: str
) -> CalibrationTable:
    """The table of held-out answers.

    Shares of 0 and 1 are kept from certainty by the rule of succession (Laplace): of the s right
    among m answers at the end of the map, (s + 1) / (m + 2).

    Args:
        probabilities: (n, k) for clips that the model had not heard.
        targets: (n, k), 1 where the class or label is true.
        weight: (n,) weights of the clips.
        task: "classes" (one map) or "multilabel" (a map a label).
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    if task == "classes":
        return CalibrationTable([_knots(p.ravel(), y.ravel(), np.repeat(weight, p.shape[1]))], task)
    return CalibrationTable([_knots(p[:, k], y[:, k], weight) for k in range(p.shape[1])], task)


def recalibrate(estimator: ClassifierProbe, kind: str, y: np.ndarray) -> CalibrationTable | None:
    """Give a fitted probe another calibration than its temperature or sigmoids.

    Args:
        estimator: fitted; with "none" its decision values become its logits as they are.
        kind: one of ``CALIBRATIONS``.
        y: what it was fitted on: (n,) labels or (n, k) 0/1.

    Returns:
        What `predict_proba` is to be passed through; None: nothing.

    Raises:
        FeatureError: there is no such calibration.
    """
    check_calibration(kind, estimator.task_)
    if kind == "temperature":
        return None
    y = np.asarray(y)
    if kind == "none":
        fitted, k = estimator.calibration_, len(estimator.classes_)
        # Held-out answers follow: a calibration is invertible but where a label's slope is 0.
        slope = np.where(fitted.slope == 0, 1.0, fitted.slope)
        logits = logits_of(estimator.held_out_proba_, estimator.task_)
        estimator.calibration_ = Calibration(np.ones(k), np.zeros(k), float("nan"))
        estimator.held_out_proba_ = probabilities((logits - fitted.offset) / slope, estimator.task_)
        return None
    multilabel = estimator.task_ == "multilabel"
    targets = y.astype(np.float64) if multilabel else (y[:, None] == estimator.classes_) * 1.0
    weight = estimator._weights(y, targets)
    return fit_isotonic(estimator.held_out_proba_, targets, weight, estimator.task_)


def logits_of(p: np.ndarray, task: str) -> np.ndarray:
    """Logits of probabilities; of classes up to a constant a clip, which softmax ignores."""
    tiny = np.finfo(np.float64).tiny
    log = np.log(np.maximum(p, tiny))
    return log - np.log(np.maximum(1 - p, tiny)) if task == "multilabel" else log


def _knots(p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) knots of the isotonic regression, at most ``MAX_KNOTS``."""
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    fitted.fit(p, y, sample_weight=weight)
    across, up = fitted.X_thresholds_, fitted.y_thresholds_
    given = fitted.predict(p)
    ends = []
    for share in (up[0], up[-1]):
        answers = np.isclose(given, share, rtol=0, atol=1e-12).sum()
        ends.append((share * answers + 1) / (answers + 2))
    low, high = min(ends), max(ends)
    up = np.clip(up, low, high)
    # Equal neighbours in x may remain after rounding; the table wants them strictly ascending.
    across, first = np.unique(np.clip(across, 0.0, 1.0), return_index=True)
    up = up[first]
    if len(across) > MAX_KNOTS:
        some = np.unique(np.linspace(0, len(across) - 1, MAX_KNOTS).round().astype(int))
        across, up = across[some], up[some]
    return across, up
