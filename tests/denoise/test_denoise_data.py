"""Recordings for denoisers: whole groups, batches as they say, choices without clean ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from ossicle import audio
from ossicle.denoise.choosing import ADDED, alignment, choose
from ossicle.denoise.data import (
    LOUDER_DB,
    RecordingBatches,
    decode,
    pairs,
    read_recordings,
)
from ossicle.denoise.matching import matched
from ossicle.errors import DataError
from ossicle.separators.base import Separator

RATE = 8000


class Gain(Separator):
    """Gives what it hears, and nothing as background."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(RATE, ["foreground", "background"])
        self.gain = gain

    def separate(self, samples, n_sources=None):
        return torch.stack([self.gain * samples, (1 - self.gain) * samples])


def _write(folder, names, seconds=0.6, level=0.1):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        samples = level * rng.uniform(-1, 1, (1, round(seconds * RATE))).astype(np.float32)
        audio.save(folder / name, audio.Audio(samples, RATE))
    return folder


@pytest.fixture
def two_places(tmp_path):
    noisy = _write(tmp_path / "noisy", [f"site{i}_{j}.wav" for i in range(5) for j in range(2)])
    return noisy, _write(tmp_path / "noise", [f"place{i}_{j}.wav" for i in range(4) for j in "ab"])


def test_groups_do_not_straddle_the_split(two_places):
    found = read_recordings(two_places[0], noise=two_places[1], groups=r"/([a-z]+\d)_/")
    for clips, train, valid in zip(
        (found.noisy, found.noise), found.train, found.valid, strict=True
    ):
        groups = clips.groups()
        assert not set(groups[train]) & set(groups[valid])
        assert sorted([*train, *valid]) == list(range(len(clips)))
        assert len(valid) >= 2


def test_a_group_of_both_kinds_is_on_one_side(tmp_path):
    names = [f"{i}.wav" for i in range(6)]
    noisy, noise = _write(tmp_path / "noisy", names), _write(tmp_path / "noise", names)
    for seed in range(5):
        found = read_recordings(noisy, noise=noise, groups=r"/(\d)\.wav/", seed=seed)
        ours = set(found.noisy.groups()[found.train[0]])
        assert not ours & set(found.noise.groups()[found.valid[1]])


def test_labels_say_what_is_noise_alone(tmp_path):
    for name in ("rain", "wind", "birds"):
        _write(tmp_path / name, [f"{name}{i}x.wav" for i in range(3)])
    found = read_recordings(tmp_path, noise_labels=["rain", "wind"], groups="none")
    assert set(found.noise.table["label"]) == {"rain", "wind"}
    assert set(found.noisy.table["label"]) == {"birds"}
    with pytest.raises(DataError, match="hail"):
        read_recordings(tmp_path, noise_labels=["hail"])


def test_a_manifests_split_and_groups_hold(two_places, tmp_path):
    manifests = []
    for folder in two_places:
        files = sorted(folder.iterdir())
        split = ["valid" if i % 3 == 0 else "train" for i in range(len(files))]
        table = pd.DataFrame({"path": files, "split": split, "group": [f"g{i}" for i in split]})
        table.to_csv(tmp_path / f"{folder.name}.csv", index=False)
        manifests.append(tmp_path / f"{folder.name}.csv")
    found = read_recordings(manifests[0], noise=manifests[1])
    assert found.valid[0].tolist() == [0, 3, 6, 9]
    assert found.train[1].tolist() == [1, 2, 4, 5, 7]
    assert set(found.noisy.groups()) == {"gtrain", "gvalid"}


def test_mistakes_are_told(two_places, tmp_path):
    with pytest.raises(DataError, match="one of the two"):
        read_recordings(two_places[0])
    with pytest.raises(DataError, match="which is it"):
        read_recordings(two_places[0], noise=two_places[0])
    alone = _write(tmp_path / "alone", ["only.wav"])
    with pytest.raises(DataError, match="one group"):
        read_recordings(two_places[0], noise=alone)


