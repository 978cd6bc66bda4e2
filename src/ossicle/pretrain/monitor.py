"""How good the features are while a network trains: frozen, on a small labelled set."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from ossicle.datasets.clips import Clips
from ossicle.features import FeatureTable, extract
from ossicle.model import Model
from ossicle.pretrain.objective import Pretraining
from ossicle.transfer.evaluate import evaluate

PROBES = ("knn", "ridge")


class Monitor:
    """Cross-validated kNN (last layer) and ridge (all layers) on what the network is by now.

    Args:
        clips: labelled; a few hundred are enough.
        model: the front end, clip policy and description that go with the network.
        objective: holds the network.
        workers: threads that extract.
    """

    def __init__(
        self, clips: Clips, model: Model, objective: Pretraining, *, workers: int = 1
    ) -> None:
        self.clips, self.model, self.objective = clips, model, objective
        self.workers = workers

    def check(self) -> None:
        """Score numbers that mean nothing: what is wrong with the clips is told before training.

        Raises:
            DataError: too few clips, classes or groups to evaluate.
        """
        rows = np.arange(len(self.clips))
        blocks = OrderedDict({"none/mean": rows[:, None].astype(np.float32)})
        with torch.random.fork_rng(devices=[]):
            for name in PROBES:
                self._score(FeatureTable(blocks, rows), self.model, name)

    def __call__(self) -> dict[str, float]:
        """{"knn": score, "ridge": score}, by the task's own metric."""
        network: Any = self.objective.result
        training = network.training
        frozen = Model(
            self.model.frontend, network, clip=self.model.clip, info=self.model.info
        ).eval()
        gradients = [p.requires_grad for p in network.parameters()]
        network.requires_grad_(False)
        try:
            with torch.random.fork_rng(devices=[]):
                table = extract(frozen, self.clips, workers=self.workers)
                return {name: self._score(table, frozen, name) for name in PROBES}
        finally:
            for p, wanted in zip(network.parameters(), gradients, strict=True):
                p.requires_grad_(wanted)
            network.train(training)

    def _score(self, table: FeatureTable, model: Model, probe: str) -> float:
        if probe == "knn":  # what is near in the last layer, without anything learnt
            names = table.names(table.layers[-1:])
            blocks = type(table.blocks)((name, table.blocks[name]) for name in names)
            table = FeatureTable(blocks, table.index, table.skipped, sample_rate=table.sample_rate)
        result = evaluate(self.clips, table, model, probe=probe, diagnostics=False)
        return float(result["score"]["value"])
