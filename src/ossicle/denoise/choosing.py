"""Choosing between denoisers without a clean recording: noise is added, and its negative wanted.

To a noisy recording y = s + m other noise n is added at the gain a. A denoiser's answer f to
y + a n is held against y - n / a = s + (m - n / a). Where m and n are Gaussian and alike, that
remainder does not correlate with the noise that was heard, m + a n, so that on the mean
``<f, y - n / a>`` is ``<f, s>``, though nobody knows s. (With a = 1 it is enough that they are
alike; but then twice the noise is heard, and what is best for that is too gentle for the
recordings themselves.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ossicle.features import one_thread
from ossicle.separators.base import Separator

# a: adds 1 dB to the noise.
ADDED = 0.5


def alignment(separator: Separator, noisy: np.ndarray, noise: np.ndarray) -> float:
    """Mean over recordings of ``<f, y - n / a> / (|f| |y + a n|)``, the higher the better.

    On the mean the cosine between answer and foreground, times the share of the foreground in what
    was heard, which is no matter of the denoiser. Like SI-SDR, which rises with that cosine alone,
    it does not count how loud the answer is.

    Args:
        separator: at the rate of the recordings; its first source is the foreground.
        noisy: y (n, N).
        noise: n (n, N).
    """
    found = []
    with one_thread():
        for y, n in zip(noisy, noise, strict=True):
            y, n = y.astype(np.float64), n.astype(np.float64)
            heard = y + ADDED * n
            samples = torch.from_numpy(heard.astype(np.float32))[None]
            f = separator.separate(samples)[0, 0].numpy().astype(np.float64)
            size = np.linalg.norm(f) * np.linalg.norm(heard)
            # A denoiser that gives nothing has found nothing.
            found.append(float(f @ (y - n / ADDED) / size) if size > 0 else 0.0)
    return float(np.mean(found))


def choose(
    build: Callable[[dict[str, Any]], Separator],
    options: Sequence[tuple[str, Sequence[Any]]],
    judge: Callable[[Separator], float],
    start: dict[str, Any],
    progress: Callable[[], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Go through settings one after the other and keep of each the value that is judged best.

    Args:
        build: gives the separator of some settings.
        options: (setting, values to try), in order.
        judge: the higher the better.
        start: all settings to begin with.
        progress: called after each separator that was judged.

    Returns:
        The settings chosen, and all that were tried with their "alignment".
    """
    best = dict(start)
    known: dict[str, float] = {}
    tried: list[dict[str, Any]] = []

    def of(settings: dict[str, Any]) -> float:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = judge(build(settings))
            tried.append({**settings, "alignment": known[key]})
            if progress is not None:
                progress()
        return known[key]

    of(best)
    for name, values in options:
        for value in values:
            other = {**best, name: value}
            if of(other) > of(best):
                best = other
    return best, tried
