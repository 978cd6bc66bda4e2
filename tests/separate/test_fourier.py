"""The Fourier transform there and back, and what a separator of any kind promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import OssicleError
from ossicle.separators import SEPARATORS, separator_class
from ossicle.separators.base import MaskSeparator, Separator
from ossicle.separators.fourier import Fourier, check_fourier


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1, 3000),
    half=st.integers(2, 200),
    share=st.integers(2, 5),
)
def test_there_and_back_is_the_same_sound(n_samples: int, half: int, share: int) -> None:
    fourier = check_fourier(2 * half, max(1, 2 * half // share))
    samples = _noise(2, n_samples, seed=n_samples)
    spectra = fourier.analyse(samples)
    assert spectra.shape == (2, half + 1, fourier.num_frames(n_samples))
    np.testing.assert_allclose(fourier.synthesise(spectra, n_samples), samples, atol=2e-5)


def test_frames_are_what_the_definition_says() -> None:
    n_fft, hop = 64, 16
    samples = _noise(300)
    found = Fourier(n_fft, hop).analyse(samples).numpy()
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft))
    padded = np.concatenate([np.zeros(32), samples.numpy(), np.zeros(32)])
    for t in range(found.shape[1]):
        expected = np.fft.rfft(padded[t * hop : t * hop + n_fft] * window)
        np.testing.assert_allclose(found[:, t], expected, atol=1e-5)


def test_leading_axes_are_independent() -> None:
    fourier, samples = Fourier(32, 8), _noise(2, 3, 200)
    spectra = fourier.analyse(samples)
    assert spectra.shape == (2, 3, 17, 26)
    np.testing.assert_allclose(spectra[1, 2], fourier.analyse(samples[1, 2]), atol=1e-6)
    np.testing.assert_allclose(fourier.synthesise(spectra, 200), samples, atol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop"), [(63, 16), (2, 1), (64, 33), (64, 0)])
def test_sizes_that_cannot_be_inverted_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(OssicleError, match="cannot be inverted"):
        check_fourier(n_fft, hop)


class _Halves(MaskSeparator):
    def __init__(self, sample_rate: int = 8000, sources: list[str] | None = None) -> None:
        super().__init__(sample_rate, sources or [], 64, 16)
        self.keep(locals())

    def masks(self, spectrum: torch.Tensor, n_sources: int) -> torch.Tensor:
        which = torch.arange(spectrum.shape[0]) % n_sources
        return torch.stack([(which == s).float() for s in range(n_sources)])[..., None].expand(
            -1, -1, spectrum.shape[1]
        )


def test_masks_share_out_each_channel() -> None:
    samples = _noise(3, 700)
    sources = _Halves().separate(samples, 4)
    assert sources.shape == (4, 3, 700)
    np.testing.assert_allclose(sources.sum(0), samples, atol=1e-5)
    # What a source gets of a tone at a bin of its own, and of one between others' bins.
    time = torch.arange(4000) / 8000
    for number in range(4):
        tone = torch.cos(2 * torch.pi * 125 * (8 + number) * time)[None]
        heard = _Halves().separate(tone, 4)[:, 0, 500:3500].square().mean(-1)
        assert int(heard.argmax()) == number


def test_the_number_of_sources_is_checked() -> None:
    named = _Halves(sources=["a", "b", "c"])
    assert named.count(None) == named.count(3) == 3
    with pytest.raises(OssicleError, match=r"gives 3 sources \(a, b, c\), not 2"):
        named.separate(_noise(1, 100), 2)
    alike = _Halves()
    assert (alike.count(None), alike.count(5)) == (2, 5)
    for wrong in (1, 17):
        with pytest.raises(OssicleError, match="ask for 2 to 16"):
            alike.count(wrong)


@pytest.mark.parametrize("sources", [["a"], ["a", "a"], [f"s{i}" for i in range(17)]])
def test_names_of_sources_are_checked(sources: list[str]) -> None:
    with pytest.raises(OssicleError, match="two or a few more different names"):
        _Halves(sources=sources)


def test_keywords_are_kept_as_json_has_them() -> None:
    kept = _Halves(16000, ["a", "b"]).config()
    assert kept == {"sample_rate": 16000, "sources": ["a", "b"]}
    with pytest.raises(OssicleError, match="sample rate of 10 Hz"):
        _Halves(10)


def test_what_a_system_does_not_define_is_told() -> None:
    with pytest.raises(NotImplementedError, match="Separator must define separate"):
        Separator(8000, []).separate(_noise(1, 10))


def test_systems_are_found_by_name() -> None:
    for name in SEPARATORS:
        assert issubclass(separator_class(name), Separator)
    with pytest.raises(OssicleError, match="unknown system 'magic'; there are deep_clustering"):
        separator_class("magic")
