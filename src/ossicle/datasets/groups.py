"""Which clips belong together: one recording, speaker or animal must not be on both sides.

Clips cut from one recording are near copies of each other, so a score on them says little about
new recordings. Groups are read from metadata or from file names; what is inferred is told in
notes, which name the option of the command line (`--groups none` is `groups="none"`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import pandas as pd

from ossicle.datasets.patterns import is_pattern, match_values, relative_paths, values_for
from ossicle.errors import DataError

# Names of metadata columns, without separators and a final "id", in order of preference.
GROUP_COLUMNS = (
    *("group", "recording", "recordingname", "fs", "freesound", "src", "srcfile", "sourcefile"),
    *("originalfile", "ytid", "youtube", "video", "parent", "source"),
    *("speaker", "spk", "subject", "patient", "participant", "person", "singer", "actor"),
    *("client", "user", "individual", "animal", "bird", "session", "site", "location", "station"),
    *("device", "track", "song", "artist", "album", "subfolder"),
)
# These often name an archive or a brand, not a recording, unless there are many of them.
_VAGUE = ("source", "site", "location", "station", "device", "session", "user", "subfolder")
_SEPARATORS = re.compile(r"[-_ .()]+")
_DATE = re.compile(r"\d{4}[-_ .]\d{1,2}[-_ .]\d{1,2}")
# A take letter, or a counter of up to three digits; longer numbers are ids, dates or times.
_COUNTER = re.compile(r"^(?P<stem>.*[^-_ .(])[-_ .]*[-_ .(](?:[A-Za-z]|\d{1,3})\)?$")
_LAST_NUMBER = re.compile(r"^(?P<prefix>.*?)(?P<number>\d+)\D*$")


class UnionFind:
    """Disjoint sets over any hashable items; the smallest item stands for its set."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, item: Hashable) -> Hashable:
        """The item that stands for the set of `item`."""
        parent = self._parent.setdefault(item, item)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        self._parent[item] = parent
        return parent

    def union(self, a: Hashable, b: Hashable) -> bool:
        """Joins the sets of `a` and `b`; False where they were one already."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return False
        low, high = sorted((a, b), key=str)
        self._parent[high] = low
        return True


def assign_groups(
    table: pd.DataFrame, root: Path, spec: str | None, members: dict[str, list[int]]
) -> tuple[list[str], str, list[str]]:
    """A group for each row, where it comes from, and notes.

    Args:
        table: the clips, with `path` and whatever columns the source has.
        root: the folder that patterns are matched below.
        spec: a column's name, "/regex/", "runs:K" (blocks of K consecutive file numbers of one
            class), "none" (each file its own), or None to infer.
        members: class name -> row numbers; one entry of all rows for regression.

    All rows of one file share a group, and groups that a file links are joined. Raises DataError
    for a `spec` that does not fit.
    """
    notes: list[str] = []
    relative = relative_paths(list(table["path"]), root)
    if spec is None:
        groups, source = _infer(table, relative, members, notes)
    elif spec.lower() == "none":
        groups, source = relative, "none, each file by itself"
    elif spec.startswith("runs:"):
        groups = _runs(spec, relative, members)
        source = f"blocks of {int(spec.removeprefix('runs:'))} consecutive numbers"
    else:
        groups = list(values_for(spec, table, root, "groups"))
        source = f"pattern {spec}" if is_pattern(spec) else f"column {spec!r}"
    return _join_files(list(table["path"]), groups, notes), source, notes


def _join_files(paths: Sequence[str], groups: Sequence[str], notes: list[str]) -> list[str]:
    """Groups with no file in two of them."""
    sets, first, joined = UnionFind(), dict[str, str](), 0
    for path, group in zip(paths, groups, strict=True):
        if path in first:
            joined += sets.union(first[path], group)
        else:
            first[path] = group
    if joined:
        notes.append(
            f"{joined + 1} groups have files in common and were joined to keep files whole"
        )
    return [str(sets.find(group)) for group in groups]


def _infer(
    table: pd.DataFrame, relative: list[str], members: dict[str, list[int]], notes: list[str]
) -> tuple[list[str], str]:
    column = _best_column(table, members, notes)
    if column is not None:
        values = [v.strip() if isinstance(v, str) else "" for v in table[column]]
        blank = sum(not v for v in values)
        if blank:
            notes.append(f"{blank} clips without {column!r} are each their own group")
        groups = [v or f"file {path}" for v, path in zip(values, relative, strict=True)]
        source = f"column {column!r}"
        if column != "group":
            source = f"inferred from {source}"
    else:
        stems = _stems(relative, members, notes)
        if stems is not None:
            groups, source = stems, "inferred from shared beginnings of file names"
        else:
            groups, source = list(relative), "none found, each file by itself"
        suggestion = suggest_pattern(relative, members)
        if suggestion is not None:
            pattern, examples = suggestion
            notes.append(
                "file names look as if they name whom or what was recorded "
                f"({', '.join(examples[:3])}); to keep those apart pass --groups '{pattern}'"
            )
        elif stems is None and _numbered(relative, members):
            notes.append(
                "consecutive numbers often come from one recording; if they do here, pass "
                "--groups runs:10 (blocks of 10) or a better rule, or scores will be too high"
            )
    if len(set(groups)) < len(set(relative)):
        largest, size = Counter(groups).most_common(1)[0]
        example = relative[groups.index(largest)]
        notes.append(
            f"{_count(len(set(groups)), 'group')} for {len(set(relative))} files; the largest, "
            f"{largest!r}, has {_count(size, 'clip')}, such as {example}; --groups none overrules"
        )
    return groups, source


def _groups_per_class(values: Sequence[str], members: dict[str, list[int]]) -> int:
    """The fewest groups that any class of two clips or more has."""
    counts = [len({values[i] for i in rows}) for rows in members.values() if len(rows) > 1]
    return min(counts, default=0)


def _best_column(
    table: pd.DataFrame, members: dict[str, list[int]], notes: list[str]
) -> str | None:
    """`group` if there; else the coarsest known column that leaves each class five groups.

    Coarser is safer: of recording and speaker, where each recording has one speaker, keeping
    speakers whole keeps recordings whole. Where none leaves five, the one that leaves most.
    """
    if "group" in table:
        return "group"
    rank: dict[str, int] = {}
    for name in table.columns:
        plain = re.sub(r"[^a-z]", "", str(name).lower())
        for known in {plain, plain.removesuffix("id"), plain.removesuffix("name")}:
            if known in GROUP_COLUMNS:
                rank[name] = min(rank.get(name, 99), GROUP_COLUMNS.index(known))
    fewest: dict[str, int] = {}
    distinct: dict[str, int] = {}
    for name in sorted(rank, key=rank.__getitem__):
        values = [v if isinstance(v, str) and v else f"\0{i}" for i, v in enumerate(table[name])]
        n, least = len(set(values)), _groups_per_class(values, members)
        if n == len(values):
            continue
        if least < (5 if GROUP_COLUMNS[rank[name]] in _VAGUE else 2):
            notes.append(f"column {name!r} not used as groups: a class has only {least} of them")
            continue
        fewest[name], distinct[name] = least, n
    if not fewest:
        return None
    enough = [name for name in fewest if fewest[name] >= 5]
    best = min(enough, key=distinct.__getitem__) if enough else max(fewest, key=fewest.__getitem__)
    if len(fewest) > 1:
        others = ", ".join(repr(name) for name in fewest if name != best)
        notes.append(f"groups: {best!r} chosen over {others}; --groups COLUMN takes another")
    return best


def _stem(name: str, most: int) -> str:
    """The name without up to `most` counters at its end; a date stays whole."""
    for _ in range(most):
        match = _COUNTER.match(name)
        if match is None or _DATE.fullmatch(name):
            break
        name = match["stem"]
    return name


def _stems(
    relative: list[str], members: dict[str, list[int]], notes: list[str]
) -> list[str] | None:
    """Groups by shared beginnings, or None where the beginnings are no more than class names."""
    names = [path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in relative]
    label_of = {i: label for label, rows in members.items() for i in rows}
    refused = ""
    for most in (9, 1):
        stems = [_stem(name, most) for name in names]
        sizes = Counter(stems)
        if len(sizes) == len(set(relative)) or max(sizes.values(), default=0) < 2:
            continue
        least = _groups_per_class(stems, members)
        rests = [_without(stem, label_of.get(i, "")) for i, stem in enumerate(stems)]
        if least < 2 or any(rest == "" for rest in rests):
            refused = "they leave a class in one group, or repeat its name"
            continue
        if None not in rests and _shared_between_classes([str(r) for r in rests], members):
            refused = "they are the class and a name that other classes have too"
            continue
        return stems
    if refused:
        notes.append(f"shared beginnings of file names not used as groups: {refused}")
    return None


def _without(stem: str, label: str) -> str | None:
    """The stem less the label's tokens; None where the label is not part of it."""
    tokens = [t for t in _SEPARATORS.split(stem.lower()) if t]
    wanted = [t for t in _SEPARATORS.split(label.lower()) if t]
    for start in range(len(tokens) - len(wanted) + 1):
        if wanted and tokens[start : start + len(wanted)] == wanted:
            return "_".join(tokens[:start] + tokens[start + len(wanted) :])
    return None


