"""Labels: losses by hand, balanced draws, what is held out, and how it is scored."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from ossicle.audio import load
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.folds import TooFewGroupsError
from ossicle.errors import DataError, OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.supervised import Supervised, clip_losses, held_out_scores, split_groups
from ossicle.pretrain.views import Views
from ossicle.pretrain.waveforms import Waveforms
from ossicle.train import Batch, Step

SLOWFAST = ("slowfast_nfnet_f0", {"width": 1 / 8, "drop_rate": 0.0})
CRNN = ("crnn", {"dropout": 0.0})


def at(size: int, rows: slice | None = None, gather=lambda x: x) -> Step:
    return Step(0, 10, torch.Generator().manual_seed(0), size, rows or slice(0, size), gather)


def batch_of(waveforms: torch.Tensor, targets: torch.Tensor | None, views: int = 1) -> Batch:
    n = len(waveforms)
    crops = waveforms[:, None].expand(-1, views, -1)
    return Batch(crops, [str(i) for i in range(n)], slice(0, n), n, None, targets)


def noise(items: int, n_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(items, n_samples, generator=torch.Generator().manual_seed(seed))


def objective(which=CRNN, num_classes: int = 3, seed: int = 0, **options) -> Supervised:
    torch.manual_seed(seed)
    model = create_model(which[0], **which[1])
    return Supervised(model.backbone, Views(model.frontend), num_classes, **options)


# --- the losses ------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_the_definition(smoothing):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(6, 4)), np.array([0, 3, -1, 1, -1, 2])
    losses, labelled = clip_losses(
        torch.from_numpy(logits), torch.from_numpy(targets), "classes", smoothing
    )
    soft = np.eye(4)[targets] * (1 - smoothing) + smoothing / 4
    want = -(soft * log_softmax(logits, 1)).sum(1) * (targets >= 0)
    assert np.allclose(losses, want, atol=1e-6)
    assert labelled.tolist() == [True, True, False, True, False, True]
    assert losses.dtype == torch.float32


def test_binary_cross_entropy_is_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3))
    targets = np.array([[0, 1, 1], [0, 0, 0], [np.nan] * 3, [1, np.nan, 0]])
    losses, labelled = clip_losses(
        torch.from_numpy(logits), torch.from_numpy(targets).float(), "multilabel"
    )
    chance = 1 / (1 + np.exp(-logits))
    each = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance))
    want = [each[0].mean(), each[1].mean(), 0, each[3, [0, 2]].mean()]
    assert np.allclose(losses, want, atol=1e-6)
    assert labelled.tolist() == [True, True, False, True]
    whole, _ = clip_losses(
        torch.from_numpy(logits), torch.tensor([[0, 1, 1]] * 4), "multilabel"
    )  # integers, as a clips table has them
    assert float(whole[0]) == pytest.approx(each[0].mean(), abs=1e-6)


@pytest.mark.parametrize("which", [SLOWFAST, CRNN, ("yamnet", {})], ids=lambda which: which[0])
@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_the_loss_is_that_of_a_model_with_this_head(which, task):
    net = objective(which, task=task).eval()
    layer = net.backbone.layers[-1]
    model = Model(
        net.views.frontend,
        net.backbone,
        clip=create_model(which[0], **which[1]).clip,
        readout=[f"{layer}/mean"],
        head=Head.from_layers([net.head_layer()]),
        classes="abc",
        task=task,
    ).eval()
    x = noise(3, 16_000)
    targets = torch.tensor([0, 2, -1]) if task == "classes" else torch.eye(3)
    with torch.no_grad():
        loss, numbers = net(batch_of(x, targets), at(3))
        logits = model(x).double().numpy()
    if task == "classes":
        want = -(log_softmax(logits, 1)[[0, 1], [0, 2]]).mean()
        right = (logits.argmax(1)[:2] == [0, 2]).mean()
        assert list(numbers) == ["accuracy"]
    else:
        chance = 1 / (1 + np.exp(-logits))
        want = -(np.where(np.eye(3), np.log(chance), np.log(1 - chance))).mean()
        right = (logits.argmax(1) == np.arange(3)).mean()
        assert list(numbers) == ["top_tag"]
    assert float(loss) == pytest.approx(want, rel=1e-4)
    assert float(*numbers.values()) == pytest.approx(right)


def test_processes_together_are_one():
    """However unevenly what has a label is spread over them."""
    net = objective().eval()
    x, targets = noise(6, 8000), torch.tensor([0, -1, 1, -1, -1, -1])

    def gradients(rows: slice) -> torch.Tensor:
        part = Batch(x[rows, None], ["x"] * 3, rows, 6, None, targets[rows])
        net.zero_grad()
        # What one process would get from all.
        loss, _ = net(part, at(6, rows, lambda own: (targets >= 0).float()))
        loss.backward()
        return net.head.weight.grad.clone()

    whole = gradients(slice(0, 6))
    assert torch.allclose((gradients(slice(0, 3)) + gradients(slice(3, 6))) / 2, whole, atol=1e-7)
    assert whole.abs().max() > 0


def test_nothing_labelled_is_nothing_learnt():
    net = objective()
    loss, numbers = net(batch_of(noise(2, 8000), torch.tensor([-1, -1])), at(2))
    loss.backward()
    assert float(loss.detach()) == float(numbers["accuracy"]) == 0
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def tones(labels: np.ndarray, seed: int) -> torch.Tensor:
    """(n, 6400): a low tone for label 1 of the first column, a high one for the second."""
    rng = np.random.default_rng(seed)
    t = np.arange(6400) / 16_000
    low, high = (
        np.sin(2 * np.pi * rng.uniform(*span, (len(labels), 1)) * t)
        for span in ((200, 400), (2000, 3000))
    )
    sound = labels[:, :1] * low + labels[:, 1:] * high
    return torch.from_numpy(0.3 * sound + 0.03 * rng.normal(size=sound.shape)).float()


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_tones_are_learnt(task):
    net = objective(("cpc_encoder", {"width": 1 / 16}), num_classes=2, task=task)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    losses, right = [], []
    for number in range(60):
        labels = rng.integers(2, size=(16, 2))
        if task == "classes":
            labels[:, 0] = 1 - labels[:, 1]
        targets = torch.from_numpy(labels[:, 1] if task == "classes" else labels)
        loss, numbers = net(batch_of(tones(labels, number), targets), at(16))
        losses.append(float(loss.detach()))
        right.append(float(*numbers.values()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] == pytest.approx(np.log(2), rel=0.3)
    assert np.mean(losses[-3:]) < 0.3
    # Of clips without either tag none is right.
    assert np.mean(right[-3:]) > (0.95 if task == "classes" else 0.7)


# --- what goes with it -----------------------------------------------------------------------


def test_adaptive_clipping_leaves_the_head_alone():
    net = objective(SLOWFAST)
    assert {id(p) for p in net.clipped()} == {id(p) for p in net.backbone.parameters()}
    assert not {id(p) for p in net.clipped()} & {id(p) for p in net.head.parameters()}


def test_the_average_has_its_own_head():
    net = objective()
    assert torch.equal(net.head_layer()[0], net.head.weight)
    net.keep_average(0.8)
    want = net.head.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            net.head.weight.add_(1.0)
        net.after_update(at(2))
        want = 0.8 * want + 0.2 * net.head.weight.detach()
    weight, bias = net.head_layer()
    assert torch.allclose(weight, want, atol=1e-6)
    assert weight.shape == (3, 32)
    assert bias.shape == (3,)
    assert not weight.requires_grad


def test_the_state_is_all_there_is():
    net, twin = objective(), objective(seed=1)
    batch = batch_of(noise(2, 8000), torch.tensor([0, 2]))
    for each in (net, twin):
        each.eval().keep_average(0.9)
    with torch.no_grad():
        net.head.weight.add_(1.0)
    net.after_update(at(2))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(net(batch, at(2))[0], twin(batch, at(2))[0])
    assert torch.equal(net.head_layer()[0], twin.head_layer()[0])


def test_half_precision_gives_the_loss_in_full():
    net = objective(SLOWFAST).eval()
    batch = batch_of(noise(2, 8000), torch.tensor([0, 2]))
    with torch.no_grad():
        full, _ = net(batch, at(2))
        with torch.autocast("cpu", torch.bfloat16):
            half, _ = net(batch, at(2))
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=0.05)
    # From the features on there is no half precision.
    features = torch.randn(2, net.backbone.num_features)
    with torch.no_grad():
        want, _ = net.supervised_loss(features, batch, at(2))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net.supervised_loss(features, batch, at(2))[0], want)


def test_settings_that_cannot_be_are_refused():
    for wrong, word in (
        ({"task": "regression"}, "unknown task"),
        ({"num_classes": 0}, "one class"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": 0.1, "task": "multilabel"}, "not for tags"),
    ):
        with pytest.raises(OssicleError, match=word):
            objective(**wrong)
    with pytest.raises(OssicleError, match="needs labels"):
        objective()(batch_of(noise(2, 8000), None), at(2))


# --- balance ---------------------------------------------------------------------------------


def recordings(lengths_s: list[float]) -> Waveforms:
    lengths = np.array([round(s * 100) for s in lengths_s])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    n = len(lengths)
    samples = np.ones(lengths.sum(), "<i2")
    names = tuple(f"{i}.wav" for i in range(n))
    return Waveforms(samples, np.arange(n), starts, lengths, names, [], 100)


def shares_drawn(targets: np.ndarray, lengths_s: list[float] | None = None) -> np.ndarray:
    """(n,) how often each recording is drawn, of 8000."""
    n = len(targets)
    batches = CropBatches(
        recordings(lengths_s or [1.0] * n),
        batch_size=min(n, 8),
        crop_s=0.1,
        views=1,
        targets=targets,
        balance=True,
    )
    counts = np.zeros(n)
    for step in range(8000 // batches.batch_size):
        batch = batches.batch(step)
        np.add.at(counts, [int(name.removesuffix(".wav")) for name in batch.names], 1)
    return counts / counts.sum()


def test_classes_are_drawn_alike_however_rare():
    targets = np.array([0] * 12 + [1] * 3 + [2])
    shares = shares_drawn(targets)
    assert np.abs(np.bincount(targets, shares) - 1 / 3).max() < 0.02
    # Within a class an hour counts as much as another: ten seconds against one.
    shares = shares_drawn(np.array([0, 0, 1, 1, 1, 1, 1, 1]), [30.0, 5.0] + [1.0] * 6)
    assert shares[:2] == pytest.approx([0.375, 0.125], abs=0.02)


def by_class(targets: np.ndarray) -> np.ndarray:
    """(n,) chances: a class is drawn, then a clip that has it; no label is a class too."""
    chances = np.zeros(len(targets))
    columns = [np.flatnonzero(column) for column in targets.T]
    columns.append(np.flatnonzero(targets.sum(1) == 0))
    columns = [column for column in columns if len(column)]
    for column in columns:
        for row in column:
            chances[row] += 1 / len(columns) / len(column)
    return chances


def test_tags_are_drawn_alike():
    targets = np.array([[1, 0, 0]] * 9 + [[1, 1, 0]] * 2 + [[0, 1, 0]] + [[0, 0, 0]] * 4)
    shares = shares_drawn(targets)  # the third is nobody's
    assert np.abs(shares - by_class(targets)).max() < 0.02
    assert (shares @ targets)[:2].min() > 1 / 3 - 0.02
    without = targets[targets.any(1)]
    assert np.abs(shares_drawn(without.astype(np.float32)) - by_class(without)).max() < 0.02


@pytest.mark.parametrize("tags", [False, True])
def test_what_has_no_label_keeps_its_share(tags):
    targets = np.array([0] * 5 + [1] + [-1] * 6)
    if tags:
        targets = np.where(targets[:, None] < 0, np.nan, np.eye(2)[targets])
    shares = shares_drawn(targets)
    assert shares[6:].sum() == pytest.approx(0.5, abs=0.03)
    assert shares[5] == pytest.approx(0.25, abs=0.03)


def test_numbers_cannot_be_balanced():
    with pytest.raises(OssicleError, match="numbers"):
        shares_drawn(np.array([0.1, 0.7, 0.3]))


# --- what is held out ------------------------------------------------------------------------


def table_of(labels: list, groups: list, task: str, classes: tuple[str, ...]) -> Clips:
    frame = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(len(labels))],
            "label": pd.Series(labels, dtype=object),
            "onset": np.nan,
            "offset": np.nan,
            "group": [str(g) for g in groups],
        }
    )
    return Clips(frame.assign(split=None, fold=None), task, classes, Path("/"), [], "group")


def faults(side: np.ndarray, has: np.ndarray) -> int:
    """Classes of two groups that a side lacks, and classes of one group that are not trained on."""
    several = has.sum(0) > 1
    lacking = [several & ~has[side == s].any(0) for s in (0, 1)]
    alone = (has.sum(0) == 1) & ~has[side == 0].any(0)
    return int(sum(x.sum() for x in (*lacking, alone)))


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_groups_stay_together_and_classes_are_on_both_sides(task):
    """Compared with every way there is to put the groups on two sides."""
    tried = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_groups, n_classes = int(rng.integers(3, 8)), int(rng.integers(2, 5))
        groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=15)])
        names = "abcd"[:n_classes]
        if task == "classes":
            labels = [names[rng.integers(n_classes)] for _ in groups]
        else:
            labels = [[c for c in names if rng.random() < 0.3] for _ in groups]
        clips = table_of(labels, groups, task, tuple(names))
        try:
            train, validation = split_groups(clips, 0.3, seed)
        except TooFewGroupsError:
            continue
        tried += 1
        assert sorted([*train, *validation]) == list(range(len(clips)))
        assert not set(groups[train]) & set(groups[validation])
        assert len(train) and len(validation)
        has = np.zeros((n_groups, n_classes), bool)
        for group, label in zip(groups, labels, strict=True):
            has[group, [names.index(c) for c in label]] = True
        side = np.zeros(n_groups, int)
        side[groups[validation]] = 1
        every = itertools.product((0, 1), repeat=n_groups)
        assert faults(side, has) == min(faults(np.array(s), has) for s in every)
    assert tried > 40


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.35, 0.5, 0.8, 0.97])
def test_the_share_is_about_what_was_asked_for(share):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    labels = [f"{k}" for k in rng.integers(4, size=1000)]
    clips = table_of(labels, list(groups), "classes", tuple("0123"))
    train, validation = split_groups(clips, share)
    assert len(validation) / 1000 == pytest.approx(share, abs=0.01)
    if len(validation) >= 100:  # of fewer a single clip is too much
        counts = np.bincount(clips.y()[validation]) / len(validation)
        assert counts == pytest.approx(np.bincount(clips.y()) / 1000, abs=0.06)
    again = split_groups(clips, share)
    assert all(np.array_equal(a, b) for a, b in zip((train, validation), again, strict=True))
    assert not np.array_equal(split_groups(clips, share, seed=1)[1], validation)


def test_splits_that_cannot_be_are_refused():
    clips = table_of(["a", "b"], [0, 0], "classes", ("a", "b"))
    with pytest.raises(DataError, match="one group"):
        split_groups(clips)
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(DataError, match="between 0 and 1"):
            split_groups(clips, share)


# --- scores ----------------------------------------------------------------------------------


def tagger(task: str, classes: tuple[str, ...]) -> Model:
    model = create_model("mel")
    generator = torch.Generator().manual_seed(3)
    weight = 0.5 * torch.randn(len(classes), 64, generator=generator)
    return Model(
        model.frontend,
        model.backbone,
        clip=model.clip,
        readout=["mel/mean"],
        head=Head.from_layers([(weight, torch.zeros(len(classes)))]),
        classes=classes,
        task=task,
    ).eval()


@pytest.fixture(scope="module")
def some_clips(carried_clips) -> Clips:
    clips = read_clips(carried_clips)
    return clips.subset(range(0, len(clips), 4))


def own_scores(model: Model, clips: Clips) -> np.ndarray:
    paths = clips.table["path"]
    samples = [load(path, sample_rate=model.sample_rate).samples[0] for path in paths]
    return np.stack([model.clip_scores(x) for x in samples])


def test_scores_of_classes_are_sklearns(some_clips):
    # Another order than the table's, and a class that it has not.
    classes = (*reversed(some_clips.classes), "whale")
    model = tagger("classes", classes)
    result = held_out_scores(model, some_clips)
    scores = own_scores(model, some_clips)
    labels = list(some_clips.table["label"])
    true = np.array([[label == c for c in classes] for label in labels])
    heard = true.any(0)
    want = {
        "accuracy": accuracy_score(labels, [classes[i] for i in scores.argmax(1)]),
        "auc": roc_auc_score(true[:, heard], scores[:, heard], average="macro"),
        "map": average_precision_score(true[:, heard], scores[:, heard], average="macro"),
    }
    assert list(result["scores"]) == list(want)
    for name, value in want.items():
        told = result["scores"][name]
        assert told["value"] == pytest.approx(value, abs=1e-9)
        assert 0 <= told["low"] <= value <= told["high"] <= 1
        assert told["high"] - told["low"] > 0.02
    assert result["n_clips"] == len(some_clips)
    assert result["n_groups"] == some_clips.table["group"].nunique()
    assert "whale" in result["absent"]
    assert result["skipped"] == []


def test_scores_of_tags_are_sklearns_and_intervals_those_of_groups(some_clips):
    rng = np.random.default_rng(0)
    names = ("bright", "dark", "loud")
    labels = [[c for c in names if rng.random() < 0.5] for _ in range(len(some_clips))]
    table = some_clips.table.assign(label=pd.Series(labels, dtype=object))
    clips = Clips(table, "multilabel", names, some_clips.root)
    model = tagger("multilabel", names)
    alone, scores = held_out_scores(model, clips), own_scores(model, clips)
    true = clips.y()
    assert list(alone["scores"]) == ["auc", "map"]
    for name, function in (("auc", roc_auc_score), ("map", average_precision_score)):
        value = function(true, scores, average="macro")
        assert alone["scores"][name]["value"] == pytest.approx(value, abs=1e-9)
    clips.table["group"] = [str(i % 3) for i in range(len(clips))]
    grouped = held_out_scores(model, clips)
    assert grouped["n_groups"] == 3
    assert grouped["scores"]["auc"]["value"] == alone["scores"]["auc"]["value"]
    assert grouped["scores"]["auc"]["low"] != alone["scores"]["auc"]["low"]


def test_clips_that_cannot_be_scored_are_named(some_clips, tmp_path):
    model = tagger("classes", some_clips.classes)
    with pytest.raises(DataError, match="task classes, the model of multilabel"):
        held_out_scores(tagger("multilabel", some_clips.classes), some_clips)
    with pytest.raises(DataError, match=f"unknown to the model: {some_clips.classes[0]}"):
        held_out_scores(tagger("classes", some_clips.classes[1:]), some_clips)
    bad = tmp_path / "text.wav"
    bad.write_text("no audio")
    broken = some_clips.subset(range(4))
    broken.table.loc[2, "path"] = str(bad)
    result = held_out_scores(model, broken)
    assert result["n_clips"] == 3
    assert [row for row, _, _ in result["skipped"]] == [2]
    broken.table["path"] = str(bad)
    with pytest.raises(DataError, match="none of the 4"):
        held_out_scores(model, broken)
