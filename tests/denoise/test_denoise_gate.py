"""The spectral gate: against slow definitions, a case of known gain, and limits that must hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from ossicle import bundle
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.separation import snr
from ossicle.separators.spectral_gate import SILENCE_DB, SpectralGate, level_db

RATE = 16_000


def _noise(seed: int, seconds: float = 4.0, level: float = 0.05) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def _tones(seconds: float = 4.0) -> np.ndarray:
    """A tone in the middle of a bin, for the middle half of the time."""
    t = np.arange(round(seconds * RATE)) / RATE
    on = (t >= seconds / 4) & (t < 3 * seconds / 4)
    return 0.2 * np.sin(2 * np.pi * 1000 * t) * on


def _separate(gate: SpectralGate, samples: np.ndarray) -> np.ndarray:
    return gate.separate(torch.from_numpy(samples.astype(np.float32))[None])[:, 0].numpy()


@pytest.mark.parametrize("profile", [False, True])
def test_a_tone_in_steady_noise_gains_what_closing_all_other_bins_gives(profile):
    tone, noise = _tones(), _noise(0)
    floor_db = -30.0
    gate = SpectralGate(
        RATE, profile=profile, threshold=3.0, slope_db=0.5, floor_db=floor_db, n_fft=512,
        hop_length=128, smooth_hz=0.0, smooth_ms=0.0, release_ms=0.0,
    )  # fmt: skip
    if profile:
        gate.learn([gate.fourier.analyse(torch.from_numpy(_noise(1)).float())])
    before = float(snr(tone + noise, tone))
    after = float(snr(_separate(gate, tone + noise)[0], tone))
    # Of 257 bins about 3 are open for half of the time, and the rest is turned down by 30 dB: few
    # levels of noise are 3 spreads (17 dB) above their mean.
    left = 3 / 257 / 2 + 10 ** (floor_db / 10)
    assert after - before == pytest.approx(-10 * np.log10(left), abs=2.5)


def test_masks_lie_between_the_floor_and_one_and_add_up():
    spectrum = torch.randn(513, 60, dtype=torch.complex64)
    for kind in ("stationary", "running"):
        gate = SpectralGate(RATE, kind=kind, floor_db=-20.0, attack_ms=20.0)
        masks = gate.masks(spectrum, 2)
        assert masks.shape == (2, 513, 60)
        assert float(masks[0].min()) >= 0.1 - 1e-6
        assert float(masks.max()) <= 1.0
        assert float(masks.min()) >= 0.0
        torch.testing.assert_close(masks.sum(0), torch.ones(513, 60))


def test_sources_add_up_to_the_recording_in_every_channel():
    stereo = torch.from_numpy(np.stack([_noise(2), _tones()])).float()
    found = SpectralGate(RATE).separate(stereo)
    assert found.shape == (2, 2, stereo.shape[-1])
    torch.testing.assert_close(found.sum(0), stereo, atol=1e-5, rtol=0)


def test_a_learnt_profile_is_the_mean_and_spread_of_levels_in_each_bin():
    gate = SpectralGate(RATE, profile=True, n_fft=256, hop_length=64)
    parts = [
        torch.randn(129, 50, dtype=torch.complex64),
        torch.zeros(129, 9, dtype=torch.complex64),
    ]
    gate.learn(parts)
    levels = 20 * np.log10(np.abs(parts[0].numpy().astype(complex)))
    np.testing.assert_allclose(gate.noise_mean_db.numpy(), levels.mean(1), atol=1e-3)
    np.testing.assert_allclose(gate.noise_std_db.numpy(), levels.std(1), atol=1e-3)


@pytest.mark.parametrize("quiet", [0.1, 0.5])
def test_the_quietest_share_of_gaussian_noise_tells_its_mean_level_and_spread(quiet):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 40_000)) + 1j * rng.standard_normal((3, 40_000))
    levels = 20 * np.log10(np.abs(noise))
    mean, std = SpectralGate(RATE, quiet=quiet).noise(torch.from_numpy(levels).float())
    np.testing.assert_allclose(mean[:, 0].numpy(), levels.mean(1), atol=0.25)
    np.testing.assert_allclose(float(std), levels.std(1), atol=0.1)


def test_the_running_mean_is_a_recursion_forth_and_back():
    gate = SpectralGate(RATE, kind="running", time_constant_s=0.1, hop_length=256)
    magnitude = np.random.default_rng(0).random((4, 70)) + 0.1
    keep = np.exp(-256 / RATE / 0.1)

    def both(x):
        forth = lfilter([1.0], [1.0, -keep], x, axis=-1)
        return lfilter([1.0], [1.0, -keep], forth[..., ::-1], axis=-1)[..., ::-1]

    wanted = both(magnitude) / both(np.ones((1, 70)))
    level = torch.from_numpy(20 * np.log10(magnitude)).float()
    mean, _ = gate.noise(level)
    np.testing.assert_allclose(10 ** (mean.numpy() / 20), wanted, rtol=1e-4)


def test_closing_takes_the_release_and_opening_is_heard_ahead():
    hop, rate = 160, 16_000
    gate = SpectralGate(
        rate, smooth_hz=0, smooth_ms=0, attack_ms=20.0, release_ms=50.0, hop_length=hop, n_fft=512
    )
    opening = torch.zeros(1, 41)
    opening[0, 20] = 1.0
    paced = gate._paced(opening)[0].numpy()
    frames = np.arange(41) - 20
    wanted = np.where(frames >= 0, np.exp(-frames * 0.01 / 0.05), np.exp(frames * 0.01 / 0.02))
    np.testing.assert_allclose(paced, wanted, atol=1e-5)


def test_silence_stays_silent_and_one_frame_is_enough():
    for kind in ("stationary", "running"):
        gate = SpectralGate(RATE, kind=kind)
        assert not _separate(gate, np.zeros(5000)).any()
        assert np.isfinite(_separate(gate, _noise(0, 0.001))).all()
    assert float(level_db(torch.zeros(3, 2)).max()) == pytest.approx(SILENCE_DB)


def test_a_bundle_brings_the_profile_back(tmp_path):
    gate = SpectralGate(RATE, profile=True, n_fft=256, hop_length=64, floor_db=-33.0)
    gate.learn([torch.randn(129, 50, dtype=torch.complex64)])
    bundle.save(gate, tmp_path / "gate.ossicle")
    again = bundle.load_separator(tmp_path / "gate.ossicle")
    samples = torch.from_numpy(_tones() + _noise(0)).float()[None]
    assert torch.equal(again.separate(samples), gate.separate(samples))
    assert again.floor_db == -33.0


def test_mistakes_are_told():
    with pytest.raises(OssicleError, match="stationary"):
        SpectralGate(RATE, kind="running", profile=True)
    with pytest.raises(OssicleError, match="floor_db"):
        SpectralGate(RATE, floor_db=3.0)
    with pytest.raises(OssicleError, match="profile=True"):
        SpectralGate(RATE).learn([])
    silent = torch.zeros(513, 4, dtype=torch.complex64)
    with pytest.raises(DataError, match="silent"):
        SpectralGate(RATE, profile=True).learn([silent])
