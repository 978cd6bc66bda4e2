"""Spectrograms against librosa, and against the definition where librosa has none."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from ossicle.frontend import STFT
from ossicle.frontend.stft import WINDOWS

LINEAR = {"scaling": "linear", "power": 1.0}
LENGTHS = [(512, None, 256), (512, 400, 160), (400, 301, 77), (1024, 1024, 1500), (255, 100, 33)]


def slow_spectrogram(
    samples: np.ndarray, n_fft: int, win_length: int, hop_length: int, align: str
) -> np.ndarray:
    """(K, T) magnitudes by the definition, in float64; a window of zeros follows or surrounds."""
    n = np.arange(win_length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / win_length)
    frame_length = win_length if align == "left" else n_fft
    k = np.arange(n_fft // 2 + 1)[:, None]
    columns = []
    start = 0
    while start + frame_length <= len(samples) or not columns:
        frame = np.zeros(frame_length)
        available = samples[start : start + frame_length]
        frame[: len(available)] = available
        lead = (frame_length - win_length) // 2
        windowed = frame[lead : lead + win_length] * window
        columns.append(np.abs((windowed * np.exp(-2j * np.pi * k * n / n_fft)).sum(1)))
        start += hop_length
    return np.array(columns).T


@pytest.mark.parametrize(("n_fft", "win_length", "hop_length"), LENGTHS)
@pytest.mark.parametrize("framing", ["constant", "reflect", "not centred"])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_equals_librosa(tones, n_fft, win_length, hop_length, framing, power) -> None:
    samples = tones(16000, 8111)
    center, pad_mode = framing != "not centred", framing if framing != "not centred" else "constant"
    expected = np.abs(
        librosa.stft(
            samples.astype(np.float64),
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            center=center,
            pad_mode=pad_mode,
        )
    )
    frontend = STFT(
        16000,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        power=power,
        scaling="log",
        center=center,
        pad_mode=pad_mode,
        offset=1e-2,
    )
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    np.testing.assert_allclose(output, np.log(expected**power + 1e-2), atol=1e-4)
    assert frontend.frequencies == pytest.approx(librosa.fft_frequencies(sr=16000, n_fft=n_fft))


@pytest.mark.parametrize("align", ["left", "center"])
@pytest.mark.parametrize(
    ("n_fft", "win_length", "hop_length"), [(64, 40, 16), (64, 41, 100), (63, 30, 7)]
)
@pytest.mark.parametrize("n_samples", [0, 1, 39, 40, 41, 63, 64, 65, 300])
def test_uncentred_equals_the_definition(
    tones, align, n_fft, win_length, hop_length, n_samples
) -> None:
    samples = tones(8000, n_samples)
    expected = slow_spectrogram(samples, n_fft, win_length, hop_length, align)
    frontend = STFT(
        8000,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        center=False,
        window_align=align,
        **LINEAR,
    )
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    np.testing.assert_allclose(output, expected, atol=2e-5)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 31, 32, 33, 100])
@pytest.mark.parametrize("align", ["left", "center"])
def test_centred_is_numpys_padding_then_the_definition(tones, pad_mode, n_samples, align) -> None:
    samples = tones(8000, n_samples)
    half = 50 // 2 if align == "left" else 64 // 2
    padded = np.pad(samples, half, mode=pad_mode)
    frontend = STFT(
        8000,
        n_fft=64,
        win_length=50,
        hop_length=19,
        pad_mode=pad_mode,
        window_align=align,
        **LINEAR,
    )
    output = frontend(torch.from_numpy(samples)[None])[0, 0].numpy()
    np.testing.assert_allclose(output, slow_spectrogram(padded, 64, 50, 19, align), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "witness"),
    [
        ("hann", "hann"),
        ("hann_symmetric", "hann"),
        ("hamming", "hamming"),
        ("blackman", "blackman"),
        ("rectangular", "boxcar"),
    ],
)
@pytest.mark.parametrize("length", [64, 77])
def test_windows_are_those_of_scipy(name, witness, length) -> None:
    expected = scipy.signal.get_window(witness, length, fftbins=not name.endswith("_symmetric"))
    assert set(WINDOWS) == {"hann", "hann_symmetric", "hamming", "blackman", "rectangular"}
    frontend = STFT(8000, n_fft=128, win_length=length, window=name)
    np.testing.assert_allclose(frontend.spectrogram.window.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("n_samples", [100, 1000, 4321])
@pytest.mark.parametrize("block_frames", [1, 2, 7])
def test_blocks_join_without_a_seam(tones, n_samples, block_frames) -> None:
    samples = torch.from_numpy(np.stack([tones(8000, n_samples, seed) for seed in range(3)]))
    frontend = STFT(8000, n_fft=64, win_length=50, hop_length=19)
    assert frontend.spectrogram.block_frames > frontend.num_frames(n_samples)
    whole = frontend(samples)
    frontend.spectrogram.block_frames = block_frames
    torch.testing.assert_close(frontend(samples), whole, rtol=0, atol=1e-4)
