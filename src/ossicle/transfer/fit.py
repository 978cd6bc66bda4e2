"""From a fitted probe to one network: what a user takes away."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.heads import Head
from ossicle.model import Model
from ossicle.transfer.isotonic import check_calibration, recalibrate
from ossicle.transfer.layer_choice import choose_layers
from ossicle.transfer.novelty_fit import fit_novelty, last_layer
from ossicle.transfer.probe import create_probe

# Support vector regression has a kernel, so that it keeps its clips.
FOLDABLE = {
    "classes": ("ridge", "logistic", "svm", "mlp"),
    "multilabel": ("ridge", "logistic", "svm", "mlp"),
    "regression": ("ridge", "mlp"),
}


def check_foldable(probe: str, task: str) -> None:
    """Pass where the probe becomes a network for the task.

    Raises:
        DataError: it keeps its training clips; the message names those that do not.
    """
    if probe not in FOLDABLE[task]:
        raise DataError(
            f"probe {probe!r} keeps its training clips and cannot become a network: "
            f"train with one of {', '.join(FOLDABLE[task])}"
        )


def fit_model(
    model: Model,
    table: FeatureTable,
    clips: Clips,
    *,
    probe: str = "ridge",
    probe_settings: Mapping[str, Any] | None = None,
    choose: bool = False,
    calibration: str = "temperature",
    novelty: bool = True,
    seed: int = 0,
) -> Model:
    """Fit a probe on all clips and fold it into a copy of the model as its head.

    Args:
        model: what made the features; it is left as it is.
        table: features of the clips.
        clips: all clips asked for; rows that the table skipped are left out, and so is a class
            that has no other rows.
        probe: one of ``FOLDABLE[clips.task]``.
        probe_settings: arguments of the probe.
        choose: choose the layers on inner folds; the head then reads those alone.
        calibration: of its probabilities, one of ``isotonic.CALIBRATIONS``.
        novelty: fit also what tells sounds that are unlike anything learnt from; needs three clips.
        seed: of inner folds.

    Raises:
        DataError: the probe is not a network, or cannot be fitted on the clips.
    """
    check_foldable(probe, clips.task)
    check_calibration(calibration, clips.task)
    clips = clips.subset(table.index)
    y, groups = clips.y(), clips.groups()
    names = table.names()
    if choose:
        chosen = choose_layers(
            table.by_layer(), y, groups=groups, task=clips.task, random_state=seed
        )
        names = table.names(chosen.layers)
    estimator = create_probe(
        probe,
        clips.task,
        random_state=seed,
        **dict(probe_settings or {}),
    )
    estimator.fit(table.matrix(names), y, groups=groups, block_sizes=table.sizes(names))
    calibrated = None
    if clips.task != "regression":
        calibrated = recalibrate(estimator, calibration, y)
    classes = clips.classes
    if clips.task == "classes":
        classes = tuple(classes[c] for c in estimator.classes_)
    layers = estimator.mlp_head() if probe == "mlp" else [estimator.linear_head()]
    trained = Model(
        copy.deepcopy(model.frontend),
        copy.deepcopy(model.backbone),
        clip=model.clip,
        readout=names,
        head=Head.from_layers([_tensors(weight, bias) for weight, bias in layers]),
        classes=classes,
        task=clips.task,
        info={
            **model.info,
            "title": clips.root.name,
            "probe": {"name": probe, **estimator.chosen_},
            **({"calibration": calibration} if clips.task != "regression" else {}),
            "n_clips": len(clips),
            "labels": clips.describe()["classes"],
        },
    )
    trained.calibration = calibrated
    if novelty and len(clips) > 2:
        first, sizes = last_layer(names, table.sizes(names))
        fitted = fit_novelty(
            table.matrix(names)[:, first:],
            y,
            task=clips.task,
            groups=groups,
            held_out=None if clips.task == "regression" else estimator.held_out_proba_,
            block_sizes=sizes,
            first=first,
            random_state=seed,
        )
        # Features beyond any scale, as of a random deep network, leave no distance to tell by, and
        # a bundle takes no infinity.
        if all(bool(torch.isfinite(values).all()) for values in fitted.buffers()):
            trained.novelty = fitted
    return trained.eval().requires_grad_(False)


def _tensors(weight: np.ndarray, bias: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(np.ascontiguousarray(weight, np.float32)),
        torch.from_numpy(np.ascontiguousarray(bias, np.float32)),
    )
