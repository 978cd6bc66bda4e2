"""MobileNetV3 with EfficientAT's weights against a slow definition, on the published file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS, mobilenet_v3, weights_efficientat
from ossicle.backbones.mobilenet_v3 import EfficientATMN04, MobileNetV3, rounded_channels
from ossicle.backbones.weights_efficientat import MN04_FILE, MN04_SHA256, convert_efficientat
from ossicle.download import sha256_file
from ossicle.errors import DownloadError, OssicleError
from ossicle.frontend import create_frontend

# The numbers that the published file's name and page give: channels of the 15 blocks at width 0.4.
PUBLISHED_CHANNELS = [8, 16, 16, 16, 16, 16, 32, 32, 32, 32, 48, 48, 64, 64, 64]
# The classifier: hidden layer of 512 on the mean of the last map, 527 classes.
CLASSIFIER_PARAMETERS = 384 * 512 + 512 + 512 * 527 + 527


@pytest.fixture(scope="module")
def published_file(shared_data) -> Path:
    path = shared_data.parent / "weights" / MN04_FILE
    if not path.is_file():
        pytest.skip(f"needs EfficientAT's published file at {path}")
    return path


@pytest.fixture(scope="module")
def published(published_file) -> dict[str, torch.Tensor]:
    return torch.load(published_file, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def network(published_file) -> MobileNetV3:
    network = EfficientATMN04()
    network.load_state_dict(convert_efficientat(published_file).state, strict=True)
    return network.eval().requires_grad_(False)


# --- the slow definition, on the published names ---------------------------------------------


def slow_mel_banks(n_mels: int, n_fft: int, sample_rate: int, low: float, high: float):
    """Kaldi's mel banks, (n_mels, n_fft // 2 + 1), weight by weight.

    From its documentation: the mel scale is 1127 ln(1 + f / 700); bin k, of k < n_fft / 2, has the
    frequency k * sample_rate / n_fft; bands are triangles on the mel axis, each as wide as two
    steps; the bin at half the sample rate has no weight.
    """

    def mel(frequency):
        return 1127.0 * np.log(1.0 + frequency / 700.0)

    step = (mel(high) - mel(low)) / (n_mels + 1)
    banks = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        left, centre, right = (mel(low) + (band + i) * step for i in range(3))
        for k in range(n_fft // 2):
            m = mel(k * sample_rate / n_fft)
            if left < m <= centre:
                banks[band, k] = (m - left) / (centre - left)
            elif centre < m < right:
                banks[band, k] = (right - m) / (right - centre)
    return banks


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """(N,) -> (128, T) float64, frame by frame: pre-emphasis, spectrum, banks, logarithm, shift."""
    x = samples[1:].astype(np.float64) - 0.97 * samples[:-1]
    x = np.pad(x, 512, mode="reflect")
    # Hann of 800 samples with both ends zero, in the middle of the frame of 1024.
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    frames = range(0, len(x) - 1023, 320)
    power = np.stack([np.abs(np.fft.rfft(x[i : i + 1024] * window)) ** 2 for i in frames], 1)
    banks = slow_mel_banks(128, 1024, 32_000, 0.0, 15_000.0)
    return (np.log(banks @ power + 1e-5) + 4.5) / 5


def slow_norm(x, published, prefix):
    mean, variance, weight, bias = (
        published[f"{prefix}.{name}"][:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 0.001) * weight + bias


def slow_hardswish(x):
    return x * torch.clamp(x + 3, 0, 6) / 6


def slow_convolution(x, published, prefix, stride=1):
    weight = published[f"{prefix}.0.weight"]
    groups = x.shape[1] if weight.shape[1] == 1 else 1
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    return slow_norm(x, published, f"{prefix}.1")


def slow_block(x, published, number, stride, activation):
    """One inverted residual, its parts told by the names that the file has."""
    prefix = f"features.{number}.block"
    parts = sorted({int(name.split(".")[3]) for name in published if name.startswith(prefix + ".")})
    y = x
    for part in parts:
        name = f"{prefix}.{part}"
        squeeze = f"{name}.conc_se_layers.0"
        if f"{squeeze}.fc1.weight" in published:
            s = y.mean(dim=(2, 3))
            s = torch.relu(
                s @ published[f"{squeeze}.fc1.weight"].T + published[f"{squeeze}.fc1.bias"]
            )
            s = s @ published[f"{squeeze}.fc2.weight"].T + published[f"{squeeze}.fc2.bias"]
            y = y * (1 / (1 + torch.exp(-s)))[:, :, None, None]
            continue
        depthwise = published[f"{name}.0.weight"].shape[1] == 1 and len(y[0]) > 1
        y = slow_convolution(y, published, name, stride if depthwise else 1)
        y = y if part == parts[-1] else activation(y)
    return x + y if stride == 1 and x.shape == y.shape else y


def picture(frames: int = 77) -> torch.Tensor:
    return torch.randn(1, 1, 128, frames, generator=torch.Generator().manual_seed(0))


# --- the front end ---------------------------------------------------------------------------


def test_front_end_equals_the_slow_definition(carried_clips):
    path = sorted(carried_clips.rglob("*.flac"))[5]
    samples = load(path, sample_rate=32_000).samples[0][:48_001]
    frontend = create_frontend(**EfficientATMN04.frontend)
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    expected = slow_log_mel(samples)
    assert output.shape == expected.shape == (128, frontend.num_frames(len(samples)))
    np.testing.assert_allclose(output, expected, atol=2e-3)
    assert np.abs(output - expected).mean() < 1e-5


def test_ten_seconds_are_a_thousand_frames():
    assert create_frontend(**EfficientATMN04.frontend).num_frames(320_000) == 1000


# --- the network -----------------------------------------------------------------------------


def test_the_published_file_is_the_one_of_the_checksum(published_file):
    assert sha256_file(published_file) == MN04_SHA256


def test_every_published_number_is_used_but_the_classifiers(network, published):
    own = {name: tensor for name, tensor in published.items() if name.startswith("features.")}
    assert sum(t.numel() for t in own.values()) == sum(
        t.numel() for t in network.state_dict().values()
    )
    theirs = [n for n in published if "running_" not in n and "num_batches" not in n]
    total = sum(published[name].numel() for name in theirs)
    assert total == 983_599  # "0.98 M" of the publication
    count = sum(p.numel() for p in network.parameters())
    assert count == total - CLASSIFIER_PARAMETERS == 516_128


def test_every_layer_equals_the_slow_definition(network, published):
    # (stride, activation) of each block, from the paper's table 1.
    relu = torch.relu
    table = [(1, relu), (2, relu), (1, relu), (2, relu), (1, relu), (1, relu)]
    table += [(2, slow_hardswish)] + 5 * [(1, slow_hardswish)]
    table += [(2, slow_hardswish)] + 2 * [(1, slow_hardswish)]
    x = picture()
    with torch.inference_mode():
        maps = network(x)
        y = slow_hardswish(slow_convolution(x, published, "features.0", stride=2))
        torch.testing.assert_close(maps["stem"], y, rtol=1e-4, atol=1e-4)
        for number, (stride, activation) in enumerate(table, start=1):
            y = slow_block(y, published, number, stride, activation)
            torch.testing.assert_close(maps[f"block{number}"], y, rtol=1e-4, atol=1e-4)
        y = slow_hardswish(slow_convolution(y, published, "features.16"))
        torch.testing.assert_close(maps["last"], y, rtol=1e-4, atol=1e-4)


def test_channels_are_the_published_ones(network):
    info = network.feature_info
    assert [i.name for i in info] == ["stem", *(f"block{n}" for n in range(1, 16)), "last"]
    assert [i.channels for i in info] == [8, *PUBLISHED_CHANNELS, 384]
    assert [i.stride for i in info] == [2, 2, 4, 4, 8, 8, 8] + 6 * [16] + 4 * [32]


@pytest.mark.parametrize("width", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("frames", [1, 31, 32, 33, 101])
def test_feature_info_is_what_comes_out(width, frames):
    network = MobileNetV3(width).eval()
    with torch.inference_mode():
        maps = network(picture(frames))
    assert list(maps) == list(network.layers)
    for info, map_ in zip(network.feature_info, maps.values(), strict=True):
        assert map_.shape == (1, info.channels, info.bands, -(-frames // info.stride)), info.name


def test_width_one_is_the_papers_large_network():
    # torchvision's mobilenet_v3_large has 5,483,032 parameters, 2,511,080 of them in its
    # classifier of 960 to 1280 to 1000; its stem takes three channels.
    stem_of_three = 16 * 2 * 9
    count = sum(p.numel() for p in MobileNetV3(1.0).parameters())
    assert count + stem_of_three == 5_483_032 - (961 * 1280 + 1281 * 1000)


@pytest.mark.parametrize("width", [0.0, -1, 4.1, float("nan")])
def test_a_wrong_width_is_named(width):
    with pytest.raises(OssicleError, match="width is"):
        MobileNetV3(width)


def test_channels_stay_near():
    for channels in np.arange(0.5, 2000, 0.7):
        rounded = rounded_channels(channels)
        assert rounded % 8 == 0 and rounded >= max(8, 0.9 * channels)
        assert rounded <= max(8, channels + 8)


# --- sounds ----------------------------------------------------------------------------------


# ESC-10's kinds, and the numbers in AudioSet's list of 527 of: baby cry, chainsaw, tick, dog,
# crackle, helicopter, sneeze, rain, crowing, waves.
ESC10_CLASSES = {
    "baby_cry": 23,
    "chainsaw": 347,
    "clock_tick": 407,
    "dog_bark": 74,
    "fire_crackling": 299,
    "helicopter": 339,
    "person_sneeze": 49,
    "rain": 289,
    "rooster": 101,
    "sea_waves": 295,
}


def test_published_classifier_names_esc10(network, published, shared_data):
    """Each class of AudioSet scores highest on the clips of its own kind, 10 of 10."""
    frontend = create_frontend(**EfficientATMN04.frontend)
    means = []
    for kind in ESC10_CLASSES:
        scores = []
        for path in sorted((shared_data / "esc10" / kind).glob("*.ogg"))[::8]:
            samples = load(path, sample_rate=32_000).samples[0]
            with torch.inference_mode():
                x = network(frontend(torch.from_numpy(samples)[None]))["last"].mean((2, 3))
                x = x @ published["classifier.2.weight"].T + published["classifier.2.bias"]
                x = slow_hardswish(x) @ published["classifier.5.weight"].T
                scores.append((x + published["classifier.5.bias"])[0])
        means.append(torch.stack(scores).mean(0))
    table = torch.stack(means)[:, list(ESC10_CLASSES.values())]
    assert table.argmax(0).tolist() == list(range(10))


# --- where the weights come from -------------------------------------------------------------


def test_cached_weights_are_the_converted_ones(published_file, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_efficientat, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(weights_efficientat, "fetch_mn04", lambda: published_file)
    first = WEIGHTS["efficientat_mn04"].load()
    (cached,) = tmp_path.iterdir()
    assert cached.suffix == ".safetensors"
    monkeypatch.setattr(weights_efficientat, "fetch_mn04", lambda: pytest.fail())
    again = WEIGHTS["efficientat_mn04"].load()
    assert first.head is again.head is None and first.classes == again.classes == ()
    assert first.state.keys() == again.state.keys()
    for name, tensor in first.state.items():
        assert torch.equal(again.state[name], tensor), name


def test_a_file_put_by_hand_is_taken(published_file, tmp_path, monkeypatch):
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    with pytest.raises(DownloadError, match=f"{MN04_SHA256}.*{MN04_FILE}"):
        WEIGHTS["efficientat_mn04"].load()
    (tmp_path / MN04_FILE).write_bytes(published_file.read_bytes())
    assert len(WEIGHTS["efficientat_mn04"].load().state) > 200


@pytest.mark.parametrize("content", [b"", b"hello, this is no network", b"\0" * 4096])
def test_conversion_refuses_another_file(tmp_path, content):
    file = tmp_path / "other.pt"
    file.write_bytes(content)
    with pytest.raises(DownloadError, match="other.pt"):
        convert_efficientat(file)


def test_conversion_refuses_another_network(tmp_path):
    file = tmp_path / "other.pt"
    for content in ({"features.0.0.weight": torch.ones(2)}, [torch.ones(2)]):
        torch.save(content, file)
        with pytest.raises(DownloadError, match="not a network of EfficientAT"):
            convert_efficientat(file)


def test_registered_with_licence():
    assert BACKBONES["efficientat_mn04"] is EfficientATMN04
    assert WEIGHTS["efficientat_mn04"].licence == "MIT"
    assert "(c) 2022 Florian Schmid" in WEIGHTS["efficientat_mn04"].origin
    assert len(mobilenet_v3.BLOCKS) == 15
