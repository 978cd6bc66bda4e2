"""The verb: recordings with events in; bundle, scores, card and found events out."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.cli_strong import train_detector
from ossicle.detector import Detector
from ossicle.errors import OssicleError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(train_detector)
SMALL = [
    *("--inputs", "mel", "--epochs", "2", "--batch-size", "8", "--window", "2"),
    *("--set", "channels=16", "--set", "hidden=16", "--workers", "1"),
]


def run(*arguments: object):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, OssicleError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def test_a_detector_is_trained_scored_and_written(folder, tmp_path):
    out = tmp_path / "tones.ossicle"
    done = run(folder / "events.csv", "-o", out, *SMALL, "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["model"] == str(out)
    detector = bundle.load(out)
    assert isinstance(detector, Detector)
    assert detector.clip.window_s == 2.0
    assert list(detector.info["detection"]["rules"]["classes"]) == ["high", "low"]
    saved = json.loads((out / "scores.json").read_text())
    assert saved["recordings"] == {"train": 24, "validation": 8, "test": 8}
    f1 = saved["scores"]["event"]["macro"]["f1"]
    assert f1["low"] <= f1["value"] <= f1["high"]
    assert detector.info["score"] == {"metric": "event F1", **f1}
    assert told["scores"]["psds1"]["psds"]["value"] == saved["scores"]["psds1"]["psds"]["value"]
    assert saved["record"]["arguments"]["inputs"] == "mel"
    card = (out / "README.md").read_text()
    assert f"event F1, micro: {saved['scores']['event']['micro']['f1']['value']:.3f}" in card
    assert "| low | " in card
    events = pd.read_csv(out / "test_events.csv")
    assert list(events.columns[:5]) == ["file", "onset", "offset", "label", "score"]
    assert len(events) == saved["scores"]["estimated_events"]
    # What the run needed is gone.
    assert not (tmp_path / "tones-training").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--inputs", "waves"], "unknown inputs 'waves'"),
        (["--epochs", "0"], "epochs is 0"),
        (["--set", "base=yamnet"], "base is what inputs and backbone say"),
        (["--set", "bands=3"], "bands"),
        (["--backbone", "mfcc", "--inputs", "both"], "mfcc"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(folder, tmp_path, more, said):
    with pytest.raises(OssicleError) as caught:
        run(folder / "events.csv", "-o", tmp_path / "x.ossicle", *SMALL, *more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_bundle_stays(folder, tmp_path):
    with pytest.raises(OssicleError, match="is not a bundle"):
        run(folder / "events.csv", "-o", tmp_path, *SMALL)


def test_options_of_clips_are_refused_with_strong(ossicle, tmp_path):
    code, _, err = ossicle("train", tmp_path, "-o", tmp_path / "x", "--strong", "--probe", "svm")
    assert code == 2
    assert err.strip() == "--probe is not for --strong: see `ossicle train-detector --help`"
