"""`ossicle tune`: windows and thresholds from labelled recordings, kept in the bundle."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.datasets.strong import read_strong
from ossicle.detect.parameters import rules_of, window_of
from ossicle.errors import DataError
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.strong.tuned import tune

RATE = 16_000


@pytest.fixture(scope="module")
def model() -> Model:
    """Tells loud from quiet, but with a border far from one half: tuning has something to find."""
    base = create_model("mel", seed=0)
    readout = [f"{base.layers[0]}/mean"]
    width = sum(base.block_sizes(readout).values())
    weight = torch.zeros(2, width)
    weight[0] = 1 / width
    head = Head.from_layers([(weight, torch.tensor([-1.5, -9.0]))])
    return Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=readout,
        head=head,
        classes=("loud", "never"),
        task="multilabel",
    ).eval()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Bursts of two seconds in faint noise; a third of the files is for testing."""
    root = tmp_path_factory.mktemp("bursts")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(18):
        split = ("train", "validation", "test")[number % 3]
        x = rng.standard_normal(RATE * 16) * 1e-4
        for k in range(3):
            onset = 1 + 5 * k + rng.integers(0, 4) * 0.25
            x[round(onset * RATE) : round((onset + 2) * RATE)] *= 1000
            rows.append((f"{number}.wav", onset, onset + 2, "loud", split))
        if number == 4:
            rows.append((f"{number}.wav", 0.0, 1.0, "unheard of", split))
        soundfile.write(root / f"{number}.wav", x.clip(-1, 1), RATE)
    table = pd.DataFrame(rows, columns=["file", "onset", "offset", "label", "split"])
    table.to_csv(root / "events.csv", index=False)
    return root


def test_windows_and_thresholds_are_found_on_the_validation_part(model, recordings, tmp_path):
    clips = read_strong(recordings)
    tuned = tune(model, clips, windows_s=(4.0, 0.5), seed=0)
    kept = tuned.model.info["detection"]
    assert (kept["window_s"], kept["step_s"]) == (0.5, 0.25)
    assert tuned.account["recordings"] == 6
    assert tuned.tested is not None
    assert tuned.tested.scores["recordings"] == 6
    f1 = tuned.tested.scores["event"]["per_class"]["loud"]["f1"]["value"]
    assert f1 > 0.9
    # With a threshold of one half nothing would be found.
    assert tuned.account["classes"]["loud"]["f1_default"] < 0.1
    notes = " ".join(tuned.account["notes"])
    assert "unheard of" in notes and "never" in notes
    read = bundle.load(bundle.save(tuned.model, tmp_path / "tuned.ossicle"))
    assert rules_of(read) == rules_of(tuned.model)
    grid = window_of(read)
    assert grid.seconds(grid.width) == 0.5
    assert "detection" not in model.info


def test_labels_that_the_model_does_not_know_are_refused(model, recordings, tmp_path):
    table = pd.read_csv(recordings / "events.csv")
    table["file"] = [str(recordings / name) for name in table["file"]]
    table["label"] = "thunder"
    table.to_csv(tmp_path / "events.csv", index=False)
    with pytest.raises(DataError, match="thunder"):
        tune(model, read_strong(tmp_path / "events.csv"))


def test_tune_detect_and_score_from_the_command_line(ossicle, model, recordings, tmp_path):
    saved = bundle.save(model, tmp_path / "loud.ossicle")
    tuned = tmp_path / "tuned.ossicle"
    code, out, err = ossicle("tune", saved, recordings, "-o", tuned, "--window", "0.5,4")
    assert code == 0, err
    assert "windows of 0.5 s every 0.25 s" in out and "6 test recordings" in out
    code, out, err = ossicle("detect", tuned, recordings, "-o", tmp_path / "found")
    assert code == 0, err
    command = ("events", "score", recordings, tmp_path / "found" / "events.csv")
    code, out, err = ossicle(*command, "--split", "test", "--json", "-o", tmp_path / "s.json")
    assert code == 0, err
    scores = json.loads(out)
    assert scores == json.loads((tmp_path / "s.json").read_text())
    assert scores["event"]["per_class"]["loud"]["f1"]["value"] > 0.9
    assert scores["recordings"] == 6
    # The same from label files, whose names have no ending.
    code, out, err = ossicle(
        *("events", "score", recordings / "events.csv"), tmp_path / "found" / "audacity" / "2.txt"
    )
    assert code == 0, err
    assert "18 recordings" in out
    code, _, err = ossicle("events", "score", recordings, tmp_path / "found" / "files.csv")
    assert code == 2 and err.count("\n") == 1
    code, _, err = ossicle("tune", saved, recordings, "-o", tuned, "--window", "long")
    assert code == 2 and "--window" in err
