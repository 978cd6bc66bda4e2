"""What every backbone promises, pre-trained or random: one battery over all of them.

The numbers in brackets are those of the complaints that made each a promise: 1 same in, same out;
2 rates cannot lie; 3 no silent loss; 4 labels survive; 5 one bundle, the same numbers; 6 workers
change nothing; 9 saved models load; 11 stored statistics, the clip's own reference.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle import bundle
from ossicle.audio import load
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError, DownloadError, OssicleError
from ossicle.features import FeatureTable, extract
from ossicle.frontend import create_frontend
from ossicle.heads import POOLINGS, count_parameters
from ossicle.model import Model, create_model
from ossicle.predict import predict
from ossicle.transfer.fit import fit_model

# Narrow ones have all parts of the wide; sizes at full width are their own files' tests. With gains
# at 0 a new network would be its shortcuts alone, and nothing else would be tested. At 1/8 the stem
# of nfnet_f0 has two channels: with seed 0 it hardly tells a wrong rate (.28 of other sounds).
NARROW: dict[str, dict] = {
    "nfnet_f0": {"width": 0.25, "skip_gain": 1.0},
    "slowfast_nfnet_f0": {"width": 0.125, "skip_gain": 1.0},
}
# Parts that a network has only where they are asked for.
VARIANTS: dict[str, tuple[str, dict]] = {
    "frame_crnn on yamnet": ("frame_crnn", {"base": "yamnet", "base_bands": 2}),
}
RANDOM = sorted([*BACKBONES, *VARIANTS])
CASES = [(name, False) for name in RANDOM] + [(name, True) for name in sorted(WEIGHTS)]


def made(name: str, pretrained: bool = False, seed: int = 0) -> Model:
    kind, config = VARIANTS.get(name, (name, NARROW.get(name, {})))
    return create_model(kind, pretrained=pretrained, seed=seed, **config)


@pytest.fixture(
    scope="module", params=CASES, ids=[f"{n}-{'pretrained' if p else 'random'}" for n, p in CASES]
)
def model(request) -> Model:
    name, pretrained = request.param
    try:
        return made(name, pretrained)
    except DownloadError as error:  # only of weights, on a machine without a network
        pytest.skip(str(error))


def tones(seed: int, rate: int, seconds: float = 2.0) -> np.ndarray:
    """(N,) a chord with vibrato and swells, all below 3.4 kHz, the same sound at every rate.

    Written down as a function of time, so that no resampler has a hand in it.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(t))
    for _ in range(3):
        pitch, depth = rng.uniform(90, 600), rng.uniform(0, 3)
        phase = 2 * np.pi * pitch * t + depth * np.sin(2 * np.pi * rng.uniform(3, 7) * t)
        swell = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * t + rng.uniform(0, 6))
        slope = rng.uniform(0.3, 2)
        for k in range(1, int(3200 / pitch) + 1):
            sound += swell * np.sin(k * phase + rng.uniform(0, 6)) / k**slope
    fade = np.clip(np.minimum(t, seconds - t) / 0.1, 0, 1)  # no click, which has all frequencies
    sound *= np.sin(np.pi / 2 * fade) ** 2
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


def same(a: FeatureTable, b: FeatureTable, rows_a=slice(None), rows_b=slice(None)) -> bool:
    """Whether rows of two tables are bit-identical."""
    assert list(a.blocks) == list(b.blocks)
    return all(np.array_equal(a.blocks[n][rows_a], b.blocks[n][rows_b]) for n in a.blocks)


# --- 1, 6: same in, same out -----------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(model) -> tuple[list, FeatureTable]:
    """Clips of all lengths, one beyond the window, and their features."""
    rate = model.sample_rate
    seconds = [0.3, 1.0, model.clip.window_s + 1.3, 0.021, 2.2]
    items = [(noise(s, rate, seed), rate) for seed, s in enumerate(seconds)]
    return items, extract(model, items)


def test_two_calls_give_the_same_bits(model, mixed):
    items, table = mixed
    assert same(table, extract(model, items))


def test_neighbours_and_order_change_nothing(model, mixed):
    items, table = mixed
    backwards = extract(model, items[::-1])
    assert same(table, backwards, slice(None), slice(None, None, -1))
    for row in (0, 2):
        assert same(table, extract(model, [items[row]]), [row])
    # Nor does a loud, a silent or a broken neighbour.
    rate = model.sample_rate
    beside = [(np.zeros(rate, np.float32), rate), (100 * noise(1, rate), rate), items[1]]
    assert same(table, extract(model, beside), [1], [-1])


