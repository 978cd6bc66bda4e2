"""Sizes, bandwidths and evidence of a task, against closed forms and limits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from ossicle.advise.measure import explained, last_to_best, measure
from ossicle.advise.task_size import bandwidth, sound, task_size
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.record import json_safe


def test_sizes_are_counted(tones):
    size = task_size(tones)
    assert size["n_clips"] == 36
    assert size["n_groups"] == 18
    assert size["clips_per_class"] == {"high": 12, "low": 12, "noise": 12}
    assert size["groups_per_class"] == {"high": 6, "low": 6, "noise": 6}
    assert (size["median_clips"], size["least_clips"], size["median_groups"]) == (12, 12, 6)
    fewer = tones.subset(np.r_[0:12, 12:16, 24:30])
    assert task_size(fewer)["least_clips"] == 4
    assert task_size(fewer)["median_clips"] == 6


def test_lengths_and_bandwidths_are_those_of_the_files(tones):
    low = tones.subset([i for i, v in enumerate(tones.table["label"]) if v == "low"])
    heard = sound(low)
    assert heard["seconds"]["median"] == pytest.approx(0.3, abs=1e-3)
    assert heard["rate"] == 16_000
    # Tones from 240 to 360 Hz over noise 20 dB below, of which 8 kHz hold a 1 % share.
    assert 240 < heard["bandwidth"] < 1000
    assert heard["n_looked_at"] == heard["n_listened_to"] == 12


def test_the_bandwidth_of_a_tone_is_its_pitch_and_of_noise_the_rate():
    t = np.arange(32_000) / 16_000
    for pitch in (440.0, 3000.0):
        found = bandwidth(np.sin(2 * np.pi * pitch * t), 16_000)
        assert found == pytest.approx(pitch, abs=3 * 16_000 / 2048)
    noise = np.random.default_rng(0).normal(size=160_000)
    assert bandwidth(noise, 16_000) == pytest.approx(0.99 * 8000, rel=0.01)
    assert bandwidth(np.ones(4000), 16_000) is None
    assert bandwidth(np.sin(2 * np.pi * 440 * t[:300]), 16_000) is not None


def evidence(F: np.ndarray, y: np.ndarray) -> float:
    """Log evidence a clip, by trying ratios of the two variances: the definition, slowly."""
    n, best = len(y), -np.inf
    for ratio in np.logspace(-4, 8, 600):
        shape = F @ F.T / ratio + np.eye(n)
        scale = y @ np.linalg.solve(shape, y) / n
        best = max(best, multivariate_normal(np.zeros(n), scale * shape).logpdf(y) / n)
    return float(best)


def test_what_is_explained_is_the_evidence_beyond_a_constant():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 5)) * [1, 2, 3, 4, 5] + 7
    y = generator.integers(0, 2, 40)
    Z = (X - X.mean(0)) / X.std(0)
    constant = np.ones((40, 1))
    F = np.hstack([Z, np.sqrt(5) * constant])
    targets = np.eye(2)[y].T
    whole = np.mean([evidence(F, t) for t in targets])
    nothing = np.mean([evidence(constant, t) for t in targets])
    found = explained(X, y, "classes")
    assert found["log_me"] == pytest.approx(whole, abs=1e-4)
    assert found["explained"] == pytest.approx(1 - np.exp(-2 * (whole - nothing)), abs=1e-3)


def test_many_clips_explain_their_share_of_variance():
    generator = np.random.default_rng(1)
    X = generator.normal(size=(3000, 3))
    for share in (0.0, 0.5, 0.9):
        noise = generator.normal(size=3000)
        y = np.sqrt(share) * X[:, 0] + np.sqrt(1 - share) * noise + 4
        found = explained(X, y.astype(np.float32), "regression")["explained"]
        assert found == pytest.approx(share, abs=0.03)


def test_copies_of_features_change_nothing():
    generator = np.random.default_rng(2)
    X = generator.normal(size=(50, 4))
    y = (X[:, 0] > 0).astype(int)
    once = explained(X, y, "classes")
    assert explained(np.tile(X, 3), y, "classes") == pytest.approx(once, abs=1e-6)
    assert explained(5 * X - 2, y, "classes") == pytest.approx(once, abs=1e-6)


def test_the_last_layer_is_set_beside_all():
    def share(last: float, every: float) -> float:
        return last_to_best({"last": {"neighbours": last}, "all": {"neighbours": every}}, 0.25)

    assert share(0.625, 1.0) == pytest.approx(0.5)
    assert share(1.0, 1.0) == share(0.9, 0.8) == 1.0
    assert share(0.2, 0.9) == share(0.2, 0.2) == 0.0


def test_a_task_is_measured_with_a_network_without_weights(tones):
    found = measure(tones, "mel", limit=30, seed=1)
    facts: Any = found.facts
    assert json.dumps(json_safe(facts))
    assert len(found.clips) == facts["sample"]["n_clips"] == 30
    assert facts["sample"]["chance"] == pytest.approx(1 / 3)
    assert facts["size"]["n_clips"] == 36
    assert set(facts["read_outs"]) == {"all", "last", "mfcc"}
    # Two pitches and noise: easy for a mel spectrum.
    assert facts["read_outs"]["all"]["centroid"] > 0.9
    assert facts["network"]["pretrained"] is False
    assert any("learnt from nothing" in text for text in facts["not_measured"])
    assert facts["source"] is None
    for train, test in found.folds:
        groups = found.clips.groups()
        assert not set(groups[train]) & set(groups[test])


def test_one_class_is_refused(tones_folder, tmp_path):
    (tmp_path / "one").symlink_to(tones_folder / "low")
    with pytest.raises(DataError, match="one class only"):
        measure(read_clips(tmp_path), "mel")
