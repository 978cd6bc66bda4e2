"""What a partitioned autoencoder is trained by; no clean recording is in it.

b items, B bands, K latents, P pooled frames, N samples; time is last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.separate.training import SeparatorTraining
from ossicle.separators.base import Separator
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder
from ossicle.train import Batch, Step

_TINY = 1e-8
# Places along frequency between which a colour is drawn as a line.
_POINTS = 6


def latent_mask(latents: Tensor, n_foreground: int, noisy: Tensor) -> Tensor:
    """C (b, K, P): 1 at the foreground's latents of recordings of noise alone, else 0."""
    first = torch.arange(latents.shape[1], device=latents.device) < n_foreground
    alone = noisy <= 0
    return (first[None, :, None] & alone[:, None, None]).to(latents).expand_as(latents)


def partition_penalty(latents: Tensor, mask: Tensor, scale: Tensor | float) -> Tensor:
    """``(s / c) * mean((C * Z)^2)`` with c the mean of C; 0 where C is 0 everywhere.

    Stowell and Turner 2015 (arXiv 1509.05982): dividing by c, it does not depend on how many items
    of a batch are noise alone.

    Args:
        latents: Z (b, K, P).
        mask: C (b, K, P).
        scale: s.
    """
    share = mask.mean()
    return scale * (mask * latents).square().mean() / share.clamp(min=_TINY)


def remix_loss(
    spectrum: Tensor, target: Tensor, share: Tensor, hats: Tensor, even: float
) -> Tensor:
    """How far the masked spectrum is from the target, without what no mask changes.

    For each item, with M the mask and sums over its bands and frames,
    ``sum w |M X - T|^2 / sum w |X|^2`` less its constant term.

    Args:
        spectrum: X (b, F, T) complex.
        target: T (b, F, T) complex.
        share: M (b, B, T) in [0, 1].
        hats: (B, F).
        even: weights w are a band's mean power to the power of minus this: 0 counts power, 1
            counts each band alike.
    """
    power = hats @ spectrum.abs().square()
    cross = hats @ (spectrum.conj() * target).real
    mean = power.mean(-1, keepdim=True)
    weight = (mean + 1e-3 * mean.mean(1, keepdim=True) + _TINY**2).pow(-even)
    error = (weight * (share.square() * power - 2 * share * cross)).sum((1, 2))
    return (error / (weight * power).sum((1, 2)).clamp(min=_TINY**2)).mean()


class PartitionedTraining(SeparatorTraining):
    """Reconstruction, the penalty on what must be silent, and remixing.

    ``|X - X^|^2 + penalty * (s / c) |C Z|^2`` (Stowell and Turner 2015) leaves open what the
    foreground's latents do in noisy recordings: they may carry the noise as well. Remixing tells
    them: noise n from a recording of noise alone is added to the input y, and the foreground's mask
    of y + n is to come near to y - n. With y = s + m, the noise m - n of that target is as often up
    as down and does not correlate with the input's m + n, as both are drawn alike; so its mean is
    s, which nobody has heard (the argument of Lehtinen et al. 2018, Noise2Noise, arXiv 1803.04189).

    With a teacher (`teacher.foregrounds`) recordings are foregrounds without noise already, as far
    as it heard them, and the mask of s + n is to come near to s.

    Batches have waveforms (b, 2, N), a recording and noise to add, and targets (b,): 1 for noisy
    recordings, 0 for noise alone.

    Args:
        autoencoder: to train.
        penalty: lambda.
        remix: weight of remixing; 0: none, and nothing is added to the recordings.
        even: of `remix_loss`.
        taught: recordings are a teacher's foregrounds.
        colour_db: recording and noise go together through one random smooth filter of up to so much
            up or down: other microphones, other places.
        weight_decay: times the sum of the squares of all weights (not biases).
        validate, patience: as in `SeparatorTraining`.
    """

    def __init__(
        self,
        autoencoder: PartitionedAutoencoder,
        *,
        penalty: float,
        remix: float,
        even: float = 0.5,
        taught: bool = False,
        colour_db: float = 0.0,
        weight_decay: float = 0.0,
        validate: Callable[[Separator], float] | None = None,
        patience: int = 0,
    ) -> None:
        super().__init__(autoencoder, validate, patience)
        self.autoencoder = autoencoder
        self.penalty, self.remix, self.even, self.taught = penalty, remix, even, taught
        self.colour_db, self.weight_decay = colour_db, weight_decay

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and its parts."""
        net = self.autoencoder
        recording, noise = batch.waveforms[:, 0], batch.waveforms[:, 1]
        noisy = batch.targets
        assert noisy is not None
        heard = recording + noise if self.remix else recording
        colour = _colour(step.size, net.fourier.n_bins, self.colour_db, step.generator)
        colour = colour[step.rows].to(heard)
        spectrum = net.fourier.analyse(heard) * colour
        bands = net.bands(spectrum)
        latents, places = net.encode(bands)
        n_frames = bands.shape[-1]
        whole = net.decode(latents, places, n_frames)
        # In units of what a band varies by, so that weights mean the same at any compression.
        unit = net.band_std.square().mean()
        reconstruction = (whole - bands).square().mean() / unit
        # s: latents in units of their own size, else all would shrink and the decoder grow.
        scale = 1 / latents.detach().square().mean().clamp(min=_TINY)
        penalty = partition_penalty(latents, latent_mask(latents, net.n_foreground, noisy), scale)
        loss = reconstruction + self.penalty * penalty
        parts = {"reconstruction": reconstruction.detach(), "penalty": penalty.detach()}
        if self.remix:
            foreground = net.decode(net.only(latents, True), places, n_frames)
            background = net.decode(net.only(latents, False), places, n_frames)
            share = net.share(foreground, background)
            # Of noise alone the foreground is known: nothing.
            wanted = recording if self.taught else recording - noise
            wanted = wanted * (noisy > 0).to(noise)[:, None]
            target = net.fourier.analyse(wanted) * colour
            told = remix_loss(spectrum, target, share, net.hats, self.even)
            loss = loss + self.remix * told
            parts["remix"] = told.detach()
        if self.weight_decay:
            weights = [p for p in net.parameters() if p.dim() > 1]
            loss = loss + self.weight_decay * torch.stack([w.square().sum() for w in weights]).sum()
        return loss, parts

    def judge(self) -> dict[str, float]:
        """As `SeparatorTraining`, but for the name: what is chosen by knows no clean recording."""
        return dict(zip(("validation_alignment",), super().judge().values(), strict=False))


def _colour(n_items: int, n_bins: int, most_db: float, generator: torch.Generator) -> Tensor:
    """(b, F, 1) smooth random gains."""
    points = (2 * torch.rand(n_items, 1, _POINTS, generator=generator) - 1) * most_db
    curve = F.interpolate(points, n_bins, mode="linear", align_corners=True)
    return 10 ** (curve.transpose(1, 2) / 20)
