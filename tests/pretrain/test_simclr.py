"""SimCLR: the loss as the paper writes it, the whole objective by hand, and that it learns."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.model import create_model
from ossicle.pretrain.simclr import SimCLR, nt_xent
from ossicle.pretrain.views import Views, create_views
from ossicle.train import Batch, Step, fit

RATE = 16_000
N = 6400
SMALL = {"channels": 8, "hidden": 8, "dense": 12, "dropout": 0.0}


def at(size: int, number: int = 0, gather=lambda x: x) -> Step:
    return Step(number, 10, torch.Generator().manual_seed(number), size, slice(0, size), gather)


def objective(seed: int = 0, recipe: str = "plain", **options) -> SimCLR:
    model = create_model("crnn", seed=seed, **SMALL)
    torch.manual_seed(seed)
    views = create_views(model.frontend, N, recipe)
    return SimCLR(model.backbone, views, **{"projection": (16, 6), **options})


class Tones:
    """Eight pitches in two octaves; the two views of an item share nothing but its pitch."""

    seconds_per_item = 2 * N / RATE

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        rng = np.random.default_rng(step)
        hz = rng.permutation(500 * 2 ** (np.arange(8) / 4))
        t = np.arange(N) / RATE
        phase, level = rng.uniform(0, 6, (8, 2, 1)), rng.uniform(0.05, 0.5, (8, 2, 1))
        x = level * np.sin(2 * np.pi * hz[:, None, None] * t + phase)
        x += rng.uniform(0, 0.1, (8, 2, 1)) * rng.normal(size=x.shape)
        x = torch.from_numpy(x).float()
        return Batch(x, [f"{f:.0f}" for f in hz], slice(0, 8), 8)


# --- the loss --------------------------------------------------------------------------------


def slow_nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    """2002.05709, eq. 1 and algorithm 1: items 2k - 1 and 2k are the views of item k."""
    z = [view for pair in zip(first, second, strict=True) for view in pair]

    def similarity(a: int, b: int) -> float:
        return float(z[a] @ z[b] / np.sqrt(z[a] @ z[a]) / np.sqrt(z[b] @ z[b]))

    def loss(i: int, j: int) -> float:
        below = sum(math.exp(similarity(i, k) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(similarity(i, j) / temperature) / below)

    pairs = range(0, len(z), 2)
    return sum(loss(k, k + 1) + loss(k + 1, k) for k in pairs) / len(z)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (9, 16)])
def test_the_loss_is_the_papers(shape, temperature):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, *shape))
    second += first
    got = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert float(got) == pytest.approx(slow_nt_xent(first, second, temperature), rel=1e-5)


def test_the_default_temperature():
    first, second = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    assert float(nt_xent(first, second)) == float(nt_xent(first, second, 0.1))


def test_lengths_and_the_order_of_views_do_not_count():
    first, second = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    whole = float(nt_xent(first, second))
    lengths = torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(1)) * 50 + 0.1
    assert float(nt_xent(first * lengths[0], second * lengths[1])) == pytest.approx(whole, rel=1e-5)
    assert float(nt_xent(second, first)) == pytest.approx(whole, rel=1e-6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert float(nt_xent(first[order], second[order])) == pytest.approx(whole, rel=1e-6)
    assert float(nt_xent(first[order], second)) != pytest.approx(whole, rel=1e-2)


@pytest.mark.parametrize("size", [2, 8, 33])
def test_where_all_are_alike_it_is_chance(size):
    alike = torch.ones(size, 4)
    for temperature in (0.1, 1.0):
        got = float(nt_xent(alike, 3 * alike, temperature))
        assert got == pytest.approx(math.log(2 * size - 1), rel=1e-5)


def test_the_best_is_pairs_alike_and_all_others_opposite():
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    best = math.log(math.exp(10) + 2 * math.exp(-10)) - 10
    assert float(nt_xent(first, first)) == pytest.approx(best, abs=1e-6)
    assert float(nt_xent(first, -first)) == pytest.approx(20, rel=1e-6)


# --- the objective ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"projection": (7, 5, 3)}])
def test_the_objective_by_hand(options):
    net = objective(**options).train()
    twin, batch = copy.deepcopy(net), Tones().batch(3)
    loss, numbers = net(batch, at(8))
    pictures = [twin.views.frontend(batch.waveforms[:, v]) for v in (0, 1)]
    maps = twin.backbone(torch.cat(pictures))
    h = maps["dense"].mean(2)  # (16, 12)
    state = twin.projector.state_dict()
    linear = [n.removesuffix(".weight") for n, t in state.items() if t.dim() == 2]
    assert len(linear) == len(options.get("projection", (16, 6)))
    for number, name in enumerate(linear):
        last = number == len(linear) - 1
        h = h @ state[f"{name}.weight"].T + (0 if last else state[f"{name}.bias"])
        if not last:
            h = torch.relu((h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt())
    assert f"{linear[-1]}.bias" not in state
    z = h.detach().double().numpy()
    want = slow_nt_xent(z[:8], z[8:], options.get("temperature", 0.1))
    assert float(loss.detach()) == pytest.approx(want, rel=1e-3)
    cosine = (z / np.linalg.norm(z, axis=1, keepdims=True))[:8]
    other = (z / np.linalg.norm(z, axis=1, keepdims=True))[8:]
    found = np.mean((cosine @ other.T).argmax(1) == np.arange(8))
    assert float(numbers["found"]) == pytest.approx(found)


def test_all_of_it_gets_a_gradient():
    net = objective().train()
    net(Tones().batch(0), at(8))[0].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    # A bias before a batch norm changes nothing; all else does.
    idle = {n for n, p in net.named_parameters() if float(p.grad.abs().max()) < 1e-6}
    convolutions = {f"backbone.convolutions.conv{i}.1.bias" for i in (1, 2, 3)}
    assert idle <= {*convolutions, "projector.0.bias", "backbone.dense.bias"}
    assert {id(p) for p in net.clipped()} == {id(p) for p in net.backbone.parameters()}


def test_it_learns_what_the_views_share():
    net = objective(1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3)
    trained = fit(net, Tones(), optimiser, steps=40, log_every=1, seed=1)
    losses, found = ([line[name] for line in trained.history] for name in ("loss", "found"))
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    assert np.mean(losses[-5:]) < 0.3 * math.log(15)  # chance
    assert np.mean(found[:5]) < 0.7
    assert np.mean(found[-5:]) > 0.8


def test_negatives_are_those_of_all_processes():
    """Two halves that gather from each other see the joint batch."""
    net = objective().train()
    batch = Tones().batch(0)
    joint, numbers = net(batch, at(8))
    state = copy.deepcopy(net.state_dict())
    pictures = [net.views.frontend(batch.waveforms[:, v]) for v in (0, 1)]
    net.eval()  # of the backbone alone: its norms are each process's own
    net.projector.train()
    means = [net.backbone(p)["dense"].mean(2) for p in pictures]
    asked = iter(means)
    half = batch._replace(waveforms=batch.waveforms[:4], rows=slice(0, 4))
    loss, _ = net(half, at(8, gather=lambda own: next(asked)))
    with torch.no_grad():
        first, second = net.projector(torch.cat(means)).chunk(2)
    want = slow_nt_xent(first.double().numpy(), second.double().numpy(), 0.1)
    assert float(loss.detach()) == pytest.approx(want, rel=1e-3)
    assert set(state) == set(net.state_dict())
    assert float(joint.detach()) > 0
    assert 0 <= float(numbers["found"]) <= 1


# --- its state -------------------------------------------------------------------------------


def one_step(net: SimCLR, number: int) -> float:
    step = at(8, number)
    net.train()
    net.zero_grad()
    loss, _ = net(Tones().batch(number), step)
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= 0.05 * p.grad
    net.after_update(step)
    return float(loss.detach())


def test_the_state_is_all_that_it_goes_on_with():
    first, second = objective(0, "mask"), objective(9, "mask")
    for net in (first, second):
        net.keep_average(0.7)
    for number in range(3):
        one_step(first, number)
    assert one_step(copy.deepcopy(second), 3) != pytest.approx(one_step(copy.deepcopy(first), 3))
    second.load_state_dict(first.state_dict())
    for number in (3, 4):
        assert one_step(first, number) == one_step(second, number)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_average_is_what_is_taken_away():
    net = objective()
    assert net.result is net.backbone
    net.keep_average(0.75)
    assert net.result is net.average_backbone
    want = {n: t.double().clone() for n, t in net.backbone.state_dict().items()}
    for number in range(3):
        one_step(net, number)
        for n, t in net.backbone.state_dict().items():
            want[n] = 0.75 * want[n] + 0.25 * t.double() if t.is_floating_point() else t.double()
    moved = 0.0
    for n, t in net.result.state_dict().items():
        assert torch.allclose(t.double(), want[n], atol=1e-6), n
        moved = max(moved, float((t - net.backbone.state_dict()[n]).abs().max()))
    assert moved > 1e-3
    assert not any(p.requires_grad for p in net.result.parameters())


def test_a_frozen_network_is_trained_from_now_on():
    model = create_model("crnn", **SMALL)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    net = SimCLR(model.backbone, Views(model.frontend))
    assert all(p.requires_grad for p in net.parameters())
    widths = [m.out_features for m in net.projector if isinstance(m, nn.Linear)]
    assert widths == [1024, 128]
