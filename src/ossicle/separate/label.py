"""What a bundle tells of a separator: system, what it was trained on, how, how well it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ossicle.datasets.mixtures import Mixtures
from ossicle.record import json_safe


def described(
    system: str,
    mixtures: Mixtures,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] = (),
    chosen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The label of a trained separator, ready for JSON.

    Args:
        system: its name in `ossicle.separators.SEPARATORS`.
        mixtures: all parts; it learnt from "train" and was judged on "valid".
        settings: that held.
        history: lines of the training's log, if it had one.
        chosen: what was chosen on the validation part, and its scores there.
    """
    train = mixtures.part("train")
    numbers = range(1, mixtures.n_sources + 1)
    groups = {str(group) for s in numbers for group in train.table[f"group{s}"]}
    scores = [line["validation_si_sdr_improvement"] for line in history if _JUDGED in line]
    return {
        "title": mixtures.root.name,
        "system": system,
        "trained_on": {
            "mixtures": mixtures.root.name,
            "n_train": len(train),
            "n_valid": len(mixtures.part("valid")),
            "n_groups": len(groups),
            "sources": list(mixtures.sources),
            "n_sources": mixtures.n_sources,
        },
        "settings": json_safe(settings),
        "chosen": json_safe(chosen or {}),
        "validation": {_JUDGED: max(scores)} if scores else {},
        "steps": int(history[-1]["step"]) if history else 0,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": "that of the recordings it was trained on",
    }


_JUDGED = "validation_si_sdr_improvement"
