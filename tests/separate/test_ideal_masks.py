"""Ideal masks against their definitions, bin by bin, and as the bounds that they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ossicle.errors import OssicleError
from ossicle.metrics.separation import si_sdr
from ossicle.separators.fourier import Fourier
from ossicle.separators.ideal import (
    KINDS,
    IdealMask,
    ideal_binary_mask,
    ideal_ratio_mask,
    phase_sensitive_mask,
)


def _spectra(seed: int = 0, *shape: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = shape or (3, 5, 7)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return torch.from_numpy(values.astype(np.complex64))


def _sources(count: int = 2, length: int = 4000) -> torch.Tensor:
    """Noises that come and go, so that bins have an owner."""
    rng = np.random.default_rng(count)
    sources = rng.standard_normal((count, length)).cumsum(-1) % 1.0 - 0.5
    gate = rng.random((count, length // 400)).repeat(400, -1) > 0.4
    return torch.from_numpy((sources * gate).astype(np.float32))


def test_masks_by_their_definitions_bin_by_bin():
    spectra = _spectra()
    exact = spectra.numpy().astype(np.complex128)
    binary, ratio = ideal_binary_mask(spectra).numpy(), ideal_ratio_mask(spectra).numpy()
    wiener, phase = ideal_ratio_mask(spectra, 2).numpy(), phase_sensitive_mask(spectra).numpy()
    for f, t in itertools.product(range(5), range(7)):
        bins = exact[:, f, t]
        levels = [abs(one) for one in bins]
        for s in range(3):
            assert binary[s, f, t] == (levels[s] == max(levels))
            assert ratio[s, f, t] == pytest.approx(levels[s] / sum(levels), abs=1e-6)
            power = levels[s] ** 2 / sum(level**2 for level in levels)
            assert wiener[s, f, t] == pytest.approx(power, abs=1e-6)
            assert phase[s, f, t] == pytest.approx((bins[s] / bins.sum()).real, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_add_up_to_one_and_estimates_to_the_mixture(kind):
    sources = _sources(3)
    mask = IdealMask(kind, 256, 64)
    masks = mask.masks(sources)
    assert masks.shape == (3, 129, 63) and masks.dtype == torch.float32
    np.testing.assert_allclose(masks.sum(0), 1, rtol=0, atol=2e-4 if kind == "phase" else 1e-6)
    if kind != "phase":
        assert masks.min() >= 0 and masks.max() <= 1
    estimates = mask.separate(sources.sum(0), sources)
    assert estimates.shape == sources.shape
    np.testing.assert_allclose(estimates.sum(0), sources.sum(0), rtol=0, atol=2e-5)


def test_ties_and_silence():
    tied = torch.ones(2, 1, 3, dtype=torch.complex64)
    tied[:, 0, 1] = 0
    tied[1, 0, 2] = 1j  # as loud, another phase
    np.testing.assert_array_equal(ideal_binary_mask(tied)[:, 0], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(ideal_ratio_mask(tied)[:, 0], np.full((2, 3), 0.5))
    np.testing.assert_array_equal(phase_sensitive_mask(tied)[:, 0], np.full((2, 3), 0.5))
    # Very quiet is not silent: its squares are below what float32 holds.
    faint = ideal_ratio_mask(torch.tensor([[[3e-30]], [[1e-30]]], dtype=torch.complex64), 2)
    np.testing.assert_allclose(faint[:, 0, 0], [0.9, 0.1], atol=1e-6)


def test_each_mask_is_the_best_of_its_kind():
    """The least squared error of all 0/1 masks, and of all real ones, bin by bin."""
    spectra = _spectra(1, 2, 4, 6)
    mixture = spectra.sum(0)

    def error(masks: torch.Tensor) -> torch.Tensor:
        return ((masks * mixture - spectra).abs() ** 2).sum(0)

    best = error(phase_sensitive_mask(spectra))
    for share in np.linspace(-3, 3, 121):
        tried = torch.tensor([share, 1 - share], dtype=torch.float32)[:, None, None]
        assert (error(tried) >= best - 1e-5).all()
    for first in (0.0, 1.0):
        tried = torch.tensor([first, 1 - first])[:, None, None]
        assert (error(tried) >= error(ideal_binary_mask(spectra)) - 1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_sources_in_bands_of_their_own_come_out_whole(kind):
    time = torch.arange(8000) / 8000
    sources = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (440.0, 2000.0)])
    sources *= torch.hann_window(8000)
    estimates = IdealMask(kind, 256, 64).separate(sources.sum(0), sources)
    # The least sharp one shares 440 Hz by a window's side lobes at 2000 Hz.
    assert si_sdr(estimates, sources).min() > (30 if kind == "ratio" else 50)


def test_any_length_and_wrong_arguments():
    for length in (1, 63, 300, 1001):
        sources = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
        assert IdealMask("binary", 64, 16).separate(sources.sum(0), sources).shape == (2, length)
    with pytest.raises(OssicleError, match="unknown ideal mask 'hard'; there are binary, ratio"):
        IdealMask("hard", 256, 64)
    with pytest.raises(OssicleError, match="cannot be inverted"):
        IdealMask("binary", 256, 200)
    assert IdealMask("binary", 256, 64).fourier == Fourier(256, 64)
