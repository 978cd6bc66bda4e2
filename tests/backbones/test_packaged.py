"""Weights inside the package: what is kept of them, what is refused; that nothing is fetched."""

from __future__ import annotations

import copy
import json
import shutil
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from ossicle import bundle
from ossicle.backbones import WEIGHTS
from ossicle.backbones.packaged import (
    MAX_BYTES,
    read_packaged,
    write_packaged,
)
from ossicle.backbones.weight_files import WeightSource
from ossicle.errors import BundleError
from ossicle.heads import Head
from ossicle.model import Model, create_model

NAME = "stapes"
# What float16 makes hard: ties, the largest and the smallest number, less than that, a zero's sign.
HARD = [2049.0, 2051.0, 65504.0, -65504.0, 65519.9, 6e-8, 1e-7, 2e-8, -0.0, 1 / 3, 6.1e-5]


def sounds(n: int, seconds: float = 1.5, seed: int = 0) -> list[np.ndarray]:
    """Chords with vibrato over noise, of levels 30 dB apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(16_000 * seconds)) / 16_000
    found = []
    for _ in range(n):
        pitches = rng.uniform(90, 2000, 3)
        chord = sum(np.sin(2 * np.pi * p * t + rng.uniform(0, 3) * np.sin(30 * t)) for p in pitches)
        swell = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * t)
        sound = swell * chord + rng.uniform(0, 2) * rng.normal(size=len(t))
        found.append((10 ** rng.uniform(-2, -0.5) * sound / 10).astype(np.float32))
    return found


def lively(seed: int = 0, name: str = NAME) -> Model:
    """The network with random weights, and the statistics that its batch norms met in sounds.

    Scales and shifts are drawn too: a new network's are 1 and 0, which any type can say.
    """
    model = create_model(name, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.momentum = None  # the mean of all batches
            module.reset_running_stats()
    model.backbone.train()
    with torch.no_grad():
        for seed_of in range(3):
            batch = torch.from_numpy(np.stack(sounds(4, seed=100 + seed_of)))
            model.backbone(model.frontend(batch))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return lively()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    return bundle.save(model, tmp_path_factory.mktemp("bundles") / "run.ossicle")


@pytest.fixture(scope="module")
def packaged(saved, tmp_path_factory) -> Path:
    return write_packaged(saved, tmp_path_factory.mktemp("package") / f"{NAME}.safetensors")


@pytest.fixture
def published(packaged, monkeypatch) -> Path:
    """The network has weights: those of the file."""
    load = partial(read_packaged, NAME, packaged.parent)
    monkeypatch.setitem(WEIGHTS, NAME, WeightSource("sounds", "MIT", "the package", load))
    return packaged


def with_values(saved: Path, folder: Path, change) -> Path:
    """A copy of the bundle whose tensors ``change`` has been at."""
    shutil.copytree(saved, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def first_kernel(tensors: dict) -> np.ndarray:
    return tensors["backbone.stem.0.weight"].reshape(-1)


def features(model: Model) -> dict[str, np.ndarray]:
    clips = [model.clip_features(sound) for sound in sounds(4)]
    return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


def error_by_layer(found: dict, wanted: dict) -> dict[str, float]:
    """Relative error (Euclidean) of all of a layer's blocks over the clips."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, want in wanted.items():
        rows = parts.setdefault(name.rpartition("/")[0], [np.empty((2, 0))])
        rows.append(np.stack([(found[name] - want).ravel(), want.ravel()]))
    joined = {
        layer: np.linalg.norm(np.concatenate(rows, 1), axis=1) for layer, rows in parts.items()
    }
    return {layer: float(wrong / whole) for layer, (wrong, whole) in joined.items()}


# --- what is kept ----------------------------------------------------------------------------


def test_kernels_are_rounded_as_numpy_rounds_and_the_rest_stays(saved, tmp_path):
    def put(tensors):
        first_kernel(tensors)[: len(HARD)] = np.array(HARD, np.float32)
        tensors["backbone.stem.1.running_var"][:2] = 1e-12, 1e9  # beyond float16

    folder = with_values(saved, tmp_path / "hard", put)
    write_packaged(folder, tmp_path / f"{NAME}.safetensors")
    state = read_packaged(NAME, tmp_path).state
    given = load_file(folder / "model.safetensors")
    own = {k.removeprefix("backbone."): v for k, v in given.items() if k.startswith("backbone.")}
    assert set(state) == set(own) and len(own) > 40
    for name, values in own.items():
        rounded = values.astype(np.float16).astype(np.float32) if values.ndim > 1 else values
        got = state[name].numpy()
        assert got.dtype == values.dtype, name
        assert got.tobytes() == rounded.tobytes(), name
    assert read_packaged(NAME, tmp_path).head is None


