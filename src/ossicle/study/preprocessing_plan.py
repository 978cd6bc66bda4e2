"""The twelve settings of the preprocessing study, and what is compared.

X are mel magnitudes: the filters sum |STFT|, or its square where asked. "log" is ln(X + 1e-7). The
order is log, weighting, standardisation of the whole excerpt, factor (arXiv 1709.01922; Choi's
thesis, 5.2.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import Strategy

SCALINGS = ("log", "linear")
WEIGHTINGS = ("per-frequency", "A-weighting", "none")
FACTORS = (1.0, 10.0)
OFFSET = 1e-7
# All networks learn alike; found for log, unweighted, on a part of one training set (see
# docs/study-preprocessing.md). No part is held out to stop by: every run is as long.
TRAINING = FinetuneSettings(
    epochs=12, learning_rate=3e-3, head_rate=0.3, layer_decay=1.0, validation=0.0, patience=0
)


class Setting(NamedTuple):
    """One of the twelve.

    Attributes:
        scaling: "log" or "linear".
        weighting: "per-frequency" (each band standardised over the excerpt), "A-weighting" or
            "none".
        factor: on the standardised excerpt.
    """

    scaling: str
    weighting: str
    factor: float

    @property
    def group(self) -> str:
        """ "log", "log x10", "linear" or "linear x10"."""
        return self.scaling if self.factor == 1 else f"{self.scaling} x{self.factor:g}"

    @property
    def name(self) -> str:
        """Such as "log x10, none"."""
        return f"{self.group}, {self.weighting}"

    def frontend(self, power: float = 1.0) -> dict[str, Any]:
        """The changes to the network's own front end; ``power`` of |STFT| is 1 or 2."""
        return {
            "power": power,
            "scaling": self.scaling,
            "offset": OFFSET,
            "a_weighting": self.weighting == "A-weighting",
            "standardise_per_frequency": self.weighting == "per-frequency",
            "standardise_per_sample": True,
            "scale": self.factor,
        }

    def strategy(
        self, excerpt_s: float, training: FinetuneSettings, power: float = 1.0
    ) -> Strategy:
        """How the setting is put to the test."""
        return Strategy(
            "scratch",
            "choi_convnet",
            config={"excerpt_s": excerpt_s},
            frontend=self.frontend(power),
            layers="last",
            settings=training,
        )


SETTINGS = tuple(Setting(s, w, f) for s in SCALINGS for f in FACTORS for w in WEIGHTINGS)


def effects() -> dict[str, np.ndarray]:
    """Name -> (12,) weights of the settings: the mean of some less the mean of others."""

    def mean(**fixed: Any) -> np.ndarray:
        chosen = [all(getattr(s, k) == v for k, v in fixed.items()) for s in SETTINGS]
        return np.array(chosen) / sum(chosen)

    found = {"log - linear": mean(scaling="log") - mean(scaling="linear")}
    for first, second in (("per-frequency", "none"), ("A-weighting", "none")):
        found[f"{first} - {second}"] = mean(weighting=first) - mean(weighting=second)
    found["per-frequency - A-weighting"] = mean(weighting="per-frequency") - mean(
        weighting="A-weighting"
    )
    found["x10 - x1"] = mean(factor=10.0) - mean(factor=1.0)
    for w in WEIGHTINGS:
        found[f"log - linear, {w}"] = mean(scaling="log", weighting=w) - mean(
            scaling="linear", weighting=w
        )
    return found
