"""What a bundle tells of a model that was trained on labelled clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ossicle.datasets.clips import Clips
from ossicle.finetune.settings import FinetuneSettings


def described(
    info: Mapping[str, Any],
    clips: Clips,
    settings: FinetuneSettings,
    ended: Mapping[str, Any],
    scratch: bool,
) -> dict[str, Any]:
    """The label of a trained model.

    Args:
        info: of the model that it started from.
        clips: that it learnt from, those of the validation part included.
        settings: that held.
        ended: "taken_after", the epoch of each seed whose weights were taken, and what else is
            known of the end.
        scratch: whether it started from random weights.
    """
    how = "trained from scratch" if scratch else "fine-tuned"
    begun = "random weights" if scratch else info.get("weights", "")
    licence = "" if scratch else info.get("licence", "")
    epochs = ", ".join(str(epoch) for epoch in ended["taken_after"])
    return {
        **info,
        "title": clips.root.name,
        "pretrained": True,
        "weights": f"{begun}, {how} on {len(clips)} clips, {epochs} epochs",
        "licence": "; and ".join(
            [*filter(None, [licence]), "that of the recordings it was trained on"]
        ),
        "probe": {"name": how},
        "n_clips": len(clips),
        "labels": clips.describe()["classes"],
        "finetune": {**asdict(settings), **ended},
    }
