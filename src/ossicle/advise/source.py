"""How alike source and target are: by the source's own classifier, and by recordings of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from ossicle.advise.quick import sample_clips
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import Clip, as_clips, extract, one_thread, read_clip, run_in_order
from ossicle.model import Model
from ossicle.transfer.similarity import frechet_distance, kernel_distance, proxy_a_distance
from ossicle.transfer.transferability import leep, nce

# A class claims a clip where it gives it at least this probability.
CLAIMED = 0.5
# With fewer recordings on a side a linear classifier tells nothing.
LEAST = 20


def head_evidence(model: Model, clips: Clips, workers: int = 1) -> dict[str, Any] | None:
    """What the classifier of the source makes of the target's clips.

    Args:
        model: with its head.
        clips: the target; all can be read.
        workers: threads.

    Returns:
        None without a head of classes; else n_classes, top (mean of the highest probability),
        claimed (share of clips with a probability of 0.5 or more), entropy (mean over clips of
        that of the normalised probabilities, as a share of log n_classes), names (the five that
        are most often the highest), and with "classes" leep and nce (nats a clip) with their
        ceiling 0 and floor (minus the entropy of the labels). Scores of classes that do not
        exclude each other are divided by their sum first, as LEEP is defined on a distribution.
    """
    if model.head is None or model.task == "regression" or len(model.classes) < 2:
        return None

    def scores(clip: Clip) -> np.ndarray:
        return model.clip_scores(read_clip(clip, model.sample_rate))

    with one_thread():
        found = [result for _, result in run_in_order(scores, as_clips(clips), workers)]
    kept = [row for row, result in enumerate(found) if isinstance(result, np.ndarray)]
    if not kept:
        raise DataError("none of the clips can be heard by the source's classifier")
    theta = np.array([found[row] for row in kept], np.float64)
    share = theta / np.maximum(theta.sum(axis=1, keepdims=True), 1e-12)
    best = theta.argmax(axis=1)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
    often = np.argsort(-np.bincount(best, minlength=theta.shape[1]), kind="stable")[:5]
    told: dict[str, Any] = {
        "n_classes": theta.shape[1],
        "top": float(theta.max(axis=1).mean()),
        "claimed": float((theta.max(axis=1) >= CLAIMED).mean()),
        "entropy": float(entropy.mean() / np.log(theta.shape[1])),
        "names": [model.classes[c] for c in often if (best == c).any()],
    }
    if clips.task == "classes":
        y = clips.y()[kept]
        shares = np.bincount(y) / len(y)
        shares = shares[shares > 0]
        told["leep"] = float(leep(share, y))
        told["nce"] = float(nce(best, y))
        told["floor"] = float((shares * np.log(shares)).sum())
    return told


def source_distance(
    model: Model,
    features: np.ndarray,
    clips: Clips,
    source: Clips,
    limit: int,
    seed: int = 0,
    workers: int = 1,
) -> dict[str, Any]:
    """How far the target lies from recordings of the source, on the last layer's mean.

    Both sides are scaled by the deviation of the two together, and divided by the square root of
    the number of dimensions, so that the squared distances can be read without the network's units.

    Args:
        model: the network.
        features: (n, d) of the target.
        clips: the target, for its groups.
        source: recordings of the source, labelled or not.
        limit: recordings of the source that are heard.
        seed: of the sample and the folds.
        workers: threads.

    Returns:
        proxy_a (0: alike, 2: told apart without error), frechet and kernel, each with value, low,
        high and n_clips of a side; see ``ossicle.transfer.similarity``.

    Raises:
        DataError: fewer than 20 recordings on a side.
    """
    n = min(len(features), len(source))
    if n < LEAST:
        raise DataError(
            f"{n} recordings of source or target are too few to compare them: {LEAST} are needed"
        )
    there = source.subset(sample_clips(source, limit, seed))
    table = extract(model, there, layers="last", workers=workers)
    groups = there.subset(table.index).groups()
    names = list(table.blocks)
    block = next((name for name in names if name.endswith("/mean")), names[0])
    far, near = table.matrix([block]).astype(np.float64), features.astype(np.float64)
    deviation = np.concatenate([near, far]).std(axis=0)
    kept = deviation > 0
    unit = np.sqrt(max(kept.sum(), 1))
    far, near = (X[:, kept] / (deviation[kept] * unit) for X in (far, near))
    # Groups of the two sides have nothing to do with each other, whatever they are called.
    sides: dict[str, Any] = {
        "source_groups": np.char.add("source ", groups),
        "target_groups": np.char.add("target ", clips.groups()),
        "random_state": seed,
    }
    return {
        "proxy_a": proxy_a_distance(far, near, **sides)._asdict(),
        "frechet": frechet_distance(far, near, **sides)._asdict(),
        # The kernel's own constant is 1 for features of a common scale of 1.
        "kernel": kernel_distance(far * unit, near * unit, **sides)._asdict(),
    }