def test_kernels_take_two_bytes_each(packaged, saved):
    """As the format has it: eight bytes of length, then JSON."""
    data = packaged.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    given = load_file(saved / "model.safetensors")
    assert header.pop("__metadata__").keys() == {"ossicle"}
    for name, entry in header.items():
        values = given[f"backbone.{name}"]
        narrow = values.ndim > 1
        start, end = entry["data_offsets"]
        assert (entry["dtype"] == "F16") is narrow, name
        assert end - start == (2 * values.size if narrow else values.nbytes), name
    assert len(data) < 0.52 * (saved / "model.safetensors").stat().st_size


def test_features_hardly_change(model, published):
    """The network is lively: its layers differ between clips, and batch norms are far from 1."""
    wanted = features(model)
    variances = [v for k, v in model.backbone.state_dict().items() if k.endswith("running_var")]
    assert torch.cat(variances).max() > 4 * torch.cat(variances).min() > 0
    errors = error_by_layer(features(create_model(NAME, pretrained=True)), wanted)
    assert errors.pop("bands") == 0  # the picture itself
    assert 1e-5 < max(errors.values()) < 2e-3, errors
    # Against what tells clips apart, which is less than what they share.
    found = features(create_model(NAME, pretrained=True))
    for name, want in wanted.items():
        spread = np.linalg.norm(want - want.mean(0))
        assert np.linalg.norm(found[name] - want) < 0.01 * spread, name


def test_rounding_the_batch_norms_too_would_cost_more(model, published):
    """Why what has one axis stays float32."""
    wanted = features(model)
    kept = error_by_layer(features(create_model(NAME, pretrained=True)), wanted)
    rounded = copy.deepcopy(model)
    for tensor in rounded.backbone.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    lost = error_by_layer(features(rounded), wanted)
    deep = [layer for layer in kept if layer != "bands"]
    assert np.mean([lost[k] for k in deep]) > 1.2 * np.mean([kept[k] for k in deep])


