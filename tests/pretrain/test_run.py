"""Runs from recordings to bundles: through Python and the command line, stopped and resumed."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.audio import load
from ossicle.backbones import WEIGHTS
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.model import create_model
from ossicle.pretrain.run import Pretrained, Settings, check_run, pretrain, training_folder
from ossicle.train import CHECKPOINT, TrainingError

RATE = 16_000
SMALL = {"channels": 4, "hidden": 4, "dense": 6}
SET = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of six sounds of half a second, one of them broken."""
    root = tmp_path_factory.mktemp("music")
    rng = np.random.default_rng(0)
    for name, hz in (("high", 2000), ("low", 300)):
        (root / name).mkdir()
        for i in range(6):
            t = np.arange(round(RATE * rng.uniform(0.4, 0.6))) / RATE
            x = 0.3 * np.sin(2 * np.pi * hz * rng.uniform(0.9, 1.1) * t) + 0.02 * rng.normal(
                size=len(t)
            )
            soundfile.write(root / name / f"{i}.wav", x, RATE)
    (root / "low" / "5.wav").write_bytes(b"RIFF, but no sound")
    return root


@pytest.fixture(scope="module")
def clips(folder) -> Clips:
    return read_clips(folder)


def settings(objective: str = "simclr", **more) -> Settings:
    options = {"byol": {"hidden": 16, "projection": 4}}.get(objective, {})
    base = {
        "objective": objective,
        "backbone": "crnn",
        "config": SMALL,
        "options": options,
        "steps": 5,
        "batch_size": 4,
        "crop_s": 0.2,
    }
    return Settings(**{**base, **more})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return bundle.load(path).state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def stop_after(step: int):
    def progress(done, total, seconds):
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


# --- what a run leaves -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(clips, tmp_path_factory) -> Pretrained:
    calls = []
    out = tmp_path_factory.mktemp("runs") / "deep" / "net.ossicle"
    result = pretrain(clips, out, settings(seed=3), progress=lambda *numbers: calls.append(numbers))
    # Two views of four crops of 0.2 s at each step.
    assert calls == [(n, 5, pytest.approx(1.6 * n)) for n in range(1, 6)]
    return result


def test_the_bundle_is_the_trained_network(done, clips):
    assert bundle.is_bundle(done.out)
    model = bundle.load(done.out)
    assert model.head is None
    new = create_model("crnn", seed=3, **SMALL)
    assert model.backbone.config() == new.backbone.config()
    before = new.backbone.state_dict()
    moved = {n: float((t - before[n]).abs().max()) for n, t in model.backbone.state_dict().items()}
    assert min(d for n, d in moved.items() if n.endswith(("weight", "running_mean"))) > 1e-5
    assert int(model.backbone.state_dict()["convolutions.conv1.2.num_batches_tracked"]) == 5
    assert all(t.isfinite().all() for t in model.state_dict().values())
    sound = load(clips.table["path"][0], sample_rate=RATE).samples[0]
    features = [list(m.clip_features(sound).values()) for m in (model, done.model)]
    assert all(np.array_equal(a, b) for a, b in zip(*features, strict=True))
    assert not any(p.requires_grad for p in done.model.parameters())


def test_it_says_what_it_was_made_of(done):
    seconds = 0.5 * 11
    assert done.hours == pytest.approx(seconds / 3600, rel=0.15)
    info = bundle.load(done.out).info
    assert info["weights"] == f"simclr on {done.hours:.1f} h of recordings, 5 steps, seed 3"
    assert info["pretrained"] is True
    assert info["name"] == "crnn"
    assert info["licence"] == "that of the recordings it was trained on"
    told = info["training"]["arguments"]
    assert told["objective"] == "simclr"
    assert told["config"] == SMALL
    assert told["steps"] == 5
    assert info["training"]["seed"] == 3
    assert [line["step"] for line in done.trained.history] == [5]


