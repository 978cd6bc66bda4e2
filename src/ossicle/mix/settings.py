"""What can be chosen about soundscapes, checked, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ossicle.errors import DataError

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class MixSettings:
    """How soundscapes are made; how many of them is no part of it.

    Attributes:
        duration_s: length of a soundscape (s).
        sample_rate: of the files (Hz).
        events: fewest and most events in a soundscape that has any.
        empty: share of soundscapes without an event.
        snr_db: lowest and highest level of an event over the background in its own stretch (dB);
            see `ossicle.mix.render`.
        max_overlap: most classes that sound at one moment.
        cut_at_end: whether events may run past the soundscape's end, where they are then cut.
        gap_s: a clip is cut into several events at pauses longer than this (s); None: a clip
            is one event, from its first sound to its last.
        threshold_db: what is softer than a clip's loudest 50 ms by more than this is silence (dB).
        min_event_s: shorter events are not used (s).
        max_event_s: shortest and longest of what an event may last (s), drawn for each event;
            longer stretches are cut to it.
        fade_s: fade-in and fade-out at cuts (s).
        speed: slowest and fastest speed, pitch and all; 1, 1: as recorded.
        reverb: share of soundscapes whose events are put into a room.
        t60_s: shortest and longest reverberation time of made-up rooms (s).
        direct_db: lowest and highest energy of the direct sound over that of the tail (dB).
        level_db: lowest and highest root mean square of the background (dB of full scale).
        seed: all randomness stems from it.

    Raises:
        DataError: a setting is out of range.
    """

    duration_s: float = 10.0
    sample_rate: int = 16000
    events: tuple[int, int] = (1, 6)
    empty: float = 0.1
    snr_db: tuple[float, float] = (6.0, 24.0)
    max_overlap: int = 3
    cut_at_end: bool = False
    gap_s: float | None = 0.5
    threshold_db: float = 30.0
    min_event_s: float = 0.1
    max_event_s: tuple[float, float] = (1.0, 5.0)
    fade_s: float = 0.01
    speed: tuple[float, float] = (1.0, 1.0)
    reverb: float = 0.2
    t60_s: tuple[float, float] = (0.2, 0.8)
    direct_db: tuple[float, float] = (-3.0, 12.0)
    level_db: tuple[float, float] = (-55.0, -35.0)
    seed: int = 0

    def __post_init__(self) -> None:
        self._number("duration", self.duration_s, 0.1, 86400, "s")
        self._number("sample rate", self.sample_rate, 1000, 768000, "Hz")
        self._number("share of empty soundscapes", self.empty, 0, 1)
        self._number("share with reverberation", self.reverb, 0, 1)
        self._number("max overlap", self.max_overlap, 1, 1000, "classes")
        self._number("threshold", self.threshold_db, 3, 120, "dB")
        self._number("shortest event", self.min_event_s, 0.001, self.duration_s, "s")
        self._number("fade", self.fade_s, 0, 1, "s")
        self._number("seed", self.seed, 0, 2**32 - 1)
        if self.gap_s is not None:
            self._number("gap", self.gap_s, 0, math.inf, "s")
        self._pair("events", self.events, 1, 100000)
        self._pair("SNR", self.snr_db, -60, 100, "dB")
        self._pair("longest event", self.max_event_s, self.min_event_s, math.inf, "s")
        self._pair("speed", self.speed, 0.25, 4)
        self._pair("reverberation time", self.t60_s, 0.02, 20, "s")
        self._pair("direct sound", self.direct_db, -40, 60, "dB")
        self._pair("background level", self.level_db, -90, -3, "dB")

    @property
    def size(self) -> int:
        """Samples of a soundscape, N."""
        return round(self.duration_s * self.sample_rate)

    def samples(self, seconds: float) -> int:
        """Seconds as a number of samples."""
        return round(seconds * self.sample_rate)

    def to_json(self) -> dict[str, Any]:
        """Values by name, as JSON holds them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @staticmethod
    def _number(name: str, value: float, low: float, high: float, unit: str = "") -> None:
        if not (math.isfinite(value) and low <= value <= high):
            upper = f" to {high:g}" if math.isfinite(high) else ""
            raise DataError(f"{name} {value:g}: choose {low:g}{upper} {unit}".rstrip())

    def _pair(
        self, name: str, pair: Sequence[float], low: float, high: float, unit: str = ""
    ) -> None:
        if len(pair) != 2 or not pair[0] <= pair[1]:
            shown = ", ".join(f"{value:g}" for value in pair)
            raise DataError(f"{name} {shown}: give two numbers, the lower first")
        for value in pair:
            self._number(name, value, low, high, unit)
