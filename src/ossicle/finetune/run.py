"""Fine-tuning from clips to a model: what `ossicle finetune` does for one training part.

The order is that of Kumar et al. 2022 (arXiv 2202.10054): a probe on the frozen features first,
then all of it together, so that a head that knows nothing does not spoil what the network knows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.finetune.ensemble import fold, mean_model
from ossicle.finetune.job import Job, Progress
from ossicle.finetune.label import described
from ossicle.finetune.settings import FinetuneSettings
from ossicle.model import Model
from ossicle.pretrain.supervised import split_groups
from ossicle.pretrain.waveforms import decode_cached


class Tuned(NamedTuple):
    """A trained model and how it came about.

    Attributes:
        model: with its head; frozen, ready for a bundle.
        epochs: the epoch whose weights were taken, for each seed.
        validation: loss on the validation part, for each seed; None without such a part.
        ensemble: how several seeds became one network, see ``ossicle.finetune.ensemble``.
        history: the lines of the log, for each seed.
        seconds: wall-clock time.
        notes: what the user should know.
    """

    model: Model
    epochs: list[int]
    validation: list[float] | None
    ensemble: dict[str, Any]
    history: list[list[dict[str, Any]]]
    seconds: float
    notes: list[str]


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def finetune(
    model: Model,
    clips: Clips,
    train: np.ndarray,
    settings: FinetuneSettings,
    *,
    layers: str | Sequence[str | int] | None = None,
    poolings: Sequence[str] | None = None,
    scratch: bool = False,
    table: FeatureTable | None = None,
    workers: int = 1,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Train a copy of a model on some of the clips.

    Args:
        model: where it starts; it is left as it is.
        clips: labelled.
        train: (m,) rows to learn from. A part of their groups is set aside to know when to stop.
        settings: how.
        layers: that the head reads; None: all, from scratch the last.
        poolings: of each layer; None: the network's own, from scratch the mean.
        scratch: the network is new: it learns as a whole, batch norms and all, and so does its
            head.
        table: frozen features of the clips by the same model; None: extracted where needed.
        workers: threads that decode, extract, and that torch computes with.
        folder: of checkpoints, with which a stopped run goes on; None keeps none.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        OssicleError: the settings or the clips cannot be used.
        TrainingError: a loss is not finite.
        KeyboardInterrupt: it was asked to stop.
    """
    start = time.perf_counter()
    s = settings.check()
    if scratch:
        s = s.from_scratch()
        layers, poolings = layers or "last", poolings or ("mean",)
    chosen = model.select_layers("all" if layers is None else layers)
    names = model.backbone.poolings if poolings is None else tuple(poolings)
    readout = tuple(f"{layer}/{pooling}" for layer in chosen for pooling in names)
    waveforms = decode_cached(clips, model.sample_rate, workers)
    train = np.intersect1d(train, waveforms.rows)
    if not len(train):
        raise DataError("none of the clips to learn from could be read")
    notes: list[str] = []
    fitted, held = _held_out(clips, train, s, notes)
    job = Job(model, clips, fitted, held, s, readout, scratch, waveforms, workers)
    job.prepare(table)
    runs = [job.run(s.seed + i, folder and folder / str(i), progress) for i in range(s.seeds)]
    models, epochs = [run[0] for run in runs], [run[1] for run in runs]
    tuned, ensemble = fold(models, job.finished_loss if len(held) else None)
    parts = range(s.seeds) if ensemble["kind"] in ("heads", "weights") else [ensemble["best"]]
    if len(held) and (s.refit or not any(epochs[i] for i in parts)):
        # What showed when to stop is learnt from too; a probe that training did not better is
        # fitted on all.
        again = [
            job.refit(s.seed + i, epochs[i], folder and folder / f"{i}-refit", progress)
            if epochs[i]
            else job.probe(models[i])
            for i in parts
        ]
        tuned = mean_model(again)
    validation = [run[2] for run in runs] if len(held) else None
    ended = {"taken_after": epochs, "validation": validation, "ensemble": ensemble}
    tuned.info = described(model.info, clips.subset(train), s, ended, scratch)
    history = [run[3] for run in runs]
    seconds = time.perf_counter() - start
    return Tuned(tuned, epochs, validation, ensemble, history, seconds, notes)


def _held_out(
    clips: Clips, train: np.ndarray, s: FinetuneSettings, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to stop by; no group is in both."""
    none = np.empty(0, np.int64)
    if not s.validation:
        return train, none
    try:
        fitted, held = split_groups(clips.subset(train), s.validation, s.seed)
    except DataError as error:
        notes.append(f"trained to the last epoch, as no validation part could be made: {error}")
        return train, none
    return train[fitted], train[held]
