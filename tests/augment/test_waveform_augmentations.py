"""Augmentations of waveforms against decibels, FFT peaks, np.roll and scipy's convolution."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from ossicle.augment import Mix, Noise, Polarity, RandomGain, Reverb, Shift, Speed

RATE = 16_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waveforms(n: int, size: int = 8000, seed: int = 0) -> torch.Tensor:
    """Of loudness from 0.001 to 1."""
    x = torch.randn(n, size, generator=seeded(seed))
    return x * torch.logspace(-3, 0, n)[:, None]


def decibels(x: torch.Tensor) -> np.ndarray:
    return 10 * np.log10(np.mean(x.double().numpy() ** 2, axis=1))


def test_random_gain_in_decibels():
    x = waveforms(100)
    a = RandomGain(gain_db=(-20, 10))
    drawn = a.draw(100, seeded(0))
    change = decibels(a.apply(x, drawn)) - decibels(x)
    assert np.allclose(change, drawn["gain_db"], atol=1e-4)
    assert -20 <= change.min() < -17
    assert 7 < change.max() <= 10


def test_polarity():
    x = waveforms(50)
    y = Polarity(p=0.5)(x, seeded(0))
    turned = (y == -x).all(1)
    assert torch.equal(y[~turned], x[~turned])
    assert 10 <= turned.sum() <= 40


@pytest.mark.parametrize("size", [101, 8000])
def test_a_circular_shift_is_a_roll(size):
    x = waveforms(200, size)
    y = Shift(max_fraction=0.1)(x, seeded(0)).numpy()
    farthest = int(0.1 * size)
    shifts = []
    for before, after in zip(x.numpy(), y, strict=True):
        found = [
            shift
            for shift in range(-farthest, farthest + 1)
            if after[0] == before[-shift % size] and np.array_equal(np.roll(before, shift), after)
        ]
        assert len(found) == 1
        shifts += found
    assert min(shifts) < -0.8 * farthest
    assert max(shifts) > 0.8 * farthest
    if size == 101:  # -10 to 10, each about 9.5 times
        assert set(shifts) == set(range(-10, 11))


def test_an_open_shift_lets_zeros_in():
    x = waveforms(60, 50)
    a = Shift(max_fraction=1.0, circular=False)
    drawn = a.draw(60, seeded(0))
    for before, after, u in zip(x, a.apply(x, drawn), drawn["shift"].tolist(), strict=True):
        shift = int(u * 101) - 50
        want = np.zeros(50, dtype=np.float32)
        for i in range(50):
            if 0 <= i - shift < 50:
                want[i] = before[i - shift]
        assert np.array_equal(after.numpy(), want)


@pytest.mark.parametrize("color", ["white", "pink", "any"])
def test_noise_has_the_drawn_snr(color):
    x = waveforms(40)
    a = Noise(snr_db=(0, 30), color=color)
    drawn = a.draw(40, seeded(0))
    added = a.apply(x.double().float(), drawn).double() - x.double()
    assert np.allclose(decibels(x) - decibels(added), drawn["snr_db"], atol=0.01)
    assert drawn["snr_db"].min() < 5
    assert drawn["snr_db"].max() > 25


@pytest.mark.parametrize(("color", "slope"), [("white", 0.0), ("pink", -1.0)])
def test_colors_of_noise(color, slope):
    """The spectrum's slope: power as frequency to the power of 0, or of -1."""
    x = torch.zeros(50, 16384)
    x[:, 100] = 1.0  # so that it is not silent
    added = (Noise(snr_db=(-60, -60), color=color)(x, seeded(0)) - x).double().numpy()
    power = (np.abs(np.fft.rfft(added)) ** 2).mean(0)
    k = np.arange(len(power))
    part = slice(4, 8000)
    fit = np.polyfit(np.log(k[part]), np.log(power[part]), 1, w=1 / np.sqrt(k[part]))
    assert abs(fit[0] - slope) < 0.03


def test_any_color_is_each_of_them():
    x = waveforms(60, 16384)
    added = (Noise(snr_db=(0, 0), color="any")(x, seeded(0)) - x).double().numpy()
    power = np.abs(np.fft.rfft(added)) ** 2
    low_share = power[:, 1:82].sum(1) / power.sum(1)  # 0.01 of white, about 0.5 of pink noise
    assert 15 <= (low_share < 0.03).sum() <= 45
    assert ((low_share < 0.03) | (low_share > 0.2)).all()


def test_noise_is_new_for_each_item():
    x = torch.zeros(3, 4000)
    x[:, 0] = 1.0
    noise = Noise(snr_db=(0, 0), color="white")(x, seeded(0)).numpy()[:, 1:]
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.1


