"""The source's classifier on the target's clips, and the distance of two sets of recordings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from ossicle.advise.measure import last_mean
from ossicle.advise.source import head_evidence, source_distance
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.features import extract
from ossicle.model import create_model


def hears(answers, classes=("dog", "rain", "siren")):
    """A stand-in for a model with a head: the answer for a clip by its loudness."""
    return SimpleNamespace(
        head=object(),
        task="multilabel",
        classes=classes,
        sample_rate=16_000,
        clip_scores=lambda samples: answers(samples),
    )


def by_pitch(samples):
    crossings = np.mean(np.diff(np.sign(samples)) != 0)
    if crossings < 0.2:
        return np.array([0.9, 0.05, 0.05])
    return np.array([0.1, 0.8, 0.1]) if crossings < 0.42 else np.array([0.1, 0.1, 0.4])


def test_a_classifier_that_tells_the_classes_apart(tones):
    found = head_evidence(hears(by_pitch), tones)
    y = tones.y()
    assert found["n_classes"] == 3
    assert found["top"] == pytest.approx((0.9 + 0.8 + 0.4) / 3, abs=1e-6)
    assert found["claimed"] == pytest.approx(2 / 3)
    assert set(found["names"]) == {"dog", "rain", "siren"}
    # The hard labels determine the classes: H(Y|Z) = H(Y) - I(Y; Z) = 0.
    heard = np.array([{"low": 0, "high": 1, "noise": 2}[v] for v in tones.table["label"]])
    conditional = np.log(3) - mutual_info_score(y, heard)
    assert found["nce"] == pytest.approx(-conditional, abs=1e-9)
    assert found["floor"] == pytest.approx(-np.log(3))
    rows = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [1 / 6, 1 / 6, 2 / 3]])
    entropy = -np.sum(rows * np.log(rows), axis=1).mean() / np.log(3)
    assert found["entropy"] == pytest.approx(entropy, abs=1e-6)
    joint = rows / 3
    leep = np.log(np.sum(rows * joint / joint.sum(0), axis=1)).mean()
    assert found["leep"] == pytest.approx(leep, abs=1e-6)


def test_a_classifier_that_says_the_same_of_all(tones):
    found = head_evidence(hears(lambda samples: np.array([0.2, 0.2, 0.1])), tones)
    assert found["leep"] == pytest.approx(found["floor"])
    assert found["nce"] == pytest.approx(found["floor"])
    assert found["claimed"] == 0.0
    assert found["names"] == ["dog"]


def test_without_a_head_nothing_is_said(tones):
    assert head_evidence(create_model("mel"), tones) is None


def test_recordings_of_the_same_kind_are_near_and_others_far(tones, tmp_path, write_task):
    model = create_model("mfcc")
    table = extract(model, tones)
    features = table.matrix([last_mean(table)])
    there = {
        "alike": write_task(tmp_path / "alike", 12, seed=7),
        "far": write_task(tmp_path / "far", 24, seed=8) / "noise",
    }
    found = {}
    for name, folder in there.items():
        source = read_clips(folder if name == "alike" else folder.parent)
        if name == "far":
            source = source.subset([v == "noise" for v in source.table["label"]])
        found[name] = source_distance(model, features, tones, source, 100)
    near, far = found["alike"], found["far"]
    assert near["proxy_a"]["n_clips"] == 36
    assert far["proxy_a"]["n_clips"] == 24
    assert near["proxy_a"]["value"] < 1 < far["proxy_a"]["value"]
    assert near["frechet"]["value"] < far["frechet"]["value"]
    assert near["kernel"]["low"] <= 0.05 < far["kernel"]["value"]


def test_too_few_recordings_are_refused(tones):
    model = create_model("mel")
    with pytest.raises(DataError, match="too few to compare"):
        source_distance(model, np.zeros((36, 4)), tones, tones.subset(np.arange(10)), 100)
