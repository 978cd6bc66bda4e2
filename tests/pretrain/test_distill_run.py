"""`ossicle pretrain --objective distill`: what a run leaves, stopped and resumed, and refusals."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.backbones import WEIGHTS
from ossicle.datasets.clips import Clips, read_clips
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.model import create_model
from ossicle.pretrain import run as runs
from ossicle.pretrain import teachers
from ossicle.pretrain.run import Pretrained, Settings, check_run, pretrain
from ossicle.pretrain.windows import WindowBatches
from ossicle.record import json_safe
from ossicle.train import CHECKPOINT, TrainingError

RATE = 16_000
SMALL = {"channels": 4, "hidden": 4, "dense": 6}
SET = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module", autouse=True)
def teacher(tmp_path_factory):
    """The log-mels teach: weights that need no download. And a cache of the tests' own."""
    weights = SimpleNamespace(state={}, head=None, hidden=(), readout=None, classes=())
    with pytest.MonkeyPatch.context() as patch:
        for name, licence in (("mel", "MIT"), ("mfcc", "CC-BY-NC-4.0")):
            source = SimpleNamespace(
                load=lambda: weights, description="none", licence=licence, origin="here"
            )
            patch.setitem(WEIGHTS, name, source)
        patch.setitem(teachers.TEACHERS, "mel", teachers.Teacher(8, (), ("mel",)))
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Twelve sounds of .4 to .8 s, high and low, one of them broken; half of them with a voice."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    lines = ["path,label,group"]
    for i in range(12):
        t = np.arange(round(RATE * rng.uniform(0.4, 0.8))) / RATE
        hz = (2000, 300)[i % 2] * rng.uniform(0.9, 1.1)
        x = 0.3 * np.sin(2 * np.pi * hz * t) + 0.02 * rng.normal(size=len(t))
        soundfile.write(root / f"{i}.wav", x, RATE)
        voice = f";voice:{'ab'[i % 2]}" if i < 8 else ""
        lines.append(f"{i}.wav,pitch:{('high', 'low')[i % 2]}{voice},g{i % 3}")
    (root / "11.wav").write_bytes(b"RIFF, but no sound")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root / "clips.csv"


@pytest.fixture(scope="module")
def clips(manifest) -> Clips:
    return read_clips(manifest, labels="multilabel")


def settings(**more) -> Settings:
    base = {
        "objective": "distill",
        "backbone": "crnn",
        "config": SMALL,
        "teachers": ("mel",),
        "window_s": (0.2, 0.4),
        "steps": 5,
        "batch_size": 4,
    }
    return Settings(**{**base, **more})


ALL = {"labels": 0.3, "pairs": 0.5}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return bundle.load(path).state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


# --- what a run leaves -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(clips, tmp_path_factory) -> Pretrained:
    return pretrain(clips, tmp_path_factory.mktemp("runs") / "net.ossicle", settings(options=ALL))


def test_the_bundle_is_the_trained_student(done):
    model = bundle.load(done.out)
    assert model.head is None
    assert model.num_parameters == create_model("crnn", **SMALL).num_parameters
    kinds = [[type(part) for part in net.modules()] for net in (done.model, model)]
    assert kinds[0] == kinds[1] == [type(part) for part in create_model("crnn", **SMALL).modules()]
    before = create_model("crnn", **SMALL).backbone.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        if name.endswith(("weight", "running_mean")):
            assert float((tensor - before[name]).abs().max()) > 1e-6, name


def test_it_says_who_taught_it_under_which_licence(done):
    info = bundle.load(done.out).info
    told = f"distill by mel on {done.hours:.1f} h of recordings, 5 steps, seed 0"
    assert info["weights"] == told
    assert info["licence"] == "mel: MIT; and that of the recordings it was trained on"
    assert info["teachers"] == {"mel": "MIT"}
    assert info["training"]["arguments"]["teachers"] == ["mel"]
    assert info["training"]["arguments"]["window_s"] == [0.2, 0.4]
    ((row, path, _),) = done.skipped
    assert row == 11
    assert path.endswith("11.wav")