def _shared_between_classes(values: Sequence[str], members: dict[str, list[int]]) -> bool:
    """Whether values are few, repeated, and each is found in most classes: a speaker, a site."""
    n, kinds = len(values), len(set(values))
    if len(members) < 2 or not 2 <= kinds <= n / 4:
        return False
    classes: dict[str, set[str]] = defaultdict(set)
    for label, rows in members.items():
        for i in rows:
            classes[values[i]].add(label)
    return all(len(found) > len(members) / 2 for found in classes.values())


def suggest_pattern(
    relative: Sequence[str], members: dict[str, list[int]]
) -> tuple[str, list[str]] | None:
    """A /regex/ for the part of the file names that seems to name a speaker or device, if any.

    That part is at one position between separators, has between 2 and n/4 values, each found in
    most classes, and is no counter (1, 2, 3, ...) and no class name. Returns the pattern, proved
    to give just those values, and the values.
    """
    names = [path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in relative]
    tokens = [[t for t in _SEPARATORS.split(name) if t] for name in names]
    width = min((len(t) for t in tokens), default=0)
    labels = {label.lower() for label in members}
    for position in range(width if width > 1 else 0):
        values = [t[position] for t in tokens]
        kinds = sorted(set(values))
        if _is_counter(kinds) or {k.lower() for k in kinds} <= labels:
            continue
        if not _shared_between_classes(values, members):
            continue
        sort = next(
            s for s in (r"[a-z]+", r"\d+", r"\w+?") if all(map(re.compile(s).fullmatch, kinds))
        )
        marks = "-_ ."
        candidates = [f"/{m}({sort}){m}/" for m in marks] + [f"/{m}({sort})$/" for m in marks]
        candidates += [f"/^({sort}){re.escape(m)}/" for m in marks]
        token = r"[^-_ .()/]+"
        candidates.append(rf"/(?:^|/)(?:{token}[-_ .()]+){{{position}}}({token})[^/]*$/")
        for pattern in candidates:
            if match_values(pattern, relative) == values:
                return pattern, kinds
    return None


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _is_counter(kinds: Sequence[str]) -> bool:
    """Whether values are numbers with few gaps, or single letters: takes, not names."""
    if all(len(k) == 1 for k in kinds):
        return True
    if not all(k.isdecimal() for k in kinds):
        return False
    numbers = {int(k) for k in kinds}
    return max(numbers) - min(numbers) + 1 <= 2 * len(numbers)


