"""How much there is to learn from: clips and groups a class, lengths, bandwidth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ossicle.audio import info, load
from ossicle.datasets.clips import Clips
from ossicle.errors import AudioError

# Files that are opened for their length, and decoded for their bandwidth.
LOOKED_AT, LISTENED_TO = 200, 24
# Share of a clip's power below its bandwidth.
ROLL_OFF = 0.99
_FRAME = 2048


def task_size(clips: Clips) -> dict[str, Any]:
    """Clips and groups, in all and for each class.

    Returns:
        task, n_clips, n_groups, group_source, n_classes (outputs of a regression),
        clips_per_class and groups_per_class (name -> number; empty with "regression"), and their
        medians and minima. A regression counts as ten classes: what a probe of numbers needs is
        compared by a tenth of its clips, a judgement that is not measured.
    """
    told = clips.describe()
    own = {name: entry["clips"] for name, entry in told["classes"].items()}
    groups = {name: entry["groups"] for name, entry in told["classes"].items()}
    counts = list(own.values()) or [len(clips) / 10]
    group_counts = list(groups.values()) or [told["n_groups"] / 10]
    return {
        "task": clips.task,
        "n_clips": len(clips),
        "n_groups": told["n_groups"],
        "group_source": told["group_source"],
        "n_classes": len(clips.classes) or 1,
        "clips_per_class": own,
        "groups_per_class": groups,
        "median_clips": float(np.median(counts)),
        "least_clips": float(min(counts)),
        "median_groups": float(np.median(group_counts)),
        "least_groups": float(min(group_counts)),
    }


def sound(clips: Clips, seed: int = 0) -> dict[str, Any]:
    """Lengths and bandwidth of a sample of the clips, by opening some and decoding fewer.

    Returns:
        seconds: median, least and most; rate: median file's rate (Hz); bandwidth: median over
        clips of the frequency (Hz) below which 99 % of the power lies; n_looked_at and
        n_listened_to. None where no clip could be read.
    """
    table = clips.table
    order = np.random.default_rng(seed).permutation(len(clips))
    seconds, rates, widths = [], [], []
    for count, row in enumerate(order[:LOOKED_AT]):
        entry = table.iloc[row]
        onset, offset = float(entry["onset"]), float(entry["offset"])
        start = 0.0 if math.isnan(onset) else onset
        try:
            told = info(entry["path"])
            end = told.duration_s if math.isnan(offset) else min(offset, told.duration_s)
            seconds.append(end - start)
            rates.append(told.sample_rate)
            if count < LISTENED_TO:
                audio = load(entry["path"], onset=start, offset=min(end, start + 10.0))
                widths.append(bandwidth(audio.samples[0], audio.sample_rate))
        except AudioError:
            continue  # told when features are made
    heard = [width for width in widths if width is not None]
    return {
        "seconds": {
            "median": float(np.median(seconds)) if seconds else None,
            "least": float(min(seconds)) if seconds else None,
            "most": float(max(seconds)) if seconds else None,
        },
        "rate": float(np.median(rates)) if rates else None,
        "bandwidth": float(np.median(heard)) if heard else None,
        "n_looked_at": len(seconds),
        "n_listened_to": len(heard),
    }


def bandwidth(samples: np.ndarray, sample_rate: int) -> float | None:
    """Frequency (Hz) below which 99 % of the power of (N,) samples lies; None for silence.

    The power is that of Hann-windowed frames of 2,048 samples that overlap by half, their mean
    taken off.
    """
    x = np.asarray(samples, np.float64)
    x = np.pad(x, (0, max(0, _FRAME - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, _FRAME)[:: _FRAME // 2]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_FRAME)
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).sum(axis=0)
    total = power.sum()
    if total <= 0:
        return None
    bin_ = int(np.searchsorted(np.cumsum(power), ROLL_OFF * total))
    return float(min(bin_, len(power) - 1) * sample_rate / _FRAME)
