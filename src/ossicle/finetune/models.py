"""The network that a strategy starts from."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from ossicle import bundle
from ossicle.backbones import BACKBONES, WEIGHTS, is_family
from ossicle.errors import OssicleError
from ossicle.frontend import create_frontend
from ossicle.model import Model, create_model


class Start(Protocol):
    """What ``build`` reads of a strategy."""

    @property
    def kind(self) -> str:
        """ "probe", "finetune" or "scratch"."""

    @property
    def backbone(self) -> str:
        """A name, "hf:NAME", or a bundle's folder."""

    @property
    def random(self) -> bool:
        """Whether a frozen network has random weights."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Keywords of its constructor."""

    @property
    def frontend(self) -> Mapping[str, Any]:
        """Changes of the front end's keywords."""


def build(start: Start, seed: int) -> Model:
    """The model to begin with, without a head.

    Args:
        start: see ``ossicle.finetune.strategy.Strategy``.
        seed: of random weights.

    Raises:
        OssicleError: there is no such network or keyword, nothing in it learns, or Lightning is
            not installed.
    """
    if start.kind != "probe" and importlib.util.find_spec("lightning") is None:
        raise OssicleError('training needs Lightning: pip install "ossicle[train]"')
    new = start.kind == "scratch" or start.random
    name = start.backbone
    if name in BACKBONES:
        if start.config and name in WEIGHTS and not new:
            raise OssicleError(f"{name}'s published weights have no keywords: leave out set.")
        model = create_model(
            name, pretrained=name in WEIGHTS and not new, seed=seed, **start.config
        )
    elif start.config:
        raise OssicleError(f"{name} brings its own configuration: leave out set.")
    elif is_family(name) or not bundle.is_bundle(name):
        model = create_model(name, pretrained=not new, seed=seed)
    else:
        model = bundle.load(name)
        if new:
            model = renewed(model, seed)
    if start.kind != "probe" and not model.num_parameters:
        raise OssicleError(f"{name} has no weights to train: choose a network")
    if start.kind == "finetune" and not model.info.get("pretrained", True):
        raise OssicleError(
            f"{name} has no published weights: train it from scratch, or pretrain it"
        )
    if start.frontend:
        model = with_frontend(model, start.frontend)
    return Model(model.frontend, model.backbone, clip=model.clip, info=model.info).eval()


def renewed(model: Model, seed: int) -> Model:
    """A model of the same shape with new weights, drawn from a seed."""
    # Built anew: in a trained network `draw_weights` would leave gains and statistics.
    with torch.random.fork_rng(devices=[]):
        network = type(model.backbone)(**model.backbone.config())
    network.draw_weights(torch.Generator().manual_seed(seed))
    network.requires_grad_(False)
    info: dict[str, Any] = {
        name: model.info[name] for name in ("name", "source") if name in model.info
    }
    info |= {"pretrained": False, "weights": f"random, seed {seed}", "licence": "none needed"}
    return Model(model.frontend, network, clip=model.clip, info=info).eval()


def with_frontend(model: Model, changes: Mapping[str, Any]) -> Model:
    """The model behind a front end some of whose keywords are changed.

    Raises:
        OssicleError: a keyword is unknown or out of range, or the picture has another height.
    """
    name = model.backbone.frontend["name"]
    front = create_frontend(name, **{**model.frontend.config(), **changes})
    if front.n_bands != model.frontend.n_bands:
        raise OssicleError(
            f"the network reads {model.frontend.n_bands} bands, not {front.n_bands}: leave their "
            "number as it is"
        )
    return Model(front, model.backbone, clip=model.clip, info=model.info).eval()
