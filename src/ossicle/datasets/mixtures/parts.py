"""Which clips belong to train, valid, test and unseen: no file, copy or group is in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from ossicle.datasets.groups import UnionFind
from ossicle.datasets.layouts import SPLITS
from ossicle.datasets.mixtures.plan import clip_order
from ossicle.datasets.mixtures.settings import PARTS, MixtureSettings
from ossicle.datasets.mixtures.sources import Clip
from ossicle.errors import DataError

# Keeps these random numbers apart from those of the mixtures.
_TAG = 0x6D697070
_UNSEEN, _PARTS = 1, 2
_SHORT = {"train": "train", "validation": "valid", "test": "test"}
_TOLD = 5


def split_clips(
    clips: Sequence[Clip], names: Sequence[str], settings: MixtureSettings
) -> tuple[dict[str, list[Clip]], list[str]]:
    """The clips of every part, whatever parts mixtures are asked for.

    The groups of `unseen` come first; the others are dealt out by folds or the tables' split where
    these are asked for, else drawn in the settings' shares: where speakers (or labels) may recur,
    each speaker's clips, else whole groups. A role none of whose groups is named as unseen has its
    test clips in the part "unseen" too.

    Args:
        clips: of all tables.
        names: of the tables, for messages.
        settings: how parts are kept apart.

    Returns:
        Clips by part, and notes for the user.

    Raises:
        DataError: a fold, a split or an unseen group is not known, or folds tear a group.
    """
    clips = sorted(clips, key=clip_order)
    unseen = _unseen(clips, names, settings)
    hidden = [clip for clip in clips if clip.identity in unseen[clip.table]]
    taken = {link for clip in hidden for link in _links(clip)}
    seen = [clip for clip in clips if clip.identity not in unseen[clip.table]]
    left = [clip for clip in seen if not taken.intersection(_links(clip))]
    notes = []
    if len(left) < len(seen):
        gone = len(seen) - len(left)
        notes.append(f"left out {gone} clips that share a file or a group with unseen ones")
    parts: dict[str, list[Clip]] = {name: [] for name in PARTS}
    parts["unseen"] = hidden
    part, told = _dealt(left, names, settings)
    for clip, name in zip(left, part, strict=True):
        parts[name].append(clip)
    parts, copies = _without_copies(parts)
    notes += told + copies
    # After copies are gone: these clips are in two parts on purpose.
    for number, name in enumerate(names):
        if any(unseen) and not unseen[number]:
            parts["unseen"] += [clip for clip in parts["test"] if clip.table == number]
            notes.append(f"unseen has the test clips of {name}, none of which is held out")
    return parts, notes


def _unseen(
    clips: Sequence[Clip], names: Sequence[str], settings: MixtureSettings
) -> list[set[str]]:
    """The identities of each table that are held out."""
    known = [{clip.identity for clip in clips if clip.table == n} for n in range(len(names))]
    if isinstance(settings.unseen, tuple):
        for name in settings.unseen:
            if not any(name in of_table for of_table in known):
                some = sorted(set().union(*known))
                more = ", ..." if len(some) > 8 else ""
                raise DataError(f"unseen: there is no group {name}: {', '.join(some[:8])}{more}")
        return [of_table & set(settings.unseen) for of_table in known]
    held: list[set[str]] = []
    least = settings.n_sources if len(names) == 1 else 1
    for number, of_table in enumerate(known):
        # A group of two tables, such as a song of vocals and drums, is held out of both.
        before = of_table & set().union(*held)
        rest = sorted(of_table.difference(*known[:number]))
        many = max(least, round(settings.unseen * len(of_table))) if settings.unseen > 0 else 0
        order = _generator(settings, _UNSEEN, number).permutation(len(rest))
        held.append(before | {rest[i] for i in order[: max(0, many - len(before))]})
    return held


def _links(clip: Clip) -> list[Hashable]:
    """What no two parts may share."""
    return [("file", clip.path), ("bytes", clip.sha256), *(("apart", a) for a in clip.apart)]


def _dealt(
    clips: Sequence[Clip], names: Sequence[str], settings: MixtureSettings
) -> tuple[list[str], list[str]]:
    """The part of each clip, and notes."""
    if settings.use_split:
        what, values = "split", [clip.split for clip in clips]
    elif settings.valid_folds or settings.test_folds:
        what, values = "fold", [clip.fold for clip in clips]
    else:
        return _drawn(clips, settings), []
    having = {clip.table for clip, value in zip(clips, values, strict=True) if value is not None}
    if not having:
        raise DataError(f"the clips have no {what}s: give a table with a column {what}")
    if what == "fold":
        known = sorted({value for value in values if value is not None})
        for name in (*settings.valid_folds, *settings.test_folds):
            if name not in known:
                raise DataError(f"there is no fold {name}: the clips have {', '.join(known)}")
    part = {}
    for i, (clip, value) in enumerate(zip(clips, values, strict=True)):
        if clip.table in having:
            place = _by_split(value) if what == "split" else _by_fold(value, settings)
            if place is None:
                shown = f"the {what} {value}" if value else f"no {what}"
                raise DataError(f"{names[clip.table]}: {clip.name} has {shown}; complete the table")
            part[i] = place
    _check_whole([clips[i] for i in part], list(part.values()), names)
    notes = []
    for table in sorted(having):
        notes += _completed(clips, part, table, names[table], settings)
    rest = [i for i in range(len(clips)) if i not in part]
    if rest:
        part |= dict(zip(rest, _drawn([clips[i] for i in rest], settings), strict=True))
        drawn = [name for number, name in enumerate(names) if number not in having]
        notes.append(f"{', '.join(drawn)}: the clips have no {what}s, so their parts are drawn")
    return [part[i] for i in range(len(clips))], notes


def _completed(
    clips: Sequence[Clip], part: dict[int, str], table: int, name: str, settings: MixtureSettings
) -> list[str]:
    """Parts that a table's folds or split lack, drawn from its training part, in place."""
    rows = [i for i in part if clips[i].table == table]
    there = {part[i] for i in rows}
    train_share, valid_share, test_share = settings.shares
    missing = [
        part_name
        for part_name, share in (("valid", valid_share), ("test", test_share))
        if part_name not in there and share > 0
    ]
    train = [i for i in rows if part[i] == "train"]
    if not missing or not train:
        return []
    kept = (
        train_share,
        valid_share if "valid" in missing else 0.0,
        test_share if "test" in missing else 0.0,
    )
    drawn = _drawn([clips[i] for i in train], replace(settings, shares=kept))
    part |= dict(zip(train, drawn, strict=True))
    return [f"{name}: {' and '.join(missing)} drawn from the training part"]


