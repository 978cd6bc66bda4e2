"""What separated mixtures scored: tables, means with intervals, and differences of two systems."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.metrics import paired_difference
from ossicle.metrics.crossed_groups import crossed_interval
from ossicle.metrics.separation import LIMIT_DB
from ossicle.record import json_safe, replaced, write_json

# Of `metrics.separation.separation_scores`, dB. More is better but for the last.
SCORES = (
    "si_sdr",
    "si_sdr_improvement",
    "sdr",
    "sdr_improvement",
    "sir",
    "sar",
    "snr",
    "log_spectral_distance",
)


@dataclass
class Scores:
    """Scores of systems on one set of mixtures.

    Attributes:
        per_source: a row a system, mixture and source: columns system, mixture (path below the
            mixtures' folder), split, group, source (from 1), name, estimate (which of the system's
            sources, from 1, was taken for it), and `SCORES`, dB; NaN where a source is silent.
        systems: their names, in order.
        times_real_time: of each system on one thread, median over mixtures; NaN for those that
            are no systems.
        left_out: {"mixture", "system" ("" for all), "source" (0 for all), "reason"}.
        notes: for the user.
        members: group of a mixture -> the groups (speakers, recordings) that are mixed in it;
            intervals are over these. A group that is not named is one of its own.
    """

    per_source: pd.DataFrame
    systems: tuple[str, ...]
    times_real_time: dict[str, float]
    left_out: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def per_mixture(self, source: int | None = None) -> pd.DataFrame:
        """Means over the sources of each mixture: a row a system and mixture.

        Args:
            source: this one alone, from 1.

        Returns:
            Columns system, mixture, split, group and `SCORES`, dB; sorted by system in their order,
            then by mixture.

        Raises:
            DataError: there is no such source.
        """
        rows = self.per_source
        if source is not None:
            rows = rows[rows["source"] == source]
            if rows.empty:
                raise DataError(f"there is no source {source}: they are numbered from 1")
        keys = ["system", "mixture", "split", "group"]
        means = rows.groupby(keys, sort=False, as_index=False, dropna=False)[list(SCORES)].mean()
        rank = means["system"].map({name: i for i, name in enumerate(self.systems)})
        order = np.lexsort((means["mixture"].to_numpy(str), rank.to_numpy()))
        return means.iloc[order].reset_index(drop=True)

    def summary(
        self, source: int | None = None, *, confidence: float = 0.95, random_state: int = 0
    ) -> list[dict[str, Any]]:
        """Means over mixtures, each with its interval over the groups mixed, a dict a system.

        Args:
            source: scores of this one alone, from 1; None: the mean over a mixture's sources.
            confidence, random_state: of the bootstrap
                (`ossicle.metrics.crossed_groups.crossed_interval`).

        Returns:
            "system", "mixtures" (that have scores), "groups", each of `SCORES` as {"value", "low",
            "high"} in dB (None where it cannot be told), "times_real_time" (None where it is no
            system), "limited": values that were held at +-100 dB.
        """
        table = self.per_mixture(source)
        found = []
        for system in self.systems:
            rows = table[(table["system"] == system) & table["si_sdr"].notna()]
            raw = self.per_source[self.per_source["system"] == system]
            if source is not None:
                raw = raw[raw["source"] == source]
            row: dict[str, Any] = {
                "system": system,
                "mixtures": len(rows),
                "groups": int(rows["group"].nunique()),
            }
            for name in SCORES:
                row[name] = self._interval(rows, name, confidence, random_state)
            row["limited"] = int((raw[["si_sdr", "sdr"]].abs() >= LIMIT_DB).any(axis=1).sum())
            row["times_real_time"] = _known(self.times_real_time.get(system, np.nan))
            found.append(row)
        return found

    def difference(
        self,
        one: str,
        other: str,
        score: str = "si_sdr_improvement",
        *,
        source: int | None = None,
        random_state: int = 0,
    ) -> dict[str, Any]:
        """How much more ``one`` scores than ``other``, on the mixtures that both have.

        Returns:
            "one", "other", "score", "mixtures", and "difference", "low", "high" (dB), and the
            "p_value" of `ossicle.metrics.paired_difference`, which takes mixtures of other groups
            for independent; None where they cannot be told.

        Raises:
            DataError: a system or score is unknown, or they have no mixture in common.
        """
        for name in (one, other):
            if name not in self.systems:
                raise DataError(f"no system {name!r}: there are {', '.join(self.systems)}")
        if score not in SCORES:
            raise DataError(f"no score {score!r}: there are {', '.join(SCORES)}")
        table = self.per_mixture(source)
        first, second = (
            table[table["system"] == name].dropna(subset=[score]) for name in (one, other)
        )
        both = first.merge(second, on="mixture", suffixes=("_one", "_other"))
        if both.empty:
            raise DataError(f"{one} and {other} have no mixture in common")
        groups = both["group_one"].tolist()
        values = both[f"{score}_one"], both[f"{score}_other"]
        gained = paired_difference(*values, groups=groups, random_state=random_state)
        gained["low"], gained["high"] = crossed_interval(
            values[0] - values[1],
            [self.members.get(group, (group,)) for group in groups],
            random_state=random_state,
        )
        known = {name: _known(value) for name, value in gained.items()}
        return {"one": one, "other": other, "score": score, "mixtures": len(both), **known}

    def to_dict(self, *, random_state: int = 0) -> dict[str, Any]:
        """All of it, ready for JSON; each mixture's scores under "per_source"."""
        names = self.per_source.drop_duplicates("source").sort_values("source")
        return {
            "summary": self.summary(random_state=random_state),
            "summary_per_source": {
                str(number): {
                    "name": str(name),
                    "rows": self.summary(number, random_state=random_state),
                }
                for number, name in zip(names["source"], names["name"], strict=True)
            },
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "per_source": [
                {key: _known(value) if key in SCORES else value for key, value in row.items()}
                for row in self.per_source.to_dict("records")
            ],
        }

    def _interval(
        self, rows: pd.DataFrame, name: str, confidence: float, random_state: int
    ) -> dict[str, float | None]:
        rows = rows[rows[name].notna()]
        if rows.empty:
            return {"value": None, "low": None, "high": None}
        low, high = crossed_interval(
            rows[name].to_numpy(),
            [self.members.get(group, (group,)) for group in rows["group"]],
            confidence=confidence,
            random_state=random_state,
        )
        return {"value": float(rows[name].mean()), "low": _known(low), "high": _known(high)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``per_source`` as .csv, or `to_dict` as .json; whole or not at all.

        Raises:
            DataError: another ending, or the folder cannot be written to.
        """
        path = Path(path)
        try:
            if path.suffix == ".csv":
                with replaced(path) as part:
                    self.per_source.to_csv(part, index=False)
            elif path.suffix == ".json":
                write_json(path, json_safe(self.to_dict()))
            else:
                raise DataError(f"{path}: scores are written as .csv or .json")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def joined(parts: list[Scores]) -> Scores:
    """Scores of the same systems on several parts of mixtures, as one."""
    tables = [part.per_source for part in parts]
    return Scores(
        pd.concat(tables, ignore_index=True),
        parts[0].systems,
        parts[0].times_real_time,
        [entry for part in parts for entry in part.left_out],
        list(dict.fromkeys(note for part in parts for note in part.notes)),
        {name: own for part in parts for name, own in part.members.items()},
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
