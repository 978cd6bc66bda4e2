"""Convolutions for inference on CPUs: weights laid out for oneDNN once, activation in one pass.

A plain convolution lays its weights out anew at every call, which for one clip at a time costs as
much as the convolution. The operators are those that torch's own compiler emits; they are not part
of its documented interface, so where they are missing, or a tensor is not what they take, the
plain convolution runs.

Weights of a convolution over one place are laid out as a matrix: laid out for the convolution they
are only quick for inputs of about the length that they were laid out for (up to 50 times slower
for others), and clips have any length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ossicle.backbones.layers import SameConv2d

# Activation -> its name and scalars in oneDNN's fused convolution.
FUSED: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
}


class PackedConv2d(nn.Module):
    """A convolution and its activation: the same function, about twice as fast on a CPU.

    Args:
        conv: with numbers for padding, or ``SameConv2d``; frozen.
        activation: applied to the result; None is none.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F', T')."""
        if not self._fits(x):
            y = self.conv(x)
            return y if self.activation is None else self.activation(y)
        conv = self.conv
        name, scalars = FUSED.get(type(self.activation), ("none", []))  # type: ignore[arg-type]
        if _over_one_place(conv):
            y = self._matrix_product(x, name, scalars)
            return y if self.activation is None or name != "none" else self.activation(y)
        if isinstance(conv, SameConv2d):
            x, padding = conv.padded(x)
        else:
            padding = conv.padding  # type: ignore[assignment]
        if self._packed is None:
            self._packed = _pack(conv, padding, x)
        y = torch.ops.mkldnn._convolution_pointwise(
            x,
            self._packed,
            conv.bias,
            padding,
            conv.stride,
            conv.dilation,
            conv.groups,
            name,
            scalars,
            "",
        )
        return y if self.activation is None or name != "none" else self.activation(y)

    def _matrix_product(self, x: Tensor, name: str, scalars: list[float]) -> Tensor:
        """(B, C, F, T) -> (B, C', F, T): the channels of every place times the weights."""
        linear: Any = torch.ops.mkldnn
        if self._packed is None:
            with torch.no_grad():
                weight = self.conv.weight.detach().flatten(1)
                self._packed = linear._reorder_linear_weight(weight, None)
        places = x.permute(0, 2, 3, 1).contiguous()  # a view, where channels lie side by side
        y = linear._linear_pointwise(places, self._packed, self.conv.bias, name, scalars, "")
        return y.permute(0, 3, 1, 2)

    def _fits(self, x: Tensor) -> bool:
        """Whether oneDNN's operators take this tensor: they know no gradient, no other device."""
        cpu = x.device.type == "cpu" and self.conv.weight.device.type == "cpu"
        plain = x.dtype == torch.float32 and x.dim() == 4 and x.numel() > 0
        learns = torch.is_grad_enabled() and (x.requires_grad or self.conv.weight.requires_grad)
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        return cpu and plain and not learns and not traced


def _over_one_place(conv: nn.Conv2d) -> bool:
    ones = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1
    return ones and (isinstance(conv, SameConv2d) or conv.padding == (0, 0))


def _pack(conv: nn.Conv2d, padding: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        weight = conv.weight.detach().to_mkldnn()
        return reorder(weight, padding, conv.stride, conv.dilation, conv.groups, list(x.shape))


def pack_convolutions(network: nn.Module) -> nn.Module:
    """Put ``PackedConv2d`` in place of the convolutions of a frozen network, where it works.

    The activation that follows in an ``nn.Sequential`` is taken into the convolution.
    """
    if not _available():
        return network
    for parent in list(network.modules()):
        if isinstance(parent, PackedConv2d):
            continue
        children = list(parent.named_children())
        for i, (name, child) in enumerate(children):
            if not isinstance(child, nn.Conv2d) or not _takes(child):
                continue
            activation, after = None, children[i + 1 :]
            if isinstance(parent, nn.Sequential):
                # Batch norms that were folded have left identities behind.
                rest = [(n, m) for n, m in after if not isinstance(m, nn.Identity)]
                if rest and type(rest[0][1]) in FUSED:
                    activation = rest[0][1]
                    setattr(parent, rest[0][0], nn.Identity())
            setattr(parent, name, PackedConv2d(child, activation))
    return network


def _takes(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _available() -> bool:
    """Whether this torch has the operators, and they give the right numbers."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(devices=[]):  # the constructors draw; the caller's numbers stay
        convolutions = [SameConv2d(2, 3, size, stride) for size, stride in ((1, 1), (3, 2))]
    x = torch.arange(60, dtype=torch.float32).reshape(1, 2, 5, 6) / 60
    with torch.no_grad():
        for conv in convolutions:
            want = conv.requires_grad_(False)(x)
            try:
                got = PackedConv2d(conv)(x)
            except (RuntimeError, AttributeError, TypeError):
                return False
            if not torch.allclose(got, want, atol=1e-5):
                return False
    return True
