"""The page of separations: recordings before and after, to see and to compare by ear.

One HTML file that opens offline. The parts:

* `separation_media`: levels, pictures and sounds of a recording.
* `separation_scores`: the table of systems, and the histogram of improvements.
* `separation.html`, with `style.html`, `separation_style.html` and `separation_script.html`.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from ossicle import record
from ossicle.errors import OssicleError
from ossicle.report.page import plain
from ossicle.report.separation_media import (
    EXCERPT_S,
    WHOLE_S,
    SeparationItem,
    link_to,
    seconds_read,
    views_of,
)
from ossicle.report.separation_scores import histograms, score_table
from ossicle.report.words import compact, duration

__all__ = ["SeparationItem", "write_separation_report"]

#: Recordings that the page shows; the rest is listed.
MOST_SHOWN = 40
MOST_LISTED = 2000
#: Seconds of sound that are read for pictures: two days.
MOST_READ_S = 200_000.0
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200)
_FAILURES = (OssicleError, OSError, ValueError)


def write_separation_report(
    path: str | Path,
    results: Sequence[SeparationItem],
    *,
    title: str,
    facts: Mapping[str, str],
    scores: pd.DataFrame | None = None,
    mixtures: pd.DataFrame | None = None,
    command: str = "",
    max_audio_bytes: int = 24_000_000,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page; it appears whole or not at all.

    Recordings up to 30 s are carried in the page whole; of a longer one it carries the 15 s in
    which most is heard of all sources at once, and plays the whole from the files themselves,
    which it links to relative to its own folder.

    Args:
        path: of the HTML file; its folder is made where it is missing.
        results: the recordings, in the order of the page.
        title: the page's heading.
        facts: what was used, name -> text, for the page's end.
        scores: a row a system, made of ``Scores.summary()``: see ``separation_scores.score_table``.
        mixtures: a row a mixture and system, ``Scores.per_mixture()``, for the histogram of
            improvements: see ``separation_scores.histograms``.
        command: how to do this again.
        max_audio_bytes: the most that sounds and pictures take in the page, as they stand in it
            (base64). The first recordings come first; others are listed with links to their files.
        progress: called with (recordings done, recordings in all).

    Returns:
        The path of the page.

    Raises:
        OssicleError: the page cannot be written.
    """
    path = Path(path)
    shown: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    media: list[list[dict[str, Any]]] = []
    room, carried, seconds = max_audio_bytes, 0, MOST_READ_S
    for number, item in enumerate(results):
        if len(shown) < MOST_SHOWN and room > 0:
            note = ""
            try:
                seconds -= seconds_read(item)
                views = views_of(item, path) if seconds > 0 else None
            except _FAILURES as error:
                note = f"cannot be shown: {getattr(error, 'reason', None) or error}"
                views = None
            size = 0 if views is None else _size(views)
            if views is not None and size <= room:
                room, carried = room - size, carried + size
                shown.append(_recording(item, views, len(shown)))
                media.append([_playing(view) for view in views])
            else:
                # What is carried is the head of the list.
                room = room if views is None else 0
                listed.append(_listed(item, path, note))
        else:
            listed.append(_listed(item, path, ""))
        if progress is not None:
            progress(number + 1, len(results))

    page = _template().render(
        title=title,
        verdict=_verdict(results),
        scores=None if scores is None else score_table(scores),
        histograms=None if mixtures is None else histograms(mixtures),
        shown=shown,
        listed=listed[:MOST_LISTED],
        n_unlisted=max(0, len(listed) - MOST_LISTED),
        facts=plain({str(key): value for key, value in facts.items()}),
        command=command,
        whole_s=f"{WHOLE_S:g}",
        excerpt_s=f"{EXCERPT_S:g}",
        has_links=any(len(views) > 1 for views in media),
        megabytes=f"{carried / 1e6:.1f}",
        most_megabytes=f"{max_audio_bytes / 1e6:.0f}",
        data=plain(media),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with record.replaced(path) as part:
            # A file name that is not UTF-8 is shown with "?".
            part.write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise OssicleError(f"{path}: the page cannot be written: {error.strerror}") from error
    return path


def _verdict(results: Sequence[SeparationItem]) -> dict[str, str]:
    names = list(dict.fromkeys(name for item in results for name in item.after))
    some = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
    n = len(results)
    return {"value": f"{n:,}", "meaning": f"recording{'' if n == 1 else 's'} taken apart: {some}"}


def _recording(item: SeparationItem, views: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """What the template draws of a recording."""
    first = views[0]
    rows = []
    for i, track in enumerate(first["tracks"]):
        rows.append(
            {
                "name": track["name"],
                "link": track["link"],
                "level": "" if i == 0 else level(track["level_db"]),
                "pictures": [
                    {"image": _text(view["tracks"][i]["image"]), "alt": view["tracks"][i]["alt"]}
                    for view in views
                ],
            }
        )
    return {
        "number": number,
        "name": str(record.json_safe(item.name)),
        "notes": [str(record.json_safe(note)) for note in item.notes],
        "length": duration(views[-1]["stop"] - views[-1]["start"]),
        "gain": "" if abs(item.gain_db) < 0.05 else f"{decibels(item.gain_db)} dB",
        "range_db": first["range_db"],
        "ticks": first["ticks"],
        "times": [times(view["start"], view["stop"]) for view in views],
        "rows": rows,
        "views": [
            {"name": _span(view) if len(views) > 1 else "", "whole": i > 0}
            for i, view in enumerate(views)
        ],
    }


def _playing(view: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs of a view."""
    return {
        "start": view["start"],
        "stop": view["stop"],
        "tracks": [
            {
                "sound": None if t["sound"] is None else _text(t["sound"]),
                "link": t["link"] if t["playable"] else None,
                "plain": t["plain"],
                "equal": t["equal"],
            }
            for t in view["tracks"]
        ],
    }


def _listed(item: SeparationItem, page: Path, note: str) -> dict[str, Any]:
    pairs = [("before", item.before), *item.after.items()]
    return {
        "name": str(record.json_safe(item.name)),
        "links": [(name, link_to(Path(file), page)) for name, file in pairs],
        "note": str(record.json_safe(note)),
    }


def times(start: float, stop: float) -> list[tuple[str, float, int]]:
    """Labels of a time axis at round numbers: (text, place from 0 to 1, shift in percent)."""
    length = max(stop - start, 1e-6)
    step = next((s for s in _STEPS_S if length / s <= 8), 86400 * math.ceil(length / 8 / 86400))
    found = []
    for n in range(math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9) + 1):
        at = min(1.0, (n * step - start) / length)
        text = f"{n * step:.3g} s" if stop < 60 else clock(round(n * step))
        # At the edges a label stays inside.
        found.append((text, at, 0 if at < 0.03 else 100 if at > 0.97 else 50))
    return found


def clock(seconds: int) -> str:
    """1:05, or 2:01:05."""
    minutes, hours = seconds // 60 % 60, seconds // 3600
    tail = f"{seconds % 60:02d}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def level(value: float | None) -> str:
    """How loud a track is beside the recording, as the page has it."""
    return "silent" if value is None else f"{decibels(value)} dB against the recording"


def decibels(value: float) -> str:
    """A level with its sign: −3.2, +0.4, 0.0."""
    text = f"{value:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def _span(view: Mapping[str, Any]) -> str:
    return f"{compact(view['start'])} to {compact(view['stop'])} s"


def _size(views: Sequence[Mapping[str, Any]]) -> int:
    contents = [t[key] for v in views for t in v["tracks"] for key in ("image", "sound") if t[key]]
    return sum(4 * -(-len(content) // 3) for content in contents)  # as base64


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # `tojson` itself makes the text safe inside a script element.
    settings = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = settings
    return environment.get_template("separation.html")
