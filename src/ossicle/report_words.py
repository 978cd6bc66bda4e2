"""What a report says in words: the verdict, whether to trust it, what to do next.

Every sentence follows from numbers in the evaluation; where a number is missing, so is the
sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ossicle.record import json_safe

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
_FEW_GROUPS = 10
_NAMED = 12


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
        return [f"{value:.4g}".replace("-", "−")] if math.isfinite(value) else []
    return [str(value)]


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
        text = f"{value:.3g}"
    else:
        text = f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("-", "−")


def format_interval(metric: str, score: Any, joint: str = " to ") -> str:
    """"97.2 to 99.5 %", or nothing where an end is unknown."""
    if not isinstance(score, Mapping):
        return ""
    low, high = number(score.get("low")), number(score.get("high"))
    if low is None or high is None:
        return ""
    return format_score(metric, low, unit=False) + joint + format_score(metric, high)


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


def verdict(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The page's first lines: value, meaning, interval, where (how it was measured)."""
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
    clips, groups = protocol.get("n_clips"), protocol.get("n_groups")
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
    }


def checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reasons to trust the score or not.

    Returns:
        state ("good", "warn" or "info"), title, text, details (lines to unfold), warnings first.
    """
    found = [
        *_protocol_checks(evaluation),
        *_control_checks(evaluation),
        *_audit_checks(evaluation.get("audit")),
        *_input_checks(evaluation),
    ]
    order = ("warn", "good", "info")
    return sorted(found, key=lambda check: order.index(check["state"]))


def _check(state: str, title: str, text: str = "", details: Sequence[str] = ()) -> dict[str, Any]:
    return {"state": state, "title": title, "text": text, "details": list(details)}


def _protocol_checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    protocol = evaluation.get("protocol") or {}
    groups, source = protocol.get("n_groups"), protocol.get("group_source")
    text = str(protocol.get("text") or "")
    told = f"Groups: {source}." if source else ""
    notes = list(map(str, protocol.get("notes") or []))
    found = []
    if has_groups(protocol):
        found.append(_check("good", "Tested on groups it had not heard", f"{text} {told}", notes))
        if groups < _FEW_GROUPS:
            found.append(
                _check(
                    "warn",
                    f"Only {plural(groups, 'group')}",
                    "However many clips there are, what is known about new recordings comes from "
                    "the number of groups. Read the interval as a rough one.",
                )
            )
    elif protocol.get("n_clips"):
        found.append(
            _check(
                "warn",
                "No groups are known",
                f"{text} Clips of one recording, animal or speaker may lie on both sides of the "
                "split, and then the score is too high. Say what belongs together (a column, or "
                f"a pattern in the file name) and evaluate again. {told}",
                notes,
            )
        )
    elif text or notes:
        found.append(_check("info", "How it was measured", text, notes))
    return found


def _control_checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    metric = str(evaluation.get("metric") or "score")
    score = evaluation.get("score") or {}
    low, high = number(score.get("low")), number(score.get("high"))
    chance, value = number(evaluation.get("chance")), number(score)
    found = []
    worst = value if low is None else low
    if metric not in ERRORS and chance is not None and worst is not None and worst <= chance:
        found.append(
            _check(
                "warn",
                "Not better than guessing",
                f"The score cannot be told from the {format_score(metric, chance)} of always "
                "giving the same answer.",
            )
        )
    shuffled = evaluation.get("shuffled_labels") or {}
    if (shuffled_value := number(shuffled)) is not None:
        shuffled_low = number(shuffled.get("low"))
        reached = format_score(metric, shuffled_value)
        repeats = shuffled.get("repeats")
        times = f" (mean of {plural(repeats, 'shuffle')})" if repeats else ""
        bar = chance if chance is not None else 0.0
        if metric not in ERRORS and shuffled_low is not None and shuffled_low > bar + 1e-9:
            told = "With shuffled labels there is nothing to learn, and yet the score is above "
            told += f"guessing: {reached}{times}. Something in the test leaks the answer."
            found.append(_check("warn", "Shuffled labels score above chance", told))
        else:
            told = f"Trained on shuffled labels the same procedure gets {reached}{times}: "
            found.append(
                _check("good", "Shuffled labels score at chance", told + "the test leaks nothing.")
            )
    random_split = number(evaluation.get("random_split"))
    if random_split is not None and value is not None:
        claimed = format_score(metric, random_split)
        outside = high is not None and low is not None and not low <= random_split <= high
        better = (random_split < value) if metric in ERRORS else (random_split > value)
        if outside and better:
            told = f"A split that parts clips at random would have claimed {claimed}, because it "
            told += "tests on clips whose sisters it has trained on. The number not to quote: "
            told += f"on recordings it has not heard the model does {format_score(metric, value)}."
            found.append(_check("warn", "A random split would mislead here", told))
        elif outside:
            told = f"It gives {claimed}, below the interval: unusual. The groups may differ a lot."
            found.append(_check("info", "A random split scores lower", told))
        else:
            told = f"It would have claimed {claimed}, within the interval: little is shared "
            told += "between the clips of a group."
            found.append(_check("good", "A random split agrees", told))
    return found


def _audit_checks(audit: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if audit is None:
        return []
    name = namer(audit)

    def pairs(entries: Sequence[Any], told: Callable[[Any], str] = lambda entry: "") -> list[str]:
        lines = [f"{name(pair_of(x)[0])} and {name(pair_of(x)[1])}{told(x)}" for x in entries]
        if len(lines) > _NAMED:
            lines[_NAMED:] = [f"and {len(lines) - _NAMED:,} more, in report.json"]
        return lines

    found = []
    across = list(audit.get("across_split") or [])
    sure = [x for x in across if not (isinstance(x, Mapping) and x.get("kind") == "near")]
    if sure:
        leaked = audit.get("n_leaked") or len(sure)
        found.append(
            _check(
                "warn",
                "The same sound in training and test",
                f"{plural(leaked, 'clip was', 'clips were')} tested while a copy of it, or a part "
                "of it, was trained on. The score is too high.",
                pairs(sure),
            )
        )
    twins = list(audit.get("bytes") or []) + list(audit.get("samples") or [])
    if twins and not sure:
        text = f"{plural(len(twins), 'pair')} of clips hold the same sound; "
        text += "none lies on both sides of a split."
        found.append(_check("info", "Duplicates, kept together", text, pairs(twins)))
    elif not twins and not sure:
        count = audit.get("n_clips")
        among = f" among {plural(count, 'clip')}" if count else ""
        found.append(
            _check("good", "No duplicates", f"No two files with the same sound were found{among}.")
        )
    if near := list(audit.get("near") or []):
        text = f"{plural(len(near), 'pair')} of clips sound nearly alike to the network. "
        text += "If they come from one recording, put them into one group."
        found.append(
            _check("info", "Near-duplicates", text, pairs(near, lambda x: similarity(x)))
        )
    if conflicts := list(audit.get("label_conflicts") or []):
        told = f"{plural(len(conflicts), 'pair')} of equal sounds carry different labels; one of "
        told += "each pair is always counted as an error."
        found.append(_check("warn", "The same sound, two labels", told, pairs(conflicts, conflict)))
    if silent := list(audit.get("silent") or []):
        lines = [name(row) for row in silent[:_NAMED]]
        found.append(_check("warn", plural(len(silent), "silent clip"), "", lines))
    return found


def _input_checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    if skipped := evaluation.get("skipped"):
        text = "They are named at the end of this page; the score says nothing about them."
        found.append(_check("warn", f"{plural(len(skipped), 'file')} left out", text))
    audio = evaluation.get("audio") or {}
    read, used = number(audio.get("seconds_read")), number(audio.get("seconds_used"))
    if read and used is not None and used < 0.95 * read:
        text = f"{duration(used)} of {duration(read)} were used ({100 * used / read:.0f}\u00a0%)."
        policy = f" {audio['clip_policy']}." if audio.get("clip_policy") else ""
        found.append(_check("info", "Not all of the sound was used", text + policy))
    return found


def pair_of(entry: Any) -> tuple[Any, Any]:
    """The two clips of an audit's pair, given as [a, b] or as a dict."""
    if isinstance(entry, Mapping):
        return entry.get("a"), entry.get("b")
    first, second = list(entry)[:2]
    return first, second


def namer(audit: Mapping[str, Any]) -> Callable[[Any], str]:
    """From a clip as an audit names it, a row number or a path, to its file's name."""
    paths = audit.get("paths") or {}

    def name(clip: Any) -> str:
        known = paths.get(str(clip)) or paths.get(clip)
        if known:
            return str(json_safe(known))
        return f"clip {clip}" if isinstance(clip, int) else str(json_safe(clip))

    return name


def similarity(entry: Any) -> str:
    """", similarity 0.998", where it is known."""
    value = number(entry.get("similarity")) if isinstance(entry, Mapping) else None
    return "" if value is None else f", similarity {value:.3f}"


def conflict(entry: Any) -> str:
    """": rain, sea waves", where the labels are known."""
    labels = entry.get("labels") if isinstance(entry, Mapping) else None
    return "" if not labels else ": " + " against ".join(", ".join(labels_of(x)) for x in labels)
