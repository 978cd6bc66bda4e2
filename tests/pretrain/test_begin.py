"""Runs that begin with what an earlier one learnt: what is taken over, told and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.backbones import WEIGHTS
from ossicle.datasets.clips import Clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.errors import OssicleError
from ossicle.pretrain import teachers
from ossicle.pretrain.run import Pretrained, Settings, check_run, pretrain
from ossicle.train import CHECKPOINT, TrainingError

RATE = 16_000
SMALL = {"channels": 4, "hidden": 4, "dense": 6}


@pytest.fixture(scope="module", autouse=True)
def teacher(tmp_path_factory):
    """The log-mels teach, and the cache is the tests' own."""
    source = SimpleNamespace(
        load=lambda: SimpleNamespace(state={}, head=None, hidden=(), readout=None, classes=()),
        description="none",
        licence="MIT",
        origin="here",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, "mel", source)
        patch.setitem(teachers.TEACHERS, "mel", teachers.Teacher(8, (), ("mel",)))
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def recordings(root: Path, seed: int) -> Clips:
    rng = np.random.default_rng(seed)
    for i in range(8):
        t = np.arange(round(RATE * rng.uniform(0.4, 0.8))) / RATE
        hz = (2000, 300)[i % 2] * rng.uniform(0.9, 1.1)
        x = 0.3 * np.sin(2 * np.pi * hz * t) + 0.02 * rng.normal(size=len(t))
        soundfile.write(root / f"{i}.wav", x, RATE)
    return unlabelled_clips([root])


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    return recordings(tmp_path_factory.mktemp("sounds"), 0)


def settings(**more) -> Settings:
    base = {
        "objective": "distill",
        "backbone": "crnn",
        "config": SMALL,
        "teachers": ("mel",),
        "window_s": (0.2, 0.4),
        "steps": 6,
        "batch_size": 4,
    }
    return Settings(**{**base, **more})


@pytest.fixture(scope="module")
def first(clips, tmp_path_factory) -> Pretrained:
    return pretrain(clips, tmp_path_factory.mktemp("first") / "first.ossicle", settings())


def learnt(done: Pretrained) -> dict[str, torch.Tensor]:
    state = torch.load(done.folder / CHECKPOINT, weights_only=True)
    return {
        name: tensor for name, tensor in state["objective"].items() if tensor.is_floating_point()
    }


STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1}  # what it began with stays


def test_all_is_taken_over_by_a_run_of_the_same_kind(clips, first, tmp_path):
    begun = settings(begin=str(first.out), **STILL)
    second = pretrain(clips, tmp_path / "second.ossicle", begun)
    before, after = learnt(first), learnt(second)
    assert list(before) == list(after)
    assert float(before["head.weight"].abs().max()) > 0
    for name, tensor in before.items():
        if "running" not in name:  # statistics move with every batch
            assert torch.equal(tensor, after[name]), name
    assert second.trained.steps == 1
    # The optimiser is a new one: it has counted this step alone.
    state = torch.load(second.folder / CHECKPOINT, weights_only=True)["optimiser"]["state"]
    assert {int(one["step"]) for one in state.values()} == {1}


def test_it_is_what_training_on_gains_from(clips, first, tmp_path):
    def loss(name: str, **more) -> float:
        done = pretrain(clips, tmp_path / name, settings(steps=4, learning_rate=1e-4, **more))
        return done.trained.history[-1]["loss"]

    assert loss("begun.ossicle", begin=str(first.out)) < loss("anew.ossicle")


