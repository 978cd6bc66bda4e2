"""Which parameters belong to which layer, for any network: read off the graph of one forward pass.

A parameter belongs to the first layer whose map depends on it. Nothing is said about it by the
network itself, so that a network of another library is unfrozen like one of ours.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ossicle.model import Model

# Enough frames for any network, on top of its shortest clip.
LEAST_S = 0.05
_NORMS = (nn.modules.batchnorm._BatchNorm,)


def layer_parameters(model: Model) -> OrderedDict[str, list[nn.Parameter]]:
    """Layer -> the parameters that come in with it, shallow to deep; layers without any are absent.

    Parameters that no layer's map depends on are in none.

    Args:
        model: its weights and their `requires_grad` are left as they are.
    """
    network = model.backbone
    wanted = [p.requires_grad for p in network.parameters()]
    training = network.training
    network.requires_grad_(True)
    network.eval()
    try:
        n_samples = max(1, round(max(model.clip.min_s, LEAST_S) * model.sample_rate))
        with torch.enable_grad():
            maps = network(model.frontend(torch.zeros(1, n_samples, device=model.device)))
        seen: set[Any] = set()
        known = {id(p) for p in network.parameters()}
        stages: OrderedDict[str, list[nn.Parameter]] = OrderedDict()
        for name, layer in maps.items():
            found = [p for p in _leaves(layer, seen) if id(p) in known]
            if found:
                stages[name] = found
    finally:
        network.train(training)
        for parameter, before in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)
    return stages


def _leaves(layer: Tensor, seen: set[Any]) -> list[nn.Parameter]:
    """Parameters that the map depends on through nodes of the graph not seen before."""
    nodes, found = [layer.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # where a gradient would be accumulated
            found.append(node.variable)
        nodes.extend(before for before, _ in node.next_functions)
    return found


def norms_of(network: nn.Module, parameters: set[int]) -> list[nn.Module]:
    """Batch norms with a parameter among those of the given ids.

    Args:
        network: is searched.
        parameters: ``id`` of each.
    """
    norms = [module for module in network.modules() if isinstance(module, _NORMS)]
    return [n for n in norms if any(id(p) in parameters for p in n.parameters(recurse=False))]
