"""The rows of an evaluation: what it says of each class, of each clip, of the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.datasets.patterns import relative_paths
from ossicle.features import FeatureTable
from ossicle.heads import count_parameters
from ossicle.metrics import confusion, per_class
from ossicle.metrics.bootstrap import mean_interval
from ossicle.model import Model


def class_rows(
    clips: Clips,
    y: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray | None,
    groups: np.ndarray,
    seed: int,
) -> list[dict[str, Any]]:
    """Precision, recall, F1, AUC of each class, recall with its interval over groups."""
    if clips.task == "regression":
        return []
    rows = per_class(clips.task, y, predicted, scores, clips.classes).to_dict("records")
    for c, row in enumerate(rows):
        mine = y == c if clips.task == "classes" else y[:, c] == 1
        if mine.any():
            hit = predicted[mine] == c if clips.task == "classes" else predicted[mine, c] == 1
            low, high = mean_interval(
                hit.astype(float), groups=groups[mine], n_resamples=500, random_state=seed
            )
            row["recall_low"], row["recall_high"] = low, high
    return rows


def confusion_counts(clips: Clips, y: np.ndarray, predicted: np.ndarray) -> dict[str, Any] | None:
    """Names and counts, rows are true; None but for "classes"."""
    if clips.task != "classes":
        return None
    matrix = confusion(y, predicted, len(clips.classes))
    return {"classes": list(clips.classes), "matrix": matrix.tolist()}


def items(
    clips: Clips, rows: np.ndarray, outcome: dict[str, Any], groups: np.ndarray
) -> list[dict[str, Any]]:
    """Every tested clip: path, onset, offset, label, predicted, probability, group, fold.

    Args:
        clips: all clips.
        rows: (n,) those tested.
        outcome: predicted, scores, fold of these.
        groups: of all clips.
    """
    table, names = clips.table, clips.classes
    paths = relative_paths(list(table["path"]), clips.root)
    entries = []
    for i, row in enumerate(rows):
        entry = table.iloc[row]
        predicted: Any = outcome["predicted"][i]
        probability: Any = None
        if clips.task == "classes":
            probability = float(outcome["scores"][i, predicted])
            predicted = names[predicted]
        elif clips.task == "multilabel":
            predicted = [names[c] for c in np.flatnonzero(predicted)]
            given = outcome["scores"][i]
            probability = {name: float(p) for name, p in zip(names, given, strict=True)}
        else:
            predicted = float(predicted)
        entries.append(
            {
                "path": paths[row],
                "onset": None if np.isnan(entry["onset"]) else float(entry["onset"]),
                "offset": None if np.isnan(entry["offset"]) else float(entry["offset"]),
                "label": entry["label"],
                "predicted": predicted,
                "probability": probability,
                "group": str(groups[row]),
                "fold": int(outcome["fold"][i]),
            }
        )
    return entries


def skipped_rows(table: FeatureTable, clips: Clips) -> list[dict[str, str]]:
    """Path and reason of what could not be used."""
    paths = relative_paths([path for _, path, _ in table.skipped], clips.root)
    return [
        {"path": path, "reason": reason}
        for path, (_, _, reason) in zip(paths, table.skipped, strict=True)
    ]


def backbone_facts(model: Model, table: FeatureTable) -> dict[str, Any]:
    """What the features come from."""
    return {
        **{k: model.info.get(k) for k in ("name", "pretrained", "source", "weights", "licence")},
        "parameters": count_parameters(model.backbone),
        "layers": len(table.layers),
        "poolings": list(dict.fromkeys(name.rpartition("/")[2] for name in table.blocks)),
        "dims": sum(block.shape[1] for block in table.blocks.values()),
    }


def chance(task: str, y: np.ndarray) -> float:
    """The score of the best answer that ignores the sound."""
    if task == "classes":
        return float(np.bincount(y).max() / len(y))
    return float(y.mean()) if task == "multilabel" else 0.0
