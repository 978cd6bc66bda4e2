"""Which layers to concatenate: every subset where they are few, stepwise where they are many.

Choi et al. (2017) tried all subsets of five layers with a grid of support vector machines. Here a
subset costs a solve of a kernel that is a sum over layers (see `layer_kernels`), and its score is
that of clips held out in folds that keep groups together. A group lasso (`group_sparse`) lets whole
layers enter or stay out instead.

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
from sklearn.metrics import average_precision_score, r2_score

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.group_sparse import group_sparse_path, layer_coordinates
from ossicle.transfer.layer_kernels import (
    LINEAR_PENALTIES,
    RBF_PENALTIES,
    RBF_WIDTHS,
    LayerKernels,
    Setting,
)
from ossicle.transfer.layer_problem import checked_blocks, fold_numbers, target_matrix
from ossicle.transfer.layer_sums import SUMS_PENALTIES, LayerSums, SumsSearch
from ossicle.transfer.probe import create_probe
from ossicle.transfer.problem import FeatureError

MAX_EXHAUSTIVE = 12  # layers: 4,095 subsets
METHODS = ("auto", "exhaustive", "forward", "backward", "group-sparse")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerChoice:
    """A chosen set of layers and how it compares.

    Attributes:
        layers: the chosen layers, in the order of the blocks.
        score: its held-out score: accuracy, macro average precision or R^2. Too good by the choice.
        scores: subset -> score, for every subset tried.
        method: "exhaustive", "forward", "backward", "forward+backward", "group-sparse" or "given".
        n_evaluated: how many subsets were tried.
        setting: penalty, and width of an RBF kernel, that the chosen set was best with; the
            penalty of the group lasso for "group-sparse", whose held-out scores are its own.
        loss: its `held_out_loss` where sets were ranked by it, else NaN.
    """

    layers: tuple[str, ...]
    score: float
    scores: dict[tuple[str, ...], float]
    method: str
    n_evaluated: int
    setting: Setting
    loss: float = float("nan")


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
        return float(np.mean(targets.argmax(axis=1) == decisions.argmax(axis=1)))
    if task == "multilabel":
        positive = targets.any(axis=0)
        return float(average_precision_score(targets[:, positive], decisions[:, positive]))
    return float(r2_score(targets, decisions))


def held_out_loss(task: str, targets: np.ndarray, decisions: np.ndarray) -> float:
    """The loss that probes choose by: calibrated negative log-likelihood, or 1 - R^2.

    Arguments as for `held_out_score`.
    """
    if task == "regression":
        return 1.0 - float(r2_score(targets, decisions))
    return calibrate(decisions, targets, np.ones(len(targets)), task).loss


def choose_layers(
    blocks: Mapping[str, np.ndarray] | LayerSums,
    y: Any,
    *,
    block_sizes: Mapping[str, Sequence[int]] | None = None,
    subsets: Iterable[Sequence[str]] | None = None,
    groups: Any = None,
    folds: Any = None,
    task: str = "classes",
    method: str = "auto",
    criterion: str = "score",
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
        blocks: layer -> (n, d_l) features, the same clips in each; or their products, where they
            are known.
        y: (n,) classes, (n, k) 0/1 labels or numbers.
        block_sizes: layer -> columns of each block (pooling) of it: layers are then judged with the
            weights that the ridge probe gives them. None: all columns weigh the same.
        subsets: choose among these sets of layers, whatever the method.
        groups: (n,) group of each clip; no group is on both sides of a fold.
        folds: (n,) fold of each clip, or (train, test) pairs whose tests are a partition; None
            makes `n_folds` from the groups, stratified.
        task: "classes", "multilabel" or "regression".
        method: "exhaustive", "forward" (adding), "backward" (removing), "group-sparse", or
            "auto": exhaustive up to 12 layers, else the better of forward and backward.
        criterion: "score", or "loss" (see `held_out_loss`), which moves smoothly where accuracy
            moves in steps of one clip: the best of many sets is then less a matter of luck.
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
    if criterion not in ("score", "loss"):
        raise FeatureError(f"criterion {criterion!r}: use 'score' or 'loss'")
    if task not in ("classes", "multilabel", "regression"):
        raise FeatureError(f"task {task!r}: use classes, multilabel or regression")
    if kernel not in ("linear", "rbf"):
        raise FeatureError(f"kernel {kernel!r}: use 'linear' or 'rbf'")
    if isinstance(blocks, LayerSums):
        targets = target_matrix(y, task)
        names = blocks.names
        if len(targets) != len(blocks):
            raise FeatureError(f"{len(targets)} labels for products of {len(blocks)} clips")
    else:
        blocks, targets = checked_blocks(blocks, y, task)
        names = tuple(blocks)
        if block_sizes is not None:
            blocks = LayerSums(blocks, block_sizes=block_sizes)
    if isinstance(blocks, LayerSums) and kernel != "linear":
        raise FeatureError("products of layers, and block sizes, are for the linear kernel")
    fold_of = fold_numbers(targets, groups, folds, task, n_folds, random_state)
    Y = targets if task == "regression" else 2 * targets - 1
    if method == "group-sparse" and subsets is None:
        return _group_sparse(blocks, targets, Y, fold_of, task, criterion, progress)
    if penalties is None:
        penalties = LINEAR_PENALTIES if kernel == "linear" else RBF_PENALTIES
        penalties = SUMS_PENALTIES if isinstance(blocks, LayerSums) else penalties
    kernels: LayerKernels | SumsSearch
    if isinstance(blocks, LayerSums):
        kernels = SumsSearch(blocks, Y, fold_of, penalties)
    else:
        kernels = LayerKernels(
            blocks,
            Y,
            fold_of,
            kernel=kernel,
            penalties=penalties,
            widths=widths,
            max_exact=max_exact,
            n_landmarks=n_landmarks,
            random_state=random_state,
        )
    if subsets is not None:
        method = "given"
    if method == "auto":
        method = "exhaustive" if len(names) <= MAX_EXHAUSTIVE else "forward+backward"
    steps = len(names) * (len(names) + 1) // 2
    total = {"exhaustive": 2 ** len(names) - 1, "forward+backward": 2 * steps - len(names) - 1}
    search = _Search(kernels, targets, task, criterion, progress, total.get(method, steps))
    if subsets is not None:
        for given in subsets:
            search.evaluate(tuple(n for n in names if n in set(given)))
    elif method == "exhaustive":
        for size in range(1, len(names) + 1):
            search.best_of(itertools.combinations(names, size))
    if "forward" in method:
        search.forward(names)
    if "backward" in method:
        search.backward(names)
    best = search.best_of(search.rank)
    return LayerChoice(
        layers=best,
        score=search.score[best],
        scores=search.score,
        method=method,
        n_evaluated=len(search.rank),
        setting=search.setting[best],
        loss=-search.rank[best][0] if criterion == "loss" else float("nan"),
    )


def _group_sparse(
    blocks: Mapping[str, np.ndarray] | LayerSums,
    targets: np.ndarray,
    Y: np.ndarray,
    folds: np.ndarray,
    task: str,
    criterion: str,
    progress: Progress | None,
) -> LayerChoice:
    """The layers that the group lasso keeps under the penalty that does best on held-out clips."""

    def key(predicted: np.ndarray) -> float:
        if criterion == "loss":
            return -held_out_loss(task, targets, predicted)
        return held_out_score(task, targets, predicted)

    path = group_sparse_path(
        blocks.coordinates()
        if isinstance(blocks, LayerSums)
        else {name: layer_coordinates(X) for name, X in blocks.items()},
        Y,
        folds,
        lambda predicted: held_out_score(task, targets, predicted),
        key=key,
        progress=progress,
    )
    scores: dict[tuple[str, ...], float] = {}
    for layers, score in zip(path.layers, path.scores, strict=True):
        if layers:
            scores[layers] = max(score, scores.get(layers, -np.inf))
    chosen = path.layers[path.best]
    return LayerChoice(
        layers=chosen,
        score=scores[chosen],
        scores=scores,
        method="group-sparse",
        n_evaluated=len(scores),
        setting={"penalty": path.penalties[path.best]},
    )


class _Search:
    """Ranks subsets: score (or loss) first, then smaller squared error, then fewer layers."""

    def __init__(
        self,
        kernels: LayerKernels | SumsSearch,
        targets: np.ndarray,
        task: str,
        criterion: str,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.kernels, self.targets, self.task = kernels, targets, task
        self.criterion = criterion
        self.progress, self.total = progress, total
        self.rank: dict[tuple[str, ...], tuple[float, float, int]] = {}
        self.score: dict[tuple[str, ...], float] = {}
        self.setting: dict[tuple[str, ...], Setting] = {}

    def evaluate(self, subset: tuple[str, ...]) -> tuple[float, float, int]:
        if subset not in self.rank:
            for setting, predicted in self.kernels.held_out(subset):
                score = held_out_score(self.task, self.targets, predicted)
                error = float(np.mean((predicted - self.kernels.Y) ** 2))
                key = score
                if self.criterion == "loss":
                    key = -held_out_loss(self.task, self.targets, predicted)
                rank = (key, -error, -len(subset))
                if subset not in self.rank or rank > self.rank[subset]:
                    self.rank[subset], self.setting[subset] = rank, setting
                    self.score[subset] = score
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
    block_sizes: Mapping[str, Sequence[int]] | None = None,
    **settings: Any,
) -> NestedChoice:
    """Choose layers inside each outer training part; score on its test part.

    Args:
        blocks, y, task: as for `choose_layers`.
        groups: (n,) group of each clip, or None.
        outer_folds: (train, test) indices.
        probe: an unfitted probe to fit on the chosen layers; None: ridge, or an RBF support
            vector machine where `kernel="rbf"`.
        block_sizes: layer -> columns of each block of it, for choosing and for the probe.
        settings: further arguments of `choose_layers`.

    Raises:
        FeatureError: as `choose_layers`, and for a training part with one class.
    """
    checked, targets = checked_blocks(blocks, y, task)
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
            block_sizes=block_sizes,
            **settings,
        )
        X = np.concatenate([checked[name] for name in choice.layers], axis=1)
        sizes = [s for name in choice.layers for s in block_sizes[name]] if block_sizes else None
        fitted = clone(probe).fit(X[train], labels[train], inside, sizes)
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
