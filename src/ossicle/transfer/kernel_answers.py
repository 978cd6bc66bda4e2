"""Calibrated answers of a kernel ridge: what a probe would say, from products of clips alone.

Where many fits on parts of the same clips are asked for, all layers enter as one matrix of
products, and a fit costs a factorisation of that matrix.

Axes: n clips, t of them to train on, m to test, k classes or labels.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.diagnose import PENALTIES
from ossicle.transfer.layer_kernels import held_out_exact


def kernel_answers(
    K: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    fold: np.ndarray,
    task: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits for clips that were held out, and for others.

    The penalty and the calibration are those with the least held-out loss, as in the probes.

    Args:
        K: (n, n) products of the clips' features.
        y: (n,) class indices or (n, k) 0/1.
        train, test: rows.
        fold: (t,) inner folds of the training rows.
        task: "classes" (those that the training rows have) or "multilabel".

    Returns:
        (t, k) logits of the training rows, each by a model without its inner fold; (m, k) logits.
    """
    own = np.asarray(y)[train]
    truth = own if task == "multilabel" else own[:, None] == np.unique(own)
    T = 2.0 * truth - 1
    Kt = np.asarray(K[np.ix_(train, train)], np.float64)
    scale = max(float(np.trace(Kt)) / len(train), 1e-12)
    members = [np.flatnonzero(fold == f) for f in np.unique(fold)]
    weight = np.ones(len(train))
    best = None
    for penalty in PENALTIES:
        decided = held_out_exact(Kt, T, penalty * scale, members)
        calibration = calibrate(decided, truth.astype(np.float64), weight, task)
        if best is None or calibration.loss < best[0].loss:
            best = calibration, decided, penalty
    assert best is not None
    calibration, decided, penalty = best
    n = len(train)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = Kt
    system[np.arange(n), np.arange(n)] += penalty * scale
    system[:n, n] = system[n, :n] = 1
    solution = solve(system, np.vstack([T, np.zeros((1, T.shape[1]))]), assume_a="sym")
    told = K[np.ix_(test, train)] @ solution[:n] + solution[n]
    return calibration.logits(decided), calibration.logits(told)
