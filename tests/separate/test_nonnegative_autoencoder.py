"""Non-negative autoencoders: their definition, the fit of latents, training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.decomposition import non_negative_factorization

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.separation import si_sdr
from ossicle.separate.fit_autoencoder import (
    AutoencoderSettings,
    Autoencoding,
    fit_autoencoder,
    with_keywords,
)
from ossicle.separators.nonnegative_autoencoder import (
    ACTIVATIONS,
    EPS,
    Autoencoder,
    Layers,
    NonnegativeAutoencoder,
    activate,
    divergence,
    fit_latents,
    frame_levels,
    prices,
)

SLOW = {
    "abs": np.abs,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.log1p(np.exp(x)),
}


def _rng(seed=0):
    return np.random.default_rng(seed)


def _decoder(weights, activation="abs"):
    """Layers of given weights, in double precision."""
    layers = Layers([w.shape[1] for w in weights] + [weights[-1].shape[0]], activation).double()
    for layer, weight in zip(layers.maps, weights, strict=True):
        layer.weight.data = torch.from_numpy(weight)
    return layers.requires_grad_(False)


def _slow_divergence(spectrum, estimate):
    total = 0.0
    for v, e in zip(spectrum.ravel(), estimate.ravel() + EPS, strict=True):
        total += (v * (np.log(v) - np.log(e)) if v > 0 else 0.0) - v + e
    return total


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_the_definition(activation):
    model = Autoencoder(9, [5, 3], activation).double()
    spectrum = _rng().random((9, 4))
    made, latents = model(torch.from_numpy(spectrum))
    x = spectrum
    for part, found in ((model.encoder, latents), (model.decoder, made)):
        for layer in part.maps:
            weight = layer.weight.detach().numpy()
            bias = 0 if layer.bias is None else layer.bias.detach().numpy()[:, None]
            x = SLOW[activation](weight @ x + bias)
        np.testing.assert_allclose(found.detach().numpy(), x, rtol=1e-12)
    assert made.min() >= 0 and latents.min() >= 0 and latents.shape == (3, 4)
    assert (model.decoder.maps[0].bias is not None) == (activation == "softplus")


def test_divergence_is_the_definition():
    spectrum, estimate = _rng(1).random((6, 5)), _rng(2).random((6, 5))
    spectrum[2, 3] = estimate[4, 1] = 0
    found = divergence(torch.from_numpy(spectrum), torch.from_numpy(estimate))
    assert found.sum().item() == pytest.approx(_slow_divergence(spectrum, estimate), rel=1e-12)
    assert found.min() >= -1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_written_out_gradient_is_torchs(activation):
    layers = Layers([3, 7, 9], activation).double()
    latents = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(9, 4, dtype=torch.float64)
    (layers(latents) * weights).sum().backward()
    with torch.no_grad():
        output, slopes = layers.forward_and_slopes(latents)
        found = layers.backward(weights, slopes)
        torch.testing.assert_close(output, layers(latents))
    torch.testing.assert_close(found, latents.grad, rtol=1e-10, atol=1e-12)


def test_fit_of_a_linear_decoder_reaches_the_optimum_of_a_factorisation():
    rng = _rng(3)
    bases = [rng.random((30, 4)) ** 3, rng.random((30, 3)) ** 3]
    spectrum = rng.random((30, 12)) ** 2
    spectrum /= spectrum.mean(0)
    found = fit_latents(
        [_decoder([b]) for b in bases],
        torch.from_numpy(spectrum),
        [torch.ones(b.shape[1], 12, dtype=torch.float64) for b in bases],
        iterations=600,
    )
    stacked = np.concatenate(bases, 1)
    made = stacked @ torch.cat(found).numpy()
    # sklearn factorises X = W H with H fixed: all transposed.
    codes, _, _ = non_negative_factorization(
        spectrum.T,
        H=np.ascontiguousarray(stacked.T),
        n_components=7,
        init="custom",
        update_H=False,
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=20_000,
        tol=1e-10,
    )
    ours, theirs = (
        _slow_divergence(spectrum, made),
        _slow_divergence(spectrum, (codes @ stacked.T).T),
    )
    assert ours == pytest.approx(theirs, rel=2e-4)


def test_fit_lowers_the_cost_and_keeps_the_best():
    rng = _rng(4)
    decoders = [_decoder([rng.normal(size=(8, 4)), rng.normal(size=(20, 8))]) for _ in range(2)]
    spectrum = torch.from_numpy(rng.random((20, 6)))
    starts = [torch.rand(4, 6, dtype=torch.float64) for _ in range(2)]
    costs = []
    for iterations in (*range(40), 125):
        found = fit_latents(decoders, spectrum, starts, iterations=iterations)
        made = sum(d(h) for d, h in zip(decoders, found, strict=True))
        costs.append(divergence(spectrum, made).sum(0))
    for before, after in zip(costs[:-1], costs[1:], strict=True):
        assert (after <= before + 1e-12).all()
    assert costs[-1].sum() < 0.8 * costs[0].sum()


def test_sparsity_of_one_base_is_the_closed_form():
    base = _rng(5).random((15, 1)) + 0.1
    spectrum = _rng(6).random((15, 3))
    for sparsity in (0.0, 2.0, 50.0):
        found = fit_latents(
            [_decoder([base])],
            torch.from_numpy(spectrum),
            [torch.ones(1, 3, dtype=torch.float64)],
            iterations=200,
            sparsity=sparsity,
        )[0]
        # Where sum(w - v / h) + lambda |w| = 0.
        best = spectrum.sum(0) / (base.sum() + sparsity * np.linalg.norm(base))
        np.testing.assert_allclose(found[0].numpy(), best, rtol=1e-3)


def test_price_does_not_depend_on_where_the_scale_is():
    first, second = _rng(7).normal(size=(6, 3)), _rng(8).normal(size=(9, 6))
    column = np.abs(second) @ np.abs(first)
    expected = np.sqrt((column**2).sum(0))
    np.testing.assert_allclose(prices(_decoder([first, second])).numpy()[:, 0], expected)
    np.testing.assert_allclose(prices(_decoder([first * 8, second / 8])).numpy()[:, 0], expected)


def _separator(**keywords):
    torch.manual_seed(1)
    separator = NonnegativeAutoencoder(8000, ["a", "b"], 64, 16, sizes=[6], **keywords)
    return separator.eval().requires_grad_(False)


@pytest.mark.parametrize("keywords", [{}, {"start": "even"}, {"latents": "encoder"}])
def test_masks_share_every_bin(keywords):
    separator = _separator(iterations=10, exponent=2.0, **keywords)
    samples = torch.randn(2, 1000)
    samples[:, 400:700] = 0
    masks = separator.masks(separator.fourier.analyse(samples).mean(0), 2)
    assert masks.shape == (2, 33, 63) and masks.min() >= 0
    torch.testing.assert_close(masks.sum(0), torch.ones(33, 63))
    found = separator.separate(samples)
    assert found.shape == (2, 2, 1000)
    torch.testing.assert_close(found.sum(0), samples, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_level_changes_nothing_and_frames_are_alone(activation):
    separator = _separator(activation=activation, iterations=15).double()
    spectrum = torch.rand(33, 12, dtype=torch.float64) + 0.01
    masks = separator.masks(spectrum, 2)
    torch.testing.assert_close(separator.masks(spectrum * 1e-3, 2), masks, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(separator.masks(spectrum[:, 5:9], 2), masks[..., 5:9])
    assert (masks[0] - masks[1]).abs().max() > 0.01


def test_rebuilt_from_its_config_on_no_device():
    separator = _separator(iterations=5, sparsity=0.5)
    with torch.device("meta"):
        other = NonnegativeAutoencoder(**separator.config())
    other.load_state_dict(separator.state_dict(), assign=True)
    samples = torch.randn(1, 500)
    assert torch.equal(other.separate(samples), separator.separate(samples))
    assert with_keywords(separator, iterations=7).config()["iterations"] == 7


def test_values_out_of_range():
    wrong = (
        {"sizes": []},
        {"sizes": [0]},
        {"activation": "tanh"},
        {"latents": "guessed"},
        {"start": "zeros"},
        {"iterations": -1},
        {"sparsity": -0.1},
        {"sparsity": float("nan")},
        {"exponent": 0.0},
    )
    for keywords in wrong:
        with pytest.raises(OssicleError):
            NonnegativeAutoencoder(8000, ["a", "b"], 64, 16, **keywords)
    with pytest.raises(OssicleError, match="name the sources"):
        NonnegativeAutoencoder(8000, [], 64, 16)
    for keywords in ({"n_latents": ()}, {"steps": 0}, {"exponents": (9.0,)}, {"seed": -1}):
        with pytest.raises(OssicleError):
            AutoencoderSettings(**keywords).check()


def test_training_cost_is_the_definition():
    separator = _separator().requires_grad_(True)
    objective = Autoencoding(separator, sparsity=0.7, silence_db=200.0)
    stems = torch.randn(3, 2, 400)
    total, numbers = objective.loss(stems)
    expected = 0.0
    for s, model in enumerate(separator.autoencoders):
        spectra = separator.fourier.analyse(stems[:, s]).abs()
        frames = np.concatenate(list(spectra.numpy()), 1).astype(np.float64)
        level = frames.mean(0)
        w, e = (
            part.maps[0].weight.detach().double().numpy() for part in (model.decoder, model.encoder)
        )
        unlike = cost = 0.0
        for frame, loud in zip(frames.T, level / level.sum(), strict=True):
            frame = frame / frame.mean()
            latent = np.abs(e @ frame)
            unlike += loud * _slow_divergence(frame, np.abs(w @ latent)) / 33
            cost += loud * (latent * np.linalg.norm(w, axis=0)).sum() / 33
        assert numbers[f"divergence_{'ab'[s]}"].item() == pytest.approx(unlike, rel=1e-4)
        expected += unlike + 0.7 * cost
    assert total.item() == pytest.approx(expected, rel=1e-4)
    for model in separator.autoencoders:
        model.decoder.maps[0].weight.data -= 0.05
        assert model.decoder.maps[0].weight.min() < 0
    objective.after_update(None)
    assert all(model.decoder.maps[0].weight.min() == 0 for model in separator.autoencoders)


def tones(folder, counts=(("train", 12), ("valid", 3), ("test", 4)), rate=2000, size=2000):
    """Mixtures of slow tones below 300 Hz and fast ones above 500 Hz, as Mixtures."""
    rng, rows = _rng(9), []
    time = np.arange(size) / rate
    for part, count in counts:
        for i in range(count):
            row = {"split": part, "group": f"{part}{i}"}
            stems = []
            for number, (low, high, beat) in enumerate(((60, 300, 2), (500, 900, 9)), 1):
                pitches, phases = rng.uniform(low, high, 3), rng.uniform(0, 6.28, 4)
                envelope = 1 + np.sin(6.28 * beat * time + phases[3])
                waves = [np.sin(6.28 * f * time + p) for f, p in zip(pitches, phases, strict=False)]
                stems.append(0.05 * envelope * sum(waves))
                row |= {f"group{number}": f"{part}{i}{number}", f"level_db{number}": 0.0}
                row[f"source{number}"] = str(folder / f"{part}{i}_{number}.wav")
                soundfile.write(row[f"source{number}"], stems[-1], rate, subtype="FLOAT")
            row["mixture"] = str(folder / f"{part}{i}.wav")
            soundfile.write(row["mixture"], sum(stems), rate, subtype="FLOAT")
            rows.append(row)
    return Mixtures(pd.DataFrame(rows), ("low", "high"), 2, rate, folder)


def gain(separator, mixtures):
    """Mean SI-SDR improvement, dB."""
    gains = []
    for i in range(len(mixtures)):
        mixture, sources, _ = mixtures.load(i)
        found = separator.separate(torch.from_numpy(mixture)[None])[:, 0].numpy()
        gains.append(si_sdr(found, sources) - si_sdr(np.stack([mixture] * 2), sources))
    return float(np.mean(gains))


@pytest.fixture
def mixtures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tones(tmp_path)


FAST = AutoencoderSettings(
    n_latents=(4, 12),
    steps=150,
    batch_size=4,
    crop_s=0.5,
    iterations=(10,),
    sparsity=(0.3,),
    learning_rate=2e-2,
)


def test_separates_what_it_learnt_apart_on_mixtures_never_heard(mixtures):
    found = fit_autoencoder(mixtures, FAST)
    assert gain(found, mixtures.part("test")) > 20
    tried = found.info["chosen"]["tried"]
    best = max(row["validation_si_sdr_improvement"] for row in tried)
    assert found.info["chosen"]["validation_si_sdr_improvement"] == best
    assert gain(found, mixtures.part("valid")) == pytest.approx(best, abs=1e-3)
    assert [row.get("n_latents") for row in tried[:2]] == [4, 12]
    assert found.config()["sizes"] == found.info["chosen"]["sizes"]


def test_fit_is_the_same_twice_and_leaves_random_numbers_alone(mixtures):
    few = AutoencoderSettings(**{**FAST.__dict__, "steps": 5, "n_latents": (4,), "n_valid": 1})
    torch.manual_seed(5)
    first = fit_autoencoder(mixtures, few).state_dict()
    after = torch.rand(1)
    second = fit_autoencoder(mixtures, few).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_without_names_or_without_a_valid_part(mixtures):
    alike = Mixtures(mixtures.table, (), 2, 2000, mixtures.root)
    with pytest.raises(DataError, match="names"):
        fit_autoencoder(alike, FAST)
    few = AutoencoderSettings(**{**FAST.__dict__, "steps": 3})
    found = fit_autoencoder(mixtures.part("train"), few)
    assert found.config()["sizes"] == [4] and len(found.info["chosen"]["tried"]) == 1


def test_softplus_and_layers_train_too(mixtures):
    settings = AutoencoderSettings(
        **{**FAST.__dict__, "hidden": (16,), "n_latents": (8,), "activation": "softplus"}
    )
    settings = AutoencoderSettings(**{**settings.__dict__, "nonnegative": False, "steps": 150})
    found = fit_autoencoder(mixtures, settings)
    assert found.config()["sizes"] == [16, 8]
    assert gain(found, mixtures.part("test")) > 4


def test_level_of_a_frame_is_its_mean():
    magnitudes = torch.rand(3, 33, 5)
    magnitudes[0, :, 2] = 0
    level = frame_levels(magnitudes)
    assert level.shape == (3, 1, 5) and level.min() > 0
    np.testing.assert_allclose(level[1, 0], magnitudes[1].numpy().mean(0), rtol=1e-6)
    assert torch.equal(activate(torch.tensor([-2.0, 3.0]), "abs"), torch.tensor([2.0, 3.0]))
