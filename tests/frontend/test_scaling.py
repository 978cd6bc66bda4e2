"""Compression, weighting and standardisation against librosa and the study's formulas."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.frontend import LogMel
from ossicle.frontend.scaling import Scaling, a_weighting_db, decibel, standardise

FREQUENCIES = np.linspace(100, 5500, 30)
PLAIN = {
    "power": 2.0,
    "scaling": "linear",
    "offset": 1e-7,
    "reference": "max",
    "top_db": 80.0,
    "a_weighting": False,
    "standardise_per_frequency": False,
    "standardise_per_sample": False,
    "scale": 1.0,
}


def spectra(seed: int = 0) -> np.ndarray:
    """(3, 30, 40) positive values over 14 decades, the items at very different levels."""
    generator = np.random.default_rng(seed)
    values = 10 ** generator.uniform(-12, 2, (3, 30, 40))
    return (values * np.array([1e-3, 1.0, 10.0])[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("top_db", [80.0, 30.0, None])
@pytest.mark.parametrize("reference", ["max", 1.0, 0.25])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_decibels_equal_librosa_item_by_item(top_db, reference, power) -> None:
    x = spectra()
    convert = librosa.power_to_db if power == 2.0 else librosa.amplitude_to_db
    expected = [
        convert(
            item.astype(np.float64),
            ref=np.max if reference == "max" else reference,
            amin=1e-10,
            top_db=top_db,
        )
        for item in x
    ]
    output = decibel(torch.from_numpy(x), power=power, reference=reference, top_db=top_db)
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-4)


def test_decibels_against_the_maximum_lie_in_the_range() -> None:
    output = decibel(torch.from_numpy(spectra()))
    assert output.amax(dim=(1, 2)).tolist() == [0, 0, 0]
    assert output.amin() == -80


@settings(max_examples=50, deadline=None)
@given(gain_db=st.floats(-30, 12), seed=st.integers(0, 100))
def test_a_gain_moves_fixed_decibels_and_not_relative_ones(gain_db: float, seed: int) -> None:
    waveform = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(seed))
    louder = waveform * 10 ** (gain_db / 20)
    fixed = LogMel(8000, n_mels=20, reference=1.0)
    relative = LogMel(8000, n_mels=20)
    difference = fixed(louder) - fixed(waveform)
    torch.testing.assert_close(difference, torch.full_like(difference, gain_db), rtol=0, atol=1e-3)
    torch.testing.assert_close(relative(louder), relative(waveform), rtol=0, atol=1e-3)


def test_doubling_the_gain_adds_6_db(tones) -> None:
    waveform = torch.from_numpy(tones(8000, 4000))[None]
    for power in (1.0, 2.0):
        frontend = LogMel(8000, n_mels=20, reference=1.0, power=power)
        difference = frontend(2 * waveform) - frontend(waveform)
        assert difference.numpy() == pytest.approx(6.0206, abs=1e-3)


def test_a_weighting_equals_librosa() -> None:
    frequencies = np.geomspace(1, 24000, 200)
    np.testing.assert_allclose(
        a_weighting_db(frequencies), librosa.A_weighting(frequencies, min_db=-80), atol=1e-6
    )
    assert a_weighting_db(np.zeros(1)) == -80


def test_a_weighting_is_the_studys_curve() -> None:
    f = np.geomspace(20, 6000, 100)
    ratio = (
        12200**2
        * f**4
        / ((f**2 + 20.6**2) * (f**2 + 12200**2) * np.sqrt((f**2 + 107.7**2) * (f**2 + 737.9**2)))
    )
    np.testing.assert_allclose(a_weighting_db(f), 2.0 + 20 * np.log10(ratio), atol=0.01)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_weighting_is_the_same_in_every_domain(power) -> None:
    x = torch.from_numpy(np.maximum(spectra(), 1e-3))
    options = PLAIN | {"power": power, "a_weighting": True, "reference": 1.0, "top_db": None}
    level_db = Scaling(FREQUENCIES, **options | {"scaling": "db"})(x).numpy()
    expected = 20 / power * np.log10(x.numpy()) + librosa.A_weighting(FREQUENCIES)[:, None]
    linear = Scaling(FREQUENCIES, **options)(x).numpy()
    natural = Scaling(FREQUENCIES, **options | {"scaling": "log", "offset": 1e-12})(x).numpy()
    np.testing.assert_allclose(level_db, expected, atol=1e-4)
    np.testing.assert_allclose(20 / power * np.log10(linear), expected, atol=1e-4)
    np.testing.assert_allclose(natural * 20 / power / np.log(10), expected, atol=1e-4)


@pytest.mark.parametrize("scaling", ["db", "log", "linear"])
@pytest.mark.parametrize("weighting", ["per-frequency", "A", "bypass"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_twelve_inputs_of_the_study(scaling, weighting, scale) -> None:
    x = spectra()
    module = Scaling(
        FREQUENCIES,
        **PLAIN
        | {
            "scaling": scaling,
            "a_weighting": weighting == "A",
            "standardise_per_frequency": weighting == "per-frequency",
            "standardise_per_sample": True,
            "scale": scale,
        },
    )
    for item, output in zip(x.astype(np.float64), module(torch.from_numpy(x)), strict=True):
        if scaling == "log":
            item = np.log(item + 1e-7)
        elif scaling == "db":
            item = librosa.power_to_db(item, ref=np.max, amin=1e-7)
        if weighting == "per-frequency":
            item = (item - item.mean(1, keepdims=True)) / item.std(1, keepdims=True)
        elif weighting == "A":
            curve_db = librosa.A_weighting(FREQUENCIES)[:, None]
            if scaling == "linear":
                item = item * 10 ** (curve_db / 10)
            else:
                item = item + curve_db * (1 if scaling == "db" else np.log(10) / 10)
        item = scale * (item - item.mean()) / item.std()
        np.testing.assert_allclose(output.numpy(), item, atol=1e-4 * scale)


@pytest.mark.parametrize("value", [0.0, -13.815511, 1e-7, 96.3])
def test_a_constant_standardises_to_zero(value) -> None:
    x = torch.full((2, 5, 1001), value)
    x[1, 0] += torch.linspace(-1, 1, 1001)
    output = standardise(x, dims=(-1,))
    assert output[1, 0].std(correction=0) == pytest.approx(1, abs=1e-5)
    output[1, 0] = 0
    assert torch.equal(output, torch.zeros_like(output))


@pytest.mark.parametrize("value", [-632.4, 96.3])
def test_a_constant_with_rounding_noise_standardises_to_zero(value) -> None:
    x = torch.full((1, 5, 1001), value)
    x[..., ::3] = torch.nextafter(x[..., ::3], torch.tensor(0.0))
    assert torch.equal(standardise(x, dims=(-1,)), torch.zeros_like(x))


def test_standardisation_keeps_what_is_quiet() -> None:
    quiet = 1e-9 * torch.randn(1, 3, 500, generator=torch.Generator().manual_seed(0))
    output = standardise(quiet, dims=(-1,))
    assert output.std(dim=-1, correction=0).numpy() == pytest.approx(1, abs=1e-5)
