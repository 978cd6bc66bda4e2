"""How a network's weights are trained on labelled clips: all that can be chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ossicle.errors import OssicleError

AUGMENTS = ("none", "mask", "mix")
STARTS = ("probe", "new")
RATES = ("learning_rate", "head_rate")


@dataclass(frozen=True)
class FinetuneSettings:
    """How weights are trained on labelled clips; every value is part of the record.

    Attributes:
        unfreeze: "head" (the network stays frozen), "all", or the last k layers.
        epochs: times that every 10 s of the training part are heard, at most.
        batch_size: clips a step.
        learning_rate: of the network's last layer, at its peak.
        layer_decay: factor on the rate from one layer to the one before it.
        head_rate: how far the logits of a clip move in a step, about, at the peak.
        head_start: "probe" (a ridge fitted on the frozen features: Kumar et al. 2022,
            arXiv 2202.10054) or "new" (zeros).
        unfreeze_every: epochs between two layers of gradual unfreezing, from the last one on
            (Howard & Ruder 2018, arXiv 1801.06146, section 3.3); 0: all at once.
        frozen_norms: batch norms keep the statistics that they came with.
        augment: "none", "mask" (bands and times), or "mix" (other clips below, then masks).
        patience: epochs without a better loss on the validation part before it stops; 0: never.
        validation: share of the training part's groups that are kept for that; 0: none, the
            weights after the last epoch are taken.
        refit: then train anew, on the validation part too, for as many epochs as were best; with
            few groups that part is much of what there is.
        crop_s: seconds of a clip that are heard at once; None: as long as the median clip.
        weight_decay: of weights, not of biases.
        warm_up: share of the steps in which the rate rises; then half a cosine.
        balance: draw all classes equally often.
        seeds: networks trained from seeds of their own; see ``ossicle.finetune.ensemble``.
        seed: of everything drawn.
    """

    unfreeze: str | int = "all"
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 3e-4
    layer_decay: float = 0.9
    head_rate: float = 0.1
    head_start: str = "probe"
    unfreeze_every: int = 0
    frozen_norms: bool = True
    augment: str = "none"
    patience: int = 5
    validation: float = 0.15
    refit: bool = True
    crop_s: float | None = None
    weight_decay: float = 1e-2
    warm_up: float = 0.1
    balance: bool = False
    seeds: int = 1
    seed: int = 0

    def check(self) -> FinetuneSettings:
        """The settings, if they can be meant.

        Raises:
            OssicleError: a name is unknown or a number out of range.
        """
        for name, known in (("augment", AUGMENTS), ("head_start", STARTS)):
            if getattr(self, name) not in known:
                raise OssicleError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        if isinstance(self.unfreeze, str):
            if self.unfreeze not in ("head", "all"):
                raise OssicleError(f"unfreeze {self.unfreeze!r}: choose head, all or a number")
        elif self.unfreeze < 1:
            raise OssicleError(f"unfreeze is {self.unfreeze}: it must be 1 layer or more, or head")
        for name in ("epochs", "batch_size", "seeds"):
            if getattr(self, name) < 1:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("learning_rate", "head_rate", "layer_decay"):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("unfreeze_every", "patience", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if not 0 <= self.validation < 1 or not 0 <= self.warm_up < 1:
            raise OssicleError("validation and warm_up are shares: from 0 to below 1")
        if self.crop_s is not None and not 0 < self.crop_s < math.inf:
            raise OssicleError(f"crop_s is {self.crop_s}: it must be above 0 s")
        return self

    def from_scratch(self) -> FinetuneSettings:
        """The same for random weights: all of them learn, alike, and so does a new head."""
        return replace(
            self,
            unfreeze="all",
            unfreeze_every=0,
            frozen_norms=False,
            layer_decay=1.0,
            head_start="new",
        )
