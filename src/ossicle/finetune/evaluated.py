"""The honest number of fine-tuning: every fold trains anew, stops by clips of its own part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.finetune.run import Progress, finetune
from ossicle.finetune.settings import FinetuneSettings
from ossicle.model import Model
from ossicle.predict import class_columns, predict
from ossicle.transfer.evaluate import evaluate


def evaluate_finetuning(
    clips: Clips,
    table: FeatureTable,
    model: Model,
    settings: FinetuneSettings,
    *,
    layers: str | Sequence[str | int] | None = None,
    poolings: Sequence[str] | None = None,
    scratch: bool = False,
    n_folds: int = 5,
    diagnostics: bool = True,
    workers: int = 1,
    folder: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cross-validate fine-tuning, as ``ossicle.transfer.evaluate.evaluate`` does a probe.

    Args:
        clips: all clips asked for; those that could not be read are in ``table.skipped``.
        table: frozen features of the clips by the model, which the head starts from and which the
            report's diagnostics are made of.
        model: where every fold starts.
        settings, layers, poolings, scratch, workers: as for ``finetune``.
        n_folds: folds where the data brings none.
        diagnostics: as for ``evaluate``.
        folder: of checkpoints, with which a stopped run goes on; None keeps none.
        arguments: what the caller was asked, for the record.
        say: called with what is being done.
        progress: as for ``finetune``, anew for each fold.

    Returns:
        As ``evaluate``; "probe" holds the settings, and each fold's epochs and validation loss.

    Raises:
        DataError: too few clips, classes or groups, or a clip that cannot be read any more.
    """
    used = clips.subset(table.index)
    own = replace(table, index=np.arange(len(table)))

    def trainer(
        train: np.ndarray, test: np.ndarray, number: int
    ) -> tuple[np.ndarray, dict[str, Any]]:
        tuned = finetune(
            model,
            used,
            train,
            settings,
            layers=layers,
            poolings=poolings,
            scratch=scratch,
            table=own,
            workers=workers,
            folder=folder and folder / f"fold{number}",
            progress=progress,
        )
        frame, skipped = predict(tuned.model, used.subset(test), workers=workers)
        if skipped:
            _, path, reason = skipped[0]
            raise DataError(f"{path}: {reason}; it could be read a while ago")
        columns = ["value"] if used.task == "regression" else class_columns(tuned.model)
        about = {"epochs": tuned.epochs, "validation": tuned.validation, "notes": tuned.notes}
        return frame[columns].to_numpy(np.float64), about

    result = evaluate(
        clips,
        table,
        model,
        probe="trained from scratch" if scratch else "fine-tuned",
        n_folds=n_folds,
        seed=settings.seed,
        diagnostics=diagnostics,
        trainer=trainer,
        arguments=arguments,
        progress=say,
    )
    result["probe"]["settings"] = asdict(settings.from_scratch() if scratch else settings)
    return result
