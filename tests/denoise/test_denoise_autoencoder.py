"""The partitioned autoencoder and its losses: against slow numpy and autograd-free definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle import bundle
from ossicle.denoise.objective import (
    PartitionedTraining,
    latent_mask,
    partition_penalty,
    remix_loss,
)
from ossicle.errors import OssicleError
from ossicle.separators.partitioned_autoencoder import LEAK, PartitionedAutoencoder
from ossicle.train import Batch, Step

WIDE = {
    "sample_rate": 16_000, "n_fft": 256, "hop_length": 128, "n_bands": 20, "scale": "mel",
    "compression": "sqrt", "n_foreground": 5, "n_background": 3, "kernel": 3, "depth": 2,
    "width": 8, "decoder_bias": False, "quiet": 0.2, "own_level": True,
}  # fmt: skip


def _net(**keywords):
    torch.manual_seed(0)
    net = PartitionedAutoencoder(**keywords)
    net.band_mean.copy_(0.1 + 0.1 * torch.rand(len(net.band_mean)))
    net.band_std.copy_(0.5 + torch.rand(len(net.band_std)))
    return net.eval()


def _convolved(x, weight, bias):
    """(b, C, T) with (O, C, k), same length, as sums."""
    out, _, kernel = weight.shape
    half = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half)))
    found = np.zeros((len(x), out, x.shape[-1]))
    for t in range(x.shape[-1]):
        found[:, :, t] = np.einsum("bck,ock->bo", padded[:, :, t : t + kernel], weight)
    return found + (0 if bias is None else bias[:, None])


def _slow(net, bands, kept):
    """The authors' network in numpy: (b, B, T) -> decoded bands, of the latents kept alone."""
    w = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
    x = (bands - w["band_mean"][:, None]) / w["band_std"][:, None]
    x = np.concatenate([x, x[..., -1:]], -1) if x.shape[-1] % 2 else x
    z = _convolved(x, w["to_latents.weight"], w["to_latents.bias"])
    z = np.where(z > 0, z, LEAK * z)
    back, pooled = np.zeros_like(z), np.zeros((*z.shape[:2], z.shape[2] // 2))
    for b, k, p in np.ndindex(*pooled.shape):
        pair = z[b, k, 2 * p : 2 * p + 2]
        at = int(pair.argmax())
        pooled[b, k, p] = pair[at]
        back[b, k, 2 * p + at] = pair[at] * kept[k]
    out = _convolved(back, w["to_bands.weight"], w["to_bands.bias"])
    return np.maximum(out, 0)[..., : bands.shape[-1]], pooled


@pytest.mark.parametrize("n_frames", [12, 13])
def test_the_authors_network_is_its_slow_definition(n_frames):
    net = _net()
    bands = np.random.default_rng(0).random((2, 32, n_frames))
    given = torch.from_numpy(bands).float()
    latents, places = net.encode(given)
    wanted, pooled = _slow(net, bands, np.ones(6))
    np.testing.assert_allclose(latents.detach().numpy(), pooled, atol=1e-5)
    found = net.decode(latents, places, n_frames).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for foreground, kept in ((True, [1, 1, 1, 0, 0, 0]), (False, [0, 0, 0, 1, 1, 1])):
        alone = net.decode(net.only(latents, foreground), places, n_frames).detach().numpy()
        np.testing.assert_allclose(alone, _slow(net, bands, np.array(kept))[0], atol=1e-5)


def test_zeroed_latents_are_exactly_zero_and_the_others_untouched():
    net = _net(**WIDE)
    latents = torch.randn(2, 8, 6)
    ours, theirs = net.only(latents, True), net.only(latents, False)
    assert torch.equal(ours[:, :5], latents[:, :5])
    assert not ours[:, 5:].any()
    assert torch.equal(theirs[:, 5:], latents[:, 5:])
    assert not theirs[:, :5].any()


def test_without_decoder_bias_no_latents_decode_to_silence():
    net = _net(**WIDE)
    latents, places = net.encode(torch.rand(1, 20, 10))
    assert not net.decode(torch.zeros_like(latents), places, 10).any()


def test_penalty_and_its_gradient_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    z, noisy, lam_s, n_foreground = rng.standard_normal((4, 5, 3)), np.array([1, 0, 0, 1]), 1.7, 2
    c = np.zeros_like(z)
    for b, k in np.ndindex(4, 5):
        if noisy[b] == 0 and k < n_foreground:
            c[b, k] = 1
    latents = torch.from_numpy(z).requires_grad_()
    mask = latent_mask(latents, n_foreground, torch.from_numpy(noisy))
    np.testing.assert_array_equal(mask.numpy(), c)
    value = partition_penalty(latents, mask, lam_s)
    value.backward()
    # (s / c) ||C Z||^2 over all entries: the mean of the square where C is 1.
    assert float(value) == pytest.approx(lam_s * (z[c == 1] ** 2).mean(), rel=1e-6)
    np.testing.assert_allclose(latents.grad.numpy(), lam_s * 2 * c * z / c.sum(), rtol=1e-6)


def test_penalty_vanishes_for_noisy_recordings_with_its_gradient():
    latents = torch.randn(3, 4, 5, requires_grad=True)
    value = partition_penalty(latents, latent_mask(latents, 2, torch.ones(3)), 5.0)
    value.backward()
    assert float(value) == 0
    assert not latents.grad.any()


def test_remix_loss_is_the_weighted_error_less_its_constant():
    rng = np.random.default_rng(0)
    x, t = (rng.standard_normal((2, 9, 6)) + 1j * rng.standard_normal((2, 9, 6)) for _ in range(2))
    share = rng.random((2, 3, 6))
    hats = np.abs(rng.standard_normal((3, 9)))
    wanted = []
    for b in range(2):
        error = total = 0.0
        mean = [np.mean([sum(hats[k] * abs(x[b, :, f]) ** 2) for f in range(6)]) for k in range(3)]
        for k in range(3):
            weight = (mean[k] + 1e-3 * np.mean(mean)) ** -0.5
            for f, at in np.ndindex(9, 6):
                error += weight * hats[k, f] * abs(share[b, k, at] * x[b, f, at] - t[b, f, at]) ** 2
                error -= weight * hats[k, f] * abs(t[b, f, at]) ** 2
                total += weight * hats[k, f] * abs(x[b, f, at]) ** 2
        wanted.append(error / total)
    given = (torch.from_numpy(a) for a in (x, t, share, hats))
    assert float(remix_loss(*given, 0.5)) == pytest.approx(np.mean(wanted), rel=1e-9)


def test_the_best_mask_for_remixed_targets_is_that_for_the_clean_part():
    # Wiener: of a foreground with 4 times the power of the noise in a bin, heard with two noises.
    rng = np.random.default_rng(0)

    def drawn(power):
        parts = rng.standard_normal((2, 20_000)) * np.sqrt(power / 2)
        return parts[0] + 1j * parts[1]

    s, m, n = drawn(4.0), drawn(1.0), drawn(1.0)
    x, target = (torch.from_numpy(a)[None, None] for a in (s + m + n, s + m - n))
    shares = torch.linspace(0, 1, 101, dtype=torch.float64)
    hats = torch.ones(1, 1, dtype=torch.float64)
    losses = [float(remix_loss(x, target, q.expand(1, 1, 20_000), hats, 0.0)) for q in shares]
    assert float(shares[int(np.argmin(losses))]) == pytest.approx(4 / 6, abs=0.03)


def test_loss_of_a_batch_is_its_parts():
    net = _net(**WIDE)
    waveforms = 0.1 * torch.randn(4, 2, 2000)
    batch = Batch(waveforms, [""] * 4, slice(0, 4), 4, targets=torch.tensor([1, 0, 1, 0]))
    step = Step(0, 1, torch.Generator(), 4, slice(0, 4), lambda x: x)
    loss, parts = PartitionedTraining(net, penalty=0.3, remix=2.0)(batch, step)
    together = parts["reconstruction"] + 0.3 * parts["penalty"] + 2.0 * parts["remix"]
    assert float(loss.detach()) == pytest.approx(float(together), rel=1e-6)
    plain, parts = PartitionedTraining(net, penalty=0.0, remix=0.0)(batch, step)
    bands = net.bands(net.fourier.analyse(waveforms[:, 0]))
    latents, places = net.encode(bands)
    whole = net.decode(latents, places, bands.shape[-1])
    unit = float((net.band_std**2).mean())
    wanted = ((whole - bands) ** 2).mean().item() / unit
    assert float(plain.detach()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("keywords", [{}, WIDE], ids=["paper", "bands"])
def test_masks_lie_in_0_to_1_and_add_up(keywords):
    net = _net(**keywords)
    spectrum = net.fourier.analyse(0.3 * torch.randn(5001))
    with torch.inference_mode():
        masks = net.masks(spectrum, 2)
    assert masks.shape == (2, *spectrum.shape)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    torch.testing.assert_close(masks.sum(0), torch.ones(spectrum.shape))


def test_a_gated_mask_is_the_product_of_share_and_opening():
    from ossicle.separators.spectral_gate import SpectralGate

    net = _net(**WIDE, floor_db=-100.0)
    spectrum = net.fourier.analyse(0.3 * torch.randn(5001))
    with torch.inference_mode():
        alone = net.masks(spectrum, 2)[0]
        net.gate = 0.5
        gated = net.masks(spectrum, 2)[0]
    opening = SpectralGate(16_000, n_fft=256, hop_length=128).opening(spectrum)
    torch.testing.assert_close(gated, alone * opening.sqrt(), atol=1e-4, rtol=1e-3)


def test_decoded_output_has_the_magnitude_that_was_decoded():
    # As many bands as bins: then the foreground's spectrum is the decoding itself.
    net = _net(sample_rate=16_000, n_fft=16, hop_length=8, n_bands=9, output="decoded")
    samples = 0.3 * torch.randn(1, 401)
    spectrum = net.fourier.analyse(samples[0])
    bands = net.bands(spectrum)[None]
    latents, places = net.encode(bands)
    wanted = net.decode(net.only(latents, True), places, bands.shape[-1])[0] / (2 / 16)
    with torch.inference_mode():
        found = net.masks(spectrum, 2)[0] * spectrum.abs()
    torch.testing.assert_close(found, wanted.detach(), atol=1e-4, rtol=1e-3)


def test_hats_add_up_and_bands_of_a_tone_are_its_level():
    for scale in ("linear", "mel", "erb"):
        net = PartitionedAutoencoder(16_000, n_fft=512, hop_length=256, n_bands=40, scale=scale)
        torch.testing.assert_close(net.hats.sum(0), torch.ones(257))
        assert float(net.hats.min()) >= 0
    flat = torch.full((257, 3), 0.25 * 256, dtype=torch.complex64)
    torch.testing.assert_close(net.bands(flat), torch.full((40, 3), 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize("compression", ["none", "sqrt", "log"])
def test_compression_is_undone(compression):
    net = PartitionedAutoencoder(compression=compression)
    spectrum = net.fourier.analyse(0.3 * torch.randn(1000))
    plain = PartitionedAutoencoder().bands(spectrum)
    torch.testing.assert_close(net.magnitudes(net.bands(spectrum)), plain, rtol=1e-3, atol=1e-6)


def test_an_item_is_the_same_in_any_batch():
    net = _net(**WIDE)
    bands = torch.rand(5, 20, 31)
    with torch.inference_mode():
        many = net.encode(bands)[0]
        alone = torch.cat([net.encode(one[None])[0] for one in bands])
    torch.testing.assert_close(many, alone, atol=1e-6, rtol=1e-5)


def test_with_its_own_level_loudness_is_no_matter():
    net = _net(**WIDE)
    samples = 0.1 * torch.randn(1, 6000)
    torch.testing.assert_close(
        net.separate(10 * samples)[0], 10 * net.separate(samples)[0], atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("keywords", [{}, WIDE], ids=["paper", "bands"])
def test_a_bundle_brings_it_back(keywords, tmp_path):
    net = _net(**keywords)
    net.output, net.exponent, net.floor_db, net.gate = "decoded", 3.0, -25.0, 0.5
    bundle.save(net, tmp_path / "net.ossicle")
    again = bundle.load_separator(tmp_path / "net.ossicle")
    samples = 0.1 * torch.randn(2, 6000)
    assert torch.equal(again.separate(samples), net.separate(samples))
    assert (again.output, again.exponent, again.floor_db, again.gate) == (
        "decoded",
        3.0,
        -25.0,
        0.5,
    )


def test_silence_and_short_stretches():
    net = _net(**WIDE)
    assert not net.separate(torch.zeros(1, 3000)).any()
    assert bool(net.separate(0.1 * torch.randn(1, 40)).isfinite().all())


def test_mistakes_of_keywords_are_told():
    with pytest.raises(OssicleError, match="scale"):
        PartitionedAutoencoder(scale="bark")
    with pytest.raises(OssicleError, match="odd"):
        PartitionedAutoencoder(kernel=4)
    with pytest.raises(OssicleError, match="Hz"):
        PartitionedAutoencoder(sample_rate=8000, f_max=5000.0)
    with pytest.raises(OssicleError, match="output"):
        PartitionedAutoencoder().output = "both"
