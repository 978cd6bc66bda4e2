"""The sounds and pictures that a page of detections carries: of which events, in what order.

A short recording is carried whole; of a long one excerpts, an event with some sound around it,
and one picture of all of it. K classes, T frames, P points of a curve, time last.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.errors import OssicleError
from ossicle.events import FrameScores
from ossicle.record import json_safe
from ossicle.report.clips import encode_sound
from ossicle.report.detection_spectrogram import columns_of, read_spectrogram, webp
from ossicle.report.detection_tracks import envelope

WHOLE_S = 30.0
EVENT_S = 10.0
AROUND_S = 1.5
# More than a person goes through.
MOST_EXCERPTS = 400
MOST_OVERVIEWS = 24
#: Seconds of sound that are read for the pictures of whole recordings: a day and a bit.
OVERVIEW_S = 100_000.0
_PICTURE, _PICTURE_BYTES = (480, 128), 14_000
_OVERVIEW, _OVERVIEW_BYTES = (960, 128), 24_000
# Of the budget; a page is for listening.
_OVERVIEW_SHARE = 0.2
_POINTS = 320
_MOST_CURVES = 12, 30

_FAILURES = (OssicleError, OSError, ValueError)


def wanted(table: pd.DataFrame) -> list[int]:
    """The rows of events to hear, the most wanted first.

    With verdicts: errors before hits, and of each class one false alarm and one missed event before
    the second of any; the surest false alarms, the longest missed events, the least sure hits.
    Without: of each class the surest, the least sure, the second surest and so on.

    Args:
        table: onset, offset (s), label, score (NaN where unknown) and kind: "found", or "hit",
            "alarm", "miss"; rows of other kinds are never wanted. The index is what is returned.
    """
    parts = []
    for kind, tier in (("found", 0), ("alarm", 0), ("miss", 0), ("hit", 1)):
        some = table[table["kind"] == kind]
        score = some["score"].fillna(0.0)
        if kind == "miss":
            key = (some["offset"] - some["onset"]).rename("key")
        else:
            key = (-score if kind == "hit" else score).rename("key")
        order = some.assign(key=key, tier=tier).sort_values("key", ascending=False, kind="stable")
        rank = order.groupby("label", sort=False).cumcount()
        if kind == "found":
            size = order.groupby("label", sort=False)["label"].transform("size")
            # 0, 2, 4 ... from the top and 1, 3, 5 ... from the bottom meet in the middle.
            rank = np.minimum(2 * rank, 2 * (size - 1 - rank) + 1)
        parts.append(order.assign(rank=rank))
    joined = pd.concat(parts).sort_values(["tier", "rank", "key"], ascending=[True, True, False])
    return [int(i) for i in joined.index]


class Carrier:
    """What is carried so far, within its bytes.

    Args:
        files: names of the recordings, as the events have them.
        paths: where they lie.
        durations: of the recordings, seconds.
        classes: K names.
        frames: scores by file, for curves.
        most_bytes: the most that sounds and pictures may take, as they stand in the page.
        sample_rate: pictures end at half of it, in Hz; None: at half of the file's own.

    Attributes:
        media: dicts with file (its number), start, stop (s), audio and image (base64), top_hz,
            curves ({class number: P bytes as base64, 255 for a score of 1}).
        notes: by file number, why it cannot be heard.
    """

    def __init__(
        self,
        files: Sequence[str],
        paths: Sequence[Path],
        durations: Mapping[str, float],
        *,
        classes: Sequence[str],
        frames: Mapping[str, FrameScores] | None,
        most_bytes: int,
        sample_rate: int | None,
    ) -> None:
        self.files, self.paths, self.durations = files, paths, durations
        self.classes, self.frames, self.sample_rate = classes, frames, sample_rate
        self.media: list[dict[str, Any]] = []
        self.notes: dict[int, str] = {}
        self.room = most_bytes
        self._of_file: dict[int, list[int]] = {}

    def overviews(self, order: Sequence[int]) -> dict[int, int]:
        """Pictures of whole recordings that are too long to be heard whole: file -> medium."""
        made: dict[int, int] = {}
        seconds, room = OVERVIEW_S, _OVERVIEW_SHARE * self.room
        for file in order:
            length = self.durations.get(self.files[file], 0.0)
            if length <= WHOLE_S or length > seconds or file in self.notes:
                continue
            if len(made) == MOST_OVERVIEWS:
                break
            seconds -= length
            try:
                picture = read_spectrogram(
                    self.paths[file], columns=_OVERVIEW[0], sample_rate=self.sample_rate
                )
            except _FAILURES as error:
                self._fail(file, error)
                continue
            medium = self._described(file, 0.0, float(picture.edges[-1]), picture.top_hz)
            medium.update(audio=None, image=_text(webp(picture, _OVERVIEW, _OVERVIEW_BYTES)))
            if (size := _size(medium)) > min(room, self.room):
                break
            room, self.room = room - size, self.room - size
            made[file] = len(self.media)
            self.media.append(medium)
        return made

    def excerpts(
        self,
        events: Sequence[tuple[int, float, float, int]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[int | None]:
        """For each event (file, onset, offset, class), in order of want, its medium or None.

        An event within an excerpt that is there already shares it. The first for which there is no
        room ends it, so that what is carried is the head of the list.
        """
        found: list[int | None] = [None] * len(events)
        made, full = 0, False
        for position, (file, onset, offset, label) in enumerate(events):
            found[position] = self._within(file, onset, offset)
            if found[position] is not None or full or file in self.notes:
                continue
            if progress is not None:
                progress(position, len(events))
            try:
                medium = self._excerpt(file, onset, offset, label)
            except _FAILURES as error:
                self._fail(file, error)
                continue
            full = _size(medium) > self.room or made == MOST_EXCERPTS
            if not full:
                self.room -= _size(medium)
                made += 1
                found[position] = len(self.media)
                self._of_file.setdefault(file, []).append(len(self.media))
                self.media.append(medium)
        if progress is not None:
            progress(len(events), len(events))
        return found

    def _within(self, file: int, onset: float, offset: float) -> int | None:
        length = self.durations.get(self.files[file], offset)
        low, high = max(0.0, onset - 0.25), min(length, offset + 0.25, onset + EVENT_S)
        for number in self._of_file.get(file, []):
            medium = self.media[number]
            if medium["start"] <= low + 1e-6 and high <= medium["stop"] + 1e-6:
                return number
        return None

    def _excerpt(self, file: int, onset: float, offset: float, label: int) -> dict[str, Any]:
        length = self.durations.get(self.files[file])
        if length is not None and length <= WHOLE_S:
            low, high = 0.0, None
        else:
            low = max(0.0, onset - AROUND_S)
            high = min(offset, onset + EVENT_S) + AROUND_S
        samples, rate = audio.load(self.paths[file], onset=low, offset=high)
        mono = samples[0]
        seconds = len(mono) / rate
        seen = min(rate, self.sample_rate or rate)
        picture = columns_of([audio.resample(mono, rate, seen)], seen, seconds, _PICTURE[0])
        # The sound begins at a sample, not at the time that was asked for.
        begin = round(low * rate) / rate
        medium = self._described(file, begin, begin + seconds, picture.top_hz, label)
        medium.update(
            audio=_text(encode_sound(mono, rate)),
            image=_text(webp(picture, _PICTURE, _PICTURE_BYTES)),
        )
        return medium

    def _described(
        self, file: int, start: float, stop: float, top_hz: float, label: int = -1
    ) -> dict[str, Any]:
        frames = None if self.frames is None else self.frames.get(self.files[file])
        curves: dict[str, str] = {}
        if frames is not None and len(frames.scores) == len(self.classes):
            points = envelope(frames, start, stop, _POINTS)
            highest = np.nan_to_num(points, nan=0.0).max(axis=1)
            # The class that it is carried for, then what else is likely there.
            highest[label] += 2.0 if label >= 0 else 0.0
            most = _MOST_CURVES[stop - start > WHOLE_S]
            for k in np.argsort(-highest, kind="stable")[:most]:
                levels = np.nan_to_num(np.clip(points[k], 0, 1), nan=0.0)
                curves[str(int(k))] = _text(np.rint(255 * levels).astype(np.uint8).tobytes())
        return {
            "file": file,
            "start": round(start, 4),
            "stop": round(stop, 4),
            "top_hz": top_hz,
            "curves": curves,
        }

    def _fail(self, file: int, error: Exception) -> None:
        # The reason is a line of text of its own; the name stands beside it.
        told = json_safe(getattr(error, "reason", None) or str(error))
        self.notes[file] = f"cannot be played: {told}"


def _size(medium: Mapping[str, Any]) -> int:
    curves = sum(map(len, medium["curves"].values()))
    return len(medium["audio"] or "") + len(medium["image"]) + curves


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
