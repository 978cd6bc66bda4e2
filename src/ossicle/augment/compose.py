"""Augmentations made of augmentations: all in order, one of several, some of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ossicle.augment.base import Augmentation, Drawn, fractions, uniform
from ossicle.errors import OssicleError


def rows(drawn: Drawn, index: Tensor | slice) -> Drawn:
    """Of drawn numbers those of some items: ``{name: value[index]}``."""
    return {name: value[index] for name, value in drawn.items()}


def _inside(drawn: Drawn, number: int) -> Drawn:
    # Of nested numbers ("0.chosen", "1.0.chosen") those of one part.
    start = f"{number}."
    return {k.removeprefix(start): v for k, v in drawn.items() if k.startswith(start)}


class Compose(Augmentation):
    """One augmentation after the other; the partners of all are those given, unchanged.

    Args:
        augmentations: in order; each with its own probability.
        p: probability of an item to go through them at all.

    Raises:
        OssicleError: there are none, or ``p`` is out of range.
    """

    def __init__(self, augmentations: Sequence[Augmentation], p: float = 1.0) -> None:
        super().__init__(p)
        if not augmentations:
            raise OssicleError(f"{type(self).__name__} needs at least one augmentation")
        self.augmentations = list(augmentations)

    @property
    def needs_partners(self) -> bool:
        """Whether any part mixes partners in."""
        return any(a.needs_partners for a in self.augmentations)

    def config(self) -> dict[str, Any]:
        """Its settings; the parts under ``augmentations``, each with its class ``type``."""
        parts = [{"type": type(a).__name__, **a.config()} for a in self.augmentations]
        return {**super().config(), "augmentations": parts}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {
            f"{number}.{name}": value
            for number, augmentation in enumerate(self.augmentations)
            for name, value in augmentation.draw(n, generator).items()
        }

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        for number, augmentation in enumerate(self.augmentations):
            x = augmentation.apply(x, _inside(drawn, number), partners)
        return x


class SomeOf(Compose):
    """For each item a random few of several augmentations, in the order of the list.

    How many is even between the limits of ``count``; which, by ``weights``, without repetition. A
    part that is picked still has its own probability ``p``.

    Args:
        augmentations: to pick from.
        count: fewest and most to pick; None: from 1 to all.
        weights: of each to be picked, above 0; None: equal.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range, or the weights are not one for each.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        count: tuple[int, int] | None = None,
        weights: Sequence[float] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(augmentations, p)
        total = len(self.augmentations)
        low, high = count or (1, total)
        if not 0 <= low <= high <= total:
            raise OssicleError(f"count ({low}, {high}): choose from 0 to {total}, low before high")
        if weights is not None and (len(weights) != total or min(weights) <= 0):
            raise OssicleError(f"weights {list(weights)}: give {total} numbers above 0")
        self.count = (low, high)
        self.weights = None if weights is None else [float(w) for w in weights]

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        total, (low, high) = len(self.augmentations), self.count
        # The largest keys u^(1/w) are a weighted sample without repetition (Efraimidis & Spirakis
        # 2006, algorithm A); their logarithms, in float64, do not run into 0.
        keys = fractions(n, total, generator).double().clamp(min=1e-300).log()
        if self.weights is not None:
            keys = keys / keys.new_tensor(self.weights)
        rank = keys.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        many = uniform(n, (low, high + 1), generator).floor().clamp(max=high)
        return {"picked": rank < many[:, None], **super()._draw(n, generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        for number, augmentation in enumerate(self.augmentations):
            own = _inside(drawn, number)
            own["chosen"] = own["chosen"] & drawn["picked"][:, number]
            x = augmentation.apply(x, own, partners)
        return x


class OneOf(SomeOf):
    """For each item one of several augmentations.

    Args:
        augmentations: to pick from.
        weights: of each to be picked, above 0; None: equal.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range, or the weights are not one for each.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        weights: Sequence[float] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(augmentations, (1, 1), weights, p)

    def config(self) -> dict[str, Any]:
        """Its settings; the parts under ``augmentations``, each with its class ``type``."""
        return {name: value for name, value in super().config().items() if name != "count"}
