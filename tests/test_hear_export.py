"""Our networks as HEAR modules: the rules of the benchmark's validator, written down again."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

from ossicle import bundle, hear_export
from ossicle.backbones import BACKBONES
from ossicle.errors import DownloadError, OssicleError
from ossicle.heads import Head
from ossicle.hear_export import HEARModel, get_scene_embeddings, get_timestamp_embeddings
from ossicle.model import Model, create_model


def noise(seconds: float, rate: int, clips: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(clips, int(seconds * rate), generator=generator) * 2 - 1


def check_times(times: np.ndarray, seconds: float) -> None:
    """What hear-validator demands of timestamps, its warnings too."""
    assert (times == times[:1]).all()
    gaps = np.diff(times[0])
    if len(gaps):
        assert gaps.max() <= 50.0
        assert np.abs(gaps - gaps.mean()).max() <= 1
        assert times[0, 0] <= gaps.mean()
        assert times[0, -1] >= 1000 * seconds - min(50.0, gaps.mean())
    assert 0 < times[0, -1] <= 1000 * seconds


@pytest.fixture(scope="module")
def mel() -> HEARModel:
    return hear_export.load_model("mel")


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_keeps_the_rules(name):
    model = HEARModel(create_model(name))
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert model.sample_rate >= model.model.sample_rate
    assert type(model.scene_embedding_size) is type(model.timestamp_embedding_size) is int
    seconds = 1.07
    audio = noise(seconds, model.sample_rate, 2)
    moments, times = get_timestamp_embeddings(audio, model)
    assert moments.dtype == torch.float32
    assert moments.shape == (*times.shape, model.timestamp_embedding_size)
    assert len(moments) == 2
    check_times(times.numpy(), seconds)
    scene = get_scene_embeddings(audio[:1], model)
    assert scene.dtype == torch.float32
    assert scene.shape == (1, model.scene_embedding_size)
    assert moments.isfinite().all()
    assert scene.isfinite().all()


@pytest.mark.parametrize("seconds", [1 / 16_000, 0.02, 0.03, 0.074, 0.076, 1.98, 4.0, 31.0])
def test_times_at_any_length(mel, seconds):
    audio = noise(seconds, mel.sample_rate)
    moments, times = get_timestamp_embeddings(audio, mel)
    check_times(times.numpy(), seconds)
    assert moments.shape[:2] == times.shape
    assert get_scene_embeddings(audio, mel).isfinite().all()


def test_times_are_the_middles_and_do_not_drift(mel):
    times = get_timestamp_embeddings(noise(60, 16_000), mel)[1]
    assert torch.equal(times[0], 25 + 50 * torch.arange(1200.0))


def test_a_moment_is_the_mean_of_its_frames(mel):
    """10 ms frames: the mean of five, in a clip of whole moments as long as its 98 frames share."""
    audio = noise(1.0, 16_000)
    moments, _ = get_timestamp_embeddings(audio, mel)
    frames = mel.model.forward_layers(audio)["mel"][0].double().numpy()
    # A slow witness: the staircase sampled 200 times a frame's share.
    fine = np.repeat(frames, 1000, axis=1)
    cuts = np.linspace(0, fine.shape[1], 21).round().astype(int)
    want = np.stack([fine[:, a:b].mean(1) for a, b in zip(cuts[:-1], cuts[1:], strict=True)])
    assert np.allclose(moments[0].numpy(), want, atol=1e-4)


def test_a_sound_shows_when_it_sounds():
    model = hear_export.load_model("mel")
    audio = 1e-4 * noise(2.0, 16_000)
    audio[0, 16_000:17_600] = noise(0.1, 16_000)
    moments, times = get_timestamp_embeddings(audio, model)
    loud = times[0][moments[0].mean(1) > moments[0].mean(1).max() - 1]
    assert loud.tolist() == [1025.0, 1075.0]


def test_long_clips_are_heard_to_their_end(mel):
    audio = 1e-4 * noise(70.0, 16_000)
    audio[0, -1600:] = noise(0.1, 16_000)
    moments, times = get_timestamp_embeddings(audio, mel)
    assert times[0][moments[0].mean(1).argmax()] >= 69_900
    quiet = get_scene_embeddings(1e-4 * noise(70.0, 16_000), mel)
    assert not torch.allclose(get_scene_embeddings(audio, mel), quiet)


def test_the_last_moment_has_what_is_left(mel):
    """Of 1.07 s the last whole moment ends at 1.05 s."""
    audio = 1e-4 * noise(1.07, 16_000)
    before = get_timestamp_embeddings(audio, mel)[0][0].mean(1)
    audio[0, -400:] = noise(0.025, 16_000)
    after = get_timestamp_embeddings(audio, mel)[0][0].mean(1)
    assert len(after) == 21
    assert after[20] > before[20] + 1
    assert torch.allclose(after[:20], before[:20], atol=1e-3)


def test_clips_filled_up_are_not_heard_beyond_their_end():
    """YAMNet's shortest stretch is 0.975 s: the zeros after 0.5 s have no moments."""
    model = HEARModel(create_model("yamnet"), layers=["conv1"])
    audio = noise(0.5, 16_000)
    moments, times = get_timestamp_embeddings(audio, model)
    assert times.shape[1] == 10
    filled = torch.nn.functional.pad(audio, (0, 7_600))
    frames = model.model.forward_layers(filled)["conv1"][0].mean(1)
    share = frames.shape[1] * 0.5 / 0.975
    whole = int(share)
    first = (frames[:, :whole].sum(1) + (share - whole) * frames[:, whole]) / share
    assert torch.allclose(moments[0].mean(0), first, rtol=1e-4, atol=1e-4)


