"""BYOL against its paper's definition, written out in plain torch: losses, steps, the target."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.model import create_model
from ossicle.pretrain.byol import BYOL, byol_distance
from ossicle.pretrain.views import Views, create_views
from ossicle.train import Batch, Step

RATE = 16_000
N = 6400
SMALL = {"channels": 8, "hidden": 8, "dense": 12, "dropout": 0.0}


def at(size: int, number: int = 0) -> Step:
    generator = torch.Generator().manual_seed(number)
    return Step(number, 10, generator, size, slice(0, size), lambda x: x)


def objective(seed: int = 0, queue: int | None = None, **options) -> BYOL:
    model = create_model("crnn", seed=seed, **SMALL)
    torch.manual_seed(seed)
    views = Views(model.frontend)
    if queue is not None:
        views = create_views(model.frontend, N, "byol", queue)
    return BYOL(model.backbone, views, **{"hidden": 24, "projection": 6, "decay": 0.9, **options})


def batch_of(number: int, size: int = 6) -> Batch:
    rng = np.random.default_rng(number)
    hz = rng.uniform(200, 4000, (size, 2, 1))
    x = 0.3 * np.sin(2 * np.pi * hz * np.arange(N) / RATE) + 0.03 * rng.normal(size=(size, 2, N))
    return Batch(torch.from_numpy(x).float(), ["x"] * size, slice(0, size), size)


def one_step(net: BYOL, number: int, rate: float = 0.05) -> float:
    step = at(6, number)
    net.train()
    loss, _ = net(batch_of(number), step)
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= rate * p.grad
    net.after_update(step)
    return float(loss.detach())


# --- the distance ----------------------------------------------------------------------------


def test_the_distance_is_the_papers():
    """2006.07733, eq. 2: the mean squared error of normalised vectors, 2 - 2 <q, z> / |q| |z|."""
    rng = np.random.default_rng(0)
    q, z = rng.normal(size=(2, 7, 5)) * rng.uniform(0.1, 30, (2, 7, 1))
    want = np.mean(
        [
            ((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2).sum()
            for a, b in zip(q, z, strict=True)
        ]
    )
    got = byol_distance(torch.from_numpy(q), torch.from_numpy(z))
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_distance_runs_from_0_to_4():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert float(byol_distance(x, 3 * x)) == pytest.approx(0, abs=1e-6)
    assert float(byol_distance(x, -0.2 * x)) == pytest.approx(4, rel=1e-6)
    a, b = torch.eye(4)[:2], torch.eye(4)[2:]
    assert float(byol_distance(a, b)) == pytest.approx(2)


# --- whole steps -----------------------------------------------------------------------------


class Reference:
    """Grill et al. 2020, section 3.1 and algorithm 1, with plain gradient descent.

    theta: f, g, q online; xi: f, g target. Only the encoder's own code is shared.
    """

    def __init__(self, net: BYOL, tau: float, normalise: bool = False) -> None:
        self.f = copy.deepcopy(net.backbone).train()
        self.g = {n: t.clone() for n, t in net.projector.state_dict().items()}
        self.q = {n: t.clone() for n, t in net.predictor.state_dict().items()}
        self.f_target, self.g_target = (
            copy.deepcopy(self.f),
            {n: t.clone() for n, t in self.g.items()},
        )
        self.frontend, self.tau, self.normalise = net.views.frontend, tau, normalise

    @staticmethod
    def mlp(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        """Linear, batch norm of this batch (and its running statistics), ReLU, linear."""
        x = x @ w["0.weight"].T + w["0.bias"]
        mean, variance = x.mean(0), x.var(0, correction=0)
        y = (x - mean) / (variance + 1e-5).sqrt() * w["1.weight"] + w["1.bias"]
        with torch.no_grad():
            w["1.running_mean"].mul_(0.9).add_(0.1 * mean)
            w["1.running_var"].mul_(0.9).add_(0.1 * variance * len(x) / (len(x) - 1))
            w["1.num_batches_tracked"] += 1
        return y.clamp(min=0) @ w["3.weight"].T + w["3.bias"]

    def step(self, waveforms: torch.Tensor, rate: float) -> float:
        v, w = (self.frontend(waveforms[:, i]) for i in (0, 1))
        if self.normalise:
            both = torch.stack([v, w])
            v, w = ((x - both.mean()) / both.std() for x in (v, w))
        learnt = [
            p
            for d in (dict(self.f.named_parameters()), self.g, self.q)
            for n, p in d.items()
            if p.is_floating_point() and "running" not in n
        ]
        for p in learnt:
            p.requires_grad_(True)

        def y(f: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return f(x)["dense"].mean(2)

        p_v, p_w = (self.mlp(self.mlp(y(self.f, x), self.g), self.q) for x in (v, w))
        with torch.no_grad():
            z_v, z_w = (self.mlp(y(self.f_target, x), self.g_target) for x in (v, w))

        def distance(q: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            q, z = q / q.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
            return ((q - z) ** 2).sum(1).mean()

        loss = distance(p_v, z_w) + distance(p_w, z_v)
        gradients = torch.autograd.grad(loss, learnt)
        with torch.no_grad():
            for p, gradient in zip(learnt, gradients, strict=True):
                p -= rate * gradient
            pairs = [(self.g_target[n], t) for n, t in self.g.items()]
            now = self.f.state_dict()
            pairs += [(t, now[n]) for n, t in self.f_target.state_dict().items()]
            for xi, theta in pairs:
                if xi.is_floating_point():
                    xi.copy_(self.tau * xi + (1 - self.tau) * theta)
                else:
                    xi.copy_(theta)
        return float(loss.detach())


@pytest.mark.parametrize("normalise", [False, True])
def test_steps_are_those_of_the_paper(normalise):
    net = objective(normalise_batch=normalise)
    reference = Reference(net, 0.9, normalise)
    start = {n: t.clone() for n, t in net.state_dict().items()}
    for number in range(3):
        want = reference.step(batch_of(number).waveforms, 0.05)
        assert one_step(net, number) == pytest.approx(want, abs=1e-5)
    states = {
        "backbone": reference.f.state_dict(),
        "projector": reference.g,
        "predictor": reference.q,
        "target_backbone": reference.f_target.state_dict(),
        "target_projector": reference.g_target,
    }
    got = net.state_dict()
    assert {name.split(".")[0] for name in got} == set(states)
    for part, state in states.items():
        for name, want in state.items():
            assert torch.allclose(got[f"{part}.{name}"], want.detach(), atol=1e-5), (part, name)
    # And something happened in each of them.
    for part in states:
        moved = [float((got[n] - t).abs().max()) for n, t in start.items() if n.startswith(part)]
        assert max(moved) > 1e-3, part


def test_the_target_has_no_gradient_and_the_online_network_has():
    net = objective().train()
    net(batch_of(0), at(6))[0].backward()
    for name, p in net.named_parameters():
        assert (p.grad is None) == name.startswith("target_"), name
        assert p.requires_grad != name.startswith("target_"), name
    clipped = {id(p) for p in net.clipped()}
    assert clipped == {id(p) for p in net.backbone.parameters()}


def test_running_statistics_are_averaged_too():
    net = objective(decay=0.9)
    names = [n for n, t in net.target_backbone.state_dict().items() if "running" in n]
    assert len(names) == 6
    step, before = at(6), copy.deepcopy(net.target_backbone.state_dict())
    with torch.no_grad():
        for n, t in net.backbone.state_dict().items():
            if "running" in n:
                t += 5.0
    net.after_update(step)
    for n in names:
        assert torch.allclose(net.target_backbone.state_dict()[n], before[n] + 0.5, atol=1e-5)


def test_the_loss_is_from_0_to_8():
    net = objective().eval()

    class Constant(nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign = sign

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sign * torch.arange(1.0, 5).expand(len(x), 4)

    net.target_projector = Constant(1.0)
    for sign, want in ((2.0, 0.0), (-0.5, 8.0)):
        net.predictor = Constant(sign)
        loss, numbers = net(batch_of(0), at(6))
        assert float(loss) == pytest.approx(want, abs=1e-5)
        assert float(numbers["spread"]) == pytest.approx(0, abs=1e-6)


def test_views_are_predicted_crosswise():
    """q of one view and z of the other; of its own it would be another number."""
    net = objective().train()
    batch = batch_of(1)
    loss, _ = copy.deepcopy(net)(batch, at(6))
    doubled = batch._replace(waveforms=batch.waveforms[:, :1].expand(-1, 2, -1))
    alone, _ = copy.deepcopy(net)(doubled, at(6))
    swapped, _ = copy.deepcopy(net)(batch._replace(waveforms=batch.waveforms.flip(1)), at(6))
    loss, swapped, alone = (float(x.detach()) for x in (loss, swapped, alone))
    assert loss == pytest.approx(swapped, rel=1e-4)
    assert loss != pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("size", [3, 8])
def test_spread_is_1_where_projections_point_everywhere(size):
    net = objective(projection=size).train()

    class Everywhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 7 * torch.cat([torch.eye(size), -torch.eye(size)])

    net.target_projector = Everywhere()
    _, numbers = net(batch_of(0, 2 * size), at(2 * size))
    assert float(numbers["spread"]) == pytest.approx(1, rel=1e-5)


def test_batches_are_normalised_together():
    net = objective(normalise_batch=True).train()
    seen = []
    net.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    net(batch_of(2), at(6))
    both = torch.cat(seen)
    assert float(both.mean()) == pytest.approx(0, abs=1e-5)
    assert float(both.std()) == pytest.approx(1, rel=1e-4)
    # Each view goes through by itself, as a batch norm is to see one view.
    assert [len(x) for x in seen] == [6, 6]
    assert float(seen[0].mean()) != pytest.approx(0, abs=1e-3)


def test_silence_is_normalised_to_numbers():
    net = objective(normalise_batch=True).train()
    silent = batch_of(0)._replace(waveforms=torch.zeros(6, 2, N))
    assert bool(net(silent, at(6))[0].isfinite())


# --- its state -------------------------------------------------------------------------------


def test_the_state_is_all_that_it_goes_on_with():
    """Past pictures, targets and averages too."""
    first, second = objective(0, queue=20), objective(9, queue=20)
    for net in (first, second):
        net.keep_average(0.8)
    for number in range(3):
        one_step(first, number)
    assert int(first.views.queue.filled) == 36
    assert one_step(copy.deepcopy(second), 3) != one_step(copy.deepcopy(first), 3)
    second.load_state_dict(first.state_dict())
    for number in (3, 4):
        assert one_step(first, number) == one_step(second, number)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_targets_begin_as_copies_and_stay_apart():
    net = objective()
    for name in ("backbone", "projector"):
        own, target = getattr(net, name), getattr(net, f"target_{name}")
        for a, b in zip(own.state_dict().values(), target.state_dict().values(), strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr() or not a.numel()
    assert [
        m.out_features
        for m in BYOL(create_model("crnn", **SMALL).backbone, net.views).modules()
        if isinstance(m, nn.Linear)
    ].count(4096) == 3