def test_batches_are_known_from_their_number_and_hold_what_they_say(two_places):
    train, valid = decode(read_recordings(two_places[0], noise=two_places[1]), RATE)
    assert len(train.noisy) + len(valid.noisy) == 10
    batches = RecordingBatches(train, batch_size=8, crop_s=0.25, gain_db=0.0, seed=3)
    batch = batches.batch(5)
    assert batch.waveforms.shape == (8, 2, 2000)
    assert batch.targets.tolist() == [1, 1, 1, 0, 1, 1, 1, 0]
    assert [int("/noisy/" in name) for name in batch.names] == batch.targets.tolist()
    again = RecordingBatches(train, batch_size=8, crop_s=0.25, gain_db=0.0, seed=3).batch(5)
    assert torch.equal(batch.waveforms, again.waveforms)
    halves = [batches.batch(5, rank, 2).waveforms for rank in range(2)]
    assert torch.equal(torch.cat(halves), batch.waveforms)
    # Each crop is a stretch of its file.
    for crop, name in zip(batch.waveforms[:, 0], batch.names, strict=True):
        whole = np.lib.stride_tricks.sliding_window_view(audio.load(name).samples[0], 2000)
        assert np.abs(whole - crop.numpy()).max(1).min() < 1e-4


def test_noise_that_is_added_to_noise_is_another(two_places):
    train, _ = decode(read_recordings(two_places[0], noise=two_places[1]), RATE)
    batches = RecordingBatches(train, batch_size=4, crop_s=0.6, gain_db=0.0)
    for step in range(6):
        first, second = batches.batch(step).waveforms[3].numpy()
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_shorter_recordings_come_over_and_over(two_places):
    train, valid = decode(read_recordings(two_places[0], noise=two_places[1]), RATE)
    batch = RecordingBatches(train, batch_size=4, crop_s=1.2, gain_db=0.0, match=False).batch(0)
    torch.testing.assert_close(batch.waveforms[..., :4800], batch.waveforms[..., 4800:])
    y, n = pairs(valid, 3, 0.5)
    assert y.shape == n.shape == (3, 4000)
    assert np.array_equal(y, pairs(valid, 3, 0.5)[0])


def test_noise_is_made_like_that_in_the_recording_and_a_little_louder(two_places):
    train, _ = decode(read_recordings(two_places[0], noise=two_places[1]), RATE)
    plain, like = (
        RecordingBatches(train, batch_size=4, crop_s=0.6, gain_db=0.0, match=match).batch(0)
        for match in (False, True)
    )
    for before, after in zip(plain.waveforms.numpy(), like.waveforms.numpy(), strict=True):
        np.testing.assert_array_equal(before[0], after[0])
        given = matched(before[0], before[1], RATE)
        louder = 20 * np.log10(after[1].std() / given.std())
        assert 0 <= louder <= LOUDER_DB + 1e-3
        np.testing.assert_allclose(after[1], given * 10 ** (louder / 20), atol=1e-4)


def test_alignment_is_its_definition_and_knows_no_loudness():
    rng = np.random.default_rng(0)
    y, n = rng.standard_normal((2, 3, 500)).astype(np.float32)
    wanted = []
    for a, b in zip(y.astype(float), n.astype(float), strict=True):
        heard = a + ADDED * b
        wanted.append(heard @ (a - b / ADDED) / (heard @ heard))
    assert alignment(Gain(), y, n) == pytest.approx(np.mean(wanted), rel=1e-4)
    assert alignment(Gain(0.1), y, n) == pytest.approx(alignment(Gain(), y, n), rel=1e-4)
    assert alignment(Gain(0.0), y, n) == 0


def test_on_the_mean_alignment_ranks_as_the_clean_part_would():
    # Two fixed masks over halves of the samples: the foreground is in the first half alone.
    class Half(Gain):
        def separate(self, samples, n_sources=None):
            keep = torch.zeros(samples.shape[-1])
            keep[: samples.shape[-1] // 2] = 1.0
            keep[samples.shape[-1] // 2 :] = self.gain
            return torch.stack([keep * samples, (1 - keep) * samples])

    rng = np.random.default_rng(0)
    s = np.concatenate([rng.standard_normal((200, 400)), np.zeros((200, 400))], 1)
    m, n = rng.standard_normal((2, 200, 800))
    scores = [alignment(Half(gain), s + m, n) for gain in (0.0, 0.5, 1.0)]
    # cos(f, s) |s| / |heard| in closed form: noise of variance 1 + a^2 is left at each gain.
    noise = 1 + ADDED**2
    wanted = [1 / np.sqrt((1 + noise + g**2 * noise) * (1 + 2 * noise)) for g in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(scores, wanted, rtol=0.05)
    assert scores[0] > scores[1] > scores[2]


def test_choosing_keeps_of_each_setting_the_best():
    def judge(separator):
        return -((separator.gain - 0.75) ** 2)

    best, tried = choose(
        lambda s: Gain(s["a"] + s["b"]), [("a", (0.0, 0.5)), ("b", (0.0, 0.25, 0.5))], judge,
        {"a": 0.0, "b": 0.0},
    )  # fmt: skip
    assert best == {"a": 0.5, "b": 0.25}
    assert len(tried) == 4
