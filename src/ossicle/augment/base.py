"""The contract of every augmentation: draw the random numbers, then apply them.

Two steps, so that several processes can each draw for the whole batch from generators of one seed
and apply their own rows (``compose.rows``): what becomes of an item depends on its own row of the
drawn numbers, on itself and on its own partner, never on its neighbours: bit for bit on a CPU with
one thread; several threads may split the sum over a long item, which changes its last bits.

Symbols: B items, F bands, T frames, N samples; time is last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ossicle.errors import OssicleError

Drawn = dict[str, Tensor]


class Augmentation:
    """A random change of sounds that keeps their shape; float32 in, float32 out.

    An item all of whose values are equal is silent: a waveform of zeros, a log-mel that lies at its
    floor. It comes out unchanged. So does, bit for bit, an item that is not chosen.

    A subclass writes ``_draw`` and ``_apply``.

    Args:
        p: probability of an item to be changed.

    Raises:
        OssicleError: ``p`` is not from 0 to 1.
    """

    axes: ClassVar[str] = ""  # "(B, N)" or "(B, 1, F, T)"; empty: of either
    mixes: ClassVar[bool] = False

    def __init__(self, p: float = 1.0) -> None:
        if not 0 <= p <= 1:
            raise OssicleError(f"p {p} is not a probability: choose it from 0 to 1")
        self.p = p

    @property
    def needs_partners(self) -> bool:
        """Whether ``apply`` mixes partners in."""
        return self.mixes

    def config(self) -> dict[str, Any]:
        """Keyword arguments that build it anew; JSON values."""
        return dict(vars(self))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({settings})"

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """The random numbers for ``n`` items: tensors whose first dimension is n.

        They depend on nothing but ``n`` and ``generator``; neither the sounds nor their size.
        """
        chosen = _uniform(n, generator) < self.p
        return {"chosen": chosen, **self._draw(n, generator)}

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None = None) -> Tensor:
        """Change the items ``x`` by the numbers that ``draw`` gave; ``x`` itself stays as it is.

        Args:
            x: (B, N) waveforms or (B, 1, F, T) log-mels, float32, on any device.
            drawn: what ``draw(B, generator)`` gave, or those rows of it that belong to ``x``.
            partners: sounds to mix in, as ``x``: row i belongs to item i.

        Returns:
            As ``x``: a new tensor, or ``x`` itself where no item is changed.

        Raises:
            OssicleError: the shapes or the types do not fit, or partners are needed and not given.
        """
        self._check(x, drawn, partners)
        flat = x.flatten(1)
        audible = flat.amin(dim=1) < flat.amax(dim=1)  # `aminmax` takes twenty times as long
        index = (drawn["chosen"].to(x.device) & audible).nonzero()[:, 0]
        if not len(index):
            return x
        own = {name: value.to(x.device)[index] for name, value in drawn.items()}
        z = partners[index] if partners is not None and self.needs_partners else None
        if len(index) == len(x):  # spares two copies
            return self._apply(x, own, z)
        return x.index_copy(0, index, self._apply(x[index], own, z))

    def __call__(
        self, x: Tensor, generator: torch.Generator, partners: Tensor | None = None
    ) -> Tensor:
        """``apply`` of what ``draw`` gives for as many items as ``x`` has."""
        return self.apply(x, self.draw(len(x), generator), partners)

    def _check(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> None:
        name, shape = type(self).__name__, tuple(x.shape)
        fits = not self.axes or (x.ndim == 2 if self.axes == "(B, N)" else x.ndim == 4)
        if not fits or x.ndim < 2 or 0 in shape[1:] or x.dtype != torch.float32:
            wanted = self.axes or "(B, N) or (B, 1, F, T)"
            raise OssicleError(f"{name} takes float32 {wanted}, not {x.dtype} {shape}")
        if any(len(value) != len(x) for value in drawn.values()):
            count = len(next(iter(drawn.values())))
            raise OssicleError(f"{name}: numbers were drawn for {count} items, {len(x)} are given")
        if self.needs_partners and (partners is None or partners.shape != x.shape):
            given = "none are" if partners is None else f"{tuple(partners.shape)} is"
            raise OssicleError(f"{name} needs partners of shape {shape}: {given} given")

    def _draw(self, n: int, generator: torch.Generator) -> Drawn:
        raise NotImplementedError

    def _apply(self, x: Tensor, drawn: Drawn, partners: Tensor | None) -> Tensor:
        # Chosen items that are not silent, their numbers and partners, on one device.
        raise NotImplementedError


def _uniform(*size_and_generator: Any) -> Tensor:
    *size, generator = size_and_generator
    return torch.rand(*size, generator=generator, device=generator.device)


def uniform(n: int, limits: Sequence[float], generator: torch.Generator) -> Tensor:
    """(n,) numbers, even between ``limits`` (low, high)."""
    low, high = limits
    return low + (high - low) * _uniform(n, generator)


def fractions(n: int, columns: int, generator: torch.Generator) -> Tensor:
    """(n, columns) numbers from 0 to below 1, for what ``apply`` scales to the size it finds."""
    return _uniform(n, columns, generator)


def seeds(n: int, generator: torch.Generator) -> Tensor:
    """(n,) int64: a seed for each item's own noise."""
    return torch.randint(2**62, (n,), generator=generator, device=generator.device)


def normal(own: Tensor, size: int) -> Tensor:
    """(B,) seeds -> (B, size) Gaussian noise on their device, each row from its own seed.

    Made on the CPU, so that every device has the same noise.
    """
    out = torch.empty(len(own), size)
    generator = torch.Generator()
    for row, seed in zip(out, own.tolist(), strict=True):
        generator.manual_seed(seed)
        torch.randn(size, generator=generator, out=row)
    return out.to(own.device)


def limits_of(name: str, values: Sequence[float], lowest: float = -math.inf) -> tuple[float, float]:
    """(low, high) as a setting gives them.

    Raises:
        OssicleError: not two finite numbers in order, or one is below ``lowest``.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 2:
        raise OssicleError(f"{name} {values!r} is not a pair: give (low, high)")
    low, high = float(values[0]), float(values[1])
    if not (math.isfinite(low) and math.isfinite(high) and lowest <= low <= high):
        raise OssicleError(
            f"{name} ({low:g}, {high:g}): give finite numbers, low before high"
            + (f", from {lowest:g} on" if lowest > -math.inf else "")
        )
    return low, high
