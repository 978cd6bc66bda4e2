"""Batch renormalisation against its paper's equations, and against batch norm where both agree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ossicle.pretrain.renorm import normalise, renormalise

EPS = 1e-5


def norm_of(dims: int, channels: int = 3, affine: bool = True) -> nn.Module:
    kind = nn.BatchNorm1d if dims < 4 else nn.BatchNorm2d
    norm = kind(channels, affine=affine)
    if affine:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2, generator=generator)
            norm.bias.uniform_(-1, 1, generator=generator)
    return norm


def renormalised(norm: nn.Module) -> nn.Module:
    new = copy.deepcopy(norm)
    renormalise(new)
    return new.train()


def to_tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).float()


def batches(shape: tuple[int, ...], n: int, drift: float = 0.3) -> list[Tensor]:
    """Each with a mean and a scale of its own."""
    rng = np.random.default_rng(0)
    return [
        to_tensor(rng.normal(size=shape) * rng.uniform(0.7, 1.4) + drift * rng.normal())
        for _ in range(n)
    ]


SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_batch_is_batch_norms(shape):
    plain = norm_of(len(shape))
    (x,) = batches(shape, 1)
    assert torch.allclose(renormalised(plain)(x), plain.train()(x), atol=1e-5)


def slow(norm: nn.Module, x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """arXiv 1702.03275, algorithm 1, one channel at a time; mean and var are those stored."""
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        own_mean, own = x[:, c].mean(), np.sqrt(x[:, c].var() + EPS)
        stored = np.sqrt(var[c] + EPS)
        r = min(max(own / stored, 1 / 3), 3)
        d = min(max((own_mean - mean[c]) / stored, -5), 5)
        y = (x[:, c] - own_mean) / own * r + d
        weight = 1.0 if norm.weight is None else float(norm.weight.detach()[c])
        bias = 0.0 if norm.bias is None else float(norm.bias.detach()[c])
        out[:, c] = weight * y + bias
    return out


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_the_papers(shape, affine):
    """Stored: the average of all batches, the last fifty counting by 2 % each."""
    plain = norm_of(len(shape), affine=affine)
    norm = renormalised(plain)
    mean, var = np.zeros(3), np.ones(3)
    for number, x in enumerate(batches(shape, 60), start=1):
        axes = (0, *range(2, len(shape)))
        share = max(0.02, 1 / number)
        mean += share * (x.double().numpy().mean(axes) - mean)
        var += share * (x.double().numpy().var(axes) - var)
        got = norm(x).detach().numpy()
        assert np.allclose(got, slow(plain, x.double().numpy(), mean, var), atol=2e-5)
        if number == 40:
            seen = [b.double().numpy() for b in batches(shape, 40)]
            assert np.allclose(mean, np.mean([b.mean(axes) for b in seen], 0))
    assert np.allclose(norm.running_mean, mean, atol=1e-6)
    assert np.allclose(norm.running_var, var, atol=1e-6)


def test_what_is_far_from_stored_is_held_back():
    norm = renormalised(norm_of(2, affine=False))
    rng = np.random.default_rng(0)
    for _ in range(60):
        norm(to_tensor(rng.normal(size=(64, 3))))
    x = to_tensor(rng.normal(size=(64, 3)) * [50, 0.05, 1] + [0, 0, 400])
    y = norm(x).numpy()
    assert y[:, 0].std() == pytest.approx(3, rel=1e-4)
    assert y[:, 1].std() == pytest.approx(1 / 3, rel=0.01)
    assert y[:, 2].mean() == pytest.approx(5, rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_go_through_the_batchs_own_statistics(shape):
    """r and d are constants: the slope in x is batch norm's, times r."""
    plain = norm_of(len(shape))
    norm = renormalised(plain)
    warm, x = batches(shape, 2)
    norm(warm)
    state = copy.deepcopy(norm.state_dict())
    given = x.clone().requires_grad_(True)
    upstream = to_tensor(np.random.default_rng(3).normal(size=shape))
    norm(given).backward(upstream)
    mean, var = norm.running_mean, norm.running_var
    twin = x.clone().requires_grad_(True)
    axes = [0, *range(2, x.dim())]
    one = [1, -1] + [1] * (x.dim() - 2)
    own_var, own_mean = torch.var_mean(twin, axes, correction=0)
    own, stored = (own_var + EPS).sqrt(), (var + EPS).sqrt()
    r = (own / stored).detach()
    d = ((own_mean - mean) / stored).detach()
    assert r.max() < 3
    assert d.abs().max() < 5
    weight = plain.weight.detach().clone().requires_grad_(True)
    y = (twin - own_mean.view(one)) / own.view(one) * r.view(one) + d.view(one)
    (y * weight.view(one)).backward(upstream)
    assert torch.allclose(given.grad, twin.grad, atol=1e-5)
    assert torch.allclose(norm.weight.grad, weight.grad, atol=1e-5)
    # What is added to all of a channel is gone: the mean is the batch's own.
    assert given.grad.sum(axes).abs().max() < 1e-5
    assert int(norm.num_batches_tracked) == int(state["num_batches_tracked"]) + 1


def test_batches_of_two_kinds_are_answered_as_in_use():
    """Quiet ones and loud ones by turns: batch norm makes them alike, this keeps them apart."""
    rng = np.random.default_rng(0)
    quiet = to_tensor(rng.normal(0, 0.5, (400, 1)))
    loud = to_tensor(rng.normal(2, 1.0, (400, 1)))
    plain = norm_of(2, 1).train()
    norm = renormalised(plain)
    for _ in range(100):
        for x in (quiet, loud):
            there, before = norm(x), plain(x)
    for network, answer, limit in ((norm, there, 0.05), (plain, before, None)):
        in_use = network.eval()(loud)
        away = float((answer - in_use).detach().abs().mean())
        assert away < limit if limit else away > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_in_use_it_is_batch_norm(shape):
    plain = norm_of(len(shape))
    norm = renormalised(plain)
    for x in batches(shape, 5):
        norm(x)
    plain.load_state_dict(norm.state_dict())
    (x,) = batches(shape, 1)
    before = copy.deepcopy(norm.state_dict())
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    after = norm.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_there_and_back():
    """In place, with the same names in the state; other layers stay what they are."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(8), nn.LayerNorm(8)
    )
    kinds = [type(part) for part in network]
    names, norm = list(network.state_dict()), network[1]
    renormalise(network)
    assert network[1] is norm
    changed = [type(part) is not kind for part, kind in zip(network, kinds, strict=True)]
    assert changed == [False, True, False, True, False]
    assert isinstance(network[1], nn.BatchNorm2d)
    network.train()(torch.randn(4, 1, 4, 4))
    learnt = network[1].running_mean.clone()
    assert float(learnt.abs().max()) > 0
    normalise(network)
    assert [type(part) for part in network] == kinds
    assert list(network.state_dict()) == names
    assert torch.equal(network[1].running_mean, learnt)


def test_sixteen_bits_leave_the_statistics_whole():
    norm = nn.BatchNorm2d(3)
    renormalise(norm)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 2
    y = norm.train()(x.bfloat16())
    assert y.dtype is torch.bfloat16
    assert norm.running_mean.dtype is torch.float32
    exact = x.bfloat16().double()
    assert np.allclose(norm.running_mean, exact.mean((0, 2, 3)), rtol=1e-5)
    assert np.allclose(norm.running_var, exact.var((0, 2, 3), correction=0), rtol=1e-5)
