"""Networks of transformers: the library's own forward and feature extractors are the witness."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ossicle import bundle
from ossicle.backbones import hf, hf_files
from ossicle.backbones.hf_frontend import clap_bands, kaldi_bands, read_settings, whisper_bands
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import BundleError, DownloadError, OssicleError
from ossicle.features import FeatureTable, extract
from ossicle.finetune.run import finetune
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.stages import layer_parameters
from ossicle.line import pick_model
from ossicle.model import Model, create_model
from ossicle.predict import predict
from ossicle.transfer.fit import fit_model

transformers = pytest.importorskip("transformers")

WAVE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_stride": (5, 8, 8),
    "conv_kernel": (10, 8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
DATA2VEC = {**WAVE, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "add_adapter": True}
WHISPER = {
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"], 1),
}
AST = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
AUDIO = {
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1, 2],
    "num_attention_heads": [2, 2, 2],
    "hidden_size": 32,
    "num_hidden_layers": 3,
}


def clap(**audio):
    settings = transformers.ClapConfig(
        text_config=TEXT, audio_config={**AUDIO, **audio}, projection_dim=12
    )
    return transformers.ClapModel(settings)


def make(name: str):
    """(the library's network, its feature extractor), tiny, with random weights."""
    t = transformers
    wave = t.Wav2Vec2FeatureExtractor(do_normalize=True)
    makers = {
        "wav2vec2": lambda: (t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE)), wave),
        "wav2vec2_stable": lambda: (t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **STABLE)), wave),
        "hubert": lambda: (t.HubertModel(t.HubertConfig(**WAVE)), wave),
        "hubert_raw": lambda: (
            t.HubertModel(t.HubertConfig(**WAVE)),
            t.Wav2Vec2FeatureExtractor(do_normalize=False),
        ),
        "wavlm": lambda: (t.WavLMModel(t.WavLMConfig(**WAVE)), wave),
        "data2vec": lambda: (t.Data2VecAudioModel(t.Data2VecAudioConfig(**DATA2VEC)), wave),
        "unispeech": lambda: (t.UniSpeechModel(t.UniSpeechConfig(**WAVE)), wave),
        "unispeech_sat": lambda: (t.UniSpeechSatModel(t.UniSpeechSatConfig(**WAVE)), wave),
        "whisper": lambda: (
            t.WhisperModel(t.WhisperConfig(**WHISPER)),
            t.WhisperFeatureExtractor(),
        ),
        "whisper_128": lambda: (
            t.WhisperModel(t.WhisperConfig(**WHISPER, num_mel_bins=128)),
            t.WhisperFeatureExtractor(feature_size=128),
        ),
        "ast": lambda: (t.ASTModel(t.ASTConfig(**AST)), t.ASTFeatureExtractor()),
        "clap": lambda: (
            clap(),
            t.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50),
        ),
        "clap_fused": lambda: (
            clap(enable_fusion=True, fusion_type="aff_2d"),
            t.ClapFeatureExtractor(truncation="fusion", frequency_min=50),
        ),
    }
    return makers[name]()


