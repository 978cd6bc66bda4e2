"""Mixtures and their stems: which there are, and their samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.mixtures.settings import PARTS
from ossicle.errors import DataError


class Mixture(NamedTuple):
    """A mixture and what it was made of.

    Attributes:
        mixture: (N,) float32.
        sources: (S, N) float32, as they are in the mixture: they add up to it.
        sample_rate: in Hz.
    """

    mixture: np.ndarray
    sources: np.ndarray
    sample_rate: int


@dataclass
class Mixtures:
    """Mixtures with their stems, one a row.

    Attributes:
        table: columns mixture and source1, source2, ... (absolute paths), name1, ... (role, or the
            group or label), group1, ..., level_db1, ... (of a source against the first, dB; NaN
            where it is not known), clip1, ... (where it was cut from), group (all groups joined:
            the unit of the bootstrap), split ("train", "valid", "test" or "unseen").
        sources: names of the roles in order, or () where sources are alike and in no order.
        n_sources: S.
        sample_rate: in Hz.
        root: the folder they were read from.
        notes: what was inferred, for the user.
    """

    table: pd.DataFrame
    sources: tuple[str, ...]
    n_sources: int
    sample_rate: int
    root: Path
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have mixtures: of train, valid, test, unseen, in this order."""
        there = set(self.table["split"])
        return tuple(name for name in PARTS if name in there)

    def part(self, split: str, *, required: bool = False) -> Mixtures:
        """The mixtures of one part, which may have none; DataError if it is then ``required``."""
        rows = self.table[self.table["split"] == split]
        if required and rows.empty:
            raise DataError(
                f"{self.root}: has no mixtures for {split}; it has {', '.join(self.parts)}"
            )
        table = rows.reset_index(drop=True)
        return Mixtures(
            *(table, self.sources, self.n_sources, self.sample_rate, self.root, list(self.notes))
        )

    def who(self, source: int) -> list[str]:
        """Of whom or what a source (from 1) is in each mixture: its name, or else its group.

        A label may be the speaker, and then the name tells it; names that are the same in each row
        are those of roles, or of other tools' folders ("s1"), and tell nobody.
        """
        names = [f"name{s + 1}" for s in range(self.n_sources)]
        told = all(name in self.table for name in names) and any(
            self.table[name].nunique() > 1 for name in names
        )
        column = f"{'name' if told else 'group'}{source}"
        return [str(value) for value in self.table[column]]

    def groups(self) -> np.ndarray:
        """(n,) names of the groups that each mixture holds, joined: the unit of the bootstrap."""
        return self.table["group"].to_numpy(object).astype(str)

    def load(self, i: int) -> Mixture:
        """The samples of one mixture; the mean of the channels where a file has several.

        Raises:
            AudioError: a file is missing or cannot be read.
            DataError: a stem has another length than its mixture, or a file another rate.
        """
        row = self.table.iloc[i]
        mixture = self._read(row["mixture"])
        sources = np.empty((self.n_sources, len(mixture)), np.float32)
        for number in range(self.n_sources):
            path = row[f"source{number + 1}"]
            samples = self._read(path)
            if len(samples) != len(mixture):
                raise DataError(
                    f"{path}: has {len(samples)} samples and its mixture {row['mixture']} "
                    f"{len(mixture)}; stems must be as long as their mixture"
                )
            sources[number] = samples
        return Mixture(mixture, sources, self.sample_rate)

    def _read(self, path: str) -> np.ndarray:
        loaded = audio.load(path)
        if loaded.sample_rate != self.sample_rate:
            raise DataError(
                f"{path}: has a rate of {loaded.sample_rate} Hz, the others have "
                f"{self.sample_rate} Hz; resample it"
            )
        return loaded.samples[0]
