"""Blocks that two or more backbones share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) zeros of TensorFlow's "SAME": output length ceil(size / stride).

    >>> same_padding(96, 3, 2), same_padding(95, 3, 2), same_padding(96, 3, 1)
    ((0, 1), (1, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding, which for stride 2 depends on the size.

    (B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride)).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', ceil(F / stride), ceil(T / stride))."""
        x, padding = self.padded(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, (1, 1), self.groups)

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The input, with zeros where the sides differ, and what is left to pad on both sides."""
        f = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        t = same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        if f[0] == f[1] and t[0] == t[1]:
            return x, (f[0], t[0])
        return F.pad(x, (*t, *f)), (0, 0)


def he_normal_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every convolution and linear weight from N(0, 2 / fan_in); biases become 0.

    Source: He et al. 2015, eq. 10. ``nn.init.kaiming_normal_`` does it, from a generator of one's
    own so that the same seed gives the same network whatever else has drawn numbers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_recurrent_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every GRU and LSTM inside ``module``.

    Of each gate, the weights on the input are N(0, 1 / fan_in), which keeps the gates off their
    ends for inputs of deviation 1, and those on the state are orthogonal (Saxe et al. 2014,
    arXiv 1312.6120). Biases are 0, but for the forget gate of an LSTM, whose bias is 1 so that it
    remembers from the start (Jozefowicz et al. 2015).
    """
    for layer in module.modules():
        if not isinstance(layer, nn.GRU | nn.LSTM):
            continue
        for name, tensor in layer.named_parameters():
            gates = tensor.view(-1, layer.hidden_size, *tensor.shape[1:])
            with torch.no_grad():
                for number, gate in enumerate(gates):
                    if name.startswith("weight_ih"):
                        gate.normal_(0, gate.shape[1] ** -0.5, generator=generator)
                    elif name.startswith("weight_hh"):
                        nn.init.orthogonal_(gate, generator=generator)
                    else:
                        # torch orders an LSTM's gates input, forget, cell, output, and adds the
                        # two biases.
                        forget = isinstance(layer, nn.LSTM) and number == 1
                        gate.fill_(1.0 if forget and name.startswith("bias_ih") else 0.0)
