"""The numbers of an inspection, each against something that does not share its code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import freqz
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from ossicle.backbones.gammatone import erb_centres_hz, erb_hz, gammatone_filters
from ossicle.errors import DataError, OssicleError
from ossicle.inspection.bases import base_table, in_order
from ossicle.inspection.embeddings import neighbour_agreement, plane, silhouette
from ossicle.inspection.filters import filter_table, power_responses, relative_db
from ossicle.inspection.latents import latent_table
from ossicle.inspection.layer_cka import layer_cka
from ossicle.inspection.speakers import matched
from ossicle.inspection.spectra import (
    centre_of,
    largest,
    modulation_spectra,
    share_by_frequency,
)
from ossicle.inspection.weights import effective_rank, singular_values, weight_table
from ossicle.transfer.transferability import linear_cka

RATE = 16_000


def test_the_centre_of_a_windowed_sine_is_its_frequency():
    t = np.arange(400) / RATE
    wanted = [211.3, 1000.0, 5234.5]
    filters = np.stack([np.hanning(400) * np.sin(2 * np.pi * f * t) for f in wanted[::-1]])
    table = filter_table(filters, RATE)
    np.testing.assert_allclose(table["centre_hz"], wanted, atol=0.5)
    assert list(table["filter"]) == [2, 1, 0]
    # A Hann window of N samples is 1.5 bins of the transform wide (Harris 1978, table 1).
    np.testing.assert_allclose(table["bandwidth_hz"], 1.5 * RATE / 400, rtol=0.01)


def test_responses_are_those_of_scipy():
    filters = gammatone_filters(erb_centres_hz(8, 125, 7500), RATE, 400)
    frequencies, power = power_responses(filters, RATE)
    for row, impulse in zip(power, filters, strict=True):
        _, response = freqz(impulse, worN=frequencies[::97], fs=RATE)
        np.testing.assert_allclose(row[::97], np.abs(response) ** 2, rtol=1e-9, atol=1e-12)


def test_a_gammatone_is_as_wide_as_the_ear():
    centres = np.array([1000.0, 2000.0, 4000.0])
    table = filter_table(gammatone_filters(centres, RATE, 4000), RATE)
    np.testing.assert_allclose(table["centre_hz"], centres, rtol=0.002)
    np.testing.assert_allclose(table["bandwidth_hz"], erb_hz(centres), rtol=0.005)


def test_a_filter_of_zeros_comes_last_and_has_no_centre():
    t = np.arange(64) / RATE
    table = filter_table(np.stack([np.zeros(64), np.cos(2 * np.pi * 3000 * t)]), RATE)
    assert list(table["filter"]) == [1, 0]
    assert np.isnan(table["centre_hz"][1])
    assert relative_db(np.zeros((1, 4))).tolist() == [[-60.0] * 4]
    with pytest.raises(OssicleError, match="finite"):
        power_responses(np.array([[np.nan, 1.0]]), RATE)


def slow_debiased_cka(X, Y):
    """Song et al. 2007, equation 4, term by term."""
    n = len(X)

    def hsic(K, L):
        K, L = K.copy(), L.copy()
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        one = np.ones(n)
        first = np.trace(K @ L)
        second = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        third = 2 / (n - 2) * (one @ K @ L @ one)
        return (first + second - third) / (n * (n - 3))

    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def test_cka_is_the_definition_and_does_not_hear_rotations():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 7)) + 3
    rotation = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    noise = rng.normal(size=(24, 5))
    layers = {"a": X, "b": 4 * X @ rotation + 1, "c": X[:, :3], "d": noise, "flat": X * 0 + 2}
    found = layer_cka(layers)
    names = list(layers)
    for i, first in enumerate(names[:4]):
        for j, second in enumerate(names[:4]):
            want = slow_debiased_cka(layers[first], layers[second])
            assert found.matrix[i, j] == pytest.approx(want, abs=1e-9)
            assert linear_cka(layers[first], layers[second], debiased=True) == pytest.approx(
                want, abs=1e-9
            )
    assert found.matrix[0, 1] == pytest.approx(1, abs=1e-12)
    assert abs(found.matrix[0, 3]) < 0.35
    assert np.isnan(found.matrix[4]).all()
    with pytest.raises(DataError, match="at least 8"):
        layer_cka({"a": X[:7]})


def test_intervals_of_cka_leave_out_whole_groups():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(12, 4))
    layers = {"a": X, "b": X[:, :2] + 0.3 * rng.normal(size=(12, 2))}
    groups = np.repeat(list("pqrs"), 3)
    found = layer_cka(layers, groups)
    without = []
    for name in "pqrs":
        kept = groups != name
        without.append(slow_debiased_cka(layers["a"][kept], layers["b"][kept]))
    error = np.sqrt(3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2))
    from scipy.stats import t

    assert found.low[0, 1] == pytest.approx(found.matrix[0, 1] - t.ppf(0.975, 3) * error)
    assert found.neighbours[0] == pytest.approx(found.matrix[0, 1])
    assert found.neighbours[1] == pytest.approx(found.low[0, 1])
    assert found.n_groups == 4


def test_the_plane_is_that_of_the_singular_vectors():
    X = np.random.default_rng(2).normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1] + 7
    points, shares = plane(X)
    U, s, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(U[:, :2] * s[:2]), atol=1e-9)
    np.testing.assert_allclose(shares, (s**2 / np.sum(s**2))[:2])
    np.testing.assert_allclose(points, PCA(2, svd_solver="full").fit_transform(X))
    with pytest.raises(DataError, match="alike"):
        plane(np.ones((5, 3)))


def test_neighbours_of_the_same_group_do_not_count():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 12)
    points = rng.normal(size=(24, 5)) + 6 * np.eye(5)[labels]
    same = labels[:, None] == labels
    far = neighbour_agreement(points, same)
    assert far.value == 1.0
    assert far.low < 1
    assert far.chance == pytest.approx(11 / 23)
    groups = np.arange(24) // 2
    centred = points - points.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    shuffled = rng.permutation(labels)
    same = shuffled[:, None] == shuffled
    slow = []
    for i in range(24):
        others = [j for j in range(24) if groups[j] != groups[i]]
        nearest = sorted(others, key=lambda j, i=i: -unit[i] @ unit[j])[:5]
        slow.append(np.mean([same[i, j] for j in nearest]))
    assert neighbour_agreement(points, same, groups).value == pytest.approx(np.mean(slow))
    assert np.isnan(neighbour_agreement(points, same, np.zeros(24)).value)
    assert silhouette(points, labels) > 0.5
    assert np.isnan(silhouette(points, np.zeros(24)))


def test_the_auc_of_latents_is_scikit_learns():
    rng = np.random.default_rng(4)
    active = rng.random(80) < 0.4
    values = np.round(rng.normal(size=(80, 3)) + active[:, None] * [2.0, 0.0, -2.0], 1)
    groups = np.arange(80) // 4
    table = latent_table(active, values, groups)
    for k in range(3):
        assert table["auc"][k] == pytest.approx(roc_auc_score(active, values[:, k]))
        assert table["mean_with"][k] == pytest.approx(values[active, k].mean())
    assert (table["low"] <= table["auc"]).all()
    assert (table["auc"] <= table["high"]).all()
    assert table["low"][0] > 0.5 > table["high"][2]
    assert table["low"][1] < 0.5 < table["high"][1]
    for wrong in (np.ones(80, bool), active[:5]):
        with pytest.raises(DataError):
            latent_table(wrong, values, groups)


def test_a_ripple_peaks_at_its_modulation():
    rows, columns = np.mgrid[:16, :16]
    kernels = np.stack(
        [
            np.cos(2 * np.pi * (columns / 4 + rows / 8)),
            np.cos(2 * np.pi * (rows / 8 - columns / 4)),
        ]
    )
    scales, rates, spectra = modulation_spectra(kernels)
    for spectrum, rate in zip(spectra, (0.25, -0.25), strict=True):
        i, j = np.unravel_index(spectrum.argmax(), spectrum.shape)
        assert (scales[i], rates[j]) == (0.125, rate)
    np.testing.assert_allclose(spectra[0, 0, len(rates) // 2], abs(kernels[0].sum()), atol=1e-9)
    assert largest(np.array([[1.0], [-3.0], [2.0]]), 2).tolist() == [1, 2]


def test_shares_by_frequency_are_densities():
    _, even = share_by_frequency(np.array([[[[2.0, 0.0, 0.0]]]]), 3)
    np.testing.assert_allclose(even, 1)
    frequencies, smooth = share_by_frequency(np.ones((1, 1, 2, 3)), 3)
    want = (1 + 2 * np.cos(2 * np.pi * frequencies)) ** 2 / 3
    np.testing.assert_allclose(smooth, want, atol=1e-12)
    kernels = np.random.default_rng(6).normal(size=(5, 2, 4, 3))
    frequencies, density = share_by_frequency(kernels, 2)
    power = (np.abs(np.fft.rfft(kernels, 64, axis=2)) ** 2).sum(axis=(0, 1, 3))
    np.testing.assert_allclose(density, power / np.sum(kernels**2), atol=1e-12)
    assert centre_of(frequencies, even) == pytest.approx(0.25)
    assert centre_of(frequencies, smooth) < 0.25


def test_ranks_of_weights():
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(6, 9))
    np.testing.assert_allclose(singular_values(matrix), np.linalg.svd(matrix)[1])
    assert effective_rank(np.ones(5)) == pytest.approx(5)
    assert effective_rank(np.array([3.0, 0, 0])) == pytest.approx(1)
    assert np.isnan(effective_rank(np.zeros(3)))
    table = weight_table([("bias", torch.ones(3)), ("w", torch.eye(4).reshape(4, 2, 2))])
    assert table["weight"].tolist() == ["w"]
    assert table["effective_rank"][0] == pytest.approx(4)
    assert table["spectral_norm"][0] == pytest.approx(1)


def test_bases_are_in_the_order_of_their_centroids():
    frequencies = np.array([0.0, 100.0, 200.0, 300.0])
    low, high = np.array([0, 3.0, 1, 0]), np.array([0, 0, 1.0, 1])
    bases = {"speech": np.stack([high, low], 1), "noise": low[:, None]}
    table = base_table(bases, frequencies, {"speech": np.array([1.0, 3]), "noise": np.array([2.0])})
    assert table["column"].tolist() == [1, 0, 0]
    assert table["centroid_hz"].tolist() == pytest.approx([125, 250, 125])
    assert table["share"].tolist() == pytest.approx([0.75, 0.25, 1])
    assert table["width_hz"][1] == pytest.approx(50)
    columns, borders = in_order(bases, table)
    np.testing.assert_allclose(columns[:, 0], low / 3)
    assert borders == [(0, "speech"), (2, "noise")]


def test_clusters_are_named_so_that_most_agree():
    truth = np.array([0, 0, 1, 1, 2, 2, 2])
    found = np.array([2, 2, 0, 0, 1, 1, 0])
    assert (matched(found, truth, 3) == truth).mean() == pytest.approx(6 / 7)
    many = np.arange(8).repeat(2)
    assert (matched((many + 3) % 8, many, 8) == many).all()
