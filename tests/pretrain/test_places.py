"""Places: each thing that one does against its slow definition, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from ossicle.mix.rooms import synthetic_room
from ossicle.pretrain import places
from ossicle.pretrain.places import Place, draw_place, placed, put

RATE = 16_000
NOWHERE = Place(None, 0.0, None, None, None, 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(seconds: float = 1.0, level: float = 0.05, seed: int = 0) -> np.ndarray:
    return (level * rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(np.square(a, dtype=float).mean() / np.square(b, dtype=float).mean())


# --- what is done ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 999, 16_000, 24_001])
def test_nowhere_changes_nothing(n):
    sound = noise()[:n] if n <= RATE else noise(2)[:n]
    heard = put(sound, RATE, NOWHERE, rng())
    assert heard.shape == (n,) and heard.dtype == np.float32
    assert np.allclose(heard, sound, atol=1e-6)


@pytest.mark.parametrize(("t60_s", "seconds"), [(0.2, 1.0), (0.9, 1.0), (1.0, 0.3)])
def test_a_room_is_a_convolution(t60_s, seconds):
    """Of a longer tail than the window too: what rings on does not come back at the beginning."""
    sound = noise(seconds)
    heard = put(sound, RATE, NOWHERE._replace(t60_s=t60_s, direct_db=3.0), rng(4))
    response = synthetic_room(RATE, t60_s, 3.0, rng(4))
    want = np.convolve(sound.astype(float), response)[: len(sound)]
    assert np.abs(heard - want).max() < 1e-5 * len(response) ** 0.5


@pytest.mark.parametrize("cut", ["low_cut_hz", "high_cut_hz"])
@pytest.mark.parametrize("hz", [100.0, 400.0, 2_000.0, 6_000.0])
def test_a_microphone_is_butterworths_magnitude(cut, hz):
    """A tone at the cut loses 3 dB; an octave beyond it 24, as order 4 does."""
    t = np.arange(2 * RATE) / RATE
    for octaves in (-1.0, 0.0, 0.3, 1.0):
        tone = 0.1 * np.sin(2 * np.pi * hz * 2**octaves * t)
        if hz * 2**octaves > 0.45 * RATE:
            continue
        heard = put(tone.astype(np.float32), RATE, NOWHERE._replace(**{cut: hz}), rng())
        middle = slice(RATE // 2, 3 * RATE // 2)
        ratio = 2.0 ** (8 * octaves * (1 if cut == "high_cut_hz" else -1))
        want = -10 * np.log10(1 + ratio)
        assert decibels(heard[middle], tone[middle]) == pytest.approx(want, abs=0.1)


@pytest.mark.parametrize("snr_db", [0.0, 12.0, 40.0])
@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_is_so_much_softer_and_so_coloured(snr_db, colour):
    sound = noise(4.0)
    there = NOWHERE._replace(snr_db=snr_db, colour=colour)
    added = put(sound, RATE, there, rng(1)).astype(float) - sound
    assert -decibels(added, sound) == pytest.approx(snr_db, abs=0.05)
    power = np.abs(np.fft.rfft(added)) ** 2
    hz = np.fft.rfftfreq(len(added), 1 / RATE)

    def band(low: float) -> float:
        return 10 * np.log10(power[(hz >= low) & (hz < 2 * low)].mean())

    # Of float32, whose rounding is white, only what is well above it can be told.
    slope = (band(200.0) - band(1_600.0)) / 3
    assert slope == pytest.approx(10 * np.log10(2) * colour, abs=0.5)
    assert abs(np.corrcoef(added, sound)[0, 1]) < 0.05


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 0.0])
def test_distance_is_a_gain(gain_db):
    sound = noise()
    heard = put(sound, RATE, NOWHERE._replace(gain_db=gain_db), rng())
    assert decibels(heard, sound) == pytest.approx(gain_db, abs=0.01)


def test_nothing_is_louder_than_can_be():
    sound = np.sign(noise()) * np.float32(0.99)
    for number in range(40):
        heard = placed(sound, RATE, number)
        assert np.abs(heard).max() <= 1 and np.isfinite(heard).all()
        assert heard.dtype == np.float32 and heard.shape == sound.shape
    clean = put(sound, RATE, NOWHERE._replace(snr_db=0.0), rng())
    assert np.abs(clean).max() == pytest.approx(1.0)


def test_silence_is_silent_everywhere():
    silence = np.zeros(4_000, np.float32)
    for number in range(20):
        assert not placed(silence, RATE, number).any()


def test_what_comes_first_stays_first():
    """Neither rooms nor filters put anything at the other end of the window."""
    sound = np.zeros(RATE, np.float32)
    sound[-200:] = noise()[:200]
    there = NOWHERE._replace(t60_s=0.8, direct_db=0.0, high_cut_hz=3_000.0)
    heard = put(sound, RATE, there, rng())
    assert np.abs(heard[: RATE // 2]).max() < 1e-3 * np.abs(heard).max()


# --- what is drawn ---------------------------------------------------------------------------


def test_a_number_is_a_place():
    sound = noise()
    heard = [placed(sound, RATE, number) for number in (3, 3, 4)]
    assert np.array_equal(heard[0], heard[1])
    assert not np.allclose(heard[0], heard[2], atol=1e-3)


def test_places_are_drawn_as_said():
    drawn = [draw_place(rng(i)) for i in range(3000)]
    shares = {
        "t60_s": places.ROOM,
        "low_cut_hz": places.LOW_CUT,
        "high_cut_hz": places.HIGH_CUT,
        "snr_db": places.NOISE,
    }
    ranges = {
        "t60_s": places.T60_S,
        "direct_db": places.DIRECT_DB,
        "low_cut_hz": places.LOW_CUT_HZ,
        "high_cut_hz": places.HIGH_CUT_HZ,
        "snr_db": places.SNR_DB,
        "colour": places.COLOUR,
        "gain_db": places.GAIN_DB,
    }
    for name, (low, high) in ranges.items():
        values = [v for v in (getattr(place, name) for place in drawn) if v is not None]
        share = shares.get(name, 1.0)
        assert abs(len(values) / 3000 - share) <= 4 * np.sqrt(share * (1 - share) / 3000), name
        assert low <= min(values) and max(values) <= high, name
        span = high - low
        assert min(values) < low + 0.02 * span and max(values) > high - 0.02 * span, name
