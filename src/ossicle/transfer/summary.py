"""An evaluation in a few lines of text, and in one line of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def summary(result: Mapping[str, Any]) -> Sequence[str]:
    """The result in a few lines of text."""
    score, protocol = result["score"], result["protocol"]
    lines = [
        f"{result['metric']} {score['value']:.4f} (95 % interval {score['low']:.4f} to "
        f"{score['high']:.4f}) on {protocol['n_clips']} clips, {protocol['n_groups']} groups "
        f"({protocol['group_source']})",
        protocol["text"],
    ]
    random = result.get("random_split")
    if random:
        lines.append(f"a random split would have claimed {random['value']:.4f}")
    shuffled = result.get("shuffled_labels")
    if shuffled:
        lines.append(
            f"shuffled labels score {shuffled['value']:.4f}, guessing {result['chance']:.4f}"
        )
    leaked = (result.get("audit") or {}).get("n_leaked")
    if leaked:
        lines.append(f"{leaked} clips have a twin in the training part: see the report")
    lines += [f"note: {note}" for note in protocol["notes"]]
    lines += [f"skipped {item['path']}: {item['reason']}" for item in result["skipped"][:5]]
    if len(result["skipped"]) > 5:
        lines.append(f"skipped {len(result['skipped']) - 5} more: see the report")
    return lines


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that fits one line: everything but clips and pictures."""
    long = ("items", "audit", "subsets", "by_layer", "confusion", "per_class", "record")
    short = {name: value for name, value in result.items() if name not in long}
    audit = result.get("audit")
    if audit:
        pairs = ("bytes", "samples", "near", "across_split", "label_conflicts")
        short["audit"] = {name: len(audit[name]) for name in pairs}
    return short
