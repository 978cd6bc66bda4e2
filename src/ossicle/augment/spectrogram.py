"""Augmentations of log-mels (B, 1, F, T): B items, F bands, T frames; time is last.

Masks: Park et al. 2019, SpecAugment (arXiv 1904.08779, section 2). The others: Niizumi et al. 2023,
BYOL-A (arXiv 2204.07402, section III-B) and its code. Of the order that the paper applies them in:
``LogMixup``, ``ResizeCrop``, ``LinearFader``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ossicle.augment.base import Augmentation, Drawn, fractions, limits_of, uniform
from ossicle.errors import OssicleError

CUBIC_A = -0.75  # of the cubic convolution kernel, as torch's bicubic interpolation has it


def _fill(x: Tensor, value: float | None) -> Tensor:
    # (B, 1, 1, 1) what stands for "nothing here".
    if value is None:
        return x.mean(dim=(1, 2, 3), keepdim=True)
    return x.new_full((len(x), 1, 1, 1), value)


class _Mask(Augmentation):
    axes: ClassVar[str] = "(B, 1, F, T)"
    dim: ClassVar[int]

    def __init__(
        self,
        max_fraction: float = 0.2,
        n_masks: int = 2,
        value: float | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if not 0 < max_fraction <= 1:
            raise OssicleError(f"max_fraction {max_fraction}: choose it above 0, up to 1")
        if n_masks < 1:
            raise OssicleError(f"n_masks {n_masks}: at least 1 is needed")
        self.max_fraction, self.n_masks, self.value = max_fraction, n_masks, value

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {
            "width": fractions(n, self.n_masks, generator),
            "start": fractions(n, self.n_masks, generator),
        }

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        size = x.shape[self.dim]
        widest = math.floor(self.max_fraction * size)
        width = (drawn["width"] * (widest + 1)).floor()
        start = (drawn["start"] * (size - width + 1)).floor()
        place = torch.arange(size, device=x.device)
        inside = (place >= start[..., None]) & (place < (start + width)[..., None])
        shape = [len(x), 1, 1, 1]
        shape[self.dim] = size
        return torch.where(inside.any(1).view(shape), _fill(x, self.value), x)


class BandMask(_Mask):
    """Hides runs of bands: (B, 1, F, T) -> (B, 1, F, T).

    Each mask is 0 to ``max_fraction`` F bands wide, every width equally likely, and so is every
    place for it. Masks of one item may overlap.

    Args:
        max_fraction: of the bands, for one mask.
        n_masks: masks of an item.
        value: put in their place; None: the item's own mean.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    dim: ClassVar[int] = 2


