"""What distillation learns from: windows, what teachers say of each, and what labels tell."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import Progress, as_clips
from ossicle.pretrain.distill import UNKNOWN
from ossicle.pretrain.made import render_cached
from ossicle.pretrain.settings import Settings
from ossicle.pretrain.teachers import Targets, learn_targets
from ossicle.pretrain.waveforms import Waveforms, decode_cached, key
from ossicle.pretrain.windows import NOTHING, Windows, cut_windows, mixtures_key, with_mixtures

# A class of fewer clips is not known by its name.
FEWEST = 4


class Facets(NamedTuple):
    """What labels tell, one question after another.

    Attributes:
        classes: facet -> its classes, sorted.
        numbers: (n, H) class of each clip for each facet, -1 where it is not told.
    """

    classes: dict[str, tuple[str, ...]]
    numbers: np.ndarray


class Lessons(NamedTuple):
    """All that a student learns from.

    Attributes:
        waveforms, windows: what is heard.
        targets: of the teachers.
        facets: of the labels; of the clips, not of the windows.
        values: (n, K + H) float32 where indexed: the teachers' components, then class numbers.
        variances: (K,) of the components.
    """

    waveforms: Waveforms
    windows: Windows
    targets: Targets
    facets: Facets
    values: _Values
    variances: Tensor


def read_facets(clips: Clips, fewest: int = FEWEST) -> Facets:
    """Labels of the form "NAME:VALUE" are one question for each NAME; others do not count.

    Args:
        clips: of several labels each, or of one.
        fewest: clips that a class needs; a facet needs two classes.

    Raises:
        DataError: the labels are numbers, or a clip has two values of one facet.
    """
    if clips.task == "regression":
        raise DataError("facets are labels of the form NAME:VALUE; these are numbers")
    rows = [[row] if isinstance(row, str) else list(row) for row in clips.table["label"]]
    told: list[dict[str, str]] = []
    for place, row in enumerate(rows):
        pairs = [label.split(":", 1) for label in row if ":" in label]
        own = dict(pairs)
        if len(own) < len(pairs):
            path = clips.table["path"].iloc[place]
            raise DataError(f"{path}: has two values of one facet among {', '.join(row)}")
        told.append(own)
    counts: dict[str, Counter[str]] = {}
    for own in told:
        for name, value in own.items():
            counts.setdefault(name, Counter())[value] += 1
    classes = {
        name: tuple(sorted(value for value, n in counts[name].items() if n >= fewest))
        for name in sorted(counts)
    }
    classes = {name: values for name, values in classes.items() if len(values) > 1}
    numbers = np.full((len(rows), len(classes)), UNKNOWN, np.int64)
    for column, (name, values) in enumerate(classes.items()):
        places = {value: i for i, value in enumerate(values)}
        numbers[:, column] = [places.get(own.get(name, ""), UNKNOWN) for own in told]
    return Facets(classes, numbers)


def prepare_lessons(
    clips: Clips,
    sample_rate: int,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Lessons:
    """Decode, cut, and ask the teachers; what was done before is not done again.

    Args:
        clips: recordings; with labels where facets are learnt. Those whose ``split`` is another
            than "train" are heard by the teachers, and not learnt.
        sample_rate: of the student, in Hz.
        settings: teachers, window_s, seed, and whether labels count (option "labels").
        workers: threads.
        progress: of the teachers.

    Raises:
        OssicleError: the clips or teachers cannot be used.
    """
    s = settings
    waveforms = decode_cached(clips, sample_rate, workers)
    windows = with_mixtures(cut_windows(waveforms, s.window_s, s.seed), s.mixtures, s.seed)
    if len(windows) < 2:
        raise DataError("the recordings are one window: components need two or more; add some")
    same = f"{key(as_clips(clips), sample_rate)} {sorted(s.window_s)} {s.seed}"
    same = hashlib.sha256(same.encode()).hexdigest()
    made = mixtures_key(s.mixtures)
    waveforms, windows = render_cached(waveforms, windows, f"{same} {made}", workers, progress)
    targets = learn_targets(
        waveforms,
        windows,
        s.teachers,
        same,
        made=made,
        workers=workers,
        seed=s.seed,
        progress=progress,
    )
    facets = Facets({}, np.zeros((len(clips), 0), np.int64))
    if s.options.get("labels"):
        facets = read_facets(clips)
    # What is held out is asked about too, so that it can be held out later, or no longer.
    split = clips.table["split"].to_numpy(object)
    trained = np.array([pd.isna(part) or str(part).lower() == "train" for part in split])
    heard = trained[waveforms.rows]
    beside = (windows.other_items == NOTHING) | heard[windows.other_items]
    rows = np.flatnonzero(heard[windows.items] & beside)
    if not len(rows):
        raise DataError("none of the clips is to be trained on: see their column split")
    numbers = facets.numbers[waveforms.rows][windows.items]
    # What is mixed has several answers, and what is faster another pitch.
    numbers = np.where(windows.changed[:, None], UNKNOWN, numbers)
    values = _Values(targets.values, numbers, rows)
    variances = _variances(values, targets)
    return Lessons(waveforms, windows.some(rows), targets, facets, values, variances)


class _Values:
    """Components, which may lie on a disk, and class numbers of some rows, side by side."""

    def __init__(self, values: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> None:
        self.values, self.numbers, self.rows = values, numbers, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        rows = self.rows[places]
        parts = np.asarray(self.values[rows], np.float32), self.numbers[rows].astype(np.float32)
        return np.concatenate(parts, 1)


def _variances(values: _Values, targets: Targets, at_once: int = 4096) -> Tensor:
    """(K,) of the components, a part of the rows at a time."""
    size = targets.values.shape[1]
    total, squares = np.zeros(size), np.zeros(size)
    for start in range(0, len(values), at_once):
        part = values[slice(start, start + at_once)][:, :size].astype(np.float64)
        total += part.sum(0)
        squares += np.square(part).sum(0)
    mean = total / len(values)
    return torch.from_numpy(np.maximum(squares / len(values) - mean**2, 0)).float()
