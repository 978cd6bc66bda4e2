"""HEAR modules as backbones: a module whose numbers are known, and modules that are wrong."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from ossicle import bundle, hear_export
from ossicle.errors import BundleError, OssicleError
from ossicle.features import extract
from ossicle.line import measure, pick_model
from ossicle.model import create_model


class Loudness(torch.nn.Module):
    """Mean squares of 25 ms: (B, T, 2) with their negatives; a convolution that must stay whole."""

    sample_rate, timestamp_embedding_size, scene_embedding_size = 16_000, 2, 3

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        self.block = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
        self.dropout = torch.nn.Dropout(0.5)


def load_model(model_file_path: str = "") -> Loudness:
    return Loudness(float(model_file_path or 1))


def get_timestamp_embeddings(audio, model):
    frames = audio.unfold(-1, 400, 400).square().mean(-1) * model.gain
    assert model.block[0].weight.shape == (1, 1, 1, 1)
    times = (torch.arange(frames.shape[1]) + 0.5) * 25
    return model.dropout(torch.stack([frames, -frames], -1)), times.repeat(len(audio), 1)


def get_scene_embeddings(audio, model):
    moments = get_timestamp_embeddings(audio, model)[0]
    return torch.cat([moments.mean(1), audio.mean(1, keepdim=True)], 1)


FUNCTIONS = {
    "load_model": load_model,
    "get_timestamp_embeddings": get_timestamp_embeddings,
    "get_scene_embeddings": get_scene_embeddings,
}


@pytest.fixture
def install(monkeypatch):
    """Makes a module importable as `loudness`, with some functions put in place of others."""

    def put(**changed) -> str:
        module = types.ModuleType("loudness")
        for name, function in {**FUNCTIONS, **changed}.items():
            if function is not None:
                setattr(module, name, function)
        monkeypatch.setitem(sys.modules, "loudness", module)
        return "hear:loudness"

    return put


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.3, 0.3, round(seconds * 16_000)).astype(np.float32)


def test_both_embeddings_are_layers(install):
    model = pick_model(install())
    assert model.layers == ("timestamp", "scene")
    assert model.sample_rate == 16_000
    infos = {info.name: info for info in model.backbone.feature_info}
    assert (infos["timestamp"].channels, infos["scene"].channels) == (2, 3)
    assert infos["timestamp"].stride == 400
    assert model.num_parameters == 5
    samples = noise(2.0)
    maps = model.forward_layers(torch.from_numpy(samples)[None])
    want = np.square(samples.astype(float)).reshape(80, 400).mean(1)
    assert maps["timestamp"].shape == (1, 2, 80)
    assert np.allclose(maps["timestamp"][0, 0].numpy(), want, rtol=1e-5)
    features = model.clip_features(samples)
    assert np.allclose(features["timestamp/mean"], [want.mean(), -want.mean()], rtol=1e-5)
    assert np.allclose(features["timestamp/max"], [want.max(), -want.min()], rtol=1e-5)
    assert np.allclose(
        features["scene/mean"], [want.mean(), -want.mean(), samples.mean()], rtol=1e-4
    )


def test_the_file_goes_to_load_model(install):
    name = install()
    one, ten = pick_model(name), pick_model(f"{name}:10")
    samples = noise(1.0)
    block = "timestamp/mean"
    assert np.allclose(
        10 * one.clip_features(samples)[block], ten.clip_features(samples)[block], rtol=1e-5
    )


def test_same_in_same_out(install):
    model = pick_model(install())
    items = [(noise(s, i), 16_000) for i, s in enumerate((0.3, 2.0, 31.0))]
    table = extract(model, items, workers=3)
    model.train()
    assert not model.backbone.model.dropout.training
    for row, (samples, _) in enumerate(items):
        for block, values in model.clip_features(samples).items():
            assert np.array_equal(values, table.blocks[block][row])


def test_every_part_of_a_long_clip_counts(install):
    model = pick_model(install())
    samples = noise(70)
    before = model.clip_features(samples, ["timestamp"], ["mean"])["timestamp/mean"]
    samples[-16_000:] = 0
    after = model.clip_features(samples, ["timestamp"], ["mean"])["timestamp/mean"]
    assert np.allclose(after, before * 69 / 70, rtol=5e-3)
    assert not np.allclose(after, before, rtol=5e-3)


def test_a_bundle_cannot_carry_it(install, tmp_path, clips):
    model = pick_model(install())
    with pytest.raises(BundleError, match="bundle cannot carry the module loudness"):
        bundle.save(model, tmp_path / "a.ossicle")
    assert not (tmp_path / "a.ossicle").exists()
    arguments = {
        "clips": clips,
        **dict.fromkeys(["folds", "groups", "labels", "pooling"]),
        **dict.fromkeys(["random", "balance", "choose_layers"], False),
        **{"backbone": "hear:loudness", "layers": "all", "probe": "ridge", "n_folds": 2},
        **{"seed": 0, "workers": 1, "quick": True},
    }
    assert measure(arguments).result["n_clips"] == 24
    told: list = []
    with pytest.raises(BundleError, match="cannot carry"):  # before the work, not after
        measure(arguments, to_take_away=True, progress=told.append)
    assert not told


def test_a_bundle_that_names_a_module_is_refused(tmp_path):
    path = bundle.save(create_model("mel"), tmp_path / "a.ossicle")
    config = (path / "config.json").read_text().replace('"name": "mel"', '"name": "hear"')
    (path / "config.json").write_text(config)
    with pytest.raises(BundleError, match="'hear' is unknown"):
        bundle.load(path)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"get_scene_embeddings": None}, "lacks get_scene_embeddings"),
        ({"load_model": None, "get_timestamp_embeddings": None}, "load_model, get_timestamp"),
        ({"load_model": lambda: 1 / 0}, r"load_model fails \(ZeroDivisionError"),
        ({"load_model": lambda: "model"}, "gives a str"),
        ({"load_model": lambda: torch.nn.Linear(1, 1)}, "sample_rate is None"),
        (
            {"get_scene_embeddings": lambda a, m: torch.zeros(len(a), 7)},
            r"\(1, 7\) where.*\(1, 3\)",
        ),
        ({"get_scene_embeddings": lambda a, m: np.zeros((len(a), 3))}, "ndarray, not a tensor"),
        ({"get_timestamp_embeddings": lambda a, m: torch.zeros(1, 4, 2)}, r"not \(embeddings"),
        (
            {"get_timestamp_embeddings": lambda a, m: (torch.zeros(1, 4, 2), torch.zeros(1, 5))},
            r"\(1, 5\) where",
        ),
        (
            {"get_timestamp_embeddings": lambda a, m: (torch.zeros(1, 0, 2), torch.zeros(1, 0))},
            "no timestamps",
        ),
        (
            {"get_timestamp_embeddings": lambda a, m: (torch.zeros(1, 4, 2), torch.zeros(1, 4))},
            "do not rise",
        ),
        ({"get_scene_embeddings": lambda a, m: 1 / 0}, "gives an error"),
    ],
)
def test_a_wrong_module_is_named_in_one_line(install, changed, complaint):
    with pytest.raises(OssicleError, match=complaint) as caught:
        pick_model(install(**changed))
    assert "\n" not in str(caught.value)
    assert "hear:loudness" in str(caught.value)


def test_names_that_are_no_modules(install):
    with pytest.raises(OssicleError, match="cannot be imported"):
        pick_model("hear:there_is_no_such_module")
    with pytest.raises(OssicleError, match="named as in Python"):
        pick_model("hear:../evil")
    for random in (lambda: pick_model(install(), random=True), lambda: create_model(install())):
        with pytest.raises(OssicleError, match="never random"):
            random()


def test_our_own_export_is_such_a_module():
    """There and back: the scene embedding is what `embed` gives of the same network."""
    model = pick_model("hear:ossicle.hear_export:mel")
    samples = noise(1.3)
    scene = model.clip_features(samples, ["scene"], ["mean"])["scene/mean"]
    own = hear_export.load_model("mel")
    want = hear_export.get_scene_embeddings(torch.from_numpy(samples)[None], own)[0]
    assert np.array_equal(scene, want.numpy())
    assert model.backbone.feature_info[0].stride == 800
