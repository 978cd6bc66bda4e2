"""Batch renormalisation (Ioffe 2017, arXiv 1702.03275): batch norm for batches that are not alike.

A batch of one length has its own kind of sounds: words where windows are short, music where they
are long. Batch norm would take from each what its sounds have in common, and in use, where stored
statistics stand in for the batch's, give answers that it was never trained to give. Here the
numbers are those that the stored statistics give, and gradients go through the batch's (eq. of
section 3: x' = (x - mu_B) / sigma_B * r + d, r = sigma_B / sigma, d = (mu_B - mu) / sigma).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

R_MAX, D_MAX = 3.0, 5.0
MOMENTUM = 0.02


def _renormalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(B, C, ...) -> (B, C, ...) by the stored statistics, which move a little."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        # Of single precision whatever x is, and several times as fast as torch.var_mean on a CPU;
        # with a momentum of 0 it leaves the stored ones alone.
        mean, variance = torch.batch_norm_update_stats(
            x, norm.running_mean, norm.running_var, momentum=0.0
        )
        # The average of all batches at first, so that the first one's do not last.
        norm.num_batches_tracked.add_(1)
        share = max(MOMENTUM, 1 / float(norm.num_batches_tracked))
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance, share)
        own, stored = (variance + norm.eps).sqrt(), (norm.running_var + norm.eps).sqrt()
        r = (own / stored).clamp(1 / R_MAX, R_MAX)
        d = ((mean - norm.running_mean) / stored).clamp(-D_MAX, D_MAX)
    weight = r if norm.weight is None else norm.weight * r
    bias = d if norm.bias is None else norm.bias + norm.weight * d
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, norm.eps)


class _Renorm1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return _renormalised(self, input) if self.training else super().forward(input)


class _Renorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return _renormalised(self, input) if self.training else super().forward(input)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Renorm1d,
    nn.BatchNorm2d: _Renorm2d,
}


def renormalise(module: nn.Module) -> None:
    """Let all batch norms of a module be renormalised in training, in place; weights stay."""
    _exchange(module, _KINDS)


def normalise(module: nn.Module) -> None:
    """The way back: batch norms as they were, with what they have learnt."""
    _exchange(module, {new: old for old, new in _KINDS.items()})


def _exchange(module: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]]) -> None:
    for part in module.modules():
        if type(part) in kinds:
            part.__class__ = kinds[type(part)]
