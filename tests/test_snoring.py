"""The tutorial of docs/snoring.md as a test: from two folders to a detector used on a night.

Always on stand-ins made here; on the measuring set where it is at hand.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from ossicle import read_clips
from ossicle.audio import Audio, save
from ossicle.cli_predict import predict as verb
from ossicle.features import extract
from ossicle.leaks import audit, join_duplicates
from ossicle.metrics import score
from ossicle.model import create_model
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.fit import fit_model
from ossicle.transfer.protocol import choose_protocol

ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000
RUN = 5
WINDOWS = ("--window", 1, "--step", 0.5)
LABELLER = typer.Typer()
LABELLER.command()(verb)


@pytest.fixture(scope="module")
def night():
    """bench/night.py, which lays known sounds over quiet noise."""
    path = ROOT / "bench" / "night.py"
    if not path.is_file():
        pytest.skip("needs bench/ of a checkout")
    spec = importlib.util.spec_from_file_location("night", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["night"] = module
    spec.loader.exec_module(module)
    return module


def snore(generator: np.random.Generator, pitch: float) -> np.ndarray:
    """1 s: a breath of pulses at 30 to 60 Hz, dull and rough."""
    t = np.arange(RATE) / RATE
    pulses = np.maximum(0, np.sin(2 * np.pi * pitch * t)) ** 8
    wave = pulses * generator.normal(1, 0.3, RATE) * np.sin(np.pi * t) ** 2
    return 0.5 * np.convolve(wave, np.ones(12) / 12, "same")


def other(generator: np.random.Generator, pitch: float) -> np.ndarray:
    """1 s: a tone with a knock, bright."""
    t = np.arange(RATE) / RATE
    knock = generator.normal(size=RATE) * np.exp(-t * 40)
    return 0.2 * np.sin(2 * np.pi * 20 * pitch * t + generator.uniform(0, 6)) + 0.3 * knock


@pytest.fixture(scope="module")
def set_of_clips(tmp_path_factory) -> Path:
    """Two folders of 30 clips, five of each recording, as the measuring set is numbered."""
    folder = tmp_path_factory.mktemp("snoring") / "clips"
    generator = np.random.default_rng(0)
    for code, (name, make) in enumerate((("no_snoring", other), ("snoring", snore))):
        (folder / name).mkdir(parents=True)
        for run in range(6):
            pitch = generator.uniform(30, 60)
            for number in range(run * RUN, (run + 1) * RUN):
                wave = make(generator, pitch) + 0.002 * generator.normal(size=RATE)
                soundfile.write(folder / name / f"{code}_{number}.flac", wave.clip(-1, 1), RATE)
    # One recording that was cut twice: the last number of a run begins the next again.
    shutil.copy(folder / "no_snoring/0_4.flac", folder / "no_snoring/0_5.flac")
    return folder


def last_json(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def test_the_audit_finds_what_the_runs_do_not_keep_together(ossicle, set_of_clips):
    code, out, _ = ossicle("audit", set_of_clips, "--groups", f"runs:{RUN}", "--no-near")
    assert code == 0
    assert "0_4.flac" in out
    assert "0_5.flac" in out
    clips = read_clips(set_of_clips, groups=f"runs:{RUN}")
    joined = join_duplicates(clips, audit(clips))
    assert len(set(clips.groups())) == 12
    assert len(set(joined.groups())) == 11


def test_evaluate_train_and_a_night(ossicle, set_of_clips, night, tmp_path):
    shared = ("--groups", f"runs:{RUN}", "--quick", "--workers", 1, "--json")
    code, out, _ = ossicle("evaluate", set_of_clips, "--backbone", "mel", *shared)
    assert code == 0
    measured = last_json(out)
    assert measured["protocol"]["n_groups"] == 12
    assert measured["accuracy"] > 0.9

    # The detector hears four of the six runs of each class, the night is made of the others.
    kept, held = tmp_path / "kept", []
    for path in sorted(set_of_clips.glob("*/*.flac")):
        number = int(path.stem.split("_")[1])
        if number < 20:
            (kept / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept / path.parent.name)
        else:
            kind = path.parent.name
            held.append(night.Sound(str(path), kind, kind, f"{kind} {number // RUN}"))
    # What the room sounds like with nobody in it belongs into the training set.
    quiet = night.pink(20 * RATE, np.random.default_rng(5)) * night.QUIET_RMS
    for second in range(20):
        wave = quiet[second * RATE : (second + 1) * RATE].astype(np.float32)
        save(kept / "no_snoring" / f"quiet_{second}.wav", Audio(wave[None], RATE), "FLOAT")
    detector = tmp_path / "snore.ossicle"
    arguments = ("--backbone", "mel", "--groups", "none", "-o", detector, "--quick")
    assert ossicle("train", kept, *arguments, "--workers", 1)[0] == 0

    samples, events = night.build_night(held, 3.0, seed=1)
    recording, table = tmp_path / "night.flac", tmp_path / "night.csv"
    save(recording, Audio(samples, night.RATE))
    arguments = [str(x) for x in (detector, recording, *WINDOWS, "-o", table, "--workers", 1)]
    done = CliRunner().invoke(LABELLER, arguments)
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(table)
    assert len(frame) == 2 * 180 - 1
    assert frame["onset"].tolist() == [i / 2 for i in range(359)]
    truth = night.frame_truth(events, 360)
    scores = night.frame_scores(frame, "snoring", 360)
    found = night.night_scores(truth, scores, events)
    assert found["snores"] == 10
    assert found["snores_heard"] == 10
    assert found["auc"]["value"] > 0.95
    assert found["precision"]["low"] <= found["precision"]["value"] <= found["precision"]["high"]
    assert found["called_snoring"]["no_snoring"]["share"] < 0.2


def test_the_night_holds_what_it_says(night, set_of_clips):
    """Subtract the sounds at their times: what is left is the quiet noise."""
    paths = sorted(set_of_clips.glob("*/*.flac"))[:12]
    sounds = [night.Sound(str(p), "no_snoring", "x", p.stem[:3]) for p in paths]
    samples, events = night.build_night(sounds, 2.0, seed=3)
    assert len(samples) == 120 * night.RATE
    assert {e.sound for e in events} == set(sounds)
    for before, after in zip(events, events[1:], strict=False):
        assert before.stop <= after.start
    generator = np.random.default_rng(3)
    quiet = night.pink(len(samples), generator) * night.QUIET_RMS
    for event in events:
        a, b = round(event.start * night.RATE), round(event.stop * night.RATE)
        assert np.abs(samples[a:b] - quiet[a:b]).max() > 10 * night.QUIET_RMS
        samples[a:b] = quiet[a:b]
    np.testing.assert_allclose(samples, quiet, atol=1e-7)


def test_frames_against_a_slow_count(night):
    generator = np.random.default_rng(0)
    onsets = np.arange(39) * 0.5
    windows = pd.DataFrame({"onset": onsets, "offset": onsets + 1, "s": generator.random(39)})
    got = night.frame_scores(windows, "s", 40)
    for i in range(40):
        inside = (windows["onset"] <= i / 2) & (windows["offset"] >= (i + 1) / 2)
        assert got[i] == pytest.approx(windows["s"][inside].mean())
    sound = night.Sound("", "snoring", "snore", "a")
    events = [night.Event(2.2, 3.2, sound), night.Event(9.26, 9.9, sound)]
    truth = night.frame_truth(events, 40)
    seconds = np.arange(0, 20, 0.001) + 0.0005
    inside = np.any([(seconds > e.start) & (seconds < e.stop) for e in events], axis=0)
    expected = inside.reshape(40, 500).mean(1) >= 0.5
    assert truth["snoring"].tolist() == expected.tolist()
    assert truth["group"][39] == "quiet 0"


def test_the_numbers_of_a_night_that_can_be_counted_by_hand(night):
    sound = night.Sound("", "snoring", "snore", "a")
    events = [night.Event(10.0, 11.0, sound), night.Event(20.0, 21.0, sound._replace(group="b"))]
    truth = night.frame_truth(events, 240)
    scores = np.zeros(240)
    scores[[20, 21, 100, 101, 150]] = 0.9  # one snore whole, two false alarms of 1 s and 0.5 s
    scores[[22, 39]] = 0.7  # beside the snores: no alarms of their own
    found = night.night_scores(truth, scores, events)
    assert found["precision"]["value"] == pytest.approx(2 / 7)
    # Without frames 19, 22, 39 and 42, beside the snores.
    assert found["precision_collar"]["value"] == pytest.approx(2 / 5)
    assert found["recall"]["value"] == pytest.approx(2 / 4)
    pairs = scores[truth["snoring"]][:, None] - scores[~truth["snoring"]][None]
    assert found["auc"]["value"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert (found["snores"], found["snores_heard"], found["false_alarms"]) == (2, 1, 2)
    assert found["false_alarms_an_hour"] == pytest.approx(2 * 30)
    assert found["called_snoring"]["snore"] == {"frames": 4, "share": 0.5}


def test_the_measuring_set_by_runs_and_at_random(shared_data):
    """As much as needs no weights: what a random split claims is more than runs allow."""
    by_runs = read_clips(shared_data / "snoring", groups="runs:20")
    assert len(by_runs) == 480
    assert len(set(by_runs.groups())) == 24
    report = audit(by_runs)
    assert len(report["samples"]) == 11
    assert len(set(join_duplicates(by_runs, report).groups())) < 24
    model = create_model("mfcc")
    table = extract(model, by_runs)
    result = evaluate(by_runs, table, model, probe="ridge", diagnostics=False)
    alone = read_clips(shared_data / "snoring", groups="none")
    at_random = evaluate(alone, table, model, probe="ridge", diagnostics=False)
    assert result["score"]["low"] < result["accuracy"] < at_random["accuracy"]
    assert result["accuracy"] > 0.75

    # Fitted on some runs, heard on the others: the network that is taken away agrees.
    train, test = choose_protocol(by_runs).folds[0]
    some = by_runs.subset(train)
    detector = fit_model(model, extract(model, some), some, probe="ridge")
    chosen = [detector.clip_scores(_samples(by_runs.table["path"][row])) for row in test]
    values = score(
        "classes", by_runs.y()[test], np.argmax(chosen, 1), np.array(chosen), by_runs.classes
    )
    assert values["accuracy"] > 0.6


def _samples(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples
