"""From clips to a model: it learns, is never worse than the probe, and goes on where it stopped."""

from __future__ import annotations

import random
import signal

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.metrics import log_loss

from ossicle import bundle
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.finetune import job as station
from ossicle.finetune import run as line
from ossicle.finetune.run import Tuned, finetune
from ossicle.finetune.settings import FinetuneSettings
from ossicle.model import Model, create_model
from ossicle.predict import class_columns, predict
from ossicle.train import CHECKPOINT, TrainingError
from ossicle.transfer.probe import create_probe

QUICK = {"epochs": 3, "batch_size": 8, "patience": 0, "refit": False}
# No step of this length is a better one.
SPOILING = {"learning_rate": 3.0, "head_rate": 1e4, "epochs": 1, "batch_size": 32}


# Small steps that better the probe.
GENTLE = {"learning_rate": 1e-4, "head_rate": 0.02, "epochs": 2}


def tuned_on(model: Model, clips: Clips, rows=None, **options) -> Tuned:
    given = {name: options.pop(name) for name in list(options) if name in SETTINGS}
    rows = np.arange(len(clips)) if rows is None else rows
    return finetune(model, clips, rows, FinetuneSettings(**{**QUICK, **given}), **options)


SETTINGS = set(FinetuneSettings.__dataclass_fields__)


def scores(model: Model, clips: Clips, **options) -> np.ndarray:
    frame, skipped = predict(model, clips, **options)
    assert not skipped
    columns = ["value"] if model.task == "regression" else class_columns(model)
    return frame[columns].to_numpy()


def same(a: Model, b: Model) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def probe_on(model: Model, clips: Clips, rows: np.ndarray, **settings):
    """The ridge on all layers of some clips, and the features of all of them."""
    table = extract(model, clips)
    X = table.matrix()
    ridge = create_probe("ridge", clips.task, random_state=0, **settings)
    ridge.fit(X[rows], clips.y()[rows], groups=clips.groups()[rows], block_sizes=table.sizes())
    return ridge, X


@pytest.fixture
def parts(monkeypatch):
    """(rows fitted on, rows held out) of each run in the test."""
    seen = []

    class Watched(station.Job):
        def __init__(self, *arguments):
            seen.append((arguments[2], arguments[3]))
            super().__init__(*arguments)

    monkeypatch.setattr(line, "Job", Watched)
    return seen


@pytest.fixture
def crops(monkeypatch):
    """What each run's batches were made with."""
    seen = []

    class Watched(station.CropBatches):
        def __init__(self, waveforms, **options):
            seen.append({**options, "rows": waveforms.rows})
            super().__init__(waveforms, **options)

    monkeypatch.setattr(station, "CropBatches", Watched)
    return seen


def heard_rows(crops):
    return [options["rows"] for options in crops]


# --- it learns -------------------------------------------------------------------------------


