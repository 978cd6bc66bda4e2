"""Batches of stems: of the part alone, of different groups, at the levels of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ossicle.audio import Audio, save
from ossicle.datasets.clips import read_clips
from ossicle.datasets.mixtures import Mixtures, MixtureSettings, write_mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.batches import StemBatches

RATE = 2000
LEVELS = (-6.0, 6.0)


def _clips(folder: Path, groups: int, each: int = 4, seed: int = 0) -> pd.DataFrame:
    """Tones: the frequency tells the group, so that it can be read off a stretch."""
    rows = []
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for group in range(groups):
        for i in range(each):
            time = np.arange(2 * RATE) / RATE
            wave = 0.3 * np.sin(2 * np.pi * (100 + 50 * group) * time + rng.uniform(0, 6))
            path = folder / f"g{group}_{i}.wav"
            save(path, Audio(wave[None].astype(np.float32), RATE))
            rows.append({"path": str(path), "label": "tone", "group": f"g{group}"})
    return pd.DataFrame(rows)


def _frequency(stem: torch.Tensor) -> float:
    spectrum = np.abs(np.fft.rfft(stem.numpy()))
    return float(spectrum.argmax() * RATE / len(stem))


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    folder = tmp_path_factory.mktemp("alike")
    clips = read_clips(_clips(folder / "clips", 5))
    settings = MixtureSettings(
        sample_rate=RATE, duration_s=1.0, disjoint="clips", level_db=LEVELS, seed=1
    )
    counts = {"train": 20, "valid": 4, "test": 4}
    return write_mixtures([clips], folder / "mixtures", settings, counts=counts)


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    folder = tmp_path_factory.mktemp("roles")
    tables = [read_clips(_clips(folder / name, 4, seed=seed)) for seed, name in enumerate("ab")]
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.0, disjoint="clips", level_db=LEVELS)
    counts = {"train": 12, "valid": 2, "test": 2}
    return write_mixtures(tables, folder / "mixtures", settings, counts=counts, names=("a", "b"))


def test_like_sources_come_from_different_groups(alike: Mixtures) -> None:
    batches = StemBatches(alike.part("train"), batch_size=16, crop_s=0.5)
    pairs = set()
    for step in range(6):
        for stems in batches.batch(step).waveforms:
            assert stems.shape == (2, RATE // 2)
            first, second = (_frequency(stem) for stem in stems)
            assert first != second
            pairs.add((first, second))
    table = alike.part("train").table
    written = set(zip(table["group1"], table["group2"], strict=True))
    assert len(pairs) > len(written)  # others than those that were written together


def test_speakers_may_be_labels(tmp_path: Path) -> None:
    table = _clips(tmp_path / "clips", 3)
    # The frequency is the label now, and each group has clips of all labels.
    table["label"] = table["group"]
    table["group"] = [Path(path).stem[-1] for path in table["path"]]
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.0, disjoint="clips", by="label")
    counts = {"train": 12}
    made = write_mixtures([read_clips(table)], tmp_path / "mixtures", settings, counts=counts)
    batches = StemBatches(made, batch_size=16, crop_s=0.5)
    for step in range(4):
        for first, second in batches.batch(step).waveforms:
            assert _frequency(first) != _frequency(second)
    # Folders' names tell nothing: there the group does.
    other = made.table.assign(name1="s1", name2="s2")
    other["group1"], other["group2"] = made.table["name1"], made.table["name2"]
    made.table = other
    for first, second in StemBatches(made, batch_size=16, crop_s=0.5).batch(0).waveforms:
        assert _frequency(first) != _frequency(second)


def test_levels_are_those_of_the_table(alike: Mixtures) -> None:
    batches = StemBatches(alike.part("train"), batch_size=200, crop_s=1.0)
    stems = batches.batch(0).waveforms.double()
    rms = stems.square().mean(-1).sqrt()
    found = 20 * torch.log10(rms[:, 1] / rms[:, 0])
    known = np.sort(alike.part("train").table["level_db2"].to_numpy(float))
    nearest = np.abs(found.numpy()[:, None] - known).min(1)
    assert nearest.max() < 0.05
    assert len(np.unique(found.numpy().round(2))) > 10


def test_roles_keep_their_places(roles: Mixtures) -> None:
    train = roles.part("train")
    batches = StemBatches(train, batch_size=8, crop_s=0.5)
    names = {str(path) for path in train.table["source1"]}
    for name in batches.batch(3).names:
        first, second = name.split(" + ")
        assert first in names
        assert second not in names


def test_a_batch_is_known_from_its_number(alike: Mixtures) -> None:
    part = alike.part("train")
    first, second = (StemBatches(part, batch_size=8, crop_s=0.5, seed=3) for _ in range(2))
    first.batch(1)
    torch.testing.assert_close(first.batch(7).waveforms, second.batch(7).waveforms, rtol=0, atol=0)
    assert not torch.equal(first.batch(7).waveforms, first.batch(8).waveforms)
    halves = [second.batch(7, rank, 2).waveforms for rank in range(2)]
    torch.testing.assert_close(torch.cat(halves), first.batch(7).waveforms, rtol=0, atol=0)
    other = StemBatches(part, batch_size=8, crop_s=0.5, seed=4)
    assert not torch.equal(other.batch(7).waveforms, first.batch(7).waveforms)


def test_as_they_are_the_stems_of_one_mixture_stay_together(alike: Mixtures) -> None:
    part = alike.part("train")
    batches = StemBatches(part, batch_size=8, crop_s=1.0, remix=False)
    batch = batches.batch(0)
    together = {
        f"{first} + {second}"
        for first, second in zip(part.table["source1"], part.table["source2"], strict=True)
    }
    for stems, name in zip(batch.waveforms, batch.names, strict=True):
        assert name in together
        row = int(np.flatnonzero(part.table["source1"] == name.split(" + ")[0])[0])
        mixture = torch.from_numpy(part.load(row).mixture)
        torch.testing.assert_close(stems.sum(0), mixture, rtol=0, atol=1e-4)  # of 16 bits


def test_nothing_of_other_parts_is_heard(alike: Mixtures) -> None:
    batches = StemBatches(alike.part("train"), batch_size=4, crop_s=0.5)
    others = alike.table[alike.table["split"] != "train"]
    held = {str(path) for s in (1, 2) for path in others[f"source{s}"]}
    assert held
    assert not held & set(batches.stems.names)


def test_a_stretch_longer_than_the_stems_is_filled_with_zeros(alike: Mixtures) -> None:
    stems = StemBatches(alike.part("train"), batch_size=4, crop_s=1.5).batch(0).waveforms
    assert stems.shape == (4, 2, 3 * RATE // 2)
    assert int((stems == 0).sum(-1).min()) >= RATE // 2 - 1


def test_bad_sizes_and_too_few_groups_are_told(alike: Mixtures) -> None:
    part = alike.part("train")
    with pytest.raises(OssicleError, match="above zero"):
        StemBatches(part, batch_size=0, crop_s=1.0)
    with pytest.raises(OssicleError, match="dealt out to 3"):
        StemBatches(part, batch_size=4, crop_s=0.5).batch(0, 0, 3)
    with pytest.raises(DataError, match="no mixtures"):
        StemBatches(alike.part("none"), batch_size=4, crop_s=1.0)
    one = part.part("train")
    one.table = one.table.assign(group1="g0", group2="g0", name1="g0", name2="g0")
    with pytest.raises(DataError, match="too few to mix 2"):
        StemBatches(one, batch_size=4, crop_s=0.5)
