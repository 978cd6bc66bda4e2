"""Recordings of tones in noise whose times are known, and settings that learn them in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.strong import StrongClips, read_strong
from ossicle.strong.settings import StrongSettings

RATE = 16_000
SECONDS = 2.0
TONES = {"high": 3000.0, "low": 400.0}
COUNTS = {"train": 24, "valid": 8, "test": 8}
# A network of a few thousand weights.
NETWORK = {"channels": 16, "hidden": 16, "recurrent_layers": 1, "dropout": 0.1}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tones(seed: int, seconds: float = SECONDS) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """(N,) noise with none, one or both of the tones in it, and when they sound."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    x, events = 0.02 * rng.normal(size=len(t)), []
    for name, hz in TONES.items():
        if rng.random() < 0.75:
            onset = rng.uniform(0.1, seconds - 1.0)
            offset = onset + rng.uniform(0.4, 0.8)
            on = (t >= onset) & (t < offset)
            x += 0.2 * on * np.sin(2 * np.pi * hz * rng.uniform(0.97, 1.03) * t)
            events.append((name, float(onset), float(offset)))
    return x, events


def write_tones(root: Path, counts: dict[str, int], weak: tuple[str, ...] = ()) -> pd.DataFrame:
    """Recordings and their table, two of them a group; of recordings in ``weak`` no times."""
    rows = []
    for part, n in counts.items():
        for i in range(n):
            name = f"{part}{i:02d}.wav"
            x, events = tones(1000 * list(counts).index(part) + i)
            soundfile.write(root / name, x, RATE, "PCM_16")
            about = {"file": name, "split": part, "group": f"{part}{i // 2}"}
            nothing = {"onset": "", "offset": "", "label": ""}
            if name in weak:
                label = ";".join(event[0] for event in events)
                rows.append({**about, **nothing, "label": label})
            elif not events:
                rows.append({**about, **nothing})
            else:
                rows += [
                    {**about, "label": label, "onset": onset, "offset": offset}
                    for label, onset, offset in events
                ]
    table = pd.DataFrame(rows)
    table.to_csv(root / "events.csv", index=False)
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tones")
    write_tones(root, COUNTS)
    return root


@pytest.fixture(scope="module")
def clips(folder) -> StrongClips:
    return read_strong(folder / "events.csv")


@pytest.fixture(scope="module")
def settings() -> StrongSettings:
    """Nothing transferred, so that nothing is fetched; a second or two a run."""
    return StrongSettings(
        inputs="mel",
        epochs=12,
        batch_size=4,
        learning_rate=5e-3,
        window_s=2.0,
        augment="none",
        average=0.9,
        patience=0,
    )