class TimeMask(_Mask):
    """Hides runs of frames: (B, 1, F, T) -> (B, 1, F, T); as ``BandMask``, along time.

    Args:
        max_fraction: of the frames, for one mask.
        n_masks: masks of an item.
        value: put in their place; None: the item's own mean.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    dim: ClassVar[int] = 3


class ResizeCrop(Augmentation):
    """Cuts a rectangle and stretches it to the old size: (B, 1, F, T) -> (B, 1, F, T).

    The item lies in the middle of a larger canvas. A rectangle of (frequency scale) F by (time
    scale) T, at most the canvas, is cut anywhere in it and interpolated (bicubic, corners aligned).

    Args:
        canvas: bands and frames of the canvas, as multiples of F and T; at least 1.
        frequency_scale: smallest and largest height, as multiples of F.
        time_scale: smallest and largest length, as multiples of T.
        value: of the empty canvas; None: the item's own mean. BYOL-A has 0, on log-mels that are
            standardised.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, 1, F, T)"

    def __init__(
        self,
        canvas: Sequence[float] = (1.0, 1.5),
        frequency_scale: Sequence[float] = (0.6, 1.5),
        time_scale: Sequence[float] = (0.6, 1.5),
        value: float | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if len(canvas) != 2 or min(canvas) < 1:
            raise OssicleError(f"canvas {tuple(canvas)}: give two numbers, each at least 1")
        self.canvas = (float(canvas[0]), float(canvas[1]))
        self.frequency_scale = limits_of("frequency_scale", frequency_scale, 0)
        self.time_scale = limits_of("time_scale", time_scale, 0)
        self.value = value

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {
            "height": uniform(n, self.frequency_scale, generator),
            "length": uniform(n, self.time_scale, generator),
            "place": fractions(n, 2, generator),
        }

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        empty = _fill(x, self.value)
        bands, frames = x.shape[2:]
        # Interpolation is linear and separable: a matrix for each axis, and two products, which
        # are several times faster than 16 gathered neighbours for each value.
        rows = _cut_and_resize(bands, self.canvas[0], drawn["height"], drawn["place"][:, 0])
        columns = _cut_and_resize(frames, self.canvas[1], drawn["length"], drawn["place"][:, 1])
        centred = (x - empty)[:, 0]
        return (rows @ centred @ columns.transpose(1, 2))[:, None] + empty


def _cut_and_resize(size: int, canvas: float, scale: Tensor, place: Tensor) -> Tensor:
    # (B, size, size): out = matrix @ item, of an axis whose canvas is 0 outside the item.
    room = int(size * canvas)
    cut = (scale * size).floor().clamp(1, room)  # (B,)
    start = (place * (room - cut + 1)).floor() - (room - size) // 2  # in places of the item
    step = (cut - 1) / max(size - 1, 1)
    at = step[:, None] * torch.arange(size, device=scale.device)  # (B, size)
    left = at.floor()
    t = at - left
    taps = torch.arange(-1, 3, device=scale.device)  # the four neighbours
    weight = _cubic((t[..., None] - taps).abs())  # (B, size, 4)
    # Beyond the cut's own edge its last value is repeated.
    source = (left[..., None] + taps).clamp(min=0).minimum((cut - 1)[:, None, None])
    source = source + start[:, None, None]
    weight = weight * ((source >= 0) & (source < size))
    index = source.clamp(0, size - 1).long()
    matrix = weight.new_zeros(len(scale), size, size)
    return matrix.scatter_add_(2, index, weight)


def _cubic(distance: Tensor) -> Tensor:
    # Keys 1981, eq. 15 with a free: the weight of a neighbour at a distance from 0 to 2.
    a, d = CUBIC_A, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


class LogMixup(Augmentation):
    """Mixes a partner in, as sounds add up: log((1 - a) e^x + a e^z), a = ratio U(0, 1).

    (B, 1, F, T), and partners z alike -> (B, 1, F, T). BYOL-A takes clips of earlier batches as
    partners. A silent item stays silent; a silent partner only makes the item softer.

    Args:
        ratio: largest share of the partner.
        unit: how much the values grow when the energy grows e-fold: 1 for natural logarithms,
            10 / ln 10 = 4.343 for decibels, 1 / std for natural logarithms that are standardised.
            (BYOL-A takes 1 for standardised ones.)
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, 1, F, T)"
    mixes: ClassVar[bool] = True

    def __init__(self, ratio: float = 0.2, unit: float = 1.0, p: float = 1.0) -> None:
        super().__init__(p)
        if not 0 < ratio <= 1:
            raise OssicleError(f"ratio {ratio}: choose it above 0, up to 1")
        if not unit > 0:
            raise OssicleError(f"unit {unit}: choose it above 0")
        self.ratio, self.unit = ratio, unit

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {"share": uniform(n, (0, self.ratio), generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        assert partners is not None
        share = drawn["share"].view(-1, 1, 1, 1)
        kept = x / self.unit + torch.log1p(-share)
        added = partners / self.unit + torch.log(share)
        # torch.logaddexp gives the last values of a tensor other last bits than those before, and
        # an item's place would show.
        louder = kept.maximum(added)
        return self.unit * (louder + (kept - added).abs_().neg_().exp_().log1p_())


class LinearFader(Augmentation):
    """Adds a straight line over time, the same in all bands: (B, 1, F, T) -> (B, 1, F, T).

    On logarithms that is a fade in or out. The line's two ends are U(-gain, gain).

    Args:
        gain: largest value at an end, in the unit of the log-mel.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, 1, F, T)"

    def __init__(self, gain: float = 1.0, p: float = 1.0) -> None:
        super().__init__(p)
        if not gain > 0:
            raise OssicleError(f"gain {gain}: choose it above 0")
        self.gain = gain

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        limits = (-self.gain, self.gain)
        return {"first": uniform(n, limits, generator), "last": uniform(n, limits, generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        part = torch.linspace(0, 1, x.shape[3], device=x.device)
        first, last = drawn["first"][:, None], drawn["last"][:, None]
        return x + (first + (last - first) * part)[:, None, None, :]


class Gain(Augmentation):
    """Makes an item louder or softer by adding U(-gain, gain): (B, 1, F, T) -> (B, 1, F, T).

    Args:
        gain: largest change, in the unit of the log-mel.
        p: probability of an item to be changed.

    Raises:
        OssicleError: a setting is out of range.
    """

    axes: ClassVar[str] = "(B, 1, F, T)"

    def __init__(self, gain: float = 1.0, p: float = 1.0) -> None:
        super().__init__(p)
        if not gain > 0:
            raise OssicleError(f"gain {gain}: choose it above 0")
        self.gain = gain

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        return {"change": uniform(n, (-self.gain, self.gain), generator)}

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        return x + drawn["change"].view(-1, 1, 1, 1)
