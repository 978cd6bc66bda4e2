"""What can be measured of a task before anything is trained: each number is cheap and says little.

The features of the chosen network, of the same network with random weights, and of MFCCs are made
once for a sample of the clips. On them stand LogME by read-out and by layer, and the held-out
scores of nearest centroid and nearest neighbours.

Symbols: n clips, d dimensions, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ossicle import bundle
from ossicle.advise.quick import chance_of, quick_scores, sample_clips
from ossicle.advise.source import head_evidence, source_distance
from ossicle.advise.task_size import sound, task_size
from ossicle.backbones import BACKBONES, DEFAULT_BACKBONE, WEIGHTS, is_family
from ossicle.datasets.clips import Clips
from ossicle.datasets.folds import Folds
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials
from ossicle.heads import count_parameters
from ossicle.model import Model, create_model
from ossicle.transfer.protocol import choose_protocol
from ossicle.transfer.span import Span
from ossicle.transfer.transferability import log_me

# Clips that are measured; enough for a rough answer in seconds.
SAMPLE = 300
Say = Callable[[str], None]


class Measured(NamedTuple):
    """What was measured, and what it was measured on.

    Attributes:
        facts: JSON values; see ``measure``.
        clips: the sample, those that could be read.
        folds: in which the sample was held out.
        trials: features of the sample, kept for more.
        model: the network with its head, where it has one.
    """

    facts: dict[str, Any]
    clips: Clips
    folds: Folds
    trials: Trials
    model: Model


def measure(
    clips: Clips,
    backbone: str = DEFAULT_BACKBONE,
    *,
    source: Clips | None = None,
    limit: int = SAMPLE,
    seed: int = 0,
    workers: int = 1,
    say: Say | None = None,
) -> Measured:
    """Measure a task and how a network takes to it.

    Args:
        clips: labelled.
        backbone: a name, "hf:NAME", or a bundle's folder.
        source: recordings like those that the network learnt from, labelled or not.
        limit: clips that features are made of.
        seed: of the sample, the folds and random weights.
        workers: threads.
        say: called with what is being done.

    Returns:
        ``facts`` holds size (``task_size``), sound (``task_size.sound``), sample (clips, groups,
        folds, chance), network (name, pretrained, parameters, layers, sample_rate, window_s),
        read_outs ("last", "all", "random", "mfcc" -> log_me, explained, neighbours, centroid,
        dims), layers (name -> log_me and explained), last_to_best, source (``source.head_evidence``
        or None), distance (``source.source_distance`` or None), seconds (of a clip's features by
        network), and not_measured (sentences).

    Raises:
        DataError: one class, or too few groups to hold any out.
        OssicleError: there is no such network.
    """
    say = say or (lambda text: None)
    if clips.task != "regression" and len(clips.classes) < 2:
        raise DataError(f"there is one class only ({clips.classes[0]}): nothing to tell apart")
    missing: list[str] = []
    say("sizes")
    size, heard = task_size(clips), sound(clips, seed)
    say("features")
    frozen = Strategy("probe", backbone)
    trials = Trials(clips.subset(sample_clips(clips, limit, seed)), workers=workers)
    own = trials.table(frozen, seed)
    skipped = list(own.skipped)
    if skipped:
        trials = Trials(trials.clips.subset(own.index), workers=workers)
        own = trials.table(frozen, seed)
    seconds = {"own": own.elapsed_s / len(own)}
    model = _with_head(backbone, seed)
    sample = trials.clips
    protocol = choose_protocol(sample, random_state=seed)
    y, folds, task = sample.y(), protocol.folds, sample.task
    tables = {"all": own}
    # A bundle's weights were trained, whatever its card says.
    trained = bool(model.info.get("pretrained", True)) and count_parameters(model.backbone) > 0
    others = {"mfcc": Strategy("probe", "mfcc")}
    if trained:
        others["random"] = Strategy("probe", backbone, random=True)
    else:
        missing.append(
            f"{backbone} has learnt from nothing: there is no source to be similar to, and no "
            "random network to compare with"
        )
    for name, strategy in others.items():
        say(f"features: {name}")
        tables[name] = trials.table(strategy, seed)
        seconds[name] = tables[name].elapsed_s / len(own)
    say("LogME and nearest clips")
    last = last_mean(own)
    blocks = {name: (table.matrix(), table.sizes()) for name, table in tables.items()}
    blocks["last"] = (own.matrix([last]), own.sizes([last]))
    read_outs = {
        name: {
            **explained(X, y, task, sizes),
            **quick_scores(X, y, folds, task, sizes),
            "dims": X.shape[1],
        }
        for name, (X, sizes) in blocks.items()
    }
    layers = {
        layer: explained(X, y, task, own.sizes(own.names([layer])))
        for layer, X in own.by_layer().items()
    }
    distance = None
    if not trained:
        evidence = None
    else:
        say("source")
        evidence = head_evidence(model, sample, workers)
        if evidence is None:
            missing.append(
                f"{backbone} has no classifier of its source: no LEEP, no NCE, and nothing on what "
                "it takes the clips for"
            )
        if source is None:
            missing.append(
                "no recordings of the source were given (--source): no distance between source and "
                "target; the last layer beside the others stands for it"
            )
        else:
            distance = source_distance(
                model, own.matrix([last]), sample, source, limit, seed, workers
            )
    if task != "classes":
        missing.append(
            "what scores to expect was learnt from tasks of classes alone; for "
            f"{'several labels a clip' if task == 'multilabel' else 'numbers'} it is a guess"
        )
    facts = {
        "size": size,
        "sound": heard,
        "sample": {
            "n_clips": len(sample),
            "n_groups": len(np.unique(protocol.groups)),
            "n_folds": len(folds),
            "n_training": float(np.median([len(train) for train, _ in folds])),
            "chance": chance_of(task, y),
            "n_skipped": len(skipped),
        },
        "network": {
            "name": backbone,
            "pretrained": trained,
            "parameters": count_parameters(model.backbone),
            "layers": len(own.layers),
            "sample_rate": model.sample_rate,
            "min_s": model.clip.min_s,
            "window_s": model.clip.window_s,
        },
        "read_outs": read_outs,
        "layers": layers,
        "last_to_best": last_to_best(read_outs, chance_of(task, y)),
        "source": evidence,
        "distance": distance,
        "seconds": seconds,
        "not_measured": missing,
    }
    return Measured(facts, sample, folds, trials, model)


def _with_head(backbone: str, seed: int) -> Model:
    """The network with the classifier of its source, where it has one."""
    if backbone in BACKBONES:
        return create_model(backbone, pretrained=backbone in WEIGHTS, seed=seed)
    if is_family(backbone) or not bundle.is_bundle(backbone):
        return create_model(backbone, pretrained=True, seed=seed)
    return bundle.load(backbone)


def last_mean(table: FeatureTable) -> str:
    """The block of the last layer's mean, or its first where it has no mean."""
    names = table.names([table.layers[-1]])
    return next((name for name in names if name.endswith("/mean")), names[0])


