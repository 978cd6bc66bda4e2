"""CPC: InfoNCE against its definition in loops, its negatives, and what can be learnt."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ossicle.errors import OssicleError
from ossicle.model import create_model
from ossicle.pretrain.cpc import CPC, draw_negatives, info_nce
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

RATE = 16_000


def at(index: int = 0, size: int = 4, rows: slice | None = None, seed: int = 0) -> Step:
    generator = torch.Generator().manual_seed(seed)
    return Step(index, 10, generator, size, rows or slice(0, size), lambda x: x)


def batch_of(waveforms: torch.Tensor) -> Batch:
    n = len(waveforms)
    return Batch(waveforms[:, None], [str(i) for i in range(n)], slice(0, n), n)


def noise(items: int, n_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(items, n_samples, generator=torch.Generator().manual_seed(seed))


def objective(name: str = "cpc_encoder", config: dict | None = None, **options) -> CPC:
    torch.manual_seed(0)
    config = {"width": 1 / 32} if config is None else config
    model = create_model(name, **config)
    return CPC(model.backbone, Views(model.frontend), **options)


# --- the loss --------------------------------------------------------------------------------


def slow_info_nce(z, contexts, weights, own, others) -> tuple[float, float, set[int]]:
    """By the definition, one score at a time; and how many negatives there were."""
    items, frames, _ = z.shape
    flat = z.reshape(items * frames, -1)
    by_step, hits, counts = [], [], set()
    for k in range(1, min(len(weights), frames - 1) + 1):
        losses, found = [], []
        for i in range(items):
            for t in range(frames - k):
                s = t + k
                times = [u for u in own[i] if u != s]
                if s not in own[i]:
                    times = list(own[i][:-1])
                negatives = [z[i, u] for u in times] + [flat[j] for j in others[i]]
                counts.add(len(negatives))
                guess = weights[k - 1] @ contexts[i, t]
                right = math.exp(z[i, s] @ guess)
                wrong = [math.exp(n @ guess) for n in negatives]
                losses.append(-math.log(right / (right + sum(wrong))))
                found.append(right > max(wrong))
        by_step.append(np.mean(losses))
        hits.append(np.mean(found))
    return float(np.mean(by_step)), float(np.mean(hits)), counts


@pytest.mark.parametrize("steps_ahead", [1, 3, 9])
@pytest.mark.parametrize("own_share", [0.0, 0.4, 1.0])
def test_info_nce_is_the_definition(steps_ahead, own_share):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 7, 5, generator=generator, dtype=torch.float64)
    contexts = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(steps_ahead, 5, 3, generator=generator, dtype=torch.float64)
    own, others = draw_negatives(at(), 7, 5, own_share)
    loss, found = info_nce(z, contexts, weights, own, others)
    arrays = (x.numpy() for x in (z, contexts, weights, own, others))
    want, hits, counts = slow_info_nce(*arrays)
    assert counts == {5}
    assert float(loss) == pytest.approx(want, rel=1e-5)
    assert float(found) == pytest.approx(hits, abs=1e-6)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("negatives", [1, 10, 40])
def test_chance_is_the_logarithm_of_all_candidates(negatives):
    z = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
    own, others = draw_negatives(at(size=3), 20, negatives, 0.5)
    loss, found = info_nce(z, torch.zeros(3, 20, 4), torch.ones(2, 6, 4), own, others)
    assert float(loss) == pytest.approx(math.log(negatives + 1), rel=1e-5)
    assert float(found) == 0  # no better than the best of the others
    net = objective(negatives=negatives)
    loss, _ = net(batch_of(noise(4, 6400)), at())
    assert float(loss.detach()) == pytest.approx(math.log(negatives + 1), rel=0.02)


# --- negatives -------------------------------------------------------------------------------


def test_negatives_are_even_and_never_the_right_one():
    frames, items, negatives = 5, 3, 4
    counts = np.zeros((items, frames, items * frames))
    for seed in range(600):
        own, others = draw_negatives(at(size=items, seed=seed), frames, negatives, 0.5)
        for i in range(items):
            assert len(set(own[i].tolist())) == 3
            for s in range(frames):
                times = own[i].tolist()
                times = [u for u in times if u != s] if s in times else times[:-1]
                for j in [i * frames + u for u in times] + others[i].tolist():
                    counts[i, s, j] += 1
    for i in range(items):
        inside = slice(i * frames, (i + 1) * frames)
        for s in range(frames):
            row = counts[i, s]
            assert row[i * frames + s] == 0
            own_counts = np.delete(row[inside], s)
            # 2 of 4 of the item's other frames, 2 draws among the 10 of other items.
            assert np.abs(own_counts / 600 - 2 / 4).max() < 0.1
            assert np.abs(np.delete(row, range(*inside.indices(99))) / 600 - 2 / 10).max() < 0.08


def test_counts_of_negatives():
    def counts(size: int, frames: int, negatives: int, share: float) -> tuple[int, int]:
        own, others = draw_negatives(at(size=size), frames, negatives, share)
        return own.shape[1] - 1, others.shape[1]

    assert counts(4, 100, 64, 0.5) == (32, 32)
    assert counts(4, 100, 64, 0.0) == (0, 64)
    assert counts(4, 100, 64, 1.0) == (64, 0)
    assert counts(4, 10, 64, 1.0) == (9, 55)  # the item has no more
    assert counts(1, 10, 64, 0.5) == (9, 0)  # there is no other item
    assert counts(1, 100, 64, 0.5) == (64, 0)


def test_processes_draw_what_one_would():
    own, _ = draw_negatives(at(size=6), 20, 8, 0.5)
    parts = [draw_negatives(at(size=6, rows=slice(a, a + 3)), 20, 8, 0.5) for a in (0, 3)]
    assert torch.equal(torch.cat([part[0] for part in parts]), own)
    # Places among their own three items, and not the same in both.
    assert all(part[1].max() < 3 * 20 for part in parts)
    assert not torch.equal(parts[0][1], parts[1][1])
    assert not torch.equal(own, draw_negatives(at(size=6, seed=1), 20, 8, 0.5)[0])


# --- the objective ---------------------------------------------------------------------------


def slow_loss(net: CPC, x: torch.Tensor) -> tuple[float, float]:
    """From the maps of the network alone, both directions, in loops."""
    with torch.no_grad():
        maps = net.backbone(net.views.frontend(x))
        if net.context is None:
            z, c = maps["conv5"].transpose(1, 2), maps["context"].transpose(1, 2)
        else:
            last = list(maps.values())[-1]
            z = (last.mean(2) if last.dim() == 4 else last).transpose(1, 2)
            c = net.context(z)[0]
    z, c, step = z.double().numpy(), c.double().numpy(), at(size=len(x))
    weights = net.weights.detach().double().numpy()
    hidden = weights.shape[-1]
    results = []
    for number, weight in enumerate(weights):
        own, others = draw_negatives(step, z.shape[1], net.negatives, net.own_share)
        side = c[..., number * hidden : (number + 1) * hidden]
        order = slice(None, None, -1 if number else 1)  # backwards: what came before is ahead
        results.append(
            slow_info_nce(z[:, order], side[:, order], weight, own.numpy(), others.numpy())
        )
    return tuple(np.mean([r[i] for r in results]) for i in range(2))


@pytest.mark.parametrize(
    ("name", "config", "bidirectional"),
    [
        ("cpc_encoder", {"width": 1 / 32}, None),
        ("cpc_encoder", {"width": 1 / 32, "bidirectional": True}, None),
        ("crnn", {"dropout": 0.0}, False),
        ("yamnet", {}, True),
    ],
)
def test_the_objective_is_the_loops(name, config, bidirectional):
    net = objective(
        name, config, steps_ahead=3, negatives=6, bidirectional=bidirectional, hidden=8
    ).eval()
    with torch.no_grad():
        net.weights.mul_(5)
    x = noise(3, 24_000 if name == "yamnet" else 4000)
    loss, numbers = net(batch_of(x), at(size=3))
    want, found = slow_loss(net, x)
    assert net.directions == (2 if bidirectional or config.get("bidirectional") else 1)
    assert float(loss.detach()) == pytest.approx(want, rel=1e-4)
    assert float(numbers["found"]) == pytest.approx(found, abs=1e-6)


def test_gradients_reach_every_parameter_used():
    net = objective(config={"width": 1 / 32, "bidirectional": True}, steps_ahead=3)
    net(batch_of(noise(3, 4800)), at(size=3))[0].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert {id(p) for p in net.clipped()} == {id(p) for p in net.backbone.parameters()}


def slow_sines(items: int, seed: int) -> torch.Tensor:
    """(items, 6400): each a tone whose pitch glides slowly, with some noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(6400) / RATE
    pitch = rng.uniform(200, 2000, (items, 1)) * 2 ** (rng.uniform(-2, 2, (items, 1)) * t)
    tones = np.sin(2 * np.pi * np.cumsum(pitch, 1) / RATE + rng.uniform(0, 6, (items, 1)))
    return torch.from_numpy(0.5 * tones + 0.01 * rng.normal(size=tones.shape)).float()


