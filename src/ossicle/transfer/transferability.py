"""How well features or a source classifier suit new labels, before anything is trained.

`log_me`, `h_score`: features and labels. `leep`, `nce`: what a source classifier says of the clips,
and labels. `linear_cka`: two sets of features of the same clips. All are closed forms, in float64,
and work in the smaller of clips and dimensions; none has seen held-out clips, so they rank
representations for one set of labels and do not say which score to expect.

Axes: n clips, d dimensions, k classes, labels or outputs, z source classes, r rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from ossicle.transfer.problem import FeatureError

BLOCK = 1024  # columns that are turned into float64 at a time
# Labels that features reproduce exactly have no finite evidence: this share of their energy, no
# less, counts as noise. It is what rounding leaves.
RESIDUAL_SHARE = 1e-12
ROW_SUM_TOLERANCE = 1e-3


def log_me(features: ArrayLike, labels: ArrayLike, *, task: str = "classes") -> float:
    """The logarithm of maximum evidence of labels given features, per clip.

    Labels y (n,) are taken to be F w + noise, with w ~ N(0, I / a) and noise ~ N(0, I / b), so that
    y ~ N(0, F F^T / a + I / b); the log density is maximised over a and b and divided by n. Several
    outputs (classes one against the rest, 0/1) are averaged. You, Liu, Wang, Long, "LogME:
    practical assessment of pre-trained models for transfer learning", ICML 2021, section 4.

    For a given ratio t = a / b the best b is known, so the maximum is sought over t alone, on a
    grid and then by golden section: it is the global one, where the published iteration may stop at
    another or before it has converged.

    Args:
        features: (n, d), neither centred nor scaled: an offset column counts as a feature. A
            common factor changes nothing.
        labels: (n,) classes, (n, k) 0/1 or (n,) / (n, k) numbers.
        task: "classes", "multilabel" or "regression".

    Returns:
        The mean log evidence per clip, any number; higher is better. For numbers it depends on
        their unit. Labels that all or no clips have are left out of the mean.

    Raises:
        FeatureError: NaN, lengths that differ, labels that do not vary, an unknown task.
    """
    X = as_features(features)
    Y = _targets(labels, task, len(X))
    U, values = _spectrum(X)
    projected = (U.T @ Y) ** 2
    energy = np.sum(Y**2, axis=0)
    rest = np.maximum(energy - projected.sum(axis=0), RESIDUAL_SHARE * energy)
    n = len(X)
    if not len(values):
        return float(np.mean(-0.5 * np.log(2 * np.pi * np.e * energy / n)))

    def evidence(residual: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Log evidence per clip, maximised over b; kept (..., r) are t / (values + t)."""
        fit = -0.5 * np.log(2 * np.pi * np.e * (residual + rest) / n)
        log_volume = np.log(kept).sum(axis=-1) / (2 * n)
        return fit + (log_volume if kept.shape[:-1] == fit.shape else log_volume[:, None])

    def at(log_t: np.ndarray) -> np.ndarray:
        """One ratio for each output, (k,) -> (k,) log evidence per clip."""
        kept = 1 / (1 + values * np.exp(-log_t)[:, None])
        return evidence(np.einsum("kr,rk->k", kept, projected), kept)

    # Beyond these ends the features explain everything or nothing, and the evidence is flat.
    grid = np.arange(np.log(values[0]) - 25, np.log(values[-1]) + 20, 0.5)
    kept = 1 / (1 + values * np.exp(-grid)[:, None])
    best = np.argmax(evidence(kept @ projected, kept), axis=0)
    low, high = (grid[np.clip(best + step, 0, len(grid) - 1)] for step in (-1, 1))
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(36):
        a, b = high - golden * (high - low), low + golden * (high - low)
        left = at(a) > at(b)
        low, high = np.where(left, low, a), np.where(left, b, high)
    return float(at((low + high) / 2).mean())


