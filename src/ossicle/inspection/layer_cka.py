"""How alike the layers of a network are to each other: linear CKA over clips, with intervals.

Symbols: n clips, d features, L layers, B blocks of clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import group_codes
from ossicle.transfer.transferability import as_features, gram

N_BLOCKS = 10  # of the jackknife
LEAST_CLIPS = 8


class LayerCKA(NamedTuple):
    """The matrix, and what it rests on.

    Attributes:
        layers: L names, shallow to deep.
        matrix, low, high: (L, L) debiased linear CKA and its interval; NaN for a layer that does
            not vary over the clips.
        neighbours: mean over the L - 1 pairs of layers next to each other, and its interval; NaN
            with one layer.
        n_clips, n_groups: how many clips, of how many groups.
    """

    layers: tuple[str, ...]
    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray
    neighbours: tuple[float, float, float]
    n_clips: int
    n_groups: int


def layer_cka(
    features: Mapping[str, np.ndarray],
    groups: Any = None,
    *,
    confidence: float = 0.95,
    random_state: int = 0,
) -> LayerCKA:
    """Debiased linear CKA of every layer with every other, as ``transfer.linear_cka`` has it.

    Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited", ICML
    2019, section 3, with the unbiased products of Song et al. 2007. Plain CKA tends to 1 where
    there are many more features than clips, as there are here.

    The interval is the jackknife's over blocks of whole groups, not the bootstrap's: a clip drawn
    twice is its own perfect neighbour, and would make all layers look alike.

    Args:
        features: layer -> (n, d) of the same clips in the same order.
        groups: (n,) recording, speaker or site of each clip; None: clips are independent.
        confidence: of the intervals.
        random_state: seed of how groups are dealt to blocks.

    Raises:
        DataError: fewer than 8 clips.
        FeatureError: NaN.
    """
    arrays = [as_features(X, f"features of {name}") for name, X in features.items()]
    n = len(arrays[0])
    if n < LEAST_CLIPS:
        raise DataError(f"{n} clips say nothing about layers: at least {LEAST_CLIPS} are needed")
    grams = np.stack([gram(X, centre=True) for X in arrays])
    # What rounding leaves of features that do not vary; as in linear_cka.
    least = [(1e-13 * float(np.max(np.abs(X))) ** 2 * X.size) ** 2 for X in arrays]
    codes, n_groups = group_codes(groups, n)
    matrix = cka_of_grams(grams, np.array(least))
    dealt = np.random.default_rng(random_state).permutation(n_groups) % min(N_BLOCKS, n_groups)
    blocks = dealt[codes]
    rest = [blocks != b for b in range(int(dealt.max()) + 1)]
    without = np.stack(
        [
            cka_of_grams(grams[:, kept][:, :, kept], np.array(least))
            if kept.sum() >= 4
            else np.full_like(matrix, np.nan)
            for kept in rest
        ]
    )
    near = np.diagonal(matrix, 1)
    middle = float(near.mean()) if len(near) else float("nan")
    low, high = _jackknife(matrix, without, confidence)
    ends = (
        _jackknife(np.array(middle), np.diagonal(without, 1, 1, 2).mean(axis=1), confidence)
        if len(near)
        else (np.array(np.nan), np.array(np.nan))
    )
    return LayerCKA(
        tuple(features),
        matrix,
        low,
        high,
        (middle, float(ends[0]), float(ends[1])),
        n,
        n_groups,
    )


def cka_of_grams(grams: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """(L, n, n) products of clips -> (L, L) debiased CKA.

    The estimate of Song et al. 2007, equation 4, is the product of matrices centred so that all
    rows without the diagonal sum to 0 (Szekely and Rizzo 2014, "Partial distance correlation with
    methods for dissimilarities", section 2.1).

    Args:
        grams: any offset of the features is no matter.
        least: (L,) products of a layer with itself up to which it counts as constant.
    """
    n = grams.shape[1]
    K = np.array(grams, np.float64)
    diagonal = np.arange(n)
    K[:, diagonal, diagonal] = 0
    rows = K.sum(axis=2)
    K -= (rows[:, :, None] + rows[:, None, :]) / (n - 2)
    K += (rows.sum(axis=1) / ((n - 1) * (n - 2)))[:, None, None]
    K[:, diagonal, diagonal] = 0
    flat = K.reshape(len(K), -1)
    products = flat @ flat.T
    norms = np.diag(products).copy()
    norms[norms <= least] = np.nan
    made: np.ndarray = products / np.sqrt(np.outer(norms, norms))
    # Exactly what it is by definition, not up to rounding.
    made[np.diag_indices(len(made))] = np.where(np.isnan(norms), np.nan, 1.0)
    return made


def _jackknife(
    value: np.ndarray, without: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The t interval from B estimates that each lack a block (Efron and Tibshirani 1993, 11)."""
    count = len(without)
    if count < 2:
        return np.full_like(value, np.nan), np.full_like(value, np.nan)
    error = np.sqrt((count - 1) / count * np.sum((without - without.mean(axis=0)) ** 2, axis=0))
    reach = t.ppf((1 + confidence) / 2, count - 1) * error
    return value - reach, np.minimum(value + reach, 1.0)
