"""`detect` over many recordings: stopped or not, with any workers, the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.detect import run as module
from ossicle.detect.journal import NAME, Journal
from ossicle.detect.parameters import rules_of, window_of
from ossicle.detect.rules import Rules
from ossicle.detect.run import detect
from ossicle.detect.scorers import Part
from ossicle.detect.spool import MIN_BLOCKS, Spool
from ossicle.detect.tables import label_names, read_scores
from ossicle.errors import DataError, OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model

TABLES = ("events.csv", "events.parquet", "files.csv")


@pytest.fixture(scope="module")
def model() -> Model:
    """A random small network whose head tells loud from quiet."""
    base = create_model("mel", seed=0)
    readout = [f"{base.layers[0]}/mean"]
    width = sum(base.block_sizes(readout).values())
    head = Head.from_layers([(torch.ones(1, width) * 4 / width, torch.tensor([8.0]))])
    return Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=readout,
        head=head,
        classes=("loud",),
        task="multilabel",
    ).eval()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Quiet noise with loud stretches at known places, of many lengths; one file is broken."""
    root = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(0)
    (root / "sub").mkdir()
    for number, seconds in enumerate([3.0, 0.4, 130.0, 61.3, 12.0, 2.5]):
        x = rng.standard_normal(round(16_000 * seconds)) * 1e-4
        for onset in range(1, int(seconds) - 1, 7):
            x[16_000 * onset : 16_000 * (onset + 2)] *= 1000
        name = f"sub/{number}.wav" if number % 2 else f"{number}.flac"
        soundfile.write(root / name, x.clip(-1, 1), 16_000)
    (root / "broken.wav").write_bytes(b"RIFF....")
    return root


def bytes_of(folder: Path) -> dict[str, bytes]:
    names = [*TABLES, *(str(p.relative_to(folder)) for p in folder.rglob("*.txt"))]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def expected(model, recordings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("expected")
    detect(model, unlabelled_clips([recordings]), folder, window_s=1.0, overlap=0.5, scores=True)
    return folder


def test_loud_stretches_are_found_where_they_are(expected):
    table = pd.read_csv(expected / "events.csv")
    long = table[table["file"] == "2.flac"]
    np.testing.assert_allclose(long["onset"], np.arange(1, 129, 7), atol=0.51)
    np.testing.assert_allclose(long["offset"], np.arange(3, 131, 7), atol=0.51)
    assert (table["label"] == "loud").all() and table["score"].between(0.5, 1).all()
    parquet = pd.read_parquet(expected / "events.parquet")
    pd.testing.assert_frame_equal(parquet, table, check_dtype=False)
    assert {"threshold", "median_s", "window_s", "step_s", "model"} <= set(table)
    assert (table["window_s"] == 1.0).all() and (table["step_s"] == 0.5).all()
    files = pd.read_csv(expected / "files.csv").set_index("file")
    assert files.loc["broken.wav", "status"] == "failed"
    assert files.loc["2.flac", "seconds"] == 130.0
    assert list(files.index) == sorted(files.index)
    assert not list(expected.rglob("*.part"))


def test_every_recording_has_label_files(expected):
    for kind, ending in (("audacity", "txt"), ("raven", "selections.txt"), ("rttm", "rttm")):
        files = {str(p.relative_to(expected / kind)) for p in (expected / kind).rglob("*.*")}
        assert files == {f"{n}.{ending}" for n in ("0", "2", "4", "sub/1", "sub/3", "sub/5")}
    lines = (expected / "audacity" / "2.txt").read_text().splitlines()
    assert len(lines) == 19 and lines[0].split("\t")[2] == "loud"


def test_frame_scores_are_kept(expected, model):
    frames, names = read_scores(expected / "scores" / "2.parquet")
    assert names == ("loud",) and frames.edges[-1] == 130.0
    np.testing.assert_allclose(np.diff(frames.edges), 0.5)
    onsets = frames.edges[:-1]
    loud = (onsets % 7 >= 1) & (onsets % 7 < 3) & (onsets < 129)
    assert frames.scores[0, loud].min() > 0.5 > frames.scores[0].mean()


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_change_nothing(model, recordings, expected, tmp_path, workers):
    detect(
        model, unlabelled_clips([recordings]), tmp_path, window_s=1.0, overlap=0.5, workers=workers
    )
    assert bytes_of(tmp_path) == bytes_of(expected)


class StopError(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize("after", [1, 2, 4, 6, 9])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    model, recordings, expected, tmp_path, after, monkeypatch
):
    monkeypatch.setattr("ossicle.detect.spool.MIN_BLOCKS", 2)
    clips = unlabelled_clips([recordings])
    ticks = 0

    def stop(tick):
        nonlocal ticks
        ticks += 1
        if ticks == after:
            raise StopError

    with pytest.raises(StopError):
        detect(model, clips, tmp_path, window_s=1.0, overlap=0.5, scores=True, progress=stop)
    assert not (tmp_path / "events.csv").exists()
    again = detect(model, clips, tmp_path, window_s=1.0, overlap=0.5, scores=True)
    assert again.resumed + again.heard == 7
    assert bytes_of(tmp_path) == bytes_of(expected)
    for path in (expected / "scores").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / path.relative_to(expected)).read_bytes()
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / ".in_work").exists()
    third = detect(model, clips, tmp_path, window_s=1.0, overlap=0.5)
    assert (third.resumed, third.heard) == (7, 0)
    assert bytes_of(tmp_path) == bytes_of(expected)


