"""Counts at all thresholds at once, from frame scores: what falls and rises at which score.

By collars as `collar` counts, by intersection as `intersection` and by segments as `segment`, at
every threshold at which anything changes; nothing is sampled (Ebbers, Haeb-Umbach & Serizel 2022,
"Threshold independent evaluation of sound event detection scores", ICASSP). `curves` and `psd_roc`
make scores of them. F recordings, K classes, D changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.events import FrameScores
from ossicle.metrics.events.changes import Changes, crossings, lives, matchings
from ossicle.metrics.events.coverage import Coverage
from ossicle.metrics.events.detections import Detections, all_detections, scored_files
from ossicle.metrics.events.intersection import coverage_of, crosses, is_relevant, pieces
from ossicle.metrics.events.matching import expand
from ossicle.metrics.events.segment import active_segments
from ossicle.metrics.events.tables import (
    MICRO,
    EventArrays,
    check_positive,
    check_share,
    class_names,
    event_arrays,
    file_durations,
    microseconds,
    share_of,
)


class AllThresholds(NamedTuple):
    """All changes of all recordings.

    Attributes:
        files: F names.
        classes: K names.
        changes: by group, score, falling.
        events: (F, K) number of events of the reference.
        seconds: (F, K) how long they last, s.
        lengths: (F,) durations of the recordings, s.
    """

    files: tuple[str, ...]
    classes: tuple[str, ...]
    changes: Changes
    events: np.ndarray
    seconds: np.ndarray
    lengths: np.ndarray


def collar_thresholds(
    scores: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    *,
    classes: Sequence[str],
    collar_s: float = 0.2,
    offset_share: float = 0.2,
    onset_only: bool = False,
) -> AllThresholds:
    """What `event_based` (optimal matching) counts, at every threshold.

    Args:
        scores: file -> scores (K, T) of all recordings, those without events too.
        reference: table with file, onset, offset (s), label.
        classes: K names, in the order of the scores' rows.
        collar_s, offset_share, onset_only: as for `event_based`.
    """
    names = class_names(classes)
    files = tuple(map(str, scores))
    collar = int(microseconds(check_positive("collar_s", collar_s, zero=True)))
    check_share("offset_share", offset_share)
    wanted = event_arrays(reference, files, names, "reference")
    group = wanted.file * len(names) + wanted.label
    order = np.lexsort((wanted.onset, group))
    wanted = EventArrays(*(column[order] for column in wanted))
    group = group[order]
    room = np.maximum(collar, share_of(wanted.offset - wanted.onset, offset_share))
    step = max((int(f.edges[-1] * MICRO) for f in scores.values()), default=0) + 1
    step = max(step, int(wanted.onset.max(initial=0))) + 2 * collar + 2
    key = group * step + wanted.onset
    parts = []
    for found in all_detections(scores, files, names):
        parts.append(lives(found.group, found.upper, found.lower))
        at = found.group * step + found.onset
        low = np.searchsorted(key, at - collar, side="left")
        high = np.searchsorted(key, at + collar, side="right")
        detection, event = expand(low, high)
        if not onset_only:
            near = np.abs(found.offset[detection] - wanted.offset[event]) <= room[event]
            detection, event = detection[near], event[near]
        event, score, change = matchings(
            detection, event, found.upper[detection], found.lower[detection]
        )
        parts.append(Changes.of(group[event], score, change, -change))
    lengths = [float(scores[name].edges[-1]) for name in scores]
    return _joined(files, names, parts, wanted, np.array(lengths))


def intersection_thresholds(
    scores: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float | None = None,
) -> AllThresholds:
    """What `intersection_based` counts, at every threshold.

    Args:
        scores: file -> scores (K, T); a recording of `durations` without scores is an error.
        reference: table with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings.
        classes: K names, in the order of the scores' rows.
        dtc, gtc, cttc: as for `intersection_based`; cttc None: cross-triggers are not counted.
    """
    names = class_names(classes)
    for name, value in (("dtc", dtc), ("gtc", gtc), ("cttc", 0 if cttc is None else cttc)):
        check_share(name, value)
    files, lengths = file_durations(durations)
    wanted = event_arrays(reference, files, names, "reference").lasting()
    size = (len(files), len(names))
    last = max((int(f.edges[-1] * MICRO) for f in scores.values()), default=0) + 1
    clock = EventArrays(*(np.array([last]) for _ in range(4)))
    cover = coverage_of(wanted, *size, clock)
    wanted = EventArrays(*(column[cover.order] for column in wanted))
    need = np.maximum(share_of(wanted.offset - wanted.onset, gtc), 1)
    group = wanted.file * size[1] + wanted.label
    sounds = np.bincount(group, minlength=size[0] * size[1]).reshape(size) > 0
    parts = []
    for found in all_detections(scores, files, names):
        relevant = is_relevant(cover, found.group, found.onset, found.offset, dtc)
        wrong = Detections(*(column[~relevant] for column in found))
        parts.append(lives(wrong.group, wrong.upper, wrong.lower))
        right = Detections(*(column[relevant] for column in found))
        detection, event, length = pieces(cover, right.group, right.onset, right.offset)
        event, score, change = crossings(
            event, right.upper[detection], right.lower[detection], length, need
        )
        parts.append(Changes.of(group[event], score, change, np.zeros_like(change)))
        if cttc is not None:
            parts += _crossed(cover, wrong, sounds, cttc)
    return _joined(files, names, parts, wanted, lengths / MICRO)


def segment_thresholds(
    scores: Mapping[str, FrameScores],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    classes: Sequence[str],
    segment_s: float = 1.0,
) -> AllThresholds:
    """What `segment_based` counts, at every threshold; an event is a segment of a class.

    A segment is detected if the highest score of the frames that reach into it is above the
    threshold; one into which none reaches never is.

    Args:
        scores: file -> scores (K, T); a recording of `durations` without scores is an error.
        reference: table with file, onset, offset (s), label.
        durations: file -> seconds, of all recordings.
        classes: K names, in the order of the scores' rows.
        segment_s: length of a segment, s.
    """
    names = class_names(classes)
    files, lengths = file_durations(durations)
    width = max(int(microseconds(check_positive("segment_s", segment_s))), 1)
    wanted = event_arrays(reference, files, names, "reference")
    numbers = -(-lengths // width)
    borders = np.searchsorted(wanted.file, np.arange(len(files) + 1))
    none = np.zeros(1, dtype=np.int64)
    parts, events = [], np.zeros((len(files), len(names)), dtype=np.int64)
    for position, values, edges in scored_files(scores, files, len(names)):
        own = EventArrays(*(c[slice(*borders[position : position + 2])] for c in wanted))
        number = numbers[position : position + 1]
        active = active_segments(own._replace(file=own.file * 0), number, none, width, len(names))
        events[position] = active.sum(axis=0)
        start = np.arange(number[0]) * width
        first = np.maximum(np.searchsorted(edges, start, side="right") - 1, 0)
        last = np.searchsorted(edges[:-1], start + width, side="left")
        heard = np.flatnonzero(last > first)
        # Each run of frames first..last - 1 may begin with the frame that the one before ends with.
        runs = np.stack([first[heard], last[heard]], axis=1).ravel()
        padded = np.pad(values, ((0, 0), (0, 1)), constant_values=-np.inf)
        highest = np.maximum.reduceat(padded, runs, axis=1)[:, ::2].T.astype(np.float64)
        hits = active[heard].ravel().astype(np.int64)
        label = np.tile(np.arange(len(names)), len(heard))
        group = position * len(names) + label
        parts.append(Changes.of(group, highest.ravel(), hits, 1 - hits))
    found = _joined(files, names, parts, wanted, lengths / MICRO)
    return found._replace(events=events, seconds=events * (width / MICRO))


def _crossed(cover: Coverage, wrong: Detections, sounds: np.ndarray, cttc: float) -> list[Changes]:
    """The changes of the cross-triggers with each class."""
    parts = []
    file, label = np.divmod(wrong.group, sounds.shape[1])
    for other in range(sounds.shape[1]):
        asked = np.flatnonzero(sounds[file, other] & (label != other))
        groups = file[asked] * sounds.shape[1] + other
        met = asked[crosses(cover, groups, wrong.onset[asked], wrong.offset[asked], cttc)]
        parts.append(lives(wrong.group[met], wrong.upper[met], wrong.lower[met], other))
    return parts


def _joined(
    files: tuple[str, ...],
    classes: tuple[str, ...],
    parts: list[Changes],
    wanted: EventArrays,
    lengths: np.ndarray,
) -> AllThresholds:
    """All parts as one, and what the reference holds."""
    size = (len(files), len(classes))
    place = wanted.file * size[1] + wanted.label
    cells = size[0] * size[1]
    nothing = np.zeros(0)
    parts = [*parts, Changes.of(nothing, nothing, nothing, nothing)]
    whole = Changes(*(np.concatenate(c) for c in zip(*parts, strict=True)))
    return AllThresholds(
        files,
        classes,
        whole,
        np.bincount(place, minlength=cells).reshape(size),
        np.bincount(place, (wanted.offset - wanted.onset) / MICRO, minlength=cells).reshape(size),
        lengths,
    )
