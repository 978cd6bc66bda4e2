"""Which parameters come in with which layer: against gradients, and against what changes."""

from __future__ import annotations

import pytest
import torch

from ossicle.finetune.stages import layer_parameters, norms_of
from ossicle.model import Model, create_model

CASES = {
    "choi_convnet": {"excerpt_s": 0.3},
    "crnn": {"channels": 4, "hidden": 4, "dense": 6},
    "cldnn": {},
    "musicnn": {},
    "slowfast_nfnet_f0": {"width": 0.125, "skip_gain": 1.0},
}


@pytest.fixture(params=CASES)
def model(request) -> Model:
    return create_model(request.param, **CASES[request.param])


def heard(model: Model) -> torch.Tensor:
    n_samples = round(max(model.clip.min_s, 0.1) * model.sample_rate)
    generator = torch.Generator().manual_seed(0)
    return model.frontend(0.1 * torch.randn(1, n_samples, generator=generator))


def by_gradient(model: Model) -> dict[str, set[str]]:
    """Layer -> names of the parameters whose gradient it is the first to have."""
    network = model.backbone.eval().requires_grad_(True)
    named = dict(network.named_parameters())
    maps = network(heard(model))
    found: dict[str, set[str]] = {}
    for layer, x in maps.items():
        left = [n for n in named if not any(n in names for names in found.values())]
        grads = torch.autograd.grad(
            x.sum(), [named[n] for n in left], retain_graph=True, allow_unused=True
        )
        found[layer] = {n for n, grad in zip(left, grads, strict=True) if grad is not None}
    return {layer: names for layer, names in found.items() if names}


def by_name(model: Model) -> dict[str, set[str]]:
    names = {id(p): name for name, p in model.backbone.named_parameters()}
    return {
        layer: {names[id(p)] for p in parameters}
        for layer, parameters in layer_parameters(model).items()
    }


def test_a_parameter_is_of_the_first_layer_with_a_gradient(model):
    found = by_name(model)
    assert found == by_gradient(model)
    assert [layer for layer in model.layers if layer in found] == list(found)


def test_each_parameter_is_there_once(model):
    every = [id(p) for parameters in layer_parameters(model).values() for p in parameters]
    assert len(every) == len(set(every))
    assert set(every) == {id(p) for p in model.backbone.parameters()}


@pytest.mark.parametrize("name", ["choi_convnet", "crnn"])
def test_what_is_changed_changes_this_layer_and_none_before(name):
    model = create_model(name, **CASES[name])
    network, x = model.backbone, heard(model)
    with torch.no_grad():
        before = {layer: y.clone() for layer, y in network(x).items()}
        for layer, parameters in layer_parameters(model).items():
            at = model.layers.index(layer)
            for parameter in parameters:
                kept = parameter.clone()
                parameter += 0.5 * torch.randn(kept.shape, generator=torch.Generator())
                now = network(x)
                parameter.copy_(kept)
                changed = [not torch.equal(now[name], before[name]) for name in model.layers]
                assert changed.index(True) == at, (layer, changed)


def test_nothing_is_changed(model):
    network = model.backbone
    for i, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(i % 3 == 0)
    network.train()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    layer_parameters(model)
    assert [p.requires_grad for p in network.parameters()] == [
        i % 3 == 0 for i in range(len(list(network.parameters())))
    ]
    assert all(module.training for module in network.modules())
    after = model.state_dict()
    assert all(torch.equal(t, after[name]) for name, t in state.items())
    assert all(p.grad is None for p in network.parameters())


def test_a_network_without_weights_has_no_stages():
    assert not layer_parameters(create_model("mel"))


def test_norms_are_found_by_their_parameters():
    model = create_model("choi_convnet", excerpt_s=0.3)
    third = model.backbone.blocks["block3"]
    assert norms_of(model.backbone, {id(p) for p in third.parameters()}) == [third[1]]
    assert norms_of(model.backbone, set()) == []
