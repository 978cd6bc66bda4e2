"""Reasons to trust a score or not: the protocol, the controls, the audit, what was left out.

Every sentence follows from numbers in the evaluation; where a number is missing, so is the
sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ossicle.record import json_safe
from ossicle.report.words import (
    ERRORS,
    duration,
    format_score,
    has_groups,
    known_chance,
    labels_of,
    limits,
    no_better,
    number,
    plural,
)

_FEW_GROUPS = 10
_NAMED = 12
_CHANCE_MARGIN = 0.02


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
    groups, source = protocol.get("n_groups") or 0, protocol.get("group_source")
    text = str(protocol.get("text") or "")
    text = f"{text.rstrip('.')}." if text else ""
    told = f"Groups: {source}." if source else ""
    notes = list(map(str, protocol.get("notes") or []))
    found = []
    if has_groups(protocol):
        found.append(
            _check("good", "Tested on groups it had not heard", f"{text} {told}".strip(), notes)
        )
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
                f"a pattern in the file name) and evaluate again. {told}".strip(),
                notes,
            )
        )
    elif text or notes:
        found.append(_check("info", "How it was measured", text, notes))
    return found


def _control_checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    metric = str(evaluation.get("metric") or "score")
    low, value, high = limits(evaluation.get("score"))
    chance = known_chance(evaluation)
    found = []
    # Both controls are by ridge on the features before any training, whatever made the score.
    probe = evaluation.get("probe")
    name = probe.get("name") if isinstance(probe, Mapping) else None
    other = name not in (None, "ridge")
    procedure = "a ridge on the frozen features" if other else "the same procedure"
    apart = " This is a ridge on the frozen features, not the model itself." if other else ""
    worst = value if low is None else low
    if no_better(evaluation):
        told = "The score cannot be told from the "
        told += f"{format_score(metric, chance)} of always giving the same answer."
        found.append(_check("warn", "Not better than guessing", told))
    shuffled = evaluation.get("shuffled_labels")
    least, reached, most = limits(shuffled)
    if reached is not None and metric not in ERRORS:
        repeats = shuffled.get("repeats") if isinstance(shuffled, Mapping) else None
        told = "Trained on shuffled labels, where there is nothing to learn, "
        told += f"{procedure} gets {format_score(metric, reached)}"
        told += f" (mean of {plural(repeats, 'shuffle')})" if repeats else ""
        if chance is not None:
            leaks = (reached if least is None else least) > chance + _CHANCE_MARGIN
            titles = "Shuffled labels score at chance", "Shuffled labels score above chance"
        else:
            leaks = worst is not None and worst <= (reached if most is None else most)
            titles = "Shuffled labels score far lower", "Shuffled labels do as well"
        if leaks:
            told += ". Either the answer leaks into the test, or there is nothing to learn here."
            found.append(_check("warn", titles[1], told))
        else:
            told += ": the procedure gives nothing away."
            found.append(_check("good", titles[0], told))
    _, claim, _ = limits(evaluation.get("random_split"))
    if claim is not None and value is not None:
        claimed = format_score(metric, claim)
        outside = high is not None and low is not None and not low <= claim <= high
        if outside and ((claim < value) if metric in ERRORS else (claim > value)):
            told = f"Splitting clips at random would have claimed {claimed}, because it tests on "
            told += "clips whose sisters it has trained on. That is not the number to quote: on "
            told += f"recordings it has not heard, the model does {format_score(metric, value)}."
            found.append(_check("warn", "A random split would mislead here", told + apart))
        elif outside:
            told = f"It gives {claimed}, which is unusual: the groups may differ a lot in size."
            found.append(_check("info", "A random split scores worse", told + apart))
        else:
            told = f"It would have claimed {claimed}, within the interval: little that helps is "
            told += "shared between the clips of a group."
            found.append(_check("good", "A random split agrees", told + apart))
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
        text = f"{plural(len(twins), 'pair')} of clips with the same sound; "
        text += "none lies on both sides of a split."
        found.append(_check("info", "Duplicates, kept together", text, pairs(twins)))
    elif not twins and not sure:
        count = audit.get("n_clips")
        among = f" among {plural(count, 'clip')}" if count else ""
        found.append(
            _check("good", "No duplicates", f"No two files with the same sound were found{among}.")
        )
    if near := list(audit.get("near") or []):
        text = f"{plural(len(near), 'pair')} of clips nearly alike to the network. "
        if apart := len(across) - len(sure):
            text += f"{apart:,} of them lie on both sides of a split. "
        text += "If they come from one recording, put them into one group."
        found.append(_check("info", "Near-duplicates", text, pairs(near, lambda x: similarity(x))))
    if conflicts := list(audit.get("label_conflicts") or []):
        told = f"{plural(len(conflicts), 'pair')} of equal sounds with different labels; one of "
        told += "each pair is always counted as an error."
        found.append(_check("warn", "The same sound, two labels", told, pairs(conflicts, conflict)))
    if silent := list(audit.get("silent") or []):
        lines = [name(row) for row in silent[:_NAMED]]
        found.append(_check("warn", plural(len(silent), "silent clip"), "", lines))
    return found


def _input_checks(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    if skipped := evaluation.get("skipped"):
        text = "Named at the end of this page; the score says nothing about what they hold."
        found.append(_check("warn", f"{plural(len(skipped), 'file')} left out", text))
    audio = evaluation.get("audio") or {}
    read, used = number(audio.get("seconds_read")), number(audio.get("seconds_used"))
    if read and used is not None and used < 0.95 * read:
        text = f"{duration(used)} of {duration(read)} were used ({100 * used / read:.0f}\u00a0%)."
        policy = f" Clip policy: {audio['clip_policy']}." if audio.get("clip_policy") else ""
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
    """ ", similarity 0.998", where it is known."""
    value = number(entry.get("similarity")) if isinstance(entry, Mapping) else None
    return "" if value is None else f", similarity {value:.3f}"


def conflict(entry: Any) -> str:
    """ ": rain, sea waves", where the labels are known."""
    labels = entry.get("labels") if isinstance(entry, Mapping) else None
    return "" if not labels else ": " + " against ".join(", ".join(labels_of(x)) for x in labels)
