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
    times = {
        name: pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
        for name in ("onset", "offset", "score")
    }
    files = [str(file) for file in frame["file"]]
    labels = list(frame["label"])
    onset, offset = times["onset"], times["offset"]
    with np.errstate(invalid="ignore"):
        good = (onset >= 0) & (onset <= offset) & (offset < np.inf)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"{source}: row {at + 1}: onset {onset[at]} and offset {offset[at]} must be numbers "
            "of seconds, 0 <= onset <= offset"
        )
    for position, label in enumerate(labels, start=1):
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{source}: row {position}: the event has no label")
    number = {name: i for i, name in enumerate(dict.fromkeys(files))}
    rows_in_order = sorted(
        range(len(files)), key=lambda i: (number[files[i]], onset[i], offset[i], labels[i])
    )
    order = np.array(rows_in_order, np.int64)
    columns = {
        "file": np.array(files, object)[order].tolist(),
        "onset": onset[order],
        "offset": offset[order],
        "label": np.array([str(label) for label in labels], object)[order].tolist(),
        "score": times["score"][order],
    }
    made = {name: _series(values) for name, values in columns.items()}
    rest = [name for name in frame if name not in COLUMNS]
    others = {name: frame[name].iloc[order].reset_index(drop=True) for name in rest}
    return pd.DataFrame({**made, **others})


def _series(values: Any) -> pd.Series:
    try:
        return pd.Series(values)
    except UnicodeEncodeError:
        # pandas' own strings refuse bytes of a file's name that are not UTF-8.
        return pd.Series(values, dtype=object)
