"""End-to-end separation: transform, modulator and carrier, consistency, losses, training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.separation import si_sdr
from ossicle.separate.fit_end_to_end import (
    EndToEndSettings,
    EndToEndTraining,
    _fit_gains,
    fit_end_to_end,
    negative_si_sdr,
    negative_snr,
    projection,
)
from ossicle.separators.end_to_end import AdaptiveTransform, EndToEnd, levels, made_consistent
from ossicle.train import Batch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _transform(tied=False, start="random", smoothing=3):
    return AdaptiveTransform(16, 16, 4, smoothing, tied, start).double().requires_grad_(False)


def _small(**keywords):
    torch.manual_seed(1)
    sizes = {"n_filters": 32, "filter_length": 32, "hop_length": 8, "hidden": 8, "n_blocks": 2}
    separator = EndToEnd(4000, ["a", "b"], **{**sizes, "sizes": [6], **keywords})
    return separator.eval().requires_grad_(False)


@pytest.mark.parametrize("n_samples", [1, 7, 8, 9, 50])
def test_analysis_and_synthesis_are_the_definition(n_samples):
    transform = _transform()
    transform.synthesis.mul_(torch.rand_like(transform.synthesis))
    samples = np.random.default_rng(0).normal(size=n_samples)
    filters, back = transform.filters[:, 0].numpy(), transform.synthesis[:, 0].numpy()
    frames = transform.num_frames(n_samples)
    padded = np.concatenate([np.zeros(12), samples, np.zeros(40)])
    expected = np.array([[f @ padded[4 * t : 4 * t + 16] for t in range(frames)] for f in filters])
    found = transform.analyse(torch.from_numpy(samples)[None])
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)
    # The last frame is the last that touches a sample, and the first the first.
    assert 4 * (frames - 1) < 12 + n_samples <= 4 * frames + 12
    whole = np.zeros(4 * frames + 16)
    for d, t in np.ndindex(16, frames):
        whole[4 * t : 4 * t + 16] += expected[d, t] * back[d]
    made = transform.synthesise(found, n_samples)
    np.testing.assert_allclose(made[0].numpy(), whole[12 : 12 + n_samples], atol=1e-12)


def test_tied_synthesis_is_the_transpose_of_the_analysis():
    for tied in (True, False):
        transform = _transform(tied)
        if not tied:
            transform.synthesis.mul_(torch.rand_like(transform.synthesis))
        samples = torch.randn(1, 45, dtype=torch.float64)
        analysed = torch.randn(1, 16, transform.num_frames(45), dtype=torch.float64)
        one = (transform.analyse(samples) * analysed).sum()
        other = (samples * transform.synthesise(analysed, 45)).sum()
        assert torch.isclose(one, other, rtol=1e-10) == tied
        assert ("synthesis" in dict(transform.named_parameters())) != tied


def test_fourier_filters_give_back_what_they_are_given():
    for n_filters, length, hop in ((16, 16, 4), (24, 16, 8), (64, 64, 16)):
        transform = AdaptiveTransform(n_filters, length, hop, 1, True, "fourier").double()
        for size in (1, 15, 16, 101):
            samples = torch.randn(2, size, dtype=torch.float64)
            again = transform.synthesise(transform.analyse(samples), size)
            torch.testing.assert_close(again, samples, atol=1e-6, rtol=0)
    # Every filter is a band: its spectrum is highest where it should be.
    spectra = np.abs(np.fft.rfft(transform.filters[:32, 0].detach().numpy(), 4096))
    centres = spectra.argmax(1) / 4096 * 64
    np.testing.assert_allclose(centres[1:-1], np.arange(32)[1:-1] + 0.5, atol=0.3)


def test_modulator_is_smooth_and_carrier_times_modulator_is_all():
    transform = _transform(smoothing=3)
    transform.smoother.copy_(torch.rand(16, 1, 3))
    analysed = torch.randn(1, 16, 9, dtype=torch.float64)
    modulator = transform.modulator(analysed)
    x = np.pad(np.abs(analysed[0].numpy()), ((0, 0), (1, 1)))
    for d, t in np.ndindex(16, 9):
        smooth = transform.smoother[d, 0].numpy() @ x[d, t : t + 3]
        assert modulator[0, d, t].item() == pytest.approx(np.log1p(np.exp(smooth)), rel=1e-10)
    torch.testing.assert_close((analysed / modulator) * modulator, analysed, rtol=1e-14, atol=0)
    assert transform.modulator(torch.full((1, 16, 4), 0.0, dtype=torch.float64)).min() > 0


def test_carrier_passes_what_the_network_leaves():
    # A mask of one for the first source and none for the second: the mixture and silence.
    separator = _small()
    separator.network.outward.weight.zero_()
    separator.network.outward.bias.copy_(torch.tensor([60.0] * 32 + [-60.0] * 32))
    samples = torch.randn(2, 333)
    found = separator.estimates(samples)
    torch.testing.assert_close(found[:, 0], samples, atol=1e-5, rtol=0)
    assert found[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("keywords", [{}, {"model": "autoencoders", "iterations": 5}])
def test_any_length_each_channel_alone_adding_up(keywords):
    separator = _small(consistent=True, **keywords)
    free = _small(consistent=False, estimate="modulator", filters="random", tied=True, **keywords)
    for size in (1, 8, 31, 400):
        samples = torch.randn(3, size)
        found = separator.separate(samples)
        assert found.shape == (2, 3, size)
        torch.testing.assert_close(found.sum(0), samples, atol=1e-5, rtol=0)
        for channel in range(3):
            alone = separator.separate(samples[channel : channel + 1])[:, 0]
            torch.testing.assert_close(found[:, channel], alone, atol=1e-4, rtol=0)
        assert free.separate(samples).shape == (2, 3, size)
    assert (free.separate(samples).sum(0) - samples).abs().max() > 0.01
    assert not separator.separate(torch.zeros(1, 100)).any()
    with pytest.raises(OssicleError, match="2 sources"):
        separator.separate(samples, 3)


def test_level_goes_through():
    separator = _small(consistent=False)
    samples = torch.randn(1, 300)
    soft = separator.separate(samples * 1e-3) * 1e3
    torch.testing.assert_close(soft, separator.separate(samples), atol=1e-4, rtol=1e-3)
    rms = np.sqrt(np.mean(samples.numpy() ** 2))
    assert (30 * levels(samples)).item() == pytest.approx(rms, rel=1e-5)


def test_consistency_is_the_nearest_that_adds_up():
    estimates, mixtures = torch.randn(2, 3, 7).double(), torch.randn(2, 7).double()
    found = made_consistent(estimates, mixtures).numpy()
    # min |y - e|^2 with 1'y = m, by its normal equations.
    system = np.block([[np.eye(3), np.ones((3, 1))], [np.ones((1, 3)), np.zeros((1, 1))]])
    for b, n in np.ndindex(2, 7):
        right = np.append(estimates[b, :, n].numpy(), mixtures[b, n].item())
        np.testing.assert_allclose(found[b, :, n], np.linalg.solve(system, right)[:3], atol=1e-12)


def test_rebuilt_from_its_config_on_no_device():
    for keywords in ({"tied": True}, {"model": "autoencoders", "iterations": 3}):
        separator = _small(**keywords)
        separator.gains.copy_(torch.tensor([0.5, 2.0]))
        with torch.device("meta"):
            other = EndToEnd(**separator.config())
        other.load_state_dict(separator.state_dict(), assign=True)
        samples = torch.randn(1, 200)
        assert torch.equal(other.separate(samples), separator.separate(samples))


def test_gains_scale_the_sources():
    separator = _small(consistent=False)
    samples = torch.randn(1, 200)
    before = separator.separate(samples)
    separator.gains.copy_(torch.tensor([0.5, 3.0]))
    after = separator.separate(samples)
    torch.testing.assert_close(after, before * torch.tensor([0.5, 3.0])[:, None, None])


def test_autoencoders_that_change_nothing_share_by_the_stems_modulators():
    separator = _small(model="autoencoders", sizes=[32])
    for model in separator.autoencoders:
        for part in (model.encoder, model.decoder):
            part.maps[0].weight.copy_(torch.eye(32))
    stems = torch.randn(3, 2, 150)
    waves, own, made, latents = separator.reconstructions(stems)
    transform, scale = separator.transform, stems.sum(1).square().mean(1).sqrt() / 30
    for b in range(3):
        mixture = transform.analyse(stems[b].sum(0)[None])[0]
        heard = [transform.modulator(transform.analyse(x[None] / scale[b]))[0] for x in stems[b]]
        for s in range(2):
            shared = mixture * heard[s] / sum(heard)
            expected = transform.synthesise(shared[None], 150)[0]
            torch.testing.assert_close(waves[b, s], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(waves.sum(1), stems.sum(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(made, own)
    torch.testing.assert_close(latents, own)
    torch.testing.assert_close(own.mean(2), torch.ones(3, 2, own.shape[-1]))


def test_losses_are_their_definitions():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(4, 200))
    estimate = 0.3 * source + 0.2 * rng.normal(size=(4, 200))
    ours = [torch.from_numpy(x) for x in (estimate, source)]
    np.testing.assert_allclose(negative_si_sdr(*ours), -si_sdr(estimate, source), atol=0.05)
    error = ((estimate - source) ** 2).sum(1) / (source**2).sum(1)
    np.testing.assert_allclose(negative_snr(*ours), 10 * np.log10(error), atol=0.02)
    cosine = (estimate * source).sum(1)
    cosine = cosine / np.linalg.norm(estimate, axis=1) / np.linalg.norm(source, axis=1)
    np.testing.assert_allclose(projection(*ours), 1 / cosine**2, rtol=3e-3)
    # The same as SI-SDR, but for how it is written.
    other = 10 * np.log10(1 / cosine**2 - 1)
    np.testing.assert_allclose(other, -si_sdr(estimate, source), atol=1e-6)
    for loss in (negative_snr, negative_si_sdr, projection):
        silent = torch.zeros(1, 50, requires_grad=True)
        loss(silent * 1.0, torch.zeros(1, 50)).sum().backward()
        assert torch.isfinite(silent.grad).all()


def test_scale_is_fitted_by_least_squares():
    separator = _small()
    stems = torch.randn(2, 2, 300)

    class Same:
        def batch(self, step):
            return Batch(stems, ["x"] * 2, slice(0, 2), 2)

    _fit_gains(separator, Same())
    found = separator.estimates(stems.sum(1))
    for s in range(2):
        column = found[:, s].reshape(-1, 1).double().numpy()
        best = np.linalg.lstsq(column, stems[:, s].reshape(-1).double().numpy(), rcond=None)[0]
        assert separator.gains[s].item() == pytest.approx(max(best[0], 1e-3), rel=1e-3)


def test_training_loss_of_autoencoders_is_its_parts():
    separator = _small(model="autoencoders").requires_grad_(True)
    objective = EndToEndTraining(separator, divergence_weight=2.0, sparsity=0.5)
    stems = torch.randn(2, 2, 200)
    total, numbers = objective.loss(stems)
    _, _, _, latents = separator.reconstructions(stems)
    price = 0.0
    for s, model in enumerate(separator.autoencoders):
        lengths = np.linalg.norm(model.decoder.maps[0].weight.detach().numpy(), axis=0)
        price += (latents[:, s].detach().numpy() * lengths[:, None]).sum(1).mean() / 32 / 2
    expected = numbers["waveform"] + 2 * (numbers["divergence"] + 0.5 * price)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    total.backward()
    assert separator.transform.filters.grad.abs().sum() > 0


def test_values_out_of_range():
    wrong = (
        {"n_filters": 31},
        {"filter_length": 30},
        {"filter_length": 8},
        {"hop_length": 0},
        {"smoothing": 4},
        {"filters": "wavelet"},
        {"model": "lstm"},
        {"estimate": "phase"},
        {"hidden": 0},
        {"n_blocks": -1},
        {"sizes": []},
        {"start": "zeros"},
        {"exponent": 0.0},
    )
    for keywords in wrong:
        with pytest.raises(OssicleError):
            _small(**keywords)
    with pytest.raises(OssicleError, match="name them"):
        EndToEnd(4000, [])
    for keywords in ({"loss": "mse"}, {"steps": 0}, {"exponents": ()}, {"seed": -1}):
        with pytest.raises(OssicleError):
            EndToEndSettings(**keywords).check()


@pytest.fixture
def mixtures(tmp_path, monkeypatch):
    """Slow tones below 300 Hz and fast ones above 500 Hz."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, rows, time = np.random.default_rng(2), [], np.arange(2000) / 2000
    for i in range(18):
        part = "train" if i < 12 else "valid" if i < 15 else "test"
        row = {"split": part, "group": f"{i}", "mixture": str(tmp_path / f"{i}.wav")}
        stems = []
        for number, (low, high, beat) in enumerate(((60, 300, 2), (500, 900, 9)), 1):
            waves = [
                np.sin(6.28 * f * time + p)
                for f, p in zip(rng.uniform(low, high, 3), rng.uniform(0, 6, 3), strict=True)
            ]
            stems.append(0.05 * (1 + np.sin(6.28 * beat * time + rng.uniform(0, 6))) * sum(waves))
            row |= {f"group{number}": f"{i}{number}", f"level_db{number}": 0.0}
            row[f"source{number}"] = str(tmp_path / f"{i}_{number}.wav")
            soundfile.write(row[f"source{number}"], stems[-1], 2000, subtype="FLOAT")
        soundfile.write(row["mixture"], sum(stems), 2000, subtype="FLOAT")
        rows.append(row)
    return Mixtures(pd.DataFrame(rows), ("low", "high"), 2, 2000, tmp_path)


