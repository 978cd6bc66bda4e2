"""musicnn against its published graph, librosa, and its own equations written out in float64."""

from __future__ import annotations

import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ossicle import bundle
from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.folding import folded
from ossicle.backbones.layers import he_normal_
from ossicle.backbones.musicnn import MusiCNN, MusiCNNMSD
from ossicle.backbones.weight_files import read_cached, write_cached
from ossicle.backbones.weights_musicnn import MSD, MTT, convert_musicnn, fetch_musicnn
from ossicle.errors import BundleError, DownloadError
from ossicle.frontend import create_frontend
from ossicle.heads import count_parameters
from ossicle.model import Model, create_model
from ossicle.predict import predict

CLIPS = Path(__file__).parents[1] / "clips"

# Run once with TensorFlow 2.21.0: the graph in the wheel's `.meta` files (musicnn==0.1.0), without
# its gradients, with the checkpoints' tensors for variables, on the second patch of `patches()`.
PUBLISHED = {
    "musicnn": """
    0.133707, 0.003193, 0.015053, 0.076549, 0.011408, 0.128152, 0.059230, 0.089664,
    0.059864, 0.002707, 0.003287, 0.089916, 0.000403, 0.071682, 0.023881, 0.002187,
    0.016514, 0.001949, 0.209017, 0.047012, 0.068862, 0.039312, 0.001246, 0.029135,
    0.001844, 0.000297, 0.001407, 0.186428, 0.028068, 0.057471, 0.001848, 0.007590,
    0.004717, 0.134044, 0.000555, 0.002616, 0.053465, 0.002013, 0.005862, 0.136962,
    0.000490, 0.031932, 0.000691, 0.000036, 0.018623, 0.017946, 0.034811, 0.006624,
    0.000577, 0.002016
""",
    "musicnn_msd": """
    0.012994, 0.002663, 0.016558, 0.012376, 0.428933, 0.004338, 0.054975, 0.013596,
    0.003892, 0.002964, 0.003847, 0.062802, 0.003799, 0.001793, 0.000418, 0.000200,
    0.004274, 0.001257, 0.081869, 0.000692, 0.001510, 0.001629, 0.002713, 0.015918,
    0.005881, 0.000289, 0.006836, 0.002343, 0.022281, 0.001055, 0.146630, 0.000724,
    0.002202, 0.021886, 0.000062, 0.009545, 0.000512, 0.000489, 0.001394, 0.001284,
    0.000747, 0.170787, 0.003761, 0.001426, 0.000164, 0.000441, 0.000805, 0.000549,
    0.019493, 0.000544
""",
}
# The same run, MagnaTagATune: each map at (frame, channel) of `PLACES`, its mean, its root mean
# square.
PLACES = ((0, 3), (63, 21), (100, 7), (186, -1))
MAPS = {
    "timbral": ([1e-05, -0.0, -0.00036, 0.0], 0.375924, 2.384163),
    "temporal": ([0.00059, -0.00124, -0.04078, 27.65779], 0.757204, 3.471594),
    "cnn1": ([0.00011, -0.70429, -1.04516, 4.98012], 0.230182, 1.265678),
    "cnn2": ([-0.01714, -1.1185, -0.86368, 4.62645], 0.366291, 1.833707),
    "cnn3": ([-0.37985, -1.55339, -1.12154, 3.61294], 0.382601, 2.828521),
}
# The same graph on the wheel's spectrogram of tests/clips/drums.flac (librosa, power not rounded to
# half precision): patches of 187 frames from the second frame on, tags averaged over both.
DRUMS = """
    0.029113, 0.007424, 0.066040, 0.009562, 0.030903, 0.752565, 0.014995, 0.001139,
    0.041977, 0.005843, 0.010599, 0.227407, 0.004046, 0.004484, 0.010121, 0.004415,
    0.370023, 0.000202, 0.000448, 0.002062, 0.003937, 0.052060, 0.000274, 0.002184,
    0.007138, 0.004667, 0.002519, 0.000490, 0.040573, 0.000840, 0.005777, 0.145655,
    0.006505, 0.000274, 0.000603, 0.000812, 0.002196, 0.009450, 0.001298, 0.000424,
    0.001609, 0.132360, 0.001941, 0.000711, 0.028052, 0.024527, 0.000716, 0.000132,
    0.001198, 0.000460
"""


