"""Where a sound is recorded: a room, a microphone that hears some of it, noise, a distance.

What is sold as a sound effect is clean, close and loud; what people record is not. A window that is
made of others is put into a place of its own, which its number tells: so a teacher and its student
hear the same, whenever they do. N samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ossicle.mix.rooms import synthetic_room
from ossicle.train import step_seed

PLACE = 24  # stream of random numbers
ROOM = LOW_CUT = HIGH_CUT = 0.4  # probabilities
NOISE = 0.6
T60_S = (0.15, 1.0)
DIRECT_DB = (0.0, 15.0)
LOW_CUT_HZ = (40.0, 500.0)
HIGH_CUT_HZ = (1_500.0, 7_500.0)
# Butterworth's order of both cuts, as magnitudes: phases stay.
ORDER = 4
SNR_DB = (0.0, 40.0)
# The power of noise falls as 1 / f to this: 0 is white, 1 pink, 2 brown.
COLOUR = (0.0, 2.0)
SOFTEST_HZ = 20.0  # below, noise rises no further
GAIN_DB = (-20.0, 0.0)
# What tells these places from others.
KEY: tuple[object, ...] = (ROOM, LOW_CUT, HIGH_CUT, NOISE, T60_S, DIRECT_DB, LOW_CUT_HZ)
KEY += (HIGH_CUT_HZ, ORDER, SNR_DB, COLOUR, SOFTEST_HZ, GAIN_DB)


class Place(NamedTuple):
    """What a place does; None where it does not.

    Attributes:
        t60_s, direct_db: of the room, see ``mix.rooms.synthetic_room``.
        low_cut_hz, high_cut_hz: of the microphone.
        snr_db, colour: of the noise: how much louder the sound is, and its spectrum's slope.
        gain_db: how far away all that is.
    """

    t60_s: float | None
    direct_db: float
    low_cut_hz: float | None
    high_cut_hz: float | None
    snr_db: float | None
    colour: float
    gain_db: float


def draw_place(rng: np.random.Generator) -> Place:
    """A place; as many numbers are drawn for one as for another."""
    here = rng.random(4)
    t60_s = _log_uniform(rng, T60_S)
    direct_db = float(rng.uniform(*DIRECT_DB))
    low, high = _log_uniform(rng, LOW_CUT_HZ), _log_uniform(rng, HIGH_CUT_HZ)
    snr_db, colour = float(rng.uniform(*SNR_DB)), float(rng.uniform(*COLOUR))
    return Place(
        t60_s if here[0] < ROOM else None,
        direct_db,
        low if here[1] < LOW_CUT else None,
        high if here[2] < HIGH_CUT else None,
        snr_db if here[3] < NOISE else None,
        colour,
        float(rng.uniform(*GAIN_DB)),
    )


def placed(sound: np.ndarray, sample_rate: int, number: int) -> np.ndarray:
    """A sound (N,) in the place of a number: (N,) float32, within -1 to 1; silence stays silence.

    Args:
        sound: float32.
        sample_rate: in Hz.
        number: of the place, 0 or above.
    """
    rng = np.random.default_rng(step_seed(number, 0, PLACE))
    return put(sound, sample_rate, draw_place(rng), rng)


def put(sound: np.ndarray, sample_rate: int, place: Place, rng: np.random.Generator) -> np.ndarray:
    """A sound (N,) in a place: (N,) float32; ``rng`` draws the room's tail and the noise."""
    n = len(sound)
    if not sound.any():
        return sound
    response = None
    if place.t60_s is not None:
        response = synthetic_room(sample_rate, place.t60_s, place.direct_db, rng)
        response = response[:n].astype(np.float32)
    # With room for what rings on behind the end, which would else come back at the beginning.
    size = next_fast_len(n + (len(response) if response is not None else n // 8), real=True)
    hz = np.fft.rfftfreq(size, 1 / sample_rate).astype(np.float32)
    spectrum = rfft(sound.astype(np.float32), size)
    if response is not None:
        spectrum *= rfft(response, size)
    if place.low_cut_hz is not None:
        spectrum *= (1 + (place.low_cut_hz / np.maximum(hz, 1.0)) ** (2 * ORDER)) ** -0.5
    if place.high_cut_hz is not None:
        spectrum *= (1 + (hz / place.high_cut_hz) ** (2 * ORDER)) ** -0.5
    heard = irfft(spectrum, size)[:n]
    if place.snr_db is not None:
        power = np.maximum(hz, SOFTEST_HZ) ** np.float32(-place.colour / 2)
        parts = rng.standard_normal((2, len(hz)), dtype=np.float32)
        noise = irfft((parts[0] + 1j * parts[1]) * power, size)[:n]
        ratio = np.square(heard).mean() / np.square(noise).mean() * 10 ** (-place.snr_db / 10)
        heard = heard + noise * np.sqrt(ratio)
    loudest = max(1.0, float(np.abs(heard).max()))
    return (heard * (10 ** (place.gain_db / 20) / loudest)).astype(np.float32)


def _log_uniform(rng: np.random.Generator, between: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(between))))
