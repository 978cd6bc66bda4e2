"""How a probe is fitted on frozen features, by name: ours, and those of published benchmarks.

Where the task has no validation part, what is chosen is chosen on a part of the training clips
that shares no group with the rest. The test part is read once, when everything is chosen.

Sources, all in public repositories: hear-eval-kit (heareval/predictions/task_predictions.py,
PARAM_GRID, and runner.py), xares (src/xares/task.py, trainer.py, models/simple.py), EVAR
(nttcslab/eval-audio-repr, lineareval.py, with daisukelab/general-learning, MLP/torch_mlp_clf2.py),
Wang et al., "Towards learning universal audio representations", arXiv 2111.12124, for HARES.
docs/protocols.md says where ours departs from them.

Axes: n clips, d dimensions, k classes or labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ossicle.benchmark.fitting import (
    Problem,
    Progress,
    beyond_ridge,
    fit_by_minibatches,
    fit_neighbours,
    fit_ridge,
)
from ossicle.benchmark.minibatch import Settings
from ossicle.benchmark.task import Fold
from ossicle.errors import DataError


class Outcome(NamedTuple):
    """What a protocol says of the test part.

    Attributes:
        decisions: (n_test, k) probabilities: of one class a clip, rows sum to 1; of several
            labels, each for itself.
        info: JSON values: protocol, probe, chosen, validation (where what was chosen was chosen),
            validation_score, fitted_on, epochs, seconds; notes where something was not as usual.
    """

    decisions: np.ndarray
    info: dict[str, Any]


@dataclass(frozen=True)
class ProbeProtocol:
    """A row of the table of protocols.

    Attributes:
        name: as on the command line.
        title: a few words.
        source: where it is from.
        how: one sentence for the row of a result.
        layers: the read-out that goes with it, "all" or "last".
        draws: another seed gives another probe.
    """

    name: str
    title: str
    source: str
    how: str
    layers: str
    draws: bool = True


PROTOCOLS: dict[str, ProbeProtocol] = {
    p.name: p
    for p in (
        ProbeProtocol(
            "ossicle",
            "ridge in closed form",
            "docs/probes.md",
            "ridge in closed form, wide layers weighed down; the penalty is chosen on the "
            "validation part, else by leaving out each group, and the probe then fitted on "
            "training and validation clips together",
            "all",
            draws=False,
        ),
        ProbeProtocol(
            "hares",
            "linear layer, or an MLP of one hidden layer",
            "Wang et al., arXiv 2111.12124; rates, batches and epochs are ours",
            "one layer (AudioSet: one hidden layer of 1,024 units) on standardised features by "
            "Adam; learning rate and epoch are chosen on the validation part",
            "last",
        ),
        ProbeProtocol(
            "hear",
            "MLP of one or two hidden layers",
            "HEAR, hear-eval-kit, heareval/predictions/task_predictions.py",
            "MLP of 1 or 2 x 1,024 units with batch norm, 8 of the 16 points of HEAR's grid, point "
            "and epoch chosen on the validation part, fitted on the training part alone",
            "last",
        ),
        ProbeProtocol(
            "xares",
            "layer norm and linear layer (X-ARES calls it MLP)",
            "X-ARES, xares, src/xares/task.py, trainer.py, models/simple.py",
            "layer norm and a linear layer, Adam at 1e-3 falling to 1e-4 in 10 epochs of batches "
            "of 32; the epoch is chosen on the validation part, never on the test part",
            "last",
        ),
        ProbeProtocol(
            "xares-knn",
            "nearest neighbours, nothing trained",
            "X-ARES, xares, src/xares/trainer.py",
            "10 nearest training clips by scalar product, weighted by a softmax over 0.07; "
            "nothing is trained or chosen",
            "last",
            draws=False,
        ),
        ProbeProtocol(
            "evar",
            "linear layer",
            "EVAR, eval-audio-repr, lineareval.py",
            "one layer on standardised features by Adam, at most 200 epochs, patience 20; learning "
            "rate and epoch are chosen on the validation part, fitted on the training part alone",
            "last",
        ),
    )
}

HARES = Settings(1e-3, batch_size=128, max_epochs=100, patience=10)
HEAR = Settings(
    1e-3,
    batch_size=1024,
    max_epochs=500,
    patience=20,
    check_every=3,
    standardise=False,
    batch_norm=True,
    dropout=0.1,
)
HEAR_POINTS = 8
EVAR = Settings(3e-4, 200, 200, patience=20, weight_decay=1e-8, later_ties=True)
XARES = Settings(1e-3, 32, 10, standardise=False, layer_norm=True, final_rate=0.1)


def grid(name: str, probe: str, clips: int, seed: int) -> list[Settings]:
    """The settings that a protocol tries.

    Args:
        name: "hares", "hear", "xares" or "evar".
        probe: "linear" or "mlp"; only "hares" has both.
        clips: in the training part.
        seed: draws HEAR's points.
    """
    if name == "hares":
        # About fifty steps an epoch: small sets would hardly move in steps of a large batch.
        size = 2 ** int(np.clip(np.log2(max(clips, 1) / 50), 4, 8))
        hidden = (1024,) if probe == "mlp" else ()
        rates = (1e-4, 3e-4, 1e-3) if probe == "mlp" else (1e-5, 1e-4, 1e-3, 1e-2)
        base = replace(HARES, batch_size=size, hidden=hidden)
        return [replace(base, learning_rate=rate) for rate in rates]
    if name == "hear":
        points = [
            replace(HEAR, hidden=(1024,) * depth, learning_rate=rate, start=start)
            for depth, rate, start in product(
                (1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4), ("xavier_uniform", "xavier_normal")
            )
        ]
        drawn = np.random.default_rng(seed).permutation(len(points))[:HEAR_POINTS]
        return [points[i] for i in drawn]
    if name == "evar":
        size = min(EVAR.batch_size, clips)
        rates = (3e-5, 1e-4, 3e-4, 1e-3)
        return [replace(EVAR, learning_rate=rate, batch_size=size) for rate in rates]
    return [XARES]


def run_protocol(
    name: str,
    X: Any,
    y: np.ndarray,
    fold: Fold,
    *,
    task: str,
    num_classes: int,
    groups: np.ndarray,
    block_sizes: Sequence[int] | None = None,
    seed: int = 0,
    probe: str = "linear",
    workers: int = 1,
    progress: Progress | None = None,
) -> Outcome:
    """Fit a protocol's probe on a fold and decide on its test part.

    Args:
        name: a key of ``PROTOCOLS``.
        X: anything with ``.shape`` (n, d) for which ``X[rows]`` yields (len(rows), d) float32.
        y: (n,) class indices, or (n, num_classes) 0/1.
        fold: row numbers; where ``fold.valid`` is empty, see ``how``.
        task: "classes" or "multilabel".
        num_classes: classes or labels.
        groups: (n,) what must stay together where training clips are held out.
        block_sizes: columns of each block of X, for "ossicle".
        seed: of everything drawn.
        probe: "linear" or "mlp", for "hares".
        workers: threads that share a grid; no number changes the result.
        progress: told in words.

    Returns:
        Decisions on the test rows. A class without a training clip has probability 0.

    Raises:
        DataError: no such protocol, parts that overlap or are empty, one class, features that are
            constant or not finite.
    """
    started = time.perf_counter()
    y, groups = np.asarray(y), np.asarray(groups)
    fold = Fold(*(np.asarray(part, dtype=np.int64) for part in fold))
    _check(name, X, y, fold, groups, task, num_classes, probe)
    problem = Problem(X, y, fold, groups, task, num_classes, block_sizes, seed, workers, progress)
    notes: list[str] = []
    way = name
    if name == "ossicle" and (too_large := beyond_ridge(problem)):
        notes.append(f"{too_large}: the linear layer of the protocol hares stands for ridge")
        way, probe = "hares", "linear"
    if way == "ossicle":
        decisions, info = fit_ridge(problem)
    elif way == "xares-knn":
        decisions, info = fit_neighbours(problem)
    else:
        decisions, info = fit_by_minibatches(
            problem,
            lambda clips: grid(way, probe, clips, seed),
            parts=10 if way == "evar" else 5,
            again=way in ("hares", "xares"),
            notes=notes,
        )
    info = {"protocol": name, **info, "seconds": round(time.perf_counter() - started, 3)}
    if notes:
        info["notes"] = notes
    return Outcome(decisions, info)


def _check(
    name: str,
    X: Any,
    y: np.ndarray,
    fold: Fold,
    groups: np.ndarray,
    task: str,
    num_classes: int,
    probe: str,
) -> None:
    if name not in PROTOCOLS:
        raise DataError(f"no protocol {name!r}: use one of {', '.join(PROTOCOLS)}")
    if task not in ("classes", "multilabel"):
        raise DataError(f"task {task!r}: protocols know classes and multilabel")
    if probe not in ("linear", "mlp"):
        raise DataError(f"probe {probe!r}: use linear or mlp")
    n = int(X.shape[0])
    shape = (n,) if task == "classes" else (n, num_classes)
    if y.shape != shape or groups.shape != (n,):
        raise DataError(f"labels {y.shape} and groups {groups.shape} for features of {n} clips")
    if not len(fold.train) or not len(fold.test):
        raise DataError(f"no clip is left to {'test' if len(fold.train) else 'learn from'}")
    rows = np.concatenate(fold)
    if len(np.unique(rows)) < len(rows):
        raise DataError("a clip is in two parts of the fold, or twice in one")
    if task == "classes":
        if y.min() < 0 or y.max() >= num_classes:
            raise DataError(f"class {int(y.max())} of {num_classes} classes")
        if len(np.unique(y[fold.train])) < 2:
            raise DataError(
                "all training clips are of one class: a probe needs at least two classes"
            )