def numbers(text: str) -> np.ndarray:
    return np.array([float(part) for part in text.split(",")])


def patches() -> np.ndarray:
    """(2, 187, 96): a calm pattern, and one with gaps and noise."""
    t, f = np.arange(187)[:, None], np.arange(96)
    calm = 2 + 1.5 * np.sin(t / 7 + f / 5)
    wild = calm * (t % 23 < 11) + np.random.default_rng(0).uniform(0, 1, (187, 96))
    return np.stack([calm, wild]).astype(np.float32)


def as_input(spectrograms: np.ndarray) -> torch.Tensor:
    """(B, T, F) -> (B, 1, F, T)."""
    return torch.from_numpy(spectrograms).transpose(1, 2)[:, None].contiguous()


def published(name: str) -> Model:
    try:
        return create_model(name, pretrained=True)
    except DownloadError as error:  # a machine without a network
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def model(request) -> Model:
    return published(request.param)


@pytest.fixture(scope="module")
def mtt() -> Model:
    return published("musicnn")


def tags_of_maps(model: Model, maps: dict[str, torch.Tensor]) -> np.ndarray:
    """(B, K) by the model's own read-out and head."""
    blocks = {f"{n}/max": m.amax(-1) for n, m in maps.items()}
    blocks |= {f"{n}/mean": m.mean(-1) for n, m in maps.items()}
    with torch.inference_mode():
        return model.head(torch.cat([blocks[n] for n in model.readout], 1)).sigmoid().numpy()


# --- the published network ---------------------------------------------------------------------


def test_tags_are_the_published_graphs(model):
    with torch.inference_mode():
        tags = tags_of_maps(model, model.backbone(as_input(patches())))
    want = numbers(PUBLISHED[model.info["name"]])
    assert want.max() > 0.2  # not all of them near zero
    np.testing.assert_allclose(tags[1], want, atol=2e-6)


def test_maps_are_the_published_graphs(mtt):
    with torch.inference_mode():
        maps = mtt.backbone(as_input(patches()))
    assert list(maps) == list(MAPS)
    for name, (places, mean, rms) in MAPS.items():
        map_ = maps[name][1].T.double().numpy()
        got = [map_[place] for place in PLACES]
        np.testing.assert_allclose(got, places, atol=2e-5 * rms, err_msg=name)
        assert map_.mean() == pytest.approx(mean, abs=2e-5 * rms)
        assert np.sqrt((map_**2).mean()) == pytest.approx(rms, rel=1e-5)


def test_drums_have_the_tags_that_the_published_graph_gives_them(mtt):
    audio = load(CLIPS / "drums.flac", sample_rate=16_000).samples[0]
    scores = mtt.clip_scores(audio)
    np.testing.assert_allclose(scores, numbers(DRUMS), atol=1e-4)
    assert mtt.classes[scores.argmax()] == "drums"


def test_tags_of_guitar_and_of_drums_are_right(mtt):
    clips = {name: load(CLIPS / f"{name}.flac").samples[0] for name in ("guitar", "drums")}
    table, skipped = predict(mtt, [(samples, 16_000) for samples in clips.values()])
    assert not skipped
    guitar, drums = (table.iloc[i, -50:].astype(float) for i in range(2))
    assert "guitar" in set(guitar.nlargest(2).index)
    assert drums.nlargest(1).index[0] == "drums"
    assert table["label"].tolist()[1] == "drums"
    assert guitar["guitar"] > 5 * drums["guitar"]
    assert drums["drums"] > 5 * guitar["drums"]
    for tag in ("quiet", "soft", "slow"):
        assert guitar[tag] > drums[tag]
    for tag in ("beat", "beats", "fast"):
        assert drums[tag] > guitar[tag]


def test_another_corpus_another_word():
    """The Million Song Dataset's tags are styles: drums alone are electronic, not folk."""
    msd = published("musicnn_msd")
    scores = dict(
        zip(msd.classes, msd.clip_scores(load(CLIPS / "drums.flac").samples[0]), strict=True)
    )
    assert max(scores, key=scores.get) == "electronic"
    guitar = msd.clip_scores(load(CLIPS / "guitar.flac").samples[0])
    assert guitar[msd.classes.index("folk")] > 5 * scores["folk"]


# --- what it hears -----------------------------------------------------------------------------


