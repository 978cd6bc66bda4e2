"""Events: which class sounds from when to when in which file; the table that stations exchange.

T frames, K classes; times are seconds from the start of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.errors import DataError

COLUMNS = ("file", "onset", "offset", "label", "score")


class FrameScores(NamedTuple):
    """Scores of all classes over a stretch of sound that is cut into frames.

    Attributes:
        scores: (K, T) float32 in [0, 1].
        edges: (T + 1,) float64 seconds, ascending: frame t lasts from edges[t] to edges[t + 1].
    """

    scores: np.ndarray
    edges: np.ndarray


def event_table(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]], source: str = "events"
) -> pd.DataFrame:
    """Events, checked and in order.

    Args:
        rows: with file, onset, offset (s), label, and score where there is one; other columns
            stay, after these.
        source: what messages name: the file that the rows come from.

    Returns:
        A table with ``COLUMNS`` first, file and label as str, onset, offset and score float64
        (score NaN where none is known); the files in the order of their first row, the events of
        each by onset, offset, label; the index from 0.

    Raises:
        DataError: a column is missing, or a row is no event: times that are no numbers or
            negative, an offset before its onset, an empty label. An event may last 0 s.
    """
    frame = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        frame = frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns])))
    missing = [name for name in COLUMNS[:4] if name not in frame]
    if missing:
        raise DataError(f"{source}: has no column {missing[0]} (it has {', '.join(frame)})")
    if "score" not in frame:
        frame["score"] = np.nan
    for name in ("onset", "offset", "score"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
    frame["file"] = frame["file"].astype(object).map(str)
    for position, row in enumerate(frame[list(COLUMNS)].itertuples(index=False), start=1):
        if not (np.isfinite(row.onset) and 0 <= row.onset <= row.offset < np.inf):
            raise DataError(
                f"{source}: row {position}: onset {row.onset} and offset {row.offset} must be "
                "numbers of seconds, 0 <= onset <= offset"
            )
        if not isinstance(row.label, str) or not row.label.strip():
            raise DataError(f"{source}: row {position}: the event has no label")
    frame["label"] = frame["label"].astype(object).map(str)
    order = {name: i for i, name in enumerate(dict.fromkeys(frame["file"]))}
    frame = frame.assign(_order=frame["file"].map(order).astype(float))
    frame = frame.sort_values(["_order", "onset", "offset", "label"], kind="stable")
    rest = [name for name in frame if name not in (*COLUMNS, "_order")]
    return frame[[*COLUMNS, *rest]].reset_index(drop=True)
