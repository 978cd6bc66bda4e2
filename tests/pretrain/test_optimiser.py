"""What moves the weights, against slow definitions in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.errors import OssicleError
from ossicle.pretrain.muon import MuonAdamW
from ossicle.pretrain.optimiser import (
    MovingAverage,
    clip_adaptively,
    create_optimiser,
    unit_norm,
    warm_up_cosine,
)

# --- adaptive gradient clipping --------------------------------------------------------------


def slow_clip(weight: np.ndarray, gradient: np.ndarray, clipping: float) -> np.ndarray:
    """2102.06171, eq. 3: one output unit after the other, in float64."""
    units = [(i,) for i in range(len(weight))] if weight.ndim > 1 else [(...,)]
    out = gradient.astype(np.float64).copy()
    for unit in units:
        w = max(math.sqrt(sum(v * v for v in np.ravel(weight[unit]).astype(np.float64))), 1e-3)
        g = math.sqrt(sum(v * v for v in np.ravel(gradient[unit]).astype(np.float64)))
        if g / w > clipping:
            out[unit] = clipping * w / g * gradient[unit]
    return out


SHAPES = {"conv": (5, 3, 2, 4), "conv1d": (5, 3, 4), "linear": (6, 7), "vector": (9,), "number": ()}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("clipping", [0.01, 0.05, 0.3])
def test_clipping_is_the_definition(shape, clipping):
    rng = np.random.default_rng(len(shape))
    for scale in (0.01, 0.1, 1.0, 30.0):
        weight = rng.normal(size=shape).astype(np.float32)
        # Units of other sizes, so that some are clipped and some are not.
        gradient = np.abs(weight).mean() * scale * clipping * rng.normal(size=shape)
        if len(shape) > 1:
            gradient *= np.geomspace(0.05, 20, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        gradient = np.asarray(gradient, np.float32)
        parameter = nn.Parameter(torch.from_numpy(np.array(weight)))
        parameter.grad = torch.from_numpy(np.array(gradient))
        clip_adaptively([parameter], clipping)
        want = slow_clip(weight, gradient, clipping)
        assert np.allclose(parameter.grad.numpy(), want, rtol=1e-5, atol=1e-12)
        assert np.array_equal(parameter.detach().numpy(), weight)
        untouched = want == gradient
        # Bit for bit where nothing is to be done.
        assert np.array_equal(parameter.grad.numpy()[untouched], gradient[untouched])


def test_the_cases_above_hold_both_kinds():
    weight = np.ones((2, 3), np.float32)
    gradient = np.array([[1, 1, 1], [1e-3, 0, 0]], np.float32)
    parameter = nn.Parameter(torch.from_numpy(weight))
    parameter.grad = torch.from_numpy(gradient.copy())
    clip_adaptively([parameter], 0.05)
    assert np.allclose(parameter.grad[0], 0.05)
    assert parameter.grad[1].tolist() == gradient[1].tolist()


def test_weights_at_zero_can_move():
    parameter = nn.Parameter(torch.zeros(4, 3))
    parameter.grad = torch.full((4, 3), 2.0)
    parameter.grad[3] = 0
    clip_adaptively([parameter], 0.1)
    norms = parameter.grad.norm(dim=1)
    assert norms.tolist() == pytest.approx([1e-4, 1e-4, 1e-4, 0])
    assert parameter.grad.isfinite().all()


def test_what_has_no_gradient_is_passed_over():
    bare, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    other.grad = torch.full((2,), 9.0)
    clip_adaptively(iter([bare, other]), 0.1)
    assert bare.grad is None
    assert float(other.grad.norm()) == pytest.approx(0.1 * 2**0.5)


def test_norms_of_units():
    x = torch.arange(24.0).view(2, 3, 4)
    assert unit_norm(x).shape == (2, 1, 1)
    assert unit_norm(x).flatten().tolist() == pytest.approx(
        [math.sqrt(sum(v * v for v in range(12))), math.sqrt(sum(v * v for v in range(12, 24)))]
    )
    assert unit_norm(torch.tensor([3.0, 4.0])).tolist() == [5.0]
    assert unit_norm(torch.tensor(-3.0)).shape == ()
    assert float(unit_norm(torch.tensor(-3.0))) == 3


# --- the learning rate -----------------------------------------------------------------------


@pytest.mark.parametrize(("total", "warm_up"), [(10, 2), (100, 5), (7, 0), (5, 5), (1, 0), (3, 9)])
def test_warm_up_and_cosine_are_the_formula(total, warm_up):
    for step in range(total):
        if step < warm_up:
            want = (step + 1) / warm_up
        else:
            done = (step - warm_up) / (total - warm_up)
            want = math.cos(math.pi / 2 * done) ** 2  # (1 + cos 2a) / 2 = cos^2 a
        assert warm_up_cosine(step, total, warm_up) == pytest.approx(want, abs=1e-12)


def test_the_schedule_rises_then_falls_to_almost_nothing():
    values = [warm_up_cosine(step, 1000, 50) for step in range(1000)]
    assert values[49] == values[50] == max(values) == 1
    assert (np.diff(values[:50]) > 0).all()
    assert (np.diff(values[50:]) < 0).all()
    assert 0 < values[0] == 0.02
    assert 0 < values[-1] < 1e-5


# --- optimisers ------------------------------------------------------------------------------


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)


@pytest.mark.parametrize("name", ["adamw", "adam", "muon", "sgd"])
def test_only_matrices_decay(name):
    module = Everything()
    optimiser = create_optimiser(module, name, 0.1, 0.3)
    decay = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }
    got = {n: decay.get(id(p)) for n, p in module.named_parameters()}
    assert got == {
        "gain": 0.0,
        "conv.weight": 0.3,
        "conv.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "linear.weight": 0.3,
        "linear.bias": 0.0,
        "frozen.weight": None,
        "frozen.bias": None,
    }
    assert all(group["lr"] == 0.1 for group in optimiser.param_groups)
    kinds = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "muon": MuonAdamW,
        "sgd": torch.optim.SGD,
    }
    assert type(optimiser) is kinds[name]


def test_decay_alone_is_what_moves_a_matrix_without_gradient():
    module = Everything()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    create_optimiser(module, "adamw", 0.1, 0.3).step()
    for n, p in module.named_parameters():
        factor = 1 - 0.1 * 0.3 if n in ("conv.weight", "linear.weight") else 1.0
        assert torch.allclose(p, factor * before[n], rtol=1e-6), n


def test_sgd_is_nesterov_with_momentum():
    """Two steps by hand: v = 0.9 v + g; w = w - lr (g + 0.9 v)."""
    weight = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(1.0)
    optimiser = create_optimiser(weight, "sgd", 0.1, 0.0)
    w, v = 1.0, 0.0
    for gradient in (0.5, -0.2):
        weight.weight.grad = torch.full((1, 1), gradient)
        optimiser.step()
        v = 0.9 * v + gradient
        w -= 0.1 * (gradient + 0.9 * v)
        assert float(weight.weight.detach()) == pytest.approx(w)


def test_modules_with_one_kind_only():
    assert len(create_optimiser(nn.Linear(2, 2, bias=False), "adamw", 0.1, 0.1).param_groups) == 1
    assert len(create_optimiser(nn.BatchNorm1d(3), "adamw", 0.1, 0.1).param_groups) == 1


@pytest.mark.parametrize(
    ("name", "rate", "decay", "words"),
    [
        ("lars", 0.1, 0.0, "unknown optimiser 'lars': choose one of adamw, adam, muon, sgd"),
        ("adamw", 0.0, 0.0, "learning rate must be above 0"),
        ("adamw", -1.0, 0.0, "learning rate must be above 0"),
        ("adamw", math.nan, 0.0, "learning rate must be above 0"),
        ("adamw", 0.1, -0.1, "weight decay not below"),
        ("adamw", 0.1, math.nan, "weight decay not below"),
    ],
)
def test_what_cannot_be_meant_is_told(name, rate, decay, words):
    with pytest.raises(OssicleError, match=words):
        create_optimiser(nn.Linear(2, 2), name, rate, decay)


def test_a_module_with_nothing_to_train_is_told():
    with pytest.raises(OssicleError, match="nothing to train"):
        create_optimiser(nn.Identity(), "adamw", 0.1, 0.1)


# --- the moving average ----------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99, 1.0])
def test_the_average_is_the_formula(decay):
    torch.manual_seed(0)
    module, average = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    follow = MovingAverage(module, average, decay)
    want = {n: t.double().clone() for n, t in module.state_dict().items()}
    for n, t in average.state_dict().items():  # it starts as a copy
        assert torch.equal(t, module.state_dict()[n])
    for step in range(4):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        module(torch.randn(8, 3) + step)
        follow.update()
        for n, t in module.state_dict().items():
            if t.is_floating_point():
                want[n] = decay * want[n] + (1 - decay) * t.double()
            else:
                want[n] = t.double()
        for n, t in average.state_dict().items():
            assert torch.allclose(t.double(), want[n], atol=1e-6), n
    names = set(want)
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= names
    assert int(average.state_dict()["1.num_batches_tracked"]) == 4
    assert average[1].num_batches_tracked.dtype == torch.long


def test_the_average_is_not_trained_and_does_not_train():
    module, average = nn.Linear(2, 2), nn.Linear(2, 2)
    follow = MovingAverage(module, average, 0.5)
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in module.parameters())
    before = module.weight.detach().clone()
    with torch.no_grad():
        average.weight.zero_()
    follow.update()
    assert torch.equal(module.weight, before)
    assert torch.allclose(average.weight, before / 2)


def test_the_average_goes_on_after_its_state_is_loaded():
    module, average = nn.Linear(2, 2), nn.Linear(2, 2)
    follow = MovingAverage(module, average, 0.5)
    average.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    module.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
    follow.update()
    assert average.weight.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_what_has_no_numbers_can_be_followed():
    MovingAverage(nn.Identity(), nn.Identity(), 0.5).update()


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_a_decay_is_from_0_to_1(decay):
    with pytest.raises(OssicleError, match="choose it from 0 to 1"):
        MovingAverage(nn.Linear(2, 2), nn.Linear(2, 2), decay)
