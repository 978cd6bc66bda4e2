"""Separators whose answer is known: fixed filters and panned voices, nothing learnt."""

from __future__ import annotations

import numpy as np
import scipy.signal
import torch

from ossicle.separators.base import Separator

RATE = 8000
# Low-pass at 1 kHz with 101 taps, and what is left: a pure delay less the low-pass.
TAPS = scipy.signal.firwin(101, 1000, fs=RATE)


def low_and_high(samples: np.ndarray) -> np.ndarray:
    """(C, N) -> (2, C, N): convolved as a whole, by numpy."""
    n = samples.shape[-1]
    low = np.stack([np.convolve(channel, TAPS)[50 : 50 + n] for channel in samples.astype(float)])
    return np.stack([low, samples - low])


class Filters(Separator):
    """Two complementary filters; the same for every block."""

    block_s, overlap_s = 2.0, 0.5

    def __init__(self, sample_rate: int = RATE, sources: tuple[str, ...] = ("low", "high")):
        super().__init__(sample_rate, list(sources))
        self.keep(locals())

    def separate(self, samples, n_sources=None):
        assert self.count(n_sources) == 2
        found = scipy.signal.oaconvolve(samples.numpy().astype(np.float64), TAPS[None], "same", -1)
        return torch.from_numpy(np.stack([found, samples.numpy() - found]).astype(np.float32))


class Quarters(Filters):
    """A quarter of everything, and the rest: costs nothing."""

    def separate(self, samples, n_sources=None):
        return torch.stack([samples / 4, samples * 3 / 4])


class Voices(Separator):
    """Each channel holds a voice; they come back in an order that changes from block to block."""

    block_s, overlap_s = 2.0, 0.5

    def __init__(self, sample_rate: int = RATE, shuffled: bool = True, leak: float = 0.2):
        super().__init__(sample_rate, [])
        self.keep(locals())
        self.shuffled, self.leak = shuffled, leak
        self.orders: list[list[int]] = []

    def separate(self, samples, n_sources=None):
        count = self.count(n_sources)
        own = torch.zeros(count, *samples.shape)
        for voice in range(count):
            for other in range(count):
                own[voice, voice] += samples[other] * (1.0 if other == voice else self.leak)
        if self.shuffled:
            seed = int(samples.abs().double().sum().item() * 1e6) % 2**32
            order = np.random.default_rng(seed).permutation(count)
            self.orders.append(order.tolist())
            own = own[torch.from_numpy(order)]
        return own
