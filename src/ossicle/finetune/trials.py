"""Strategies on one set of clips, run and scored alike: features and decoded audio are made once.

n clips tested, K classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable, ProgressCallback, extract
from ossicle.finetune.models import build
from ossicle.finetune.run import finetune
from ossicle.finetune.strategy import Strategy
from ossicle.metrics import PRIMARY, with_intervals
from ossicle.metrics import score as all_scores
from ossicle.model import Model
from ossicle.predict import class_columns, predict
from ossicle.transfer.layer_choice import choose_layers
from ossicle.transfer.probe import create_probe


class Outcome(NamedTuple):
    """What a strategy gave for the clips tested.

    Attributes:
        decisions: (n_test, K) probabilities, or (n_test, 1) predicted numbers, in their order.
        seconds: of training and testing, without features that are kept.
        info: what was chosen and reached; JSON values.
        model: the trained network, unless it stayed frozen.
    """

    decisions: np.ndarray
    seconds: float
    info: dict[str, Any]
    model: Model | None = None


class Trials:
    """Strategies on one set of clips: features and decoded audio are made once.

    Args:
        clips: labelled.
        workers: threads.
        keep: tables of frozen features that are held in memory at most.

    Attributes:
        clips: as given; rows count in it.
        skipped: (row, path, reason) of what could not be read, once a network has read them.
    """

    def __init__(self, clips: Clips, *, workers: int = 1, keep: int = 2) -> None:
        self.clips, self.workers, self.keep = clips, workers, keep
        self.skipped: list[tuple[int, str, str]] = []
        self._tables: dict[str, tuple[Model, FeatureTable]] = {}

    def table(
        self, strategy: Strategy, seed: int = 0, progress: ProgressCallback | None = None
    ) -> FeatureTable:
        """Frozen features of all clips under the strategy's network.

        Raises:
            DataError: no clip can be used.
        """
        return self._extracted(strategy, seed, progress)[1]

    def run(
        self,
        strategy: Strategy,
        train: np.ndarray,
        test: np.ndarray,
        *,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> Outcome:
        """Train on some rows, answer for others.

        Args:
            strategy: what to do.
            train, test: row numbers of the clips.
            seed: of everything drawn, random weights too.
            progress: called with what is being done.

        Raises:
            DataError: a clip to be tested cannot be read; leave it out.
            OssicleError: the strategy cannot be run on these clips.
        """
        train, test = np.asarray(train, np.int64), np.asarray(test, np.int64)
        if strategy.kind == "probe":
            return self._probe(strategy, train, test, seed)
        settings = replace(strategy.training, seed=seed)
        scratch = strategy.kind == "scratch"
        model, table = (build(strategy, seed), None) if scratch else self._extracted(strategy, seed)
        start = time.perf_counter()
        pooling = None if strategy.pooling is None else tuple(strategy.pooling.split(","))

        def told(done: int, total: int, seconds: float) -> None:
            if progress is not None:
                progress(f"step {done} of {total}")

        tuned = finetune(
            model,
            self.clips,
            train,
            settings,
            layers=strategy.layers,
            poolings=pooling,
            scratch=scratch,
            table=table,
            workers=self.workers,
            progress=told,
        )
        frame, skipped = predict(tuned.model, self.clips.subset(test), workers=self.workers)
        self._refuse(skipped)
        columns = ["value"] if self.clips.task == "regression" else class_columns(tuned.model)
        info = {
            "epochs": tuned.epochs,
            "validation": tuned.validation,
            "ensemble": tuned.ensemble,
            "notes": tuned.notes,
        }
        seconds = time.perf_counter() - start
        return Outcome(frame[columns].to_numpy(np.float64), seconds, info, tuned.model)

    def cross_validate(
        self,
        strategy: Strategy,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Every fold's test part by a model trained on its training part.

        Returns:
            (m,) rows, ascending; (m, K) decisions; seconds.
        """
        rows, decisions, seconds = [], [], 0.0
        for number, (train, test) in enumerate(folds, start=1):
            if progress is not None:
                progress(f"fold {number} of {len(folds)}")
            outcome = self.run(strategy, train, test, seed=seed, progress=progress)
            rows.append(np.asarray(test, np.int64))
            decisions.append(outcome.decisions)
            seconds += outcome.seconds
        order = np.argsort(np.concatenate(rows), kind="stable")
        return np.concatenate(rows)[order], np.concatenate(decisions)[order], seconds

    def _extracted(
        self, strategy: Strategy, seed: int, progress: ProgressCallback | None = None
    ) -> tuple[Model, FeatureTable]:
        about = [strategy.backbone, strategy.random, seed if strategy.random else 0]
        about += [dict(strategy.config), dict(strategy.frontend)]
        key, asked, model = json.dumps(about, sort_keys=True), None, None
        if strategy.pooling is not None:
            model = self._tables[key][0] if key in self._tables else build(strategy, seed)
            # The network's own poolings are columns of the table that all its strategies share.
            if not set(strategy.pooling.split(",")) <= set(model.backbone.poolings):
                asked = strategy.pooling.split(",")
                key += strategy.pooling
        if key not in self._tables:
            while len(self._tables) >= self.keep:
                self._tables.pop(next(iter(self._tables)))
            model = build(strategy, seed) if model is None else model
            table = extract(
                model, self.clips, poolings=asked, workers=self.workers, progress=progress
            )
            self._tables[key] = (model, table)
        self.skipped = self._tables[key][1].skipped
        return self._tables[key]

    def _refuse(self, skipped: Sequence[tuple[int, str, str]]) -> None:
        if skipped:
            _, path, reason = skipped[0]
            raise DataError(f"{path}: {reason}; leave it out of the clips")

    def _probe(self, strategy: Strategy, train: np.ndarray, test: np.ndarray, seed: int) -> Outcome:
        model, table = self._extracted(strategy, seed)
        missing = np.setdiff1d(test, table.index)
        self._refuse([entry for entry in table.skipped if entry[0] in set(missing.tolist())])
        start = time.perf_counter()
        task, y, groups = self.clips.task, self.clips.y(), self.clips.groups()
        train = np.intersect1d(train, table.index)
        where = {int(row): i for i, row in enumerate(table.index)}
        inside = np.array([where[int(row)] for row in train])
        outside = np.array([where[int(row)] for row in test])
        layers = model.select_layers("all" if strategy.layers is None else strategy.layers)
        names = table.names(layers)
        if strategy.pooling is not None:
            wanted = strategy.pooling.split(",")
            names = [name for name in names if name.rpartition("/")[2] in wanted]
        info: dict[str, Any] = {}
        if strategy.choose_layers:
            blocks = {
                layer: table.matrix([n for n in names if n.rpartition("/")[0] == layer])[inside]
                for layer in layers
            }
            chosen = choose_layers(
                blocks, y[train], groups=groups[train], task=task, random_state=seed
            ).layers
            info["layers"] = list(chosen)
            names = [name for name in names if name.rpartition("/")[0] in chosen]
        X = table.matrix(names)
        probe: Any = create_probe(strategy.probe, task, random_state=seed)
        probe.fit(X[inside], y[train], groups=groups[train], block_sizes=table.sizes(names))
        info |= probe.chosen_
        if task == "regression":
            decisions = np.asarray(probe.predict(X[outside]), float).reshape(len(test), -1)
        else:
            decisions = np.zeros((len(test), len(self.clips.classes)))
            decisions[:, np.asarray(probe.classes_, np.int64)] = probe.predict_proba(X[outside])
        return Outcome(decisions, time.perf_counter() - start, info)


