"""NMF with bases of each source: masks, fitting, what is chosen, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ossicle.bundle import load_separator, save
from ossicle.datasets.mixtures import Mixture, Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.separation import si_sdr
from ossicle.separate.fit_nmf import NMFSettings, fit_nmf
from ossicle.separators.nmf import NMF, stacked

RATE = 8000
SETTINGS = NMFSettings(
    n_fft_s=0.032,
    hop_s=0.016,
    n_components=(4,),
    sparsity=(0.0,),
    exponents=(1.0,),
    n_iterations=10,
    learning_iterations=40,
)


class Tones(Mixtures):
    """Low partials against high ones, each with its own rhythm; made when they are asked for."""

    def part(self, split):
        return replace(self, table=self.table[self.table["split"] == split].reset_index(drop=True))

    def load(self, i):
        rng = np.random.default_rng(int(self.table["seed"][i]))
        time = np.arange(RATE) / RATE
        stems = np.zeros((2, RATE), np.float32)
        for s, (low, high) in enumerate([(100, 1400), (1000, 3900)]):
            for _ in range(3):
                wave = np.sin(2 * np.pi * (rng.uniform(low, high) * time + rng.uniform()))
                stems[s] += wave * (np.sin(2 * np.pi * (rng.uniform(1, 4) * time)) > 0)
        stems *= 0.1
        if self.table["seed"][i] % 7 == 0:
            stems[:, : RATE // 2] = 0
        return Mixture(stems.sum(0), stems, RATE)


def tones(root, sources=("low", "high"), valid=4):
    splits = ["train"] * 12 + ["valid"] * valid + ["test"] * 6
    n = len(splits)
    table = pd.DataFrame({"split": splits, "seed": range(n), "group": [f"g{i}" for i in range(n)]})
    table["group1"] = table["group2"] = table["group"]
    for name in ("mixture", "source1", "source2"):
        table[name] = [str(root / f"{i}-{name}.wav") for i in range(n)]
    return Tones(table, sources, 2, RATE, root)


def filled(**keywords):
    """An NMF with bases drawn at random, of length 1."""
    separator = NMF(RATE, ["a", "b"], [3, 4], 128, 32, **keywords)
    drawn = torch.rand(separator.bases.shape, generator=torch.Generator().manual_seed(0))
    separator.bases.copy_(drawn / torch.linalg.vector_norm(drawn, dim=0))
    return separator


@pytest.fixture
def sound():
    return torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)) * 0.1


def test_masks_are_those_of_the_formulas_in_numpy(sound):
    separator = filled(sparsity=0.5, n_iterations=9, exponent=2.0)
    spectrum = separator.fourier.analyse(sound[0])
    v = spectrum.abs().double().numpy()
    v = v / v.mean(0)
    w = separator.bases.double().numpy()
    h = np.ones((7, v.shape[1]))
    for _ in range(9):
        h = h * (w.T @ (v / (w @ h))) / (w.T @ np.ones_like(v) + 0.5)
    models = np.stack([w[:, :3] @ h[:3], w[:, 3:] @ h[3:]]) ** 2
    np.testing.assert_allclose(
        separator.masks(spectrum, 2).numpy(), models / models.sum(0), atol=2e-5
    )


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"divergence": "euclidean", "sparsity": 1.0},
        {"divergence": "itakura_saito", "power": 2.0},
        {"context": 5},
        {"free": ["b"]},
        {"exponent": 2.0},
    ],
    ids=lambda keywords: "-".join(map(str, keywords.values())) or "plain",
)
def test_sources_add_up_to_the_recording_at_any_level(sound, keywords):
    separator = filled(**keywords)
    sound[:, :1000] = 0
    out = separator.separate(sound)
    assert out.shape == (2, 2, 4000) and out.isfinite().all()
    torch.testing.assert_close(out.sum(0), sound, atol=1e-6, rtol=0)
    torch.testing.assert_close(separator.separate(sound), out, atol=0, rtol=0)
    masks = separator.masks(separator.fourier.analyse(sound[0]), 2)
    assert (masks >= 0).all() and (masks <= 1).all()
    torch.testing.assert_close(masks.sum(0), torch.ones_like(masks[0]))
    quiet = separator.separate(sound * 1e-3)
    torch.testing.assert_close(quiet * 1e3, out, atol=2e-5, rtol=1e-3)
    assert not separator.separate(torch.zeros(1, 500)).any()


@pytest.mark.parametrize("context", [1, 5])
def test_where_a_recording_is_cut_is_no_matter(sound, context):
    separator = filled(context=context)
    spectrum = separator.fourier.analyse(sound[0])
    whole, part = separator.masks(spectrum, 2), separator.masks(spectrum[:, 30:70], 2)
    inside = slice(context // 2, 40 - context // 2)
    torch.testing.assert_close(part[..., inside], whole[..., 30:70][..., inside])


def test_context_is_the_frames_around():
    values = torch.arange(12.0).reshape(3, 4)
    got = stacked(values, 3)
    padded = np.pad(values.numpy(), ((0, 0), (1, 1)))
    for t in range(4):
        expected = np.concatenate([padded[:, t], padded[:, t + 1], padded[:, t + 2]])
        np.testing.assert_array_equal(got[:, t].numpy(), expected)


def test_bases_of_a_source_that_is_free_are_learnt_from_the_recording():
    """One tone is known; the other is told from it though nobody ever gave it."""
    time = torch.arange(RATE) / RATE
    known = torch.sin(2 * math.pi * 500 * time) * (torch.sin(2 * math.pi * 3 * time) > 0)
    other = torch.sin(2 * math.pi * 2500 * time) * (torch.sin(2 * math.pi * 2 * time) > 0)
    separator = NMF(RATE, ["known", "other"], [1, 2], 256, 64, free=["other"], n_iterations=50)
    assert separator.bases.shape == (129, 1)
    spectrum = separator.fourier.analyse(known).abs().mean(1)
    separator.bases.copy_((spectrum / spectrum.norm())[:, None])
    out = separator.separate((known + other)[None])[:, 0].numpy()
    assert (si_sdr(out, torch.stack([known, other]).numpy()) > 20).all()


def test_fitted_bases_tell_unheard_mixtures_apart(tmp_path):
    mixtures = tones(tmp_path)
    heard = []
    separator = fit_nmf(mixtures, SETTINGS, progress=lambda *numbers: heard.append(numbers))
    assert heard == [(1, 1, pytest.approx(24.0))]
    norms = torch.linalg.vector_norm(separator.bases, dim=0)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    gains = []
    for i in range(6):
        mixture, sources, _ = mixtures.part("test").load(i)
        out = separator.separate(torch.from_numpy(mixture)[None])[:, 0].numpy()
        gains.append(si_sdr(out, sources) - si_sdr(np.stack([mixture] * 2), sources))
    assert np.nanmean(gains) > 3
    again = fit_nmf(mixtures, SETTINGS)
    assert torch.equal(again.bases, separator.bases)
    other = fit_nmf(mixtures, replace(SETTINGS, seed=1))
    assert not torch.equal(other.bases, separator.bases)


def test_the_test_part_and_the_validation_part_teach_nothing(tmp_path):
    mixtures = tones(tmp_path)
    separator = fit_nmf(mixtures, SETTINGS)
    mixtures.table.loc[mixtures.table["split"] != "train", "seed"] += 100
    assert torch.equal(fit_nmf(mixtures, SETTINGS).bases, separator.bases)


def test_the_best_on_the_validation_part_is_taken(tmp_path):
    settings = replace(SETTINGS, n_components=(1, 4), sparsity=(0.0, 50.0), exponents=(1.0, 2.0))
    separator = fit_nmf(tones(tmp_path), settings)
    chosen = separator.info["chosen"]
    assert len(chosen["tried"]) == 8
    best = max(chosen["tried"], key=lambda row: row["validation_si_sdr_improvement"])
    assert {key: chosen[key] for key in best} == best
    assert separator.n_components == [best["n_components"]] * 2
    assert (separator.sparsity, separator.exponent) == (best["sparsity"], best["exponent"])
    alone = replace(
        SETTINGS,
        n_components=(best["n_components"],),
        sparsity=(best["sparsity"],),
        exponents=(best["exponent"],),
    )
    assert torch.equal(fit_nmf(tones(tmp_path), alone).bases, separator.bases)
    first = fit_nmf(tones(tmp_path, valid=0), settings)
    assert first.n_components == [1, 1] and first.sparsity == 0.0
    assert "validation_si_sdr_improvement" not in first.info["chosen"]


def test_exemplars_are_frames_of_the_stems(tmp_path):
    mixtures = tones(tmp_path)
    separator = fit_nmf(mixtures, replace(SETTINGS, bases="exemplars"))
    frames = []
    for i in range(12):
        stems = torch.from_numpy(mixtures.part("train").load(i).sources)
        frames.append(separator.fourier.analyse(stems).abs())
    frames = torch.cat(frames, -1)
    frames = frames / torch.linalg.vector_norm(frames, dim=1, keepdim=True).clamp_min(1e-9)
    for s in range(2):
        alike = separator.bases[:, 4 * s : 4 * s + 4].T @ frames[s]
        assert (alike.max(1).values > 1 - 1e-5).all()


def test_a_bundle_gives_the_same_sources(tmp_path, sound):
    separator = fit_nmf(
        tones(tmp_path), replace(SETTINGS, free=("high",), free_components=3, context=3)
    )
    save(separator, tmp_path / "bundle")
    again = load_separator(tmp_path / "bundle")
    assert isinstance(again, NMF) and again.free == ("high",) and again.n_components == [4, 3]
    assert torch.equal(again.separate(sound), separator.separate(sound))


def test_what_cannot_be_is_refused(tmp_path):
    for keywords in (
        {"context": 2},
        {"exponent": 0.0},
        {"sparsity": -1.0},
        {"divergence": "other"},
        {"free": ["a", "b"]},
        {"free": ["c"]},
        {"n_iterations": 0},
    ):
        with pytest.raises(OssicleError):
            filled(**keywords)
    with pytest.raises(OssicleError, match="bases"):
        NMF(RATE, ["a", "b"], [3], 128, 32)
    with pytest.raises(DataError, match="deep_clustering"):
        fit_nmf(tones(tmp_path, sources=()), SETTINGS)
    with pytest.raises(OssicleError, match="free"):
        fit_nmf(tones(tmp_path), replace(SETTINGS, free=("middle",)))
    for change in ({"bases": "other"}, {"n_components": ()}, {"silence_db": math.nan}):
        with pytest.raises(OssicleError):
            replace(SETTINGS, **change).check()


def test_a_source_that_is_never_heard_is_told(tmp_path, monkeypatch):
    silent = np.zeros((2, RATE), np.float32)
    silent[0, 100:] = 0.1
    monkeypatch.setattr(Tones, "load", lambda self, i: Mixture(silent.sum(0), silent, RATE))
    with pytest.raises(DataError, match="high is silent"):
        fit_nmf(tones(tmp_path), SETTINGS)