def librosas(samples: np.ndarray) -> np.ndarray:
    """(96, T) as musicnn/extractor.py has it, in float64, without its frames over the edges."""
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=16_000, hop_length=256, n_fft=512, n_mels=96, center=False
    )
    return np.log10(10_000 * power + 1)


@pytest.mark.parametrize("sound", ["guitar", "drums", "noise", "faint", "loud", "silence"])
def test_front_end_is_librosas(sound):
    if sound in ("guitar", "drums"):
        samples = load(CLIPS / f"{sound}.flac").samples[0]
    else:
        level = {"noise": 0.1, "faint": 1e-4, "loud": 1.0, "silence": 0.0}[sound]
        samples = level * np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    want = librosas(samples)
    ours = create_frontend(**MusiCNN.frontend)(torch.from_numpy(samples)[None])[0, 0].numpy()
    assert ours.shape == want.shape
    assert np.abs(ours - want).max() <= 1e-4 * max(want.max(), 1e-2)


def test_frames_are_those_of_the_published_spectrogram():
    """The published one pads both ends; between, its frames are ours, one later."""
    samples = load(CLIPS / "guitar.flac").samples[0]
    padded = librosa.feature.melspectrogram(
        y=samples, sr=16_000, hop_length=256, n_fft=512, n_mels=96, pad_mode="reflect"
    )
    ours = create_frontend(**MusiCNN.frontend)(torch.from_numpy(samples)[None])[0, 0].numpy()
    want = np.log10(10_000 * padded + 1)[:, 1 : 1 + ours.shape[1]]
    assert padded.shape[1] - 2 <= ours.shape[1] < padded.shape[1]
    assert np.abs(ours - want).max() <= 1e-4 * want.max()


def test_patches_are_187_frames_one_behind_the_other():
    model = create_model("musicnn")
    window = round(MusiCNN.patches["window_s"] * 16_000)
    hop = round(MusiCNN.patches["hop_s"] * 16_000)
    assert model.frontend.num_frames(window) == 187
    assert model.frontend.num_frames(window - 1) == 186
    assert hop == 187 * 256
    assert MusiCNN.clip["min_s"] * 16_000 == window


# --- the network by its equations --------------------------------------------------------------


def lively() -> MusiCNN:
    """Random weights, and batch norms that do something."""
    network = MusiCNN().eval()
    generator = torch.Generator().manual_seed(0)
    he_normal_(network, generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, -1.0, 1.2),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                torch.nn.init.uniform_(tensor, low, high, generator=generator)
    return network


