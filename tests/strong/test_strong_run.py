"""Training from recordings to a detector: tones are learnt, and a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import NETWORK, TONES
from ossicle import bundle
from ossicle.detect.rules import Rules
from ossicle.errors import DataError
from ossicle.strong.evaluated import card_of, evaluate_detector, summary
from ossicle.strong.run import train_detector
from ossicle.train import TrainingError


@pytest.fixture(scope="module")
def trained(clips, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return train_detector(clips, settings, folder, network=NETWORK), folder


def test_tones_are_learnt(trained, clips):
    done, _ = trained
    tested = evaluate_detector(done.detector, clips.subset(done.parts.test), done.rules)
    f1 = tested.scores["event"]["macro"]["f1"]
    assert f1["low"] <= f1["value"] <= f1["high"]
    # A detector that knows nothing of when finds no event within 0.2 s of both ends.
    assert f1["value"] > 0.8
    assert tested.scores["psds1"]["psds"]["value"] > 0.6
    assert not tested.skipped
    assert sum("95 % interval" in line for line in summary(tested)) == 5
    assert set(tested.events["label"]) <= set(TONES)
    card = card_of(done.detector, tested, "tones")
    assert "| high | " in card
    assert card.count("## ") == card.count("\n## ")


def test_the_bundle_holds_the_rules_and_the_same_numbers(trained, clips, tmp_path):
    done, _ = trained
    bundle.save(done.detector, tmp_path / "tones.ossicle")
    again = bundle.load(tmp_path / "tones.ossicle")
    rules = Rules.from_json(again.info["detection"]["rules"], again.classes)
    assert rules == done.rules
    assert again.info["detection"]["fitted"]["recordings"] == 8
    assert again.info["strong"]["inputs"] == "mel"
    assert again.info["n_clips"] == 24
    x = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    want, got = done.detector.frame_scores(x), again.frame_scores(x)
    np.testing.assert_array_equal(got.scores, want.scores)
    np.testing.assert_array_equal(got.edges, want.edges)


def test_parts_are_the_datas_own(trained, clips):
    parts = trained[0].parts
    splits = clips.files["split"].to_numpy()
    assert set(splits[parts.train]) == {"train"}
    assert set(splits[parts.validation]) == {"validation"}
    assert set(splits[parts.test]) == {"test"}


@pytest.mark.parametrize("precompute", [True, False])
def test_a_stopped_run_goes_on_as_if_it_had_not(clips, settings, tmp_path, precompute):
    short = replace(settings, epochs=2, augment="mix", precompute=precompute, warm_up=0.5)
    whole = train_detector(clips, short, None, network=NETWORK)

    def stop(done, total, seconds):
        if done == 5:
            raise KeyboardInterrupt

    from ossicle.strong import run

    fit, folder = run.fit, tmp_path / "run"

    def saving(*args, **kwargs):
        return fit(*args, **kwargs, checkpoint_minutes=0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "fit", saving)
        with pytest.raises(KeyboardInterrupt):
            train_detector(clips, short, folder, network=NETWORK, progress=stop)
        resumed = train_detector(clips, short, folder, network=NETWORK)
    assert resumed.rules == whole.rules
    assert resumed.epoch == whole.epoch
    a, b = whole.detector.state_dict(), resumed.detector.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(TrainingError, match="holds a run with other arguments"):
        train_detector(clips, replace(short, seed=1), folder, network=NETWORK)


def test_frames_of_a_front_that_was_kept_are_read_not_made(clips, settings, tmp_path, monkeypatch):
    short = replace(settings, epochs=1)
    train_detector(clips, short, tmp_path, network=NETWORK)
    from ossicle.strong.front import Front

    def never(self, waveform):
        raise AssertionError("made anew")

    monkeypatch.setattr(Front, "flat", never)
    train_detector(clips, short, tmp_path, network=NETWORK)


def test_no_strong_labels_are_refused_in_a_line(clips, settings):
    files = clips.files.assign(kind="weak")
    with pytest.raises(DataError, match="no recording has strong labels"):
        train_detector(replace(clips, files=files), settings, None, network=NETWORK)