FAST = EndToEndSettings(
    filter_s=0.016, hop_s=0.004, hidden=16, n_blocks=1, sizes=(8,), iterations=10, steps=100,
    batch_size=4, crop_s=0.5, learning_rate=1e-2, sparsity=0.3, judge_every=50,
)  # fmt: skip


def _gain(separator, mixtures):
    gains = []
    for i in range(len(mixtures)):
        mixture, sources, _ = mixtures.load(i)
        found = separator.separate(torch.from_numpy(mixture)[None])[:, 0].numpy()
        gains.append(si_sdr(found, sources) - si_sdr(np.stack([mixture] * 2), sources))
    return float(np.mean(gains))


@pytest.mark.parametrize(
    ("model", "loss", "tied"),
    [("network", "snr", False), ("network", "projection", True), ("autoencoders", "snr", True)],
)
def test_separates_what_it_learnt_apart_on_mixtures_never_heard(mixtures, model, loss, tied):
    settings = EndToEndSettings(**{**FAST.__dict__, "model": model, "loss": loss, "tied": tied})
    found = fit_end_to_end(mixtures, settings)
    assert _gain(found, mixtures.part("test")) > 8
    chosen = found.info["chosen"]
    best = max(chosen["tried"], key=lambda row: row["validation_si_sdr_improvement"])
    assert len(chosen["tried"]) == (4 if model == "autoencoders" else 2)
    assert all(found.config()[name] == best[name] for name in ("consistent", "exponent"))
    valid = _gain(found, mixtures.part("valid"))
    assert valid == pytest.approx(best["validation_si_sdr_improvement"], abs=1e-3)
    assert (found.transform.synthesis is None) == tied


def test_without_names_or_without_a_valid_part(mixtures):
    with pytest.raises(DataError, match="names"):
        fit_end_to_end(Mixtures(mixtures.table, (), 2, 2000, mixtures.root), FAST)
    few = EndToEndSettings(**{**FAST.__dict__, "steps": 2})
    found = fit_end_to_end(mixtures.part("train"), few)
    assert found.config()["consistent"] and found.info["steps"] == 2
