"""Several networks as one: heads exactly, weights where they are no worse."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ossicle.finetune.ensemble import fold
from ossicle.heads import Head
from ossicle.model import Model

CLASSES = ("a", "b", "c")


def headed(model: Model, seed: int) -> Model:
    """A copy with a head of its own."""
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.normal(size=(3, 32)).astype(np.float32))
    bias = torch.from_numpy(rng.normal(size=3).astype(np.float32))
    return Model(
        model.frontend,
        copy.deepcopy(model.backbone),
        clip=model.clip,
        readout=("block5/mean",),
        head=Head.from_layers([(weight, bias)]),
        classes=CLASSES,
    ).eval()


def moved(model: Model, seed: int, by: float = 0.01) -> Model:
    """A copy whose network has taken a step of its own; its norms count the steps."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in other.backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor += by * torch.rand(tensor.shape, generator=generator)
            else:
                tensor += seed
    return other


def logits(model: Model) -> np.ndarray:
    x = 0.1 * torch.randn(5, 3600, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x).double().numpy()


def states(models: list[Model]) -> list[dict[str, torch.Tensor]]:
    return [{n: t.clone() for n, t in m.state_dict().items()} for m in models]


@pytest.mark.parametrize("judged", [False, True])
def test_the_mean_of_linear_heads_is_the_mean_of_their_logits(network, judged):
    models = [headed(network(), seed) for seed in range(3)]
    # Even where the mean is judged worse: it is the ensemble itself.
    loss = (lambda model: 0.0 if model in models else 1.0) if judged else None
    one, about = fold(models, loss)
    want = np.mean([logits(model) for model in models], axis=0)
    assert logits(one) == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert about["kind"] == "heads"
    assert about["seeds"] == 3
    assert ("losses" in about) == judged


def test_one_network_is_itself(network):
    model = headed(network(), 0)
    one, about = fold([model], lambda model: 1 / 0)
    assert one is model
    assert about == {"kind": "single", "seeds": 1, "best": 0}


def test_weights_are_averaged_where_the_mean_is_no_worse(network):
    start = headed(network(), 0)
    models = [moved(start, seed) for seed in (1, 2, 3)]
    before = states(models)
    found = {id(model): value for model, value in zip(models, (0.5, 0.4, 0.6), strict=True)}
    one, about = fold(models, lambda model: found.get(id(model), 0.4))
    assert about == {
        "kind": "weights",
        "seeds": 3,
        "best": 1,
        "losses": [0.5, 0.4, 0.6],
        "loss": 0.4,
    }
    for name, tensor in one.state_dict().items():
        parts = [state[name].double().numpy() for state in before]
        want = np.mean(parts, axis=0) if tensor.is_floating_point() else parts[0]
        assert tensor.numpy() == pytest.approx(want, rel=1e-5, abs=1e-7), name
    assert not any(p.requires_grad for p in one.parameters())
    # Those that went in are as they were.
    for state, model in zip(before, models, strict=True):
        assert all(torch.equal(t, model.state_dict()[n]) for n, t in state.items())


def test_where_the_mean_is_worse_the_best_is_taken(network):
    models = [headed(network(seed), seed) for seed in range(3)]
    found = {id(model): value for model, value in zip(models, (0.5, 0.4, 0.6), strict=True)}
    one, about = fold(models, lambda model: found.get(id(model), 0.41))
    assert one is models[1]
    assert about == {"kind": "best", "seeds": 3, "best": 1, "losses": [0.5, 0.4, 0.6], "loss": 0.41}


def test_without_judges_networks_that_differ_are_not_averaged(network):
    models = [headed(network(seed), seed) for seed in range(2)]
    one, about = fold(models, None)
    assert one is models[0]
    assert about == {"kind": "best", "seeds": 2, "best": 0}
