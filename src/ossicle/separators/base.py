"""The contract of all systems that take a recording apart.

Symbols: S sources, C channels, N samples, F frequency bins, T frames; time is always last.
A separator has its own sample rate; how files of any rate, length and number of channels go
through it is `ossicle.separators.long_files`' affair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.separators.fourier import check_fourier

# More at once than anybody speaks; a guard against numbers from strangers' bundles.
MAX_SOURCES = 16


class Separator(nn.Module):
    """Takes stretches of sound apart.

    A subclass's constructor takes keywords whose values JSON holds, ``sources`` among them, keeps
    them by ``self.keep(locals())``, and nothing else decides the shapes of its tensors: a bundle
    rebuilds it from them.

    Args:
        sample_rate: Hz, of what ``separate`` takes and gives.
        sources: names of what comes out, in order; empty: any number of like sources (speakers)
            in no order.

    Attributes:
        info: the label: what it was trained on, with what, how well it did.
        block_s: seconds of a long file that are taken apart at once.
        overlap_s: seconds that two such blocks share.

    Raises:
        OssicleError: a value is out of range.
    """

    block_s: float = 20.0
    overlap_s: float = 4.0

    def __init__(self, sample_rate: int, sources: list[str]) -> None:
        super().__init__()
        if not 1000 <= sample_rate <= 192_000:
            raise OssicleError(f"a sample rate of {sample_rate} Hz makes no sense")
        if len(set(sources)) != len(sources) or len(sources) == 1 or len(sources) > MAX_SOURCES:
            raise OssicleError(f"sources must be two or a few more different names, got {sources}")
        self.sample_rate = sample_rate
        self.sources = tuple(sources)
        self.info: dict[str, Any] = {}
        self._keywords: dict[str, Any] = {}

    def keep(self, keywords: dict[str, Any]) -> None:
        """Remember the constructor's keywords: its ``locals()``, without self."""
        self._keywords = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in keywords.items()
            if key not in ("self", "__class__")
        }

    def config(self) -> dict[str, Any]:
        """The constructor's keywords, values as JSON holds them."""
        return dict(self._keywords)

    @property
    def num_parameters(self) -> int:
        """Of all that was learnt."""
        return sum(parameter.numel() for parameter in self.parameters())

    def count(self, n_sources: int | None) -> int:
        """S: as many as there are names, or as asked for where there are none (default 2).

        Raises:
            OssicleError: another number is asked for than there are names, or less than 2.
        """
        if self.sources:
            if n_sources not in (None, len(self.sources)):
                raise OssicleError(
                    f"this bundle gives {len(self.sources)} sources ({', '.join(self.sources)}), "
                    f"not {n_sources}"
                )
            return len(self.sources)
        n_sources = 2 if n_sources is None else n_sources
        if not 2 <= n_sources <= MAX_SOURCES:
            raise OssicleError(f"{n_sources} sources: ask for 2 to {MAX_SOURCES}")
        return n_sources

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        """One stretch, (C, N) float32 -> (S, C, N); the same input gives the same output.

        Args:
            samples: at ``sample_rate``.
            n_sources: S, where ``sources`` is empty.
        """
        raise NotImplementedError(f"{type(self).__name__} must define separate")


class MaskSeparator(Separator):
    """A separator that weights the bins of a spectrum; its sources add up to the recording.

    Args:
        sample_rate: Hz.
        sources: as in `Separator`.
        n_fft, hop_length: of the `Fourier` transform, samples.
    """

    def __init__(self, sample_rate: int, sources: list[str], n_fft: int, hop_length: int) -> None:
        super().__init__(sample_rate, sources)
        self.fourier = check_fourier(n_fft, hop_length)

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) complex64 -> (S, F, T) float32 in [0, 1] that add up to 1 in every bin."""
        raise NotImplementedError(f"{type(self).__name__} must define masks")

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        """(C, N) -> (S, C, N): masks of the channels' mean, applied to each channel."""
        n_sources = self.count(n_sources)
        with torch.inference_mode():
            spectra = self.fourier.analyse(samples)
            masks = self.masks(spectra.mean(0), n_sources)
            return self.fourier.synthesise(masks[:, None] * spectra, samples.shape[-1])
