"""What wears a clean voice: trimming, noise, telephone, level."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from ossicle.corpus import wear


def test_silence_at_the_ends_is_trimmed():
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    padded = np.concatenate([np.zeros(4800), tone, np.zeros(3200)])
    # Frames of 160: the tone fills frames 30 to 79; 800 samples stay on each side.
    assert np.array_equal(wear.trimmed(padded, 16000), padded[4000:13600])
    assert np.array_equal(wear.trimmed(tone, 16000), tone)
    assert wear.trimmed(np.zeros(100), 16000).size == 0
    quiet = padded + np.concatenate([np.full(4800, 10 ** (-44 / 20)), np.zeros(11200)])
    # -44 dB against a sine's power of 1/2, -3 dB: above the floor of -45 dB, so it stays.
    assert len(wear.trimmed(quiet, 16000)) == 4800 + 8000 + 800


@pytest.mark.parametrize(("pink", "slope"), [(False, 0.0), (True, -1.0)])
def test_noise_has_its_slope_and_level(pink, slope):
    made = wear.noise(1 << 17, pink, np.random.default_rng(0))
    assert np.mean(made**2) == pytest.approx(1.0)
    frequencies, density = scipy.signal.welch(made, fs=16000, nperseg=2048)
    band = (frequencies > 50) & (frequencies < 7000)
    fit = np.polyfit(np.log(frequencies[band]), np.log(density[band]), 1)
    assert fit[0] == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_noise_is_below_the_voice_by_what_is_asked(snr_db):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    added = wear.with_noise(tone, snr_db, True, np.random.default_rng(0)) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(added**2)) == pytest.approx(snr_db)


@pytest.mark.parametrize(
    ("hz", "least", "most"), [(100, 0, 0.05), (1000, 0.97, 1.01), (6000, 0, 0.05)]
)
def test_a_telephone_keeps_its_band(hz, least, most):
    tone = np.sin(2 * np.pi * hz * np.arange(16000) / 16000)
    kept = wear.telephone(tone, 16000)[4000:]
    assert least <= np.sqrt(2 * np.mean(kept**2)) <= most


def test_half_of_the_voices_are_worn_and_all_have_their_level():
    voice = scipy.signal.chirp(np.arange(4000) / 16000, 200, 0.25, 3000)
    clean = peaks = 0
    for seed in range(300):
        sound = wear.worn(voice, 16000, np.random.default_rng(seed))
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        peak_db = 20 * np.log10(np.abs(sound).max())
        assert -18.01 <= peak_db <= -0.99
        peaks += peak_db > -9.5
        scaled = sound / np.abs(sound).max() * np.abs(voice).max()
        clean += len(sound) == len(voice) and np.allclose(scaled, voice, atol=1e-5)
    # 300 draws of 1/2: 4 deviations are 35.
    assert 115 < clean < 185
    assert 115 < peaks < 185
    again = wear.worn(voice, 16000, np.random.default_rng(299))
    assert np.array_equal(sound, again)
