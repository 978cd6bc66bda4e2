"""The model that a name, a bundle and keywords mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle import bundle
from ossicle.backbones import WEIGHTS
from ossicle.errors import OssicleError
from ossicle.heads import Head
from ossicle.line import pick_model
from ossicle.model import Model, create_model

SMALL = {"channels": 4, "hidden": 4, "dense": 5, "dropout": 0.1}
SOUND = (0.1 * np.random.default_rng(0).normal(size=8000)).astype(np.float32)


def features(model: Model) -> np.ndarray:
    return np.concatenate(list(model.clip_features(SOUND).values()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle with a head, of a network that has learnt: all its numbers are its own."""
    model = create_model("crnn", seed=5, **SMALL)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, t in model.backbone.state_dict().items():
            if t.is_floating_point():
                t.add_(0.3 * torch.rand(t.shape, generator=generator))
            else:
                t.fill_(77)
            assert name
    whole = Model(
        model.frontend,
        model.backbone,
        clip=model.clip,
        readout=["dense/mean"],
        head=Head([5, 3]),
        classes="abc",
        info={**model.info, "weights": "simclr", "pretrained": True, "licence": "own"},
    ).eval()
    path = bundle.save(whole, tmp_path_factory.mktemp("bundles") / "net")
    return path, whole


def test_a_bundle_is_its_network_without_its_head(trained):
    path, whole = trained
    model = pick_model(str(path))
    assert model.head is None
    assert model.readout == ()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.info["weights"] == "simclr"
    assert model.clip == whole.clip
    assert model.backbone.config() == SMALL | {"causal": False}
    assert np.array_equal(features(model), features(whole))


def test_random_of_a_bundle_is_the_new_network_of_that_seed(trained):
    """Nothing of what was learnt is left: neither gains nor running statistics."""
    path, whole = trained
    seen = []
    for seed in (0, 1):
        model = pick_model(str(path), random=True, seed=seed)
        new = create_model("crnn", seed=seed, **SMALL)
        for (name, a), b in zip(
            model.backbone.state_dict().items(), new.backbone.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), name
        assert np.array_equal(features(model), features(new))
        assert model.head is None
        assert model.info["weights"] == f"random, seed {seed}"
        assert model.info["pretrained"] is False
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        seen.append(features(model))
    assert not np.array_equal(*seen)
    assert not np.array_equal(seen[0], features(whole))
    assert np.array_equal(seen[1], features(pick_model(str(path), random=True, seed=1)))


def test_random_of_a_bundle_leaves_the_callers_numbers(trained):
    path, _ = trained
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    pick_model(str(path), random=True)
    assert torch.equal(torch.rand(3), expected)


def test_a_name_with_keywords():
    model = pick_model("crnn", seed=3, keywords=["channels=4", "hidden=6", "causal=true"])
    new = create_model("crnn", seed=3, channels=4, hidden=6, causal=True)
    assert model.backbone.config() == new.backbone.config()
    assert np.array_equal(features(model), features(new))
    other = pick_model("crnn", seed=4, keywords=["channels=4", "hidden=6", "causal=true"])
    assert not np.array_equal(features(other), features(new))


def test_keywords_come_with_random_weights_alone():
    assert "resnet50" not in WEIGHTS or "resnet18" not in WEIGHTS
    named = next(name for name in ("musicnn", "efficientat_mn04", "yamnet") if name in WEIGHTS)
    with pytest.raises(OssicleError, match="no keyword 'width'"):
        pick_model(named, keywords=["width=1/2"])
    model = pick_model("resnet18", random=True, keywords=["multiscale=true"])
    assert model.backbone.config() == {"multiscale": True}
    model = pick_model(named, random=True, seed=2)
    assert model.info["pretrained"] is False
    assert model.info["weights"] == "random, seed 2"


def test_published_weights_have_no_keywords(monkeypatch):
    """Were there any for a network that has keywords."""
    monkeypatch.setitem(WEIGHTS, "crnn", None)
    with pytest.raises(OssicleError, match=r"crnn's weights have no keywords: add --random"):
        pick_model("crnn", keywords=["channels=4"])
    assert pick_model("crnn", random=True, keywords=["channels=4"]).backbone.channels == 4


def test_a_bundle_brings_its_own_keywords(trained):
    path, _ = trained
    with pytest.raises(OssicleError, match="brings its own configuration: leave out --set"):
        pick_model(str(path), keywords=["channels=8"])
    with pytest.raises(OssicleError, match="leave out --set"):
        pick_model("hf:somewhere", keywords=["a=1"])


def test_what_there_is_not_is_told(tmp_path):
    with pytest.raises(OssicleError, match="unknown backbone 'no_such'.*crnn"):
        pick_model("no_such")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OssicleError, match="folder"):
        pick_model(str(tmp_path / "folder"))


def test_published_weights_by_name_are_taken_where_there_are_any(monkeypatch):
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    assert pick_model("mel").info["weights"] == "none"
    model = pick_model("crnn", seed=6)  # has none
    assert model.info["weights"] == "random, seed 6"
    try:
        model = pick_model("yamnet")
    except OssicleError as error:
        pytest.skip(f"the weights are not at hand: {error}")
    assert model.info["pretrained"] is True
