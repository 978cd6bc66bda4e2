"""Unfolded NMF: the same as NMF before training, not negative after it, and better for it."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle.bundle import load_separator, save
from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate import fit_unfolded as training
from ossicle.separate.fit_nmf import NMFSettings
from ossicle.separate.fit_unfolded import (
    UnfoldedSettings,
    Unfolding,
    fit_unfolded,
    magnitude_error,
    negative_snr,
    unfolded,
)
from ossicle.separate.training import improvement
from ossicle.separators.nmf import NMF
from ossicle.separators.unfolded_nmf import UnfoldedNMF

RATE = 8000
SETTINGS = UnfoldedSettings(
    n_fft_s=0.032,
    hop_s=0.016,
    n_components=(3,),
    sparsity=(1.0,),
    exponents=(1.0,),
    n_iterations=6,
    bases="exemplars",
    n_trained=3,
    crop_s=0.5,
    batch_size=4,
    steps=20,
    learning_rate=0.1,
    judge_every=5,
)


@pytest.fixture
def nmf():
    separator = NMF(RATE, ["a", "b"], [2, 3], 32, 16, n_iterations=5, sparsity=0.3)
    drawn = torch.rand(separator.bases.shape, generator=torch.Generator().manual_seed(0))
    separator.bases.copy_(drawn / torch.linalg.vector_norm(drawn, dim=0))
    return separator


@pytest.fixture
def sound():
    return torch.randn(2, 2000, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    """Noise through two filters that overlap, each source with its own rhythm."""
    root = tmp_path_factory.mktemp("mixtures")
    rng = np.random.default_rng(0)
    rows = []
    for i, split in enumerate(["train"] * 10 + ["valid"] * 4 + ["test"] * 6):
        row = {"split": split, "group": f"g{i}", "mixture": str(root / f"{i}.wav")}
        stems = []
        for s, (low, high) in enumerate([(0, 3000), (1000, 4000)], start=1):
            spectrum = np.fft.rfft(rng.normal(size=RATE))
            spectrum[:low] = spectrum[high:] = 0
            beat = rng.uniform(size=8).repeat(RATE // 8) > 0.4
            stems.append(0.05 * np.fft.irfft(spectrum, RATE) * beat)
            row |= {f"source{s}": str(root / f"{i}-{s}.wav"), f"level_db{s}": 0.0}
            row |= {f"group{s}": f"g{i}", f"name{s}": f"s{s}", f"clip{s}": f"{i}-{s}"}
            soundfile.write(row[f"source{s}"], stems[-1], RATE, "FLOAT")
        soundfile.write(row["mixture"], sum(stems), RATE, "FLOAT")
        rows.append(row)
    return Mixtures(pd.DataFrame(rows), ("low", "high"), 2, RATE, root)


@pytest.mark.parametrize("divergence", ["kl", "euclidean", "itakura_saito"])
@pytest.mark.parametrize("n_trained,tied", [(1, False), (3, False), (6, False), (6, True)])
def test_untrained_layers_are_the_updates_of_nmf_bit_for_bit(sound, divergence, n_trained, tied):
    nmf = NMF(
        RATE, ["a", "b"], [2, 3], 32, 16, n_iterations=5, divergence=divergence, sparsity=0.3,
        context=3, exponent=2.0,
    )  # fmt: skip
    nmf.bases.copy_(torch.rand(nmf.bases.shape, generator=torch.Generator().manual_seed(0)))
    network = unfolded(nmf, n_trained, tied)
    assert torch.equal(network.separate(sound), nmf.separate(sound))
    # and not for want of using its parameters
    with torch.no_grad():
        network.changes[-1] += torch.linspace(-1, 1, 5)
    assert not torch.allclose(network.separate(sound), nmf.separate(sound), atol=1e-4)


def test_layers_are_the_formula_in_numpy(nmf, sound):
    network = unfolded(nmf, 3)
    with torch.no_grad():
        network.changes.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    spectrum = network.fourier.analyse(sound[0])
    v = spectrum.abs().double().numpy()
    v = v / v.mean(0)
    theta = network.changes.detach().double().numpy()
    w = [nmf.bases.double().numpy() * np.exp(theta[k - 3] if k >= 3 else 0) for k in range(6)]
    h = np.ones((5, v.shape[1]))
    for k in range(5):
        h = h * (w[k].T @ (v / (w[k] @ h))) / (w[k].sum(0)[:, None] + 0.3)
    models = np.stack([w[5][:, :2] @ h[:2], w[5][:, 2:] @ h[2:]])
    with torch.no_grad():
        masks = network.masks(spectrum, 2).numpy()
    np.testing.assert_allclose(masks, models / models.sum(0), atol=2e-5)


def test_parameters_are_as_many_as_told(nmf):
    n_bases = 17 * 5
    assert nmf.num_parameters == n_bases
    assert unfolded(nmf, 3).num_parameters == n_bases + 3 * n_bases
    assert unfolded(nmf, 6, tied=True).num_parameters == 2 * n_bases
    assert [name for name, p in unfolded(nmf, 3).named_parameters() if p.requires_grad] == [
        "changes"
    ]


@pytest.mark.parametrize("kind", training.LOSSES)
def test_gradients_are_those_of_finite_differences(nmf, kind):
    network = unfolded(nmf, 4).double()
    stems = torch.randn(2, 2, 200, generator=torch.Generator().manual_seed(3)).double()
    objective = Unfolding(network, kind)

    def loss(changes):
        values = {"changes": changes, "bases": network.bases}
        holder = {f"separator.{name}": value for name, value in values.items()}
        return torch.func.functional_call(objective, holder, (stems,))

    objective.forward = lambda stems: objective.loss(stems)[0]
    changes = torch.zeros_like(network.changes)
    changes.normal_(0, 0.3, generator=torch.Generator().manual_seed(4)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(changes), changes)
    rng = np.random.default_rng(0)
    assert float(gradient.abs().max()) > 1e-3
    for _ in range(12):
        place = tuple(int(rng.integers(size)) for size in changes.shape)
        step = torch.zeros_like(changes)
        step[place] = 1e-5
        with torch.no_grad():
            slope = float(loss(changes + step) - loss(changes - step)) / 2e-5
        assert slope == pytest.approx(float(gradient[place]), rel=1e-4, abs=1e-8)


def test_losses_are_the_sums_written_out():
    rng = np.random.default_rng(0)
    masked, true = rng.uniform(size=(2, 3, 2, 5, 7))
    expected = [((masked[b] - true[b]) ** 2).sum() / (true[b] ** 2).sum() for b in range(3)]
    got = magnitude_error(torch.from_numpy(masked), torch.from_numpy(true))
    np.testing.assert_allclose(got.numpy(), expected)
    found, stems = rng.normal(size=(2, 3, 2, 400))
    stems[0, 1] = 0
    got = negative_snr(torch.from_numpy(found), torch.from_numpy(stems)).numpy()
    for b in range(3):
        rest = 1e-4 * (stems[b] ** 2).sum()
        ratios = [
            10 * np.log10((((found[b, s] - stems[b, s]) ** 2).sum() + rest)
                          / ((stems[b, s] ** 2).sum() + rest))
            for s in range(2)
        ]  # fmt: skip
        assert got[b] == pytest.approx(np.mean(ratios))


@pytest.mark.parametrize("kind", training.LOSSES)
def test_items_of_a_batch_do_not_know_of_each_other(nmf, kind):
    nmf = NMF(RATE, ["a", "b"], [2, 3], 32, 16, n_iterations=5, context=3)
    nmf.bases.copy_(torch.rand(nmf.bases.shape, generator=torch.Generator().manual_seed(0)))
    objective = Unfolding(unfolded(nmf, 2), kind)
    stems = torch.randn(3, 2, 400, generator=torch.Generator().manual_seed(3))
    each = torch.stack([objective.loss(stems[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(objective.loss(stems)[0], each.mean())


def test_training_betters_what_it_is_for_and_keeps_bases_above_zero(mixtures):
    lines = []
    network = fit_unfolded(mixtures, SETTINGS, progress=lambda *numbers: lines.append(numbers))
    assert len(lines) == 20 and lines[-1] == (20, 20, pytest.approx(40.0))
    of_nmf = {name: getattr(SETTINGS, name) for name in NMFSettings.__dataclass_fields__}
    nmf = training.fit_nmf(mixtures, NMFSettings(**of_nmf))
    assert torch.equal(network.bases, nmf.bases)
    assert network.changes.abs().max() > 0.01
    for layer in range(network.n_iterations + 1):
        assert (network.layer_bases(layer) >= 0).all()
    valid, test = mixtures.part("valid"), mixtures.part("test")
    chosen = network.info["chosen"]
    told = chosen["validation_si_sdr_improvement"]
    assert told == pytest.approx(improvement(network, valid, most=SETTINGS.n_valid))
    before = chosen["nmf_validation_si_sdr_improvement"]
    assert before == pytest.approx(improvement(nmf, valid)) and told >= before
    assert chosen["n_parameters"] == {"nmf": nmf.bases.numel(), "trained": 3 * nmf.bases.numel()}
    assert improvement(network, test) > improvement(nmf, test) + 0.1
    assert not any(p.requires_grad for p in network.parameters())


def test_a_run_that_only_harms_ends_as_the_nmf_it_began_with(mixtures):
    harmful = replace(SETTINGS, learning_rate=30.0, clip_norm=1e9, steps=4, judge_every=1)
    network = fit_unfolded(mixtures, harmful)
    assert not network.changes.any()


def test_a_stopped_run_goes_on_to_the_same_weights(mixtures, tmp_path):
    straight = fit_unfolded(mixtures, replace(SETTINGS, steps=8), folder=tmp_path / "straight")

    def stop(done, steps, seconds):
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    interrupted = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fit_unfolded(mixtures, replace(SETTINGS, steps=8), folder=interrupted, progress=stop)
    assert (interrupted / "checkpoint.pt").is_file()
    heard = []
    again = fit_unfolded(
        mixtures,
        replace(SETTINGS, steps=8),
        folder=interrupted,
        progress=lambda done, steps, seconds: heard.append(done),
    )
    assert heard[0] in (6, 7) and heard[-1] == 8
    assert torch.equal(again.changes, straight.changes)


def test_a_bundle_gives_the_same_sources(nmf, sound, tmp_path):
    network = unfolded(nmf, 3)
    with torch.no_grad():
        network.changes.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    save(network, tmp_path / "bundle")
    again = load_separator(tmp_path / "bundle")
    assert isinstance(again, UnfoldedNMF) and again.config() == network.config()
    assert torch.equal(again.separate(sound), network.separate(sound))


def test_what_cannot_be_is_refused(nmf, mixtures):
    for n_trained in (0, 7):
        with pytest.raises(OssicleError, match="n_trained"):
            unfolded(nmf, n_trained)
    for change in (
        {"loss": "other"},
        {"free": ("low",)},
        {"n_trained": 8},
        {"steps": 0},
        {"learning_rate": float("nan")},
        {"divergence": "other"},
    ):
        with pytest.raises(OssicleError):
            replace(SETTINGS, **change).check()
    with pytest.raises(DataError, match="names"):
        fit_unfolded(replace(mixtures, sources=()), SETTINGS)