def test_each_teachers_share_is_logged_and_each_question(done):
    line = done.trained.history[-1]
    assert {"loss", "mel", "pairs", "pitch_right", "voice_right", "lr"} <= set(line)
    assert line["loss"] > line["mel"] > 0


def test_what_turns_features_into_components_lies_with_the_run(done):
    kept = done.folder / "teachers" / "mel.safetensors"
    (folder,) = (cache_dir() / "teachers").iterdir()
    assert kept.read_bytes() == (folder / "components.safetensors").read_bytes()
    assert {path.name for path in done.folder.iterdir()} >= {"teachers", "log.jsonl", CHECKPOINT}


def test_an_epoch_is_all_windows_and_tells_their_seconds(clips, tmp_path):
    """Batches of long windows are smaller: what was heard is the sum of them all."""
    told = []
    run = settings(steps=None, epochs=2)
    done = pretrain(clips, tmp_path / "net", run, progress=lambda *n: told.append(n))
    lessons = runs.ask_teachers(clips, run)
    batches = WindowBatches(lessons.waveforms, lessons.windows, lessons.values, batch_size=4)
    heard = [batches.batch(step).waveforms for step in range(batches.steps_per_epoch)]
    assert len({x.shape for x in heard}) == 2
    assert done.trained.steps == 2 * len(heard)
    assert [n[:2] for n in told] == [(n + 1, len(told)) for n in range(len(told))]
    seconds = [n[2] for n in told]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(2 * sum(x.numel() for x in heard) / RATE)


def test_what_is_held_out_is_not_counted(clips, tmp_path):
    table = clips.table.assign(split=pd.Series(["train", "test"] * 6, dtype=object))
    parted = Clips(table, clips.task, clips.classes, clips.root)
    done = pretrain(parted, tmp_path / "net", settings(steps=1))
    sounds = runs.ask_teachers(clips, settings()).waveforms
    want = sum(n for n, row in zip(sounds.lengths, sounds.rows, strict=True) if row % 2 == 0)
    assert done.hours == pytest.approx(want / RATE / 3600)


def test_a_probe_is_scored_while_it_trains(clips, tmp_path):
    words = ["high", "low"] * 6
    probe = Clips(clips.table.assign(label=words), "classes", ("high", "low"), clips.root)
    for name, more in (("net", {"probe": probe, "probe_every": 2}), ("bare", {})):
        result = pretrain(clips, tmp_path / name, settings(steps=3), **more)
        scored = {line["step"]: line for line in result.trained.history if "knn" in line}
        assert list(scored) == ([2, 3] if more else [])
        assert all(0 <= line[kind] <= 1 for line in scored.values() for kind in ("knn", "ridge"))
    assert same(tmp_path / "net", tmp_path / "bare")


# --- stopped and resumed ---------------------------------------------------------------------