def _by_fold(value: str | None, settings: MixtureSettings) -> str | None:
    if value is None:
        return None
    return "valid" if value in settings.valid_folds else _or_train(value in settings.test_folds)


def _or_train(test: bool) -> str:
    return "test" if test else "train"


def _by_split(value: str | None) -> str | None:
    known = SPLITS.get((value or "").lower())
    return None if known is None else _SHORT[known]


def _check_whole(clips: Sequence[Clip], part: Sequence[str], names: Sequence[str]) -> None:
    places: dict[Hashable, str] = {}
    for clip, name in zip(clips, part, strict=True):
        for what, link in (("file", clip.path), *(("kept", a) for a in clip.apart)):
            if places.setdefault((clip.table, what, link), name) != name:
                shown = clip.name if what == "file" else link
                raise DataError(
                    f"{names[clip.table]}: {shown} is in {places[clip.table, what, link]} and in "
                    f"{name}: choose folds that keep it whole, or parts that are disjoint in clips "
                    "only (--disjoint clips)"
                )


def _drawn(clips: Sequence[Clip], settings: MixtureSettings) -> list[str]:
    """Parts in the settings' shares, what is linked whole, speakers or labels in proportion."""
    if not clips:
        return []
    sets = UnionFind()
    for clip in clips:
        first, *others = _links(clip)
        for link in others:
            sets.union(first, link)
    roots = [sets.find(_links(clip)[0]) for clip in clips]
    # Numbered by first appearance: names of folders must not decide.
    codes = {root: i for i, root in enumerate(dict.fromkeys(roots))}
    units = [codes[root] for root in roots]
    strata = _strata(clips, units, sum(share > 0 for share in settings.shares))
    return [PARTS[i] for i in deal(units, strata, settings.shares, _generator(settings, _PARTS, 0))]


