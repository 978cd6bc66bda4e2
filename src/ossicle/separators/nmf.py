"""Separation by non-negative bases that each source has of its own."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ossicle.errors import OssicleError
from ossicle.separators.base import MaskSeparator
from ossicle.separators.multiplicative import (
    FLOOR,
    check_divergence,
    normalised,
    updated_activations,
    updated_bases,
)

# Mean magnitude below which a frame is not made louder: less than a bit of 24 does to a spectrum.
_SILENT = 1e-9


class NMF(MaskSeparator):
    """Bases W_s of each source, fixed; how active they are in a recording, H, is found there.

    Each frame of the spectrum is brought to mean 1, H starts at 1 everywhere and is updated
    ``n_iterations`` times (`multiplicative.updated_activations`). Then source s has the share
    ``(W_s H_s) ** exponent / sum over r of (W_r H_r) ** exponent`` of each bin (Wiener, of the
    sources' models). No frame knows of frames beyond its context, so that it does not matter where
    a long file is cut, nor how loud it is.

    Sources in ``free`` have no bases of their own: theirs are learnt on each stretch from what
    the others leave (semi-supervised; Smaragdis, Raj & Shashanka, 2007). They start from means of
    the stretch's frames.

    Args:
        sample_rate: Hz.
        sources: names, in order.
        n_components: K_s of each source.
        n_fft, hop_length: of the transform, samples.
        divergence: one of `multiplicative.DIVERGENCES`.
        sparsity: weight of the sum of H, on frames of mean 1 and bases of Euclidean length 1.
        n_iterations: updates.
        exponent: 1: shares of magnitudes (of powers, with ``power`` 2); 2: of their squares.
        power: the spectrum's magnitudes are raised to it: 1, or 2 as Itakura-Saito presupposes.
        context: frames that a basis spans, odd; the middle one is what is masked.
        free: names of sources whose bases are learnt on the recording.

    Attributes:
        bases: W (context * F, sum of K_s of the sources not free), zeros until filled.

    Raises:
        OssicleError: a value is out of range.
    """

    block_s = 10.0
    overlap_s = 1.0

    def __init__(
        self,
        sample_rate: int,
        sources: list[str],
        n_components: list[int],
        n_fft: int,
        hop_length: int,
        *,
        divergence: str = "kl",
        sparsity: float = 0.0,
        n_iterations: int = 25,
        exponent: float = 1.0,
        power: float = 1.0,
        context: int = 1,
        free: list[str] | None = None,
    ) -> None:
        super().__init__(sample_rate, sources, n_fft, hop_length)
        free = [] if free is None else list(free)
        self.keep(locals())
        check_divergence(divergence)
        if not sources or len(n_components) != len(sources) or min(n_components) < 1:
            raise OssicleError(
                f"each source needs a name and one or more bases, got sources {list(sources)} "
                f"with {list(n_components)} bases"
            )
        if sum(n_components) > 100_000 or not 1 <= n_iterations <= 10_000:
            raise OssicleError("more bases or iterations than make sense")
        if not (sparsity >= 0 and 0 < exponent <= 8 and 0 < power <= 4):
            raise OssicleError(
                f"sparsity {sparsity}, exponent {exponent} and power {power} must be from zero, "
                "above zero to 8, and above zero to 4"
            )
        if context < 1 or context % 2 == 0 or context > 99:
            raise OssicleError(f"the context must be an odd number of frames, got {context}")
        if set(free) - set(sources) or len(free) >= len(sources):
            raise OssicleError(f"free must name some, not all, of {list(sources)}, got {free}")
        self.n_components = list(n_components)
        self.divergence, self.sparsity, self.n_iterations = divergence, sparsity, n_iterations
        self.exponent, self.power, self.context = exponent, power, context
        self.free = tuple(name for name in sources if name in free)
        if self.free:  # bases are learnt from a block: it should hold something to learn from
            self.block_s, self.overlap_s = 30.0, 4.0
        pairs = zip(sources, n_components, strict=True)
        n_fixed = sum(count for name, count in pairs if name not in free)
        rows = context * self.fourier.n_bins
        self.bases = nn.Parameter(torch.zeros(rows, n_fixed), requires_grad=False)

    def frames(self, magnitude: Tensor) -> Tensor:
        """(..., F, T) magnitudes -> (..., context * F, T) what is factorised, of mean 1."""
        patches = stacked(magnitude**self.power, self.context)
        floor = _SILENT**self.power
        return patches / patches.mean(-2, keepdim=True).clamp_min(floor)

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) complex64 -> (S, F, T) shares of the sources."""
        return self.shares(self.frames(spectrum.abs()))

    def shares(self, frames: Tensor) -> Tensor:
        """(context * F, T) as `frames` gives them -> (S, F, T) in [0, 1], adding up to 1."""
        bases, activations = self.explained(frames)
        middle = self.context // 2 * self.fourier.n_bins
        rows = bases[middle : middle + self.fourier.n_bins]
        parts = zip(
            rows.split(self.n_components, 1), activations.split(self.n_components), strict=True
        )
        # The floor also shares silence out evenly.
        models = torch.stack([w @ h for w, h in parts]).clamp_min(FLOOR)
        if self.exponent != 1:
            models = models**self.exponent
        return models / models.sum(0)

    def explained(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(context * F, T) -> W (context * F, K) of the sources in order, and H (K, T)."""
        bases = self._with_free(frames) if self.free else self.bases
        activations = frames.new_ones(bases.shape[1], frames.shape[1])
        learnt = self._free_columns() if self.free else None
        for _ in range(self.n_iterations):
            activations = updated_activations(
                frames, bases, activations, self.divergence, self.sparsity
            )
            if learnt is not None:
                new = updated_bases(frames, bases, activations, self.divergence, self.sparsity)
                # Only the free ones move; the bound that the update minimises is one for each.
                bases = torch.where(learnt, new, bases)
                bases, activations = normalised(bases, activations)
        return bases, activations

    def _free_columns(self) -> Tensor:
        """(K,) which bases are learnt on the recording."""
        return torch.tensor(
            [
                name in self.free
                for name, count in zip(self.sources, self.n_components, strict=True)
                for _ in range(count)
            ],
            device=self.bases.device,
        )

    def _with_free(self, frames: Tensor) -> Tensor:
        """(context * F, K): the fixed bases, and for the free ones means of stretches of frames."""
        fixed, columns = 0, []
        for name, count in zip(self.sources, self.n_components, strict=True):
            if name not in self.free:
                columns.append(self.bases[:, fixed : fixed + count])
                fixed += count
                continue
            # Stretches overlap where there are fewer frames than bases; a little of the mean of
            # all frames keeps every entry above zero.
            edges = torch.linspace(0, frames.shape[1], count + 1).tolist()
            pairs = pairwise(edges)
            means = [frames[:, int(a) : max(int(b), int(a) + 1)].mean(1) for a, b in pairs]
            started = torch.stack(means, 1) + 0.1 * frames.mean(1, keepdim=True) + FLOOR
            columns.append(started / torch.linalg.vector_norm(started, dim=0))
        return torch.cat(columns, 1)


def stacked(values: Tensor, context: int) -> Tensor:
    """(..., F, T) -> (..., context * F, T): each frame with its neighbours, zeros beyond the ends.

    Rows are the frames from the earliest to the latest, F rows each.
    """
    if context == 1:
        return values
    n_frames, side = values.shape[-1], context // 2
    padded = pad(values, (side, side))
    return torch.cat([padded[..., i : i + n_frames] for i in range(context)], -2)
