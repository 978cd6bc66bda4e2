"""How well systems take mixtures apart, between the mixture as it is and what ideal masks give.

A system is scored for what `ossicle separate run` would write: at the mixtures' rate, whatever its
own, in blocks where a mixture is long. Sources without an order are paired with a system's best,
mixture by mixture; those with names are not.

Symbols: S sources, N samples (time last).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from ossicle.audio import Audio
from ossicle.datasets.mixtures import Mixture, Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.features import Progress, ProgressCallback, one_thread
from ossicle.metrics.separation import Scorer
from ossicle.separate.score_table import SCORES, Scores
from ossicle.separators.base import MaskSeparator, Separator
from ossicle.separators.ideal import IdealMask
from ossicle.separators.in_order import in_order
from ossicle.separators.long_files import separate_array

MIXTURE = "mixture"
IDEAL = {
    "binary": "ideal binary mask",
    "ratio": "ideal ratio mask",
    "wiener": "ideal Wiener mask",
    "phase": "ideal phase-sensitive mask",
}
# Frames of ideal masks where no system has any, and of the log-spectral distance.
FRAME_S, HOP_S = 0.032, 0.008
# With several workers, so many mixtures are heard once more, alone, for the speed.
_TIMED = 5


class _System(NamedTuple):
    separator: Separator
    order: np.ndarray | None  # (S,) which of its sources each of the mixtures' is; None: no order
    n_sources: int | None  # asked of it


def score(
    systems: Separator | Mapping[str, Separator],
    mixtures: Mixtures,
    *,
    n_sources: int | None = None,
    ideal: Sequence[str] = ("binary", "ratio"),
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> Scores:
    """Score systems on mixtures whose sources are known.

    Rows are "mixture" (what doing nothing gives), the ideal masks, then the systems. Where a
    system's and the mixtures' sources have the same names, they are paired by name; where both have
    others, in order, and a note says so; where one has none, by the best SI-SDR in each mixture.

    Args:
        systems: name -> separator; or one separator, called by its class.
        mixtures: one part of them, or all. ``load(i)``, ``table``, ``sources``, ``n_sources``,
            ``sample_rate`` and ``root`` are used.
        n_sources: S, if it is to be checked: that of the mixtures.
        ideal: kinds of `separators.ideal.IdealMask`, on frames as the first system that has masks
            has them, else of 32 ms every 8 ms.
        workers: threads; no number of them changes a score.
        progress: called after every mixture.

    Returns:
        Scores; the order of the mixtures' rows does not matter to its means and intervals. A
        mixture that cannot be read is left out for all, one that a system fails on for that system,
        a silent source for itself; ``left_out`` names them.

    Raises:
        DataError: there are no mixtures, none can be read, a system gives another number of
            sources than they have, or a name stands for two rows.
        OssicleError: an argument makes no sense.
    """
    if isinstance(systems, Separator):
        systems = {type(systems).__name__: systems}
    if not len(mixtures):
        raise DataError(f"{mixtures.root}: has no mixtures to score")
    if n_sources not in (None, mixtures.n_sources):
        raise DataError(
            f"{mixtures.root}: the mixtures have {mixtures.n_sources} sources, not {n_sources}"
        )
    if workers < 1:
        raise OssicleError(f"workers must be at least 1, got {workers}")
    unknown = [kind for kind in ideal if kind not in IDEAL]
    if unknown:
        raise OssicleError(f"unknown ideal mask {unknown[0]!r}; there are {', '.join(IDEAL)}")
    bounds = [MIXTURE, *(IDEAL[kind] for kind in ideal)]
    taken = sorted(set(bounds) & set(systems))
    if taken:
        raise DataError(f"a system cannot be called {taken[0]!r}: that is a row of its own")
    notes: list[str] = []
    ready = {name: _ready(name, one, mixtures, notes) for name, one in systems.items()}
    frames = _frames(list(systems.values()), mixtures.sample_rate)
    masks = {IDEAL[kind]: IdealMask(kind, *frames) for kind in ideal}
    names = _relative(mixtures)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    heard_s, used = 0.0, 0

    def judge(i: int) -> _Judged:
        return _judged(mixtures, i, masks, ready)

    with _alone():
        judged = in_order(judge, range(len(mixtures)), workers)
        for i, one in enumerate(judged):
            row = mixtures.table.iloc[i]
            about = {"mixture": names[i], "split": row["split"], "group": row["group"]}
            for entry in one.left_out:
                left_out.append({"mixture": names[i], **entry})
            for system, scores in one.scores.items():
                rows.extend(_rows(system, about, scores, row, mixtures.n_sources))
            for system, speed in one.speeds.items():
                seconds[system].append(speed)
            used += bool(one.scores)
            heard_s += one.duration_s
            if progress is not None:
                progress(Progress(i + 1, len(mixtures), heard_s))
        if not used:
            raise DataError(
                f"{mixtures.root}: none of the {len(mixtures)} mixtures can be scored; "
                f"{left_out[0]['mixture']}: {left_out[0]['reason']}"
            )
        if workers > 1:
            seconds = _speeds(mixtures, ready)
    order = (*bounds, *ready)
    speeds = {name: float(np.median(seconds.get(name) or [np.nan])) for name in order}
    members: dict[str, tuple[str, ...]] = {}
    if "group1" in mixtures.table:
        whose = [mixtures.who(s + 1) for s in range(mixtures.n_sources)]
        members = dict(zip(mixtures.table["group"].map(str), zip(*whose, strict=True), strict=True))
    return Scores(_table(rows, order), order, speeds, left_out, notes, members)


class _Judged(NamedTuple):
    scores: dict[str, dict[str, np.ndarray]]
    speeds: dict[str, float]
    left_out: list[dict[str, Any]]
    duration_s: float


def _judged(
    mixtures: Mixtures, i: int, masks: Mapping[str, IdealMask], systems: Mapping[str, _System]
) -> _Judged:
    """All rows of one mixture."""
    try:
        loaded = mixtures.load(i)
        rate = mixtures.sample_rate
        frame, hop = max(2, round(FRAME_S * rate)), max(1, round(HOP_S * rate))
        scorer = Scorer(loaded.mixture, loaded.sources, n_fft=frame, hop_length=hop)
    except OssicleError as error:
        return _Judged({}, {}, [{"system": "", "source": 0, "reason": str(error)}], 0.0)
    left_out: list[dict[str, Any]] = [
        {"system": "", "source": number, "reason": "this source is silent"}
        for number, source in enumerate(loaded.sources, 1)
        if not source.any()
    ]
    untouched = np.repeat(loaded.mixture[None], mixtures.n_sources, 0)
    scores = {MIXTURE: scorer.scores(untouched, ordered=True)}
    scores[MIXTURE]["order"] = np.full(len(untouched), -1)
    for name, mask in masks.items():
        given = (torch.from_numpy(np.ascontiguousarray(one)) for one in loaded[:2])
        scores[name] = scorer.scores(mask.separate(*given).numpy(), ordered=True)
    speeds = {}
    duration_s = len(loaded.mixture) / loaded.sample_rate
    for name, system in systems.items():
        before = time.perf_counter()
        try:
            found = _separated(system, loaded)
        except OssicleError as error:
            left_out.append({"system": name, "source": 0, "reason": str(error)})
            continue
        speeds[name] = duration_s / max(time.perf_counter() - before, 1e-9)
        if system.order is None:
            scores[name] = scorer.scores(found, ordered=False)
        else:
            scores[name] = scorer.scores(found[system.order], ordered=True)
            scores[name]["order"] = system.order
    return _Judged(scores, speeds, left_out, duration_s)


def _separated(system: _System, loaded: Mixture) -> np.ndarray:
    """(S, N) float32, in the system's order, at the mixture's rate."""
    audio = Audio(loaded.mixture[None], loaded.sample_rate)
    found: np.ndarray = separate_array(system.separator, audio, system.n_sources)[:, 0]
    return found


def _ready(name: str, separator: Separator, mixtures: Mixtures, notes: list[str]) -> _System:
    """A system and how its sources are paired with those of the mixtures."""
    wanted = mixtures.n_sources
    if not separator.sources:
        separator.count(wanted)
        order, asked = None, wanted
    else:
        if len(separator.sources) != wanted:
            raise DataError(
                f"{name} gives {len(separator.sources)} sources "
                f"({', '.join(separator.sources)}), the mixtures in {mixtures.root} have {wanted}"
            )
        asked = None
        order = _pairing(name, separator.sources, mixtures.sources, notes)
    if separator.sample_rate != mixtures.sample_rate:
        notes.append(
            f"{name} works at {separator.sample_rate} Hz and is scored at the mixtures' "
            f"{mixtures.sample_rate} Hz"
        )
    return _System(separator, order, asked)


def _pairing(
    name: str, given: tuple[str, ...], wanted: tuple[str, ...], notes: list[str]
) -> np.ndarray | None:
    if not wanted:
        notes.append(
            f"{name}: the mixtures' sources have no names, so each is paired with its best"
        )
        return None
    if set(given) == set(wanted):
        return np.array([given.index(role) for role in wanted])
    # Denoisers call what they take away background, tables of recordings call it noise.
    noise = [[role in ("background", "noise") for role in roles] for roles in (given, wanted)]
    order = np.arange(len(given))
    if len(given) == 2 and sum(noise[0]) == sum(noise[1]) == 1 and noise[0] != noise[1]:
        order = order[::-1]
    pairs = ", ".join(f"{given[i]} for {role}" for i, role in zip(order, wanted, strict=True))
    notes.append(f"{name} has other names for its sources than the mixtures: taken {pairs}")
    return order


def _frames(separators: Sequence[Separator], sample_rate: int) -> tuple[int, int]:
    """n_fft and hop, in samples at the mixtures' rate, of the first system that has masks."""
    frame_s, hop_s = FRAME_S, HOP_S
    for separator in separators:
        if isinstance(separator, MaskSeparator):
            frame_s = separator.fourier.n_fft / separator.sample_rate
            hop_s = separator.fourier.hop_length / separator.sample_rate
            break
    n_fft = max(4, 2 * round(frame_s * sample_rate / 2))
    return n_fft, min(max(1, round(hop_s * sample_rate)), n_fft // 2)


def _rows(
    system: str, about: dict[str, Any], scores: dict[str, np.ndarray], row: pd.Series, count: int
) -> Iterator[dict[str, Any]]:
    for j in range(count):
        yield {
            "system": system,
            **about,
            "source": j + 1,
            "name": row.get(f"name{j + 1}", ""),
            "estimate": int(scores["order"][j]) + 1,
            **{score: float(scores[score][j]) for score in SCORES},
        }


def _table(rows: list[dict[str, Any]], systems: Sequence[str]) -> pd.DataFrame:
    """Systems in their order, then by mixture and source."""
    table = pd.DataFrame(rows)
    rank = table["system"].map({name: i for i, name in enumerate(systems)}).to_numpy()
    order = np.lexsort((table["source"].to_numpy(), table["mixture"].to_numpy(str), rank))
    return table.iloc[order].reset_index(drop=True)


def _relative(mixtures: Mixtures) -> list[str]:
    paths = [os.path.relpath(path, mixtures.root) for path in mixtures.table["mixture"]]
    return [path.replace(os.sep, "/") for path in paths]


def _speeds(mixtures: Mixtures, systems: Mapping[str, _System]) -> dict[str, list[float]]:
    """Times real time of each system on some mixtures, with nothing beside it."""
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for i in np.unique(np.linspace(0, len(mixtures) - 1, _TIMED).round().astype(int)):
        for name, one in _judged(mixtures, int(i), {}, systems).speeds.items():
            speeds[name].append(one)
    return speeds


@contextmanager
def _alone() -> Iterator[None]:
    """One thread for each sum: the same bits on any machine load."""
    with one_thread(), threadpool_limits(1):
        yield
