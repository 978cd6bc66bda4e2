"""Long recordings window by window: the numbers of hand-cut clips, and the verb that shows them."""

from __future__ import annotations

import csv
import json
import threading

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.backbones.clip_policy import Patches
from ossicle.cli_predict import predict as verb
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.datasets.windows import window_clips
from ossicle.errors import OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.predict import check_window, predict

RATE = 22_050
APP = typer.Typer()
APP.command()(verb)


def model_with(patches: Patches | None = None) -> Model:
    """The mel baseline under a head of random weights for two classes."""
    base = create_model("mel")
    blocks = ["mel/mean", "mel/std"]
    head = Head([sum(base.block_sizes(blocks).values()), 2])
    generator = np.random.default_rng(0)
    for parameter in head.parameters():
        parameter.data = parameter.new_tensor(generator.normal(0, 0.02, tuple(parameter.shape)))
    return Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        patches=patches,
        readout=blocks,
        head=head,
        classes=("quiet", "snoring"),
        info=base.info,
    ).eval()


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """12.6 s whose colour changes, in a compressed format, with two silent seconds."""
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 0.1, round(12.6 * RATE))
    noise = np.cumsum(noise) * np.linspace(0.01, 0.1, len(noise)) + noise
    noise = (noise - np.convolve(noise, np.ones(400) / 400, "same")).clip(-1, 1)
    noise[4 * RATE : 6 * RATE] = 0
    path = tmp_path_factory.mktemp("night") / "night.flac"
    soundfile.write(path, noise, RATE)
    return path


@pytest.mark.parametrize("patches", [None, Patches(0.4, 0.2)])
@pytest.mark.parametrize("workers", [1, 3])
def test_windows_score_as_clips_cut_by_hand(night, tmp_path, patches, workers):
    model = model_with(patches)
    windows = window_clips(unlabelled_clips([night]), 1.0, 0.3)
    frame, skipped = predict(model, windows, workers=workers)
    samples, _ = soundfile.read(night)
    onsets = [i * 3 / 10 for i in range(39)] + [11.7]
    names = []
    for number, onset in enumerate(onsets):
        names.append(tmp_path / f"{number:02d}.flac")
        piece = samples[round(onset * RATE) : round(min(onset + 1.0, 12.6) * RATE)]
        soundfile.write(names[-1], piece, RATE)
    expected, alone = predict(model, names)
    assert len(windows) == len(onsets)
    assert frame["row"].tolist() == expected["row"].tolist()
    columns = ["score", "quiet", "snoring"]
    np.testing.assert_array_equal(frame[columns], expected[columns])
    assert len(set(frame["score"])) == len(frame)
    np.testing.assert_allclose(frame["onset"], np.array(onsets)[frame["row"]], atol=1e-12)
    # Onset 4.2, 4.5 and 4.8 s lie in the silence; each is told with its place.
    assert [row for row, _, _ in skipped] == [row for row, _, _ in alone] == [14, 15, 16]
    assert skipped[0][2] == "is silent (4.2 to 5.2 s)"


def test_windows_are_read_in_one_pass(night, monkeypatch):
    """Opened anew for each window, half an hour of MP3 takes minutes instead of seconds."""
    windows = window_clips(unlabelled_clips([night]), 1.0, 0.3)
    monkeypatch.setattr("ossicle.features.load", None)
    monkeypatch.setattr("ossicle.datasets.parts.load", None)
    frame, skipped = predict(model_with(), windows)
    assert (len(frame), len(skipped)) == (37, 3)


def test_recordings_and_clips_may_be_mixed(night, tmp_path):
    model = model_with()
    (tmp_path / "a.csv").write_text(
        f"path,onset,offset\n{night},0,1\n{night},1,2\n{night},,\n{night},7,8\n{night},2,3\n"
    )
    items = unlabelled_clips([tmp_path / "a.csv"])
    together, _ = predict(model, items)
    alone = pd.concat([predict(model, items.subset([i]))[0] for i in range(5)])
    np.testing.assert_array_equal(together["snoring"], alone["snoring"])
    assert together["row"].tolist() == list(range(5))


def test_a_stop_in_the_middle_leaves_no_thread(night):
    windows = window_clips(unlabelled_clips([night]), 0.5, 0.1)
    before = set(threading.enumerate())

    def stop(progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model_with(), windows, progress=stop)
    assert set(threading.enumerate()) <= before


def test_what_cannot_be_meant():
    check_window(None, None)
    check_window(1.0, 0.5)
    with pytest.raises(OssicleError, match="--window"):
        check_window(None, 0.5)
    with pytest.raises(OssicleError, match="at least 0.02 s"):
        check_window(0.01, None)
    with pytest.raises(OssicleError, match="a step must be"):
        check_window(1.0, -1.0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "detector.ossicle"
    bundle.save(model_with(), path)
    return path


def run(*arguments: object):
    return CliRunner().invoke(APP, [*map(str, arguments), "--workers", "1"])


def test_the_verb_labels_windows(detector, night, tmp_path):
    out = tmp_path / "night.csv"
    done = run(detector, night, "--window", 1, "--step", 0.5, "-o", out, "--json")
    assert done.exit_code == 0, done.output
    # 25 windows of the grid end by 12.6 s or hold half a window; three lie in the silence.
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["n_clips"], told["n_skipped"], told["n_recordings"]) == (22, 3, 1)
    assert f"22 windows of 1 recording labelled: {out}" in done.stderr
    assert "skipped 3 windows of night.flac, the first: is silent (4.0 to 5.0 s)" in done.stderr
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "onset", "offset", "label", "score", "quiet", "snoring"]
    assert [(float(r["onset"]), float(r["offset"])) for r in rows[:2]] == [(0, 1), (0.5, 1.5)]
    assert (float(rows[-1]["onset"]), float(rows[-1]["offset"])) == (12.0, 12.6)


def test_the_verb_without_windows_is_as_before(detector, night):
    done = run(detector, night)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "file,label,score,quiet,snoring"
    told = json.loads(run(detector, night, "--json").stdout.splitlines()[-1])
    assert told == {"n_clips": 1, "n_skipped": 0, "skipped": []}


def test_the_verb_refuses(detector, night, tmp_path):
    for arguments, message in (
        (("--step", 1), "say with --window how long they are"),
        (("--window", 0), "a window must be a positive number"),
    ):
        done = run(detector, night, *arguments)
        assert isinstance(done.exception, OssicleError)
        assert message in str(done.exception)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    done = run(detector, tmp_path / "silent.wav", "--window", 0.5)
    assert "none of the 2 windows could be used; the first: silent.wav" in str(done.exception)