RUNS = {
    "teachers alone": settings(),
    "with labels, pairs and an average": settings(options=ALL, average=0.8),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_resumed_equals_uninterrupted_bit_for_bit(clips, tmp_path, run):
    def stop(done, total, seconds):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    whole = pretrain(clips, tmp_path / "whole", run)
    with pytest.raises(KeyboardInterrupt):
        pretrain(clips, tmp_path / "parts", run, progress=stop)
    state = torch.load(tmp_path / "parts-training" / CHECKPOINT, weights_only=True)
    assert state["step"] == 2
    parts = pretrain(clips, tmp_path / "parts", run)
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert whole.trained.history[-1]["loss"] == parts.trained.history[-1]["loss"]


def test_another_run_of_that_name_is_refused(clips, done, manifest):
    other = read_clips(manifest, labels="multilabel")
    other.table["label"] = other.table["label"].iloc[::-1].to_list()
    cases = [
        (clips, {"window_s": (0.2,)}),
        (clips, {"options": {**ALL, "pairs": 0.4}}),
        (other, {}),
    ]
    for given, more in cases:
        with pytest.raises(TrainingError, match="other arguments or clips"):
            pretrain(given, done.out, settings(**{"options": ALL, **more}))


def test_labels_that_are_not_learnt_are_no_part_of_a_run(clips, tmp_path, manifest):
    pretrain(clips, tmp_path / "net", settings(steps=1))
    other = read_clips(manifest, labels="multilabel")
    other.table["label"] = other.table["label"].iloc[::-1].to_list()
    pretrain(other, tmp_path / "net", settings(steps=1))


def test_runs_of_other_objectives_go_on_as_before():
    """What tells their folders apart is what it was before there were teachers and windows."""
    run = Settings("simclr", steps=7, options={"temperature": 0.2}, accelerator="gpu", devices=2)
    before = {
        "objective": "simclr",
        "backbone": "slowfast_nfnet_f0",
        "config": {},
        "pretrained": False,
        "epochs": 1.0,
        "steps": 7,
        "batch_size": 64,
        "crop_s": 1.28,
        "jitter_s": 0.5,
        "neighbours": 1,
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "optimiser": "adamw",
        "warm_up": 0.05,
        "clipping": None,
        "average": 0.0,
        "balance": False,
        "held_out": 0.1,
        "synthetic": 0.0,
        "delta": 0.25,
        "options": {"temperature": 0.2},
        "seed": 0,
        "precision": "32-true",
        "accelerator": "",
        "devices": 1,
    }
    assert fingerprint(run) == sha256([before, "", []])
    # With teachers these tell too; made windows only where there are any.
    taught = Settings("distill", steps=7, teachers=("mel",), accelerator="gpu", devices=2)
    before |= {"objective": "distill", "options": {}}
    before |= {"teachers": ["mel"], "window_s": [1.0, 2.0, 4.0]}
    assert fingerprint(taught) == sha256([before, "", []])
    made = replace(taught, mixtures=0.5)
    assert fingerprint(made) == sha256([before | {"mixtures": 0.5}, "", []])


def fingerprint(run: Settings) -> str:
    return runs._Job(None, None, Path("net"), run, None, 0, 0.0, 1)._fingerprint(RATE, 7)


def sha256(value: list) -> str:
    text = json.dumps(json_safe(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def test_sixteen_bits_train_too(clips, tmp_path):
    one = pretrain(clips, tmp_path / "one", settings(options=ALL))
    two = pretrain(clips, tmp_path / "two", settings(options=ALL, precision="bf16-mixed"))
    losses = [result.trained.history[-1]["loss"] for result in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[0] != losses[1]


# --- what cannot be --------------------------------------------------------------------------


def test_what_cannot_run_is_told_before_anything_is_decoded(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ossicle.pretrain.run.decode_cached", lambda *a, **k: pytest.fail("decoded")
    )
    monkeypatch.setattr(
        "ossicle.pretrain.lessons.decode_cached", lambda *a, **k: pytest.fail("decoded")
    )
    words = clips.table.assign(label=[["high"], ["low"]] * 6)
    plain = Clips(words, "multilabel", ("high", "low"), clips.root)
    cases = [
        (clips, {"teachers": ()}, "distillation needs teachers"),
        (clips, {"teachers": ("mel", "mel")}, "a teacher is named twice"),
        (clips, {"teachers": ("mel", "nobody")}, "'nobody' cannot teach"),
        (clips, {"teachers": ("mfcc",)}, r"mfcc cannot teach: its licence \(CC-BY-NC-4.0\)"),
        (clips, {"window_s": ()}, "windows in seconds: none; choose 0.02 or more"),
        (clips, {"window_s": (1.0, 0.0)}, "windows in seconds: 1, 0; choose"),
        (clips, {"window_s": (float("nan"),)}, "windows in seconds: nan; choose"),
        (clips, {"window_s": (float("inf"),)}, "windows in seconds: inf; choose"),
        (clips, {"window_s": (0.03,)}, "windows of 0.03 s: crnn hears 0.04 s or more at once"),
        (clips, {"synthetic": 0.5}, "distill has no synthetic pairs"),
        (clips, {"options": {"labels": -1.0}}, "labels and pairs are weights"),
        (clips, {"options": {"nothing": 1}}, "nothing"),
        (plain, {"options": {"labels": 1.0}}, "none of the form NAME:VALUE has two values"),
        (None, {}, "distill needs recordings: pass a folder or a manifest"),
        (clips, {"objective": "simclr"}, "simclr has no teachers: they are for distill"),
        (
            clips,
            {"objective": "simclr", "teachers": (), "mixtures": 1.0},
            "simclr has no mixtures: they are for distill",
        ),
    ]
    for given, more, words in cases:
        for refuse in (check_run, pretrain):
            with pytest.raises(OssicleError, match=words) as caught:
                refuse(given, tmp_path / "net", settings(**more))
            assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_too_few_windows_for_a_batch_are_told(clips, tmp_path):
    with pytest.raises(DataError, match="do not fill a batch of 500"):
        pretrain(clips, tmp_path / "net", settings(batch_size=500))


# --- the command line ------------------------------------------------------------------------


QUICK = ("--backbone", "crnn", *SET, "--batch-size", 4, "--workers", 1, "--accelerator", "cpu")
DISTILL = ("--objective", "distill", "--teachers", "mel", "--windows", "0.2,0.4", *QUICK)


def test_the_command_line_does_what_python_does(ossicle, manifest, done, tmp_path):
    options = ("--labels", "multilabel", "--option", "labels=0.3", "--option", "pairs=0.5")
    command = ("pretrain", manifest, "-o", tmp_path / "net", *DISTILL, *options, "--steps", 5)
    code, out, err = ossicle(*command)
    assert code == 0, err
    assert same(tmp_path / "net", done.out)
    first, log, last = out.splitlines()
    assert first.startswith("distill, 5 steps, 0.1 min of recordings: loss ")
    assert ", mel " in first
    assert log == f"log and checkpoint: {tmp_path / 'net-training'}"
    assert last == f"model: {tmp_path / 'net'}"
    (skipped,) = [line for line in err.splitlines() if line.startswith("skipped ")]
    assert "11.wav" in skipped
    code, out, _ = ossicle(*command, "--json")
    assert code == 0
    told = json.loads(out.splitlines()[-1])
    assert told["steps"] == 5
    assert told["last"]["loss"] == done.trained.history[-1]["loss"]


def test_recordings_need_no_labels(ossicle, manifest, tmp_path):
    code, out, err = ossicle(
        "pretrain", manifest.parent, "-o", tmp_path / "net", *DISTILL, "--steps", 1
    )
    assert code == 0, err
    assert out.startswith("distill, 1 steps")


WRONG = {
    "no teachers": (("--teachers", ""), "distillation needs teachers: --teachers yamnet"),
    "unknown teacher": (("--teachers", "mel, nobody"), "'nobody' cannot teach"),
    "a licence that is not free": (("--teachers", "mfcc"), "its licence (CC-BY-NC-4.0)"),
    "windows that are words": (("--windows", "long"), "windows 'long': give seconds with commas"),
    "a window left out": (("--windows", "1,,2"), "windows '1,,2': give seconds with commas"),
    "windows of nothing": (("--windows", "0"), "windows in seconds: 0; choose 0.02 or more"),
    "windows that are no number": (("--windows", "nan"), "windows in seconds: nan"),
    "synthetic pairs": (("--synthetic", 0.5), "distill has no synthetic pairs"),
    "unknown option": (("--option", "loud=1"), "distill has no keyword 'loud'"),
    "teachers of another": (("--objective", "simclr"), "simclr has no teachers"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line(ossicle, manifest, tmp_path, what):
    arguments, words = WRONG[what]
    code, out, err = ossicle("pretrain", manifest, "-o", tmp_path / "net", *DISTILL, *arguments)
    assert code == 2
    assert not out
    (line,) = err.strip().splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_missing_recordings_are_one_line(ossicle, tmp_path):
    for source in ((), (tmp_path / "nowhere",)):
        code, out, err = ossicle("pretrain", *source, "-o", tmp_path / "net", *DISTILL)
        assert code == 2
        assert not out
        (line,) = err.strip().splitlines()
        assert str(source[0]) in line if source else "distill needs recordings" in line