def test_workers_change_nothing(model, mixed):
    items, table = mixed
    for workers in (2, 4):
        assert same(table, extract(model, items, workers=workers))


def test_threads_of_the_caller_change_nothing(model, mixed):
    items, table = mixed
    torch.set_num_threads(2)
    try:
        assert same(table, extract(model, items))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_batch_is_nearly_each_alone(model):
    """Batches change the order of float32 sums, no more."""
    rate = model.sample_rate
    seconds = max(1.0, model.clip.min_s)
    batch = torch.from_numpy(np.stack([noise(seconds, rate, 0), 0.01 * noise(seconds, rate, 1)]))
    with torch.inference_mode():
        together = model.forward_layers(batch)
        for row in range(2):
            for name, alone in model.forward_layers(batch[row : row + 1]).items():
                scale = alone.abs().max()
                assert (together[name][row] - alone[0]).abs().max() <= 1e-5 * scale, name


# --- 2: rates cannot lie ---------------------------------------------------------------------


def written(folder: Path, name: str, samples: np.ndarray, rate: int, channels: int = 1) -> str:
    path = folder / name
    soundfile.write(path, np.stack([samples] * channels, 1), rate)
    return str(path)


def shares(model: Model, paths: list[str], others: list[str]) -> np.ndarray:
    """Distance of each of ``paths`` from the first, where 1 is that of other sounds.

    Cosines of features that are all positive are near 1 between any two sounds; what matters is
    whether a sound moves little compared to what tells sounds apart. The last layer counts.
    """
    table = extract(model, [*paths, *others], layers="last")
    matrix = table.matrix()
    distance = np.linalg.norm(matrix - matrix[0], axis=1)
    return distance[: len(paths)] / distance[len(paths) :].mean()


def test_one_sound_at_any_rate_is_one_embedding(model, tmp_path):
    same_sound = [
        written(tmp_path, f"{rate}_{channels}.{kind}", tones(0, rate), rate, channels)
        for rate in (44_100, 8_000, 16_000, 22_050, 48_000)
        for channels, kind in ((1, "wav"), (2, "flac"))
    ]
    others = [written(tmp_path, f"other{i}.wav", tones(i, 44_100), 44_100) for i in range(1, 5)]
    moved = shares(model, same_sound, others)
    # A fifth: 16 bits round off, and the resampler has an edge where 8 kHz ends.
    assert moved.max() < 0.2
    # The same samples under a wrong rate are another sound: the measure can tell.
    wrong = written(tmp_path, "wrong.wav", tones(0, 22_050), 16_000)
    assert shares(model, [same_sound[0], wrong], others)[1] > 0.4


def test_one_sound_in_any_format_is_one_embedding(model, tmp_path, carried_clips):
    paths = [str(p) for p in sorted(carried_clips.rglob("*.flac"))]
    others = [paths[i] for i in range(0, len(paths), 12)]
    for path in (paths[3], paths[40]):
        audio = load(path, mono=False)
        copies = [path]
        for kind in ("wav", "ogg", "mp3"):
            copies.append(str(tmp_path / f"{Path(path).stem}.{kind}"))
            soundfile.write(copies[-1], audio.samples.T, audio.sample_rate)
        moved = shares(model, copies, [p for p in others if p != path])
        assert moved[1] < 1e-2  # WAV: at most the rounding to 16 bits
        # Lossy: OGG and MP3 drop what ears do not miss, and shift it by some milliseconds.
        assert moved[2:].max() < 0.35


def test_samples_in_memory_are_the_file(model, tmp_path):
    samples = tones(0, 22_050)
    path = tmp_path / "float.wav"
    soundfile.write(path, np.stack([samples, 0.5 * samples], 1), 22_050, subtype="FLOAT")
    arrays = [(np.stack([samples, 0.5 * samples]), 22_050), (0.75 * samples, 22_050)]
    table = extract(model, [path, *arrays], layers="last").matrix()
    assert np.allclose(table[0], table[1], rtol=1e-4, atol=1e-4)
    assert np.allclose(table[0], table[2], rtol=1e-3, atol=1e-3)


