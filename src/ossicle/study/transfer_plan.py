"""What a study of transfer tries, and what its sets must not have in common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.backbones import BACKBONES
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError, OssicleError
from ossicle.finetune.settings import FinetuneSettings
from ossicle.leaks import audit

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
# One rate for all layers, no early stopping and moving batch norms: what is the same for both arms.
TRAINING = FinetuneSettings(
    epochs=30,
    learning_rate=1e-3,
    layer_decay=1.0,
    head_start="new",
    frozen_norms=False,
    validation=0.0,
    patience=0,
)


@dataclass(frozen=True)
class TransferPlan:
    """What is tried.

    Attributes:
        backbone: a network that has random weights.
        config: keywords of its constructor.
        multiscale: also try it behind the multiscale input, where it has that keyword.
        shares: of each target's training part; 1 is always among them.
        seeds: repeats: each draws the source's weights, the parts and the order of clips anew.
        seed: the first of them, and that of folds and intervals.
        settings: of training on a target, from scratch and after the source alike.
        source_settings: of training on a source; None: the same.
        probes: also fit a ridge on the frozen network of the source, and on an untrained one.
        n_folds: of a target that brings none.
        test_folds: name of a target -> how many of its folds are tested at most; all where it is
            not named.
    """

    backbone: str = "resnet18"
    config: Mapping[str, Any] = field(default_factory=dict)
    multiscale: bool = True
    shares: Sequence[float] = SHARES
    seeds: int = 3
    seed: int = 0
    settings: FinetuneSettings = TRAINING
    source_settings: FinetuneSettings | None = None
    probes: bool = True
    n_folds: int = 5
    test_folds: Mapping[str, int] = field(default_factory=dict)

    def checked(self) -> TransferPlan:
        """The plan with its shares in order.

        Raises:
            OssicleError: something in it cannot be meant, or the arms would differ in more than
                their weights.
        """
        if self.backbone not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise OssicleError(f"unknown backbone {self.backbone!r}: choose one of {known}")
        if "multiscale" in self.config:
            raise OssicleError("multiscale is one of the arms: leave it out of the keywords")
        if self.seeds < 1:
            raise OssicleError(f"seeds is {self.seeds}: it must be 1 or more")
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise OssicleError("shares of the training part are above 0 and at most 1")
        for settings in (self.settings, self.source_settings or self.settings):
            settings.check()
            if settings.frozen_norms or settings.unfreeze != "all" or settings.layer_decay != 1:
                raise OssicleError(
                    "transfer and scratch are compared with all weights training alike: leave "
                    "frozen_norms at false, unfreeze at all and layer_decay at 1"
                )
            if settings.head_start != "new" or settings.unfreeze_every or settings.seeds != 1:
                raise OssicleError(
                    "transfer and scratch are compared with a new classifier, all layers at once, "
                    "one network a seed: leave out head_start, unfreeze_every and seeds"
                )
        return replace(self, shares=tuple(sorted({*map(float, self.shares), 1.0})))

    def networks(self) -> dict[str, dict[str, Any]]:
        """ "plain", and "multiscale" where there is such a network -> keywords."""
        known = inspect.signature(BACKBONES[self.backbone]).parameters
        networks = {"plain": dict(self.config)}
        if self.multiscale and "multiscale" in known:
            networks["multiscale"] = {**self.config, "multiscale": True}
        return networks


def refuse_same_files(sets: Mapping[str, Clips]) -> None:
    """A source and a target must not be the same recordings."""
    names = list(sets)
    files = {name: set(clips.table["path"]) for name, clips in sets.items()}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = files[first] & files[second]
            if both:
                raise DataError(
                    f"{first} and {second} are the same recordings ({len(both)} files, such as "
                    f"{min(both)}): transfer needs sets that share none"
                )


def shared_sounds(sets: Mapping[str, Clips]) -> list[str]:
    """Recordings that are in two sets as different files, in words."""
    names = list(sets)
    tables = [clips.table[["path", "label", "onset", "offset"]] for clips in sets.values()]
    table = pd.concat(tables, ignore_index=True).assign(split=None, fold=None, group="")
    owner = np.repeat(np.arange(len(names)), [len(part) for part in tables])
    found = audit(Clips(table, "classes", (), next(iter(sets.values())).root), folds=[])
    pairs = [tuple(pair) for pair in found["bytes"]]
    pairs += [(sample["a"], sample["b"]) for sample in found["samples"]]
    by: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for a, b in pairs:
        if owner[a] != owner[b]:
            by.setdefault((names[owner[a]], names[owner[b]]), []).append((a, b))
    return [
        f"{len(same)} sounds are in both {first} and {second}, such as "
        f"{Path(table['path'][same[0][0]]).name} and {Path(table['path'][same[0][1]]).name}"
        for (first, second), same in by.items()
    ]
