"""Which layers of a network transfer to which task: last, best, all, chosen; from audio.

Choi, Fazekas, Sandler, Cho (ISMIR 2017) concatenated all five layers of a small network. Here the
network is of any depth, the tasks are clips, and every set of layers is read out by the ridge probe
on clips that had no say in choosing it: the outer folds report, all choices are made in their
training parts.

Axes: n clips, L layers, K classes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable, ProgressCallback, extract
from ossicle.model import Model, create_model
from ossicle.record import data_checksum, json_safe, record
from ossicle.study.cells import Cell, Cells
from ossicle.study.layers_readouts import summarise
from ossicle.study.layers_text import write_layers
from ossicle.transfer.layer_choice import MAX_EXHAUSTIVE, choose_layers
from ossicle.transfer.layer_sums import LayerSums, sums_probe
from ossicle.transfer.protocol import Protocol, choose_protocol

METHODS = ("exhaustive", "forward", "backward", "group-sparse")
# Products of all clips, a matrix a layer, and the features are held at once.
MAX_BYTES = 16 * 2**30


class _Features(NamedTuple):
    """All layers of a network on a task's clips."""

    blocks: OrderedDict[str, np.ndarray]  # layer -> (n, d_l) float32
    sizes: dict[str, list[int]]  # layer -> columns of each pooling