def test_killed_at_any_moment_and_resumed(model, recordings, expected, tmp_path):
    """kill -9, at moments drawn at random, until a run comes through."""
    saved = bundle.save(model, tmp_path / "loud.ossicle")
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "ossicle.cli", "detect", saved, recordings, "-o", folder]
    command += ["--window", "1", "--overlap", ".5", "--workers", "2"]
    draw = random.Random(0)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = 0
    for _ in range(12):
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not (folder / NAME).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if killed >= 3:
            break
    assert killed
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=120)
    assert bytes_of(folder) == bytes_of(expected)


def test_a_changed_recording_is_heard_again_and_a_touched_one_is_not(model, recordings, tmp_path):
    for name in ("0.flac", "4.flac"):
        (tmp_path / name).write_bytes((recordings / name).read_bytes())
    out = tmp_path / "out"
    clips = unlabelled_clips([tmp_path / "0.flac", tmp_path / "4.flac"])
    detect(model, clips, out, window_s=1.0)
    os.utime(tmp_path / "4.flac", (0, 0))
    assert detect(model, clips, out, window_s=1.0).heard == 0
    (tmp_path / "4.flac").write_bytes((recordings / "0.flac").read_bytes())
    again = detect(model, clips, out, window_s=1.0)
    assert (again.heard, again.resumed) == (1, 1)
    table = pd.read_csv(out / "events.csv")
    a, b = (table[table["file"] == name].drop(columns="file") for name in ("0.flac", "4.flac"))
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))


def test_other_parameters_hear_everything_again(model, recordings, tmp_path):
    clips = unlabelled_clips([recordings / "0.flac"])
    assert detect(model, clips, tmp_path, window_s=1.0).heard == 1
    assert detect(model, clips, tmp_path, window_s=1.0).heard == 0
    rules = rules_of(model).with_overrides(threshold=0.9)
    assert detect(model, clips, tmp_path, window_s=1.0, rules=rules).heard == 1
    assert detect(model, clips, tmp_path, window_s=2.0, rules=rules).heard == 1


def test_a_damaged_recording_is_told_and_its_sound_part_heard(model, recordings, tmp_path):
    whole = tmp_path / "whole.wav"
    samples, rate = soundfile.read(recordings / "2.flac")
    soundfile.write(whole, samples, rate)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[: 44 + 2 * 16_000 * 100])
    found = detect(model, unlabelled_clips([cut, whole]), tmp_path / "out", window_s=1.0)
    assert [p[:2] for p in found.problems] == [("cut.wav", "damaged")]
    table = pd.read_csv(tmp_path / "out" / "events.csv")
    counts = table.groupby("file").size()
    assert counts["whole.wav"] == 19 and counts["cut.wav"] in (14, 15)


def test_the_bundle_brings_windows_and_rules(model, recordings, tmp_path):
    rules = Rules.default(model.classes, threshold=0.97, min_duration_s=3.0)
    tuned = Model(
        model.frontend,
        model.backbone,
        clip=model.clip,
        readout=model.readout,
        head=model.head,
        classes=model.classes,
        task=model.task,
        info={"detection": {"window_s": 2.0, "step_s": 0.25, "rules": rules.to_json()}},
    )
    read = bundle.load(bundle.save(tuned, tmp_path / "tuned.ossicle"))
    grid = window_of(read)
    assert (grid.seconds(grid.width), grid.seconds(grid.stride)) == (2.0, 0.25)
    assert rules_of(read) == rules
    read.info["detection"]["window_s"] = "2; rm -rf"
    with pytest.raises(DataError, match="window_s"):
        window_of(read)
    read.info["detection"] = {"rules": {"score": "max", "classes": {}}}
    with pytest.raises(DataError, match="loud"):
        rules_of(read)


