"""The findings of an audit in words, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ossicle.datasets.patterns import relative_paths

EXAMPLES = 10
REMEDY = (
    "what to do: keep one of each, or give them the same value in a column 'group' and pass "
    "--groups group, so that no split parts them; ossicle.leaks.join_duplicates does that in Python"
)


def audit_lines(report: Mapping[str, Any], root: Path) -> list[str]:
    """One line a finding, at most ten examples of each kind; paths are relative to ``root``.

    Args:
        report: what ``ossicle.audit`` returned.
        root: the folder of the data set.
    """
    rows, paths = list(report["paths"]), list(report["paths"].values())
    names = dict(zip(rows, _shown(paths, root), strict=True))

    def name(row: int) -> str:
        return names[str(row)]

    def pair(a: int, b: int) -> str:
        return f"{name(a)} and {name(b)}"

    sure = [x for x in report["across_split"] if x["kind"] != "near"]
    vague = [x for x in report["across_split"] if x["kind"] == "near"]
    doubles = report["bytes"] or report["samples"]
    lines = []
    if report["n_leaked"]:
        verb = "clip is" if report["n_leaked"] == 1 else "clips are"
        lines.append(f"LEAK: {report['n_leaked']} {verb} tested while a twin is learnt from")
    lines += _section(
        sure,
        ("pair on both sides of a split", "pairs on both sides of a split"),
        lambda x: f"{pair(x['a'], x['b'])}: {_kind(x['kind'])}, {_folds(x['folds'])}",
    )
    lines += _section(
        report["label_conflicts"],
        ("pair of one sound with two labels", "pairs of one sound with two labels"),
        lambda x: " but ".join(
            f"{name(row)} is {_label(label)}"
            for row, label in zip((x["a"], x["b"]), x["labels"], strict=True)
        ),
    )
    lines += _section(
        report["bytes"], ("pair of equal files", "pairs of equal files"), lambda x: pair(*x)
    )
    lines += _section(
        report["samples"],
        ("pair of files that share a sound", "pairs of files that share a sound"),
        lambda x: (
            f"{pair(x['a'], x['b'])}: {_kind(x['kind'])} "
            f"({x['seconds']:.1f} s compared, similarity {x['similarity']:.3f})"
        ),
    )
    if doubles or sure:
        lines.append(REMEDY)
    lines += _section(
        report["near"],
        ("pair that sounds nearly alike", "pairs that sound nearly alike"),
        lambda x: f"{pair(x['a'], x['b'])}: similarity {x['similarity']:.3f}",
    )
    if report["near"]:
        parted = f"; {len(vague)} of them on both sides of a split" if vague else ""
        lines.append(f"listen to those that sound nearly alike: they may well be different{parted}")
    lines += _section(report["silent"], ("silent clip", "silent clips"), name)
    lines += _section(
        report["unreadable"],
        ("clip that cannot be used", "clips that cannot be used"),
        lambda x: f"{_shown([x['path']], root)[0]}: {x['reason']}",
    )
    unseen = " (near-duplicates were not looked for)" if report["near_threshold"] is None else ""
    looked = f"{report['n_clips']} clips looked at{unseen}"
    if not lines:
        looked += ": nothing found, no duplicates, leaks, contradicting labels or broken files"
    return [looked, *lines]


def _shown(paths: Sequence[str], root: Path) -> list[str]:
    """Paths relative to ``root``; signs that would break the line or steer a terminal as "?"."""
    relative = relative_paths(paths, root)
    return ["".join(c if c.isprintable() else "?" for c in path) for path in relative]


def _section(items: Sequence[Any], title: tuple[str, str], text: Callable[[Any], str]) -> list[str]:
    """A heading with the number, up to ten examples, and how many more there are."""
    if not items:
        return []
    lines = [f"{len(items)} {title[len(items) != 1]}:"]
    lines += [f"  {text(item)}" for item in items[:EXAMPLES]]
    if len(items) > EXAMPLES:
        lines.append(f"  and {len(items) - EXAMPLES} more")
    return lines


def _kind(kind: str) -> str:
    return {
        "bytes": "equal files",
        "same": "the same sound",
        "contained": "one is a part of the other",
        "overlap": "they overlap",
        "file": "parts of one file",
    }.get(kind, kind)


def _folds(folds: Sequence[int]) -> str:
    """Folds as people count them, from 1."""
    shown = ", ".join(str(k + 1) for k in folds[:5])
    more = f" and {len(folds) - 5} more" if len(folds) > 5 else ""
    return f"fold{'' if len(folds) == 1 else 's'} {shown}{more}"


def _label(label: Any) -> str:
    return " + ".join(map(str, label)) or "unlabelled" if isinstance(label, list) else str(label)
