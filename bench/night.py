"""A night to try a detector on: known sounds at known times over quiet noise, and how it is scored.

Symbols: F frames of `FRAME_S`, W windows. Nothing of it is kept in the repository but the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ossicle.audio import load
from ossicle.metrics import interval

RATE = 16_000
FRAME_S = 0.5
QUIET_RMS = 10 ** (-60 / 20)
FADE_S = 0.01
# From one breath to the next, and between other sounds, in seconds from end to start.
PAUSES = {"snoring": (2.0, 4.0), "no_snoring": (1.0, 6.0), "around": (1.0, 6.0)}
TOGETHER = {"snoring": 10, "no_snoring": 10, "around": 5}


class Sound(NamedTuple):
    """A file, what it is ("snoring", "no_snoring", "around"), of which class and recording."""

    path: str
    kind: str
    label: str
    group: str


class Event(NamedTuple):
    """A sound in the night, from `start` to `stop` (s)."""

    start: float
    stop: float
    sound: Sound


def build_night(
    sounds: Sequence[Sound], minutes: float, seed: int
) -> tuple[np.ndarray, list[Event]]:
    """Lay sounds over quiet noise, none over another.

    Sounds of one recording stay in order and together, in bouts of `TOGETHER`; bouts come in random
    order with quiet in between. A recording has one gain, -12 to 0 dB, as if from one place.

    Returns:
        (N,) float32 at `RATE`, and the events in order of time.

    Raises:
        ValueError: the sounds do not fit into so many minutes.
    """
    generator = np.random.default_rng(seed)
    n = round(minutes * 60 * RATE)
    night = pink(n, generator) * QUIET_RMS
    by_group: dict[str, list[Sound]] = {}
    for sound in sounds:
        key = sound.kind if sound.kind == "around" else sound.group
        by_group.setdefault(key, []).append(sound)
    gains = {s.group: 10 ** (generator.uniform(-12, 0) / 20) for s in sounds}
    bouts = []
    for group in by_group.values():
        size = TOGETHER[group[0].kind]
        bouts += [group[at : at + size] for at in range(0, len(group), size)]
    order = generator.permutation(len(bouts))
    bouts = [bouts[i] for i in order]
    waves = {s.path: load(s.path, sample_rate=RATE).samples[0] for s in sounds}
    # Times within a bout first, so that what is left can be dealt out as quiet.
    laid, lengths = [], []
    for bout in bouts:
        at, own = 0.0, []
        for sound in bout:
            own.append((at, sound))
            at += len(waves[sound.path]) / RATE + generator.uniform(*PAUSES[sound.kind])
        laid.append(own)
        lengths.append(at)
    quiet = minutes * 60 - sum(lengths)
    if quiet < 0:
        raise ValueError(f"the sounds last {-quiet:.0f} s more than {minutes} minutes")
    pauses = generator.dirichlet(np.ones(len(bouts) + 1)) * quiet
    events, begin = [], 0.0
    for own, length, pause in zip(laid, lengths, pauses[:-1], strict=True):
        begin += pause
        for at, sound in own:
            wave = faded(waves[sound.path]) * gains[sound.group]
            first = round((begin + at) * RATE)
            night[first : first + len(wave)] += wave
            events.append(Event(first / RATE, (first + len(wave)) / RATE, sound))
        begin += length
    return np.clip(night, -1, 1).astype(np.float32), events


def pink(n: int, generator: np.random.Generator) -> np.ndarray:
    """(n,) noise of power 1 / f, RMS 1."""
    spectrum = np.fft.rfft(generator.normal(size=n))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum, n)
    return noise / np.sqrt(np.mean(noise**2))


def faded(wave: np.ndarray) -> np.ndarray:
    """A cut makes a click, which the detector might listen for."""
    length = min(round(FADE_S * RATE), len(wave) // 2)
    ramp = np.ones(len(wave))
    ramp[:length] = np.linspace(0, 1, length)
    ramp[len(wave) - length :] = np.linspace(1, 0, length)
    return wave * ramp


def frame_scores(windows: pd.DataFrame, column: str, n_frames: int) -> np.ndarray:
    """(F,) mean score of the windows that a frame lies in for the most part; NaN where none."""
    total, count = np.zeros(n_frames), np.zeros(n_frames)
    for onset, offset, score in windows[["onset", "offset", column]].itertuples(index=False):
        first, last = round(onset / FRAME_S), min(n_frames, round(offset / FRAME_S))
        total[first:last] += score
        count[first:last] += 1
    with np.errstate(invalid="ignore"):
        return total / count


def frame_truth(events: Sequence[Event], n_frames: int) -> pd.DataFrame:
    """One row a frame: `snoring` (bool), `label` of the sound that fills half of it, `group`.

    Quiet has a group a minute.
    """
    label = ["quiet"] * n_frames
    group = [f"quiet {int(i * FRAME_S // 60)}" for i in range(n_frames)]
    snoring = np.zeros(n_frames, bool)
    for event in events:
        for frame in range(int(event.start // FRAME_S), int(event.stop // FRAME_S) + 1):
            low, high = frame * FRAME_S, (frame + 1) * FRAME_S
            if frame < n_frames and min(high, event.stop) - max(low, event.start) >= FRAME_S / 2:
                label[frame], group[frame] = event.sound.label, event.sound.group
                snoring[frame] = event.sound.kind == "snoring"
    return pd.DataFrame({"snoring": snoring, "label": label, "group": group})


def precision(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of the frames found that are snoring."""
    return float(truth[found].mean()) if found.any() else float("nan")


