"""Which rows differ over tasks: mean ranks, Friedman's test, and the bars of those alike.

Here the tasks are the sample, and a score is one number: Demsar (2006), "Statistical comparisons of
classifiers over multiple data sets", Journal of Machine Learning Research 7, 1-30. Friedman's test
asks whether any differ (Iman and Davenport's F, section 3.2.2); the bars join rows that do not
differ by pairwise signed-rank tests with Holm's correction, which do not depend on what else is on
the board (Benavoli, Corani and Mangili 2016, JMLR 17(5), 1-10).

A rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import f as f_distribution
from scipy.stats import rankdata, studentized_range, wilcoxon

from ossicle.errors import DataError
from ossicle.study.outputs import COLOURS, new_figure


def ranks(scores: np.ndarray, *, alpha: float = 0.05) -> dict[str, Any]:
    """Mean ranks and which rows they tell apart.

    Args:
        scores: (A, T) higher is better, nothing missing; A and T at least 2.
        alpha: of the tests.

    Returns:
        "mean_ranks" (A,), "friedman_p", "critical_difference" (Nemenyi's), "p_values" (A, A) after
        Holm, "cliques": lists of rows, best first, whose members do not differ.

    Raises:
        DataError: too few rows or tasks, or a score is missing.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise DataError("ranks need two rows and two tasks at least")
    if not np.isfinite(scores).all():
        raise DataError("ranks need every row on every task")
    a, t = scores.shape
    ranked = np.stack([rankdata(-scores[:, j]) for j in range(t)], axis=1)  # 1: best; ties shared
    mean_ranks = ranked.mean(axis=1)
    p_values = _pairwise(scores)
    order = np.argsort(mean_ranks, kind="stable")
    return {
        "mean_ranks": mean_ranks,
        "friedman_p": _iman_davenport(ranked),
        "critical_difference": float(
            studentized_range.ppf(1 - alpha, a, np.inf)
            / np.sqrt(2)
            * np.sqrt(a * (a + 1) / (6 * t))
        ),
        "p_values": p_values,
        "cliques": _cliques(order, p_values, alpha),
        "n_tasks": t,
        "alpha": alpha,
    }


def _iman_davenport(ranked: np.ndarray) -> float:
    """p of Friedman's test with ties, in Iman and Davenport's F form (Conover 1999, 5.8)."""
    a, t = ranked.shape
    sums = ranked.sum(axis=1)
    total = float((ranked**2).sum())
    between = float((sums**2).sum()) / t
    rest = total - between
    expected = a * t * (a + 1) ** 2 / 4
    if rest <= 1e-12:
        return 0.0 if between > expected + 1e-12 else 1.0
    statistic = (t - 1) * (between - expected) / rest
    return float(f_distribution.sf(statistic, a - 1, (a - 1) * (t - 1)))


def _pairwise(scores: np.ndarray) -> np.ndarray:
    """(A, A) p-values of Wilcoxon's signed-rank test, Holm-corrected over all pairs."""
    a = len(scores)
    pairs = [(i, j) for i in range(a) for j in range(i + 1, a)]
    raw = []
    for i, j in pairs:
        gain = scores[i] - scores[j]
        raw.append(1.0 if not gain.any() else float(wilcoxon(gain, zero_method="zsplit").pvalue))
    order = np.argsort(raw, kind="stable")
    corrected = np.ones((a, a))
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, raw[at] * (len(pairs) - rank)))
        i, j = pairs[at]
        corrected[i, j] = corrected[j, i] = highest
    return corrected


def _cliques(order: np.ndarray, p_values: np.ndarray, alpha: float) -> list[list[int]]:
    """Longest runs of neighbours in rank none of which differ."""
    found: list[tuple[int, int]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and all(
            p_values[order[i], order[last + 1]] >= alpha for i in range(first, last + 1)
        ):
            last += 1
        if last > first and not any(a <= first and last <= b for a, b in found):
            found.append((first, last))
    return [[int(order[i]) for i in range(a, b + 1)] for a, b in found]


def draw_ranks(names: Sequence[str], found: dict[str, Any]) -> Figure:
    """Rows along an axis of mean ranks, best on the left; bars join those that do not differ.

    Args:
        names: of the A rows.
        found: what ``ranks`` gave.
    """
    mean_ranks = np.asarray(found["mean_ranks"])
    a = len(names)
    order = [int(i) for i in np.argsort(mean_ranks, kind="stable")]
    half = (a + 1) // 2
    bars = found["cliques"]
    top = 0.6 + 0.35 * len(bars)
    figure, axes = new_figure(9.0, 1.2 + 0.27 * (top / 0.35 + half))
    axis = axes[0, 0]
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.grid(False)
    axis.set_yticks([])
    axis.set_xticks([])
    low, high = 1.0, float(a)
    reach = 0.75 * (high - low)
    axis.set_xlim(low - reach, high + reach)
    axis.set_ylim(-(top + 0.8 * half) - 0.4, 0.9)
    axis.plot([low, high], [0, 0], color="black", linewidth=1)
    for tick in range(1, a + 1):
        axis.plot([tick, tick], [0, 0.12], color="black", linewidth=1)
        axis.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8)
    for place, at in enumerate(order):
        left = place < half
        depth = -(top + 0.8 * (place if left else a - 1 - place))
        edge = low - 0.03 * reach if left else high + 0.03 * reach
        rank = mean_ranks[at]
        axis.plot([rank, rank, edge], [0, depth, depth], color="#555555", linewidth=0.8)
        axis.text(
            edge,
            depth,
            f"{names[at]}  {rank:.2f} " if left else f" {rank:.2f}  {names[at]}",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )
    for number, clique in enumerate(bars):
        height = -(0.35 + 0.35 * number)
        span = [float(mean_ranks[clique].min()) - 0.06, float(mean_ranks[clique].max()) + 0.06]
        axis.plot(span, [height, height], color=COLOURS[1], linewidth=3, solid_capstyle="butt")
    axis.set_title(
        f"Mean rank over {found['n_tasks']} tasks; a bar joins rows that signed-rank tests "
        f"(Holm, {found['alpha']:g}) do not tell apart",
        fontsize=9,
    )
    return figure
