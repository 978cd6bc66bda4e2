"""How a detector is trained on strong labels: all that can be chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ossicle.detector import DEFAULT_BASE
from ossicle.errors import OssicleError

INPUTS = ("mel", "features", "both")
AUGMENTS = ("none", "mask", "mix")
EPOCHS, LEAST_STEPS = 12, 300
_ABOVE_ZERO = ("learning_rate", "window_s")
_FROM_ZERO = ("weight_decay", "clip_weight", "patience", "gain_db", "seed")


@dataclass(frozen=True)
class StrongSettings:
    """How a detector is trained; every value is part of the record.

    Attributes:
        inputs: what the recurrent network hears: "mel" (log-mel, through convolutions of its own,
            nothing transferred), "features" (frame features of a frozen network), or "both".
        backbone: the frozen network of "features" and "both"; a name from `ossicle backbones`.
        epochs: times that every window is heard, at most; None: 12, or as many as make 300 steps
            where windows are few.
        batch_size: windows a step.
        learning_rate: at its peak.
        weight_decay: of weights, not of biases.
        warm_up: share of the steps in which the rate rises; then half a cosine.
        window_s: seconds heard at once; longer recordings are cut, shorter ones filled up and the
            filling masked.
        augment: "none"; "mask": moved around in time, louder or softer, bands and times hidden;
            "mix": as "mask", and every other window has another one mixed in, its labels joined.
        gain_db: how much louder or softer at most.
        precompute: keep what the frozen front of the network makes of each window in a mapped
            file, and augment that; without, waveforms are augmented and heard anew each time,
            which takes several times as long.
        clip_weight: weight of the loss of a window as a whole (attention pooling), from which
            weak labels are learnt; 1 is as much as the frames have.
        average: decay of the moving average of the weights, which is the model; 0: none.
        patience: epochs without a better score on the validation part before it stops; 0: never,
            as the weights of the best epoch are taken in any case.
        validation: share of the groups that are set aside to stop by and to fit rules on, where
            the data brings no split.
        test: share of the groups that scores are told of, where the data brings no split.
        seed: of everything drawn.
    """

    inputs: str = "features"
    backbone: str = DEFAULT_BASE
    epochs: int | None = None
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1
    window_s: float = 10.0
    augment: str = "mix"
    gain_db: float = 6.0
    precompute: bool = True
    clip_weight: float = 0.5
    average: float = 0.99
    patience: int = 0
    validation: float = 0.15
    test: float = 0.2
    seed: int = 0

    def epochs_of(self, per_epoch: int) -> int:
        """The epochs of a run.

        Args:
            per_epoch: steps of an epoch.
        """
        return max(EPOCHS, -(-LEAST_STEPS // per_epoch)) if self.epochs is None else self.epochs

    def check(self) -> StrongSettings:
        """The settings, if they can be meant.

        Raises:
            OssicleError: a name is unknown or a number out of range.
        """
        for name, known in (("inputs", INPUTS), ("augment", AUGMENTS)):
            if getattr(self, name) not in known:
                raise OssicleError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OssicleError(f"{name} is {value}: it must be 1 or more")
        for name in _ABOVE_ZERO:
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in _FROM_ZERO:
            if not 0 <= getattr(self, name) < math.inf:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("warm_up", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise OssicleError(f"{name} is {getattr(self, name)}: choose it from 0 to below 1")
        if min(self.validation, self.test) <= 0 or not self.validation + self.test < 1:
            raise OssicleError(
                f"validation {self.validation} and test {self.test} are shares above 0 that must "
                "leave some recordings to learn from"
            )
        return self
