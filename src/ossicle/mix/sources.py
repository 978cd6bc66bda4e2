"""What soundscapes are made of: foreground clips with their stretches, backgrounds, rooms.

Each source is read once to find its stretches and its checksum; samples that are needed again stay
in memory up to a limit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ossicle import audio
from ossicle.datasets.clips import Clips, file_checksum
from ossicle.datasets.patterns import relative_paths
from ossicle.errors import AudioError, DataError
from ossicle.mix.active import active_stretches
from ossicle.mix.parts import Span
from ossicle.mix.settings import MixSettings

_KEPT_BYTES = 256 << 20


class Clip(NamedTuple):
    """A foreground clip.

    Attributes:
        path: its file.
        name: the file relative to the foreground's folder.
        onset, offset: the part of the file that is the clip (s); None: from its start, to its end.
        labels: its classes.
        group: what it must stay together with.
        sha256: of the file.
        stretches: what sounds in it, as samples at the soundscapes' rate: (first, after the last).
    """

    path: str
    name: str
    onset: float | None
    offset: float | None
    labels: tuple[str, ...]
    group: str
    sha256: str
    stretches: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sources:
    """What one part's soundscapes are made of.

    Attributes:
        clips: foreground clips, each with a stretch or more.
        backgrounds: spans of recordings; empty: noise is made.
        rooms: impulse responses; empty: rooms are made up.
    """

    clips: tuple[Clip, ...]
    backgrounds: tuple[Span, ...] = ()
    rooms: tuple[str, ...] = ()
    by_class: dict[str, dict[str, list[int]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_class: dict[str, dict[str, list[int]]] = {}
        for number, clip in enumerate(self.clips):
            for label in clip.labels:
                by_class.setdefault(label, {}).setdefault(clip.group, []).append(number)
        object.__setattr__(self, "by_class", dict(sorted(by_class.items())))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have clips, sorted."""
        return tuple(self.by_class)


class Reader:
    """Reads clips and stretches of files at one rate; the last ones read stay in memory.

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._kept: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def clip(self, path: str, onset: float | None, offset: float | None) -> np.ndarray:
        """(N,) float32, not to be changed: the clip without its constant part.

        Raises:
            AudioError: it cannot be read.
        """
        key = (path, onset, offset)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        samples = self.span(path, onset, offset)
        # A constant would count as sound, and thump at every fade.
        samples = samples - samples.mean(dtype=np.float64).astype(np.float32)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = samples
                self._bytes += samples.nbytes
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return samples

    def span(self, path: str, onset: float | None, offset: float | None) -> np.ndarray:
        """(N,) float32: a stretch of a file. Raises AudioError where it cannot be read."""
        loaded = audio.load(path, sample_rate=self.sample_rate, onset=onset, offset=offset)
        return loaded.samples[0]


def read_foreground(
    clips: Clips,
    reader: Reader,
    settings: MixSettings,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Clip | None], list[str]]:
    """Every clip's stretches and checksum.

    Args:
        clips: the foreground.
        reader: at the settings' rate.
        settings: what silence is, and which events are too short.
        workers: threads.
        progress: called with (clips done, all clips).

    Returns:
        A clip for each row, None for those that cannot be used, and notes that name these.
    """
    table = clips.table
    names = relative_paths(list(table["path"]), clips.root)
    sums: dict[str, str] = {}
    notes: list[str] = []

    def look(row: int) -> tuple[tuple[tuple[int, int], ...], str, str]:
        entry = table.iloc[row]
        onset, offset = _seconds(entry["onset"]), _seconds(entry["offset"])
        try:
            samples = reader.clip(entry["path"], onset, offset)
        except AudioError as error:
            return (), "", error.reason
        found = active_stretches(
            samples,
            settings.sample_rate,
            threshold_db=settings.threshold_db,
            gap_s=settings.gap_s,
            min_s=settings.min_event_s * settings.speed[1],
        )
        reason = "" if found else f"no sound of {settings.min_event_s:g} s or more in it"
        return tuple(found), file_checksum(entry["path"]), reason

    done: list[Clip | None] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for row, (stretches, sha256, reason) in enumerate(pool.map(look, range(len(table)))):
            entry = table.iloc[row]
            sums[entry["path"]] = sha256
            if reason:
                notes.append(f"left out {names[row]}: {reason}")
                done.append(None)
            else:
                label = entry["label"]
                labels = (label,) if isinstance(label, str) else tuple(label)
                onset, offset = _seconds(entry["onset"]), _seconds(entry["offset"])
                done.append(
                    Clip(
                        *(entry["path"], names[row], onset, offset, labels),
                        *(entry["group"], sha256, stretches),
                    )
                )
            if progress is not None:
                progress(row + 1, len(table))
    return done, notes


def without_copies(
    parts: dict[str, Iterable[Clip]], order: Sequence[str] = ("test", "valid", "train")
) -> tuple[dict[str, list[Clip]], list[str]]:
    """The same bytes under several names stay in one part only: in the first of `order`."""
    seen: dict[str, str] = {}
    kept: dict[str, list[Clip]] = {}
    notes = []
    for part in [name for name in order if name in parts]:
        kept[part] = []
        for clip in parts[part]:
            first = seen.setdefault(clip.sha256, part)
            if first == part:
                kept[part].append(clip)
            else:
                notes.append(f"left out {clip.name} of {part}: the same file is in {first}")
    return {part: kept[part] for part in parts}, notes


def read_durations(paths: Sequence[str]) -> dict[str, float]:
    """The length (s) of each background; the same bytes once.

    Raises:
        AudioError: a file cannot be read.
        DataError: one is shorter than 0.1 s.
    """
    durations: dict[str, float] = {}
    seen = set()
    for path in paths:
        checksum = file_checksum(path)
        if checksum in seen:
            continue
        seen.add(checksum)
        durations[path] = audio.info(path).duration_s
        if durations[path] < 0.1:
            raise DataError(f"{path}: too short for a background ({durations[path]:.3f} s)")
    return durations


def _seconds(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def audio_files(paths: Sequence[Path]) -> list[str]:
    """All recordings among files, folders and manifests. Raises DataError where there are none."""
    from ossicle.datasets.unlabelled import unlabelled_clips

    return list(dict.fromkeys(unlabelled_clips(list(paths)).table["path"]))