def test_a_broken_file_is_named_and_left_out(done, clips):
    (row, path, reason), *others = done.skipped
    assert not others
    assert clips.table["path"][row] == path
    assert path.endswith("low/5.wav")
    assert reason


def test_log_and_checkpoint_lie_beside_it(done):
    assert done.folder == training_folder(done.out) == done.out.with_name("net-training")
    lines = [json.loads(text) for text in (done.folder / "log.jsonl").read_text().splitlines()]
    assert lines == done.trained.history
    assert {"loss", "found", "lr"} <= set(lines[-1])
    assert (done.folder / CHECKPOINT).is_file()
    assert {path.name for path in done.out.parent.iterdir()} == {"net.ossicle", "net-training"}


def test_a_finished_run_is_not_run_again(done, clips):
    calls = []
    kept = (done.out / "model.safetensors").read_bytes()
    shutil.rmtree(done.out)
    again = pretrain(clips, done.out, settings(seed=3), progress=lambda *n: calls.append(n))
    assert not calls
    assert again.trained.history == done.trained.history
    assert (done.out / "model.safetensors").read_bytes() == kept


def test_another_run_of_that_name_is_refused(done, clips):
    changes = [{"seed": 4}, {"steps": 6}, {"learning_rate": 1e-3}, {"crop_s": 0.25}]
    changes += [{"options": {"temperature": 0.2}}, {"config": {**SMALL, "dropout": 0.1}}]
    kept = (done.folder / CHECKPOINT).read_bytes()
    for change in changes:
        with pytest.raises(TrainingError, match="other arguments or clips"):
            pretrain(clips, done.out, settings(**{"seed": 3, **change}))
    with pytest.raises(TrainingError, match="other arguments or clips"):
        pretrain(clips.subset(np.arange(8)), done.out, settings(seed=3))
    assert (done.folder / CHECKPOINT).read_bytes() == kept
    assert bundle.is_bundle(done.out)


def test_a_run_with_other_labels_is_refused(clips, tmp_path):
    out = tmp_path / "net"
    pretrain(clips, out, settings("supervised", steps=1, held_out=0.0))
    table = clips.table.assign(label=list(clips.table["label"])[::-1])
    turned = Clips(table, "classes", clips.classes, clips.root, [], clips.group_source)
    with pytest.raises(TrainingError, match="other arguments or clips"):
        pretrain(turned, out, settings("supervised", steps=1, held_out=0.0))
    # Without labels they are no matter.
    pretrain(clips, tmp_path / "bare", settings(steps=1))
    pretrain(turned, tmp_path / "bare", settings(steps=1))


def test_one_class_held_out_is_no_score(clips, tmp_path, monkeypatch):
    """Any answer would look right."""
    first = np.flatnonzero(clips.table["label"] == clips.classes[0])[:2]
    monkeypatch.setattr("ossicle.pretrain.run.split_groups", lambda *_: (None, first))
    done = pretrain(clips, tmp_path / "net", settings("supervised", steps=1))
    assert done.scores is None
    assert "held_out" not in bundle.load(tmp_path / "net").info


def test_names_with_dots_have_folders_of_their_own():
    folders = {training_folder(Path(name)).name for name in ("lr0.001", "lr0.002", "a.ossicle")}
    assert folders == {"lr0.001-training", "lr0.002-training", "a-training"}


