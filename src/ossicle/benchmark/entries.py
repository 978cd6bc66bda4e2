"""A row of the scoreboard: a frozen representation and how it is read out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ossicle.errors import OssicleError
from ossicle.features import one_thread
from ossicle.finetune.models import build
from ossicle.finetune.strategy import Strategy
from ossicle.heads import check_poolings, count_parameters
from ossicle.model import Model

_SECONDS_TIMED = 10.0


@dataclass(frozen=True)
class Entry:
    """A frozen network and the layers and poolings of it that a probe reads.

    Attributes:
        strategy: of kind "probe"; its layers None: those that the protocol reads.
        label: of its row; empty: the strategy in words.
        heard: what of the suite's own audio the network has been trained on, without its labels or
            with them; "" where none of it is known to be.
    """

    strategy: Strategy
    label: str = ""
    heard: str = ""

    def __post_init__(self) -> None:
        if self.strategy.kind != "probe":
            raise OssicleError(
                f"{self.strategy.text()!r}: a benchmark is of frozen networks: begin with probe"
            )
        for name, usual in (("probe", "ridge"), ("choose_layers", False)):
            if getattr(self.strategy, name) != usual:
                raise OssicleError(f"{name} is the protocol's: leave it out of the row")

    @property
    def name(self) -> str:
        """What its row is called."""
        return self.label or self.strategy.text().removeprefix("probe backbone=")

    def model(self, seed: int) -> Model:
        """The frozen network.

        Raises:
            OssicleError: there is none of that name.
        """
        return build(self.strategy, seed)

    def seeds(self, seeds: Sequence[int]) -> list[int]:
        """Those that give another network: all where weights are random, else the first."""
        return list(seeds) if self.strategy.random else list(seeds[:1])

    def extracted(self, model: Model) -> tuple[str, ...]:
        """Poolings that are kept: the network's own, and those asked for besides."""
        own = tuple(model.backbone.poolings)
        if self.strategy.pooling is None:
            return own
        asked = check_poolings(self.strategy.pooling.split(","))
        return own if set(asked) <= set(own) else tuple(asked)

    def with_layers(self, layers: str) -> Entry:
        """The same, reading ``layers`` where it does not say which."""
        if self.strategy.layers is not None:
            return self
        return replace(self, strategy=replace(self.strategy, layers=layers))

    def blocks(self, model: Model, names: Sequence[str]) -> list[str]:
        """Those of the kept "LAYER/POOLING" blocks that are read."""
        layers = set(model.select_layers(self.strategy.layers or "all"))
        kept = [name for name in names if name.rpartition("/")[0] in layers]
        if self.strategy.pooling is not None:
            asked = self.strategy.pooling.split(",")
            kept = [name for name in kept if name.rpartition("/")[2] in asked]
        if not kept:
            raise OssicleError(f"{self.name}: no layer has the pooling {self.strategy.pooling}")
        return kept


def identity(model: Model) -> str:
    """A name for the numbers that a model gives: weights, front end, clip policy."""
    digest = hashlib.sha256()
    described = [model.backbone.config(), model.frontend.config(), model.clip]
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def facts(entry: Entry, model: Model) -> dict[str, Any]:
    """What the scoreboard says of a row beside its scores, ready for JSON.

    ``times_real_time`` is the quickest of three passes over 10 s of noise on one core: network,
    front end and pooling of all layers, without decoding.
    """
    rate = model.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, round(_SECONDS_TIMED * rate))
    taken = []
    with one_thread():
        for _ in range(3):
            start = time.perf_counter()
            parts = [noise[a:b] for a, b in model.clip.segments(len(noise), rate)]
            model.join_features((part.astype(np.float32) for part in parts), None, None)
            taken.append(time.perf_counter() - start)
    info = model.info
    return {
        "name": entry.name,
        "strategy": entry.strategy.text(),
        "backbone": entry.strategy.backbone,
        "layers": entry.strategy.layers or "all",
        "pooling": entry.strategy.pooling,
        "input": "waveform" if model.backbone.frontend["name"] == "waveform" else "spectrogram",
        "front_end": model.backbone.frontend["name"],
        "pretrained": bool(info.get("pretrained")) and not entry.strategy.random,
        "weights": str(info.get("weights")),
        "licence": str(info.get("licence")),
        "heard": entry.heard,
        "parameters": count_parameters(model.backbone),
        "clip_policy": model.clip.describe(rate),
        "sample_rate": rate,
        "times_real_time": _SECONDS_TIMED / min(taken),
    }