def slow_maps(network: MusiCNN, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every map from the weights alone, in float64, with explicit zeros at the edges."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}

    def norm(x, name):
        shape = (1, -1, *[1] * (x.dim() - 2))
        mean, var, gain, shift = (
            state[f"{name}.{part}"].reshape(shape)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return gain * (x - mean) / (var + 1e-3).sqrt() + shift

    def layer(x, name, before, after):
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        convolve = F.conv2d if x.dim() == 4 else F.conv1d
        return norm(convolve(F.pad(x, (before, after)), weight, bias).clamp(min=0), f"{name}.2")

    x = norm(x.double(), "input_norm")
    tall = [layer(x, f"timbral.{i}.layers", 3, 3).max(2).values for i in range(2)]
    # "Same" for an even number of frames: one zero more behind than before.
    long = [
        layer(x, f"temporal.{i}.layers", n // 2 - 1, n // 2).max(2).values
        for i, n in enumerate((128, 64, 32))
    ]
    maps = {"timbral": torch.cat(tall, 1), "temporal": torch.cat(long, 1)}
    maps["cnn1"] = layer(torch.cat([*tall, *long], 1), "dense.0", 3, 3)
    maps["cnn2"] = maps["cnn1"] + layer(maps["cnn1"], "dense.1", 3, 3)
    maps["cnn3"] = maps["cnn2"] + layer(maps["cnn2"], "dense.2", 3, 3)
    return maps


@pytest.mark.parametrize("frames", [1, 40, 200])
def test_every_map_is_its_equation(frames):
    network = lively()
    x = 4 * torch.rand(2, 1, 96, frames, generator=torch.Generator().manual_seed(1))
    want = slow_maps(network, x)
    copy = folded(network, None).network
    with torch.inference_mode():
        for net in (network, copy):
            maps = net(x)
            assert list(maps) == list(want)
            for name, map_ in maps.items():
                assert map_.shape == want[name].shape, name
                assert (map_ - want[name]).abs().max() <= 1e-5 * want[name].abs().max(), name


def test_parameters_are_the_checkpoints():
    """The published variables that training changes, by their shapes."""
    convolutions = [7 * 38 * 204, 7 * 67 * 204, *(n * 51 for n in (128, 64, 32))]
    convolutions += [7 * 561 * 64, 7 * 64 * 64, 7 * 64 * 64]
    outputs = [204, 204, 51, 51, 51, 64, 64, 64]
    norms = 2 * (1 + sum(outputs))
    without = sum(convolutions) + sum(outputs) + norms
    assert count_parameters(MusiCNN()) == without
    # With its classifier, whose two norms are folded here: 787,159 in the published file.
    classifier = 2 * 1506 + 1506 * 200 + 200 + 2 * 200 + 200 * 50 + 50
    assert without + classifier == 787_159


def test_gradients_reach_every_parameter():
    network = MusiCNN().train()
    he_normal_(network, torch.Generator().manual_seed(0))
    maps = network(torch.rand(2, 1, 96, 64, generator=torch.Generator().manual_seed(1)))
    maps["cnn3"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# --- weights, bundles --------------------------------------------------------------------------


def test_registered_with_licence():
    assert BACKBONES["musicnn"] is MusiCNN
    assert BACKBONES["musicnn_msd"] is MusiCNNMSD
    for name, folder in (("musicnn", "MTT_musicnn"), ("musicnn_msd", "MSD_musicnn")):
        assert WEIGHTS[name].licence == "ISC"
        assert "50 tags" in WEIGHTS[name].description
        assert f"{folder} of the wheel musicnn==0.1.0" in WEIGHTS[name].origin
        # The licence asks for its notice beside every copy.
        assert "(c) 2019 Music Technology Group, Universitat Pompeu Fabra" in WEIGHTS[name].origin
    assert "MagnaTagATune" in MusiCNN.source
    assert "Million Song" in MusiCNNMSD.source
    for published_weights in (MTT, MSD):
        assert len(set(published_weights.tags)) == 50
    assert (MTT.tags[0], MTT.tags[-1]) == ("guitar", "choral")
    assert (MSD.tags[33], MSD.tags[-1]) == ("Hip-Hop", "happy")


def test_weights_come_back_from_the_cache_as_they_were(tmp_path, mtt):
    weights = convert_musicnn(*fetch_musicnn(MTT), MTT.tags)
    assert len(weights.hidden) == 1
    write_cached(tmp_path / "w.safetensors", weights)
    again = read_cached(tmp_path / "w.safetensors")
    assert again.classes == weights.classes
    assert again.readout == weights.readout
    assert set(again.state) == set(weights.state)
    for name, tensor in weights.state.items():
        assert torch.equal(again.state[name], tensor), name
    pairs = [(weights.head, again.head), *zip(weights.hidden, again.hidden, strict=True)]
    for before, after in pairs:
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a, b)


def test_other_networks_are_refused(mtt):
    index, data = fetch_musicnn(MTT)
    with pytest.raises(DownloadError, match="not musicnn"):
        convert_musicnn(index, data, MTT.tags[:-1])
    with pytest.raises(DownloadError, match="checksum is wrong"):
        convert_musicnn(index, fetch_musicnn(MSD)[1], MTT.tags)


def test_a_bundle_keeps_tags_and_patches(tmp_path, mtt):
    samples = load(CLIPS / "guitar.flac").samples[0]
    folder = bundle.save(mtt, tmp_path / "musicnn")
    again = bundle.load(folder)
    assert again.patches == mtt.patches
    assert again.info["licence"] == "ISC"
    np.testing.assert_array_equal(again.clip_scores(samples), mtt.clip_scores(samples))
    config = json.loads((folder / "config.json").read_text())
    config["patches"]["last"] = "elsewhere"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="last patch"):
        bundle.load(folder)


def test_a_clip_shorter_than_a_patch_is_heard_over_and_over(mtt):
    short = load(CLIPS / "drums.flac").samples[0][:20_000]
    repeated = np.concatenate([short] * 3)[:48_128]
    np.testing.assert_array_equal(mtt.clip_scores(short), mtt.clip_scores(repeated))
    features = [mtt.clip_features(s, ["cnn3"])["cnn3/max"] for s in (short, repeated)]
    np.testing.assert_array_equal(*features)
