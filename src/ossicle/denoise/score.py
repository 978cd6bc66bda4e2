"""How well denoisers do where the clean parts are known: for scoring only, never for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError
from ossicle.features import ProgressCallback
from ossicle.separate.score import score
from ossicle.separate.score_table import Scores
from ossicle.separators.base import Separator

FOREGROUND, BACKGROUND = "foreground", "background"
# Rows of `score_denoisers` beside the systems: doing nothing, and the bound of real masks.
NOISY, IDEAL = "mixture", "ideal ratio mask"


def score_denoisers(
    systems: Mapping[str, Separator],
    mixtures: Mixtures,
    *,
    foreground: str | None = None,
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> tuple[Scores, int]:
    """Score denoisers on mixtures of two sources, one of which is to be kept.

    Args:
        systems: name -> denoiser, whose sources are "foreground" and "background".
        mixtures: of two sources with names.
        foreground: the name of what is to be kept; None: "foreground", or else the first. Sources
            without names are "1" and "2".
        workers: threads; no number of them changes a score.
        progress: called after every mixture.

    Returns:
        Scores, with the row "mixture" for the noisy recordings as they are and "ideal ratio mask"
        for the bound; and the number of the source to look at (from 1).

    Raises:
        DataError: there are not two sources, none is called so, or a system is no denoiser.
    """
    if mixtures.n_sources != 2:
        raise DataError(
            f"{mixtures.root}: denoisers are scored on mixtures of two sources, a foreground and a "
            f"background; these have {mixtures.n_sources}"
        )
    names = mixtures.sources or ("1", "2")
    for name, system in systems.items():
        if tuple(system.sources) != (FOREGROUND, BACKGROUND):
            raise DataError(
                f"{name}: is no denoiser; its sources are {', '.join(system.sources) or 'unnamed'}"
            )
    if foreground is None:
        foreground = FOREGROUND if FOREGROUND in names else names[0]
    if foreground not in names:
        raise DataError(
            f"{mixtures.root}: no source is called {foreground!r}; there are {', '.join(names)}"
        )
    first = names.index(foreground)
    # Paired by these names, whatever the mixtures call them.
    roles = (FOREGROUND, BACKGROUND) if first == 0 else (BACKGROUND, FOREGROUND)
    renamed = replace(mixtures, sources=roles)
    scores = score(systems, renamed, ideal=("ratio",), workers=workers, progress=progress)
    return scores, first + 1


def summary(scores: Scores, source: int, *, seed: int = 0) -> dict[str, Any]:
    """Means with intervals, and each system against the best gate; ready for JSON.

    Args:
        scores: as `score_denoisers` gives them.
        source: the foreground's number.
        seed: of the bootstrap.
    """
    rows = scores.summary(source, random_state=seed)
    gates = [row for row in rows if is_gate(row["system"]) and _value(row) is not None]
    best = max(gates, key=_value, default=None)
    differences = []
    if best is not None:
        others = [row["system"] for row in rows if row["system"] not in (NOISY, best["system"])]
        differences = [
            scores.difference(other, best["system"], name, source=source, random_state=seed)
            for other in others
            for name in ("si_sdr", "log_spectral_distance")
        ]
    return {"rows": rows, "against_the_best_gate": differences, "left_out": scores.left_out}


def is_gate(name: str) -> bool:
    """Whether a row is that of a gate, by its name."""
    return "gate" in name.lower()


def _value(row: Mapping[str, Any]) -> Any:
    return row["si_sdr"]["value"]
