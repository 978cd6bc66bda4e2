"""Muon: momentum whose matrices are made orthogonal, for the weights inside of a network.

What is learnt in a step then has no favourite direction, and fewer steps are needed (Jordan et al.
2024, "Muon: an optimizer for hidden layers in neural networks"). torch's takes matrices alone; here
the kernels of convolutions are matrices (outputs, inputs x kernel), as in that text, and what is no
such matrix is AdamW's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Jordan et al. 2024: x -> a x + b x^3 + c x^5 sends what lies in (0, 1] near 1 in five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# Of a step's root mean square, so that one learning rate serves both (Liu et al. 2025, "Muon is
# scalable for LLM training", arXiv 2502.16982, section 2.2).
LIKE_ADAM = 0.2
# Of fewer inputs, as a network's first convolution has, a matrix is as good as a vector.
FEWEST_INPUTS = 32


def orthogonalised(x: Tensor) -> Tensor:
    """(O, I) -> (O, I): U V^T of x = U S V^T, roughly, by Newton-Schulz rounds in 16 bits."""
    wide = x.shape[0] <= x.shape[1]
    y = (x if wide else x.T).bfloat16()
    y = y / y.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return (y if wide else y.T).to(x.dtype)


def is_matrix(part: nn.Module) -> bool:
    """Whether its weight is one matrix, and large enough: no depthwise convolution, no stem."""
    if not isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) or getattr(part, "groups", 1) != 1:
        return False
    return part.weight[0].numel() >= FEWEST_INPUTS


class MuonAdamW(torch.optim.AdamW):
    """Muon for a network's convolutions and linear maps, AdamW for its other parameters.

    Args:
        module: what is trained; of one with a ``backbone``, that alone has matrices for Muon, since
            heads are not inside.
        learning_rate, weight_decay: of all; vectors do not decay.
    """

    def __init__(self, module: nn.Module, learning_rate: float, weight_decay: float) -> None:
        inside = getattr(module, "backbone", module)
        matrices = {id(part.weight) for part in inside.modules() if is_matrix(part)}
        live = [p for p in module.parameters() if p.requires_grad]
        rest = [p for p in live if id(p) not in matrices]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in live if id(p) in matrices], "muon": True},
            {"params": [p for p in rest if p.dim() > 1], "muon": False},
            {"params": [p for p in rest if p.dim() <= 1], "muon": False, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step by the gradients that there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            for weight in group["params"] if group["muon"] else ():
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["weight_decay"])
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, learning_rate: float, decay: float) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            # AdamW looks for a count of steps in all that it reads back.
            state["step"] = torch.zeros(())
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["step"] += 1
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        # Nesterov's: as the momentum will be with the same gradient once more.
        matrix = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        size = LIKE_ADAM * max(matrix.shape) ** 0.5
        weight.mul_(1 - learning_rate * decay)
        weight.sub_(matrix.view_as(weight), alpha=learning_rate * size)