def test_every_copy_has_the_same_features(published, tmp_path):
    first = create_model(NAME, pretrained=True)
    wanted = features(first)
    loaded = bundle.load(bundle.save(first, tmp_path / "copy.ossicle"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(published, moved / published.name)
    state = read_packaged(NAME, moved).state
    (moved / published.name).unlink()
    gone = create_model(NAME, seed=9)
    gone.backbone.load_state_dict(state)
    again = create_model(NAME, pretrained=True, seed=5)
    for other in (loaded, gone, again, copy.deepcopy(first)):
        for name, values in features(other).items():
            assert np.array_equal(values, wanted[name]), name
    assert first.info["licence"] == loaded.info["licence"] == "MIT"
    assert first.head is None and first.info["pretrained"]


def test_a_model_of_it_can_be_packaged_again(published, tmp_path):
    """Rounding what is rounded changes nothing."""
    again = bundle.save(create_model(NAME, pretrained=True), tmp_path / "again")
    assert write_packaged(again, tmp_path / "w.safetensors").read_bytes() == published.read_bytes()


def test_the_same_bundle_gives_the_same_bytes_and_takes_the_old_files_place(saved, tmp_path):
    out = tmp_path / "new" / f"{NAME}.safetensors"
    first = write_packaged(saved, out).read_bytes()
    out.write_bytes(b"old")
    assert write_packaged(str(saved), str(out)) == out
    assert out.read_bytes() == first
    assert list(out.parent.iterdir()) == [out]


def test_a_head_stays_behind(model, saved, tmp_path):
    headed = bundle.load(saved)
    head = nn.Linear(160, 3)
    made = Model(
        headed.frontend,
        headed.backbone,
        clip=headed.clip,
        head=Head.from_layers([(head.weight.detach(), head.bias.detach())]),
        readout=("words/mean",),
        classes=("a", "b", "c"),
    )
    folder = bundle.save(made, tmp_path / "headed")
    plain = write_packaged(saved, tmp_path / "plain.safetensors").read_bytes()
    assert write_packaged(folder, tmp_path / "headed.safetensors").read_bytes() == plain


# --- what is refused -------------------------------------------------------------------------


def refused(what) -> str:
    with pytest.raises(BundleError) as caught:
        what()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    said = refused(lambda: read_packaged(NAME, tmp_path))
    assert str(tmp_path / f"{NAME}.safetensors") in said
    assert "missing" in said and "make weights" in said
    assert "no_such_network.safetensors" in refused(lambda: read_packaged("no_such_network"))


def flipped(data: bytes, place: int) -> bytes:
    """One bit, the lowest of a byte: the value stays finite."""
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def turned(data: bytes, length: int) -> bytes:
    """The same bytes as a kernel of another shape."""
    header = json.loads(data[8 : 8 + length])
    shape = header["blocks.stage1_1.conv.weight"]["shape"]
    shape[0], shape[1] = shape[1], shape[0]
    text = json.dumps(header, separators=(",", ":")).encode()
    return data[:8] + text.ljust(length) + data[8 + length :]


DAMAGES = {
    "a shape": turned,
    "a bit in the first number": lambda d, n: flipped(d, 8 + n),
    "a bit in the last number": lambda d, n: flipped(d, -4),
    "a bit in a name": lambda d, n: d.replace(b'"level.bias"', b'"level.bhas"'),
    "cut short": lambda d, n: d[: len(d) // 2],
    "one byte short": lambda d, n: d[:-1],
    "header alone": lambda d, n: d[: 8 + n],
    "empty": lambda d, n: b"",
    "text": lambda d, n: b"version https://git-lfs.github.com/spec/v1\n" * 3,
    "no label": lambda d, n: d[:8] + d[8 : 8 + n].replace(b'"ossicle"', b'"ossicly"') + d[8 + n :],
    "another format": lambda d, n: d.replace(b"ossicle-weights", b"ossicle-weighty"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(packaged, tmp_path, damage):
    data = packaged.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    file = tmp_path / packaged.name
    file.write_bytes(damage(data, length))
    assert file.read_bytes() != data
    said = refused(lambda: read_packaged(NAME, tmp_path))
    assert str(file) in said and "damaged" in said
    file.write_bytes(data)
    assert len(read_packaged(NAME, tmp_path).state) > 40


def test_weights_of_another_network_are_refused(packaged, tmp_path):
    shutil.copy(packaged, tmp_path / "yamnet.safetensors")
    assert "holds the weights of stapes" in refused(lambda: read_packaged("yamnet", tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("key", ["stem.0.weight", "stem.1.running_var"])
def test_what_is_not_finite_is_refused(saved, tmp_path, value, key):
    def put(tensors):
        tensors[f"backbone.{key}"].reshape(-1)[3] = value

    folder = with_values(saved, tmp_path / "odd", put)
    out = tmp_path / "out.safetensors"
    said = refused(lambda: write_packaged(folder, out))
    assert str(folder) in said and key in said and "NaN or infinity" in said
    assert not out.exists()


@pytest.mark.parametrize("value", [65520.0, -1e6, 3e38])
def test_what_float16_cannot_hold_is_refused(saved, tmp_path, value):
    assert abs(value) >= 65504 + 16  # half way to the next number, were there one (IEEE 754)

    def put(tensors):
        first_kernel(tensors)[7] = value

    folder = with_values(saved, tmp_path / "large", put)
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    said = refused(lambda: write_packaged(folder, out))
    assert "stem.0.weight" in said and f"{abs(value):.6g}" in said and "too large" in said
    assert out.read_bytes() == b"old"
    assert set(tmp_path.iterdir()) == {folder, out}


def test_a_network_of_more_than_four_megabytes_is_refused(tmp_path):
    model = create_model("mobilenet_v2")
    assert 2 * model.num_parameters > MAX_BYTES == 4_000_000
    folder = bundle.save(model, tmp_path / "wide")
    out = tmp_path / "out.safetensors"
    said = refused(lambda: write_packaged(folder, out))
    assert "4,000,000 at most" in said
    assert not out.exists()


def test_a_network_of_other_keywords_is_refused(tmp_path):
    folder = bundle.save(create_model(NAME, width=0.5), tmp_path / "narrow")
    said = refused(lambda: write_packaged(folder, tmp_path / "o.safetensors"))
    assert "its backbone is not that of a plain stapes" in said


@pytest.mark.parametrize(("part", "key"), [("frontend", "fmax"), ("clip", "min_s")])
def test_another_front_end_or_clip_is_refused(saved, tmp_path, part, key):
    """`create_model` would put the network's own beside these weights."""
    folder = tmp_path / "other"
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    config[part][key] *= 0.9
    (folder / "config.json").write_text(json.dumps(config))
    said = refused(lambda: write_packaged(folder, tmp_path / "o.safetensors"))
    assert f"its {part} is not" in said


def test_what_is_no_bundle_of_ours_is_refused(saved, tmp_path):
    out = tmp_path / "o.safetensors"
    assert "no bundle" in refused(lambda: write_packaged(tmp_path / "nothing", out))
    for number, text in enumerate(("{}", "[]", '{"backbone": {"name": "hf", "config": {}}}')):
        folder = tmp_path / f"config{number}"
        shutil.copytree(saved, folder)
        (folder / "config.json").write_text(text)
        assert str(folder) in refused(lambda folder=folder: write_packaged(folder, out))
    folder = with_values(saved, tmp_path / "less", lambda t: t.pop("backbone.level.bias"))
    assert "not those of stapes" in refused(lambda: write_packaged(folder, out))
    assert not out.exists()


def test_nothing_is_fetched(published, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", never)
    monkeypatch.setattr("socket.getaddrinfo", never)
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    model = create_model(NAME, pretrained=True)
    assert model.info["weights"] == "sounds"
    assert not (tmp_path / "cache").exists()
