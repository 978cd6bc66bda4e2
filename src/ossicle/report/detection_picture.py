"""A picture of what was detected: the spectrogram, and below it a lane of events for each class.

A lane holds the class's score with its threshold, the events found and, where known, the true
ones. A class is told by its lane's name; colours only repeat it.
"""

from __future__ import annotations

import unicodedata
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ossicle import audio
from ossicle.errors import DataError
from ossicle.events import FrameScores
from ossicle.record import replaced
from ossicle.report.detection_spectrogram import Spectrogram, read_spectrogram, shades
from ossicle.report.detection_tracks import clock, envelope, runs, thresholds_of, time_ticks

# Okabe and Ito's colours, which the colour-blind tell apart (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REFERENCE = "#333333"
WIDTHS = (400, 8000)
MOST_CLASSES = 30
_DPI = 100
_RIGHT, _TOP, _AXIS, _LEGEND = 16, 30, 26, 24
_SPECTROGRAM = 224
_GAP = 6
# More edges than this hide the sound they lie on.
_MOST_EDGES = 60
_INK, _SOFT, _LINE = "#1d2226", "#5b646b", "#d5d9d8"
_FONT, _SMALL = 8.5, 7.5
# More does not fit anywhere, and takes long to measure.
_MOST_LETTERS = 400