def test_the_callers_numbers_and_threads_stay(clips, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    pretrain(clips, tmp_path / "net", settings(steps=1), workers=threads + 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_epochs_are_of_segments(clips, tmp_path):
    """Eleven segments are two batches of four."""
    result = pretrain(clips, tmp_path / "net", settings(steps=None, epochs=1.5))
    assert result.trained.steps == 3


def test_seeds_differ_and_repeat(clips, tmp_path):
    names = [("a", 0), ("b", 0), ("c", 1)]
    for name, seed in names:
        pretrain(clips, tmp_path / name, settings(steps=2, seed=seed))
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


# --- stopped and resumed ---------------------------------------------------------------------


RUNS = {
    "simclr": settings("simclr"),
    "byol, averaged": settings("byol", average=0.8),
    "simclr with synthetic pairs": settings("simclr", synthetic=0.5, optimiser="sgd"),
    "simclr of a network without norms": settings(
        backbone="nfnet_f0", config={"width": 1 / 8}, steps=3, crop_s=0.3
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_resumed_equals_uninterrupted_bit_for_bit(clips, tmp_path, run):
    whole = pretrain(clips, tmp_path / "whole", run)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            pretrain(clips, tmp_path / "parts", run, progress=stop_after(step))
        assert not (tmp_path / "parts").exists()
        state = torch.load(tmp_path / "parts-training" / CHECKPOINT, weights_only=True)
        assert state["step"] == step
    parts = pretrain(clips, tmp_path / "parts", run)
    assert same(tmp_path / "whole", tmp_path / "parts")
    pairs = zip(whole.trained.history, parts.trained.history, strict=True)
    assert all(a["loss"] == b["loss"] for a, b in pairs)
    if run.objective == "byol":
        objective = state["objective"]
        # Past pictures are kept, and the average is what is taken away.
        assert int(objective["views.queue.filled"]) == 16
        final = torch.load(tmp_path / "parts-training" / CHECKPOINT, weights_only=True)["objective"]
        for name, t in weights(tmp_path / "parts").items():
            assert torch.equal(t, final[name.replace("backbone.", "average_backbone.", 1)]), name
            if t.is_floating_point() and "weight" in name:
                assert not torch.equal(t, final[name]), name


def test_clipping_is_on_for_networks_without_norms(clips, tmp_path):
    run = RUNS["simclr of a network without norms"]
    for name, clipping in (("own", None), ("told", 0.05), ("none", 0.0)):
        pretrain(clips, tmp_path / name, replace(run, steps=1, clipping=clipping))
    assert same(tmp_path / "own", tmp_path / "told")
    assert not same(tmp_path / "own", tmp_path / "none")


# --- other objectives and sources ------------------------------------------------------------


def test_labels_give_a_head(ossicle, clips, folder, tmp_path):
    run = settings("supervised", steps=12, held_out=0.2, learning_rate=0.02)
    result = pretrain(clips, tmp_path / "net", run)
    model = bundle.load(tmp_path / "net")
    assert model.classes == ("high", "low")
    assert model.readout == ("dense/mean",)
    assert model.task == "classes"
    assert result.scores is not None
    code, out, _ = ossicle("predict", tmp_path / "net", folder / "high", "--workers", 1)
    assert code == 0
    head, *rows = out.splitlines()
    assert len(rows) == 6
    assert "high" in head
    sound = load(folder / "high" / "0.wav", sample_rate=RATE).samples[0]
    scores = model.clip_scores(sound)
    assert any(f"{scores[0]:.4f}"[:5] in row for row in rows if "0.wav" in row)


def test_synthetic_sounds_alone_need_no_recordings(tmp_path):
    result = pretrain(None, tmp_path / "net", settings(steps=2))
    assert result.hours == 0
    assert result.skipped == []
    info = bundle.load(tmp_path / "net").info
    assert info["weights"] == "simclr on synthetic sounds, 2 steps, seed 0"
    assert info["licence"] == "none needed"


def test_both_kinds_are_told(clips, tmp_path):
    result = pretrain(clips, tmp_path / "net", settings(steps=1, synthetic=0.5))
    assert " h of recordings and synthetic sounds, 1 steps" in result.model.info["weights"]


def test_published_weights_to_begin_with_are_told(clips, tmp_path, monkeypatch):
    state = create_model("crnn", seed=77).backbone.state_dict()
    loaded = SimpleNamespace(state=state, head=None, hidden=(), readout=None, classes=())
    source = SimpleNamespace(
        load=lambda: loaded, description="theirs", licence="MIT", origin="a paper"
    )
    monkeypatch.setitem(WEIGHTS, "crnn", source)
    run = settings(config={}, pretrained=True, steps=1, learning_rate=1e-9, weight_decay=0.0)
    pretrain(clips, tmp_path / "net", run)
    model = bundle.load(tmp_path / "net")
    assert model.info["weights"].endswith("1 steps, seed 0, from published weights")
    assert model.info["licence"] == "MIT; and that of the recordings it was trained on"
    for name, t in model.backbone.state_dict().items():
        if name.endswith("weight"):
            assert torch.allclose(t, state[name], atol=1e-6), name


def test_unlabelled_recordings_will_do(folder, tmp_path):
    result = pretrain(unlabelled_clips([folder]), tmp_path / "net", settings("cpc", steps=1))
    assert result.trained.steps == 1
    assert len(result.skipped) == 1


def test_a_probe_is_scored_while_it_trains(clips, tmp_path):
    result = pretrain(clips, tmp_path / "net", settings(steps=3), probe=clips, probe_every=2)
    scored = {line["step"]: line for line in result.trained.history if "knn" in line}
    assert list(scored) == [2, 3]
    assert all(0 <= line[name] <= 1 for line in scored.values() for name in ("knn", "ridge"))
    pretrain(clips, tmp_path / "bare", settings(steps=3))
    assert same(tmp_path / "net", tmp_path / "bare")


def test_a_probe_that_cannot_be_scored_is_told_first(clips, tmp_path):
    with pytest.raises(DataError, match="one class"):
        one = Clips(clips.table[:6], "classes", ("high",), clips.root, [], clips.group_source)
        pretrain(clips, tmp_path / "net", settings(), probe=one)
    assert not training_folder(tmp_path / "net").exists()


# --- what cannot be --------------------------------------------------------------------------


WRONG = {
    "objective": "clap",
    "optimiser": "lars",
    "epochs": 0,
    "steps": 0,
    "batch_size": 1,
    "crop_s": -1.0,
    "jitter_s": -0.1,
    "neighbours": 0,
    "learning_rate": float("nan"),
    "weight_decay": -1e-3,
    "warm_up": 1.5,
    "clipping": -0.1,
    "average": -0.1,
    "synthetic": 2.0,
    "delta": -0.5,
    "seed": -1,
    "devices": 0,
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_out_of_range_are_told_by_name(name, tmp_path):
    with pytest.raises(OssicleError) as caught:
        settings(**{name: WRONG[name]}).check()
    message = str(caught.value)
    told = "a batch of 1 items" if name == "batch_size" else name
    assert told in message
    assert "\n" not in message
    settings().check()


@pytest.mark.parametrize("name", ["epochs", "crop_s", "learning_rate", "weight_decay"])
def test_infinite_settings_are_told(name):
    with pytest.raises(OssicleError, match=name):
        settings(**{name: float("inf")}).check()


def test_settings_that_do_not_go_together():
    with pytest.raises(OssicleError, match="a multiple of the devices"):
        settings(devices=3).check()
    with pytest.raises(OssicleError, match="published weights have no keywords"):
        settings(pretrained=True).check()


def test_labels_that_are_numbers_are_refused(clips, tmp_path):
    table = clips.table.copy()
    table["label"] = np.linspace(0, 1, len(table))
    numbers = Clips(table, "regression", (), clips.root, [], clips.group_source)
    for objective in ("supervised", "joint"):
        for held_out in (0.0, 0.2):
            with pytest.raises(DataError, match="needs classes or tags, these labels are numbers"):
                pretrain(numbers, tmp_path / "net", settings(objective, held_out=held_out))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("objective", ["supervised", "joint", "cpc"])
def test_what_needs_recordings_says_so(objective, tmp_path):
    with pytest.raises(DataError, match=f"{objective} needs recordings"):
        pretrain(None, tmp_path / "net", settings(objective))


def test_what_cannot_run_is_told_before_anything_is_decoded(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ossicle.pretrain.run.decode_cached", lambda *a, **k: pytest.fail("decoded")
    )
    cases = [
        (settings(options={"nothing": 1}), "nothing"),
        (settings("byol", options={"decay": 2.0}), "decay"),
        (settings(backbone="no_such"), "unknown backbone 'no_such'"),
        (settings(precision="12-wide"), "precision '12-wide': "),
        (settings(accelerator="abacus"), "accelerator 'abacus'"),
        (settings(config={"nothing": 1}), "nothing"),
        (settings(backbone="mel", config={}), "mel has no weights to train"),
        (settings("byol", backbone="mfcc", config={}), "mfcc has no weights to train"),
    ]
    for run, words in cases:
        for refuse in (check_run, pretrain):
            with pytest.raises(OssicleError, match=words):
                refuse(clips, tmp_path / "net", run)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_the_way_stays(clips, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    cache = cache_dir()
    before = sorted(cache.rglob("*"))
    with pytest.raises(OssicleError, match="is there already and is not a bundle"):
        pretrain(clips, out, settings(seed=99))
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
    assert (out / "thesis.txt").read_text() == "years"
    assert sorted(cache.rglob("*")) == before


# --- the command line ------------------------------------------------------------------------


QUICK = ("--backbone", "crnn", *SET, "--batch-size", 4, "--crop", 0.2, "--workers", 1)
QUICK += ("--accelerator", "cpu", "--steps", 5)


def test_the_command_line_does_what_python_does(ossicle, folder, clips, done, tmp_path):
    code, out, err = ossicle("pretrain", folder, "-o", tmp_path / "net", *QUICK, "--seed", 3)
    assert code == 0
    assert same(tmp_path / "net", done.out)
    first, log, last = out.splitlines()
    assert first.startswith("simclr, 5 steps, 0.1 min of recordings: loss ")
    assert log == f"log and checkpoint: {tmp_path / 'net-training'}"
    assert last == f"model: {tmp_path / 'net'}"
    (skipped,) = [line for line in err.splitlines() if line.startswith("skipped ")]
    assert skipped == f"skipped {done.skipped[0][1]}: {done.skipped[0][2]}"
    # A run of the same name goes on where it is: at its end.
    code, out, _ = ossicle(
        "pretrain", folder, "-o", tmp_path / "net", *QUICK, "--seed", 3, "--json"
    )
    assert code == 0
    told = json.loads(out.splitlines()[-1])
    assert told["steps"] == 5
    assert told["n_skipped"] == 1
    assert told["last"]["loss"] == done.trained.history[-1]["loss"]
    assert told["hours"] == pytest.approx(done.hours)


def test_a_bundle_is_a_backbone(ossicle, folder, done):
    code, out, _ = ossicle(
        "evaluate", folder, "--backbone", done.out, "--quick", "--n-folds", 3, "--workers", 1
    )
    assert code == 0
    assert out.startswith("accuracy ")


def test_what_python_began_the_command_line_ends(ossicle, folder, tmp_path):
    from ossicle.line import read_any

    run = settings("byol", average=0.9, options={"hidden": 16, "normalise_batch": True}, steps=4)
    arguments = ("--objective", "byol", "--average", 0.9, "--option", "hidden=16")
    arguments += ("--option", "normalise-batch=true", *QUICK, "--steps", 4)
    with pytest.raises(KeyboardInterrupt):
        pretrain(read_any(folder), tmp_path / "parts", run, progress=stop_after(2))
    for name in ("parts", "whole"):
        code, _, _ = ossicle("pretrain", folder, "-o", tmp_path / name, *arguments)
        assert code == 0
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_ctrl_c_ends_with_its_code(ossicle, folder, tmp_path, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def bar(verb):
        yield stop_after(2)

    monkeypatch.setattr("ossicle.cli_pretrain.steps_of", bar)
    code, _, err = ossicle("pretrain", folder, "-o", tmp_path / "net", *QUICK)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted"
    assert torch.load(tmp_path / "net-training" / CHECKPOINT, weights_only=True)["step"] == 2
    assert not (tmp_path / "net").exists()


def test_without_clips_sounds_are_synthetic(ossicle, tmp_path):
    code, out, _ = ossicle("pretrain", "-o", tmp_path / "net", *QUICK, "--steps", 1)
    assert code == 0
    assert bundle.load(tmp_path / "net").info["weights"].startswith("simclr on synthetic sounds")
    assert out.startswith("simclr, 1 steps, ")


MISTAKES = {
    "--objective clap": "unknown objective 'clap': choose one of",
    "--backbone alexnet": "unknown backbone 'alexnet': choose one of",
    "--backbone slowfast_nfnet_f0 --set width=1/3": "width",
    "--set layers=3": "crnn has no keyword 'layers'; it has: causal, channels",
    "--set channels=many": "channels is 'many': it must be int",
    "--set channels": "write it as KEY=VALUE",
    "--option heat=1": "simclr has no keyword 'heat'; it has: projection, temperature",
    "--option temperature=hot": "temperature is 'hot': it must be float",
    "--optimiser lars": "unknown optimiser 'lars'",
    "--steps 0": "steps is 0: it must be 1 or more",
    "--epochs nan": "epochs is nan",
    "--crop inf": "crop_s is inf",
    "--jitter -1": "jitter_s is -1",
    "--learning-rate 0": "learning_rate is 0",
    "--clipping -1": "clipping is -1",
    "--batch-size 1": "a batch of 1 items",
    "--batch-size 64": "a batch has 64 items, the recordings have 11 segments",
    "--precision 12-wide": "12-wide",
    "--accelerator abacus": "abacus",
    "--pretrained": "published weights",
    "--backbone cpc_encoder --pretrained": "no published weights",
    "--probe nowhere": "nowhere",
    "--objective cpc --synthetic 0.5": "two views",
}


def mistake_of(err: str) -> str:
    """The only line; after notes about the clips where it shows after they were read."""
    (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
    return line


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(ossicle, folder, tmp_path, mistake):
    quick = QUICK if "--backbone" not in mistake and "--set" not in mistake else QUICK[8:]
    backbone = () if "--backbone" in mistake else ("--backbone", "crnn")
    code, out, err = ossicle(
        "pretrain", folder, "-o", tmp_path / "net", *quick, *backbone, *mistake.split()
    )
    assert code == 2
    assert out == ""
    assert MISTAKES[mistake] in mistake_of(err)
    if "--batch-size 64" not in mistake and "--synthetic" not in mistake:
        assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_mistakes_about_places_are_one_line(ossicle, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    cases = [
        ((tmp_path / "nowhere", "-o", tmp_path / "net"), "nowhere"),
        ((folder, "-o", tmp_path / "mine"), "is not a bundle"),
        (("--objective", "cpc", "-o", tmp_path / "net"), "cpc needs recordings"),
    ]
    for arguments, words in cases:
        code, _, err = ossicle("pretrain", *arguments, *QUICK)
        assert code == 2
        assert words in mistake_of(err)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_other_arguments_for_a_name_are_one_line(ossicle, folder, tmp_path):
    assert ossicle("pretrain", folder, "-o", tmp_path / "net", *QUICK, "--steps", 1)[0] == 0
    code, _, err = ossicle("pretrain", folder, "-o", tmp_path / "net", *QUICK, "--steps", 2)
    assert code == 2
    line = mistake_of(err)
    assert line.startswith(f"{tmp_path / 'net-training'}: holds a run with other arguments")
