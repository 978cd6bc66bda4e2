"""The loss, by hand and with its masks; what weak labels teach; augmentation and labels."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from conftest import NETWORK
from ossicle.strong.changes import Changes, joined
from ossicle.strong.front import PICTURE, Front
from ossicle.strong.judge import Judge
from ossicle.strong.objective import StrongTraining
from ossicle.strong.run import new_detector
from ossicle.strong.targets import Targets, pack, unpack
from ossicle.train import Batch, Step

CLASSES = ("a", "b")
B, SIZE = 3, 16_000


def step() -> Step:
    return Step(0, 1, torch.Generator().manual_seed(0), B, slice(0, B), lambda x: x)


@pytest.fixture
def detector(settings):
    return new_detector(CLASSES, replace(settings, window_s=1.0), {**NETWORK, "dropout": 0.0})


@pytest.fixture
def objective(detector, settings):
    made = StrongTraining(detector, Front(detector, SIZE), settings, precomputed=False)
    return made.train()


def batch(objective, known: np.ndarray, valid: np.ndarray, seed: int = 0) -> Batch:
    """Noise with targets drawn at random; (B, T) masks."""
    rng = np.random.default_rng(seed)
    t = known.shape[1]
    frames = rng.random((B, 2, t)).astype(np.float32) * known[:, None]
    clips = rng.integers(0, 2, (B, 2))
    targets = np.stack([pack(frames[i], known[i], clips[i], valid[i]) for i in range(B)])
    x = 0.1 * rng.normal(size=(B, 1, SIZE)).astype(np.float32)
    return Batch(torch.from_numpy(x), ["x"] * B, slice(0, B), B, None, torch.from_numpy(targets))


def frames_of(objective) -> int:
    return objective.detector.frame_scores(np.zeros(SIZE, np.float32)).scores.shape[1]


def gradients(objective) -> dict[str, torch.Tensor]:
    return {
        n: p.grad.clone() for n, p in objective.detector.named_parameters() if p.grad is not None
    }


def entropy(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def test_the_loss_is_the_mean_over_known_frames(objective):
    t = frames_of(objective)
    rng = np.random.default_rng(1)
    known, valid = rng.random((B, t)) < 0.5, np.ones((B, t))
    asked = batch(objective, known, valid)
    targets = unpack(asked.targets)
    strong, weak = torch.randn(B, 2, t), torch.randn(B, 2)
    loss, numbers = objective.loss(strong, weak, targets)
    each = entropy(strong.numpy(), targets.frames.numpy()).transpose(0, 2, 1)[known]
    of_clips = entropy(weak.numpy(), targets.clips.numpy()).mean()
    assert float(numbers["frame_loss"]) == pytest.approx(each.mean(), rel=1e-5)
    assert float(numbers["clip_loss"]) == pytest.approx(of_clips, rel=1e-5)
    weight = objective.settings.clip_weight
    assert float(loss) == pytest.approx(each.mean() + weight * of_clips, rel=1e-5)


def test_weak_labels_teach_by_the_pooling_alone(objective, settings):
    t = frames_of(objective)
    nothing, everything = np.zeros((B, t)), np.ones((B, t))
    weak = batch(objective, nothing, everything)
    loss, numbers = objective(weak, step())
    loss.backward()
    assert float(numbers["frame_loss"]) == 0
    assert float(loss.detach()) == pytest.approx(settings.clip_weight * float(numbers["clip_loss"]))
    taught = gradients(objective)
    attention = [name for name in taught if name.startswith("attention")]
    assert attention
    assert all(taught[name].abs().max() > 0 for name in attention)
    # Without the loss of clips, nothing is learnt from them.
    objective.zero_grad(set_to_none=True)
    objective.settings = replace(settings, clip_weight=0.0)
    loss, _ = objective(weak, step())
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(g.abs().max()) == 0 for g in gradients(objective).values())


def test_what_lies_in_the_filling_teaches_nothing(objective, detector):
    t = frames_of(objective)
    valid = np.ones((B, t))
    valid[0, t // 2 :] = 0
    asked = batch(objective, valid, valid)
    strong, parts = torch.randn(B, 2, t, requires_grad=True), unpack(asked.targets)
    from ossicle.detector import pool_frames

    attention = torch.randn(B, 2, t)
    weak = pool_frames(strong, attention, parts.valid[:, None])
    loss, _ = objective.loss(strong, weak, parts)
    loss.backward()
    assert strong.grad[0, :, t // 2 :].abs().max() == 0
    assert strong.grad[0, :, : t // 2].abs().min() > 0
    assert strong.grad[1].abs().min() > 0
    # And the objective asks for just these frames.
    asked_for = []
    original = detector.logits_of_front

    def spy(maps, n_frames):
        asked_for.append(n_frames.tolist())
        return original(maps, n_frames)

    objective.detector.logits_of_front = spy
    objective(asked, step())
    assert asked_for == [[t // 2, t, t]]


def test_only_what_should_learn_does(objective):
    t = frames_of(objective)
    ones = np.ones((B, t))
    loss, _ = objective(batch(objective, ones, ones), step())
    loss.backward()
    taught = gradients(objective)
    assert set(taught) == {n for n, p in objective.detector.named_parameters()}
    assert {n.split(".")[0] for n in taught} == {"backbone", "head", "attention"}


@pytest.mark.parametrize("augment", ["mask", "mix"])
def test_a_shifted_waveform_takes_its_labels_along(detector, settings, augment):
    """A click in a known frame: wherever it is moved to, its label is there."""
    hop = round(detector.frame_hop_s * detector.sample_rate)
    changes = Changes(Front(detector, SIZE), replace(settings, augment=augment), hop)
    t = SIZE // hop
    x, frames = torch.zeros(8, t * hop), torch.zeros(8, 2, t)
    for row in range(8):
        x[row, (3 * row) * hop : (3 * row + 1) * hop] = 1
        frames[row, row % 2, 3 * row] = 1
    ones = torch.ones(8, t, dtype=torch.bool)
    given = Targets(frames, ones, frames.amax(2), ones)
    y, targets = changes.of_waveforms(x, given, torch.Generator().manual_seed(1))
    heard = y.view(8, t, hop).abs().amax(2) > 0
    assert torch.equal(heard, targets.frames.amax(1) > 0)
    assert not torch.equal(heard, frames.amax(1) > 0)
    n_frames = targets.frames.sum((1, 2))
    assert n_frames.min() == 1
    assert (n_frames.max() == 2) == (augment == "mix")
    assert torch.equal(targets.clips, targets.frames.amax(2))
    assert x[0, hop:].max() == 0  # what was given stays


def test_labels_of_a_mixture_are_those_of_both():
    frames = torch.tensor([[[1.0, 0, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 0]]])
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()
    known = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    clips = torch.tensor([[1.0], [1.0], [0.0]])
    other, mixed = torch.tensor([1, 2, 0]), torch.tensor([True, True, False])
    got = joined(Targets(frames, known, clips, valid), other, mixed)
    assert got.frames[:, 0].tolist() == [[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    # In the first one's filling only the other sounds; with the weak one nothing is known.
    assert got.known.tolist() == [[True] * 4, [False] * 4, [False] * 4]
    assert got.valid.tolist() == [[True] * 4] * 3
    assert got.clips.tolist() == [[1], [1], [0]]


def test_pictures_are_mixed_as_sounds_add_up(detector, settings):
    hop = round(detector.frame_hop_s * detector.sample_rate)
    changes = Changes(Front(detector, SIZE), replace(settings, augment="mix", gain_db=0.0), hop)
    assert changes.unit is not None
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(B, 1, 4, 5, generator=rng)
    other, share = torch.tensor([1, 2, 0]), torch.tensor([0.3, 0.0, 0.6])
    got = changes._mixed(PICTURE, x, other, share)
    part = share.view(-1, 1, 1, 1).double()
    unit = changes.unit
    power = (1 - part) * (x.double() / unit).exp() + part * (x[other].double() / unit).exp()
    assert got.numpy() == pytest.approx((unit * power.log()).numpy(), abs=1e-5)
    assert torch.equal(got[1], x[1])
    # Features of a frozen network lie between.
    y = torch.randn(B, 7, 5, generator=rng)
    pairs = enumerate(zip(other, share, strict=True))
    want = torch.stack([(1 - s) * y[i] + s * y[j] for i, (j, s) in pairs])
    assert torch.allclose(changes._mixed("pointwise3", y, other, share), want, atol=1e-6)


def test_none_changes_nothing(detector, settings):
    hop = round(detector.frame_hop_s * detector.sample_rate)
    changes = Changes(Front(detector, SIZE), replace(settings, augment="none"), hop)
    parts = OrderedDict({PICTURE: torch.randn(B, 1, 64, 9)})
    before = parts[PICTURE].clone()
    ones = torch.ones(B, 9, dtype=torch.bool)
    targets = Targets(torch.rand(B, 2, 9), ones, torch.ones(B, 2), ones)
    generator = torch.Generator()
    got, same = changes.of_parts(parts, targets, generator)
    changes.masked(got, generator)
    assert torch.equal(got[PICTURE], before)
    assert same is targets


def test_the_judge_scores_known_frames_alone(detector):
    rng = np.random.default_rng(0)
    front = Front(detector, SIZE)
    t = detector.frame_scores(np.zeros(SIZE, np.float32)).scores.shape[1]
    n = 20
    known = rng.random((n, t)) < 0.6
    truth = rng.random((n, 2, t)) < 0.3
    packed = np.stack(
        [pack(truth[i] * known[i], known[i], truth[i].any(1), np.ones(t)) for i in range(n)]
    )
    x = torch.from_numpy(0.1 * rng.normal(size=(n, SIZE)).astype(np.float32))
    rows = front.flat(x)
    judge = Judge(front, lambda i: rows[i], lambda i: packed[i], np.arange(n))
    score, numbers = judge(detector.eval())
    p = np.stack([detector.frame_scores(row.numpy()).scores for row in x])
    each, losses = [], []
    for k in range(2):
        y, z = truth[:, k][known], p[:, k][known].astype(np.float64)
        each.append(average_precision_score(y, z))
        losses.append(-np.where(y, np.log(z), np.log(1 - z)).mean())
    assert score == pytest.approx(np.mean(each), abs=2e-3)
    assert numbers["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-3)
