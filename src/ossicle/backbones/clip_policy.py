"""How a clip of any length meets a network: cut into parts if long, filled up if short."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Patches(NamedTuple):
    """How a published classifier hears a clip: patches of one length, whose scores are averaged.

    A head that was trained on patches is only right on patches: at their borders every map has
    seen zeros, which inside a clip read whole it has not.

    Attributes:
        window_s: length of a patch, in seconds.
        hop_s: from one patch to the next, in seconds.
        last: what the last patch holds where the clip ends inside it. "zeros": what is left of
            the clip, then zeros. "overlap": the clip's last `window_s`, a part of which the patch
            before has heard; a clip shorter than one patch is heard over and over.
    """

    window_s: float
    hop_s: float
    last: str = "zeros"

    def cut(self, samples: np.ndarray, sample_rate: int) -> list[np.ndarray]:
        """(N,) -> patches of round(window_s * sample_rate) samples, in order."""
        window, hop = round(self.window_s * sample_rate), round(self.hop_s * sample_rate)
        starts = list(range(0, max(1, len(samples) - window + hop), hop))
        if self.last == "overlap":
            starts[-1] = max(0, min(starts[-1], len(samples) - window))
        parts = [samples[start : start + window] for start in starts]
        if self.last == "overlap" and 0 < len(samples) < window:
            return [np.resize(samples, window)]
        return [np.pad(part, (0, window - len(part))) for part in parts]


class ClipPolicy(NamedTuple):
    """How a clip of any length meets a network; every sample is used once.

    Attributes:
        window_s: the longest stretch that the network sees at once, in seconds.
        min_s: the shortest; what is shorter is filled up.
        fill: "none" (zeros up to `min_s`) or "repeat" (the clip over and over up to `min_s`).
    """

    window_s: float
    min_s: float
    fill: str = "none"

    def segments(self, n_samples: int, sample_rate: int) -> list[tuple[int, int]]:
        """(start, end) in samples; the last two of several share what is left in equal parts.

        >>> ClipPolicy(10, 1).segments(25, 1)
        [(0, 10), (10, 18), (18, 25)]
        """
        window = max(1, round(self.window_s * sample_rate))
        starts = list(range(0, n_samples, window)) or [0]
        if len(starts) > 1 and n_samples - starts[-1] < window:
            starts[-1] = starts[-2] + -(-(n_samples - starts[-2]) // 2)
        return list(zip(starts, [*starts[1:], n_samples], strict=True))

    def filled(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """(N,) -> (max(N, min_s * sample_rate),)."""
        least = round(self.min_s * sample_rate)
        if len(samples) >= least:
            return samples
        if self.fill == "repeat":
            return np.resize(samples, least)
        return np.pad(samples, (0, least - len(samples)))

    def describe(self, sample_rate: int) -> str:
        """The policy in words, for reports."""
        short = "repeated" if self.fill == "repeat" else "filled with zeros"
        return (
            f"every second of a clip is used, once, at {sample_rate} Hz: read whole up to "
            f"{self.window_s:g} s, longer ones in parts whose statistics are joined; clips under "
            f"{self.min_s:g} s are {short} up to that"
        )