def layers_audio_study(
    tasks: Mapping[str, Clips],
    model: Model,
    untrained: Model | None = None,
    out: Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    n_folds: int = 5,
    seed: int = 0,
    workers: int = 1,
    name: str = "layers",
    command: str = "",
    arguments: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Read out the last layer, the best, every one, all, and chosen ones, on each task.

    Args:
        tasks: name -> labelled clips.
        model: the network whose layers are studied.
        untrained: the same with random weights; None leaves that read-out away.
        out: folder for tables, figures, numbers and the cells done, from which a stopped study
            goes on; None writes nothing.
        methods: of "exhaustive" (up to 12 layers), "forward", "backward", "group-sparse"; None:
            all that the number of layers allows.
        n_folds: folds where the data brings none.
        seed: of folds, inner folds and intervals.
        workers: threads for the features.
        name: of the files.
        command: that makes it again, for the page.
        arguments: what the caller was asked, for the record.
        progress: called after every clip that was embedded.
        tell: called with what is being done.

    Returns:
        See `layers_readouts.summarise`; with `text`, what was found in words, and `record`.

    Raises:
        DataError: no task, an unknown method, clips that cannot be folded, or too many of them.
    """
    if not tasks:
        raise DataError("no task: give labelled clips")
    depth = len(model.layers)
    if methods is None:
        methods = METHODS if depth <= MAX_EXHAUSTIVE else METHODS[1:]
    unknown = [m for m in methods if m not in METHODS]
    if unknown or not methods:
        raise DataError(
            f"no method {unknown[0]!r}: use some of {', '.join(METHODS)}"
            if unknown
            else f"no method is named: use some of {', '.join(METHODS)}"
        )
    if "exhaustive" in methods and depth > MAX_EXHAUSTIVE:
        raise DataError(
            f"{depth} layers have {2**depth - 1} sets, too many for exhaustive (up to "
            f"{MAX_EXHAUSTIVE} layers): use forward, backward or group-sparse"
        )
    of = {
        "study": "layers",
        "network": {k: model.info.get(k) for k in ("name", "weights")},
        "layers": model.layers,
        "untrained": untrained is not None,
        "methods": list(methods),
        "n_folds": n_folds,
        "seed": seed,
        "tasks": {task: _identity(clips) for task, clips in tasks.items()},
    }
    baselines = ["mfcc"] if "mfcc" not in model.layers else []
    baselines += ["untrained"] if untrained is not None else []
    cells = _Memory() if out is None else Cells(out, of)
    say = tell or (lambda text: None)
    found = {}
    for task, clips in tasks.items():
        work = _Task(task, clips, model, untrained, n_folds, seed, workers, progress, say)
        (about,) = cells.run([{"task": task, "part": "clips"}], work.compute)
        work.keep(about)
        parts = ["single", "all", *baselines, *methods]
        todo = [
            {"task": task, "part": part, "fold": fold}
            for fold in range(len(work.protocol.folds))
            for part in parts
        ]
        rows = cells.run(todo, work.compute)
        found[task] = (work.clips, work.protocol, rows, about["skipped"])
        del work
    result = summarise(found, model.layers, methods, seed)
    result["network"] = {
        k: model.info.get(k) for k in ("name", "pretrained", "source", "weights", "licence")
    }
    paths = sorted({path for clips in tasks.values() for path in clips.table["path"]})
    result["record"] = record(
        {
            "tasks": list(tasks),
            "methods": list(methods),
            "n_folds": n_folds,
            "workers": workers,
            **(arguments or {}),
        },
        seed=seed,
        data=paths,
    )
    return write_layers(result, out, name, command)


class _Memory:
    """`Cells` for a study that leaves nothing."""

    def run(self, cells: Sequence[Cell], compute: Callable[[Cell], Any]) -> list[dict[str, Any]]:
        return [{**cell, **json_safe(compute(cell))} for cell in cells]


class _Task:
    """One task: its features are made when a cell first needs them."""

    def __init__(
        self,
        name: str,
        clips: Clips,
        model: Model,
        untrained: Model | None,
        n_folds: int,
        seed: int,
        workers: int,
        progress: ProgressCallback | None,
        tell: Callable[[str], None],
    ) -> None:
        self.name, self.clips, self.n_folds, self.seed = name, clips, n_folds, seed
        self.workers, self.progress, self.tell = workers, progress, tell
        self.models: dict[str, Model | None] = {"trained": model, "untrained": untrained}
        self.features: dict[str, _Features] = {}
        self.kept: np.ndarray | None = None
        self.sums: tuple[tuple[str, int], LayerSums] | None = None

    def keep(self, about: Mapping[str, Any]) -> None:
        """Go on with the clips that could be read."""
        self.kept = np.asarray(about["rows"], np.int64)
        self.clips = self.clips.subset(self.kept)
        if self.clips.task != "regression" and len(self.clips.classes) < 2:
            raise DataError(f"{self.name}: there is one class only, nothing to tell apart")
        try:
            self.protocol: Protocol = choose_protocol(
                self.clips, n_folds=self.n_folds, random_state=self.seed
            )
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from error
        largest = max(len(train) for train, _ in self.protocol.folds)
        model = self.models["trained"]
        assert model is not None
        if 4 * len(model.layers) * largest**2 > MAX_BYTES:
            most = int((MAX_BYTES / 4 / len(model.layers)) ** 0.5)
            raise DataError(
                f"{self.name}: {largest} clips to learn from, at most {most} of a network of "
                f"{len(model.layers)} layers fit into memory; take a part of them"
            )

    def compute(self, cell: Cell) -> dict[str, Any]:
        """What a cell of the study holds."""
        if cell["part"] == "clips":
            table = self._table("trained")
            self.features["trained"] = _by_layer(table)
            return {
                "rows": table.index,
                "skipped": [[path, reason] for _, path, reason in table.skipped],
            }
        part, fold = cell["part"], cell["fold"]
        self.tell(f"{self.name}: fold {fold + 1} of {len(self.protocol.folds)}, {part}")
        if part == "untrained":
            sums = self._sums("untrained", fold)
            return {"predicted": {part: self._predict(sums, sums.names, fold)}}
        if part == "mfcc":
            mfcc = self._sums("mfcc", fold)
            both = mfcc.beside(self._sums("trained", fold))
            return {
                "predicted": {
                    "mfcc": self._predict(mfcc, mfcc.names, fold),
                    "mfcc + all": self._predict(both, both.names, fold),
                }
            }
        sums = self._sums("trained", fold)
        if part == "all":
            return {"predicted": {part: self._predict(sums, sums.names, fold)}}
        if part == "single":
            choice = self._choose(sums, fold, subsets=[(layer,) for layer in sums.names])
            return {
                "predicted": {layer: self._predict(sums, [layer], fold) for layer in sums.names},
                "layers": list(choice.layers),
            }
        choice = self._choose(sums, fold, method=part)
        # The group lasso's own score is not that of the others: all are judged by ridge.
        judged = self._choose(sums, fold, subsets=[choice.layers])
        told: dict[str, Any] = {
            "predicted": {part: self._predict(sums, choice.layers, fold)},
            "inner": judged.score,
            "inner_loss": judged.loss,
            "layers": list(choice.layers),
            "tried": choice.n_evaluated,
        }
        if part == "exhaustive":
            told["sets"] = [[list(s), score] for s, score in choice.scores.items()]
        return told

    def _choose(self, sums: LayerSums, fold: int, **how: Any) -> Any:
        train, _ = self.protocol.folds[fold]
        return choose_layers(
            sums,
            self.clips.y()[train],
            groups=self.protocol.groups[train],
            task=self.clips.task,
            criterion="loss",
            random_state=self.seed,
            **how,
        )

    def _predict(self, sums: LayerSums, layers: Sequence[str], fold: int) -> list[Any]:
        """Of the test clips: classes, probabilities of labels, or numbers."""
        train, test = self.protocol.folds[fold]
        task, rows = self.clips.task, np.arange(len(train) + len(test), dtype=np.float64)[:, None]
        probe = sums_probe(sums, layers, task, random_state=self.seed)
        probe.fit(rows[: len(train)], self.clips.y()[train], self.protocol.groups[train])
        others = rows[len(train) :]
        if task == "multilabel":
            return np.round(probe.predict_proba(others), 5).tolist()
        return probe.predict(others).tolist()

    def _sums(self, which: str, fold: int) -> LayerSums:
        """Products of a fold's clips; those of the network are kept for its other cells."""
        if self.sums is not None and self.sums[0] == (which, fold):
            return self.sums[1]
        if which not in self.features:
            self.features[which] = _by_layer(self._table(which))
        features = self.features[which]
        train, test = self.protocol.folds[fold]
        sums = LayerSums(features.blocks, train, test, features.sizes)
        if which == "trained":
            self.sums = ((which, fold), sums)
        return sums

    def _table(self, which: str) -> FeatureTable:
        self.tell(f"{self.name}: features, {which}")
        model = create_model("mfcc") if which == "mfcc" else self.models[which]
        assert model is not None
        table = extract(model, self.clips, workers=self.workers, progress=self.progress)
        if self.kept is not None and table.skipped:
            _, path, reason = table.skipped[0]
            raise DataError(f"{path}: could be read before and cannot now: {reason}")
        return table


def _by_layer(table: FeatureTable) -> _Features:
    """The table's blocks side by side for each layer; the table is emptied on the way."""
    blocks: OrderedDict[str, np.ndarray] = OrderedDict()
    sizes = {}
    for layer in table.layers:
        names = table.names([layer])
        sizes[layer] = table.sizes(names)
        blocks[layer] = table.matrix(names)
        for name in names:
            del table.blocks[name]
    return _Features(blocks, sizes)


def _identity(clips: Clips) -> dict[str, Any]:
    """What tells these clips, their labels and folds from others."""
    table = clips.table[["label", "onset", "offset", "fold", "split"]].astype(str)
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update("\0".join(map(str, clips.groups())).encode())
    return {
        "task": clips.task,
        "clips": len(clips),
        "table": digest.hexdigest(),
        "files": data_checksum(sorted(set(clips.table["path"])))["sha256"],
    }
