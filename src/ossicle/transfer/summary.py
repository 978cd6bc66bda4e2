"""An evaluation in a few lines of text, and in one line of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

METRICS = {"map": "mean average precision", "r2": "R²"}


def summary(result: Mapping[str, Any]) -> Sequence[str]:
    """The result in a few lines of text."""
    score, protocol = result["score"], result["protocol"]
    name = METRICS.get(result["metric"], result["metric"])
    lines = [
        f"{name} {score['value']:.4f} (95 % interval {score['low']:.4f} to "
        f"{score['high']:.4f}) on {protocol['n_clips']} clips, {protocol['n_groups']} groups",
        f"{protocol['text']}; groups: {protocol['group_source']}",
    ]
    choice = result.get("chosen")
    if choice:
        sizes = [len(layers) for layers in choice["layers_by_fold"]]
        lines.append(f"layers chosen in each training part: {', '.join(map(str, sizes))} of them")
    # What stands beside the score is always measured by ridge, whatever the probe.
    by = "" if result["probe"]["name"] == "ridge" else " (by ridge)"
    random = result.get("random_split")
    if random:
        lines.append(f"a random split would have claimed {random['value']:.4f}{by}")
    shuffled = result.get("shuffled_labels")
    if shuffled:
        lines.append(
            f"shuffled labels score {shuffled['value']:.4f}{by}, guessing {result['chance']:.4f}"
        )
    leaked = (result.get("audit") or {}).get("n_leaked")
    if leaked:
        lines.append(f"{leaked} clips have a twin in the training part: see `ossicle audit`")
    lines += [f"note: {note}" for note in protocol["notes"]]
    lines += [f"skipped {item['path']}: {item['reason']}" for item in result["skipped"]]
    return lines


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that fits one line: everything but clips and pictures."""
    long = ("items", "audit", "subsets", "by_layer", "confusion", "per_class", "record")
    short = {name: value for name, value in result.items() if name not in long}
    for name in ("reliability", "novelty"):
        if result.get(name):
            rows = ("bins", "thresholds", "per_class")
            short[name] = {key: x for key, x in result[name].items() if key not in rows}
    audit = result.get("audit")
    if audit:
        pairs = ("bytes", "samples", "near", "across_split", "label_conflicts")
        short["audit"] = {name: len(audit[name]) for name in pairs}
    return short
