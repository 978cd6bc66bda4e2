"""A bundle saved by an earlier version loads in this one with the same numbers.

The bundles here were saved by ossicle 0.1.0 in bundle format 1 and are never made again; a later
format adds its own beside them. `expected.json` holds what that version computed of `sound()`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ossicle import bundle
from ossicle.model import create_model

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
BUNDLES = sorted(p.name for p in HERE.glob("bundle_v*"))


def sound(rate: int) -> np.ndarray:
    """(2.5 rate,) a falling chord in a pulsing hiss, the hiss from integers alone."""
    n = round(2.5 * rate)
    t = np.arange(n) / rate
    chord = sum(
        np.sin(2 * np.pi * f * (t - 0.1 * t**2)) / i for i, f in enumerate((220, 331, 890), 1)
    )
    hiss = (np.arange(n, dtype=np.int64) ** 2 * 48_271 % 65_537) / 32_768.5 - 1
    pulse = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)
    return (0.2 * chord + 0.05 * pulse * hiss).astype(np.float32)


@pytest.mark.parametrize("name", BUNDLES)
def test_an_old_bundle_gives_its_old_numbers(name, tmp_path):
    expected = EXPECTED[name]
    model = bundle.load(HERE / name)
    assert list(model.classes) == expected["classes"]
    assert model.task == expected["task"]
    samples = sound(model.sample_rate)
    assert np.allclose(model.clip_scores(samples), expected["scores"], rtol=1e-4, atol=1e-6)
    for block, values in expected["features"].items():
        assert np.allclose(model.clip_features(samples)[block], values, rtol=1e-4, atol=1e-4)
    # Saved again by this version, it still gives them.
    again = bundle.load(bundle.save(model, tmp_path / "again"))
    assert np.array_equal(again.clip_scores(samples), model.clip_scores(samples))


def test_there_is_a_bundle_of_every_format():
    assert {int(name.split("_")[1][1:]) for name in BUNDLES} == set(
        range(1, bundle.FORMAT_VERSION + 1)
    )
    size = sum(p.stat().st_size for p in HERE.rglob("*") if p.suffix != ".py")
    assert size < 100_000


@pytest.mark.parametrize("name", EXPECTED["random"])
def test_a_seed_gives_the_network_it_gave(name):
    """Random weights are known by their seed alone, so the seed must keep its meaning."""
    model = create_model(name, seed=0)
    block = f"{model.layers[-1]}/mean"
    values = model.clip_features(sound(model.sample_rate), poolings=["mean"])[block]
    assert np.allclose(values[:32], EXPECTED["random"][name], rtol=1e-3, atol=1e-4)


def test_the_bundles_are_as_they_were_saved(tmp_path):
    """Reading changes nothing in the folder."""
    for name in BUNDLES:
        shutil.copytree(HERE / name, tmp_path / name)
        before = {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        bundle.load(tmp_path / name)
        assert {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} == before
