"""What an alternative costs in seconds of this machine: from a short timing, before it is run.

One clip's features were timed when the task was measured; here one training step of each depth is.
What a probe's fit costs is taken from the measured tasks, as it is small beside the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ossicle.features import one_thread
from ossicle.finetune.models import build
from ossicle.finetune.stages import layer_parameters
from ossicle.finetune.strategy import Strategy

# Clips of the step that is timed; times that it is, of which the quickest counts.
BATCH, REPEATS = 4, 2


def step_seconds(strategy: Strategy, seconds: float, seed: int = 0) -> float:
    """Seconds of one core that a clip costs in training: forward, backward, of the layers trained.

    Args:
        strategy: "finetune" or "scratch".
        seconds: of the median clip, heard where the strategy sets no ``crop_s``.
        seed: of random weights.
    """
    model, settings = build(strategy, seed), strategy.training
    stages = list(layer_parameters(model).values())
    depth = len(stages) if isinstance(settings.unfreeze, str) else settings.unfreeze
    depth = 0 if settings.unfreeze == "head" else depth
    network = model.backbone
    network.requires_grad_(False)
    for parameters in stages[len(stages) - depth :]:
        for parameter in parameters:
            parameter.requires_grad_(True)
    heard = seconds if settings.crop_s is None else settings.crop_s
    heard = float(np.clip(heard, model.clip.min_s, model.clip.window_s))
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(BATCH, max(1, round(heard * model.sample_rate)), generator=generator)
    took = []
    with one_thread():
        for _ in range(1 + REPEATS):  # the first one warms up
            start = time.perf_counter()
            loss = torch.stack(
                [x.float().mean() for x in network(model.frontend(0.1 * samples)).values()]
            ).sum()
            if loss.requires_grad:
                loss.backward()
            network.zero_grad(set_to_none=True)
            took.append(time.perf_counter() - start)
    return min(took[1:]) / BATCH


def costs(
    alternatives: Mapping[str, Strategy],
    facts: Mapping[str, Any],
    n_training: float,
    rows: Sequence[Mapping[str, Any]],
    workers: int = 1,
) -> dict[str, dict[str, float]]:
    """Seconds of each alternative for that many clips to learn from.

    Args:
        alternatives: name -> strategy.
        facts: of ``ossicle.advise.measure``.
        n_training: clips.
        rows: of the calibration, for what a probe's fit takes.
        workers: threads; features and training are taken to share them evenly.

    Returns:
        Name -> seconds (in all, at most: training stops early), features, fit, training and step
        (a clip heard once).
    """
    own, length = facts["seconds"]["own"], facts["sound"]["seconds"]["median"] or 1.0
    told = {}
    for name, strategy in alternatives.items():
        network = {"mfcc": "mfcc", "random": "random"}.get(name, "own")
        features = n_training * facts["seconds"].get(network, own)
        fit = n_training * _fit_seconds("all" if strategy.kind == "finetune" else name, rows)
        step = training = 0.0
        if strategy.kind != "probe":
            s, step = strategy.training, step_seconds(strategy, length)
            heard = s.epochs * n_training * (1 - s.validation)
            checked = s.epochs * n_training * s.validation
            # A clip that is only listened to: its features, or a third of a step.
            look = own if strategy.kind == "finetune" else step / 3
            training = (heard * step + checked * look) / max(1, workers)
        if strategy.kind == "scratch":
            features = fit = 0.0
        told[name] = {
            "seconds": features + fit + training,
            "features": features,
            "fit": fit,
            "training": training,
            "step": step,
        }
    return told


def _fit_seconds(name: str, rows: Sequence[Mapping[str, Any]]) -> float:
    """Median seconds a clip that a probe's fit took, in the measured tasks."""
    found = [row["seconds"] / row["n_training"] for row in rows if row["alternative"] == name]
    return float(np.median(found)) if found else 0.0
