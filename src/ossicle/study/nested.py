"""Parts of a training part, each within the next larger: what a smaller collection would have been.

A part takes the same share of every class. Groups (recordings, speakers) come in whole, in one
random order for all classes, as they would when fewer were collected; only the last group of a
class may be cut, so that sizes are exact. Larger parts hold smaller ones, which takes the luck of
the draw out of the differences between sizes.

Symbols: n clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ossicle.errors import DataError

DRAWS = ("groups", "clips")
# Ridge, early stopping and their like hold clips out again: one of a class is not enough.
_FEWEST = 2
_BINS = 5
# Groups among which the next is chosen for its labels.
_AHEAD = 32


class Size(NamedTuple):
    """How much of a training part: a `share` of it, or `each` clips of every class."""

    share: float | None
    each: int | None

    @property
    def label(self) -> str:
        """ "10 %" or "5 a class"."""
        if self.share is None:
            return f"{self.each} a class"
        return f"{100 * self.share:.6g} %"


def parse_sizes(text: str | Sequence[str]) -> list[Size]:
    """ "10%,100%" or "5,20" (clips a class), in the order given.

    Raises:
        DataError: a size that is neither, shares outside (0, 100], or both kinds at once.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    sizes = [_size(part.strip()) for part in parts]
    if len({size.share is None for size in sizes}) > 1:
        raise DataError("sizes are either all shares (10%,100%) or all clips a class (5,20)")
    if len(sizes) < 2 or len(set(sizes)) < len(sizes):
        raise DataError(f"a curve needs two different sizes or more, got {', '.join(parts)!r}")
    return sorted(sizes, key=lambda size: size.share or size.each or 0)


def _size(text: str) -> Size:
    number, percent, rest = text.partition("%")
    try:
        if percent and not rest and 0 < float(number) <= 100:
            return Size(float(number) / 100, None)
        if not percent and int(number) >= _FEWEST:
            return Size(None, int(number))
    except ValueError:
        pass
    raise DataError(
        f"size {text!r}: write a share of the training part as 10%, or clips a class as a whole "
        f"number of {_FEWEST} or more"
    )


def nested_parts(
    y: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    sizes: Sequence[Size],
    *,
    task: str,
    seed: int | Sequence[int] = 0,
    draw: str = "groups",
) -> list[np.ndarray]:
    """The part of `train` for each size, rows ascending; each within the next larger.

    Args:
        y: (n,) class indices, (n, num_classes) 0/1, or (n,) numbers (shares are then of five bins
            of as many clips each).
        groups: (n,) names.
        train: rows to learn from.
        sizes: smallest first.
        task: "classes", "multilabel" or "regression".
        seed: of the order in which groups come; another size asked for does not change it.
        draw: "groups", or "clips" for clips of any group in any order.

    Raises:
        DataError: clips a class without classes, more than any class has, or an unknown `draw`.
    """
    if draw not in DRAWS:
        raise DataError(f"unknown draw {draw!r}: choose one of {', '.join(DRAWS)}")
    if task != "classes" and any(size.share is None for size in sizes):
        raise DataError(
            f"clips a class need one class for each clip, these labels are {task}: give shares "
            "such as 10%"
        )
    generator = np.random.default_rng(seed)
    train = np.asarray(train, np.int64)
    names, code = np.unique(np.asarray(groups)[train], return_inverse=True)
    if draw == "clips":
        names, code = np.arange(len(train)), np.arange(len(train))
    shuffled = generator.permutation(len(train))
    rank = np.empty(len(names), np.int64)
    if task == "multilabel":
        members = np.zeros((len(names), y.shape[1]), np.int64)
        np.add.at(members, code, y[train] != 0)
        rank[_balanced(members, np.bincount(code), generator)] = np.arange(len(names))
        strata = np.zeros(len(train), np.int64)
    else:
        rank[generator.permutation(len(names))] = np.arange(len(names))
        strata = y[train] if task == "classes" else _bins(y[train])
    # Rows by group, in random order within it.
    order = shuffled[np.argsort(rank[code[shuffled]], kind="stable")]
    ordered = [train[order[strata[order] == kind]] for kind in np.unique(strata)]
    largest = max(len(rows) for rows in ordered)
    for size in sizes:
        if size.each is not None and size.each > largest:
            raise DataError(
                f"{size.label}: the largest class has {largest} clips in the training part"
            )
    return [
        np.sort(np.concatenate([rows[: _count(size, len(rows))] for rows in ordered]))
        for size in sizes
    ]


def _count(size: Size, available: int) -> int:
    wanted = size.each if size.share is None else round(size.share * available)
    return min(available, max(_FEWEST, wanted or 0))


def _bins(y: np.ndarray) -> np.ndarray:
    """(n,) which of five bins of as many clips each, or fewer where numbers repeat."""
    edges = np.quantile(y, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.searchsorted(np.unique(edges), y, side="right")


def _balanced(members: np.ndarray, weight: np.ndarray, generator: np.random.Generator) -> list[int]:
    """An order of groups whose beginnings hold every label in proportion, as far as may be.

    Of the groups that come next in a random order, the one is taken with which the labels' counts
    are nearest to their shares, rare labels weighing more.

    Args:
        members: (groups, labels) how many clips of each group have a label.
        weight: (groups,) clips.
    """
    waiting = list(generator.permutation(len(members)))
    share = members.sum(axis=0) / weight.sum()
    known = share > 0
    held, n_held, taken = np.zeros(members.shape[1]), 0, []
    while waiting:
        next_ones = np.array(waiting[:_AHEAD])
        expected = share * (n_held + weight[next_ones])[:, None]
        off = (held + members[next_ones] - expected)[:, known] ** 2 / share[known]
        chosen = waiting.pop(int(np.argmin(off.sum(axis=1))))
        held += members[chosen]
        n_held += int(weight[chosen])
        taken.append(int(chosen))
    return taken
