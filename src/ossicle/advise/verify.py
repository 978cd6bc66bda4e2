"""Was the advice right? The alternatives run by cross-validation, beside what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.advise.calibration import rank_agreement
from ossicle.advise.quick import sample_clips
from ossicle.datasets.clips import Clips
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials, primary_score, score_interval
from ossicle.metrics import paired_difference
from ossicle.transfer.protocol import Protocol, choose_protocol

# Clips that are verified on; training on more would take hours on one core.
LIMIT = 300


def verification_sample(clips: Clips, limit: int = LIMIT, seed: int = 0) -> tuple[Clips, str]:
    """The clips that are verified on, and what to say of them."""
    rows = sample_clips(clips, limit, seed)
    if len(rows) == len(clips):
        return clips, f"all {len(clips)} clips"
    return clips.subset(rows), (
        f"{len(rows)} of {len(clips)} clips, classes alike and from as many groups as can be"
    )


def verify(
    clips: Clips,
    alternatives: Mapping[str, Strategy],
    *,
    protocol: Protocol | None = None,
    n_folds: int = 5,
    seed: int = 0,
    workers: int = 1,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run each alternative on the folds of ``choose_protocol``; the same folds for all.

    Args:
        clips: labelled; all can be read.
        alternatives: name -> strategy.
        protocol: its folds; None chooses.
        n_folds: where the data brings none.
        seed: of folds, training and the bootstrap.
        workers: threads.
        say: called with what is being done.

    Returns:
        protocol (words), n_clips, n_groups, scores (name -> value, low, high, seconds), best
        (name), and to_best (name -> value, low, high, p_value of the paired difference best less
        this one, over groups).
    """
    protocol = protocol or choose_protocol(clips, n_folds=n_folds, random_state=seed)
    trials = Trials(clips, workers=workers, keep=3)
    scores: dict[str, dict[str, float]] = {}
    outcomes: dict[str, np.ndarray] = {}
    rows = protocol.tested
    for name, strategy in alternatives.items():

        def told(text: str, about: str = name) -> None:
            if say is not None:
                say(f"{about}: {text}")

        rows, decisions, seconds = trials.cross_validate(
            strategy, protocol.folds, seed=seed, progress=told
        )
        outcomes[name] = decisions
        scores[name] = {**score_interval(clips, rows, decisions, seed=seed), "seconds": seconds}
    best = max(scores, key=lambda name: scores[name]["value"])
    return {
        "protocol": protocol.text,
        "n_clips": len(rows),
        "n_groups": len(np.unique(protocol.groups[rows])),
        "scores": scores,
        "best": best,
        "to_best": {
            name: _difference(clips, rows, outcomes[best], decisions, protocol.groups, seed)
            for name, decisions in outcomes.items()
            if name != best
        },
    }


def _difference(
    clips: Clips, rows: np.ndarray, a: np.ndarray, b: np.ndarray, groups: np.ndarray, seed: int
) -> dict[str, float]:
    """The paired difference of the task's own score, a less b."""
    y = clips.y()[rows]
    if clips.task == "classes":
        found = paired_difference(
            (a.argmax(1) == y).astype(float),
            (b.argmax(1) == y).astype(float),
            groups=groups[rows],
            random_state=seed,
        )
    else:

        def statistic(truth: np.ndarray, decisions: np.ndarray) -> float:
            return primary_score(clips.task, truth, decisions, clips.classes)

        found = paired_difference(
            a,
            b,
            y_true=y,
            statistic=statistic,
            groups=groups[rows],
            n_resamples=300,
            n_permutations=300,
            random_state=seed,
        )
    return {
        "value": found["difference"],
        **{key: found[key] for key in ("low", "high", "p_value")},
    }


def judge(
    expectations: Sequence[Mapping[str, Any]], verified: Mapping[str, Any], recommended: str
) -> dict[str, Any]:
    """Predicted against verified: order, coverage, and whether the recommendation was right.

    Args:
        expectations: of ``expect.expect``.
        verified: of ``verify``.
        recommended: a name.

    Returns:
        tau_w and spearman (None where there are fewer than three), covered (how many verified
        scores lie in their predicted interval) of n, best, verdict ("best", "within": the paired
        difference from the best holds 0, "worse") and regret (score of the best less its own).
    """
    scores = verified["scores"]
    both = [entry for entry in expectations if entry["name"] in scores]
    truth = [scores[entry["name"]]["value"] for entry in both]
    told: dict[str, Any] = {
        **rank_agreement(truth, [entry["expected"] for entry in both]),
        "covered": sum(
            entry["low"] <= value <= entry["high"] for entry, value in zip(both, truth, strict=True)
        ),
        "n": len(both),
        "best": verified["best"],
        "verdict": None,
        "regret": None,
    }
    if recommended in scores:
        regret = scores[verified["best"]]["value"] - scores[recommended]["value"]
        told["regret"] = float(regret)
        if regret <= 0:
            told["verdict"] = "best"
        else:
            low = verified["to_best"][recommended]["low"]
            told["verdict"] = "within" if not low > 0 else "worse"
    return told
