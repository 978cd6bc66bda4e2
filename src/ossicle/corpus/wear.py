"""What a clean synthetic voice is put through: rooms, noise, a telephone's band, another level.

Symbols: N samples; float64 inside.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

from ossicle.mix.rooms import reverberate, synthetic_room

# The band of a telephone, in Hz.
TELEPHONE_HZ = (300.0, 3400.0)
_FRAME_S = 0.01


def trimmed(
    samples: np.ndarray, sample_rate: int, keep_s: float = 0.05, floor_db: float = -45.0
) -> np.ndarray:
    """Samples without the silence at both ends, but for up to `keep_s` of it.

    Args:
        samples: (N,).
        sample_rate: in Hz.
        keep_s: what stays of the silence at each end (s).
        floor_db: a stretch of 10 ms is silent whose power is below the loudest one's by this (dB).

    Returns:
        A part of `samples`; none of them where all are 0.
    """
    frame = max(1, round(_FRAME_S * sample_rate))
    padded = np.pad(np.asarray(samples, np.float64), (0, -len(samples) % frame))
    power = np.mean(padded.reshape(-1, frame) ** 2, axis=1)
    if not power.size or power.max() == 0:
        return samples[:0]
    loud = np.flatnonzero(power > power.max() * 10 ** (floor_db / 10))
    keep = round(keep_s * sample_rate)
    return samples[max(0, loud[0] * frame - keep) : (loud[-1] + 1) * frame + keep]


def noise(count: int, pink: bool, generator: np.random.Generator) -> np.ndarray:
    """White noise, or pink: power falling as 1/frequency; (count,), power 1."""
    white = generator.standard_normal(count)
    if pink:
        spectrum = np.fft.rfft(white)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0.0
        white = np.fft.irfft(spectrum, count)
    power = np.mean(white**2)
    return white / np.sqrt(power) if power > 0 else white


def with_noise(
    samples: np.ndarray, snr_db: float, pink: bool, generator: np.random.Generator
) -> np.ndarray:
    """Samples (N,) and noise whose power is below theirs by `snr_db`."""
    power = np.mean(samples**2)
    level = np.sqrt(power * 10 ** (-snr_db / 10))
    return np.asarray(samples + level * noise(len(samples), pink, generator))


def telephone(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Samples (N,) in the band of a telephone: Butterworth, 4th order at each edge."""
    high = min(TELEPHONE_HZ[1], 0.49 * sample_rate)
    sections = butter(4, (TELEPHONE_HZ[0], high), "bandpass", fs=sample_rate, output="sos")
    return np.asarray(sosfilt(sections, samples))


def worn(samples: np.ndarray, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Half of all voices as they are, the others as rooms, noise and telephones leave them.

    A worn one has at least one of: a room (exponentially decaying noise, decay of 60 dB in 0.1 to
    0.6 s, direct sound 0 to 12 dB over it), a telephone's band, noise (white or pink, 10 to 30 dB
    below). All get a peak of -18 to -1 dB of full scale.

    Args:
        samples: (N,), trimmed, not silent.
        sample_rate: in Hz.
        generator: of all that is drawn.

    Returns:
        (M,) float32, M >= N less the trimming.
    """
    voice = np.asarray(samples, np.float64)
    peak = 10 ** (generator.uniform(-18.0, -1.0) / 20)
    is_worn = generator.random() < 0.5
    room, noisy, narrow = generator.random(3) < (0.5, 0.6, 0.2)
    if is_worn:
        if room or not (noisy or narrow):
            t60_s, direct_db = generator.uniform(0.1, 0.6), generator.uniform(0.0, 12.0)
            response = synthetic_room(sample_rate, t60_s, direct_db, generator)
            voice = trimmed(reverberate(voice, response), sample_rate)
        if narrow:
            voice = telephone(voice, sample_rate)
        if noisy:
            pink = generator.random() < 0.5
            voice = with_noise(voice, generator.uniform(10.0, 30.0), pink, generator)
    return (voice * (peak / np.abs(voice).max())).astype(np.float32)