def explained(
    X: np.ndarray, y: np.ndarray, task: str, block_sizes: Sequence[int] | None = None
) -> dict[str, float]:
    """LogME of standardised features with a constant, and the share of variance it stands for.

    The evidence of features is set against that of the constant alone: a gain of g nats a clip is
    that of a Gaussian model which leaves exp(-2 g) of the variance. Unlike LogME itself, the share
    1 - exp(-2 g) can be compared between tasks of many and of few classes.

    Args:
        X: (n, d).
        y: targets as ``Clips.y`` gives them.
        task: "classes", "multilabel" or "regression".
        block_sizes: columns of each block, weighed as the probes weigh them.

    Returns:
        log_me (nats a clip, mean over outputs) and explained (up to 1; below 0 where the features
        are worth less than nothing).
    """
    span = Span(X, block_sizes)
    Z = (X - span.mean) * span.inverse_scale
    # The evidence knows features by their scalar products: r <= n coordinates say all of them.
    values, vectors = np.linalg.eigh(Z @ Z.T)
    kept = values > values.max(initial=0.0) * 1e-10
    F = vectors[:, kept] * np.sqrt(values[kept])
    constant = np.ones((len(X), 1))
    scale = np.sqrt(np.mean(np.sum(F**2, axis=1))) if F.size else 1.0
    whole = float(log_me(np.hstack([F, scale * constant]), y, task=task))
    nothing = float(log_me(constant, y, task=task))
    return {"log_me": whole, "explained": float(1 - np.exp(-2 * (whole - nothing)))}


def last_to_best(read_outs: dict[str, dict[str, float]], chance: float) -> float:
    """How much of what all layers score, above chance, the last layer alone does (quick scores).

    1 or more: the source's own abstraction suits the target. 0: it is at chance.
    """
    both = [_above(read_outs[name], chance) for name in ("last", "all")]
    return max(0.0, both[0]) / max(both[1], both[0], 1e-9) if max(both) > 0 else 0.0


def _above(read_out: dict[str, float], chance: float) -> float:
    found = [read_out[name] for name in ("neighbours", "centroid") if name in read_out]
    return (max(found) - chance) / max(1 - chance, 1e-9)
