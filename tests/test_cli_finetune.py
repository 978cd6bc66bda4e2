"""`ossicle finetune` on short sounds: what it writes and says, stopped and gone on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle import bundle
from ossicle.backbones import DEFAULT_BACKBONE
from ossicle.finetune import job as station
from ossicle.model import create_model

RATE = 12_000
SCRATCH = ["--scratch", "--backbone", "choi_convnet", "--set", "excerpt_s=0.3"]
FEW = ["--epochs", 1, "--batch-size", 8, "--workers", 1]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of eight tones, and a file that is none."""
    root = tmp_path_factory.mktemp("sounds") / "tones"
    rng = np.random.default_rng(0)
    for name, hz in (("high", 2500), ("low", 300)):
        (root / name).mkdir(parents=True)
        for i in range(8):
            t = np.arange(3600 + 150 * i) / RATE
            x = 0.2 * np.sin(2 * np.pi * hz * rng.uniform(0.9, 1.1) * t)
            soundfile.write(root / name / f"{i}.wav", x + 0.05 * rng.normal(size=len(t)), RATE)
    (root / "low" / "broken.wav").write_bytes(b"RIFF, but no sound")
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A bundle to start from."""
    model = create_model("choi_convnet", excerpt_s=0.3)
    model.info["pretrained"] = True
    path = tmp_path_factory.mktemp("nets") / "start.ossicle"
    bundle.save(model, path)
    return path


def test_from_a_bundle_to_a_bundle_with_a_report(ossicle, folder, start, tmp_path):
    out = tmp_path / "mine.ossicle"
    told = [folder, "-o", out, "--backbone", start, "--n-folds", 2, "--learning-rate", 1e-4, *FEW]
    told += ["--layers", "2-5"]
    code, text, _ = ossicle("finetune", *told)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("accuracy ")
    assert any("broken.wav" in line for line in lines)
    assert f"model: {out}" in lines
    report = json.loads((tmp_path / "mine-report" / "report.json").read_text())
    assert report["arguments"]["strategy"] == f"finetune backbone={start} layers=2-5"
    assert report["probe"]["name"] == "fine-tuned"
    assert report["command"].startswith("ossicle finetune ")
    assert (tmp_path / "mine-report" / "report.html").is_file()
    model = bundle.load(out)
    assert model.classes == ("high", "low")
    assert model.info["score"]["value"] == report["accuracy"]
    assert model.info["n_clips"] == 16
    # What a stopped run would have needed is gone.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine-report", "mine.ossicle"]
    code, text, _ = ossicle("predict", out, folder / "high")
    assert code == 0
    assert [row.split(",")[1] for row in text.splitlines()[1:]].count("high") >= 7


def test_from_scratch_as_json(ossicle, folder, tmp_path):
    out = tmp_path / "mine.ossicle"
    code, text, errors = ossicle(
        "finetune", folder, "-o", out, *SCRATCH, *FEW, "--n-folds", 2, "--quick", "--json"
    )
    assert code == 0
    (line,) = text.splitlines()
    told = json.loads(line)
    assert told["model"] == str(out)
    assert told["epochs"] == [1]
    assert told["probe"]["name"] == "trained from scratch"
    assert told["accuracy"] == told["score"]["value"]
    assert told["arguments"]["strategy"] == "scratch backbone=choi_convnet set.excerpt_s=0.3"
    assert told["arguments"]["epochs"] == 1
    assert f"model: {out}" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["mine.ossicle"]
    assert bundle.load(out).readout == ("block5/mean",)


def test_without_an_evaluation(ossicle, folder, tmp_path):
    out = tmp_path / "deep" / "mine.ossicle"
    arguments = ["--no-evaluate", "--seeds", 2, "--pooling", "mean,max", "--layers", "4-5"]
    code, text, _ = ossicle("finetune", folder, "-o", out, *SCRATCH, *FEW, *arguments)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("skipped ")
    assert "broken.wav" in lines[0]
    assert lines[-1] == f"model: {out}"
    assert "of 2 networks" in lines[-2]
    model = bundle.load(out)
    assert "score" not in model.info
    assert model.readout == tuple(f"block{i}/{p}" for i in (4, 5) for p in ("mean", "max"))
    # Once more takes its place.
    code, _, _ = ossicle("finetune", folder, "-o", out, *SCRATCH, *FEW, "--no-evaluate")
    assert code == 0
    assert bundle.load(out).readout == ("block5/mean",)


def test_the_probe_that_remains_is_told(ossicle, folder, start, tmp_path):
    code, text, _ = ossicle(
        "finetune", folder, "-o", tmp_path / "m.ossicle", "--backbone", start,
        "--learning-rate", 9, "--no-evaluate", *FEW,
    )  # fmt: skip
    assert code == 0
    assert "no epoch bettered the probe on frozen features: the model is that probe" in text


WRONG = {
    ("--unfreeze", "most"): "unfreeze 'most': choose head, all or a number",
    ("--unfreeze", "-2"): "unfreeze is -2",
    ("--augment", "loud"): "unknown augment 'loud'",
    ("--head-start", "old"): "unknown head_start 'old'",
    ("--epochs", "0"): "epochs is 0",
    ("--learning-rate", "-1"): "learning_rate is -1.0",
    ("--validation", "1"): "validation and warm_up are shares",
    ("--crop", "0"): "crop_s is 0.0",
    ("--backbone", "no_such_net"): "unknown backbone 'no_such_net'",
    ("--backbone", "mfcc"): "mfcc has no weights to train",
    ("--backbone", "crnn"): "crnn has no published weights",
    ("--set", "wings=1/8"): f"{DEFAULT_BACKBONE} has no keyword 'wings'",
    ("--frontend", "scaling=linear"): "keeps its front end",
    ("--scratch", "--unfreeze", "2"): "--unfreeze is of trained weights",
    ("--scratch", "--no-frozen-norms"): "--no-frozen-norms is of trained weights",
    (*SCRATCH, "--layers", "9"): "no layer '9'",
    (*SCRATCH, "--pooling", "mode"): "mode",
    (*SCRATCH, "--frontend", "colour=red"): "has no keyword 'colour'",
    (*SCRATCH, "--labels", "regression"): "high",
    ("--epochs", "many"): "Invalid value for '--epochs'",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_is_wrong_is_said_in_a_line(ossicle, folder, tmp_path, arguments):
    code, text, errors = ossicle("finetune", folder, "-o", tmp_path / "m.ossicle", *arguments)
    assert code == 2
    assert text == ""
    assert WRONG[arguments] in errors
    assert len(errors.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_is_not_written_over(ossicle, folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    code, _, errors = ossicle("finetune", folder, "-o", tmp_path / "notes", *SCRATCH, *FEW)
    assert code == 2
    assert "is there already and is not a bundle" in errors
    assert (tmp_path / "notes" / "mine.txt").read_text() == "kept"


def test_a_folder_of_the_users_is_left_alone(ossicle, folder, tmp_path):
    """One that happens to be called like that of the checkpoints."""
    (tmp_path / "m-finetuning").mkdir()
    (tmp_path / "m-finetuning" / "mine.txt").write_text("kept")
    code, _, _ = ossicle(
        "finetune", folder, "-o", tmp_path / "m.ossicle", *SCRATCH, *FEW, "--no-evaluate"
    )
    assert code == 0
    assert [p.name for p in (tmp_path / "m-finetuning").iterdir()] == ["mine.txt"]


def weights(path: Path) -> dict:
    return bundle.load(path).state_dict()


@pytest.mark.parametrize("at", [2, 3])  # in the second fold, and in the training on all clips
def test_a_killed_run_goes_on(ossicle, folder, tmp_path, monkeypatch, at):
    arguments = [*SCRATCH, "--batch-size", 8, "--workers", 1, "--epochs", 2, "--n-folds", 2]
    arguments += ["--quick", "--json"]
    code, text, _ = ossicle("finetune", folder, "-o", tmp_path / "whole.ossicle", *arguments)
    assert code == 0
    expected = json.loads(text)
    fit, calls = station.fit, []

    def killed(*some, progress=None, **options):
        calls.append(options["folder"])

        def kill(done, total, seconds):
            if len(calls) == at:
                signal.raise_signal(signal.SIGTERM)

        return fit(*some, progress=kill, **options)

    out = tmp_path / "mine.ossicle"
    monkeypatch.setattr(station, "fit", killed)
    code, text, errors = ossicle("finetune", folder, "-o", out, *arguments)
    assert code == 130
    assert text == ""
    assert f"stopped; the same command goes on from {tmp_path / 'mine-finetuning'}" in errors
    assert not out.exists()
    assert (tmp_path / "mine-finetuning" / "fold1").is_dir()
    # With other arguments it is another run.
    monkeypatch.setattr(station, "fit", fit)
    code, _, errors = ossicle(
        "finetune", folder, "-o", out, *arguments, "--crop", 0.31, "--seed", 1
    )
    assert code == 2
    assert "holds a run with other arguments or clips" in errors
    done = []

    def counted(*some, progress=None, **options):
        return fit(*some, progress=lambda *numbers: done.append(numbers[0]), **options)

    monkeypatch.setattr(station, "fit", counted)
    code, text, _ = ossicle("finetune", folder, "-o", out, *arguments)
    assert code == 0
    found = json.loads(text)
    for name in ("accuracy", "score", "epochs", "validation"):
        assert found[name] == expected[name]
    whole, resumed = weights(tmp_path / "whole.ossicle"), weights(out)
    assert all(np.array_equal(tensor, resumed[name]) for name, tensor in whole.items())
    # What was there already is not done again.
    assert done[0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.ossicle", "whole.ossicle"]
