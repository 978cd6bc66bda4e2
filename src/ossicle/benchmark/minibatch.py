"""Linear and MLP probes by minibatches: many settings side by side, the best epoch of each kept.

What published probe protocols have in common: Adam on shuffled batches of frozen features, a score
on validation clips every few epochs, and the weights of the best of them. All settings of a grid
are trained in step, so that a matrix on disk is read once for all of them. Orders, initial weights
and dropout come from the seed and the epoch alone, on one thread: the same numbers in memory and
from disk, whatever the number of workers.

Axes: n clips, d dimensions, k classes or labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ossicle.benchmark.rows import Moments, chunks, moments, read, read_all
from ossicle.benchmark.validation import validation_score
from ossicle.errors import DataError
from ossicle.features import one_thread
from ossicle.transfer.calibrate import probabilities

MEMORY = 2 * 2**30  # bytes of training and validation features that are held in memory
SECONDS_BETWEEN = 2.0  # two lines of progress


@dataclass(frozen=True)
class Settings:
    """How one probe is trained.

    Attributes:
        learning_rate: of Adam.
        batch_size: clips.
        max_epochs: at most.
        patience: checks without a better score before stopping; None trains all epochs.
        check_every: epochs between two looks at the validation part.
        hidden: units of each hidden layer; none for a linear probe.
        standardise: features to zero mean and unit variance over the training clips.
        layer_norm: of each clip's features, with learnt scale and shift, before the first layer.
        batch_norm: after each hidden layer, before dropout and ReLU.
        dropout: share of hidden units left out.
        start: initial weights, "uniform" (as ``torch.nn.Linear``), "xavier_uniform", or
            "xavier_normal".
        weight_decay: of Adam.
        final_rate: the learning rate falls to this share of itself along half a cosine over
            ``max_epochs``; 1 leaves it.
        later_ties: of epochs with equal scores the last is kept, not the first.
    """

    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int | None = None
    check_every: int = 1
    hidden: tuple[int, ...] = ()
    standardise: bool = True
    layer_norm: bool = False
    batch_norm: bool = False
    dropout: float = 0.0
    start: str = "uniform"
    weight_decay: float = 0.0
    final_rate: float = 1.0
    later_ties: bool = False

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        cosine = (1 + np.cos(np.pi * (epoch - 1) / self.max_epochs)) / 2
        return self.learning_rate * float(self.final_rate + (1 - self.final_rate) * cosine)


@dataclass
class Trained:
    """A probe at its best epoch.

    Attributes:
        settings: how it was trained.
        epoch: the one whose weights it has.
        epochs: trained in all.
        score: on the validation part, accuracy or mean average precision; NaN without one.
        loss: mean log loss a clip there; NaN without one.
        history: (epoch, score, loss) of every check.
    """

    settings: Settings
    network: nn.Module
    moments: Moments | None
    task: str
    epoch: int = 0
    epochs: int = 0
    score: float = float("nan")
    loss: float = float("nan")
    history: list[tuple[int, float, float]] = field(default_factory=list)

    def predict(self, X: Any, rows: np.ndarray) -> np.ndarray:
        """(m, k) float64 probabilities of rows of a feature matrix.

        Raises:
            DataError: features are not finite.
        """
        parts = [np.zeros((0, _outputs(self.network)))]
        with one_thread():
            for part in chunks(rows, X.shape[1]):
                block = read(X, part)
                if self.moments is not None:
                    self.moments.apply(block)
                parts.append(_logits(self.network, torch.from_numpy(block)))
        return probabilities(np.concatenate(parts), self.task)

    def chosen(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.settings).items()
        }


def train(
    X: Any,
    y: np.ndarray,
    rows: np.ndarray,
    valid: np.ndarray,
    grid: Sequence[Settings],
    *,
    task: str,
    num_classes: int,
    seed: int = 0,
    epochs: int | None = None,
    memory: int | None = None,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> list[Trained]:
    """Train every setting of a grid, each to its best epoch on the validation part.

    Args:
        X: (n, d) features; ``X[rows]`` yields (len(rows), d) float32.
        y: (n,) class indices below ``num_classes``, or (n, num_classes) 0/1.
        rows: row numbers to learn from.
        valid: row numbers to choose the epoch on; empty: the last epoch is kept.
        grid: alike in batch size and standardising.
        task: "classes" (cross-entropy, accuracy) or "multilabel" (binary cross-entropy, mean
            average precision).
        num_classes: outputs.
        seed: of orders, initial weights and dropout.
        epochs: train just so many, for the weights after them.
        memory: bytes, MEMORY unless told; larger training and validation features are read
            batch by batch.
        workers: threads that share the grid.
        progress: told in words.

    Raises:
        DataError: features are constant or not finite, or there is one class alone.
    """
    _check(y, rows, grid, task)
    d = X.shape[1]
    standardise = grid[0].standardise
    held = (len(rows) + len(valid)) * d * 4 <= (MEMORY if memory is None else memory)
    if held:
        X = read_all(X, np.concatenate([rows, valid]))
        y = y[np.concatenate([rows, valid])]
        rows, valid = np.arange(len(rows)), np.arange(len(rows), len(y))
    scale = moments(X, rows)  # always: it is what tells constant features
    if held and standardise:
        scale.apply(X)
    batches = _Batches(X, y, task, held, None if held or not standardise else scale)

    def share(which: int) -> list[Trained]:
        part = [_Run(s, d, num_classes, task, seed) for s in grid[which::workers]]
        _train_together(part, batches, rows, valid, seed, epochs, progress if not which else None)
        return [run.trained(scale if standardise else None) for run in part]

    workers = max(1, min(workers, len(grid)))
    with one_thread():
        if workers == 1:
            return share(0)
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            parts = list(pool.map(share, range(workers)))
    return [parts[i % workers][i // workers] for i in range(len(grid))]


def best(trained: Sequence[Trained]) -> Trained:
    """The one with the highest validation score, then the smallest loss, then the first."""
    return max(trained, key=lambda t: (np.nan_to_num(t.score, nan=-1.0), -t.loss))


class _Batches:
    """Batches of a matrix and its labels as tensors."""

    def __init__(self, X: Any, y: np.ndarray, task: str, held: bool, scale: Moments | None) -> None:
        self.X, self.y, self.scale = X, y, scale
        self.held = torch.from_numpy(X) if held else None
        dtype = np.float32 if task == "multilabel" else np.int64
        self.targets = torch.from_numpy(np.ascontiguousarray(y, dtype))

    def features(self, rows: np.ndarray) -> Tensor:
        if self.held is not None:
            return self.held[torch.from_numpy(rows)]
        block = read(self.X, rows)
        return torch.from_numpy(block if self.scale is None else self.scale.apply(block))

    def labels(self, rows: np.ndarray) -> Tensor:
        return self.targets[torch.from_numpy(rows)]


class _Dropout(nn.Module):
    """Dropout with a generator of its own, so that threads do not share random numbers."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator)
        return x * kept.div_(1 - self.share)


