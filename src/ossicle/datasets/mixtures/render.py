"""A mixture's samples, in 16-bit steps, so that the stems add up to it exactly.

Level: root mean square over the frames of 20 ms that sound, those no more than `active_db` below
the loudest. Pauses and zeros around a word make a voice no softer to a listener; WSJ0-2mix
(Hershey, Chen, Le Roux and Watanabe, ICASSP 2016) sets its levels likewise, by the active speech
level of ITU-T P.56.
"""

from __future__ import annotations

import numpy as np

from ossicle import audio
from ossicle.datasets.mixtures.plan import MixturePlan, SourcePlan, seconds
from ossicle.datasets.mixtures.settings import MixtureSettings
from ossicle.errors import DataError

# The first source's level (dB of full scale), the nominal one of speech in telephony.
LEVEL_DB = -26.0
PEAK = 0.95
FRAME_S = 0.02
_FADE_S = 0.005
_ASTRAY_S = 0.001
STEPS = 32768


def render(plan: MixturePlan, settings: MixtureSettings) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a plan.

    Returns:
        The mixture (N,) and its sources (S, N), integers of at most 0.95 * 32768 (and S steps of
        rounding) whose sum is the mixture.

    Raises:
        AudioError: a clip cannot be read.
        DataError: a clip is not what it was when it was looked at.
    """
    stems = np.stack([_stem(source, plan.size, settings) for source in plan.sources])
    peak = max(float(np.abs(stems).max()), float(np.abs(stems.sum(0)).max()))
    # One gain for all: it keeps their sum and their levels against each other.
    stems *= min(1.0, PEAK / peak) * STEPS
    steps = np.rint(stems).astype(np.int32)
    return steps.sum(0), steps


def active_rms(samples: np.ndarray, sample_rate: int, active_db: float) -> float:
    """Root mean square over the frames that sound.

    Args:
        samples: (N,).
        sample_rate: in Hz.
        active_db: how far below the loudest frame silence begins (dB).
    """
    starts = np.arange(0, len(samples), max(1, round(FRAME_S * sample_rate)))
    sizes = np.diff(np.append(starts, len(samples)))
    energy = np.add.reduceat(samples.astype(np.float64) ** 2, starts)
    power = energy / sizes
    heard = power >= power.max() * 10 ** (-active_db / 10)
    return float(np.sqrt(energy[heard].sum() / sizes[heard].sum()))


def _stem(source: SourcePlan, size: int, settings: MixtureSettings) -> np.ndarray:
    """(N,) float64 at its level."""
    rate = settings.sample_rate
    stem = np.zeros(size)
    at = source.at
    for piece in source.pieces:
        onset, offset = seconds(piece, rate)
        read = audio.load(piece.clip.path, sample_rate=rate, onset=onset, offset=offset)
        # The resampler may give a sample more or less than was planned.
        wanted = piece.stop - piece.start
        samples = read.samples[0, :wanted].astype(np.float64)
        if len(samples) < wanted - _ASTRAY_S * rate - 1:
            raise DataError(f"{piece.clip.path}: is shorter than it was when it was looked at")
        # A constant would count as sound, and thump where zeros begin.
        samples -= samples.mean()
        if len(source.pieces) > 1:
            _fade(samples, round(_FADE_S * rate))
        stem[at : at + len(samples)] = samples
        at += wanted
    level = active_rms(stem, rate, settings.active_db)
    if not level > 0:
        raise DataError(f"{source.pieces[0].clip.path}: is silent where it is to be cut")
    stem *= 10 ** ((LEVEL_DB + source.level_db) / 20) / level
    return stem


def _fade(samples: np.ndarray, length: int) -> None:
    """In place, so that joined clips do not click."""
    length = min(length, len(samples) // 2)
    if length:
        ramp = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length) ** 2
        samples[:length] *= ramp
        samples[-length:] *= ramp[::-1]
