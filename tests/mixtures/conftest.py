"""Clips of tones in noise: each speaker has a pitch, each recording a file of its own bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 8000
HZ = {"ada": 150.0, "bob": 260.0, "cyd": 400.0, "dee": 700.0, "eve": 1100.0, "fay": 1700.0}


def _word(draw: np.random.Generator, hz: float, length_s: float) -> np.ndarray:
    """A tone with noise between two pauses."""
    length = round(length_s * RATE)
    a, b = round(0.15 * length), round(0.85 * length)
    samples = np.zeros(length)
    tone = np.sin(2 * np.pi * hz * np.arange(b - a) / RATE)
    samples[a:b] = draw.uniform(0.05, 0.5) * (tone + 0.1 * draw.standard_normal(b - a))
    return np.clip(samples, -1, 1)


@pytest.fixture(scope="session")
def speakers(tmp_path_factory) -> Path:
    """Six speakers, each ten clips of 0.4 to 0.8 s: SPEAKER/WORD-TAKE.wav."""
    root = tmp_path_factory.mktemp("speakers")
    draw = np.random.default_rng(3)
    for speaker, hz in HZ.items():
        (root / speaker).mkdir()
        for word in range(5):
            for take in "AB":
                samples = _word(draw, hz, draw.uniform(0.4, 0.8))
                soundfile.write(root / speaker / f"{word}-{take}.wav", samples, RATE)
    return root


@pytest.fixture(scope="session")
def noises(tmp_path_factory) -> Path:
    """Two kinds of noise, eight recordings of 1.5 s each; the second half of each is silent."""
    root = tmp_path_factory.mktemp("noises")
    draw = np.random.default_rng(4)
    for kind in ("hiss", "hum"):
        (root / kind).mkdir()
        for number in range(8):
            samples = np.zeros(round(1.5 * RATE))
            half = len(samples) // 2
            samples[:half] = 0.1 * draw.standard_normal(half)
            if kind == "hum":
                samples[:half] += 0.2 * np.sin(2 * np.pi * 60 * np.arange(half) / RATE)
            soundfile.write(root / kind / f"n{number}.wav", samples, RATE)
    return root
