"""A network for inference: batch norms folded into the convolutions, weights laid out for it."""

from __future__ import annotations

import copy
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ossicle.backbones.normaliser_free import WSConv2d
from ossicle.backbones.packed_conv import pack_convolutions

# Where a network keeps its tensors: the dict of a module, and the name there.
Slots = tuple[tuple[dict[str, Any], str], ...]
# One for all networks, as a lock cannot be copied; folding takes milliseconds, once a network.
_LOCK = threading.Lock()


class Folded(NamedTuple):
    """A backbone with its batch norms folded in, and what it was made from.

    Attributes:
        network: the folded copy.
        slots: where the original keeps each tensor: the dict of its module, and the name there.
        made_from: address and version of each tensor of the original; torch counts a version up at
            every change in place.
        kept: those tensors, so that their addresses are not given to others.
    """

    network: nn.Module
    slots: Slots
    made_from: tuple[tuple[int, int], ...]
    kept: tuple[Tensor, ...]

    def is_fresh(self) -> bool:
        """Whether the original's tensors are still those that were folded."""
        return _marks(self.slots) == self.made_from


def folded(backbone: nn.Module, last: Folded | None) -> Folded:
    """The last folded copy if the backbone has not changed since, else a new one.

    Modules that were put in place of others are not noticed, their tensors are.
    """
    with _LOCK:
        if last is not None and last.is_fresh():
            return last
        # Walking the modules takes a millisecond, looking into their dicts a twentieth.
        slots: Slots = tuple(
            (store, name)
            for module in backbone.modules()
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None
        )
        # Tensors born in inference mode could never be used for a gradient.
        with torch.inference_mode(False), torch.no_grad():
            network = fold_batch_norm(backbone)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network = pack_convolutions(network)
            kept = tuple(tensor.detach() for tensor in _tensors(slots))
        return Folded(network, slots, _marks(slots), kept)


def _tensors(slots: Slots) -> list[Tensor]:
    return [tensor for store, name in slots if (tensor := store.get(name)) is not None]


def _marks(slots: Slots) -> tuple[tuple[int, int], ...]:
    tensors = _tensors(slots)
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy for inference in which each convolution carries the batch norm that follows it.

    Weights that are standardised at every pass are so once.

    Same function with stored statistics, fewer passes over memory; only ``nn.Sequential`` pairs
    are folded.
    """
    folded = copy.deepcopy(module).eval()
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, WSConv2d):
                setattr(parent, name, child.plain())
    for sequence in folded.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for i in range(len(sequence) - 1):
            conv, norm = sequence[i], sequence[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(conv, norm)
                sequence[i + 1] = nn.Identity()
    return folded.requires_grad_(False)
