"""How quick a network is beside another, in one run: the same audio, in turns, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_network_scores import ROOT, Network
from scipy.stats import binom

from ossicle.audio import load, resample
from ossicle.features import extract, one_thread
from ossicle.heads import count_parameters
from ossicle.line import pick_model
from ossicle.model import Model

MINUTES = 5.0
# What is embedded -> seconds of a clip; longer than a network's window, it is cut by the network.
MATERIAL = {"clips of 10 s": 10.0, "clips of 1 s": 1.0, "one file of 5 minutes": 60 * MINUTES}
FILES = "OGG files of 5 s, decoded and resampled"


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """The median and its interval by order statistics, which supposes nothing of how times vary.

    Between the k-th smallest and the k-th largest of n values lies the median with a probability
    of 1 - 2 P(Binomial(n, 1/2) < k); k is the largest with 95 % at least.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    k = max(1, int(binom.ppf(0.025, n, 0.5)))
    return {
        "value": float(np.median(ordered)),
        "low": float(ordered[k - 1]),
        "high": float(ordered[n - k]),
    }


def in_turns(runs: Sequence[Callable[[], object]], repeats: int) -> np.ndarray:
    """(runs, repeats) seconds; within a repeat all take their turn, the first one changing."""
    taken = np.zeros((len(runs), repeats))
    for run in runs:
        run()
    for repeat in range(repeats):
        for turn in range(len(runs)):
            which = (turn + repeat) % len(runs)
            start = time.perf_counter()
            runs[which]()
            taken[which, repeat] = time.perf_counter() - start
    return taken


def sound(folder: Path, seconds: float) -> tuple[np.ndarray, int]:
    """Recordings one after the other, (N,), and their rate."""
    parts: list[np.ndarray] = []
    rate, length = 0, 0.0
    for path in sorted(folder.glob("*/*.ogg")):
        clip = load(path, sample_rate=rate or None)
        rate = clip.sample_rate
        parts.append(clip.samples.mean(0))
        length += len(parts[-1]) / rate
        if length >= seconds:
            break
    return np.concatenate(parts)[: round(seconds * rate)], rate


def embed(model: Model, clips: Sequence[np.ndarray]) -> Callable[[], object]:
    """A pass over clips: front end, network, all layers, the network's own poolings."""

    def run() -> None:
        for clip in clips:
            model.clip_features(clip)

    return run


def size_of(network: Network) -> dict[str, Any]:
    """Parameters, megabytes of the file in the package, if any, and at half precision."""
    model = pick_model(network.backbone, random="--random" in network.options)
    numbers = sum(t.numel() for t in model.backbone.state_dict().values())
    # A bundle is not what ships: it holds single precision.
    shipped = ROOT / "src" / "ossicle" / "weights"
    files = sorted(shipped.glob(f"{network.backbone}*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    return {
        "parameters": count_parameters(model.backbone),
        "layers": len(model.layers),
        "megabytes": size / 1e6 if files else None,
        "megabytes_half": 2 * numbers / 1e6,
    }


def speeds(networks: Sequence[Network], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds for the same audio of the networks, and how often the last goes into each.

    Args:
        networks: the last is what the others are compared with.
        folder: of recordings, a folder a class, as OGG.
        repeats: of each, in turns.
    """
    torch.set_num_threads(1)
    models = [pick_model(n.backbone, random="--random" in n.options) for n in networks]
    samples, rate = sound(folder, 60 * MINUTES)
    at_rate = [resample(samples[None], rate, m.sample_rate)[0].astype(np.float32) for m in models]
    result: dict[str, Any] = {"minutes": MINUTES, "repeats": repeats, "material": {}}
    runs: dict[str, list[Callable[[], object]]] = {}
    for what, seconds in MATERIAL.items():
        clips = []
        for model, whole in zip(models, at_rate, strict=True):
            n = round(seconds * model.sample_rate)
            clips.append([whole[i : i + n] for i in range(0, len(whole) - n + 1, n)])
        runs[what] = [embed(m, own) for m, own in zip(models, clips, strict=True)]
    files = [str(path) for path in sorted(folder.glob("*/*.ogg"))[: round(12 * MINUTES)]]
    runs[FILES] = [lambda m=m: extract(m, files, workers=1) for m in models]  # type: ignore[misc]
    with one_thread():
        for what, own in runs.items():
            taken = in_turns(own, repeats)
            result["material"][what] = {
                network.title: {
                    "seconds": median_interval(seconds),
                    "times_real_time": 60 * MINUTES / float(np.median(seconds)),
                    "ratio": median_interval(taken[-1] / seconds),
                }
                for network, seconds in zip(networks, taken, strict=True)
            }
    result["sizes"] = {network.title: size_of(network) for network in networks}
    return result


def times_real_time(model: Model, repeats: int = 5) -> float:
    """Of 10 s of noise on one thread, the quickest of some passes: for tables of many networks."""
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.standard_normal(round(10 * model.sample_rate))).astype(np.float32)
    with one_thread():
        return 10.0 / float(in_turns([embed(model, [clip])], repeats).min())
