"""Event-based scores: an event is found if an estimated one begins and ends where it does, nearly.

Mesaros, Heittola & Virtanen 2016, "Metrics for polyphonic sound event detection", Applied Sciences
6(6), 162, section 3.2. F recordings, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.metrics.events.counting import Counts, summary
from ossicle.metrics.events.matching import close_pairs, match_greedy, match_optimal
from ossicle.metrics.events.tables import (
    check_positive,
    check_share,
    class_names,
    event_arrays,
    files_of,
    microseconds,
)

MATCHINGS = {"optimal": match_optimal, "greedy": match_greedy}


def event_based(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    *,
    classes: Sequence[str],
    files: Sequence[str] | None = None,
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    onset_only: bool = False,
    matching: str = "optimal",
) -> dict[str, Any]:
    """Precision, recall, F1 and error rate of events: see `counting.summary`.

    Args:
        reference, estimate: tables with file, onset, offset (s), label.
        classes: K names.
        files: all recordings; None: those that the tables name.
        collar_s: how far the onset may be off, s; the offset too.
        offset_share: the offset may be off by this share of the reference event's length if that
            is more than the collar.
        onset_only: the offset may be anywhere.
        matching: "optimal": as many hits as possible; "greedy": in order of onset.

    Raises:
        DataError: an event is none, or of a file or class that is not named.
    """
    return summary(
        event_counts(
            reference,
            estimate,
            classes=classes,
            files=files,
            collar_s=collar_s,
            offset_share=offset_share,
            onset_only=onset_only,
            matching=matching,
        )
    )


def event_counts(
    reference: pd.DataFrame,
    estimate: pd.DataFrame,
    *,
    classes: Sequence[str],
    files: Sequence[str] | None = None,
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    onset_only: bool = False,
    matching: str = "optimal",
) -> Counts:
    """The counts of `event_based`, per recording; an event is one thing."""
    if matching not in MATCHINGS:
        raise DataError(f"matching: {matching!r} is none of {', '.join(MATCHINGS)}")
    names = class_names(classes)
    known = files_of(reference, estimate) if files is None else tuple(map(str, files))
    collar = int(microseconds(check_positive("collar_s", collar_s, zero=True)))
    share = check_share("offset_share", offset_share)
    wanted = event_arrays(reference, known, names, "reference")
    found = event_arrays(estimate, known, names, "estimate")
    pairs = close_pairs(wanted, found, collar, share, onset_only=onset_only)
    match = MATCHINGS[matching](wanted, found, *pairs)
    cells = len(known) * len(names)

    def count(events: Any, chosen: np.ndarray) -> np.ndarray:
        place = events.file[chosen] * len(names) + events.label[chosen]
        return np.bincount(place, minlength=cells).reshape(len(known), len(names))

    return Counts(
        known,
        names,
        count(wanted, match.hit),
        count(wanted, ~match.hit),
        count(found, ~match.right),
        np.bincount(wanted.file[match.swapped], minlength=len(known)),
    )
