"""The raw waveform as a front end, for backbones that learn their own filters."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ossicle.frontend.base import FrontEnd
from ossicle.frontend.scaling import standardise


class Waveform(FrontEnd):
    """Samples as they are, (B, N) -> (B, 1, N); one "frame" is one sample.

    An empty clip becomes one zero sample.

    Args:
        sample_rate: Hz.
        standardise_per_sample: bring each clip to mean 0 and standard deviation 1 (the input
            that wav2vec 2.0 expects, Baevski et al. 2020, section 2).
    """

    standardise_per_sample: bool

    def __init__(self, sample_rate: int, standardise_per_sample: bool = False) -> None:
        super().__init__(locals())
        self.hop_s = 1 / sample_rate
        self.n_bands = 1

    def num_frames(self, n_samples: int) -> int:
        """N, or 1 for an empty clip."""
        return max(n_samples, 1)

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, N)."""
        if waveform.shape[1] == 0:
            waveform = functional.pad(waveform, (0, 1))
        if self.standardise_per_sample:
            waveform = standardise(waveform, dims=(-1,))
        return waveform
