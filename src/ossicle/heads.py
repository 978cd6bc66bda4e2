"""Pooling of layer maps into vectors, and the heads that turn vectors into scores.

B batch, C channels, F bands, T frames. A pooled block is called "LAYER/POOLING".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.errors import OssicleError

# Above eight, coarse bands add dimensions but, on layers with few channels, little else.
COARSE_BANDS = 8


def _channels_last(maps: Tensor) -> Tensor:
    """(B, C, F, T) or (B, C, T) -> (B, F, T, C), a view: channels lie side by side in memory."""
    return (maps.unsqueeze(2) if maps.dim() == 3 else maps).permute(0, 2, 3, 1)


def pool_mean(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, C): mean over bands and time."""
    return _profile(maps).mean(1)


def pool_max(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, C): maximum over bands and time."""
    return _channels_last(maps).flatten(1, 2).amax(1)


def pool_std(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, C): deviation over bands and time, divided by their number."""
    return _channels_last(maps).flatten(1, 2).std(1, correction=0)


def pool_band(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, C * K): mean over time in K = min(F, 8) coarse bands, channel by channel.

    Keeping the band axis keeps pitch, formants and speaker, which the mean over bands loses
    (Niizumi et al. 2022, "Composing general audio representation", section 3).
    """
    return _coarse(_profile(maps))


def pool(maps: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Several poolings of one map: as each by itself, with what they share computed once."""
    result = {name: POOLINGS[name](maps) for name in names if name not in ("mean", "band")}
    if len(result) < len(names):
        profile = _profile(maps)
        result |= {"mean": profile.mean(1)} if "mean" in names else {}
        result |= {"band": _coarse(profile)} if "band" in names else {}
    return {name: result[name] for name in names}


def _profile(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, F, C): mean over time."""
    return _channels_last(maps).mean(2)


def _coarse(profile: Tensor) -> Tensor:
    """(B, F, C) -> (B, C * K) with K coarse bands, channel by channel."""
    bands = profile.shape[1]
    coarse = min(bands, COARSE_BANDS)
    if bands % coarse == 0:
        return profile.unflatten(1, (coarse, -1)).mean(2).transpose(1, 2).flatten(1)
    return F.adaptive_avg_pool1d(profile.transpose(1, 2), coarse).flatten(1)


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": pool_mean,
    "max": pool_max,
    "std": pool_std,
    "band": pool_band,
}


def pooled_size(channels: int, bands: int, pooling: str) -> int:
    """Length of the vector that ``pooling`` makes of (channels, bands, T)."""
    return channels * min(max(bands, 1), COARSE_BANDS) if pooling == "band" else channels


def check_poolings(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if each is a pooling.

    Raises:
        OssicleError: one is not.
    """
    for name in names:
        if name not in POOLINGS:
            raise OssicleError(f"unknown pooling {name!r}: choose from {', '.join(POOLINGS)}")
    return tuple(names)


def combine(segments: Sequence[Mapping[str, Tensor]], frames: Sequence[float]) -> dict[str, Tensor]:
    """Pooled blocks of a clip's segments -> those of the whole clip.

    Args:
        segments: for each segment, pooling name -> (B, dims); "std" needs "mean" beside it.
        frames: T' of each segment, the weights of means.

    Returns:
        pooling name -> (B, dims), as if the maps had been joined along time and then pooled.
    """
    if len(segments) == 1:
        return dict(segments[0])
    like = next(iter(segments[0].values()))
    share = torch.tensor(frames, dtype=like.dtype, device=like.device)
    share = share / share.sum()
    result: dict[str, Tensor] = {}
    for name in segments[0]:
        parts = torch.stack([segment[name] for segment in segments], -1)
        if name == "max":
            result[name] = parts.amax(-1)
        elif name != "std":
            result[name] = parts @ share
        else:
            means = torch.stack([segment["mean"] for segment in segments], -1)
            centred = means - (means @ share).unsqueeze(-1)
            result[name] = ((parts.square() + centred.square()) @ share).sqrt()
    return result


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "classes": lambda logits: logits.softmax(-1),
    "multilabel": torch.sigmoid,
    "regression": lambda logits: logits,
}


class Head(nn.Module):
    """Linear layers with ReLU between them: (B, D) -> (B, K) logits; one layer is a linear head.

    Args:
        sizes: D, hidden widths, K.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise OssicleError(f"a head needs at least an input and an output size, got {sizes}")
        self.sizes = tuple(int(size) for size in sizes)
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True)
        )

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[Tensor, Tensor]]) -> Head:
        """A head with copies of the given (weight (out, in), bias (out,)) of each layer.

        Raises:
            OssicleError: a layer's input is not the output of the one before, or its bias's size.
        """
        with torch.device("meta"):  # no memory, and nothing drawn at random to be overwritten
            head = cls([layers[0][0].shape[1], *(len(weight) for weight, _ in layers)])
        for linear, (weight, bias) in zip(head.layers, layers, strict=True):
            wanted = (linear.out_features, linear.in_features)
            if tuple(weight.shape) != wanted or tuple(bias.shape) != wanted[:1]:
                raise OssicleError(
                    f"a head's layer of {tuple(weight.shape)} and {tuple(bias.shape)} does not "
                    f"follow on the one before, which asks for {wanted}"
                )
            # In the order in which a bundle holds them: sums then come out alike, bit for bit.
            plain = torch.contiguous_format
            linear.weight = nn.Parameter(weight.detach().clone(memory_format=plain))
            linear.bias = nn.Parameter(bias.detach().clone())
        return head

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        for i, linear in enumerate(self.layers):
            x = linear(x if i == 0 else F.relu(x))
        return x

    def frames(self, maps: Tensor) -> Tensor:
        """(B, D, T) layer map -> (B, K, T): the logits of every frame by itself."""
        return self(maps.transpose(1, 2)).transpose(1, 2)


def count_parameters(module: nn.Module) -> int:
    """Number of values that training could change."""
    return sum(math.prod(p.shape) for p in module.parameters())
