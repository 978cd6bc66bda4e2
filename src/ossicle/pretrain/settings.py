"""How a network is pre-trained: the objectives by name, and all that can be chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ossicle.errors import OssicleError
from ossicle.features import MIN_DURATION_S
from ossicle.pretrain.byol import BYOL
from ossicle.pretrain.cpc import CPC
from ossicle.pretrain.distill import Distill
from ossicle.pretrain.joint import Joint
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.optimiser import OPTIMISERS
from ossicle.pretrain.simclr import SimCLR
from ossicle.pretrain.supervised import Supervised
from ossicle.pretrain.teachers import check_teachers
from ossicle.pretrain.windows import LENGTHS_S

OBJECTIVES: dict[str, type[Pretraining]] = {
    "byol": BYOL,
    "cpc": CPC,
    "distill": Distill,
    "joint": Joint,
    "simclr": SimCLR,
    "supervised": Supervised,
}
# What the objective is shown, see `create_views`.
RECIPES = {
    "byol": "byol",
    "cpc": "plain",
    "distill": "contrast",
    "joint": "contrast",
    "simclr": "contrast",
    "supervised": "mask",
}
LABELLED = ("supervised", "joint")
QUEUE = 512  # past pictures for BYOL to mix with


@dataclass(frozen=True)
class Settings:
    """How a network is pre-trained; every value is part of the record.

    Attributes:
        objective: a name in ``OBJECTIVES``.
        backbone: a name of ``list_models()``.
        config: keywords of its constructor.
        pretrained: begin from published weights instead of random ones.
        begin: the bundle of an earlier run to begin with; "" is none. See ``begin``.
        epochs: times that every segment of at most 10 s is heard, where ``steps`` is None.
        steps: batches in all.
        batch_size: items a batch, over all processes.
        crop_s: length of a crop, in seconds; at least the shortest that the network takes.
        jitter_s: how far two views lie apart at most; None: anywhere in their segment.
        neighbours: segments of one folder that come together in a batch.
        learning_rate, weight_decay, optimiser: of the weights.
        warm_up: share of the steps in which the learning rate rises; then half a cosine.
        clipping: lambda of adaptive gradient clipping; 0 is none; None: 0.05 for networks without
            normalisation, none for others.
        average: decay of the moving average of weights that is taken away; 0 is none.
        balance: draw all classes equally often.
        held_out: share of the groups that labelled objectives are scored on, not trained.
        synthetic: share of pairs from the synthesiser, all of them where there are no clips.
        delta: how far the two sounds of a synthetic pair lie apart, 0 to 1.
        teachers: of "distill", whose words on every window are learnt; names with weights.
        window_s: of "distill": lengths of the windows, in seconds.
        mixtures: of "distill": made windows for each that is a recording's as it is.
        options: further keywords of the objective.
        seed: of everything drawn.
        precision: of Lightning Fabric: "32-true", "bf16-mixed", ...
        accelerator, devices: of Lightning Fabric.
    """

    objective: str = "simclr"
    backbone: str = "slowfast_nfnet_f0"
    config: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    begin: str = ""
    epochs: float = 10.0
    steps: int | None = None
    batch_size: int = 64
    crop_s: float = 1.28
    jitter_s: float | None = 0.5
    neighbours: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimiser: str = "adamw"
    warm_up: float = 0.05
    clipping: float | None = None
    average: float = 0.0
    balance: bool = False
    held_out: float = 0.1
    synthetic: float = 0.0
    delta: float = 0.25
    teachers: tuple[str, ...] = ()
    window_s: tuple[float, ...] = LENGTHS_S
    mixtures: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: int = 1

    def check(self) -> Settings:
        """The settings, if they can be meant.

        Raises:
            OssicleError: a name is unknown or a number out of range.
        """
        if self.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise OssicleError(f"unknown objective {self.objective!r}: choose one of {known}")
        if self.objective == "distill":
            check_teachers(self.teachers)
            if not self.window_s or not all(MIN_DURATION_S <= s < math.inf for s in self.window_s):
                told = ", ".join(f"{s:g}" for s in self.window_s) or "none"
                raise OssicleError(f"windows in seconds: {told}; choose {MIN_DURATION_S} or more")
            if self.synthetic:
                raise OssicleError("distill has no synthetic pairs: leave out synthetic")
        elif self.teachers:
            raise OssicleError(f"{self.objective} has no teachers: they are for distill")
        elif self.mixtures:
            raise OssicleError(f"{self.objective} has no mixtures: they are for distill")
        if self.pretrained and self.begin:
            raise OssicleError("begin and pretrained: leave out one of both")
        if self.optimiser not in OPTIMISERS:
            known = ", ".join(OPTIMISERS)
            raise OssicleError(f"unknown optimiser {self.optimiser!r}: choose one of {known}")
        if self.pretrained and self.config:
            raise OssicleError(
                f"{self.backbone}'s published weights have no keywords: leave out one of both"
            )
        for name in ("epochs", "batch_size", "crop_s", "learning_rate", "devices"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("steps", "neighbours"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("jitter_s", "weight_decay", "clipping", "seed", "mixtures"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise OssicleError(f"{name} is {value}: it must be 0 or more")
        for name in ("warm_up", "average", "synthetic", "delta", "held_out"):
            if not 0 <= getattr(self, name) <= 1:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be from 0 to 1")
        if self.batch_size < 2 or self.batch_size % self.devices:
            raise OssicleError(
                f"a batch of {self.batch_size} items: choose 2 or more, a multiple of the devices"
            )
        return self
