"""Augmentation of windows together with the targets of their frames.

B windows, K classes, T frames. What is drawn comes from the step's generator alone. A mixed window
holds what either holds, so its targets are the larger of the two; where one of them is not known
when, the mixture's frames are not known.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor

from ossicle.augment import BandMask, Gain, TimeMask
from ossicle.pretrain.views import mixing_unit
from ossicle.strong.front import PICTURE, Front
from ossicle.strong.settings import StrongSettings
from ossicle.strong.targets import Targets

MIXED = 0.5  # of the windows
SNR_DB = 10.0  # the other window is so much louder or softer at most
SHARE = (0.3, 0.7)  # of the other window, where features are mixed
BANDS, TIMES = (0.15, 2), (0.03, 3)  # largest share of a mask, and masks


class Changes:
    """The random changes that the settings ask for.

    Args:
        front: of the network that hears the windows.
        settings: how.
        hop: samples of a frame.
    """

    def __init__(self, front: Front, settings: StrongSettings, hop: int) -> None:
        self.settings, self.hop = settings, hop
        self.unit = mixing_unit(front.detector.frontend)
        self.masks = [
            BandMask(BANDS[0], BANDS[1]),
            TimeMask(TIMES[0], TIMES[1]),
        ]
        self.gain = None
        if self.unit is not None and settings.gain_db:
            self.gain = Gain(settings.gain_db * self.unit * math.log(10) / 10)

    def of_waveforms(
        self, x: Tensor, targets: Targets, generator: torch.Generator
    ) -> tuple[Tensor, Targets]:
        """(B, N) samples moved around in time by whole frames, louder or softer, mixed."""
        s = self.settings
        if s.augment == "none":
            return x, targets
        frames = targets.frames.shape[-1]
        x, targets = x.clone(), Targets(*(part.clone() for part in targets))
        moves = torch.randint(frames, (len(x),), generator=generator).tolist()
        for row, move in enumerate(moves):
            if not bool(targets.valid[row].all()):
                continue  # the filling stays at the end
            x[row] = x[row].roll(move * self.hop)
            targets.frames[row] = targets.frames[row].roll(move, -1)
        level = s.gain_db * (2 * torch.rand(len(x), 1, generator=generator) - 1)
        x *= 10 ** (level / 20)
        if s.augment == "mix":
            other, mixed = _partners(len(x), generator)
            snr = SNR_DB * (2 * torch.rand(len(x), 1, generator=generator) - 1)
            rms = x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
            added = x[other] * (rms / rms[other]).clamp(max=10.0) * 10 ** (-snr / 20)
            x = torch.where(mixed[:, None], x + added, x)
            targets = joined(targets, other, mixed)
        return x, targets

    def of_parts(
        self, parts: OrderedDict[str, Tensor], targets: Targets, generator: torch.Generator
    ) -> tuple[OrderedDict[str, Tensor], Targets]:
        """What the front made of windows: pictures louder or softer, windows mixed."""
        s = self.settings
        if s.augment == "none":
            return parts, targets
        if s.augment == "mix":
            n = len(targets.clips)
            other, mixed = _partners(n, generator)
            low, high = SHARE
            share = low + (high - low) * torch.rand(n, generator=generator)
            share = torch.where(mixed, share, 0.0)
            parts = OrderedDict(
                (name, self._mixed(name, x, other, share)) for name, x in parts.items()
            )
            targets = joined(targets, other, mixed)
        if self.gain is not None and parts[PICTURE].shape[2] > 1:
            parts[PICTURE] = self.gain(parts[PICTURE].contiguous(), generator)
        return parts, targets

    def masked(self, parts: OrderedDict[str, Tensor], generator: torch.Generator) -> None:
        """Hide bands and times of the pictures, in place of the part."""
        if self.settings.augment != "none" and parts[PICTURE].shape[2] > 1:
            for mask in self.masks:
                parts[PICTURE] = mask(parts[PICTURE].contiguous(), generator)

    def _mixed(self, name: str, x: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """(B, ...) mixed with others of the batch by shares (B,): pictures as sounds add up."""
        part = share.view(-1, *[1] * (x.dim() - 1))
        if name != PICTURE or self.unit is None:
            return torch.lerp(x, x[other], part)
        if x.shape[2] == 1:
            return x  # of no values
        kept = x / self.unit + torch.log1p(-part)
        added = x[other] / self.unit + part.log()  # -inf where nothing is added
        return self.unit * torch.logaddexp(kept, added)


def _partners(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Another of the batch for each, (n,), and which are mixed, (n,) bool."""
    order = torch.randperm(n, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one round through all: nobody is paired with itself
    return other, torch.rand(n, generator=generator) < MIXED


def joined(targets: Targets, other: Tensor, mixed: Tensor) -> Targets:
    """Targets of windows that are mixed with others of the batch, where ``mixed``.

    Args:
        targets: of the windows.
        other: (B,) whom each is mixed with.
        mixed: (B,) bool.
    """
    both = Targets(
        torch.maximum(targets.frames, targets.frames[other]),
        # The filling of either is quiet, and what is known of the other holds there.
        targets.known & (targets.known[other] | ~targets.valid[other])
        | targets.known[other] & ~targets.valid,
        torch.maximum(targets.clips, targets.clips[other]),
        targets.valid | targets.valid[other],
    )
    parts = []
    for new, old in zip(both, targets, strict=True):
        parts.append(torch.where(mixed.view(-1, *[1] * (old.dim() - 1)), new, old))
    return Targets(*parts)