def recall(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of the snoring that is found."""
    return float(found[truth].mean()) if truth.any() else float("nan")


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the curve of recall over false alarms."""
    ones = int(truth.sum())
    zeros = len(truth) - ones
    if not ones or not zeros:
        return float("nan")
    above = rankdata(score)[truth].sum() - ones * (ones + 1) / 2
    return float(above / (ones * zeros))


def night_scores(
    truth: pd.DataFrame, score: np.ndarray, events: Sequence[Event], threshold: float = 0.5
) -> dict:
    """Precision, recall and AUC of frames with intervals over recordings; sounds and false alarms.

    "_collar": without the frame before and after each stretch of snoring.

    Args:
        truth: of `frame_truth`.
        score: (F,) of snoring; NaN counts as 0.
        events: of the night.
        threshold: from here on a frame is called snoring.
    """
    snoring, groups = truth["snoring"].to_numpy(), truth["group"].to_numpy()
    score = np.nan_to_num(score)
    found = score >= threshold
    result: dict = {}
    # A window of 1 s that holds half a snore is no mistake, but its frames are none of the snore.
    sure = snoring | ~near(snoring)
    everywhere = np.ones(len(truth), bool)
    for name, statistic, given, where in (
        ("precision", precision, found, everywhere),
        ("precision_collar", precision, found, sure),
        ("recall", recall, found, everywhere),
        ("auc", auc, score, everywhere),
        ("auc_collar", auc, score, sure),
    ):
        true, of = snoring[where], given[where]
        low, high = interval(statistic, true, of, groups=groups[where], bounds=(0, 1))
        result[name] = {"value": statistic(true, of), "low": low, "high": high}
    snores = [e for e in events if e.sound.kind == "snoring"]
    heard = [found[int(e.start // FRAME_S) : int(np.ceil(e.stop / FRAME_S))].any() for e in snores]
    alarms = false_alarms(truth, found, events)
    hours = len(truth) * FRAME_S / 3600
    return {
        **result,
        "snores": len(snores),
        "snores_heard": int(np.sum(heard)),
        "false_alarms": alarms,
        "false_alarms_an_hour": alarms / hours,
        "called_snoring": {
            label: {"frames": len(rows), "share": float(found[rows.index].mean())}
            for label, rows in truth.groupby("label")
        },
    }


def near(snoring: np.ndarray) -> np.ndarray:
    """(F,) frames of snoring and the one before and after each."""
    wide = snoring.copy()
    wide[1:] |= snoring[:-1]
    wide[:-1] |= snoring[1:]
    return wide


def false_alarms(truth: pd.DataFrame, found: np.ndarray, events: Sequence[Event]) -> int:
    """Stretches of frames called snoring in which no snoring is, not even in part of a frame."""
    touched = np.zeros(len(truth), bool)
    for event in (e for e in events if e.sound.kind == "snoring"):
        # A window of 1 s that holds a little of the sound reaches one frame further.
        first, last = int(event.start // FRAME_S) - 1, int(np.ceil(event.stop / FRAME_S)) + 1
        touched[max(0, first) : last] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], found.astype(int), [0]])))
    stretches = zip(edges[::2], edges[1::2], strict=True)
    return sum(not touched[a:b].any() for a, b in stretches)
