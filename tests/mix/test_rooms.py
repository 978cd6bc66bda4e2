"""Rooms: the decay that was asked for, the direct sound first, convolution by its definition."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from ossicle.errors import AudioError
from ossicle.mix.rooms import measured_room, reverberate, synthetic_room

RATE = 16000


def schroeder_t60(response: np.ndarray, rate: int) -> float:
    """T60 by the slope of the backward-integrated energy between -5 and -35 dB (ISO 3382: T30)."""
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response**2))
    at = np.flatnonzero((decay < -5) & (decay > -35))
    slope = np.polyfit(at / rate, decay[at], 1)[0]
    return -60 / slope


@pytest.mark.parametrize("t60_s", [0.2, 0.5, 1.3])
def test_decay_is_the_one_asked_for(t60_s):
    times = []
    for seed in range(5):
        room = synthetic_room(RATE, t60_s, -3.0, np.random.default_rng(seed))
        times.append(schroeder_t60(room[1:], RATE))
    assert np.mean(times) == pytest.approx(t60_s, rel=0.05)


@pytest.mark.parametrize("direct_db", [-6.0, 0.0, 12.0])
def test_direct_sound_comes_first_and_has_its_energy(direct_db):
    room = synthetic_room(RATE, 0.4, direct_db, np.random.default_rng(0))
    assert room[0] == 1.0
    assert 10 * np.log10(1 / np.sum(room[1:] ** 2)) == pytest.approx(direct_db)
    assert len(room) == 1 + 0.4 * RATE


def test_convolution_by_its_definition():
    draw = np.random.default_rng(3)
    x, h = draw.standard_normal(700), draw.standard_normal(90)
    slow = np.zeros(len(x) + len(h) - 1)
    for i, value in enumerate(x):
        slow[i : i + len(h)] += value * h
    assert np.allclose(reverberate(x, h), slow, atol=1e-12)


def test_measured_room_begins_with_its_direct_sound(tmp_path):
    response = np.zeros(4000)
    response[123] = -0.5
    response[1000] = 0.25
    soundfile.write(tmp_path / "hall.wav", response, RATE, "FLOAT")
    room = measured_room(tmp_path / "hall.wav", RATE)
    assert room[0] == 1.0
    assert room[1000 - 123] == pytest.approx(-0.5)
    assert np.count_nonzero(room) == 2
    soundfile.write(tmp_path / "none.wav", np.zeros(100), RATE)
    with pytest.raises(AudioError, match="silent"):
        measured_room(tmp_path / "none.wav", RATE)
