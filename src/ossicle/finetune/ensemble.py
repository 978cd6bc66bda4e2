"""Several networks folded into one, so that an ensemble costs what one network costs.

Networks that were fine-tuned from the same weights often lie in one valley of the loss: the mean of
their weights is as good as the mean of their answers (Wortsman et al. 2022, arXiv 2203.05482,
"model soups"). Where the network stayed frozen and only heads differ, the mean of linear heads is
the mean of their logits exactly. What was trained from different random weights cannot be averaged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ossicle.model import Model


def fold(
    models: Sequence[Model], loss: Callable[[Model], float] | None
) -> tuple[Model, dict[str, Any]]:
    """One model of several that share front end, read-out and shape.

    Args:
        models: of several seeds; with heads.
        loss: on clips that none of them was fitted on, lower is better; None: there are none, and
            weights are only averaged where that is exact.

    Returns:
        The model, and how it was made: "kind" ("single", "heads", "weights" or "best"), "seeds",
        "best" (the number of the one with the least loss), "losses" of each and "loss" of the mean,
        where they are known.
    """
    about: dict[str, Any] = {"kind": "single", "seeds": len(models), "best": 0}
    if len(models) == 1:
        return models[0], about
    same = all(_equal(models[0].backbone, other.backbone) for other in models[1:])
    if same and loss is None:
        return mean_model(models), {**about, "kind": "heads"}
    if loss is None:
        return models[0], {**about, "kind": "best"}
    losses = [loss(model) for model in models]
    best = min(range(len(models)), key=losses.__getitem__)
    about["best"] = best
    soup = mean_model(models)
    found = loss(soup)
    about |= {"losses": losses, "loss": found}
    if same or found <= losses[best]:
        return soup, {**about, "kind": "heads" if same else "weights"}
    return models[best], {**about, "kind": "best"}


def _equal(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


@torch.no_grad()
def mean_model(models: Sequence[Model]) -> Model:
    """The mean of all weights and statistics; counters are those of the first."""
    mean = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return mean.eval().requires_grad_(False)