class _Run:
    """One setting on its way."""

    def __init__(self, settings: Settings, d: int, k: int, task: str, seed: int) -> None:
        self.settings, self.task = settings, task
        self.network = network(settings, d, k, torch.Generator().manual_seed(seed))
        self.optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.best: dict[str, Tensor] | None = None
        self.epoch = self.epochs = self.waited = 0
        self.score, self.loss = float("nan"), float("nan")
        self.history: list[tuple[int, float, float]] = []
        self.done = False

    def begin(self, epoch: int) -> None:
        self.epochs = epoch
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(epoch)

    def step(self, x: Tensor, y: Tensor) -> None:
        out = self.network(x)
        if self.task == "multilabel":
            loss = F.binary_cross_entropy_with_logits(out, y)
        else:
            loss = F.cross_entropy(out, y)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def check(self, score: float, loss: float) -> None:
        self.history.append((self.epochs, score, loss))
        value = -1.0 if np.isnan(score) else score
        before = -2.0 if self.best is None else -1.0 if np.isnan(self.score) else self.score
        if value > before or (value == before and self.settings.later_ties):
            self.best = {n: t.detach().clone() for n, t in self.network.state_dict().items()}
            self.epoch, self.score, self.loss, self.waited = self.epochs, score, loss, 0
        else:
            self.waited += 1
        patience = self.settings.patience
        # No epoch can be strictly better than one without a mistake.
        perfect = self.score == 1.0 and not self.settings.later_ties
        self.done = patience is not None and (self.waited >= patience or perfect)

    def trained(self, scale: Moments | None) -> Trained:
        if self.best is None:
            self.epoch = self.epochs
        else:
            self.network.load_state_dict(self.best)
        self.network.eval()
        counts = (self.epoch, self.epochs, self.score, self.loss, self.history)
        return Trained(self.settings, self.network, scale, self.task, *counts)


