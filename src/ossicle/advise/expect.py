"""What each alternative should score and cost, and which of them is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ossicle.advise import calibration
from ossicle.advise.alternatives import ALTERNATIVES
from ossicle.advise.cost import costs
from ossicle.finetune.strategy import Strategy

# Scores expected within this of the best are taken for equal: the cheapest of them is recommended.
# A point is less than any interval here.
TIE = 0.01


def expect(
    facts: Mapping[str, Any],
    alternatives: Mapping[str, Strategy],
    n_training: float,
    *,
    workers: int = 1,
    table: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Expected score with its interval, and cost, of each alternative.

    Args:
        facts: of ``ossicle.advise.measure``.
        alternatives: name -> strategy.
        n_training: clips that are learnt from.
        workers: threads, for the cost.
        table: the calibration; None: the package's.

    Returns:
        One entry each: name, words, text (of the strategy), expected, low, high, seconds and cost
        (its parts), best first.
    """
    table = table or calibration.load()
    rows = [
        {"alternative": name, **calibration.quantities(facts, name, n_training)}
        for name in alternatives
    ]
    scores = calibration.predict(table["model"], rows)
    cost = costs(alternatives, facts, n_training, table["rows"], workers)
    entries = [
        {
            "name": name,
            "words": ALTERNATIVES[name].words,
            "text": strategy.text(),
            "expected": float(expected),
            "low": float(low),
            "high": float(high),
            "seconds": cost[name]["seconds"],
            "cost": cost[name],
        }
        for (name, strategy), (expected, low, high) in zip(
            alternatives.items(), scores, strict=True
        )
    ]
    return sorted(entries, key=lambda entry: -entry["expected"])


def recommended(entries: Sequence[Mapping[str, Any]]) -> str:
    """The name of the cheapest among those expected within a point of the best."""
    best = max(entry["expected"] for entry in entries)
    tied = [entry for entry in entries if entry["expected"] >= best - TIE]
    return str(min(tied, key=lambda entry: entry["seconds"])["name"])


def beyond(facts: Mapping[str, Any], n_training: float, table: Mapping[str, Any]) -> list[str]:
    """In which respects the task lies outside what was measured, as sentences."""
    found = []
    q = calibration.quantities(facts, "all", n_training)
    for key, words in (("per_class", "clips a class to learn from"), ("classes", "classes")):
        low, high = table["model"]["range"][key]
        if not low / 1.5 <= q[key] <= high * 1.5:
            found.append(
                f"{q[key]:.0f} {words} lie outside the measured tasks ({low:.0f} to {high:.0f}): "
                "the intervals are too narrow"
            )
    networks = {row["backbone"] for row in table["rows"]}
    tuned = {row["backbone"] for row in table["rows"] if ALTERNATIVES[row["alternative"]].trained}
    name = facts["network"]["name"]
    if name not in networks:
        found.append(f"measured with {', '.join(sorted(networks))}; for {name} it is a guess")
    elif tuned and name not in tuned:
        found.append(f"fine-tuning was measured with {', '.join(sorted(tuned))}, not with {name}")
    return found