def test_a_rate_belongs_to_samples(model):
    samples = noise(1, 16_000)
    for wrong in ([samples], [(samples,)], samples, [(samples, 0)], [(samples, 16_000.5)]):
        with pytest.raises(DataError):
            extract(model, wrong)
    for wrong in ("16 kHz", None, -1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="rate"):
            extract(model, [(samples, wrong)])


# --- 3: no silent loss -----------------------------------------------------------------------


def spoiled(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and a word of the reason that each must get."""
    good = io.BytesIO()
    soundfile.write(good, noise(2, 16_000), 16_000, format="FLAC")
    good_bytes = good.getvalue()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio")
    (folder / "cut.flac").write_bytes(good_bytes[: len(good_bytes) // 2])
    broken = bytearray(good_bytes)
    broken[len(broken) // 3 : len(broken) // 2] = bytes(len(broken) // 2 - len(broken) // 3)
    (folder / "damaged.flac").write_bytes(broken)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(folder / "no_samples.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "short.wav", noise(0.01, 16_000), 16_000)
    nan = noise(1, 16_000)
    nan[500] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16_000, subtype="FLOAT")
    nan[500] = np.inf
    soundfile.write(folder / "infinite.wav", nan, 16_000, subtype="FLOAT")
    reasons = {
        "empty.wav": "",
        "text.wav": "",
        "cut.flac": "",
        "damaged.flac": "",
        "silent.wav": "silent",
        "no_samples.wav": "",
        "short.wav": "0.02 s",
        "nan.wav": "NaN",
        "infinite.wav": "",
        "missing.wav": "",
    }
    return {str(folder / name): word for name, word in reasons.items()}


def test_bad_files_are_named_and_the_rest_finish(model, tmp_path):
    good = []
    for i, seconds in enumerate((0.5, 1.25, 3.0)):
        good.append(str(tmp_path / f"good{i}.wav"))
        soundfile.write(good[-1], noise(seconds, 22_050, i), 22_050)
    bad = spoiled(tmp_path)
    items = [good[0], *list(bad)[:5], good[1], *list(bad)[5:], good[2]]
    table = extract(model, items, workers=2)
    assert [items[i] for i in table.index] == good
    assert [path for _, path, _ in table.skipped] == list(bad)
    assert [items[row] for row, _, _ in table.skipped] == list(bad)
    for _, path, reason in table.skipped:
        assert reason
        assert "\n" not in reason
        assert bad[path].lower() in reason.lower()
    assert same(table, extract(model, good))
    # Every second of the good ones was read and used; rounding is by sample.
    for seconds in (table.seconds_read, table.seconds_used):
        assert seconds == pytest.approx(0.5 + 1.25 + 3.0, abs=3 / model.sample_rate)


def test_nothing_usable_is_an_error_that_names_the_first(model, tmp_path):
    bad = spoiled(tmp_path)
    with pytest.raises(DataError, match=f"none of the {len(bad)} clips.*empty.wav"):
        extract(model, list(bad))
    with pytest.raises(DataError, match="no clips"):
        extract(model, [])


def test_every_part_of_a_long_clip_counts(model):
    """A change in any tenth of a clip beyond the window changes its embedding."""
    rate = model.sample_rate
    samples = 0.1 * noise(2.2 * model.clip.window_s, rate)
    layer = model.layers[:1]
    before = model.clip_features(samples, layer, ["mean"])[f"{layer[0]}/mean"]
    for tenth in np.array_split(np.arange(len(samples)), 10):
        changed = samples.copy()
        changed[tenth] = tones(1, rate, len(tenth) / rate)[: len(tenth)]
        after = model.clip_features(changed, layer, ["mean"])[f"{layer[0]}/mean"]
        assert not np.allclose(after, before, rtol=1e-4)


def test_long_clips_are_joined_as_their_maps_would_be(model):
    rate = model.sample_rate
    # Two parts alike in length: also where parts are filled up, they weigh the same.
    samples = noise(2 * round(0.8 * model.clip.window_s), rate)
    segments = model.clip.segments(len(samples), rate)
    assert len(segments) == 2
    layers = [model.layers[0], model.layers[-1]]
    poolings = ["mean", "max", "std", "band"]
    with torch.inference_mode():
        parts = [
            model.forward_layers(torch.from_numpy(model.clip.filled(samples[a:b], rate))[None])
            for a, b in segments
        ]
        features = model.clip_features(samples, layers, poolings)
        for layer in layers:
            joined = torch.cat([part[layer] for part in parts], -1)
            for pooling in poolings:
                want = POOLINGS[pooling](joined)[0].numpy()
                scale = np.abs(want).max() + 1e-6
                got = features[f"{layer}/{pooling}"]
                assert np.abs(got - want).max() <= 2e-5 * scale, (layer, pooling)


# --- 4, 5, 9: from labels to a bundle and back -----------------------------------------------

LABELS = ["10", "2", "été", "a b", "x: y", "one, two", "🐦"]


@pytest.fixture(scope="module")
def trained(model) -> tuple[Model, list]:
    """A head fitted on two clips of each odd label, and the clips."""
    rate = model.sample_rate
    items = [(tones(10 + i, rate, 1.0), rate) for i in range(2 * len(LABELS))]
    labels = LABELS * 2
    table = pd.DataFrame({"path": [str(i) for i in range(len(items))], "label": labels})
    table = table.assign(onset=np.nan, offset=np.nan, split=None, fold=None)
    table["group"] = table["path"]
    clips = Clips(table, "classes", tuple(sorted(LABELS)), Path("test"), [], "each clip")
    layers = list(dict.fromkeys([model.layers[0], model.layers[-1]]))
    fitted = fit_model(model, extract(model, items, layers=layers), clips, probe="ridge")
    return fitted, items


def test_labels_and_numbers_survive_a_bundle(trained, tmp_path):
    fitted, items = trained
    loaded = bundle.load(bundle.save(fitted, tmp_path / "model"))
    assert loaded.classes == fitted.classes == tuple(sorted(LABELS))
    for samples, _ in items[:3]:
        assert np.array_equal(loaded.clip_scores(samples), fitted.clip_scores(samples))
    here, _ = predict(fitted, items)
    there, _ = predict(loaded, items, workers=3)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    assert list(there.columns[4:]) == sorted(LABELS)
    # The clips that it was fitted on get their own labels: columns and classes are in step.
    assert list(there["label"]) == LABELS * 2


def test_scores_are_those_of_features_and_head(trained):
    fitted, items = trained
    table = extract(fitted, [items[0]])
    blocks = {name: block[0] for name, block in table.blocks.items()}
    assert np.array_equal(fitted.scores_from_blocks(blocks), fitted.clip_scores(items[0][0]))


# --- 11: stored statistics, the clip's own reference -----------------------------------------


def test_training_mode_changes_no_features(model, mixed):
    items, _ = mixed
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model.clip_features(items[1][0])
    model.train()
    try:
        got = model.clip_features(items[1][0])
    finally:
        model.eval()
    for name, values in expected.items():
        assert np.array_equal(got[name], values), name
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_loud_neighbour_does_not_set_the_level(model):
    rate = model.sample_rate
    quiet, loud = 1e-3 * noise(1.0, rate, 0), noise(1.0, rate, 1)
    with torch.inference_mode():
        both = model.frontend(torch.from_numpy(np.stack([quiet, loud])))
        alone = model.frontend(torch.from_numpy(quiet)[None])
    assert torch.equal(both[:1], alone)


# --- numbers that make sense -----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda n: np.zeros(n),
        lambda n: np.full(n, 0.5),
        lambda n: np.full(n, 1e-30),
        lambda n: 1e-8 * np.random.default_rng(0).normal(size=n),
        lambda n: (np.arange(n) == n // 2).astype(float),
        lambda n: np.where(np.arange(n) % 40 < 20, 1.0, -1.0),
        lambda n: 1e4 * np.random.default_rng(0).normal(size=n),
    ],
    ids=["zeros", "constant", "denormal", "nearly silent", "one impulse", "square", "far too loud"],
)
def test_odd_sounds_give_finite_numbers(model, make):
    for seconds in (0.02, 1.0):
        samples = make(round(seconds * model.sample_rate)).astype(np.float32)
        for name, values in model.clip_features(samples, poolings=list(POOLINGS)).items():
            assert np.isfinite(values).all(), name


def test_feature_info_is_what_comes_out(model):
    names = [info.name for info in model.backbone.feature_info]
    assert len(set(names)) == len(names)
    assert tuple(names) == model.layers
    assert not any("/" in name or "," in name for name in names)  # separators of blocks, layers
    for extra_s in (0.0, 0.013, 0.5, 1.7):
        seconds = max(model.clip.min_s, 0.02) + extra_s
        waveform = torch.from_numpy(noise(seconds, model.sample_rate))[None]
        with torch.inference_mode():
            picture = model.frontend(waveform)
            maps = model.forward_layers(waveform)
        assert picture.shape[-1] == model.frontend.num_frames(waveform.shape[1])
        assert list(maps) == names
        for info in model.backbone.feature_info:
            map_ = maps[info.name]
            assert map_.shape[:2] == (1, info.channels), info
            assert map_.dim() == (4 if info.bands else 3), info
            if info.bands:
                assert map_.shape[2] == info.bands, info
            # Whole strides, or one more where the network pads.
            whole, rest = divmod(picture.shape[-1], info.stride)
            assert map_.shape[-1] in {max(whole, 1), whole + (rest > 0)}, info


def test_block_sizes_are_known_without_running(model):
    features = model.clip_features(noise(1, model.sample_rate), poolings=list(POOLINGS))
    sizes = model.block_sizes(list(features))
    assert {name: len(values) for name, values in features.items()} == dict(sizes)
    default = model.clip_features(noise(1, model.sample_rate))
    assert [name.split("/")[1] for name in default][: len(model.backbone.poolings)] == list(
        model.backbone.poolings
    )
    for values in default.values():
        assert values.dtype == np.float32


def test_front_end_and_clip_policy_are_the_backbones(model):
    own = create_frontend(**model.backbone.frontend)
    assert own.config() == model.frontend.config()
    assert model.sample_rate == model.backbone.frontend["sample_rate"]
    assert model.clip._asdict() == {"fill": "none", **model.backbone.clip}
    assert 0 <= model.clip.min_s <= model.clip.window_s
    assert model.backbone.source
    assert set(model.backbone.poolings) <= set(POOLINGS)
    assert model.backbone.num_features == model.backbone.feature_info[-1].channels
    rebuilt = type(model.backbone)(**model.backbone.config())
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in model.backbone.state_dict().items()
    }


# --- random weights --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_follow_the_seed(name):
    first, again, other = (made(name, seed=seed) for seed in (3, 3, 4))
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    samples = noise(1, first.sample_rate)
    expected = first.clip_features(samples)
    for block, values in again.clip_features(samples).items():
        assert np.array_equal(values, expected[block])
    if count_parameters(first):
        seedless = other.backbone.seedless_layers
        for block, values in other.clip_features(samples).items():
            same = np.array_equal(values, expected[block])
            assert same == (block.rpartition("/")[0] in seedless), block


@pytest.mark.parametrize("name", RANDOM)
def test_random_layers_are_alive_and_tell_sounds_apart(name, carried_clips):
    """A fair baseline: no layer dead, saturated, or the same for all sounds."""
    model = made(name)
    paths = sorted(carried_clips.rglob("*.flac"))[::15]
    clips = [load(path, sample_rate=model.sample_rate).samples[0] for path in paths]
    features = [model.clip_features(c, poolings=["mean"]) for c in clips]
    for block in features[0]:
        vectors = np.stack([f[block] for f in features])
        spread = np.linalg.norm(vectors - vectors.mean(0)) / np.linalg.norm(vectors)
        assert spread > 0.02, block
    waveform = torch.from_numpy(model.clip.filled(clips[0], model.sample_rate))[None]
    with torch.inference_mode():
        for layer, map_ in model.forward_layers(waveform).items():
            assert (map_ == 0).float().mean() < 0.85, f"{layer} is dead"
            assert (map_ >= 6).all(0).float().mean() < 0.9, f"{layer} is saturated"


def test_every_backbone_runs_without_warnings(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = create_model(model.info["name"], **model.backbone.config())
        twin.clip_features(noise(0.02, twin.sample_rate), poolings=list(POOLINGS))


def test_unknown_blocks_are_named(model):
    with pytest.raises(OssicleError, match="nowhere/mean"):
        model.block_sizes(["nowhere/mean"])
    with pytest.raises(OssicleError, match="nowhere"):
        extract(model, [(noise(1, 16_000), 16_000)], layers="nowhere")
    with pytest.raises(OssicleError, match="median"):
        extract(model, [(noise(1, 16_000), 16_000)], poolings=["median"])
