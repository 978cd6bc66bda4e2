"""What a report advises to do next, each piece with the clips to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ossicle.report.clips import ClipList
from ossicle.report.words import number, plural

_SURE = 0.9
_FEW_CLIPS = 10
_CONFUSIONS = 3


def confusions(lists: Mapping[str, ClipList]) -> list[tuple[str, int]]:
    """Keys of the confused pairs of classes and their counts, the most frequent first."""
    found = [(key, len(some.clips)) for key, some in lists.items() if _is_confusion(key, some)]
    return sorted(found, key=lambda entry: -entry[1])


def advice(evaluation: Mapping[str, Any], lists: Mapping[str, ClipList]) -> list[dict[str, Any]]:
    """Steps in order of what they are worth.

    Returns:
        text; links: (what to hear, key of its list); after: the text that follows the links.
    """
    steps: list[dict[str, Any]] = []

    def add(text: str, links: Sequence[tuple[str, str]] = (), after: str = "") -> None:
        steps.append({"text": text, "links": list(links), "after": after})

    audit = evaluation.get("audit") or {}
    leaks = [
        x
        for x in audit.get("across_split") or []
        if not (isinstance(x, Mapping) and x.get("kind") == "near")
    ]
    if leaks:
        add(
            "Put copies of one sound into one group, or delete all but one, and evaluate again: "
            f"{plural(len(leaks), 'pair')} lie on both sides of a split."
        )
    if conflicts := audit.get("label_conflicts"):
        add(f"Decide on one label for {plural(len(conflicts), 'pair')} of equal sounds.")
    if sure := _sure_errors(evaluation, lists):
        told = f"In {plural(sure, 'error')} the model was at least {100 * _SURE:.0f}\u00a0% sure. "
        told += "Often the label is wrong, and correcting it is the cheapest gain:"
        add(told, [("listen to the surest errors", "errors")])
    if frequent := [entry for entry in confusions(lists)[:_CONFUSIONS] if entry[1] > 1]:
        add(
            "Listen to what is confused most:",
            [(f"{lists[key].title} ({count})", key) for key, count in frequent],
            "If a person can tell them apart, more recordings of both will help most; if not, "
            "consider joining the classes.",
        )
    if worst := _worst_labels(lists)[:_CONFUSIONS]:
        links = [(f"{lists[key].title} ({count})", key) for key, count in worst]
        add("Listen to the labels with most errors, for what the clips share:", links)
    for line in (evaluation.get("learning_curve") or {}).get("advice") or []:
        add(str(line))
    if few := _few(evaluation.get("per_class") or []):
        names = ", ".join(few[:6]) + (f" and {len(few) - 6} more" if len(few) > 6 else "")
        add(f"Record more of {names}: fewer than {_FEW_CLIPS} clips say little about a class.")
    if skipped := evaluation.get("skipped"):
        add(f"Mend or remove the {plural(len(skipped), 'file')} that could not be used.")
    return steps


def _is_confusion(key: str, some: ClipList) -> bool:
    true, _, predicted = key.partition(",")
    return some.is_error and true.isdigit() and predicted.isdigit()


def _worst_labels(lists: Mapping[str, ClipList]) -> list[tuple[str, int]]:
    found = [
        (key, len(some.clips))
        for key, some in lists.items()
        if key.startswith(("missed,", "false,")) and len(some.clips) > 1
    ]
    return sorted(found, key=lambda entry: -entry[1])


def _sure_errors(evaluation: Mapping[str, Any], lists: Mapping[str, ClipList]) -> int:
    if evaluation.get("task") != "classes" or "errors" not in lists:
        return 0
    return sum(
        probability is not None and probability >= _SURE for _, probability in lists["errors"].clips
    )


def _few(per_class: Sequence[Mapping[str, Any]]) -> list[str]:
    counted = [(number(row.get("support")), row.get("class")) for row in per_class]
    return [str(name) for count, name in counted if count is not None and count < _FEW_CLIPS]