def share_of_chance(sounds: Callable[[int], torch.Tensor]) -> list[float]:
    """The loss of 40 steps on sounds that are fresh in each, so that none is learnt by heart."""
    net = objective(config={"width": 1 / 16}, steps_ahead=4, negatives=32, own_share=0.0)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for number in range(40):
        loss, _ = net(batch_of(sounds(number)), at(size=16, seed=number))
        losses.append(float(loss.detach()) / math.log(33))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return losses


def test_slowly_moving_sines_are_learnt_and_noise_is_not():
    sines = share_of_chance(lambda number: slow_sines(16, number))
    assert sines[0] == pytest.approx(1, abs=0.02)
    assert np.mean(sines[-5:]) < 0.65
    # What noise there is to learn is where a frame overlaps with the next two.
    fresh = share_of_chance(lambda number: noise(16, 6400, number))
    assert np.mean(fresh[-5:]) > 0.8


def test_half_precision_gives_the_loss_in_full():
    net, batch = objective(negatives=16), batch_of(noise(4, 6400))
    with torch.no_grad():
        net.weights.mul_(20)
        with torch.autocast("cpu", torch.bfloat16):
            half, numbers = net(batch, at())
            maps = net.backbone(batch.waveforms)
        z, contexts = (maps[name].float().transpose(1, 2) for name in ("conv5", "context"))
        want, _ = info_nce(z, contexts, net.weights[0], *draw_negatives(at(), 40, 16, 0.5))
    assert half.dtype == numbers["found"].dtype == torch.float32
    assert float(half) == pytest.approx(float(want), rel=1e-6)


