"""Batches whose pairs come from a synthesiser: sounds and their perturbed doubles, no recordings.

Cherep & Singh 2025, "Contrastive Learning from Synthetic Audio Doppelgangers", arXiv 2406.05923.
"""

from __future__ import annotations

import torch

from ossicle.errors import OssicleError
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.synthesiser import RandomSynthesiser
from ossicle.train import Batch, step_seed

PAIRS = 13  # stream of random numbers


class SyntheticBatches:
    """Batch ``step`` of views (b, 2, N): the first share synthetic pairs, the rest recordings.

    Args:
        sample_rate: Hz.
        batch_size: items of the joint batch of all processes.
        crop_s: length of a sound, in seconds.
        delta: how far a pair's parameters lie apart, 0 to 1.
        real: batches of recordings to take the rest from; None: there is no rest.
        share: of synthetic pairs.
        partners: give each view another synthetic sound to mix with.
        seed: of the sounds.

    Attributes:
        seconds_per_item: of audio, both views.
        steps_per_epoch: of the recordings; 1000 where there are none.

    Raises:
        OssicleError: the batches of recordings do not have two views, or are not as these are.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        batch_size: int,
        crop_s: float,
        delta: float = 0.25,
        real: CropBatches | None = None,
        share: float = 1.0,
        partners: bool = False,
        seed: int = 0,
    ) -> None:
        if real is not None and real.views != 2:
            raise OssicleError("synthetic pairs are for objectives that compare two views")
        size = (batch_size, round(crop_s * sample_rate))
        if real is not None and (
            size != (real.batch_size, real.crop) or (partners and not real.partners)
        ):
            raise OssicleError("recordings and synthetic pairs need batches, crops, partners alike")
        self.synthesiser = RandomSynthesiser(sample_rate, crop_s)
        self.batch_size, self.real, self.delta = batch_size, real, delta
        self.count = batch_size if real is None else round(share * batch_size)
        self.partners, self.seed = partners, seed
        self.seconds_per_item = 2 * crop_s
        self.steps_per_epoch = 1000 if real is None else real.steps_per_epoch

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` among ``world`` in the batch of ``step``.

        Raises:
            OssicleError: the batch cannot be dealt out in equal parts, or delta is not 0 to 1.
        """
        if self.batch_size % world:
            raise OssicleError(
                f"a batch of {self.batch_size} items cannot be dealt out to {world} processes"
            )
        generator = torch.Generator().manual_seed(step_seed(self.seed, step, PAIRS))
        size = self.batch_size // world
        rows = slice(rank * size, (rank + 1) * size)
        pairs = torch.stack(self.synthesiser.pairs(self.count, self.delta, generator), 1)
        others = pairs.roll(1, 0) if self.partners else None
        names = ["synthetic"] * self.count
        if self.real is None:
            mixed = None if others is None else others[rows]
            return Batch(pairs[rows], names[rows], rows, self.batch_size, mixed)
        whole = self.real.batch(step)
        views = torch.cat([pairs, whole.waveforms[self.count :]])
        if others is not None and whole.partners is not None:
            others = torch.cat([others, whole.partners[self.count :]])
        names += list(whole.names[self.count :])
        targets = whole.targets
        if targets is not None:  # what has no label counts in the contrastive part alone
            targets = targets.clone()
            targets[: self.count] = -1 if targets.dim() == 1 else float("nan")
            targets = targets[rows]
        mixed = None if others is None else others[rows]
        return Batch(views[rows], names[rows], rows, self.batch_size, mixed, targets)