def test_a_clip_is_the_same_beside_others(mel):
    audio = noise(1.3, 16_000, 3)
    scenes, moments = get_scene_embeddings(audio, mel), get_timestamp_embeddings(audio, mel)[0]
    for row in range(3):
        assert torch.equal(get_scene_embeddings(audio[row : row + 1], mel)[0], scenes[row])
        assert torch.equal(get_timestamp_embeddings(audio[row : row + 1], mel)[0][0], moments[row])


def test_the_scene_is_the_features_of_the_clip(mel):
    audio = noise(1.3, 16_000)
    blocks = mel.model.clip_features(audio[0].numpy())
    want = np.concatenate(list(blocks.values()))
    assert np.array_equal(get_scene_embeddings(audio, mel)[0].numpy(), want)


def test_other_rates_are_resampled():
    """MFCC hear 12 kHz, which the benchmark does not have."""
    model = hear_export.load_model("mfcc")
    assert model.sample_rate == 16_000
    t = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 440 * t)[None]
    want = model.model.clip_features(
        torch.sin(2 * torch.pi * 440 * torch.arange(12_000) / 12_000).numpy()
    )
    got = get_scene_embeddings(tone, model)[0].numpy()
    want = np.concatenate(list(want.values()))
    assert np.corrcoef(got, want)[0, 1] > 0.999


def test_what_is_no_audio_is_refused(mel):
    for wrong in (torch.zeros(16_000), torch.zeros(1, 0), torch.zeros(1, 1600, dtype=torch.int16)):
        with pytest.raises(OssicleError, match="audio is"):
            get_scene_embeddings(wrong, mel)
        with pytest.raises(OssicleError, match="audio is"):
            get_timestamp_embeddings(wrong, mel)
    with pytest.raises(OssicleError, match="nothing_of_the_kind"):
        hear_export.load_model("nothing_of_the_kind")


def test_a_bundle_gives_the_layers_that_its_head_reads(tmp_path):
    base = create_model("choi_convnet")
    head = Head([32, 2])
    torch.nn.init.zeros_(head.layers[0].weight)
    trained = Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=[f"{base.layers[1]}/mean"],
        head=head,
        classes=["a", "b"],
    )
    path = bundle.save(trained.eval(), tmp_path / "two.ossicle")
    model = hear_export.load_model(str(path))
    assert model.layers == (base.layers[1],)
    assert model.scene_embedding_size == model.timestamp_embedding_size == 32


def test_all_layers_of_a_published_network_are_exported(tmp_path):
    """Not those alone that the head of its source task reads."""
    try:
        path = hear_export.write_module("yamnet", tmp_path)
    except DownloadError as error:
        pytest.skip(str(error))
    for what in ("yamnet", str(path.with_suffix(".ossicle"))):
        assert len(hear_export.load_model(what).layers) == 27


def test_a_module_is_written_that_others_can_import(tmp_path, monkeypatch, mel):
    path = hear_export.write_module("mel", tmp_path / "site")
    assert path.name == "mel_hear.py"
    monkeypatch.syspath_prepend(tmp_path / "site")
    module = importlib.import_module("mel_hear")
    try:
        audio = noise(1.07, 16_000, 2)
        model = module.load_model()
        assert torch.equal(
            module.get_scene_embeddings(audio, model), get_scene_embeddings(audio, mel)
        )
        assert torch.equal(
            module.get_timestamp_embeddings(audio, model)[0],
            get_timestamp_embeddings(audio, mel)[0],
        )
    finally:
        del sys.modules["mel_hear"]
    with pytest.raises(OssicleError, match="name of a module"):
        hear_export.write_module("mel", tmp_path, name="class")
