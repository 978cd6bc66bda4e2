"""Clips made of tones, so that each class can be told by its pitch; padded with silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16000
HZ = {"high": 3000.0, "low": 400.0, "middle": 1100.0}


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """Three classes of 12 clips, two of each of 6 recordings; NAME/RECORDING-TAKE.wav."""
    root = tmp_path_factory.mktemp("tones")
    draw = np.random.default_rng(7)
    for label, hz in HZ.items():
        (root / label).mkdir()
        for recording in range(6):
            for take in "AB":
                samples = np.zeros(round(1.6 * RATE))
                a = round(draw.uniform(0.1, 0.4) * RATE)
                b = a + round(draw.uniform(0.3, 0.9) * RATE)
                t = np.arange(b - a) / RATE
                tone = np.sin(2 * np.pi * hz * draw.uniform(0.95, 1.05) * t)
                samples[a:b] = draw.uniform(0.1, 0.5) * tone
                name = f"{label[0]}{recording}-{take}.wav"
                soundfile.write(root / label / name, samples, RATE)
    return root


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> Path:
    """One background recording of 30 s and, in `many`, six short ones."""
    root = tmp_path_factory.mktemp("street")
    draw = np.random.default_rng(8)
    soundfile.write(root / "long.wav", 0.05 * draw.standard_normal(30 * RATE), RATE)
    (root / "many").mkdir()
    for number in range(6):
        noise = 0.05 * draw.standard_normal(RATE + 1000 * number)
        soundfile.write(root / "many" / f"{number}.wav", noise, RATE)
    return root