def test_answers_of_as_many_numbers_may_mean_others(clips, tmp_path):
    """Two teachers the other way round, as many other classes: the network alone is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, "mfcc", WEIGHTS["mel"])
        patch.setitem(teachers.TEACHERS, "mfcc", teachers.Teacher(8, (), ("mfcc",)))
        both = settings(teachers=("mel", "mfcc"))
        turned = replace(both, teachers=("mfcc", "mel"))
        first = pretrain(clips, tmp_path / "both.ossicle", both)
        begun = {"begin": str(first.out), **STILL}
        same = pretrain(clips, tmp_path / "same.ossicle", replace(both, **begun))
        other = pretrain(clips, tmp_path / "other.ossicle", replace(turned, **begun))
    head = learnt(first)["head.weight"]
    assert torch.equal(learnt(same)["head.weight"], head)
    assert learnt(other)["head.weight"].shape == head.shape
    assert float(learnt(other)["head.weight"].abs().max()) < 1e-20


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_head_is_taken_over_for_the_same_classes(clips, tmp_path, average):
    def labelled(names: tuple[str, str]) -> Clips:
        table = clips.table.assign(label=[names[i % 2] for i in range(len(clips.table))])
        return replace(clips, table=table, classes=tuple(sorted(names)))

    kind = settings(
        objective="supervised", teachers=(), crop_s=0.3, held_out=0.0, average=average, steps=4
    )
    first = pretrain(labelled(("high", "low")), tmp_path / "first.ossicle", kind)
    begun = replace(kind, begin=str(first.out), **STILL)
    same = pretrain(labelled(("high", "low")), tmp_path / "same.ossicle", begun)
    other = pretrain(labelled(("cat", "dog")), tmp_path / "other.ossicle", begun)
    head = "head.weight" if average == 0 else "average_head.weight"
    torch.testing.assert_close(
        learnt(same)["head.weight"], learnt(first)[head], rtol=1e-6, atol=1e-9
    )
    assert not torch.allclose(learnt(other)["head.weight"], learnt(first)[head], atol=1e-3)


def test_maps_to_other_components_begin_anew(first, tmp_path):
    other = recordings(tmp_path, 1)
    begun = settings(begin=str(first.out), **STILL)
    second = pretrain(other, tmp_path / "second.ossicle", begun)
    before, after = learnt(first), learnt(second)
    names = [n for n in before if n.startswith("backbone.") and "running" not in n]
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert float(after["head.weight"].abs().max()) < 1e-20


@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_another_objective_begins_with_the_network_alone(clips, first, tmp_path, objective):
    small = {"hidden": 8, "projection": 4} if objective == "byol" else {}
    begun = settings(
        objective=objective,
        teachers=(),
        crop_s=0.3,
        options=small,
        begin=str(first.out),
        **STILL,
    )
    second = pretrain(clips, tmp_path / "second.ossicle", begun)
    before, after = learnt(first), learnt(second)
    assert "head.weight" not in after
    names = [n for n in before if n.startswith("backbone.") and "running" not in n]
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names)
    if objective == "byol":  # the network that it learns from is no random one
        for name in names:
            followed = after[f"target_{name}"]
            torch.testing.assert_close(followed, before[name], rtol=1e-6, atol=1e-9)


def test_a_moving_average_is_what_is_begun_with_and_begins_there(clips, tmp_path):
    kept = settings(average=0.5)
    averaged = pretrain(clips, tmp_path / "averaged.ossicle", kept)
    taken = learnt(averaged)
    second = pretrain(
        clips, tmp_path / "second.ossicle", replace(kept, begin=str(averaged.out), **STILL)
    )
    after = learnt(second)
    moved = 0
    for name in (n for n in taken if n.startswith("average_backbone.") and "running" not in n):
        own = name.removeprefix("average_")
        moved += not torch.equal(taken[name], taken[own])
        torch.testing.assert_close(after[own], taken[name], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(after[name], taken[name], rtol=1e-6, atol=1e-9)
    assert moved


def test_a_bundle_tells_what_it_began_with(clips, first, tmp_path):
    second = pretrain(
        clips, tmp_path / "second.ossicle", settings(begin=str(first.out), steps=2, seed=3)
    )
    info, before = bundle.load(second.out).info, bundle.load(first.out).info
    hours = f"{first.hours:.1f} h of recordings"
    assert info["weights"] == (
        f"distill by mel on {hours}, 2 steps, seed 3; begun with: "
        f"distill by mel on {hours}, 6 steps, seed 0"
    )
    assert info["licence"] == "mel: MIT; and that of the recordings it was trained on"
    assert info["begun_with"]["bundle"] == "first.ossicle"
    assert info["begun_with"]["training"] == before["training"]
    # And a third one tells of both.
    third = pretrain(clips, tmp_path / "third.ossicle", settings(begin=str(second.out), steps=1))
    told = bundle.load(third.out).info["begun_with"]
    assert told["begun_with"]["bundle"] == "first.ossicle"


def test_what_needed_no_licence_adds_none(clips, tmp_path):
    kind = settings(objective="simclr", teachers=(), crop_s=0.3, steps=1)
    alone = pretrain(None, tmp_path / "alone.ossicle", kind)
    assert bundle.load(alone.out).info["licence"] == "none needed"
    begun = replace(kind, begin=str(alone.out))
    for sounds, licence in ((None, "none needed"), (clips, "that of the recordings it was")):
        second = pretrain(sounds, tmp_path / f"{sounds is None}.ossicle", begun)
        assert bundle.load(second.out).info["licence"].startswith(licence)


def test_it_goes_on_and_is_not_taken_for_another_run(clips, first, tmp_path):
    out = tmp_path / "net.ossicle"
    begun = settings(begin=str(first.out))

    def stops(done: int, total: int, seconds: float) -> None:
        if done == 3:
            raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        pretrain(clips, out, begun, checkpoint_minutes=0, progress=stops)
    whole = pretrain(clips, tmp_path / "whole.ossicle", begun)
    resumed = pretrain(clips, out, begun)
    assert len(resumed.trained.history) == len(whole.trained.history)
    a, b = learnt(whole), learnt(resumed)
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(TrainingError, match="holds a run with other arguments"):
        pretrain(clips, out, settings())


def test_what_cannot_be_begun_with_is_refused_before_anything_is_done(clips, first, tmp_path):
    def refused(match: str, out: str = "net.ossicle", **more) -> None:
        with pytest.raises(OssicleError, match=match):
            check_run(clips, tmp_path / out, settings(**more))

    refused("no.ossicle: is no bundle", begin=str(tmp_path / "no.ossicle"))
    alone = tmp_path / "alone.ossicle"
    shutil.copytree(first.out, alone)
    refused("the checkpoint of the run to begin with is missing", begin=str(alone))
    refused("cannot be begun with and written", out="alone.ossicle", begin=str(alone))
    folder = tmp_path / "alone-training"
    folder.mkdir()
    (folder / CHECKPOINT).write_bytes(b"no checkpoint")
    refused("is no checkpoint", begin=str(alone))
    wider = {**SMALL, "channels": 6}
    refused("holds another network", begin=str(first.out), config=wider)
    refused("leave out one of both", begin=str(first.out), pretrained=True, config={})


def test_the_command_line_begins_with_a_bundle(clips, first, ossicle, tmp_path):
    root = str(Path(clips.table["path"].iloc[0]).parent)
    words = ["pretrain", root, "--objective", "distill", "--backbone", "crnn", "--teachers", "mel"]
    words += [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    words += ["--windows", ".2,.4", "--steps", "1", "--batch-size", "4", "--accelerator", "cpu"]
    words += ["--begin", str(first.out), "-o", str(tmp_path / "net.ossicle"), "--json"]
    code, out, err = ossicle(*words)
    assert code == 0, err
    assert json.loads(out)["steps"] == 1
    assert bundle.load(tmp_path / "net.ossicle").info["begun_with"]["bundle"] == "first.ossicle"
