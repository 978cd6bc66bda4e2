"""Rich Transcription Time Marked: lines of ten fields with spaces between, for any recordings.

    SPEAKER file channel onset duration <NA> <NA> label score <NA>

(NIST, RT-09 evaluation plan, appendix A.) A field holds no spaces there, so file names and labels
are written with "%20" for a space and "%25" for "%", as in web addresses, and read likewise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pandas as pd

from ossicle.datasets.strong.lines import (
    digits,
    is_number,
    minus,
    number,
    numbered,
    plus,
    read_text,
    whole,
    write_text,
)
from ossicle.datasets.strong.rows import LabelFile, Reading, make_row
from ossicle.errors import DataError

_ESCAPED = re.compile(r"[\s%\x00-\x1f\x7f]|^(?:<(?=NA>$)|;)")


def read(path: Path, reading: Reading) -> LabelFile:
    """Rows of the SPEAKER lines; other types of line are passed over and told.

    Raises:
        DataError: a SPEAKER line has too few fields, or no times.
    """
    found = LabelFile([])
    others: Counter[str] = Counter()
    for n, line in numbered(read_text(path, found.notes)):
        if line.lstrip().startswith(";;"):
            continue
        where, fields = f"{path}: line {n}", re.split(r"[ \t]+", line.strip(" \t"))
        if fields[0] != "SPEAKER":
            others[fields[0]] += 1
            continue
        if len(fields) < 8:
            raise DataError(f"{where}: has {len(fields)} fields; a SPEAKER line has ten")
        channel, begin, length = fields[2:5]
        onset, duration = number(begin, "onset", where), number(length, "duration", where)
        if not (math.isfinite(onset) and duration >= 0):
            raise DataError(f"{where}: onset {begin} and duration {length} must be seconds")
        score = fields[8] if len(fields) > 8 else "<NA>"
        row = make_row(
            reading,
            where,
            file="" if fields[1] == "<NA>" else unquote(fields[1]),
            onset=onset,
            offset=float(plus(begin, length)),
            label="" if fields[7] == "<NA>" else unquote(fields[7]),
            score=math.nan if score == "<NA>" else number(score, "score", where),
        )
        row["channel"] = channel
        found.rows.append(row)
    if all(row["channel"] in ("1", "<NA>") for row in found.rows):
        for row in found.rows:
            del row["channel"]
    for row in found.rows:
        if "channel" in row:
            row["channel"] = float(row["channel"]) if is_number(row["channel"]) else math.nan
    for name, count in sorted(others.items()):
        found.notes.append(f"{path}: {count} lines of type {name} passed over")
    return found


def write(events: pd.DataFrame, path: Path) -> None:
    """Writes a SPEAKER line for each event, `channel` 1 where there is none."""
    lines = []
    for event in events.to_dict("records"):
        channel = float(event.get("channel", math.nan))
        length = minus(digits(event["offset"]), digits(event["onset"]))
        lines.append(
            f"SPEAKER {_escape(event['file'])} {'1' if math.isnan(channel) else whole(channel)} "
            f"{digits(event['onset'])} {length} <NA> <NA> "
            f"{_escape(event['label'])} {digits(event['score']) or '<NA>'} <NA>\n"
        )
    write_text(path, "".join(lines))


def _escape(text: str) -> str:
    def percent(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode())

    return _ESCAPED.sub(percent, text)
