"""Short sounds of three kinds, and the smallest networks that learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import Clips, read_clips
from ossicle.model import Model, create_model

RATE = 12_000
KINDS = ("hiss", "high", "low")
PER_KIND, PER_GROUP = 12, 2
EXCERPT_S = 0.3


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def sound(kind: str, seed: int, seconds: float) -> np.ndarray:
    """(N,) noise, with a tone of 2.5 kHz or 300 Hz in it, a little off."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    x = 0.05 * rng.normal(size=len(t))
    hz = {"hiss": 0, "high": 2500, "low": 300}[kind] * rng.uniform(0.9, 1.1)
    return x + 0.2 * np.sin(2 * np.pi * hz * t + rng.uniform(0, 6))


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    """A manifest of 36 clips of 0.3 s to 0.45 s; two neighbours are one recording."""
    root = tmp_path_factory.mktemp("sounds")
    rows = []
    for kind in KINDS:
        for i in range(PER_KIND):
            path = root / f"{kind}{i:02d}.wav"
            seed = 100 * KINDS.index(kind) + i
            soundfile.write(path, sound(kind, seed, 0.3 + 0.15 * (i % 4) / 3), RATE, "PCM_16")
            rows.append({"path": str(path), "label": kind, "group": f"{kind}{i // PER_GROUP}"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def clips(frame) -> Clips:
    return read_clips(frame)


@pytest.fixture(scope="module")
def folder(frame) -> Path:
    """The same with a manifest beside the sounds, as the command line reads them."""
    root = Path(frame["path"][0]).parent
    frame.assign(path=[Path(p).name for p in frame["path"]]).to_csv(root / "clips.csv", index=False)
    return root / "clips.csv"


@pytest.fixture
def network() -> Callable[..., Model]:
    """Builds Choi's convnet for 0.3 s, which takes a millisecond a clip."""

    def build(seed: int = 0) -> Model:
        model = create_model("choi_convnet", excerpt_s=EXCERPT_S, seed=seed)
        model.info["pretrained"] = True  # as far as fine-tuning is concerned
        return model

    return build