def _predicted(task: str, decisions: np.ndarray) -> np.ndarray:
    if task == "regression":
        return decisions[:, 0]
    return (decisions >= 0.5).astype(np.int64) if task == "multilabel" else decisions.argmax(1)


def primary_score(
    task: str, y: np.ndarray, decisions: np.ndarray, classes: Sequence[str] = ()
) -> float:
    """The task's own metric, see ``ossicle.metrics.PRIMARY``.

    Args:
        task: "classes", "multilabel" or "regression".
        y: (n,) or (n, K) targets.
        decisions: (n, K) probabilities, or (n, 1) numbers.
        classes: K names.
    """
    scores = None if task == "regression" else decisions
    values = all_scores(task, y, _predicted(task, decisions), scores, classes)
    return float(values[PRIMARY[task]])


def score_interval(
    clips: Clips, rows: np.ndarray, decisions: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """{"value", "low", "high"} of the task's own metric, over resampled groups.

    Args:
        clips: labelled.
        rows: (m,) of the clips.
        decisions: (m, K) probabilities, or (m, 1) numbers.
        seed: of the bootstrap.
    """
    task = clips.task
    scores = None if task == "regression" else decisions
    measured = with_intervals(
        task,
        clips.y()[rows],
        _predicted(task, decisions),
        scores,
        clips.classes,
        groups=clips.groups()[rows],
        random_state=seed,
    )
    return measured[PRIMARY[task]]
