"""The support vector machine grid of Choi et al. (2017), one search a set of layers.

Source: Choi, Fazekas, Sandler, Cho, "Transfer learning for music classification and regression
tasks", ISMIR 2017, section 3.2 and the code published with it: C, kernel, gamma and standardising
are searched by cross-validation, and the score reported is `best_score_`, the mean accuracy over
the folds of the best setting. It is not nested, so it is a little higher than a score on new clips.

Axes: n clips, d dimensions of the concatenated layers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import ParameterGrid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

PENALTIES = (0.1, 2.0, 8.0, 32.0)
GAMMAS = (2.0**-3, 2.0**-5, 2.0**-7, 2.0**-9, 2.0**-11, 2.0**-13)


def svm_grid(dim: int) -> list[dict[str, list[Any]]]:
    """The grid for features of `dim` columns: 4 C x (linear + 7 RBF widths) x scaling on or off."""
    scale = [StandardScaler(), "passthrough"]
    gammas = list(dict.fromkeys([*GAMMAS, 1.0 / dim]))
    return [
        {"scale": scale, "svm__C": list(PENALTIES), "svm__kernel": ["linear"]},
        {
            "scale": scale,
            "svm__C": list(PENALTIES),
            "svm__kernel": ["rbf"],
            "svm__gamma": gammas,
        },
    ]


def layer_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All 2^L - 1 non-empty subsets of L names, small ones first, in the order of `names`."""
    return [
        subset
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
    ]


def grid_svm_score(
    blocks: Mapping[str, np.ndarray],
    subset: Sequence[str],
    y: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    standardised: bool = True,
    margin: float | None = None,
) -> dict[str, Any]:
    """Search the grid over the concatenation of some layers, on one thread.

    The numbers are those of scikit-learn's `GridSearchCV` over a pipeline of `StandardScaler` and
    `SVC`; kernels are computed once for all penalties that share them.

    Args:
        blocks: layer name -> (n, d_l) features.
        subset: the layers to concatenate.
        y: (n,) class labels.
        splits: (train, test) indices of each fold.
        standardised: also the half of the grid that standardises; without it `score` is
            `score_unscaled`.
        margin: settings this far behind the leader on the folds so far, two of them or more, are
            given up (a race: Maron & Moore 1993, NIPS, without its bounds); None: all run to the
            end.

    Returns:
        `score` (the best mean accuracy over the folds) and `setting`; `score_unscaled` and
        `setting_unscaled`, the best without standardising; `cpu_s` and `wall_s`.
    """
    X = np.concatenate([blocks[name] for name in subset], axis=1).astype(np.float64)
    settings = [_readable(s) for s in ParameterGrid(svm_grid(X.shape[1]))]
    settings = [s for s in settings if standardised or not s["scaled"]]
    accuracy = np.zeros((len(settings), len(splits)))
    alive = list(range(len(settings)))
    with threadpool_limits(1):
        wall, cpu = time.perf_counter(), time.process_time()
        for fold, (train, test) in enumerate(splits):
            if margin is not None and fold > 1:
                alive = _in_the_race(alive, settings, accuracy[:, :fold].mean(axis=1), margin)
            for scaled in (False, True) if standardised else (False,):
                Z = StandardScaler().fit(X[train]).transform(X) if scaled else X
                # Distances from differences of products: exact enough where clips lie together.
                Z = Z - Z[train].mean(axis=0)
                products = Z @ Z[train].T
                squares = np.einsum("nd,nd->n", Z, Z)
                distances = np.maximum(squares[:, None] + squares[train] - 2 * products, 0.0)
                running = [settings[i] for i in alive if settings[i]["scaled"] == scaled]
                for gamma in dict.fromkeys(s["gamma"] for s in running):
                    K = products if gamma is None else np.exp(-gamma * distances)
                    inside, outside = np.ascontiguousarray(K[train]), K[test]
                    for i in alive:
                        s = settings[i]
                        if (s["scaled"], s["gamma"]) == (scaled, gamma):
                            machine = SVC(C=s["C"], kernel="precomputed").fit(inside, y[train])
                            accuracy[i, fold] = machine.score(outside, y[test])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    means = accuracy.mean(axis=1)
    best = max(alive, key=lambda i: means[i])
    bare = max((i for i in alive if not settings[i]["scaled"]), key=lambda i: means[i])
    return {
        "score": float(means[best]),
        "setting": settings[best],
        "score_unscaled": float(means[bare]),
        "setting_unscaled": settings[bare],
        "cpu_s": cpu,
        "wall_s": wall,
    }


def _in_the_race(
    alive: Sequence[int], settings: Sequence[Mapping[str, Any]], means: np.ndarray, margin: float
) -> list[int]:
    """Settings near the leader of their half, with or without standardising."""
    kept = []
    for i in alive:
        rivals = [j for j in alive if settings[j]["scaled"] == settings[i]["scaled"]]
        if means[i] >= means[rivals].max() - margin:
            kept.append(i)
    return kept


def _readable(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scaled": setting["scale"] != "passthrough",
        "kernel": setting["svm__kernel"],
        "C": float(setting["svm__C"]),
        "gamma": float(setting["svm__gamma"]) if "svm__gamma" in setting else None,
    }


def grid_svm_scores(
    blocks: Mapping[str, np.ndarray],
    y: np.ndarray,
    subsets: Sequence[tuple[str, ...]],
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_jobs: int = 1,
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Search the grid for many sets of layers; yields (subset, result) in the order given.

    Args:
        blocks: layer name -> (n, d_l) features.
        y: (n,) class labels.
        subsets: the sets of layers.
        splits: (train, test) indices of each fold.
        n_jobs: processes, one set of layers each.
    """
    run = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    jobs = (joblib.delayed(grid_svm_score)(blocks, s, y, splits) for s in subsets)
    yield from zip(subsets, run(jobs), strict=True)