def _strata(clips: Sequence[Clip], units: Sequence[int], n_parts: int) -> list[str]:
    """What each part is to have its share of: identities that have units enough, else labels that
    have, else clips; table by table."""
    strata = [str(clip.table) for clip in clips]
    for of in ("label", "identity"):
        values = [f"{clip.table} {of} {getattr(clip, of)}" for clip in clips]
        distinct = Counter(value for value, _ in set(zip(values, units, strict=True)))
        strata = [
            value if distinct[value] >= n_parts else before
            for value, before in zip(values, strata, strict=True)
        ]
    return strata


def deal(
    units: Sequence[int],
    strata: Sequence[str],
    shares: Sequence[float],
    draw: np.random.Generator,
) -> list[int]:
    """A part for each row, units whole: rarest stratum first, to the part that most lacks it.

    After Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data".

    Args:
        units: (n,) numbers; rows of one unit stay together.
        strata: (n,) what parts are to have in their shares.
        shares: of each part.
        draw: order of units.

    Returns:
        (n,) numbers of parts.
    """
    counts: dict[int, Counter[str]] = {}
    for unit, stratum in zip(units, strata, strict=True):
        counts.setdefault(unit, Counter())[stratum] += 1
    totals = Counter(strata)
    known = list(counts)
    order = [known[i] for i in draw.permutation(len(known))]
    # Large units first, so that small ones even out what these upset.
    order.sort(key=lambda unit: -counts[unit].total())
    members: dict[str, list[int]] = {}
    for unit in order:
        for stratum in counts[unit]:
            members.setdefault(stratum, []).append(unit)
    open_parts = [number for number, share in enumerate(shares) if share > 0]
    wanted = {
        (number, stratum): shares[number] / sum(shares) * total
        for number in open_parts
        for stratum, total in totals.items()
    }
    room = {number: shares[number] / sum(shares) * len(units) for number in open_parts}
    part: dict[int, int] = {}
    for stratum in sorted(totals, key=lambda name: (totals[name], name)):
        for unit in members[stratum]:
            if unit in part:
                continue
            best = max(open_parts, key=lambda p: (wanted[p, stratum], room[p], -p))
            part[unit] = best
            room[best] -= counts[unit].total()
            for other, many in counts[unit].items():
                wanted[best, other] -= many
    return [part[unit] for unit in units]


def _without_copies(parts: dict[str, list[Clip]]) -> tuple[dict[str, list[Clip]], list[str]]:
    """The same bytes stay in one part only, and the same stretch of them once."""
    home: dict[str, str] = {}
    seen = set()
    kept: dict[str, list[Clip]] = {name: [] for name in PARTS}
    gone: list[str] = []
    for name in reversed(PARTS):
        for clip in parts[name]:
            stretch = (clip.sha256, clip.onset, clip.offset)
            if home.setdefault(clip.sha256, name) != name or stretch in seen:
                gone.append(clip.name)
                continue
            seen.add(stretch)
            kept[name].append(clip)
    more = ", ..." if len(gone) > _TOLD else ""
    note = f"left out {len(gone)} clips whose bytes are there twice: {', '.join(gone[:_TOLD])}"
    return kept, [note + more] if gone else []


def _generator(settings: MixtureSettings, purpose: int, table: int) -> np.random.Generator:
    return np.random.default_rng([_TAG, settings.seed, purpose, table])