def test_the_state_is_all_there_is():
    net = objective("crnn", {}, steps_ahead=3, bidirectional=True).eval()
    net.keep_average(0.9)
    twin = objective("crnn", {}, steps_ahead=3, bidirectional=True).eval()
    twin.keep_average(0.9)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    batch = batch_of(noise(2, 8000))
    want = net(batch, at(size=2))[0]
    assert not torch.equal(twin(batch, at(size=2))[0], want)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(batch, at(size=2))[0], want)


# --- what cannot be --------------------------------------------------------------------------


def test_networks_too_coarse_are_named_with_their_frames():
    pattern = r"choi_convnet has a frame each 27.3 s.*longer crops"
    with pytest.raises(OssicleError, match=pattern):
        objective("choi_convnet", {}, crop_s=1.28)
    net = objective("choi_convnet", {})
    with pytest.raises(OssicleError, match=pattern):
        net(batch_of(noise(2, 15_360)), at(size=2))
    objective("yamnet", {}, crop_s=1.28)


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"steps_ahead": 0}, {"negatives": 0}, {"own_share": 1.5}, {"hidden": 0}):
        with pytest.raises(OssicleError, match="above 0"):
            objective(**wrong)
    with pytest.raises(OssicleError, match="bidirectional=False"):
        objective(bidirectional=True)
    with pytest.raises(OssicleError, match="bidirectional=True"):
        objective(config={"width": 1 / 32, "bidirectional": True}, bidirectional=False)
