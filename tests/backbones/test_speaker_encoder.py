"""The voice encoder against the published program, written out anew, and librosa."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.folding import folded
from ossicle.backbones.speaker_encoder import SpeakerEncoder
from ossicle.backbones.weight_files import read_cached, write_cached
from ossicle.backbones.weights_speaker_encoder import (
    convert_speaker_encoder,
    fetch_speaker_encoder,
)
from ossicle.errors import DownloadError, OssicleError
from ossicle.frontend import create_frontend
from ossicle.frontend.mel import raised
from ossicle.heads import count_parameters
from ossicle.model import Model, create_model

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.fixture(scope="module")
def model() -> Model:
    try:
        path = fetch_speaker_encoder()
    except DownloadError as error:  # a machine without a network
        pytest.skip(str(error))
    model = create_model("speaker_encoder", pretrained=True)
    # What lies converted in the cache may be of another day.
    model.backbone.load_state_dict(convert_speaker_encoder(path).state)
    return model


def sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "guitar": load(CLIPS / "guitar.flac", sample_rate=16_000).samples[0],
        "faint": 0.003 * rng.standard_normal(50_000).astype(np.float32),
        "loud": 0.3 * rng.standard_normal(40_000).astype(np.float32),
        "short": 0.1 * rng.standard_normal(9_000).astype(np.float32),
    }


class Published:
    """The wheel's audio.py and voice_encoder.py: one LSTM of three layers under their own names."""

    def __init__(self) -> None:
        state = torch.load(fetch_speaker_encoder(), map_location="cpu", weights_only=True)
        state = state["model_state"]
        self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        names = [name for name in state if name.startswith("lstm.")]
        self.lstm.load_state_dict({name.removeprefix("lstm."): state[name] for name in names})
        self.weight, self.bias = state["linear.weight"], state["linear.bias"]

    @staticmethod
    def normalised(samples: np.ndarray) -> np.ndarray:
        """Raised to -30 dB of full scale, if it is below."""
        level_db = 20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
        return samples * 10 ** (max(0.0, -30 - level_db) / 20)

    @staticmethod
    def mel(samples: np.ndarray) -> np.ndarray:
        """(T, 40)."""
        return librosa.feature.melspectrogram(
            y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=40
        ).T.astype(np.float32)

    @torch.no_grad()
    def vector(self, frames: np.ndarray) -> np.ndarray:
        """(160, 40) -> (256,)."""
        state = self.lstm(torch.from_numpy(frames)[None])[1][0][-1]
        raw = torch.clamp(state @ self.weight.T + self.bias, min=0)[0].numpy()
        return raw / np.linalg.norm(raw)

    def partials(self, samples: np.ndarray, pad: str) -> np.ndarray:
        """(T', 256): every 80 frames, the last with at least 80 of its own.

        Args:
            samples: the waveform.
            pad: "samples" as published, or "frames": zeros behind the spectrogram.
        """
        samples = self.normalised(samples)
        number = max(1, (len(samples) // 160 + 1) // 80)
        frames = (number - 1) * 80 + 160
        if pad == "samples":
            mel = self.mel(np.pad(samples, (0, max(0, frames * 160 - len(samples)))))
        else:
            mel = self.mel(samples)
            mel = np.pad(mel, ((0, max(0, frames - len(mel))), (0, 0)))
        return np.stack([self.vector(mel[i * 80 : i * 80 + 160]) for i in range(number)])


@pytest.fixture(scope="module")
def published(model) -> Published:
    return Published()


def maps_of(model: Model, samples: np.ndarray) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        maps = model.forward_layers(torch.from_numpy(samples)[None])
    return {name: map_[0].T.numpy() for name, map_ in maps.items()}


@pytest.mark.parametrize("sound", ["guitar", "faint", "loud", "short"])
def test_partials_are_the_published_programs(model, published, sound):
    samples = sounds()[sound]
    got = maps_of(model, samples)["embedding"]
    want = published.partials(samples, "frames")
    assert got.shape == want.shape
    assert want.std() > 0.01
    assert np.abs(got - want).max() <= 2e-6
    # Published, the last window may hear 40 samples beyond the last frame that there is here.
    assert np.abs(got - published.partials(samples, "samples")).max() <= 0.01
    assert np.linalg.norm(got, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sound", ["guitar", "faint", "short"])
def test_lstms_read_the_clip_whole(model, published, sound):
    samples = sounds()[sound]
    maps = maps_of(model, samples)
    mel = torch.from_numpy(published.mel(published.normalised(samples)))
    x = mel[None]
    for number, name in enumerate(("lstm1", "lstm2", "lstm3")):
        layer = torch.nn.LSTM(x.shape[-1], 256, batch_first=True)
        state = published.lstm.state_dict().items()
        suffix = f"_l{number}"
        layer.load_state_dict(
            {k.removesuffix(suffix) + "_l0": v for k, v in state if k.endswith(suffix)}
        )
        with torch.no_grad():
            x = layer(x)[0]
        assert maps[name].shape == x[0].shape
        assert np.abs(maps[name] - x[0].numpy()).max() <= 1e-5, name


@pytest.mark.parametrize("sound", ["guitar", "faint", "loud", "short"])
def test_front_end_is_librosas(sound):
    samples = sounds()[sound]
    want = Published.mel(Published.normalised(samples)).T
    ours = create_frontend(**SpeakerEncoder.frontend)(torch.from_numpy(samples)[None])[0, 0].numpy()
    assert ours.shape == want.shape
    assert np.abs(ours - want).max() <= 1e-6 * want.max()


@pytest.mark.parametrize(
    ("frames", "partials"), [(1, 1), (79, 1), (80, 1), (159, 1), (160, 2), (239, 2), (240, 3)]
)
def test_number_of_partials(frames, partials):
    network = create_model("speaker_encoder").backbone
    x = torch.rand(2, 1, 40, frames, generator=torch.Generator().manual_seed(0))
    copy = folded(network, None).network
    with torch.inference_mode():
        maps = network(x)
        for name, map_ in copy(x).items():
            assert torch.allclose(map_, maps[name], atol=1e-5), name
    assert maps["embedding"].shape == (2, 256, partials)
    for name in ("lstm1", "lstm2", "lstm3"):
        assert maps[name].shape == (2, 256, frames)


def test_patches_are_partials():
    patches, rate = SpeakerEncoder.patches, 16_000
    assert round(patches["window_s"] * rate) == 160 * 160
    assert round(patches["hop_s"] * rate) == 80 * 160


# --- level -------------------------------------------------------------------------------------


def test_quiet_voices_are_raised_and_loud_ones_left():
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((4, 20_000)).astype(np.float32))
    levels = torch.tensor([[1e-30], [1e-4], [0.02], [0.4]])
    out = raised(noise * levels, -30.0).double()
    rms = out.square().mean(-1).sqrt().numpy()
    np.testing.assert_allclose(rms[:3], 10 ** (-30 / 20), rtol=1e-5)
    assert torch.equal(out[3].float(), noise[3] * 0.4)
    silence = raised(torch.zeros(1, 100), -30.0)
    assert torch.equal(silence, torch.zeros(1, 100))
    assert raised(noise, -30.0).dtype == torch.float32


def test_a_quiet_copy_has_the_same_vectors(model):
    samples = sounds()["guitar"]
    quiet = samples * np.float32(0.01 / np.sqrt(np.mean(samples**2)))
    a, b = maps_of(model, quiet), maps_of(model, 0.1 * quiet)
    assert np.abs(a["embedding"] - b["embedding"]).max() <= 1e-5


def test_a_level_must_be_a_number():
    for wrong in (float("nan"), float("-inf")):
        with pytest.raises(OssicleError, match="least_db"):
            create_frontend("log_mel", sample_rate=16_000, least_db=wrong)


def test_voices_lie_by_their_speakers(model, shared_data):
    """Of the spoken digits, the next of another digit is mostly of the same speaker."""
    paths = sorted((shared_data / "fsdd").rglob("*_[0-3].flac"))
    who = np.array([path.stem.split("_")[1] for path in paths])
    what = np.array([path.stem.split("_")[0] for path in paths])
    keep = np.arange(len(paths))[::4]
    paths, who, what = [paths[i] for i in keep], who[keep], what[keep]
    clips = [load(path, sample_rate=16_000).samples[0] for path in paths]
    vectors = np.stack([maps_of(model, clip)["embedding"].mean(0) for clip in clips])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = np.where(what[:, None] == what, -1, vectors @ vectors.T)
    assert len(set(who)) >= 4
    assert (who[likeness.argmax(1)] == who).mean() > 0.8


# --- the network and its weights ---------------------------------------------------------------


def test_parameters_by_hand():
    lstms = sum(4 * 256 * (n + 256 + 2) for n in (40, 256, 256))
    assert count_parameters(SpeakerEncoder()) == lstms + 256 * 256 + 256


def test_gradients_reach_every_parameter():
    network = SpeakerEncoder().train()
    network.draw_weights(torch.Generator().manual_seed(0))
    maps = network(torch.rand(2, 1, 40, 90, generator=torch.Generator().manual_seed(1)))
    maps["embedding"][:, ::3].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_registered_with_licence():
    assert BACKBONES["speaker_encoder"] is SpeakerEncoder
    source = WEIGHTS["speaker_encoder"]
    assert source.licence == "Apache-2.0"
    assert "resemblyzer==0.1.4" in source.origin
    assert "1710.10467" in SpeakerEncoder.source


def test_weights_come_back_from_the_cache_as_they_were(tmp_path, model):
    weights = convert_speaker_encoder(fetch_speaker_encoder())
    write_cached(tmp_path / "w.safetensors", weights)
    again = read_cached(tmp_path / "w.safetensors")
    assert again.head is None
    assert set(again.state) == set(weights.state) == set(model.backbone.state_dict())
    for name, tensor in weights.state.items():
        assert torch.equal(again.state[name], tensor), name


class Harmful:
    """What a pickle may hold: a call."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_other_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"model_state": {"lstm.weight_ih_l0": torch.zeros(3)}}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(Harmful(), tmp_path / "harmful.pt")
    for name, reason in (
        ("text", "not a file of weights"),
        ("other", "no such lstm.weight_ih_l0"),
        ("list", "not Resemblyzer's"),
        ("harmful", "not a file of weights"),
    ):
        with pytest.raises(DownloadError, match=rf"{name}\.pt: .*{reason}"):
            convert_speaker_encoder(tmp_path / f"{name}.pt")
    assert not (tmp_path / "harm").exists()