def draw_detections(
    path: str | Path,
    events: pd.DataFrame,
    *,
    classes: Sequence[str],
    out: str | Path,
    onset_s: float | None = None,
    offset_s: float | None = None,
    frames: FrameScores | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    reference: pd.DataFrame | None = None,
    width_px: int = 1400,
    sample_rate: int | None = None,
    title: str | None = None,
) -> Path:
    """Draw a stretch of a recording with its events as PNG, in constant memory at any length.

    A pixel column of the spectrogram, of the scores (their maximum) and of the events is the same
    stretch of time; an event is at least one column wide.

    Args:
        path: the recording.
        events: the events found in it, as ``ossicle.events.event_table`` gives them; `file` is
            not looked at.
        classes: the lanes, in order; labels of events that are not among them follow. Of more than
            30, those without events in the stretch are left out.
        out: a name that ends in .png; its folder is made.
        onset_s, offset_s: the stretch, in seconds; None is the file's start, its end.
        frames: scores (K, T) of the K classes, in [0, 1].
        thresholds: of the scores: for each class, or one for all.
        reference: the true events, like ``events``.
        width_px: width of the picture, 400 to 8000 pixels; the height follows from the lanes.
        sample_rate: show frequencies up to half of it only, in Hz; None: all the file has.
        title: above the picture; None is the file's name.

    Returns:
        The path of the picture.

    Raises:
        AudioError: the file cannot be read, or has nothing in the stretch.
        DataError: the stretch, the width, the name or the shape of the scores is not as above.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise DataError(f"{out}: a picture is written as .png")
    if not WIDTHS[0] <= width_px <= WIDTHS[1]:
        raise DataError(f"width_px is {width_px}: it must be {WIDTHS[0]} to {WIDTHS[1]}")
    if frames is not None and np.shape(frames.scores) != (len(classes), len(frames.edges) - 1):
        raise DataError(
            f"scores of shape {np.shape(frames.scores)} do not go with {len(classes)} classes and "
            f"{len(frames.edges)} edges"
        )
    length = audio.info(path).duration_s
    start, stop = onset_s or 0.0, length if offset_s is None else min(offset_s, length)
    if not 0 <= start < stop:
        raise DataError(f"{path}: has no stretch from {start:g} to {stop:g} s: it lasts {length:g}")
    names = lanes(classes, [events] if reference is None else [events, reference], start, stop)
    canvas = _Canvas(names, int(width_px), frames is not None, reference is not None)
    picture = read_spectrogram(
        path, start, stop, columns=canvas.columns, duration_s=length, sample_rate=sample_rate
    )
    heading = Path(path).name if title is None else title
    canvas.header(heading, f"{clock(start, 1, length)} to {clock(stop, 1, length)}")
    canvas.spectrogram(picture)
    curves = None if frames is None else envelope(frames, start, stop, canvas.columns)
    known = thresholds_of(thresholds, names)
    edges: list[int] = []
    for row, name in enumerate(names):
        if curves is not None and name in classes:
            canvas.curve(row, curves[list(classes).index(name)], known.get(name))
        some = events[events["label"] == name]
        found = runs(some["onset"], some["offset"], start, stop, canvas.columns)
        canvas.bars(row, found)
        edges += [int(x) for x in found.ravel()]
        if reference is not None:
            some = reference[reference["label"] == name]
            canvas.true_bars(row, runs(some["onset"], some["offset"], start, stop, canvas.columns))
    if len(edges) <= _MOST_EDGES:
        canvas.edges(edges)
    canvas.times(time_ticks(start, stop, max(2, canvas.columns // 90)), start, stop)
    canvas.legend(bool(known))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        canvas.figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None})
    return out


def lanes(
    classes: Sequence[str], tables: Sequence[pd.DataFrame], start_s: float, stop_s: float
) -> list[str]:
    """The classes to draw, in order: all, or of more than 30 those with an event in the stretch."""
    here: dict[str, None] = {}
    for table in tables:
        inside = (table["offset"] >= start_s) & (table["onset"] < stop_s)
        here.update(dict.fromkeys(table["label"][inside].astype(str)))
    names = list(dict.fromkeys([*classes, *sorted(here)]))
    if len(names) > MOST_CLASSES:
        names = [name for name in names if name in here] or names[:MOST_CLASSES]
    return names


class _Canvas:
    """The figure: the spectrogram's axes and the lanes' axes, one unit a pixel."""

    def __init__(
        self, names: Sequence[str], width: int, has_scores: bool, has_reference: bool
    ) -> None:
        self.has_scores, self.has_reference = has_scores, has_reference
        # The smaller lanes of many classes still hold a line of text.
        self.lane = (54 if len(names) <= 8 else 42 if len(names) <= 16 else 30) - (
            0 if has_scores else 14
        )
        if has_scores:
            self.bar = max(5, self.lane // 7)
        else:
            self.bar = self.lane // (3 if has_reference else 2)
        below = _AXIS + _LEGEND
        height = _TOP + _SPECTROGRAM + _GAP + self.lane * max(1, len(names)) + below
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        canvas = FigureCanvasAgg(self.figure)
        self._renderer: Any = canvas.get_renderer()
        self._width, self._height = width, height
        texts = [_plain(name) for name in names]
        room = max(64, width // 5)
        self.texts = [self._fitted(text, room, _FONT) for text in texts]
        self.left = 12 + max([46, *(round(self._length(t, _FONT)) for t in self.texts)])
        self.columns = width - self.left - _RIGHT
        self._sound = self._axes(below + height - below - _TOP - _SPECTROGRAM, _SPECTROGRAM)
        self._lanes = self._axes(below, self.lane * max(1, len(names)))
        for row, text in enumerate(self.texts):
            y = self._floor(row)
            if row % 2 == 0:
                ground = _box(0, y, self.columns, self.lane, "#f3f5f4")
                ground.set_zorder(0.1)
                self._lanes.add_patch(ground)
            self._lanes.text(
                *(-8, y + self.lane / 2, text),
                **_text(_FONT, "right", "center", _INK),
            )

    def header(self, title: str, when: str) -> None:
        """The file's name at the left, the stretch at the right."""
        room = self._width - self._length(when, _FONT) - self.left - _RIGHT - 24
        shown = self._fitted(_plain(title), room, 10)
        y = (self._height - 19) / self._height
        self.figure.text(self.left / self._width, y, shown, **_text(10, "left", "center", _INK))
        at = (self._width - _RIGHT) / self._width
        self.figure.text(at, y, when, **_text(_FONT, "right", "center", _SOFT))

    def spectrogram(self, picture: Spectrogram) -> None:
        """The sound, with its frequencies at the left."""
        pixels = matplotlib.colormaps["cividis"](shades(picture.decibels), bytes=True)
        extent = (0, self.columns, 0, _SPECTROGRAM)
        self._sound.imshow(
            pixels, origin="lower", aspect="auto", extent=extent, interpolation="nearest"
        )
        bands = np.arange(len(picture.frequencies)) + 0.5
        lowest = -14.0
        for hz in _round_frequencies(picture.top_hz):
            y = float(np.interp(hz, picture.frequencies, bands)) / len(bands) * _SPECTROGRAM
            if y - lowest < 20:
                continue
            lowest = y
            self._sound.plot([-4, 0], [y, y], color=_SOFT, linewidth=0.8, clip_on=False)
            text = f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz:g} Hz"
            self._sound.text(-8, y, text, **_text(_SMALL, "right", "center", _SOFT))

    def curve(self, row: int, scores: np.ndarray, threshold: float | None) -> None:
        """A class's score, 0 at the lane's floor and 1 near its top, with the threshold."""
        base, scale = self._curve_floor(row), self._curve_scale()
        x = np.repeat(np.arange(self.columns + 1), 2)[1:-1]
        y = np.repeat(base + scale * np.clip(scores, 0, 1), 2)
        colour = COLOURS[row % len(COLOURS)]
        self._lanes.fill_between(x, base, y, color=colour, alpha=0.22, linewidth=0)
        self._lanes.plot(x, y, color=colour, linewidth=0.9, solid_joinstyle="round")
        if threshold is not None:
            level = base + scale * min(1.0, max(0.0, threshold))
            self._lanes.plot(
                [0, self.columns], [level, level], color=_SOFT, linewidth=0.8, dashes=(4, 3)
            )

    def bars(self, row: int, spans: np.ndarray) -> None:
        """Events that were found."""
        y = self._floor(row) + 2 + (self.bar + 1 if self.has_reference else 0)
        if not self.has_scores and not self.has_reference:
            y = self._floor(row) + (self.lane - self.bar) / 2
        for first, end in spans:
            colour = COLOURS[row % len(COLOURS)]
            self._lanes.add_patch(_box(first, y, end - first, self.bar, colour))

    def true_bars(self, row: int, spans: np.ndarray) -> None:
        """Events of the reference, below those found."""
        for first, end in spans:
            self._lanes.add_patch(
                _box(first, self._floor(row) + 2, end - first, self.bar, REFERENCE)
            )

    def edges(self, columns: Sequence[int]) -> None:
        """Where events begin and end, as lines over the sound."""
        lines = [[(x, 0), (x, _SPECTROGRAM)] for x in sorted(set(columns))]
        self._sound.add_collection(
            LineCollection(
                lines, colors="white", alpha=0.55, linewidths=0.8, linestyles=[(0, (3, 3))]
            )
        )

    def times(self, ticks: Sequence[tuple[float, str]], start: float, stop: float) -> None:
        """The time axis, and a line through all lanes at each tick."""
        free = -np.inf
        for seconds, text in ticks:
            x = (seconds - start) / (stop - start) * self.columns
            # Above the lanes' ground, below what they hold.
            line = Line2D([x, x], [-4, self._top()], color=_LINE, linewidth=0.8, zorder=0.5)
            line.set_clip_on(False)
            self._lanes.add_line(line)
            half = self._length(text, _SMALL) / 2
            at = min(max(x, half - self.left), self.columns + _RIGHT - half - 3)
            if at - half < free + 8:
                continue
            free = at + half
            self._lanes.text(at, -8, text, **_text(_SMALL, "center", "top", _SOFT))

    def legend(self, has_threshold: bool) -> None:
        """What the marks mean, on one line below."""
        entries: list[tuple[str, str]] = [("bar", "found")]
        entries += [("true", "reference")] if self.has_reference else []
        entries += [("curve", "score")] if self.has_scores else []
        entries += [("threshold", "threshold")] if has_threshold and self.has_scores else []
        x, y = 0.0, -_AXIS - 12.0
        for kind, text in entries:
            if kind in ("bar", "true"):
                colour = COLOURS[0] if kind == "bar" else REFERENCE
                mark = _box(x, y - 4, 22, 7, colour)
                mark.set_clip_on(False)
                self._lanes.add_patch(mark)
            else:
                style: dict[str, Any] = {"color": COLOURS[0]} if kind == "curve" else {}
                style = style or {"color": _SOFT, "dashes": (4, 3)}
                self._lanes.plot([x, x + 22], [y, y], linewidth=1, clip_on=False, **style)
            self._lanes.text(x + 28, y, text, **_text(_SMALL, "left", "center", _SOFT))
            x += 28 + self._length(text, _SMALL) + 22

    def _floor(self, row: int) -> float:
        return self._top() - self.lane * (row + 1)

    def _top(self) -> float:
        return float(self.lane * max(1, len(self.texts)))

    def _curve_floor(self, row: int) -> float:
        return self._floor(row) + 4 + self.bar + (self.bar + 1 if self.has_reference else 0)

    def _curve_scale(self) -> float:
        return self.lane - (self._curve_floor(0) - self._floor(0)) - 3

    def _axes(self, bottom: float, height: float) -> Axes:
        wide, high = self._width, self._height
        axes = self.figure.add_axes(
            (self.left / wide, bottom / high, self.columns / wide, height / high)
        )
        axes.set(xlim=(0, self.columns), ylim=(0, height), autoscale_on=False)
        axes.set_axis_off()
        return axes

    def _length(self, text: str, size: float) -> float:
        font = FontProperties(family="DejaVu Sans", size=size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            return float(self._renderer.get_text_width_height_descent(text, font, False)[0])

    def _fitted(self, text: str, room: float, size: float) -> str:
        """The text, its end cut off where it is longer than so many pixels."""
        text = text[:_MOST_LETTERS]
        if self._length(text, size) <= room:
            return text
        fits = bisect_left(
            range(len(text)), True, key=lambda n: self._length(text[: n + 1] + "…", size) > room
        )
        return text[:fits].rstrip() + "…"


def _round_frequencies(top_hz: float) -> list[float]:
    steps = [m * 10**p for p in range(1, 6) for m in (1, 2, 5)]
    return [float(hz) for hz in steps if hz <= top_hz * 1.001]


def _box(x: float, y: float, width: float, height: float, colour: str) -> Rectangle:
    # Without smoothing an edge is where the column ends.
    return Rectangle((x, y), width, height, facecolor=colour, linewidth=0, antialiased=False)


def _text(size: float, across: str, up: str, colour: str) -> dict[str, Any]:
    return {
        "fontfamily": "DejaVu Sans",
        "fontsize": size,
        "ha": across,
        "va": up,
        "color": colour,
        # A dollar sign in a label is a dollar sign.
        "parse_math": False,
        "clip_on": False,
    }


def _plain(text: str) -> str:
    """On one line, without marks that turn the direction of text."""
    spaced = "".join(" " if unicodedata.category(c)[0] in "ZC" else c for c in str(text))
    return " ".join(spaced.split()) or "(no name)"
