"""Which layers to concatenate: every subset where they are few, stepwise where they are many.

Choi et al. (2017) tried all subsets of five layers with a grid of support vector machines. Here a
subset costs a solve of a kernel that is a sum over layers (see `layer_kernels`), and its score is
that of clips held out in folds that keep groups together.

The best score of many subsets is too good: it was chosen for being high. `nested_choice` chooses
inside each outer training part and scores on clips that had no say.

Axes: n clips, d_l dimensions of a layer, k classes, labels or outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import accuracy_score, average_precision_score, r2_score

from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.layer_kernels import (
    LINEAR_PENALTIES,
    RBF_PENALTIES,
    RBF_WIDTHS,
    LayerKernels,
    Setting,
)
from ossicle.transfer.probe import create_probe
from ossicle.transfer.problem import FeatureError

MAX_EXHAUSTIVE = 12  # layers: 4,095 subsets
METHODS = ("auto", "exhaustive", "forward", "backward")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerChoice:
    """A chosen set of layers and how it compares.

    Attributes:
        layers: the chosen layers, in the order of the blocks.
        score: its held-out score: accuracy, macro average precision or R^2. Too good by the choice.
        scores: subset -> score, for every subset tried.
        method: "exhaustive", "forward", "backward" or "forward+backward".
        n_evaluated: how many subsets were tried.
        setting: penalty, and width of an RBF kernel, that the chosen set was best with.
    """

    layers: tuple[str, ...]
    score: float
    scores: dict[tuple[str, ...], float]
    method: str
    n_evaluated: int
    setting: Setting


@dataclass(frozen=True)
class NestedChoice:
    """The honest score of choosing layers.

    Attributes:
        score: of all clips, each by a probe on layers chosen without its outer fold.
        fold_scores: the same within each outer fold.
        choices: the choice inside each outer training part.
        decisions: (n, k) logits, or predicted numbers, of clips in their outer folds; NaN for
            clips that no outer fold tests.
    """

    score: float
    fold_scores: tuple[float, ...]
    choices: tuple[LayerChoice, ...]
    decisions: np.ndarray


def held_out_score(task: str, targets: np.ndarray, decisions: np.ndarray) -> float:
    """Accuracy, macro average precision (labels with positives) or mean R^2.

    Args:
        task: "classes", "multilabel" or "regression".
        targets: (n, k), 0/1 or numbers.
        decisions: (n, k), higher for "more likely", or predicted numbers.
    """
    if task == "classes":
        return float(accuracy_score(targets.argmax(axis=1), decisions.argmax(axis=1)))
    if task == "multilabel":
        positive = targets.any(axis=0)
        return float(average_precision_score(targets[:, positive], decisions[:, positive]))
    return float(r2_score(targets, decisions))


def choose_layers(
    blocks: Mapping[str, np.ndarray],
    y: Any,
    *,
    groups: Any = None,
    folds: Any = None,
    task: str = "classes",
    method: str = "auto",
    kernel: str = "linear",
    penalties: Sequence[float] | None = None,
    widths: Sequence[float] = RBF_WIDTHS,
    n_folds: int = 5,
    max_exact: int = 2048,
    n_landmarks: int = 512,
    random_state: int | None = 0,
    progress: Progress | None = None,
) -> LayerChoice:
    """Choose the layers whose concatenation has the best held-out score.

    Args:
        blocks: layer -> (n, d_l) features, the same clips in each.
        y: (n,) classes, (n, k) 0/1 labels or numbers.
        groups: (n,) group of each clip; no group is on both sides of a fold.
        folds: (n,) fold of each clip, or (train, test) pairs whose tests are a partition; None
            makes `n_folds` from the groups, stratified.
        task: "classes", "multilabel" or "regression".
        method: "exhaustive", "forward" (adding), "backward" (removing), or "auto": exhaustive up
            to 12 layers, else the better of forward and backward.
        kernel: "linear" or "rbf".
        penalties: as multiples of a clip's mean squared norm; None for the kernel's own.
        widths: of the RBF, as multiples of one over the number of dimensions.
        n_folds: folds where none are given.
        max_exact, n_landmarks: above `max_exact` clips the kernel is approximated.
        random_state: of the folds and landmarks.
        progress: called with (subsets done, subsets in all).

    Raises:
        FeatureError: blocks that do not match, NaN, one class, an unknown method or kernel.
    """
    if method not in METHODS:
        raise FeatureError(f"method {method!r}: use one of {', '.join(METHODS)}")
    if kernel not in ("linear", "rbf"):
        raise FeatureError(f"kernel {kernel!r}: use 'linear' or 'rbf'")
    checked, targets = _check(blocks, y, task)
    names = tuple(checked)
    fold_of = _fold_of(targets, groups, folds, task, n_folds, random_state)
    default = LINEAR_PENALTIES if kernel == "linear" else RBF_PENALTIES
    kernels = LayerKernels(
        checked,
        targets if task == "regression" else 2 * targets - 1,
        fold_of,
        kernel=kernel,
        penalties=default if penalties is None else penalties,
        widths=widths,
        max_exact=max_exact,
        n_landmarks=n_landmarks,
        random_state=random_state,
    )
    if method == "auto":
        method = "exhaustive" if len(names) <= MAX_EXHAUSTIVE else "forward+backward"
    steps = len(names) * (len(names) + 1) // 2
    total = {"exhaustive": 2 ** len(names) - 1, "forward+backward": 2 * steps - len(names) - 1}
    search = _Search(kernels, targets, task, progress, total.get(method, steps))
    if method == "exhaustive":
        for size in range(1, len(names) + 1):
            search.best_of(itertools.combinations(names, size))
    if "forward" in method:
        search.forward(names)
    if "backward" in method:
        search.backward(names)
    best = search.best_of(search.rank)
    return LayerChoice(
        layers=best,
        score=search.rank[best][0],
        scores={subset: rank[0] for subset, rank in search.rank.items()},
        method=method,
        n_evaluated=len(search.rank),
        setting=search.setting[best],
    )


class _Search:
    """Ranks subsets: score first, then smaller squared error, then fewer layers."""

    def __init__(
        self,
        kernels: LayerKernels,
        targets: np.ndarray,
        task: str,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.kernels, self.targets, self.task = kernels, targets, task
        self.progress, self.total = progress, total
        self.rank: dict[tuple[str, ...], tuple[float, float, int]] = {}
        self.setting: dict[tuple[str, ...], Setting] = {}

    def evaluate(self, subset: tuple[str, ...]) -> tuple[float, float, int]:
        if subset not in self.rank:
            for setting, predicted in self.kernels.held_out(subset):
                score = held_out_score(self.task, self.targets, predicted)
                error = float(np.mean((predicted - self.kernels.Y) ** 2))
                rank = (score, -error, -len(subset))
                if subset not in self.rank or rank > self.rank[subset]:
                    self.rank[subset], self.setting[subset] = rank, setting
            if self.progress is not None:
                self.progress(len(self.rank), max(self.total, len(self.rank)))
        return self.rank[subset]

    def best_of(self, subsets: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        return max(list(subsets), key=self.evaluate)

    def forward(self, names: tuple[str, ...]) -> None:
        # To the end, not to the first step that does not help: two layers may help only together.
        chosen: tuple[str, ...] = ()
        while len(chosen) < len(names):
            chosen = self.best_of(
                tuple(n for n in names if n in chosen or n == added)
                for added in names
                if added not in chosen
            )

    def backward(self, names: tuple[str, ...]) -> None:
        chosen = names
        self.evaluate(chosen)
        while len(chosen) > 1:
            chosen = self.best_of(tuple(n for n in chosen if n != removed) for removed in chosen)


def nested_choice(
    blocks: Mapping[str, np.ndarray],
    y: Any,
    groups: Any,
    outer_folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    task: str = "classes",
    probe: Any = None,
    **settings: Any,
) -> NestedChoice:
    """Choose layers inside each outer training part; score on its test part.

    Args:
        blocks, y, task: as for `choose_layers`.
        groups: (n,) group of each clip, or None.
        outer_folds: (train, test) indices.
        probe: an unfitted probe to fit on the chosen layers; None: ridge, or an RBF support
            vector machine where `kernel="rbf"`.
        settings: further arguments of `choose_layers`.

    Raises:
        FeatureError: as `choose_layers`, and for a training part with one class.
    """
    checked, targets = _check(blocks, y, task)
    labels = np.asarray(y)
    groups = None if groups is None else np.asarray(groups)
    if probe is None:
        rbf = settings.get("kernel") == "rbf"
        probe = create_probe("svm", task, kernel="rbf") if rbf else create_probe("ridge", task)
    decisions = np.full(targets.shape, np.nan)
    scores, choices = [], []
    for train, test in outer_folds:
        inside = None if groups is None else groups[train]
        choice = choose_layers(
            {name: X[train] for name, X in checked.items()},
            labels[train],
            groups=inside,
            task=task,
            **settings,
        )
        X = np.concatenate([checked[name] for name in choice.layers], axis=1)
        fitted = clone(probe).fit(X[train], labels[train], inside)
        if task == "regression":
            decisions[test] = fitted.predict(X[test]).reshape(len(test), -1)
        else:
            # A class that the training part lacks cannot be predicted.
            seen = np.arange(targets.shape[1])
            if task == "classes":
                seen = np.flatnonzero(np.isin(np.unique(labels), fitted.classes_))
            decisions[test] = -np.inf
            decisions[np.ix_(test, seen)] = fitted.logits(X[test])
        scores.append(held_out_score(task, targets[test], decisions[test]))
        choices.append(choice)
    tested = np.unique(np.concatenate([test for _, test in outer_folds]))
    return NestedChoice(
        score=held_out_score(task, targets[tested], decisions[tested]),
        fold_scores=tuple(scores),
        choices=tuple(choices),
        decisions=decisions,
    )


def _check(
    blocks: Mapping[str, np.ndarray], y: Any, task: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Blocks as float arrays, and (n, k) targets: 0/1 for classes and labels."""
    if task not in ("classes", "multilabel", "regression"):
        raise FeatureError(f"task {task!r}: use classes, multilabel or regression")
    if not blocks:
        raise FeatureError("no layers to choose from")
    y = np.asarray(y)
    checked = {}
    for name, X in blocks.items():
        X = np.asarray(X)
        X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        if X.ndim != 2 or len(X) != len(y):
            raise FeatureError(f"layer {name!r} has shape {X.shape}, expected ({len(y)}, dims)")
        if not np.isfinite(X).all():
            row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
            raise FeatureError(f"layer {name!r} has NaN or infinity, first in row {row}")
        checked[name] = X
    if task == "classes":
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise FeatureError("layers cannot be chosen with all clips of one class")
        return checked, np.eye(len(classes))[index.ravel()]
    targets = y.astype(np.float64).reshape(len(y), -1)
    if task == "multilabel" and not np.isin(targets, (0.0, 1.0)).all():
        raise FeatureError("multi-label targets must be 0 or 1")
    if not np.isfinite(targets).all():
        raise FeatureError("targets have NaN or infinity")
    return checked, targets


def _fold_of(
    targets: np.ndarray, groups: Any, folds: Any, task: str, n_folds: int, random_state: int | None
) -> np.ndarray:
    """(n,) fold of each clip, at least two of them."""
    n = len(targets)
    if folds is None:
        index = targets.argmax(axis=1) if task == "classes" else targets
        return inner_folds(index, groups, task=task, n_folds=n_folds, random_state=random_state)
    if len(folds) == n and np.ndim(folds[0]) == 0:
        fold_of = np.unique(np.asarray(folds).astype(str), return_inverse=True)[1].ravel()
    else:
        fold_of = np.full(n, -1)
        for index, (_, test) in enumerate(folds):
            if (fold_of[test] >= 0).any():
                raise FeatureError("the folds' test parts overlap: each clip needs one fold")
            fold_of[test] = index
        if (fold_of < 0).any():
            raise FeatureError(f"{(fold_of < 0).sum()} clips are in no fold's test part")
    if fold_of.max() < 1:
        raise FeatureError("one fold only: at least two are needed to hold clips out")
    return fold_of
