"""How a report writes numbers and labels, and its first sentence, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# name -> (what a reader sees, whether it is written in percent)
METRICS = {
    "accuracy": ("Accuracy", True),
    "balanced_accuracy": ("Balanced accuracy", True),
    "macro_f1": ("F1, mean over classes", False),
    "micro_f1": ("F1, over all labels", False),
    "auc": ("Area under the ROC curve", False),
    "map": ("Mean average precision", False),
    "r2": ("Variance explained, R²", False),
    "mae": ("Mean absolute error", False),
    "rmse": ("Root mean square error", False),
    "pearson": ("Correlation (Pearson)", False),
    "spearman": ("Rank correlation (Spearman)", False),
}
#: Scores of which less is better.
ERRORS = frozenset({"mae", "rmse"})


def number(value: Any) -> float | None:
    """A finite number, or None; of a score dict, its `value`."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if value is None or isinstance(value, bool | str):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def labels_of(value: Any) -> list[str]:
    """The labels of a clip as texts: of a list, of one name, of a number; none of None."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple | set | frozenset):
        return [str(label) for label in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, float):
        return [compact(value)] if math.isfinite(value) else []
    return [str(value)]


def compact(value: float, digits: int = 4) -> str:
    """A number to so many digits; large ones with all of their integer digits."""
    text = f"{value:.{digits}g}"
    if "e" in text and 1 <= abs(value) < 1e15:
        text = f"{value:,.0f}"
    return text.replace("-", "−")


def metric_name(metric: str) -> str:
    """What a reader calls a score."""
    return METRICS.get(metric, (metric.replace("_", " "), False))[0]


def format_score(metric: str, value: Any, unit: bool = True) -> str:
    """98.5 % for shares of clips, 0.913 for other scores, an en dash for what is unknown."""
    value = number(value)
    if value is None:
        return "–"
    if METRICS.get(metric, ("", False))[1]:
        text = f"{100 * value:.1f}"
        text = text.removesuffix(".0") if text in ("100.0", "0.0", "-0.0") else text
        text += "\u00a0%" if unit else ""
    elif metric in ERRORS or abs(value) >= 10:
        text = compact(value, 3)
    else:
        text = f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("-", "−")


def format_tick(metric: str, value: float) -> str:
    """The same on an axis: round numbers without idle zeros."""
    if METRICS.get(metric, ("", False))[1]:
        return f"{100 * value:.4g}\u00a0%".replace("-", "−")
    return compact(value)


def format_interval(metric: str, score: Any) -> str:
    """ "97.2 to 99.5 %", or nothing where an end is unknown."""
    if not isinstance(score, Mapping):
        return ""
    low, high = number(score.get("low")), number(score.get("high"))
    if low is None or high is None:
        return ""
    return format_score(metric, low, unit=False) + " to " + format_score(metric, high)


def duration(seconds: float) -> str:
    """12.3 s, 5 min 20 s, or 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600):,} h {int(seconds % 3600 // 60)} min"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """1 clip, 2 clips, 1,200 clips."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def has_groups(protocol: Mapping[str, Any]) -> bool:
    """Whether clips that belong together were known and kept together."""
    groups, clips = protocol.get("n_groups"), protocol.get("n_clips")
    source = str(protocol.get("group_source") or "").lower()
    return bool(groups and clips and groups < clips and not source.startswith("none"))


def verdict(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The page's first lines: value, meaning, interval, where (how measured), is_weak."""
    metric = str(evaluation.get("metric") or "score")
    score = evaluation.get("score") or {}
    protocol = evaluation.get("protocol") or {}
    value = number(score)
    shown = format_score(metric, value)
    if value is None:
        shown, meaning = "No score", "could be measured"
    elif metric == "accuracy":
        meaning = "of clips right"
    elif metric == "r2" and value < 0:
        meaning = "R²: worse than always guessing the mean"
    elif metric == "r2":
        shown, meaning = f"{100 * value:.0f}\u00a0%", f"of the variance explained (R² {shown})"
    else:
        name, percent = metric_name(metric), METRICS.get(metric, ("", False))[1]
        best = "0" if metric in ERRORS else "100\u00a0%" if percent else "1"
        known = f", where {best} is perfect" if metric in METRICS else ""
        meaning = f"{name[0].lower()}{name[1:]}{known}"
    interval = format_interval(metric, score)
    confidence = number(protocol.get("confidence")) or 0.95
    clips, groups = protocol.get("n_clips") or 0, protocol.get("n_groups") or 0
    where = ""
    if has_groups(protocol):
        where = (
            f"Measured on {plural(clips, 'clip')} in {plural(groups, 'group')}, "
            "each scored by a model that had heard nothing of its group."
        )
    elif clips:
        where = f"Measured on {plural(clips, 'clip')} that the model had not heard."
    return {
        "value": shown,
        "meaning": meaning,
        "interval": f"{100 * confidence:.4g}\u00a0% interval {interval}" if interval else "",
        "where": where,
        "is_weak": value is None or no_better(evaluation),
    }


def known_chance(evaluation: Mapping[str, Any]) -> float | None:
    """What always giving one answer scores; None where the evaluation's 0 only says "unknown"."""
    chance = number(evaluation.get("chance"))
    signed = evaluation.get("metric") in ("r2", "pearson", "spearman")
    return None if evaluation.get("metric") in ERRORS or (chance == 0 and not signed) else chance


def no_better(evaluation: Mapping[str, Any]) -> bool:
    """Whether the interval reaches down to chance."""
    low, value, _ = limits(evaluation.get("score"))
    chance, worst = known_chance(evaluation), value if low is None else low
    return chance is not None and worst is not None and worst <= chance


def limits(score: Any) -> tuple[float | None, float | None, float | None]:
    """(low, value, high) of a score dict, each None where unknown."""
    if not isinstance(score, Mapping):
        return None, number(score), None
    return number(score.get("low")), number(score), number(score.get("high"))
