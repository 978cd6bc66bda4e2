"""What a soundscape holds, drawn from (seed, part, number) alone: more of them change none.

Times are samples at the settings' rate, so that a plan says exactly what is rendered.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.mix.settings import PARTS, MixSettings
from ossicle.mix.sources import Sources

# The kinds of random numbers; generators of different kinds are independent.
_SCAPE, _COUNT, _DECK, _EMPTY = range(1, 5)
_TRIES = 200
# Copies of each class in a pack that is shuffled: classes come about equally often, and one may
# come twice in a soundscape.
_COPIES = 8


@dataclass(frozen=True)
class EventPlan:
    """One event.

    Attributes:
        clip: which of the part's clips.
        name: that clip's file, relative to the foreground.
        labels: its classes.
        group: its group.
        start, stop: the stretch of the clip that sounds.
        onset, offset: where the event lies in the soundscape (what the labels say).
        speed: at which the stretch is played.
        snr_db: level over the background in [onset, offset) (dB).
        direct_db: of a made-up room (dB), else None.
        seed: of a made-up room.
    """

    clip: int
    name: str
    labels: tuple[str, ...]
    group: str
    start: int
    stop: int
    onset: int
    offset: int
    speed: float
    snr_db: float
    direct_db: float | None
    seed: int


@dataclass(frozen=True)
class ScapePlan:
    """One soundscape.

    Attributes:
        part: "train", "valid" or "test".
        number: from 0.
        size: samples, N.
        level_db: root mean square of the background (dB of full scale).
        background: which of the part's backgrounds, or None for noise.
        background_name: what tables call it, else "".
        place: where in that stretch it begins, from 0 to below 1.
        color: of noise: "pink" or "brown".
        seed: of the noise and its changes of level.
        t60_s: reverberation time of a made-up room (s), or None.
        room: which of the part's measured rooms, or None.
        room_name: its file's name, else "".
        events: by onset.
        left_out: events that were drawn and found no place under the settings' `max_overlap`.
    """

    part: str
    number: int
    size: int
    level_db: float
    background: int | None
    background_name: str
    place: float
    color: str
    seed: int
    t60_s: float | None
    room: int | None
    room_name: str
    events: tuple[EventPlan, ...]
    left_out: int

    @property
    def file(self) -> str:
        """The file's name below the output folder."""
        return f"{self.part}/soundscape_{self.number:05d}.wav"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value

    def checksum(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def draw_scapes(
    sources: Sources, settings: MixSettings, part: str, many: int
) -> Iterator[ScapePlan]:
    """The plans of the first `many` soundscapes: each what `draw_scape` gives for its number."""
    first = 0
    for number in range(many):
        yield draw_scape(sources, settings, part, number, first=first)
        first += _count(settings, part, number)


def draw_scape(
    sources: Sources,
    settings: MixSettings,
    part: str,
    number: int,
    *,
    first: int | None = None,
) -> ScapePlan:
    """The plan of one soundscape.

    Events come from a pack in which each class is as often as any other; a clip is drawn from its
    class by group first, so that groups of many clips are not heard more often.

    Args:
        sources: what the part's soundscapes are made of.
        settings: what can be chosen.
        part: "train", "valid" or "test".
        number: from 0.
        first: how many events the soundscapes before it are to have; None: counted.
    """
    draw = _generator(_SCAPE, settings, part, number)
    level_db = float(draw.uniform(*settings.level_db))
    background = None
    if sources.backgrounds:
        lengths = np.array([span.offset - span.onset for span in sources.backgrounds])
        background = int(draw.choice(len(lengths), p=lengths / lengths.sum()))
    place, color = float(draw.random()), ("pink", "brown")[int(draw.integers(2))]
    noise_seed = int(draw.integers(2**62))
    reverberant = draw.random() < settings.reverb
    t60_s = float(draw.uniform(*settings.t60_s))
    room = int(draw.integers(len(sources.rooms))) if sources.rooms and reverberant else None
    placed: list[EventPlan] = []
    wanted = _count(settings, part, number)
    if first is None:
        first = sum(_count(settings, part, before) for before in range(number))
    for position in range(first, first + wanted):
        label = _label(sources, settings, part, position)
        event = _event(sources, settings, draw, label)
        for _ in range(_TRIES):
            at = _placed(event, settings, draw)
            if _overlap([*placed, at], at) <= max(settings.max_overlap, len(at.labels)):
                placed.append(at)
                break
    made_up = reverberant and room is None
    if not made_up:
        placed = [replace(event, direct_db=None) for event in placed]
    return ScapePlan(
        part=part,
        number=number,
        size=settings.size,
        level_db=level_db,
        background=background,
        background_name="" if background is None else sources.backgrounds[background].name,
        place=place,
        color=color,
        seed=noise_seed,
        t60_s=t60_s if made_up else None,
        room=room,
        room_name="" if room is None else Path(sources.rooms[room]).name,
        events=tuple(sorted(placed, key=lambda e: (e.onset, e.offset, e.labels, e.name))),
        left_out=wanted - len(placed),
    )


def _generator(kind: int, settings: MixSettings, part: str, number: int) -> np.random.Generator:
    return np.random.default_rng([kind, settings.seed, PARTS.index(part), number])


def _count(settings: MixSettings, part: str, number: int) -> int:
    """How many events a soundscape is to have."""
    # The n-th multiple of the share, from a random start: of any run of soundscapes the share
    # without events is right to one.
    start = _generator(_EMPTY, settings, part, 0).random()
    share = settings.empty
    if np.floor(start + (number + 1) * share) > np.floor(start + number * share):
        return 0
    low, high = settings.events
    return int(_generator(_COUNT, settings, part, number).integers(low, high + 1))


def _label(sources: Sources, settings: MixSettings, part: str, position: int) -> str:
    """The class of the part's event of that position, counted over all its soundscapes."""
    pack = len(sources.classes) * _COPIES
    order = _generator(_DECK, settings, part, position // pack).permutation(pack)
    return sources.classes[int(order[position % pack]) % len(sources.classes)]


def _event(
    sources: Sources, settings: MixSettings, draw: np.random.Generator, label: str
) -> EventPlan:
    """An event without its place: at onset 0."""
    groups = sources.by_class[label]
    of_group = groups[list(groups)[int(draw.integers(len(groups)))]]
    number = of_group[int(draw.integers(len(of_group)))]
    clip = sources.clips[number]
    start, stop = clip.stretches[int(draw.integers(len(clip.stretches)))]
    low, high = settings.speed
    # Even in the logarithm; rounded, so that the plan's text is all there is to know.
    speed = round(float(np.exp(draw.uniform(np.log(low), np.log(high)))), 4)
    most = settings.samples(float(draw.uniform(*settings.max_event_s)))
    most = round(min(most, settings.size) * speed)
    where = float(draw.random())
    if stop - start > most:
        start += int(where * (stop - start - most + 1))
        stop = start + most
    length = min(max(1, round((stop - start) / speed)), settings.size)
    return EventPlan(
        clip=number,
        name=clip.name,
        labels=clip.labels,
        group=clip.group,
        start=start,
        stop=stop,
        onset=0,
        offset=length,
        speed=speed,
        snr_db=float(draw.uniform(*settings.snr_db)),
        direct_db=float(draw.uniform(*settings.direct_db)),
        seed=int(draw.integers(2**62)),
    )


def _placed(event: EventPlan, settings: MixSettings, draw: np.random.Generator) -> EventPlan:
    """The event at a random place; cut at the soundscape's end where that is asked for."""
    length = event.offset - event.onset
    room = settings.size - length
    if settings.cut_at_end:
        room = settings.size - min(length, max(1, settings.samples(settings.min_event_s)))
    onset = int(draw.integers(room + 1))
    return replace(event, onset=onset, offset=min(onset + length, settings.size))


def _overlap(events: list[EventPlan], event: EventPlan) -> int:
    """The most classes that sound at one moment of `event`."""
    near = [e for e in events if e.onset < event.offset and event.onset < e.offset]
    most = 0
    for moment in {max(e.onset, event.onset) for e in near}:
        sounding = {name for e in near if e.onset <= moment < e.offset for name in e.labels}
        most = max(most, len(sounding))
    return most


def label_rows(plan: ScapePlan, settings: MixSettings) -> list[dict[str, Any]]:
    """The plan's rows of the label table, sorted by onset, offset and label.

    Events of one class that overlap or touch are one row: its sources are joined with ";", its SNR
    is the highest. A soundscape without events is one row without onset, offset and label.
    """
    shared = {"file": plan.file, "split": plan.part, "group": plan.file.removesuffix(".wav")}
    merged: list[dict[str, Any]] = []
    by_label: dict[str, list[EventPlan]] = {}
    for event in plan.events:
        for label in event.labels:
            by_label.setdefault(label, []).append(event)
    for label, events in by_label.items():
        rows: list[list[EventPlan]] = []
        reached = -1
        for event in events:
            if event.onset <= reached:
                rows[-1].append(event)
            else:
                rows.append([event])
            reached = max(reached, event.offset)
        for row in rows:
            merged.append(
                {
                    "onset": round(row[0].onset / settings.sample_rate, 6),
                    "offset": round(max(e.offset for e in row) / settings.sample_rate, 6),
                    "label": label,
                    "snr_db": round(max(e.snr_db for e in row), 3),
                    "source": ";".join(dict.fromkeys(e.name for e in row)),
                    "source_group": ";".join(dict.fromkeys(e.group for e in row)),
                }
            )
    merged.sort(key=lambda row: (row["onset"], row["offset"], row["label"]))
    return [{**shared, **row} for row in merged or [{}]]


def most_at_once(plans: list[ScapePlan]) -> Counter[int]:
    """How many samples have 0, 1, 2, ... classes sounding."""
    tally: Counter[int] = Counter()
    for plan in plans:
        moments = sorted({0, plan.size, *(t for e in plan.events for t in (e.onset, e.offset))})
        for start, stop in pairwise(moments):
            names = {n for e in plan.events if e.onset <= start < e.offset for n in e.labels}
            tally[len(names)] += stop - start
    return tally