NAMES = [
    *("wav2vec2", "wav2vec2_stable", "hubert", "hubert_raw", "wavlm", "data2vec", "unispeech"),
    *("unispeech_sat", "whisper", "whisper_128", "ast", "clap", "clap_fused"),
]
FIXED = ("whisper", "ast", "clap")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> (folder, the library's network, its feature extractor), each made once."""
    kept: dict = {}

    def get(name: str):
        if name not in kept:
            folder = tmp_path_factory.mktemp("hf") / name
            with torch.random.fork_rng(), pytest.warns() if name == "ast" else nullcontext():
                torch.manual_seed(1)
                network, ears = make(name)
                for parameter in network.parameters():
                    if parameter.abs().max() == 0:  # position embeddings and tokens begin as 0
                        torch.nn.init.normal_(parameter, 0, 0.1)
            network.eval().set_attn_implementation("eager")
            network.save_pretrained(folder)
            ears.save_pretrained(folder)
            kept[name] = folder, network, ears
        return kept[name]

    return get


@pytest.fixture(scope="module")
def models(made):
    kept: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in kept:
            kept[name] = create_model(f"hf:{made(name)[0]}", pretrained=True)
        return kept[name]

    return get


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


def theirs(name: str, network, ears, samples: np.ndarray) -> dict[str, torch.Tensor]:
    """Every hidden state of the library's own forward, as maps of the whole window."""
    rate = ears.sampling_rate
    given = ears(samples, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad():
        if name.startswith("whisper"):
            out = network.encoder(given["input_features"], output_hidden_states=True)
        elif name.startswith("clap"):
            out = network.audio_model(
                input_features=given["input_features"].float(),
                is_longer=torch.zeros(1, 1, dtype=torch.bool),
                output_hidden_states=True,
            )
        else:
            out = network(given["input_values"], output_hidden_states=True)
    if name.startswith("clap"):
        # HTSAT folds time: four pieces, one below the other.
        maps = [torch.cat(s.chunk(4, 2), -1) for s in out.hidden_states]
        result = dict(zip(["patches", "stage1", "stage2", "stage3"], maps, strict=True))
        result["pooled"] = out.pooler_output[..., None]
        result["projection"] = network.audio_projection(out.pooler_output).detach()[..., None]
        return result
    names = ["embedding", *(f"block{i}" for i in range(1, len(out.hidden_states)))]
    if name == "ast":
        maps = [s[:, 2:].reshape(1, 12, 101, -1).permute(0, 3, 1, 2) for s in out.hidden_states]
        tokens = network.layernorm(out.hidden_states[-1])[:, :2].detach()
        return {**dict(zip(names, maps, strict=True)), "pooled": tokens.mean(1)[..., None]}
    result = dict(zip(names, [s.mT for s in out.hidden_states], strict=True))
    if not name.startswith("whisper"):
        with torch.no_grad():
            result = {"conv": network.feature_extractor(given["input_values"]), **result}
    return result


def same(a: FeatureTable, b: FeatureTable, rows_a=slice(None), rows_b=slice(None)) -> bool:
    assert list(a.blocks) == list(b.blocks)
    return all(np.array_equal(a.blocks[n][rows_a], b.blocks[n][rows_b]) for n in a.blocks)


# --- the numbers -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("seconds", [0.3, 3.3])
@pytest.mark.parametrize("name", NAMES)
def test_every_hidden_state_is_the_librarys(name, seconds, made, models):
    _, network, ears = made(name)
    model = models(name)
    samples = noise(seconds, model.sample_rate)
    with torch.inference_mode():
        ours = model.forward_layers(torch.from_numpy(samples)[None])
    want = theirs(name, network, ears, samples)
    assert list(ours) == list(want) == list(model.layers)
    for layer, maps in ours.items():
        own = want[layer][..., : maps.shape[-1]]
        assert maps.shape == own.shape, layer
        assert (maps - own).abs().max() <= 1e-5 * own.abs().max(), layer


def test_what_follows_the_last_block_is_left_out(made, models):
    network = made("wav2vec2_stable")[1]
    assert any(key.startswith("adapter.") for key in network.state_dict())
    assert not any("adapter." in key for key in models("wav2vec2_stable").state_dict())


@pytest.mark.parametrize("level", [1.0, 1e-2, 1e-4])
def test_quiet_sounds_are_normalised_as_the_library_does(level, made, models):
    _, network, ears = made("wav2vec2_stable")
    model = models("wav2vec2_stable")
    samples = level * noise(0.5, 16_000)
    want = theirs("wav2vec2_stable", network, ears, samples)
    with torch.inference_mode():
        ours = model.forward_layers(torch.from_numpy(samples)[None])
    for layer, maps in ours.items():
        assert (maps - want[layer]).abs().max() <= 2e-5 * want[layer].abs().max(), layer


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("seconds", [0.4, 1.0, 7.77])
def test_bands_are_those_of_the_feature_extractors(seconds):
    for rate, ears, kind, bands in [
        (16_000, transformers.ASTFeatureExtractor(), "ast", kaldi_bands),
        (16_000, transformers.WhisperFeatureExtractor(), "whisper", whisper_bands),
        (16_000, transformers.WhisperFeatureExtractor(feature_size=128), "whisper", whisper_bands),
        (48_000, transformers.ClapFeatureExtractor(truncation="rand_trunc"), "clap", clap_bands),
        (48_000, transformers.ClapFeatureExtractor(truncation="fusion"), "clap", clap_bands),
    ]:
        samples = noise(seconds, rate)
        samples[: len(samples) // 3] *= 1e-3  # quiet, loud
        given = ears(samples, sampling_rate=rate, return_tensors="np")
        window = torch.from_numpy(samples)[None]
        if kind == "ast":
            want = given["input_values"][0].T
        elif kind == "whisper":
            want = given["input_features"][0]
            window = torch.nn.functional.pad(window, (0, 480_000 - len(samples)))
        else:
            want = given["input_features"][0, 0].T
            copies = np.tile(samples, 480_000 // len(samples))
            window = torch.from_numpy(np.pad(copies, (0, 480_000 - len(copies))))[None]
        ours = bands(read_settings(kind, ears.to_dict()))(window)[0, 0].numpy()
        width = min(ours.shape[-1], want.shape[-1])
        if kind == "ast":
            assert width == 1 + (len(samples) - 400) // 160
        assert np.abs(ours[:, :width] - want[:, :width]).max() <= 1e-4, kind


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "ast", "clap"])
def test_only_frames_of_the_clip_are_pooled(name, models):
    model = models(name)
    rate = model.sample_rate
    for seconds in (0.05, 1.0, 4.4):
        n = round(seconds * rate)
        maps = model.forward_layers(torch.from_numpy(noise(seconds, rate))[None])
        frames = {layer: map_.shape[-1] for layer, map_ in maps.items()}
        if name == "whisper":
            assert set(frames.values()) == {math.ceil(n / 320)}
        elif name == "ast":
            bands = 1 + (n - 400) // 160
            middles = [10 * i + 8 < bands for i in range(101)]
            assert frames["block1"] == max(1, sum(middles))
            assert frames["pooled"] == 1
        elif name == "clap":
            assert frames["patches"] == math.ceil(256 * n / 480_000)
            assert frames["stage3"] == math.ceil(64 * n / 480_000)
        else:
            length = n
            for kernel, stride in ((10, 5), (8, 8), (8, 8)):
                length = (length - kernel) // stride + 1
            assert set(frames.values()) == {length}


@pytest.mark.parametrize("name", NAMES)
def test_feature_info_is_what_comes_out(name, models):
    model = models(name)
    window = round(model.clip.window_s * model.sample_rate)
    maps = model.forward_layers(
        torch.from_numpy(noise(window / model.sample_rate, model.sample_rate))[None]
    )
    for info in model.backbone.feature_info:
        map_ = maps[info.name]
        assert map_.shape[1] == info.channels
        assert map_.dim() == (4 if info.bands else 3)
        if info.bands:
            assert map_.shape[2] == info.bands
        # The last window of a frame's length may not be whole.
        assert abs(map_.shape[-1] - window / info.stride) <= 2, info


# --- the promises of every backbone ----------------------------------------------------------


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", *FIXED])
def test_same_in_same_out_whatever_is_beside(name, models):
    model = models(name)
    rate = model.sample_rate
    items = [(noise(s, rate, i), rate) for i, s in enumerate((0.3, 0.021, 2.0))]
    table = extract(model, items)
    assert same(table, extract(model, items, workers=3))
    assert same(table, extract(model, items[::-1]), slice(None), slice(None, None, -1))
    for row in range(3):
        assert same(table, extract(model, [items[row]]), [row])
    model.train()
    try:
        again = model.clip_features(items[0][0])
    finally:
        model.eval()
    for block, values in again.items():
        assert np.array_equal(values, table.blocks[block][0])
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", ["hubert", *FIXED])
def test_a_clip_of_70_s_is_used_to_its_end(name, models):
    model = models(name)
    rate = model.sample_rate
    samples = noise(70, rate)
    last = model.layers[0]
    before = model.clip_features(samples, [last], ["mean"])[f"{last}/mean"]
    for second in (0, 31, 69):
        changed = samples.copy()
        changed[second * rate : (second + 1) * rate] *= 0.01
        after = model.clip_features(changed, [last], ["mean"])[f"{last}/mean"]
        assert not np.allclose(after, before, rtol=1e-4), second


def test_silence_and_odd_sounds_give_finite_numbers(models):
    for name in ("wav2vec2", *FIXED):
        model = models(name)
        for samples in (np.zeros(16_000), np.full(16_000, 0.5), 1e4 * noise(1, 16_000)):
            for values in model.clip_features(samples.astype(np.float32)).values():
                assert np.isfinite(values).all()


# Of the battery over our own networks, what needs no fixtures of its own but these.
CONTRACTS = [
    "a_batch_is_nearly_each_alone",
    "one_sound_at_any_rate_is_one_embedding",
    "samples_in_memory_are_the_file",
    "a_rate_belongs_to_samples",
    "bad_files_are_named_and_the_rest_finish",
    "nothing_usable_is_an_error_that_names_the_first",
    "every_part_of_a_long_clip_counts",
    "long_clips_are_joined_as_their_maps_would_be",
    "block_sizes_are_known_without_running",
    "front_end_and_clip_policy_are_the_backbones",
    "unknown_blocks_are_named",
]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_contracts_of_our_own_networks(contract, models, tmp_path):
    path = Path(__file__).parents[1] / "contracts" / "test_backbones.py"
    spec = importlib.util.spec_from_file_location("contracts_of_backbones", path)
    battery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(battery)
    test = getattr(battery, f"test_{contract}")
    given = {"model": models("wav2vec2"), "tmp_path": tmp_path}
    test(**{name: given[name] for name in inspect.signature(test).parameters})


# --- bundles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "whisper", "ast", "clap_fused"])
def test_a_bundle_gives_the_same_bits_without_the_folder(name, made, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(made(name)[0], folder)
    model = pick_model(f"hf:{folder}")
    rate = model.sample_rate
    items = [(noise(1.0, rate, i), rate) for i in range(4)]
    rows = pd.DataFrame({"path": list("0123"), "label": list("abab"), "group": list("0123")})
    rows = rows.assign(onset=np.nan, offset=np.nan, split=None, fold=None)
    clips = Clips(rows, "classes", ("a", "b"), Path("test"), [], "each clip")
    trained = fit_model(model, extract(model, items), clips, probe="ridge")
    saved = bundle.save(trained, tmp_path / "a.ossicle")
    shutil.rmtree(folder)
    assert str(tmp_path) not in (saved / "config.json").read_text()
    loaded = bundle.load(saved)
    here, _ = predict(trained, items)
    there, _ = predict(loaded, items)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])


def test_hostile_bundles_are_refused_in_one_line(made, tmp_path):
    path = bundle.save(pick_model(f"hf:{made('wav2vec2')[0]}"), tmp_path / "a.ossicle")
    good = json.loads((path / "config.json").read_text())
    network, ears = good["backbone"]["config"]["config"], good["backbone"]["config"]["preprocessor"]
    for part, key, value in [
        (network, "model_type", "gpt2"),
        (network, "model_type", ["wav2vec2"]),
        (network, "num_hidden_layers", 10**5),
        (network, "hidden_size", 10**9),
        (network, "hidden_size", "wide"),
        (network, "num_attention_heads", 0),
        (network, "conv_stride", [5, 8]),
        (network, "hidden_act", "os.system"),
        (ears, "sampling_rate", 0),
        (ears, "do_normalize", "yes"),
    ]:
        before, part[key] = part[key], value
        (path / "config.json").write_text(json.dumps(good))
        with pytest.raises(BundleError) as caught:
            bundle.load(path)
        assert "\n" not in str(caught.value)
        part[key] = before
    # What would load code, or other kernels, is passed over.
    network |= {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation": "hub/kernel"}
    (path / "config.json").write_text(json.dumps(good))
    loaded = bundle.load(path)
    assert not {"auto_map", "_attn_implementation"} & set(loaded.backbone.config()["config"])


# --- where it comes from ---------------------------------------------------------------------


def test_the_label_says_what_it_is(made, tmp_path):
    folder = tmp_path / "my-net"
    shutil.copytree(made("hubert")[0], folder)
    info = pick_model(f"hf:{folder}").info
    assert info["name"] == "hf:my-net"
    assert info["licence"] == "unknown: see its card"
    assert str(tmp_path) not in json.dumps(info)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Net\n")
    assert pick_model(f"hf:{folder}").info["licence"] == "apache-2.0"
    (folder / "README.md").write_text("# Net\nlicense: mit\n")
    assert pick_model(f"hf:{folder}").info["licence"] == "unknown: see its card"


def test_random_weights_follow_the_seed(made):
    for name in ("wav2vec2", "clap"):
        first, again, other = (create_model(f"hf:{made(name)[0]}", seed=seed) for seed in (3, 3, 4))
        samples = noise(1, first.sample_rate)
        want = first.clip_features(samples)
        for block, values in again.clip_features(samples).items():
            assert np.array_equal(values, want[block])
        for block, values in other.clip_features(samples).items():
            assert not np.array_equal(values, want[block]), block
        assert first.info["weights"] == "random, seed 3"


def test_half_precision_files_are_read_in_single(made, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(made("wav2vec2")[0], folder)
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v.half() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    model = pick_model(f"hf:{folder}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_processors_file_serves_too(made, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(made("whisper")[0], folder)
    ears = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(OssicleError, match="preprocessor_config.json"):
        pick_model(f"hf:{folder}")
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": ears}))
    assert pick_model(f"hf:{folder}").sample_rate == 16_000


def test_what_cannot_be_used_is_named(made, tmp_path, monkeypatch):
    folder = tmp_path / "net"
    shutil.copytree(made("wav2vec2")[0], folder)
    with pytest.raises(OssicleError, match="brings its own configuration"):
        create_model(f"hf:{folder}", multiscale=True)
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    state = load_file(weights)
    state.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(OssicleError, match="lacks encoder.layers.0.attention.k_proj.weight"):
        pick_model(f"hf:{folder}")
    weights.write_bytes(kept[:1000])
    with pytest.raises(OssicleError, match="cannot be read"):
        pick_model(f"hf:{folder}")
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(OssicleError, match="pickled weights are not read"):
        pick_model(f"hf:{folder}")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(OssicleError, match="'bert' is not one of"):
        pick_model(f"hf:{folder}")
    (folder / "config.json").write_text("no JSON")
    with pytest.raises(OssicleError, match=r"config\.json cannot be read"):
        pick_model(f"hf:{folder}")
    with pytest.raises(OssicleError, match="no such folder"):
        pick_model("hf:./nowhere/at/all")
    with pytest.raises(OssicleError, match="unknown backbone 'hg:x'.*hf:FOLDER"):
        pick_model("hg:x")
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="OSSICLE_OFFLINE.*pass the folder"):
        pick_model("hf:somebody/not-cached")


def test_offline_never_asks_the_hub(monkeypatch, tmp_path, made):
    """What is in the hub's cache is used; only listed files are asked for, no pickle."""
    asked = {}

    def snapshot_download(name, **arguments):
        asked.update(arguments, name=name)
        folder = tmp_path / "snapshots" / "0123abc"
        shutil.copytree(made("hubert")[0], folder)
        return str(folder)

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    info = pick_model("hf:somebody/net@refs/pr/2").info
    assert asked["local_files_only"] is True
    assert asked["name"] == "somebody/net"
    assert asked["revision"] == "refs/pr/2"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["allow_patterns"])
    assert info["origin"] == "huggingface.co/somebody/net at 0123abc"


def test_without_transformers_one_line_says_so(monkeypatch, made):
    real = importlib.import_module

    def absent(name, *rest):
        if name.startswith("transformers"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(hf.importlib, "import_module", absent)
    with pytest.raises(OssicleError, match=r'pip install "ossicle\[hf\]"'):
        pick_model(f"hf:{made('hubert')[0]}")
    with pytest.raises(OssicleError, match=r'pip install "ossicle\[hf\]"'):
        hf_files.open_hf("anything", True)


def test_the_library_is_loaded_only_when_asked_for():
    code = "import sys, ossicle.model, ossicle.bundle; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_line_takes_a_folder(made, clips, tmp_path, ossicle):
    out = tmp_path / "t.parquet"
    code, _, err = ossicle("embed", clips, "-o", out, "--backbone", f"hf:{made('wavlm')[0]}")
    assert code == 0, err
    columns = pd.read_parquet(out).columns
    assert {"conv/mean", "embedding/max", "block2/mean"} <= set(columns)


@pytest.mark.parametrize("name", ["wav2vec2", "ast"])
def test_its_weights_can_be_trained(name, made, clips, tmp_path):
    """Blocks are layers like any other, and the bundle holds what they learnt."""
    model = create_model(f"hf:{made(name)[0]}", pretrained=True)
    stages = layer_parameters(model)
    assert [layer for layer in stages if layer.startswith("block")] == ["block1", "block2"]
    source = read_clips(clips)
    settings = FinetuneSettings(unfreeze="all", epochs=1, batch_size=4, validation=0.0)
    tuned = finetune(model, source, np.arange(len(source)), settings)
    moved = {
        layer: any(
            not torch.equal(a, b)
            for a, b in zip(stages[layer], layer_parameters(tuned.model)[layer], strict=True)
        )
        for layer in stages
    }
    assert moved["block1"]
    assert moved["block2"]
    bundle.save(tuned.model, tmp_path / "m.ossicle")
    again = bundle.load(tmp_path / "m.ossicle")
    samples = noise(1.0, model.sample_rate)
    assert np.array_equal(again.clip_scores(samples), tuned.model.clip_scores(samples))