def network(settings: Settings, d: int, k: int, generator: torch.Generator) -> nn.Module:
    """Layers from (m, d) features to (m, k) logits, drawn from the generator."""
    layers: list[nn.Module] = [nn.LayerNorm(d)] if settings.layer_norm else []
    width = d
    for depth, units in enumerate(settings.hidden):
        layers.append(_linear(width, units, settings.start, depth > 0, generator))
        if settings.batch_norm:
            layers.append(nn.BatchNorm1d(units))
        layers += [_Dropout(settings.dropout, generator), nn.ReLU()]
        width = units
    layers.append(_linear(width, k, settings.start, bool(settings.hidden), generator))
    return nn.Sequential(*layers)


def _linear(d: int, k: int, start: str, after_relu: bool, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, d, k)
    bound = d**-0.5
    gain = nn.init.calculate_gain("relu" if after_relu else "linear")
    if start == "xavier_uniform":
        nn.init.xavier_uniform_(layer.weight, gain, generator)
    elif start == "xavier_normal":
        nn.init.xavier_normal_(layer.weight, gain, generator)
    else:
        nn.init.uniform_(layer.weight, -bound, bound, generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator)
    return layer


def _train_together(
    runs: list[_Run],
    batches: _Batches,
    rows: np.ndarray,
    valid: np.ndarray,
    seed: int,
    epochs: int | None,
    progress: Callable[[str], None] | None,
) -> None:
    last = max(run.settings.max_epochs for run in runs) if epochs is None else epochs
    told = time.monotonic()
    for epoch in range(1, last + 1):
        open_runs = [
            run
            for run in runs
            if not run.done and (epochs is not None or epoch <= run.settings.max_epochs)
        ]
        if not open_runs:
            break
        if progress is not None and time.monotonic() - told > SECONDS_BETWEEN:
            told = time.monotonic()
            progress(f"epoch {epoch} of at most {last}, {len(open_runs)} settings still learn")
        for run in open_runs:
            run.begin(epoch)
        order = rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
        size = open_runs[0].settings.batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            if len(part) == 1 and start and open_runs[0].settings.batch_norm:
                continue  # one clip has no variance to normalise by
            x, y = batches.features(part), batches.labels(part)
            for run in open_runs:
                run.step(x, y)
        if not len(valid):
            continue
        due = [run for run in open_runs if epoch % run.settings.check_every == 0 or epoch == last]
        for run, logits in zip(due, _validate(due, batches, valid), strict=True):
            run.check(*validation_score(logits, batches.y[valid], run.task))


def _validate(runs: list[_Run], batches: _Batches, valid: np.ndarray) -> list[np.ndarray]:
    """(m, k) logits of the validation rows by each run, read once for all."""
    parts: list[list[np.ndarray]] = [[] for _ in runs]
    if runs:
        for run in runs:
            run.network.eval()
        for rows in chunks(valid, batches.X.shape[1]):
            x = batches.features(rows)
            for out, run in zip(parts, runs, strict=True):
                out.append(_logits(run.network, x))
    return [np.concatenate(part) for part in parts]


def _logits(network: nn.Module, x: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network(x).numpy().astype(np.float64)


def _outputs(network: nn.Module) -> int:
    return int(list(network.parameters())[-1].shape[0])


def _check(y: np.ndarray, rows: np.ndarray, grid: Sequence[Settings], task: str) -> None:
    if len({(s.batch_size, s.standardise, s.batch_norm) for s in grid}) != 1:
        raise ValueError("a grid shares batch size, standardising and batch norm")
    if task not in ("classes", "multilabel"):
        raise DataError(f"task {task!r}: use classes or multilabel")
    if len(rows) < 2:
        raise DataError(f"{len(rows)} training clips: at least two are needed")
    if task == "classes" and len(np.unique(y[rows])) < 2:
        raise DataError("all training clips are of one class: a probe needs at least two classes")
