"""What moves the weights: parameter groups, adaptive gradient clipping, warm-up and cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.pretrain.muon import MuonAdamW

AGC_FLOOR = 1e-3  # of a unit's norm, so that weights at zero can move
OPTIMISERS = ("adamw", "adam", "muon", "sgd")


def unit_norm(x: Tensor) -> Tensor:
    """Norm of each output unit: over all axes but the first; over all of a vector or a number.

    (O, ...) -> (O, 1, ...); (O,) -> (1,).
    """
    if x.dim() <= 1:
        return x.norm().reshape([1] * x.dim())
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))


@torch.no_grad()
def clip_adaptively(parameters: Iterable[nn.Parameter], clipping: float) -> None:
    """Adaptive gradient clipping (Brock et al. 2021, arXiv 2102.06171, eq. 3), in place.

    For each unit i: where |G_i| > lambda max(|W_i|, 1e-3), G_i becomes
    lambda max(|W_i|, 1e-3) G_i / |G_i|. Never to be given a network's last layer.

    Args:
        parameters: those with a gradient are clipped.
        clipping: lambda.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        most = clipping * unit_norm(parameter).clamp(min=AGC_FLOOR)
        norm = unit_norm(parameter.grad)
        parameter.grad.mul_((most / norm.clamp(min=1e-12)).clamp(max=1.0))


def warm_up_cosine(step: int, total: int, warm_up: int) -> float:
    """Factor on the learning rate: a line up over ``warm_up`` steps, half a cosine down to 0.

    >>> [round(warm_up_cosine(s, 10, 2), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def create_optimiser(
    module: nn.Module, name: str, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser over all parameters that require gradients.

    Weight decay spares vectors and numbers: biases, gains, batch norms.

    Raises:
        OssicleError: the name is unknown, a number is out of range, or nothing can be trained.
    """
    if name not in OPTIMISERS:
        raise OssicleError(f"unknown optimiser {name!r}: choose one of {', '.join(OPTIMISERS)}")
    if not (learning_rate > 0 and weight_decay >= 0):
        raise OssicleError("the learning rate must be above 0 and the weight decay not below")
    live = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in live if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in live if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise OssicleError("there is nothing to train: no parameter requires a gradient")
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    if name == "muon":
        return MuonAdamW(module, learning_rate, weight_decay)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    # In one pass over the memory instead of a dozen.
    return kind(groups, lr=learning_rate, fused=True)


class MovingAverage:
    """Exponential moving average of a module, buffers and all: a <- d a + (1 - d) x.

    Args:
        module: followed; the average starts as its copy.
        average: a module of the same kind that holds the average.
        decay: d.
    """

    def __init__(self, module: nn.Module, average: nn.Module, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise OssicleError(f"decay {decay}: choose it from 0 to 1")
        self.module, self.average, self.decay = module, average, decay
        average.load_state_dict(module.state_dict())
        average.requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the module; counters are copied."""
        now = self.module.state_dict()
        floats = [(a, now[name]) for name, a in self.average.state_dict().items()]
        moving = [(a, x) for a, x in floats if a.is_floating_point()]
        averages, values = [a for a, _ in moving], [x for _, x in moving]
        if averages:
            torch._foreach_lerp_(averages, values, 1 - self.decay)
        for a, x in floats:
            if not a.is_floating_point():
                a.copy_(x)
