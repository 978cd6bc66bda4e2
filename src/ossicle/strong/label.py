"""What a bundle tells of a detector that was trained on strong labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ossicle.datasets.strong import StrongClips
from ossicle.strong.parts import Parts
from ossicle.strong.settings import StrongSettings


def described(
    info: Mapping[str, Any],
    clips: StrongClips,
    parts: Parts,
    settings: StrongSettings,
    ended: Mapping[str, Any],
) -> dict[str, Any]:
    """The label of a trained detector.

    Args:
        info: of the detector that it started from.
        clips: recordings with labels.
        parts: which of them it learnt from.
        settings: that held.
        ended: "taken_after", the epoch whose weights were taken, and what else is known of it.
    """
    train = clips.files.iloc[parts.train]
    n_strong = int((train["kind"] == "strong").sum())
    n_weak = len(train) - n_strong
    heard = f"{n_strong} recordings with strong labels"
    heard += f" and {n_weak} with weak ones" if n_weak else ""
    begun = str(info.get("weights") or "random weights")
    licence = info.get("licence") if settings.inputs != "mel" else ""
    return {
        **info,
        "title": clips.root.name,
        "weights": f"{begun}; trained on {heard}, {ended['taken_after']} epochs",
        "licence": "; and ".join(
            [*filter(None, [licence]), "that of the recordings it was trained on"]
        ),
        "probe": {"name": "trained on strong labels"},
        "n_clips": len(train),
        "labels": counted(clips, parts),
        "strong": {**asdict(settings), **ended},
    }


def counted(clips: StrongClips, parts: Parts) -> dict[str, dict[str, int]]:
    """Class -> in how many recordings of the training part it sounds ("clips"), and its events."""
    files = clips.files.iloc[parts.train]
    events = clips.events[clips.events["file"].isin(set(files["path"]))]
    n_events = events["label"].value_counts()
    return {
        name: {
            "clips": int(sum(name in labels for labels in files["labels"])),
            "events": int(n_events.get(name, 0)),
        }
        for name in clips.classes
    }