def leep(source_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The log expected empirical prediction: how well source classes tell the target classes.

    With theta_i the source classifier's probabilities for clip i, P(y, z) = mean over i of
    theta_iz [y_i = y] and P(y | z) = P(y, z) / P(z); the measure is the mean over i of
    log sum_z P(y_i | z) theta_iz. Nguyen, Hassner, Seeger, Archambeau, "LEEP: a new measure to
    evaluate transferability of learned representations", ICML 2020, section 2.

    Args:
        source_probabilities: (n, z), rows summing to 1. Divide the independent outputs of a tagger
            by their sum first.
        labels: (n,) classes.

    Returns:
        At most 0, at least minus the entropy of the labels (nats), which is what a source
        classifier gets that says the same of every clip.

    Raises:
        FeatureError: NaN, rows that are no probabilities, lengths that differ, one class.
    """
    theta = as_features(source_probabilities, "source probabilities")
    theta = theta.astype(np.float64)
    index, k = as_classes(labels, len(theta))
    sums = theta.sum(axis=1)
    wrong = (theta < 0).any(axis=1) | (np.abs(sums - 1) > ROW_SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FeatureError(
            f"source probabilities of clip {row} are negative or sum to {sums[row]:.4g}: each row "
            "must sum to 1 (softmax of scores, or a tagger's outputs divided by their sum)"
        )
    theta /= sums[:, None]
    joint = np.zeros((k, theta.shape[1]))
    np.add.at(joint, index, theta)
    total = joint.sum(axis=0)
    conditional = joint / np.where(total > 0, total, 1.0)
    return float(np.log(np.einsum("iz,iz->i", theta, conditional[index])).mean())


def nce(source_labels: ArrayLike, labels: ArrayLike) -> float:
    """The negative conditional entropy -H(Y | Z) of target classes given source classes, in nats.

    Tran, Nguyen, Hassner, "Transferability and hardness of supervised classification tasks", ICCV
    2019, section 3.

    Args:
        source_labels: (n,) source class of each clip, such as the most probable one.
        labels: (n,) classes.

    Returns:
        0 where the source class determines the target class, minus the entropy of the labels
        where it says nothing about it.

    Raises:
        FeatureError: missing labels, lengths that differ, one target class.
    """
    source, z = as_classes(source_labels, None, "source labels", least=1)
    index, k = as_classes(labels, len(source))
    joint = np.bincount(index * z + source, minlength=k * z).reshape(k, z) / len(index)
    conditional = joint / joint.sum(axis=0)
    seen = joint > 0
    # Never -0.0.
    return float(np.sum(joint[seen] * np.log(conditional[seen])) + 0.0)


def h_score(
    features: ArrayLike, labels: ArrayLike, *, shrinkage: float | str = "ledoit-wolf"
) -> float:
    """The H-score: the share of the features' variance that lies between classes, all directions.

    tr(S^-1 B), S the covariance of the features, B that of their class means. Bao, Li, Huang,
    Zhang, Zheng, Zamir, Guibas, "An information-theoretic approach to transferability in task
    transfer learning", ICIP 2019. With shrinkage s, tr(S_s^-1 (1 - s) B) with
    S_s = (1 - s) S + s tr(S) / d I: Ibrahim, Ponomareva, Mazumder, "Newer is not always better:
    rethinking transferability metrics, their peculiarities, stability and performance", 2021. Both
    covariances are divided by n.

    Args:
        features: (n, d).
        labels: (n,) classes.
        shrinkage: "ledoit-wolf" (Ledoit and Wolf 2004, Journal of Multivariate Analysis 88,
            365-411) or a number from 0 (none) to 1. Without it, features of d >= n - 1 dimensions
            get the highest score whatever they are.

    Returns:
        0 (class means alike, or constant features) to k - 1, for k classes.

    Raises:
        FeatureError: NaN, lengths that differ, one class, another shrinkage.
    """
    X = as_features(features)
    index, k = as_classes(labels, len(X))
    U, values = _spectrum(X, centre=True)
    if not len(values):
        return 0.0
    if shrinkage == "ledoit-wolf":
        share = _ledoit_wolf(X, values)
    elif isinstance(shrinkage, int | float) and 0 <= shrinkage <= 1:
        share = float(shrinkage)
    else:
        raise FeatureError(f"shrinkage {shrinkage!r}: 'ledoit-wolf' or a number from 0 to 1")
    count = np.bincount(index, minlength=k)
    sums = np.zeros((k, len(values)))
    np.add.at(sums, index, U)
    between = (sums**2 / count[:, None]).sum(axis=0)
    shrunk = (1 - share) * values
    return float(np.sum(shrunk * between / (shrunk + share * values.sum() / X.shape[1])))


def linear_cka(first: ArrayLike, second: ArrayLike, *, debiased: bool = False) -> float:
    """Linear centred kernel alignment: how alike two representations of the same clips are.

    |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F) for centred columns. Kornblith, Norouzi, Lee, Hinton,
    "Similarity of neural network representations revisited", ICML 2019, section 3.

    Args:
        first, second: (n, d) and (n, d') features of the same clips in the same order.
        debiased: estimate the three products without bias (Song, Smola, Gretton, Borgwardt, Bedo
            2007, "Supervised feature selection via dependence estimation"). Plain CKA tends to 1
            for any features that are much wider than there are clips.

    Returns:
        0 (nothing in common) to 1 (the same up to rotation and a common factor); debiased, a
        little below 0 by chance.

    Raises:
        FeatureError: NaN, lengths that differ, features that do not vary, fewer than 4 clips.
    """
    X, Y = as_features(first, "first features"), as_features(second, "second features")
    n = len(X)
    if len(Y) != n:
        raise FeatureError(f"first features of {n} clips, second of {len(Y)}: pass the same clips")
    if n < 4:
        raise FeatureError(f"CKA of {n} clips says nothing: at least 4 are needed")
    if max(X.shape[1], Y.shape[1]) <= n:
        A, B = (Z.astype(np.float64) - Z.mean(axis=0, dtype=np.float64) for Z in (X, Y))
        products = [float(np.sum((P.T @ Q) ** 2)) for P, Q in ((A, B), (A, A), (B, B))]
        norms = [np.einsum("nd,nd->n", Z, Z) for Z in (A, B)]
    else:
        K, L = gram(X, centre=True), gram(Y, centre=True)
        products = [float(np.sum(P * Q)) for P, Q in ((K, L), (K, K), (L, L))]
        norms = [np.diag(K), np.diag(L)]
    if debiased:
        pairs = ((norms[0], norms[1]), (norms[0], norms[0]), (norms[1], norms[1]))
        # Rows of centred products sum to 0, which leaves these terms of Song et al., equation 4.
        products = [
            product - n / (n - 2) * (a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2))
            for product, (a, b) in zip(products, pairs, strict=True)
        ]
    for Z, product, name in ((X, products[1], "first"), (Y, products[2], "second")):
        # Rounding lets a constant column vary by some ulps of its value.
        if product <= (1e-13 * float(np.max(np.abs(Z))) ** 2 * Z.size) ** 2:
            raise FeatureError(f"the {name} features do not vary: there is nothing to compare")
    return products[0] / float(np.sqrt(products[1] * products[2]))


def as_features(features: Any, name: str = "features") -> np.ndarray:
    """Features as (n, d) float32 or float64, finite, n and d at least 1.

    Raises:
        FeatureError: they are anything else.
    """
    try:
        X = np.asarray(features)
        X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise FeatureError(f"{name} are not numbers of shape (clips, dims)") from error
    if X.ndim != 2 or not X.size:
        raise FeatureError(f"{name} have shape {X.shape}, expected (clips, dims)")
    for row in range(0, len(X), BLOCK):
        bad = ~np.isfinite(X[row : row + BLOCK]).all(axis=1)
        if bad.any():
            clip = row + int(np.argmax(bad))
            raise FeatureError(f"{name} of clip {clip} hold NaN or infinity: leave the clip out")
    return X


def as_classes(
    labels: Any, n: int | None, name: str = "labels", least: int = 2
) -> tuple[np.ndarray, int]:
    """(n,) class labels of any kind as indices 0 to k - 1, and k.

    Raises:
        FeatureError: another shape or length, missing labels, fewer than `least` classes.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or not len(y):
        raise FeatureError(f"{name} have shape {y.shape}, expected one class for each clip")
    if n is not None and len(y) != n:
        raise FeatureError(f"{name} of {len(y)} clips, where {n} are described: pass one for each")
    if y.dtype == object:
        if any(v is None or v != v for v in y):
            raise FeatureError(f"{name} hold NaN or None: leave out clips without a label")
        y = y.astype(str)
    if y.dtype.kind == "f":
        if np.isnan(y).any():
            raise FeatureError(f"{name} hold NaN or None: leave out clips without a label")
        if (y != np.round(y)).any():
            raise FeatureError(f"{name} are numbers with fractions, not classes")
    classes, index = np.unique(y, return_inverse=True)
    if len(classes) < least:
        raise FeatureError(f"{name} are all {str(classes[0])!r}: there is nothing to tell apart")
    return index.ravel(), len(classes)


def gram(X: np.ndarray, Y: np.ndarray | None = None, *, centre: bool = False) -> np.ndarray:
    """(n, m) float64 products of the rows of (n, d) with those of (m, d), or with themselves.

    Args:
        X, Y: features; Y None takes X.
        centre: subtract the mean of each column of X first, from Y too.
    """
    total = np.zeros((len(X), len(X if Y is None else Y)))
    for start in range(0, X.shape[1], BLOCK):
        A = X[:, start : start + BLOCK].astype(np.float64)
        mean = A.mean(axis=0) if centre else 0.0
        A -= mean
        total += A @ (A if Y is None else Y[:, start : start + BLOCK].astype(np.float64) - mean).T
    return total


def _spectrum(X: np.ndarray, *, centre: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """X X^T = U diag(values) U^T: (n, r) and (r,), by the smaller of (n, n) and (d, d)."""
    n, d = X.shape
    if d >= n:
        values, U = eigh(gram(X, centre=centre), check_finite=False, overwrite_a=True)
        keep = _kept(values, X, 1e-13)
        return U[:, keep], values[keep]
    A = X.astype(np.float64)
    if centre:
        A -= A.mean(axis=0)
    values, V = eigh(A.T @ A, check_finite=False, overwrite_a=True)
    # U is found by dividing by the roots, which costs small directions their digits.
    keep = _kept(values, X, 1e-11)
    return A @ (V[:, keep] / np.sqrt(values[keep])), values[keep]


def _kept(values: np.ndarray, X: np.ndarray, share: float) -> np.ndarray:
    """Which eigenvalues are more than the rounding of the largest, and of the features' size."""
    size = X.size * float(np.max(np.abs(X))) ** 2
    return values > max(share * values[-1], 1e-28 * size, np.finfo(np.float64).tiny)


def _ledoit_wolf(X: np.ndarray, values: np.ndarray) -> float:
    """The shrinkage of Ledoit and Wolf 2004, section 3.3, from eigenvalues n S and row norms."""
    n, d = X.shape
    norms = np.zeros(n)
    for start in range(0, d, BLOCK):
        A = X[:, start : start + BLOCK].astype(np.float64)
        norms += ((A - A.mean(axis=0)) ** 2).sum(axis=1)
    squared = float(np.sum(values**2)) / n**2
    spread = squared - (float(values.sum()) / n) ** 2 / d
    noise = (float(np.mean(norms**2)) - squared) / n
    return float(np.clip(noise / spread, 0.0, 1.0)) if spread > 1e-14 * squared else 1.0


def _targets(labels: Any, task: str, n: int) -> np.ndarray:
    """(n, k) float64 targets that vary."""
    if task == "classes":
        index, k = as_classes(labels, n)
        return np.eye(k)[index]
    if task not in ("multilabel", "regression"):
        raise FeatureError(f"task {task!r}: use classes, multilabel or regression")
    try:
        Y = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FeatureError(f"labels of task {task} must be numbers") from error
    Y = Y[:, None] if Y.ndim == 1 and task == "regression" else Y
    if Y.ndim != 2 or not Y.size:
        raise FeatureError(f"labels of task {task} have shape {Y.shape}, expected (clips, outputs)")
    if len(Y) != n:
        raise FeatureError(f"labels of {len(Y)} clips for features of {n}: pass one for each clip")
    if not np.isfinite(Y).all():
        raise FeatureError("labels hold NaN or infinity: leave out clips without a label")
    if task == "multilabel" and not np.isin(Y, (0.0, 1.0)).all():
        raise FeatureError("multi-label targets must be 0 or 1")
    varying = np.ptp(Y, axis=0) > 0
    if not varying.any():
        raise FeatureError("labels are the same for all clips: there is nothing to tell apart")
    return Y[:, varying]