def test_from_scratch_it_learns_what_can_be_told_apart(network, clips, parts):
    test = np.flatnonzero(np.isin(clips.groups(), ["hiss5", "high5", "low5"]))
    train = np.setdiff1d(np.arange(len(clips)), test)
    tuned = tuned_on(
        network(), clips, train, scratch=True, epochs=20, batch_size=10, learning_rate=3e-3
    )
    found = scores(tuned.model, clips.subset(test)).argmax(1)
    assert (found == clips.y()[test]).mean() == 1.0
    losses = [line["loss"] for line in tuned.history[0] if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert tuned.model.readout == ("block5/mean",)
    assert tuned.epochs[0] >= 1
    # Norms heard the sounds.
    before, after = (m.backbone.blocks["block1"][1].running_mean for m in (network(), tuned.model))
    assert not torch.equal(before, after)


def test_it_is_never_worse_on_held_out_clips_than_the_probe(network, clips, parts):
    model = network()
    tuned = tuned_on(model, clips, **GENTLE)
    (fitted, held), *_ = parts
    ridge, X = probe_on(model, clips, fitted)
    probe = log_loss(clips.y()[held], ridge.predict_proba(X[held]), labels=range(3))
    assert tuned.validation[0] < probe
    assert tuned.epochs[0] >= 1
    # The weights that were taken are those whose loss is told; so few clips tell no temperature.
    assert len(held) < station.CALIBRATED
    found = log_loss(clips.y()[held], scores(tuned.model, clips.subset(held)), labels=range(3))
    assert tuned.validation[0] == pytest.approx(found, rel=1e-3, abs=1e-4)
    logged = [x["validation_loss"] for x in tuned.history[0] if "validation_loss" in x]
    assert min(logged) == tuned.validation[0] == logged[tuned.epochs[0] - 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_where_training_spoils_it_the_probe_remains(network, clips, parts, workers):
    model = network()
    tuned = tuned_on(model, clips, workers=workers, **SPOILING)
    assert tuned.epochs == [0]
    (fitted, held), *_ = parts
    ridge, X = probe_on(model, clips, np.arange(len(clips)))
    assert scores(tuned.model, clips) == pytest.approx(ridge.predict_proba(X), abs=1e-5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.backbone.state_dict().values(),
            tuned.model.backbone.state_dict().values(),
            strict=True,
        )
    )
    # Its loss is that before the clips that judge it were learnt from too.
    ridge, X = probe_on(model, clips, fitted)
    probe = log_loss(clips.y()[held], ridge.predict_proba(X[held]), labels=range(3))
    assert tuned.validation[0] == pytest.approx(probe, rel=2e-3, abs=1e-5)


def test_a_probe_among_several_seeds_is_judged_without_the_held_out_clips(
    network, clips, parts, monkeypatch
):
    """Some seeds better it and some do not: what was fitted on the judges would win."""
    model = network()
    job = station.Job.run

    def one_spoilt(self, seed, folder, progress):
        kept = self.settings
        if seed:
            self.settings = FinetuneSettings(**{**QUICK, **SPOILING})
        try:
            return job(self, seed, folder, progress)
        finally:
            self.settings = kept

    monkeypatch.setattr(station.Job, "run", one_spoilt)
    tuned = tuned_on(model, clips, seeds=2, **GENTLE)
    assert tuned.epochs[0] > 0
    assert tuned.epochs[1] == 0
    assert tuned.ensemble["losses"] == pytest.approx(tuned.validation, rel=1e-3, abs=1e-5)


def test_what_showed_when_to_stop_is_learnt_from_too(network, clips, parts, crops):
    """Where the last epoch is the best, the refit is the run that holds nothing out."""
    given = {**GENTLE, "seed": 3}
    tuned = tuned_on(network(), clips, refit=True, **given)
    assert tuned.epochs == [2]
    (fitted, held), *_ = parts
    first, second = (set(rows.tolist()) for rows in heard_rows(crops))
    assert first == set(fitted.tolist())
    assert second == {*fitted.tolist(), *held.tolist()}
    whole = tuned_on(network(), clips, validation=0.0, **given)
    assert same(tuned.model, whole.model)
    assert tuned.validation == tuned_on(network(), clips, **given).validation


def test_a_refit_ends_after_the_best_epoch(network, clips, monkeypatch):
    ends = []
    fit = station.fit

    def watched(objective, *some, **options):
        trained = fit(objective, *some, **options)
        ends.append(int(objective.epoch))
        return trained

    monkeypatch.setattr(station, "fit", watched)
    losses = iter([1.0, 0.8, 0.5, 0.7, 0.9])  # the probe's, then each epoch's
    monkeypatch.setattr(station.Job, "loss", lambda self, model: next(losses))
    tuned = tuned_on(network(), clips, refit=True, epochs=6, patience=2)
    assert tuned.epochs == [2]
    assert ends == [4, 2]


def test_seeds_are_chosen_before_the_judges_are_learnt_from(network, clips):
    given = {**GENTLE, "seeds": 2}
    plain = tuned_on(network(), clips, **given)
    again = tuned_on(network(), clips, refit=True, **given)
    assert again.ensemble == plain.ensemble
    assert again.validation == plain.validation
    assert not same(again.model, plain.model)


def test_a_new_head_starts_from_nothing(network, clips):
    tuned = tuned_on(network(), clips, head_start="new", unfreeze="head", epochs=8, head_rate=1.0)
    assert tuned.epochs[0] >= 1
    assert tuned.validation[0] < np.log(3)
    assert (scores(tuned.model, clips).argmax(1) == clips.y()).mean() > 0.7


def test_without_a_validation_part_the_last_epoch_is_taken(network, clips, parts):
    tuned = tuned_on(network(), clips, validation=0.0)
    assert parts[0][0].tolist() == list(range(len(clips)))
    assert tuned.validation is None
    assert tuned.epochs == [3]
    assert tuned.notes == []


def test_too_few_groups_for_a_validation_part_are_told(network, clips):
    rows = np.flatnonzero(np.isin(clips.groups(), ["high0", "low0"]))
    few = clips.subset(rows)
    few.table["group"] = "all one"
    tuned = tuned_on(network(), few, epochs=1)
    assert tuned.validation is None
    assert len(tuned.notes) == 1
    assert tuned.notes[0].startswith("trained to the last epoch, as no validation part")


# --- what is held out ------------------------------------------------------------------------


def test_groups_are_whole_and_only_the_rows_asked_for_are_used(network, clips, parts):
    train = np.arange(len(clips))[::-1][4:]
    for seed in range(3):
        tuned_on(network(), clips, train, seed=seed, epochs=1)
    groups = clips.groups()
    for fitted, held in parts:
        assert sorted([*fitted, *held]) == sorted(train)
        assert not set(groups[fitted]) & set(groups[held])
        assert 0.05 < len(held) / len(train) < 0.35
    assert len({tuple(held) for _, held in parts}) > 1


def test_a_class_of_one_group_is_trained_on(network, frame, parts):
    rare = frame[(frame["label"] != "low") | (frame["group"] == "low0")]
    clips = read_clips(rare.reset_index(drop=True))
    tuned = tuned_on(network(), clips, epochs=1)
    fitted, _ = parts[0]
    assert set(clips.y()[fitted]) == {0, 1, 2}
    assert tuned.model.classes == clips.classes


def test_a_class_without_clips_to_learn_from_stays_unlikely(network, clips):
    train = np.flatnonzero(clips.y() != 1)
    tuned = tuned_on(network(), clips, train)
    found = scores(tuned.model, clips.subset(train))
    assert found.shape == (len(train), 3)
    assert found[:, 1].max() < 0.05
    assert (found.argmax(1) == clips.y()[train]).mean() > 0.9


def test_one_class_or_no_clip_is_refused(network, clips):
    with pytest.raises(DataError, match="one class only"):
        tuned_on(network(), clips, np.flatnonzero(clips.y() == 1))
    with pytest.raises(DataError, match="none of the clips to learn from could be read"):
        tuned_on(network(), clips, np.empty(0, np.int64))
    with pytest.raises(OssicleError, match="no layer 'block9'"):
        tuned_on(network(), clips, layers="block9")
    with pytest.raises(OssicleError, match="epochs is 0"):
        tuned_on(network(), clips, epochs=0)


def test_an_unreadable_clip_is_left_out(network, frame, tmp_path, parts):
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no sound")
    extra = {"path": str(tmp_path / "broken.wav"), "label": "low", "group": "x"}
    clips = read_clips(pd.concat([pd.DataFrame([extra]), frame], ignore_index=True))
    tuned = tuned_on(network(), clips, epochs=1)
    assert sorted(np.concatenate(parts[0])) == list(range(1, len(clips)))
    assert tuned.model.info["n_clips"] == len(clips) - 1


# --- other tasks -----------------------------------------------------------------------------


def test_several_labels_a_clip(network, frame):
    tags = {"hiss": "noisy", "high": "noisy;tone", "low": "tone"}
    clips = read_clips(frame.assign(label=frame["label"].map(tags)), labels="multilabel")
    tuned = tuned_on(network(), clips, epochs=6)
    found = scores(tuned.model, clips)
    assert ((found >= 0.5) == clips.y()).mean() > 0.9
    assert tuned.model.task == "multilabel"
    assert not np.allclose(found.sum(1), 1)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_numbers_come_in_their_own_units(network, frame, unit):
    value = {"hiss": 7.0, "high": 5.0, "low": -2.0}
    numbers = [unit * (value[label] + 20) for label in frame["label"]]
    clips = read_clips(frame.assign(label=numbers), labels="regression")
    tuned = tuned_on(network(), clips, epochs=6)
    found = scores(tuned.model, clips)[:, 0]
    assert np.abs(found - clips.y()).mean() < 0.2 * unit * np.std(list(value.values()))
    # In units of the labels' deviation, so that the rates suit any of them.
    again = read_clips(frame.assign(label=[n / unit for n in numbers]), labels="regression")
    other = tuned_on(network(), again, epochs=6)
    assert tuned.validation == pytest.approx(other.validation, rel=1e-2)


def test_numbers_where_the_probe_remains(network, frame):
    value = {"hiss": 7.0, "high": 5.0, "low": -2.0}
    clips = read_clips(frame.assign(label=frame["label"].map(value)), labels="regression")
    model = network()
    tuned = tuned_on(model, clips, **SPOILING)
    assert tuned.epochs == [0]
    # Ridge with a free offset does not mind in which units the numbers are.
    ridge, X = probe_on(model, clips, np.arange(len(clips)))
    assert scores(tuned.model, clips)[:, 0] == pytest.approx(ridge.predict(X), abs=1e-2)


# --- settings that change what is heard ------------------------------------------------------


def test_a_crop_is_the_median_clip_within_what_the_network_takes(clips, crops, parts):
    model = create_model("crnn", channels=2, hidden=2, dense=4)
    few = clips.subset(np.arange(9, 27))
    for crop_s in (None, 0.2, 60.0, 0.001):
        tuned_on(model, few, epochs=1, crop_s=crop_s, layers="last", validation=0.0)
    lengths = [soundfile.info(path).duration for path in few.table["path"]]
    seconds = [np.ceil(16_000 * length) / 16_000 for length in lengths]
    assert crops[0]["crop_s"] == pytest.approx(np.median(seconds), abs=1e-4)
    assert [c["crop_s"] for c in crops[1:]] == [0.2, model.clip.window_s, model.clip.min_s]


def test_balance_draws_classes_equally_often(network, frame, crops, parts, monkeypatch):
    some = frame[(frame["label"] != "low") | frame["group"].isin(["low0", "low1"])]
    clips = read_clips(some.reset_index(drop=True))
    heard = []
    batch = station.CropBatches.batch

    def counted(self, step, rank=0, world=1):
        found = batch(self, step, rank, world)
        heard.extend(found.targets.tolist())
        return found

    monkeypatch.setattr(station.CropBatches, "batch", counted)
    model = network()
    shares = []
    for balance in (False, True):
        heard.clear()
        tuned_on(model, clips, balance=balance, epochs=12, unfreeze="head", layers="1", patience=0)
        shares.append(np.bincount(heard, minlength=3)[2] / len(heard))
    fitted = parts[0][0]
    assert shares[0] == pytest.approx((clips.y()[fitted] == 2).mean(), abs=0.03)
    assert shares[1] == pytest.approx(1 / 3, abs=0.08)
    # Where training spoils it, the probe that remains is balanced too.
    tuned = tuned_on(model, clips, balance=True, **SPOILING)
    ridge, X = probe_on(model, clips, np.arange(len(clips)), class_weight="balanced")
    assert scores(tuned.model, clips) == pytest.approx(ridge.predict_proba(X), abs=1e-5)


@pytest.mark.parametrize("augment", ["mask", "mix"])
def test_augmented_crops_are_learnt_from(network, clips, crops, augment):
    tuned = tuned_on(network(), clips, augment=augment, validation=0.0)
    plain = tuned_on(network(), clips, validation=0.0)
    assert [options["partners"] for options in crops] == [augment == "mix", False]
    assert np.isfinite([line["loss"] for line in tuned.history[0] if "loss" in line]).all()
    assert not same(tuned.model, plain.model)


# --- stopped, resumed, repeated --------------------------------------------------------------


def stop_at(step: int):
    def progress(done, total, seconds):
        if done == step:
            signal.raise_signal(signal.SIGTERM)

    return progress


def test_a_stopped_run_goes_on_bit_for_bit(network, clips, tmp_path):
    model = network()
    options = {"seeds": 2, "augment": "mix", "patience": 2, **GENTLE}
    whole = tuned_on(model, clips, **options)
    for step in (2, 3):  # within the first epoch, and at its end
        with pytest.raises(KeyboardInterrupt):
            tuned_on(model, clips, folder=tmp_path, progress=stop_at(step), **options)
        saved = torch.load(tmp_path / "0" / CHECKPOINT, weights_only=True)
        assert saved["step"] == step
    resumed = tuned_on(model, clips, folder=tmp_path, **options)
    assert same(whole.model, resumed.model)
    assert any(whole.epochs)
    assert whole.epochs == resumed.epochs
    assert whole.validation == resumed.validation
    assert whole.ensemble == resumed.ensemble
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert [(x["step"], x.get("loss"), x.get("validation_loss")) for x in a] == [
            (x["step"], x.get("loss"), x.get("validation_loss")) for x in b
        ]
    # A finished run is only taken up, and more seeds can be added to it.
    calls = []
    again = tuned_on(model, clips, folder=tmp_path, progress=lambda *a: calls.append(a), **options)
    assert not calls
    assert same(whole.model, again.model)
    more = tuned_on(
        model,
        clips,
        folder=tmp_path,
        progress=lambda *a: calls.append(a),
        **{**options, "seeds": 3},
    )
    assert calls
    assert more.epochs[:2] == whole.epochs


def test_another_runs_folder_is_refused(network, clips, tmp_path):
    tuned_on(network(), clips, epochs=1, folder=tmp_path)
    for other in ({"learning_rate": 1e-3}, {"layers": "last"}, {"rows": np.arange(20)}):
        with pytest.raises(TrainingError, match="other arguments or clips"):
            tuned_on(network(), clips, **{"epochs": 1, "folder": tmp_path, **other})


def test_the_same_again_is_the_same(network, clips):
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    about = dict(model.info)
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002 (the caller's, which must not move)
    random.seed(4)
    expected = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    random.seed(4)
    threads = torch.get_num_threads()
    rows = np.arange(len(clips))
    first = tuned_on(model, clips, rows, **GENTLE)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    assert random.random() == expected[2]
    assert torch.get_num_threads() == threads
    # The model that it started from is as it was.
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    assert model.head is None
    assert model.info == about
    # Neither the order of the rows nor the features at hand change anything.
    table = extract(model, clips)
    shuffled = np.random.default_rng(0).permutation(rows)
    second = tuned_on(model, clips, shuffled, table=table, **GENTLE)
    assert any(first.epochs)
    assert same(first.model, second.model)
    other = tuned_on(model, clips, rows, seed=1, **GENTLE)
    assert not same(first.model, other.model)


# --- what comes out --------------------------------------------------------------------------


def test_a_bundle_gives_the_same_answers(network, clips, tmp_path):
    tuned = tuned_on(network(), clips, layers="2,last", seeds=2)
    assert not any(p.requires_grad for p in tuned.model.parameters())
    assert not tuned.model.training
    assert tuned.model.readout == ("block2/mean", "block5/mean")
    path = bundle.save(tuned.model, tmp_path / "mine.ossicle")
    loaded = bundle.load(path or tmp_path / "mine.ossicle")
    assert np.array_equal(scores(loaded, clips), scores(tuned.model, clips))
    assert np.array_equal(scores(loaded, clips, workers=2), scores(tuned.model, clips))
    assert loaded.info["finetune"]["taken_after"] == tuned.epochs
    assert loaded.info["finetune"]["seeds"] == 2
    assert loaded.info["weights"].startswith("random, seed 0, fine-tuned on 36 clips, ")
    assert loaded.info["licence"] == "none needed; and that of the recordings it was trained on"


def test_a_bundle_without_a_validation_part_can_be_written(network, clips, tmp_path):
    tuned = tuned_on(network(), clips, epochs=1, validation=0.0, scratch=True)
    bundle.save(tuned.model, tmp_path / "mine.ossicle")
    info = bundle.load(tmp_path / "mine.ossicle").info
    assert info["finetune"]["validation"] is None
    assert info["weights"] == "random weights, trained from scratch on 36 clips, 1 epochs"
    assert info["licence"] == "that of the recordings it was trained on"


def test_enough_held_out_clips_tell_a_temperature(network, clips, monkeypatch, parts):
    """Probabilities then have the loss of the best temperature, found here by search."""
    monkeypatch.setattr(station, "CALIBRATED", 5)
    tuned = tuned_on(network(), clips, validation=0.3, head_start="new", epochs=2)
    held = parts[0][1]
    y, found = clips.y()[held], scores(tuned.model, clips.subset(held))
    logits = np.log(found)
    targets = (len(held) * np.eye(3)[y] + 1) / (len(held) + 3)

    def loss(factor: float) -> float:
        z = factor * logits
        return -(targets * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(1).mean()

    factors = np.geomspace(0.2, 5, 201)
    best = factors[np.argmin([loss(f) for f in factors])]
    assert best == pytest.approx(1.0, rel=0.02)
