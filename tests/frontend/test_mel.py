"""Mel filters and log-mel against librosa, and TensorFlow's against its documentation."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest
import torch

from ossicle.frontend import LogMel
from ossicle.frontend.mel import FilterBank, hz_to_mel, mel_filters, mel_to_hz

from .test_contract import YAMNET
from .test_stft import slow_spectrogram

RATES = [8000, 12000, 16000, 22050, 44100, 48000]
# (n_fft, win_length, hop_length, n_mels)
LENGTHS = [(512, 512, 256, 40), (1024, 800, 317, 64), (2048, 1103, 512, 96), (400, 399, 160, 23)]


def slow_tensorflow_filters(
    n_mels: int, n_bins: int, sample_rate: float, low_hz: float, high_hz: float
) -> np.ndarray:
    """tf.signal.linear_to_mel_weight_matrix, transposed, one weight at a time.

    From its documentation: bands equally spaced in mel (1127 ln(1 + f / 700)), triangles that
    peak at 1.0 on that scale, the bin of 0 Hz excluded.
    """

    def mel(frequency: float) -> float:
        return 1127.0 * np.log(1.0 + frequency / 700.0)

    step = (mel(high_hz) - mel(low_hz)) / (n_mels + 1)
    filters = np.zeros((n_mels, n_bins))
    for band in range(n_mels):
        centre = mel(low_hz) + (band + 1) * step
        for k in range(1, n_bins):
            distance = abs(mel(k * sample_rate / 2 / (n_bins - 1)) - centre)
            filters[band, k] = max(0.0, 1.0 - distance / step)
    return filters


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_mel_scales_equal_librosa(mel_scale) -> None:
    frequencies = np.concatenate([np.linspace(0, 2000, 101), [999.999, 1000.001, 24000.0]])
    mels = hz_to_mel(frequencies, mel_scale)
    expected = librosa.hz_to_mel(frequencies, htk=mel_scale == "htk")
    np.testing.assert_allclose(mels, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mel_to_hz(mels, mel_scale), frequencies, atol=1e-8)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize(("fmin", "top"), [(0.0, 0.5), (125.0, 0.45)])
def test_filters_equal_librosa(sample_rate, mel_scale, norm, fmin, top) -> None:
    fmax = top * sample_rate
    filters = mel_filters(
        sample_rate=sample_rate,
        n_fft=1024,
        n_mels=48,
        fmin=fmin,
        fmax=fmax,
        mel_scale=mel_scale,
        norm=norm,
    )
    expected = librosa.filters.mel(
        sr=sample_rate,
        n_fft=1024,
        n_mels=48,
        fmin=fmin,
        fmax=fmax,
        htk=mel_scale == "htk",
        norm=norm,
        dtype=np.float64,
    )
    np.testing.assert_allclose(filters, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"),
    [(16000, 512, 64, 125, 7500), (8000, 256, 20, 80, 3800), (44100, 1024, 40, 0, 22050)],
)
def test_triangles_over_mel_are_tensorflows(sample_rate, n_fft, n_mels, fmin, fmax) -> None:
    filters = mel_filters(
        sample_rate=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        mel_scale="htk",
        norm=None,
        triangles="mel",
    )
    expected = slow_tensorflow_filters(n_mels, n_fft // 2 + 1, sample_rate, fmin, fmax)
    np.testing.assert_allclose(filters, expected, atol=1e-9)
    assert not filters[:, 0].any()


@pytest.mark.parametrize("n_mels", [1, 15, 16, 17, 64])
def test_the_banded_product_is_the_product(n_mels) -> None:
    filters = mel_filters(sample_rate=16000, n_fft=512, n_mels=n_mels, fmin=300, fmax=6000)
    x = np.random.default_rng(0).uniform(0, 1, (2, 257, 9))
    bank = FilterBank(filters)
    first, end = bank.bins
    output = bank(torch.from_numpy(x[:, first:end]).float()).numpy()
    np.testing.assert_allclose(output, filters @ x, rtol=1e-5)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize(("n_fft", "win_length", "hop_length", "n_mels"), LENGTHS)
@pytest.mark.parametrize(("mel_scale", "norm"), [("slaney", "slaney"), ("htk", None)])
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("framing", ["constant", "reflect", "not centred"])
def test_log_mel_equals_librosa(
    tones, sample_rate, n_fft, win_length, hop_length, n_mels, mel_scale, norm, power, framing
) -> None:
    samples = tones(sample_rate, 7000)
    center, pad_mode = framing != "not centred", framing if framing != "not centred" else "constant"
    options = {
        "n_fft": n_fft,
        "win_length": win_length,
        "hop_length": hop_length,
        "n_mels": n_mels,
        "fmin": 50.0,
        "fmax": 0.48 * sample_rate,
        "norm": norm,
        "power": power,
        "center": center,
        "pad_mode": pad_mode,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters detected")
        warnings.filterwarnings("ignore", message=".* mel bands lie between")
        mel = librosa.feature.melspectrogram(
            y=samples.astype(np.float64),
            sr=sample_rate,
            htk=mel_scale == "htk",
            dtype=np.float64,
            **options,
        )
        to_db = librosa.power_to_db if power == 2.0 else librosa.amplitude_to_db
        cases = [
            ({"scaling": "db"}, to_db(mel, ref=np.max, amin=1e-10, top_db=80)),
            (
                {"scaling": "db", "reference": 1.0, "top_db": None},
                to_db(mel, ref=1.0, amin=1e-10, top_db=None),
            ),
            ({"scaling": "log", "offset": 1e-3}, np.log(mel + 1e-3)),
        ]
        for scaling, expected in cases:
            frontend = LogMel(sample_rate, mel_scale=mel_scale, **options, **scaling)
            output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
            np.testing.assert_allclose(output, expected, atol=1e-4)


def test_frequencies_are_the_centres_of_the_bands() -> None:
    frontend = LogMel(22050, n_mels=64, n_fft=2048, fmin=30, fmax=9000)
    expected = librosa.mel_frequencies(n_mels=66, fmin=30, fmax=9000)[1:-1]
    np.testing.assert_allclose(frontend.frequencies, expected)


@pytest.mark.parametrize("n_samples", [10, 399, 400, 559, 560, 15600, 16001])
def test_yamnets_input_equals_its_definition(tones, n_samples) -> None:
    samples = tones(16000, n_samples)
    magnitudes = slow_spectrogram(samples.astype(np.float64), 512, 400, 160, "left")
    mel = slow_tensorflow_filters(64, 257, 16000, 125, 7500) @ magnitudes
    output = LogMel(**YAMNET)(torch.from_numpy(samples)[None])[0, 0].numpy()
    np.testing.assert_allclose(output, np.log(mel + 0.001), atol=1e-4)


def test_bands_between_two_bins_are_told() -> None:
    with pytest.warns(UserWarning, match=r"\d+ of 128 mel bands lie between two bins"):
        LogMel(44100, n_fft=256, n_mels=128)


def test_a_long_clip_equals_librosa(tones) -> None:
    samples = tones(12000, 29 * 12000)
    mel = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=12000,
        n_fft=512,
        hop_length=256,
        n_mels=96,
        dtype=np.float64,
        pad_mode="constant",
    )
    frontend = LogMel(12000, n_fft=512, hop_length=256, n_mels=96)
    assert frontend.num_frames(len(samples)) > frontend.spectrogram.block_frames
    output = frontend(torch.from_numpy(samples)[None])
    assert output.shape == (1, 1, 96, 1360)
    # float32 rounds at 1e-7 of a frame's loudest bin: in the quietest single-bin band among
    # 130,560 values that is 1.1e-4 dB.
    np.testing.assert_allclose(output[0, 0], librosa.power_to_db(mel, ref=np.max), atol=2e-4)


def slow_kaldi_filters(
    n_mels: int, n_fft: int, sample_rate: float, low_hz: float, high_hz: float
) -> np.ndarray:
    """Kaldi's mel banks, one weight at a time, with a column of zeros for half the sample rate.

    From its documentation (MelBanks, no warping): mel is 1127 ln(1 + f / 700); band b rises from
    b steps above the lowest mel to 1 at b + 1 and falls to 0 at b + 2, straight over mel.
    """

    def mel(frequency: float) -> float:
        return 1127.0 * np.log(1.0 + frequency / 700.0)

    step = (mel(high_hz) - mel(low_hz)) / (n_mels + 1)
    filters = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        left, centre, right = (mel(low_hz) + (band + i) * step for i in range(3))
        for k in range(n_fft // 2):
            rising = (mel(k * sample_rate / n_fft) - left) / (centre - left)
            falling = (right - mel(k * sample_rate / n_fft)) / (right - centre)
            filters[band, k] = max(0.0, min(rising, falling))
    return filters


@pytest.mark.parametrize(
    ("n_mels", "n_fft", "sample_rate", "low_hz", "high_hz"),
    [
        (128, 1024, 32000, 0.0, 15000.0),
        (23, 256, 8000, 20.0, 4000.0),
        (80, 512, 16000, 20.0, 7600.0),
    ],
)
@pytest.mark.filterwarnings("ignore:.*mel bands lie between")
def test_htk_triangles_even_on_mel_are_kaldis(n_mels, n_fft, sample_rate, low_hz, high_hz) -> None:
    filters = mel_filters(
        sample_rate=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=low_hz,
        fmax=high_hz,
        mel_scale="htk",
        triangles="mel",
        norm=None,
    )
    expected = slow_kaldi_filters(n_mels, n_fft, sample_rate, low_hz, high_hz)
    np.testing.assert_allclose(filters, expected, atol=1e-9)


def test_preemphasis_is_a_filter_in_front(tones) -> None:
    samples = tones(16000, 5000, 0)
    filtered = samples[1:].astype(np.float64) - 0.95 * samples[:-1]
    options = {"n_mels": 40, "scaling": "linear"}
    expected = LogMel(16000, **options)(torch.from_numpy(filtered)[None])
    output = LogMel(16000, preemphasis=0.95, **options)(torch.from_numpy(samples)[None])
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-6)


def test_shift_comes_before_scale(tones) -> None:
    samples = torch.from_numpy(tones(16000, 5000, 0))[None]
    plain = LogMel(16000, n_mels=40)(samples)
    moved = LogMel(16000, n_mels=40, shift=4.5, scale=0.2)(samples)
    torch.testing.assert_close(moved, (plain + 4.5) / 5, rtol=1e-5, atol=1e-5)
