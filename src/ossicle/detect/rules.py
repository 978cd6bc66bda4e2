"""How frame scores of a class become events: one rule a class, as data that bundles can keep.

A rule is read by `ossicle.detect.decoder`, which says exactly what each of its numbers does.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias

from ossicle.errors import DataError

SCORES = ("max", "mean")
# The most seconds of each setting. A median is the dearest: its window is held in memory.
LIMITS = {"median_s": 60.0, "min_duration_s": 3600.0, "min_gap_s": 3600.0}
Override: TypeAlias = float | str | Mapping[str, float | None] | None


class ClassRule(NamedTuple):
    """How the scores of one class become events.

    Attributes:
        threshold: an event holds a frame whose (filtered) score is at least this, in [0, 1].
        low: it goes on, both ways, for as long as the score is at least this; at most
            ``threshold``, which None stands for.
        median_s: length in seconds of the median filter over the scores; 0: none. At most 60.
        min_duration_s: shorter events are dropped, after gaps are closed; at most 3600.
        min_gap_s: shorter gaps between two events are closed; at most 3600.
    """

    threshold: float = 0.5
    low: float | None = None
    median_s: float = 0.0
    min_duration_s: float = 0.0
    min_gap_s: float = 0.0


@dataclass(frozen=True)
class Rules:
    """The rules of all classes.

    Args:
        by_class: class -> rule, in the order of the classes.
        score: of an event: "max", the greatest score among its frames, or "mean", their average
            over time.

    Raises:
        DataError: a value is no number or out of its range, or the score is neither.
    """

    by_class: Mapping[str, ClassRule]
    score: str = "max"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise DataError(
                f"detection rules: the score of an event is {_shown(self.score)}: "
                f"choose {' or '.join(SCORES)}"
            )
        checked = {label: _checked(label, rule) for label, rule in self.by_class.items()}
        object.__setattr__(self, "by_class", checked)

    @classmethod
    def default(cls, classes: Sequence[str], *, score: str = "max", **values: Any) -> Rules:
        """The same rule for each class: threshold 0.5 and nothing else, but for ``values``.

        Args:
            classes: names.
            score: as in `Rules`.
            values: fields of `ClassRule`.
        """
        return cls(dict.fromkeys(classes, ClassRule(**values)), score)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self.by_class)

    def __getitem__(self, label: str) -> ClassRule:
        """The rule of a class; DataError where there is none."""
        try:
            return self.by_class[label]
        except KeyError:
            raise DataError(f"detection rules: there is none for {_shown(label)}") from None

    def with_overrides(
        self,
        *,
        threshold: Override = None,
        low: Override = None,
        median_s: Override = None,
        min_duration_s: Override = None,
        min_gap_s: Override = None,
        score: str | None = None,
    ) -> Rules:
        """These rules with other values, as a command line gives them.

        Each is a number for all classes, a mapping from class to number, or a text that
        `parse_override` reads; None leaves it. A class whose threshold changes, and whose ``low``
        is not given, keeps the ratio of the two. ``low`` may be "none": as the threshold.

        Raises:
            DataError: a text cannot be read, names no class, or a value is out of its range.
        """
        given = {
            name: self._spread(name, value)
            for name, value in (
                ("threshold", threshold),
                ("low", low),
                ("median_s", median_s),
                ("min_duration_s", min_duration_s),
                ("min_gap_s", min_gap_s),
            )
            if value is not None
        }
        changed = {}
        for label, rule in self.by_class.items():
            values = {name: by[label] for name, by in given.items() if label in by}
            if "threshold" in values and "low" not in values and rule.low is not None:
                share = rule.low / rule.threshold if rule.threshold else 1.0
                values["low"] = min(share, 1.0) * _number(label, "threshold", values["threshold"])
            changed[label] = rule._replace(**values)
        return Rules(changed, self.score if score is None else score)

    def _spread(self, name: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, str):
            return parse_override(value, self.classes, name)
        if isinstance(value, Mapping):
            for label in value:
                _known(label, self.classes, name)
            return value
        return dict.fromkeys(self.classes, value)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers; `from_json` reads them back to equal rules."""
        return {
            "score": self.score,
            "classes": {label: rule._asdict() for label, rule in self.by_class.items()},
        }

    @classmethod
    def from_json(cls, value: Any, classes: Sequence[str]) -> Rules:
        """What `to_json` gave, trusted not at all.

        Args:
            value: as parsed from JSON.
            classes: the names that there must be rules for, no more and no fewer; the rules are
                put in their order.

        Raises:
            DataError: anything is missing, too much, of another type or out of its range.
        """
        top = _object(value, ("score", "classes"), "detection rules")
        rules = top["classes"]
        if not isinstance(rules, dict):
            raise DataError("detection rules: 'classes' is no object")
        for label in classes:
            if label not in rules:
                raise DataError(f"detection rules: there is none for {_shown(label)}")
        if len(rules) != len(set(classes)):
            extra = next(label for label in rules if label not in set(classes))
            raise DataError(f"detection rules: {_shown(extra)} is no class of the model")
        checked = {}
        for label in classes:
            where = f"detection rules: {_shown(label)}"
            checked[label] = ClassRule(**_object(rules[label], ClassRule._fields, where))
        return cls(checked, top["score"])