def test_the_command_line(ossicle, model, recordings, expected, tmp_path):
    saved = bundle.save(model, tmp_path / "loud.ossicle")
    out = tmp_path / "out"
    command = ("detect", saved, recordings, "-o", out, "--window", "1")
    code, printed, told = ossicle(*command)
    assert code == 0, told
    assert "failed: broken.wav" in printed and "events in 6 recordings" in printed
    assert bytes_of(out) == bytes_of(expected)
    code, printed, _ = ossicle(*command, "--json")
    answer = json.loads(printed)
    assert answer["resumed"] == 7 and answer["failed"] == 1
    assert json.loads((out / "run.json").read_text())["parameters"]["window_s"] == 1.0
    for wrong, message in (
        (("--threshold", "quiet=0.5"), "no class"),
        (("--step", "1", "--overlap", ".5"), "a step or an overlap"),
        (("--labels", "word"), "no labels of kind"),
    ):
        code, _, told = ossicle(*command, *wrong)
        assert code == 2 and message in told and told.count("\n") == 1
    code, _, told = ossicle("detect", saved, recordings / "broken.wav", "-o", tmp_path / "none")
    assert code == 2 and "broken.wav" in told


def test_names_of_label_files_stay_apart_and_inside(model, tmp_path):
    assert label_names(["x.wav", "y/x.wav", "z.wav", "z.flac"]) == [
        "x",
        "y/x",
        "z.wav",
        "z.flac",
    ]


def test_parts_of_files_and_regressions_are_refused(model, recordings, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,onset,offset\n{recordings / '0.flac'},0,1\n")
    with pytest.raises(DataError, match="whole recordings"):
        detect(model, unlabelled_clips([manifest]), tmp_path / "out")
    with pytest.raises(OssicleError, match="no labels of kind"):
        detect(model, unlabelled_clips([recordings]), tmp_path / "out", labels=("x",))


def test_a_torn_journal_loses_its_last_line_only(tmp_path):
    entry = module.Entry("/a", module.Stamp(1, 2), "", "ok", "", 1.5, [(0.1, 0.7, 0, 0.5)])
    with Journal(tmp_path, "p") as journal:
        for name in ("/a", "/b"):
            journal.add(entry._replace(path=name))
    path = tmp_path / NAME
    for cut in (1, 5, 60):
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        with Journal(tmp_path, "p") as journal:
            assert [e.path for e in journal.entries(["/b", "/a"])] == ["/a"]
            journal.add(entry._replace(path="/b"))
            assert list(journal.entries(["/b"])) == [entry._replace(path="/b")]
    with Journal(tmp_path, "q") as journal:
        assert not list(journal.entries(["/a", "/b"]))


def test_a_torn_spool_loses_its_last_part_only(tmp_path):
    rng = np.random.default_rng(0)
    parts = [
        Part(np.arange(n), np.arange(n) + 2, rng.random((3, n)).astype(np.float32))
        for n in range(MIN_BLOCKS + 5)
    ]
    path = tmp_path / "x" / "a.scores"
    spool = Spool(path, 3)
    for part in parts[: MIN_BLOCKS - 1]:
        spool.add(part)
    assert not path.exists()
    for part in parts[MIN_BLOCKS - 1 :]:
        spool.add(part)
    spool.close()
    path.write_bytes(path.read_bytes()[:-7])
    again = Spool(path, 3)
    assert again.blocks == len(parts) - 1
    for got, want in zip(again.parts(), parts[:-1], strict=True):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    again.add(parts[-1])
    again.close()
    assert Spool(path, 3).blocks == len(parts)
    again.remove()
    assert not path.exists()


def test_frame_scores_of_other_parameters_are_not_taken_for_these(model, recordings, tmp_path):
    """Scores kept under one window, then a run without scores under another, then with."""
    clips = unlabelled_clips([recordings / "4.flac"])
    path = tmp_path / "scores" / "4.parquet"
    detect(model, clips, tmp_path, window_s=1.0, scores=True)
    detect(model, clips, tmp_path, window_s=2.0, step_s=2.0)
    detect(model, clips, tmp_path, window_s=2.0, step_s=2.0, scores=True)
    frames, _ = read_scores(path)
    np.testing.assert_allclose(np.diff(frames.edges), 2.0)
    written = path.stat().st_mtime_ns
    assert detect(model, clips, tmp_path, window_s=2.0, step_s=2.0, scores=True).heard == 0
    assert path.stat().st_mtime_ns == written


def test_a_model_in_training_is_put_into_evaluation(model, recordings, expected, tmp_path):
    model.train()
    detect(model, unlabelled_clips([recordings]), tmp_path, window_s=1.0, overlap=0.5)
    assert not model.training
    assert bytes_of(tmp_path) == bytes_of(expected)