def test_mix_adds_the_partner_at_the_drawn_snr():
    x, z = waveforms(30), waveforms(30, seed=1).flip(0)
    a = Mix(snr_db=(-5, 25))
    drawn = a.draw(30, seeded(0))
    y = a.apply(x, drawn, z)
    for before, other, after, snr in zip(x, z, y, drawn["snr_db"].tolist(), strict=True):
        before, other = before.double().numpy(), other.double().numpy()
        gain = np.sqrt(np.mean(before**2) / np.mean(other**2) / 10 ** (snr / 10))
        want = before + gain * other
        assert np.allclose(after.numpy(), want, atol=1e-5 * np.abs(want).max())


def test_a_silent_partner_adds_nothing():
    x = waveforms(5)
    assert torch.equal(Mix()(x, seeded(0), torch.zeros_like(x)), x)


@pytest.mark.parametrize("size", [3000, 16_000])
def test_reverb_is_convolution_with_its_room(size):
    x = waveforms(8, size)
    a = Reverb(RATE, t60_s=(0.05, 0.5))
    drawn = a.draw(8, seeded(0))
    y = a.apply(x, drawn)
    rooms = a.impulse_responses(drawn, size)
    assert rooms.shape == (8, min(size, 8001))
    for before, room, after in zip(x, rooms, y, strict=True):
        wet = scipy.signal.fftconvolve(before.double().numpy(), room.double().numpy())[:size]
        want = wet * np.sqrt(np.mean(before.double().numpy() ** 2) / np.mean(wet**2))
        assert np.allclose(after.numpy(), want, atol=1e-5 * np.abs(want).max())
    assert np.allclose(decibels(y), decibels(x), atol=1e-3)


def test_rooms_have_the_drawn_decay_and_level():
    a = Reverb(RATE, t60_s=(0.2, 1.0), direct_db=(-10, 10))
    drawn = a.draw(30, seeded(0))
    rooms = a.impulse_responses(drawn, 20_000).double().numpy()
    assert np.all(rooms[:, 0] == 1)
    t = np.arange(16_001) / RATE
    for room, t60, direct in zip(rooms, drawn["t60_s"], drawn["direct_db"], strict=True):
        tail = room[1:]
        assert abs(-10 * np.log10(np.sum(tail**2)) - float(direct)) < 0.01
        # Schroeder's backward integral falls by 60 dB in T60: its slope from -5 to -25 dB.
        curve = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
        part = (curve < -5) & (curve > -25)
        slope = np.polyfit(t[1:][part], curve[part], 1)[0]
        assert abs(-60 / slope / float(t60) - 1) < 0.15


def test_reverb_keeps_the_start_and_comes_before_nothing():
    x = torch.zeros(4, 4000)
    x[:, 1000] = 0.5
    y = Reverb(RATE)(x, seeded(0))
    assert y[:, :1000].abs().max() < 1e-6
    assert (y.abs().argmax(1) == 1000).all()


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.97, 1.03, 1.37, 2.0])
def test_speed_moves_a_tone_by_its_factor(factor):
    size, hz = 16_000, 1000.0
    x = torch.sin(2 * torch.pi * hz * torch.arange(size) / RATE)[None]
    y = Speed(factor=(factor, factor))(x, seeded(0))[0].double().numpy()
    windowed = y * np.hanning(size)
    spectrum = np.abs(np.fft.rfft(windowed, 16 * size))
    peak = spectrum.argmax() * RATE / (16 * size)
    assert abs(peak / (hz * factor) - 1) < 1e-3
    filled = np.count_nonzero(np.abs(y) > 1e-9) / size
    assert abs(filled - min(1, 1 / factor)) < 0.01
    assert abs(np.abs(y).max() - 1) < 0.1


def test_speed_lets_nothing_fold_back():
    """A tone that would lie above Nyquist's frequency is gone, not somewhere else."""
    tone = torch.sin(2 * torch.pi * 6000.0 * torch.arange(16_000) / RATE)
    x = (tone * torch.from_numpy(np.hanning(16_000)).float())[None]
    y = Speed(factor=(1.5, 1.5))(x, seeded(0))
    assert decibels(y)[0] < decibels(x)[0] - 60


def test_speeds_are_drawn_between_their_limits():
    factors = Speed(factor=(0.5, 2.0)).draw(2000, seeded(0))["factor"].numpy()
    assert 0.5 <= factors.min() < 0.51
    assert 1.96 < factors.max() <= 2.0001
    assert abs(np.log2(factors).mean()) < 0.06  # even in the logarithm: about 1


def test_a_faster_item_lies_anywhere_among_zeros():
    x = torch.ones(200, 1000)
    x[:, ::2] = 0.9
    y = Speed(factor=(2.0, 2.0))(x, seeded(0))
    first = (y.abs() > 0.3).float().argmax(1)
    assert first.min() < 50
    assert first.max() > 450
    assert first.max() <= 510
