"""Sounds that a task can be made of in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ossicle.audio import Audio, save
from ossicle.datasets.clips import Clips, read_clips

RATE = 16_000


def sound(kind: str, generator: np.random.Generator, seconds: float = 0.3) -> np.ndarray:
    """(N,) of a class: a low tone, a high tone, or noise; each with some noise of its own."""
    t = np.arange(round(seconds * RATE)) / RATE
    noise = generator.normal(size=len(t))
    pitch = {"low": 300.0, "high": 2500.0}.get(kind)
    if pitch is None:
        return 0.1 * noise
    return 0.3 * np.sin(2 * np.pi * pitch * generator.uniform(0.8, 1.2) * t) + 0.02 * noise


def _write_task(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Three classes, two clips a recording: `low/low_r03_1.wav`."""
    generator = np.random.default_rng(seed)
    for kind in ("low", "high", "noise"):
        (folder / kind).mkdir(parents=True)
        for i in range(per_class):
            path = folder / kind / f"{kind}_r{i // 2:02d}_{i % 2}.wav"
            save(path, Audio(np.float32(sound(kind, generator))[None], RATE))
    return folder


@pytest.fixture(scope="session")
def write_task():
    """Writes such a task: (folder, clips a class, seed) -> folder."""
    return _write_task


@pytest.fixture(scope="session")
def tones_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes, 12 clips each, of 6 recordings."""
    return _write_task(tmp_path_factory.mktemp("advise") / "tones", 12)


@pytest.fixture(scope="session")
def tones(tones_folder: Path) -> Clips:
    """The clips of that folder, grouped by recording."""
    return read_clips(tones_folder, groups=r"/([a-z]+_r\d+)_/")