def parse_override(text: str, classes: Sequence[str], name: str) -> dict[str, float | None]:
    """A setting typed by a user: class -> value.

    "0.3" is for all classes, "dog=0.3,cat=0.6" for these; "0.5,dog=0.3" is 0.5 for all but dog.
    The last "=" of a part separates name and value, so names may hold "=". A name with a comma or
    a double quote stands in double quotes, and a double quote in it is written twice, as in CSV:
    ``"Bow-wow, dog"=0.3``. The value "none" is None.

    Args:
        text: what was typed.
        classes: the names that there are.
        name: of the setting, for messages.

    Raises:
        DataError: a part has no number, names no class, or a class comes twice.
    """
    values: dict[str, float | None] = {}
    named: set[str] = set()
    try:
        parts = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise DataError(f"{name}: {_shown(text)} cannot be read: {error}") from None
    for position, part in enumerate(parts):
        label, equals, number = part.rpartition("=")
        value = _typed(number.strip(), part, name)
        if not equals:
            if position:
                raise DataError(
                    f"{name}: {_shown(part)} has no class: write CLASS=NUMBER, a number for all "
                    "classes stands first, and a class with a comma in its name in double quotes"
                )
            values = dict.fromkeys(classes, value)
            continue
        label = label if label in classes else label.strip()
        _known(label, classes, name)
        if label in named:
            raise DataError(f"{name}: {_shown(label)} is given twice")
        named.add(label)
        values[label] = value
    if not values:
        raise DataError(f"{name}: give a number, or CLASS=NUMBER,CLASS=NUMBER")
    return values


def _typed(number: str, part: str, name: str) -> float | None:
    if number.lower() == "none" and name == "low":
        return None
    try:
        return float(number)
    except ValueError:
        raise DataError(
            f"{name}: {_shown(part)} is no number and no CLASS=NUMBER (a class with a comma in "
            "its name stands in double quotes)"
        ) from None


def _known(label: Any, classes: Sequence[str], name: str) -> None:
    if label in classes:
        return
    close = get_close_matches(str(label), classes, 1)
    hint = f"; is {_shown(close[0])} meant?" if close else ""
    raise DataError(f"{name}: there is no class {_shown(label)}{hint}")


def _checked(label: Any, rule: Any) -> ClassRule:
    if not isinstance(label, str):
        raise DataError(f"detection rules: {_shown(label)} is no name of a class")
    threshold = _number(label, "threshold", rule.threshold)
    low = None if rule.low is None else _number(label, "low", rule.low)
    if low is not None and low > threshold:
        raise DataError(
            f"detection rules: {_shown(label)}: low is {low:g}, which is above the threshold, "
            f"{threshold:g}"
        )
    seconds = (_number(label, name, getattr(rule, name)) for name in ClassRule._fields[2:])
    return ClassRule(threshold, low, *seconds)


def _number(label: str, name: str, value: Any) -> float:
    most = LIMITS.get(name, 1.0)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    # Not math.isfinite, which cannot take whole numbers of any length; NaN fails both.
    if not good or not 0 <= value <= most:
        raise DataError(
            f"detection rules: {_shown(label)}: {name} is {_shown(value)}: it must be a number "
            f"from 0 to {most:g}"
        )
    return math.fabs(value)  # no -0.0


def _object(value: Any, fields: Sequence[str], where: str) -> dict[str, Any]:
    """The value, if it is an object with these fields and no others."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: {_shown(value)} is no object")
    for name in fields:
        if name not in value:
            raise DataError(f"{where}: {name!r} is missing")
    if len(value) != len(fields):
        extra = next(name for name in value if name not in fields)
        raise DataError(f"{where}: {_shown(extra)} is not known")
    return value


def _shown(value: Any) -> str:
    """A stranger's value in one short line."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "a huge number"
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
