"""The updates of NMF as the layers of a network, trained for what it is used for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.separators.multiplicative import updated_activations
from ossicle.separators.nmf import NMF


class UnfoldedNMF(NMF):
    """`NMF` whose K updates of H are K layers, the last of them with bases of their own.

    Deep unfolding (Hershey, Le Roux & Weninger, 2014, arXiv 1409.2574; Le Roux, Hershey &
    Weninger, 2015, "Deep NMF for speech separation"): layer k updates H by bases W^k, and W^K
    makes of the last H the sources' models and their shares. The last ``n_trained`` of these K + 1
    sets are learnt, discriminatively; the others are the bases of the NMF that it started from.

    Here ``W^k = W * exp(theta^k)`` for each entry: never negative whatever theta is, and with
    theta at 0 the very same numbers as NMF with K iterations. (The papers keep W^k from becoming
    negative by multiplicative updates in place of a gradient's.)

    Args:
        sample_rate, sources, n_components, n_fft, hop_length: as of `NMF`.
        n_layers: K.
        n_trained: C, sets of bases that are learnt, counted from the last (reconstruction) on.
        tied: these C share one theta.
        divergence, sparsity, exponent, power, context: as of `NMF`.

    Attributes:
        bases: W (context * F, sum of K_s), of the NMF.
        changes: theta (C, context * F, sum of K_s), (1, ...) where tied; zeros until trained. The
            last one is that of the reconstruction.

    Raises:
        OssicleError: a value is out of range.
    """

    def __init__(
        self,
        sample_rate: int,
        sources: list[str],
        n_components: list[int],
        n_fft: int,
        hop_length: int,
        *,
        n_layers: int = 25,
        n_trained: int = 4,
        tied: bool = False,
        divergence: str = "kl",
        sparsity: float = 0.0,
        exponent: float = 1.0,
        power: float = 1.0,
        context: int = 1,
    ) -> None:
        keywords = dict(locals())
        super().__init__(
            sample_rate,
            sources,
            n_components,
            n_fft,
            hop_length,
            divergence=divergence,
            sparsity=sparsity,
            n_iterations=n_layers,
            exponent=exponent,
            power=power,
            context=context,
        )
        self.keep(keywords)
        if not 1 <= n_trained <= n_layers + 1:
            raise OssicleError(
                f"n_trained must be from 1 to n_layers + 1 = {n_layers + 1}, got {n_trained}"
            )
        self.n_trained = n_trained
        sets = 1 if tied else n_trained
        self.changes = nn.Parameter(torch.zeros(sets, *self.bases.shape))

    def layer_bases(self, layer: int) -> Tensor:
        """W^k (context * F, K) of layer 0 to ``n_layers``; the last makes the models."""
        number = layer - (self.n_iterations + 1 - self.n_trained)
        if number < 0:
            return self.bases
        change: Tensor = self.changes[min(number, len(self.changes) - 1)]
        return self.bases * change.exp()

    def explained(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(context * F, T) -> W^K (context * F, K) of the sources in order, and H (K, T)."""
        activations = frames.new_ones(self.bases.shape[1], frames.shape[1])
        for layer in range(self.n_iterations):
            activations = updated_activations(
                frames, self.layer_bases(layer), activations, self.divergence, self.sparsity
            )
        return self.layer_bases(self.n_iterations), activations
