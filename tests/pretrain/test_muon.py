"""Muon beside torch's, which knows matrices alone, and what it leaves to AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ossicle.pretrain.muon import MuonAdamW, is_matrix, orthogonalised
from ossicle.train import step_seed

RATE, DECAY = 0.02, 0.1


class Net(nn.Module):
    """A backbone with a stem, a convolution, a depthwise one and a linear map; a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "stem": nn.Conv2d(1, 8, 3, bias=False),
                "conv": nn.Conv2d(8, 12, 3),
                "depthwise": nn.Conv2d(12, 12, 7, groups=12, bias=False),
                "norm": nn.BatchNorm2d(12),
                "linear": nn.Linear(40, 12),
            }
        )
        self.head = nn.Linear(64, 5)


def gradients(module: nn.Module, step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step_seed(3, step))
    return {n: torch.randn(p.shape, generator=generator) for n, p in module.named_parameters()}


def walk(module: nn.Module, optimisers: list, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        for name, gradient in gradients(module, step).items():
            module.get_parameter(name).grad = gradient
        for optimiser in optimisers:
            optimiser.step()


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonalised_has_singular_values_near_one_and_the_same_directions(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    y = orthogonalised(x)
    values = torch.diagonal(u.T @ y @ v.T)
    assert s.max() / s.min() > 2
    assert ((values > 0.6) & (values < 1.3)).all()
    off = u.T @ y @ v.T - torch.diag(values)
    assert off.abs().max() < 0.05  # of 16 bits


def test_equals_torch_for_matrices_and_kernels_and_adamw_for_the_rest():
    torch.manual_seed(0)
    net = Net()
    other = copy.deepcopy(net)
    kernel = other.backbone["conv"].weight
    # torch's wants matrices: the kernel as one, which shares its memory.
    flat = nn.Parameter(kernel.detach().flatten(1))
    matrices = [flat, other.backbone["linear"].weight]
    rest = [p for p in other.parameters() if p is not kernel and p is not matrices[1]]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(
        matrices, lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(groups, lr=RATE)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    walk(net, [MuonAdamW(net, RATE, DECAY)], steps=4)
    for step in range(4):
        for name, gradient in gradients(other, step).items():
            other.get_parameter(name).grad = gradient
        flat.grad = kernel.grad.flatten(1)
        muon.step()
        adamw.step()
    for name, p in net.named_parameters():
        assert not torch.equal(p, before[name]), name
        assert torch.allclose(p, other.get_parameter(name), atol=2e-6), name


def test_is_matrix():
    net = Net()
    kinds = {name: is_matrix(part) for name, part in net.backbone.items()}
    assert kinds == {
        "stem": False,
        "conv": True,
        "depthwise": False,
        "norm": False,
        "linear": True,
    }


def test_heads_are_adamws():
    optimiser = MuonAdamW(net := Net(), RATE, DECAY)
    mine = [p for group in optimiser.param_groups if group["muon"] for p in group["params"]]
    want = [net.backbone["conv"].weight, net.backbone["linear"].weight]
    assert [id(p) for p in mine] == [id(p) for p in want]


def test_goes_on_from_what_it_said_of_itself():
    torch.manual_seed(1)
    net = Net()
    halfway = copy.deepcopy(net)
    walk(net, [MuonAdamW(net, RATE, DECAY)], steps=5)
    first = MuonAdamW(halfway, RATE, DECAY)
    walk(halfway, [first], steps=2)
    second = MuonAdamW(halfway, RATE, DECAY)
    second.load_state_dict(first.state_dict())
    walk(halfway, [second], steps=3, first=2)
    for name, p in net.named_parameters():
        assert torch.equal(p, halfway.get_parameter(name)), name


def test_what_has_no_gradient_stays():
    net = Net()
    before = net.backbone["conv"].weight.detach().clone()
    MuonAdamW(net, RATE, DECAY).step()
    assert torch.equal(net.backbone["conv"].weight, before)
