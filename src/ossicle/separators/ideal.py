"""Ideal masks: what the best mask of a kind would give, made from the sources themselves.

They bound what a system that weights the bins of a spectrum can reach, and are no systems: they
need the answer. Symbols: S sources, N samples, F bins, T frames; time is last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ossicle.errors import OssicleError
from ossicle.separators.fourier import Fourier, check_fourier

# What `IdealMask` takes.
KINDS = ("binary", "ratio", "wiener", "phase")


def ideal_binary_mask(spectra: Tensor) -> Tensor:
    """1 where a source is the loudest of all, else 0 (Wang 2005, "On ideal binary mask").

    Args:
        spectra: (S, F, T) complex, of the sources.

    Returns:
        (S, F, T) float32 that add up to 1 in every bin: of sources equally loud, silent bins
        among them, the first has it.
    """
    loudest = spectra.abs().argmax(0)
    masks = torch.nn.functional.one_hot(loudest, len(spectra))
    return masks.movedim(-1, 0).to(torch.float32)


def ideal_ratio_mask(spectra: Tensor, power: float = 1.0) -> Tensor:
    """Each source's share of what all have in a bin: |S_i|^p / sum |S_j|^p.

    Args:
        spectra: (S, F, T) complex, of the sources.
        power: p; 1 shares by magnitudes, 2 by energies, which is the Wiener filter of sources
            whose powers are known (Erdogan et al. 2015, "Phase-sensitive and recognition-boosted
            speech separation", ICASSP, table 1).

    Returns:
        (S, F, T) float32 that add up to 1; a bin without energy is shared evenly.
    """
    levels = spectra.abs().to(torch.float64) ** power
    total = levels.sum(0)
    shares = torch.where(total > 0, levels / total, 1.0 / len(spectra))
    return shares.to(torch.float32)


def phase_sensitive_mask(spectra: Tensor) -> Tensor:
    """The real weights nearest to each source in every bin: Re(S_i / X), X the sum of sources.

    Of all real masks it has the least squared error in a bin (Erdogan et al. 2015, table 1, before
    the truncation to [0, 1]).

    Args:
        spectra: (S, F, T) complex, of the sources.

    Returns:
        (S, F, T) float32 that add up to 1, below 0 and above 1 where sources cancel; where X is
        0, shared evenly.
    """
    exact = spectra.to(torch.complex128)
    mixture = exact.sum(0)
    energy = mixture.abs() ** 2
    parts = (exact * mixture.conj()).real
    shares = torch.where(energy > 0, parts / energy, 1.0 / len(spectra))
    return shares.to(torch.float32)


class IdealMask:
    """A mask made from the sources and laid over the mixture, as a row to score beside systems.

    Args:
        kind: "binary", "ratio" (of magnitudes), "wiener" (of energies) or "phase".
        n_fft, hop_length: of the `Fourier` transform, samples.

    Raises:
        OssicleError: another kind, or sizes that cannot be inverted.
    """

    def __init__(self, kind: str, n_fft: int, hop_length: int) -> None:
        if kind not in KINDS:
            raise OssicleError(f"unknown ideal mask {kind!r}; there are {', '.join(KINDS)}")
        self.kind = kind
        self.fourier: Fourier = check_fourier(n_fft, hop_length)

    def masks(self, sources: Tensor) -> Tensor:
        """(S, N) float32 -> (S, F, T) float32."""
        spectra = self.fourier.analyse(sources)
        if self.kind == "binary":
            return ideal_binary_mask(spectra)
        if self.kind == "phase":
            return phase_sensitive_mask(spectra)
        return ideal_ratio_mask(spectra, 2.0 if self.kind == "wiener" else 1.0)

    def separate(self, mixture: Tensor, sources: Tensor) -> Tensor:
        """(N,) mixture and (S, N) sources -> (S, N) estimates, in the order of the sources.

        They add up to the mixture.
        """
        with torch.inference_mode():
            spectrum = self.fourier.analyse(mixture)
            return self.fourier.synthesise(self.masks(sources) * spectrum, mixture.shape[-1])
