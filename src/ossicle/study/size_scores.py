"""From decisions on test clips to scores at every size, their intervals and what each needs.

Symbols: S settings, J sizes, R seeds, m clips tested, K outputs, G groups tested, D resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ossicle.finetune.trials import primary_score
from ossicle.metrics import PRIMARY
from ossicle.metrics.bootstrap import agreement_interval, draw, group_codes
from ossicle.metrics.weighted import Statistics, ranking_statistics, regression_statistics
from ossicle.study.size_curve import draw_means, needs, spread

# A resample of a ranking score passes over items x classes, at about 10 ns each.
_RANKING_WORK = 2 * 10**9
_BLOCK = 200


def analyse(
    task: str,
    y: np.ndarray,
    decisions: np.ndarray,
    n: np.ndarray,
    groups: np.ndarray,
    *,
    classes: Sequence[str] = (),
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores with intervals, and what each setting needs against the first.

    Args:
        task: "classes", "multilabel" or "regression".
        y: (m,) or (m, K) targets.
        decisions: (S, J, R, m, K) probabilities, or (S, J, R, m, 1) numbers.
        n: (J,) clips learnt from.
        groups: (m,) names.
        classes: K names.
        confidence, n_resamples: of the intervals.
        seed: of the draws.

    Returns:
        "scores": a row for each setting and size, by setting; "needs": one for each setting after
        the first; see `training_size_study`. Without a second seed or test group there are no
        intervals: "low" and "high" are None.
    """
    n_settings, n_sizes, n_seeds = decisions.shape[:3]
    scores = np.array(
        [
            primary_score(task, y, own, classes)
            for own in decisions.reshape(-1, *y.shape[:1], decisions.shape[-1])
        ]
    ).reshape(n_settings, n_sizes, n_seeds)
    resampled, n_groups = resampled_means(task, y, decisions, groups, n_resamples, seed)
    draws = draw_means(scores, resampled, n_groups, n_draws=2000, random_state=seed)
    known = n_seeds > 1 or n_groups > 1
    bounds = (-np.inf if task == "regression" else 0.0, 1.0)
    means = scores.mean(axis=2)
    lows, highs = np.clip(spread(means, draws, confidence), *bounds)
    rows = []
    for s, j in np.ndindex(n_settings, n_sizes):
        low, high = float(lows[s, j]), float(highs[s, j])
        if np.ptp(draws[:, s, j]) < 1e-12 and task != "regression":
            low, high = agreement_interval(float(means[s, j]), n_groups, confidence)
        row: dict[str, Any] = {"n": float(n[j]), "score": float(means[s, j])}
        row |= {"low": low if known else None, "high": high if known else None}
        rows.append({**row, "by_seed": scores[s, j].tolist()})
    told = [
        needs(n, means[0], means[s], draws[:, 0], draws[:, s], confidence=confidence)
        for s in range(1, n_settings)
    ]
    for entry in () if known else [part for one in told for part in (one, *one["at"])]:
        entry.update({name: None for name in entry if name.endswith(("low", "high"))})
    return {"scores": rows, "needs": told}


def resampled_means(
    task: str,
    y: np.ndarray,
    decisions: np.ndarray,
    groups: np.ndarray,
    n_resamples: int,
    seed: int = 0,
) -> tuple[np.ndarray, int]:
    """(D, S, J) mean primary score over the seeds in resamples of the test groups, and G.

    The same groups are drawn for every setting, size and seed. Arguments as for `analyse`. Scores
    of rankings get fewer resamples where there are very many, at least 200.
    """
    codes, n_groups = group_codes(groups, len(y))
    shape = decisions.shape[:2]
    if task == "classes":
        # The mean over seeds of accuracies is the accuracy of the mean correctness.
        right = (decisions.argmax(-1) == y).mean(axis=2).reshape(-1, len(y))
        sums = np.stack([np.bincount(codes, own, n_groups) for own in right], axis=1)
        sizes = np.bincount(codes, minlength=n_groups)
        blocks = draw(n_groups, n_resamples, seed, _BLOCK)
        drawn = [(counts @ sums) / (counts @ sizes)[:, None] for counts in blocks]
        return np.concatenate(drawn).reshape(-1, *shape), n_groups
    cells = decisions.reshape(-1, len(y), decisions.shape[-1])
    statistics: list[Statistics] = [
        regression_statistics(y, own[:, 0])
        if task == "regression"
        else ranking_statistics(y > 0, own, binary=False)
        for own in cells
    ]
    if task == "multilabel":
        n_resamples = min(n_resamples, max(200, _RANKING_WORK // decisions.size))
    name = PRIMARY[task]
    parts = []
    for counts in draw(n_groups, n_resamples, seed, _BLOCK):
        weights = counts[:, codes].astype(np.float64)
        parts.append(np.stack([statistic(weights)[name] for statistic in statistics], axis=1))
    values = np.concatenate(parts).reshape(-1, *decisions.shape[:3])
    return values.mean(axis=3), n_groups
