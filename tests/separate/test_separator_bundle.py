"""Separators as bundles: saved, loaded, told apart from other bundles, trusted not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ossicle import bundle
from ossicle.errors import BundleError
from ossicle.model import create_model
from ossicle.separators import SEPARATORS, separator_class
from ossicle.separators.base import Separator
from ossicle.separators.deep_clustering import DeepClustering


def _separator(seed: int = 0) -> DeepClustering:
    torch.manual_seed(seed)
    network = DeepClustering(hidden=6, n_layers=1, embedding=3, mask="soft", sharpness=3.0)
    network.level_mean.fill_(-30.0)
    network.info = {"system": "deep_clustering", "validation": {"si_sdr_improvement": 3.2}}
    return network.eval().requires_grad_(False)


def _sound(n_samples: int = 6000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, n_samples), np.float32))


def test_what_is_loaded_separates_as_what_was_saved(tmp_path: Path) -> None:
    saved = _separator()
    bundle.save(saved, tmp_path / "two")
    loaded = bundle.load_separator(tmp_path / "two")
    assert type(loaded) is DeepClustering
    assert loaded.info == saved.info
    assert loaded.config() == saved.config()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    np.testing.assert_array_equal(loaded.separate(_sound(), 3), saved.separate(_sound(), 3))


def test_the_mask_chosen_last_is_kept(tmp_path: Path) -> None:
    network = _separator()
    network.mask, network.sharpness = "binary", 7.0
    bundle.save(network, tmp_path / "two")
    loaded = bundle.load_separator(tmp_path / "two")
    assert isinstance(loaded, DeepClustering)
    assert (loaded.mask, loaded.sharpness) == ("binary", 7.0)


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    card = (bundle.save(_separator(), tmp_path / "two") / "README.md").read_text()
    assert card.startswith("# two\n")
    assert "like sources, such as speakers" in card
    assert "ossicle separate run" in card
    assert "3.20" in card


def test_other_bundles_are_told_apart(tmp_path: Path) -> None:
    bundle.save(_separator(), tmp_path / "separator")
    bundle.save(create_model("mel"), tmp_path / "model")
    with pytest.raises(BundleError, match="takes recordings apart; use ossicle separate run"):
        bundle.load(tmp_path / "separator")
    with pytest.raises(BundleError, match="takes nothing apart; use ossicle predict"):
        bundle.load_separator(tmp_path / "model")
    assert isinstance(bundle.load_any(tmp_path / "separator"), Separator)


BROKEN: dict[str, tuple[Callable[[dict], object], str]] = {  # type: ignore[type-arg]
    "unknown system": (lambda c: c["separator"].update(name="os.system"), "is unknown"),
    "no keywords": (lambda c: c["separator"].pop("config"), "lacks 'config'"),
    "unknown keyword": (lambda c: c["separator"]["config"].update(evil=1), "unknown to this"),
    "text for a size": (lambda c: c["separator"]["config"].update(hidden="6"), "is a str"),
    "huge size": (lambda c: c["separator"]["config"].update(hidden=10**9), "real range"),
    "other size": (lambda c: c["separator"]["config"].update(hidden=7), "asks for"),
    "odd transform": (lambda c: c["separator"]["config"].update(n_fft=255), "describes no model"),
    "names": (lambda c: c["separator"]["config"].update(sources=["a", "b"]), "takes no names"),
    "names of another kind": (lambda c: c["separator"]["config"].update(sources=[1, 2]), "holds"),
    "many names": (
        lambda c: c["separator"]["config"].update(sources=["a"] * 5000),
        "longer than any real one",
    ),
    "no rate": (lambda c: c["separator"]["config"].update(sample_rate=0), "at least 1"),
    "no label": (lambda c: c.update(info=[]), "lacks 'info'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_strangers_config_is_not_trusted(name: str, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    path = bundle.save(_separator(), tmp_path / "two")
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=message):
        bundle.load_separator(path)


def test_a_separator_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    class Mine(Separator):
        pass

    with pytest.raises(BundleError, match="no system of ours"):
        bundle.save(Mine(8000, []), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", SEPARATORS)
def test_every_system_is_rebuilt_from_its_keywords(name: str, tmp_path: Path) -> None:
    kind = separator_class(name)
    torch.manual_seed(0)
    more: dict[str, Any] = {"sources": ["speech", "noise"]}
    if name in ("partitioned_autoencoder", "spectral_gate"):
        more["sources"] = ["foreground", "background"]
    elif name == "deep_clustering":
        more["sources"] = []
    elif name.endswith("nmf"):
        more |= {"n_components": [5, 3], "n_fft": 256, "hop_length": 64}
    separator = kind(8000, **more)
    for tensor in separator.state_dict().values():  # fitted values, whatever they are
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    separator.eval().requires_grad_(False)
    loaded = bundle.load_separator(bundle.save(separator, tmp_path / name))
    assert type(loaded) is kind
    assert loaded.sources == separator.sources
    sound = 0.1 * _sound(3 * separator.sample_rate // 4)
    np.testing.assert_array_equal(loaded.separate(sound), separator.separate(sound))
