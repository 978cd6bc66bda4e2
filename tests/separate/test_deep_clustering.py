"""Deep clustering against slow definitions: affinities of all pairs, masks, K-means' answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.errors import OssicleError
from ossicle.separators.deep_clustering import (
    DeepClustering,
    affinity_loss,
    ideal_assignment,
    whitened_loss,
)

RATE = 8000


def _small(**keywords: object) -> DeepClustering:
    torch.manual_seed(0)
    network = DeepClustering(hidden=8, n_layers=1, embedding=4, **keywords)  # type: ignore[arg-type]
    return network.eval().requires_grad_(False)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((3, 40, 5))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    assignment = np.eye(2)[rng.integers(2, size=(3, 40))]
    weight = rng.random((3, 40)) * (rng.random((3, 40)) > 0.3)
    return torch.from_numpy(vectors), torch.from_numpy(assignment), torch.from_numpy(weight)


def test_the_affinity_loss_is_that_of_all_pairs_of_bins() -> None:
    vectors, assignment, weight = _problem()
    expected = []
    for v, y, w in zip(vectors.numpy(), assignment.numpy(), weight.numpy(), strict=True):
        total = 0.0
        for i in range(len(v)):
            for j in range(len(v)):
                total += w[i] * w[j] * (v[i] @ v[j] - y[i] @ y[j]) ** 2
        expected.append(total / max(w.sum(), 1.0) ** 2)
    np.testing.assert_allclose(affinity_loss(vectors, assignment, weight), expected, rtol=1e-12)


def test_silent_bins_have_no_part_in_either_loss() -> None:
    vectors, assignment, weight = _problem()
    silent = weight == 0
    changed = torch.where(silent[..., None], -vectors.roll(1, -1), vectors)
    assert silent.any()
    for loss in (affinity_loss, whitened_loss):
        before, after = (loss(v, assignment, weight) for v in (vectors, changed))
        np.testing.assert_allclose(before, after, rtol=1e-12)


def test_the_whitened_loss_is_the_residual_of_whitened_k_means() -> None:
    # The slow way: whiten the vectors, let each source's mean stand for its bins, take the share
    # of the variance that is left.
    vectors, assignment, weight = _problem()
    weight = (weight > 0).double()
    found = whitened_loss(vectors, assignment, weight)
    for v, y, w, loss in zip(vectors, assignment, weight, found, strict=True):
        heard = w > 0
        left, right = v[heard].numpy(), y[heard].numpy()
        values, basis = np.linalg.eigh(left.T @ left)
        white = left @ basis / np.sqrt(values)
        residual = 0.0
        for source in range(2):
            own = white[right[:, source] == 1]
            residual += np.square(own - own.mean(0)).sum()
        assert float(loss) == pytest.approx(residual / left.shape[1], abs=2e-3)  # its ridge


def test_both_losses_are_least_where_each_source_has_a_direction_of_its_own() -> None:
    _, assignment, weight = _problem()
    weight = (weight > 0).double()
    perfect = torch.cat([assignment, torch.zeros(3, 40, 3, dtype=torch.float64)], -1)
    assert float(affinity_loss(perfect, assignment, weight).max()) < 1e-12
    one = torch.zeros_like(perfect)
    one[..., 0] = 1  # all bins alike
    assert (affinity_loss(one, assignment, weight) > 0.3).all()


def test_the_ideal_assignment_is_the_loudest_source_in_the_order_of_frames() -> None:
    spectra = torch.complex(_noise(2, 3, 5, 4), _noise(2, 3, 5, 4, seed=1))
    found = ideal_assignment(spectra).numpy()
    power = np.abs(spectra.numpy()) ** 2
    for b in range(2):
        for t in range(4):
            for f in range(5):
                assert found[b, t * 5 + f].argmax() == power[b, :, f, t].argmax()
    assert (found.sum(-1) == 1).all()


@pytest.mark.parametrize("mask", ["binary", "soft"])
@pytest.mark.parametrize("n_sources", [2, 3])
def test_the_sources_add_up_to_the_recording(mask: str, n_sources: int) -> None:
    samples = _noise(2, 5001)
    sources = _small(mask=mask).separate(samples, n_sources)
    assert sources.shape == (n_sources, 2, 5001)
    np.testing.assert_allclose(sources.sum(0), samples, atol=2e-5)
    assert float(sources.std(dim=(1, 2)).min()) > 0


def test_binary_masks_are_zero_or_one_and_soft_ones_follow_them() -> None:
    network = _small()
    spectrum = network.fourier.analyse(_noise(4000))
    binary = network.masks(spectrum, 2)
    assert set(np.unique(binary.numpy())) == {0.0, 1.0}
    network.mask = "soft"
    soft = network.masks(spectrum, 2)
    np.testing.assert_allclose(soft.sum(0), 1, atol=1e-6)
    assert ((soft > 0.5) == (binary > 0.5)).all()


def test_bins_that_lie_together_get_one_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _small()
    spectrum = network.fourier.analyse(_noise(6000))
    n_bins, n_frames = spectrum.shape
    truth = (torch.arange(n_bins) % 3 == 0).long().repeat(n_frames)  # frames first
    directions = torch.tensor([[1.0, 0, 0, 0], [0, 0.6, 0.8, 0]])
    jitter = 0.05 * _noise(n_bins * n_frames, 4)
    monkeypatch.setattr(network, "embed", lambda levels: (directions[truth] + jitter)[None])
    masks = network.masks(spectrum, 2)
    expected = truth.reshape(n_frames, n_bins).T.float()
    same = (masks[1] == expected).float().mean()
    assert float(max(same, 1 - same)) == 1.0


def test_silence_is_shared_alike() -> None:
    sources = _small().separate(torch.zeros(1, 3000))
    assert sources.shape == (2, 1, 3000)
    assert float(sources.abs().max()) == 0


def test_loudness_changes_nothing_but_loudness() -> None:
    samples = _noise(1, 4000)
    network = _small()
    np.testing.assert_allclose(
        network.separate(samples * 0.125), 0.125 * network.separate(samples), atol=1e-6
    )


def test_the_same_input_gives_the_same_output() -> None:
    samples, network = _noise(1, 8000), _small()
    first = network.separate(samples)
    torch.manual_seed(5)
    np.random.default_rng(7)
    np.testing.assert_array_equal(network.separate(samples), first)


def test_the_embedding_has_unit_length_and_the_order_of_the_bins() -> None:
    network = _small()
    levels = network.levels(network.fourier.analyse(_noise(2, 2000)))
    vectors = network.embed(levels)
    assert vectors.shape == (2, levels.shape[1] * 129, 4)
    np.testing.assert_allclose(vectors.norm(dim=-1), 1, atol=1e-5)
    # The output layer's units are bin by bin, so a changed bias moves one bin in every frame.
    network.project.bias[4 * 7 : 4 * 8] += 3
    moved = (network.embed(levels) - vectors).abs().sum(-1) > 1e-6
    bins = torch.arange(129).repeat(levels.shape[1])
    assert set(bins[moved[0]].tolist()) == {7}


def test_levels_are_decibels_below_the_loudest_bin() -> None:
    network = _small()
    spectra = network.fourier.analyse(_noise(1, 3000))
    found = network.levels(spectra)[0].numpy()
    magnitude = np.abs(spectra[0].numpy())
    expected = np.maximum(20 * np.log10(magnitude / magnitude.max()), -80).T
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_bad_values_are_refused() -> None:
    with pytest.raises(OssicleError, match="takes no names"):
        DeepClustering(sources=["a", "b"])
    with pytest.raises(OssicleError, match="choose one of soft, binary"):
        DeepClustering(mask="hard")
    with pytest.raises(OssicleError, match="cannot be inverted"):
        DeepClustering(n_fft=256, hop_length=200)
    with pytest.raises(OssicleError, match="ask for 2 to"):
        _small().separate(_noise(1, 4000), 1)