def _numbered(relative: Sequence[str], members: dict[str, list[int]]) -> bool:
    """Whether the files of the classes are, for the most part, numbered through."""
    runs = 0
    for rows in members.values():
        found = [_LAST_NUMBER.match(relative[i].rsplit("/", 1)[-1].rsplit(".", 1)[0]) for i in rows]
        numbers = {int(m["number"]) for m in found if m is not None}
        if len(numbers) >= max(3, 0.8 * len(rows)):
            runs += max(numbers) - min(numbers) + 1 <= 2 * len(numbers)
    return runs > len(members) / 2


def _runs(spec: str, relative: Sequence[str], members: dict[str, list[int]]) -> list[str]:
    """Blocks of K consecutive numbers, for each class and each beginning of the names."""
    size = spec.removeprefix("runs:")
    if not size.isdecimal() or int(size) < 1:
        raise DataError(f"--groups {spec} is not known; write the blocks' length, as in runs:10")
    found = [_LAST_NUMBER.match(p.rsplit("/", 1)[-1].rsplit(".", 1)[0]) for p in relative]
    missing = [path for path, match in zip(relative, found, strict=True) if match is None]
    if missing:
        shown = ", ".join(missing[:3])
        raise DataError(f"--groups {spec} needs a number in each file name; not in: {shown}")
    label_of: dict[int, str] = {}
    for label, rows in members.items():
        for i in rows:
            label_of.setdefault(i, label)
    groups = []
    for i, (path, match) in enumerate(zip(relative, found, strict=True)):
        assert match is not None
        start = int(match["number"]) // int(size) * int(size)
        folder = path.rsplit("/", 1)[0] if "/" in path else ""
        place = f"{label_of.get(i, '')}/{folder}/{match['prefix']}"
        groups.append(f"{place}{start}-{start + int(size) - 1}")
    return groups
