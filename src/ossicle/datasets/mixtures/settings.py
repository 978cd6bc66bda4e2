"""What can be chosen about mixtures, checked, ready for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ossicle.errors import DataError

PARTS = ("train", "valid", "test", "unseen")
# Names of the files of a mixture's folder.
MIXTURE = "mixture"
# More at once than anybody speaks.
MAX_SOURCES = 16


@dataclass(frozen=True)
class MixtureSettings:
    """How mixtures are made; how many of them is no part of it.

    Attributes:
        n_sources: S, where there is one table; several tables give one source each.
        by: what the sources of one mixture differ in, where there is one table: "group", "label",
            another column, or a "/regex/" on the path.
        level_db: lowest and highest level of each later source against the first (dB).
        duration_s: length of a mixture (s); None: as `length` says.
        length: "min", cut to the shortest source, or "max", zeros up to the longest.
        join: whether clips of one source follow each other until `duration_s` is reached.
        min_duration_s: shorter clips are left out (s).
        active_db: what is softer than a clip's loudest frame by more than this is silence (dB).
        sample_rate: of the files (Hz).
        disjoint: what no two of train, valid and test share: "groups", "clips" (then only files),
            or a column of the tables.
        unseen: which groups are kept for the part "unseen" alone: a share of all, or their names.
        use_split: whether the tables' own split is used; a part that it lacks is drawn from its
            training part.
        valid_folds, test_folds: values of the tables' fold for these parts; train has the others.
        shares: of train, valid and test, where parts are drawn.
        suffix: ".flac" or ".wav".
        seed: all randomness stems from it.

    Raises:
        DataError: a setting is out of range.
    """

    n_sources: int = 2
    by: str = "group"
    level_db: tuple[float, float] = (-5.0, 5.0)
    duration_s: float | None = None
    length: str = "min"
    join: bool = False
    min_duration_s: float = 0.1
    active_db: float = 30.0
    sample_rate: int = 16000
    disjoint: str = "groups"
    unseen: float | tuple[str, ...] = 0.0
    use_split: bool = False
    valid_folds: tuple[str, ...] = ()
    test_folds: tuple[str, ...] = ()
    shares: tuple[float, float, float] = (3.0, 1.0, 1.0)
    suffix: str = ".flac"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("level_db", "shares", "unseen", "valid_folds", "test_folds"):
            value = getattr(self, name)
            if isinstance(value, str | list):
                value = (value,) if isinstance(value, str) else tuple(value)
                object.__setattr__(self, name, value)
        _number("number of sources", self.n_sources, 2, MAX_SOURCES)
        if len(self.level_db) != 2 or not self.level_db[0] <= self.level_db[1]:
            shown = ", ".join(f"{value:g}" for value in self.level_db)
            raise DataError(f"level {shown}: give two numbers, the lower first")
        for value in self.level_db:
            _number("level", value, -40, 40, "dB")
        if self.duration_s is not None:
            _number("duration", self.duration_s, 0.1, 3600, "s")
        if self.length not in ("min", "max"):
            raise DataError(f"length {self.length} is not known; use min or max")
        if self.join and self.duration_s is None:
            raise DataError("clips are joined until a duration is reached: give a duration too")
        _number("shortest clip", self.min_duration_s, 0.001, 3600, "s")
        _number("silence", self.active_db, 3, 120, "dB")
        _number("sample rate", self.sample_rate, 1000, 192000, "Hz")
        _number("seed", self.seed, 0, 2**32 - 1)
        if isinstance(self.unseen, float | int):
            _number("share of unseen groups", self.unseen, 0, 0.9)
        for share in self.shares:
            _number("share of a part", share, 0, 1e6)
        if len(self.shares) != 3 or not sum(self.shares) > 0:
            raise DataError("give three shares, of train, valid and test, such as 3,1,1")
        if self.suffix not in (".flac", ".wav"):
            raise DataError(f"files can be written as .flac or .wav, not {self.suffix}")
        if self.use_split and (self.valid_folds or self.test_folds):
            raise DataError("parts are either the tables' split or their folds, not both")
        both = sorted(set(self.valid_folds) & set(self.test_folds))
        if both:
            raise DataError(f"fold {both[0]} cannot be both for valid and for test")

    @property
    def size(self) -> int | None:
        """Samples of a mixture, N, where all are equally long."""
        return None if self.duration_s is None else round(self.duration_s * self.sample_rate)

    def to_json(self) -> dict[str, Any]:
        """Values by name, as JSON holds them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def _number(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise DataError(f"{name} {value:g}: choose {low:g} to {high:g} {unit}".rstrip())
