"""Finds the same sound in several clips: re-encoded, louder or softer, cut out of another.

Landmarks, after A. Wang, "An industrial-strength audio search algorithm" (ISMIR 2003): peaks of
the spectrogram are paired into hashes of two frequencies and the time between them, which hold
for another gain or format. Clips that share hashes at one time shift are candidates, and are
confirmed on the decoded samples by normalised cross-correlation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

SAMPLE_RATE = 8000  # Hz; codecs keep what is below 4 kHz best
N_FFT = 512  # samples, 64 ms
HOP = 128  # samples, 16 ms
PEAKS_PER_S = 30
FAN_OUT = 5  # later peaks that each peak may be paired with
MAX_GAP = 63  # frames between the two peaks of a pair, about 1 s
NEIGHBOURS = 12  # entries after each entry of a bucket that it is paired with
MIN_VOTES = 5
# The correlation that makes two stretches the same sound, by the seconds compared. Lossy codecs
# leave 0.90 to 0.99; a vowel said twice by one voice reaches 0.95 over a quarter of a second, and
# unrelated sounds stay far below 0.9 over a second.
SAME_BY_S = ((1.0, 0.90), (0.5, 0.95), (0.0, 0.99))
SURE_VOTES = 10  # with fewer landmarks in common, only the strictest correlation counts
SPLICED_VOTES = 20  # with so many, stretches of a second are tried one by one


class Landmarks(NamedTuple):
    """Hashes of one clip, and the frame (of HOP samples) of each one's first peak."""

    hashes: np.ndarray
    frames: np.ndarray

    @classmethod
    def none(cls) -> Landmarks:
        """Those of silence."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int32))


class Candidate(NamedTuple):
    """Two clips (a < b) that share `votes` hashes; b begins `shift_s` seconds into a."""

    a: int
    b: int
    shift_s: float
    votes: int


def landmarks(blocks: np.ndarray | Iterable[np.ndarray]) -> Landmarks:
    """Landmarks of samples (N,) at SAMPLE_RATE, or of blocks that follow one another.

    Peaks are the largest of their 9 frames x 7 bands, at most 60 dB under the block's loudest;
    the PEAKS_PER_S strongest of each second are kept. Silence and constants have none.
    """
    hashes, frames, position = [], [], 0
    for samples in [blocks] if isinstance(blocks, np.ndarray) else blocks:
        frame, band = _peaks(np.asarray(samples, np.float32))
        some = _pairs(frame + round(position / HOP), band)
        hashes.append(some.hashes)
        frames.append(some.frames)
        position += len(samples)
    if not hashes:
        return Landmarks.none()
    return Landmarks(np.concatenate(hashes), np.concatenate(frames))


def _peaks(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and bands of the strongest local maxima, in order of time."""
    samples = samples - samples.mean() if len(samples) else samples
    if len(samples) < N_FFT:
        samples = np.pad(samples, (0, N_FFT - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    window = np.hanning(N_FFT).astype(np.float32)
    magnitude = np.abs(fft.rfft(windows * window, axis=1))
    highest = ndimage.maximum_filter(magnitude, size=(9, 7), mode="constant")
    found = (magnitude == highest) & (magnitude > max(1e-5, 1e-3 * float(highest.max())))
    # Bands 0 to 2, below 47 Hz, hold offsets and rumble, which filters and codecs change.
    found[:, :3] = False
    frame, band = np.nonzero(found)
    level = magnitude[frame, band]
    second = frame * HOP // SAMPLE_RATE
    order = np.lexsort((-level, second))
    rank = np.arange(len(order)) - np.searchsorted(second[order], second[order], side="left")
    kept = np.sort(order[rank < PEAKS_PER_S])
    return frame[kept], band[kept]


def _pairs(frame: np.ndarray, band: np.ndarray) -> Landmarks:
    """Hashes of each peak with the FAN_OUT peaks after it that are 1 to MAX_GAP frames later."""
    hashes, first = [], []
    for lag in range(1, FAN_OUT + 1):
        gap = frame[lag:] - frame[:-lag]
        near = (gap >= 1) & (gap <= MAX_GAP)
        a, b, gap = band[:-lag][near], band[lag:][near], gap[near]
        hashes.append((a << 14) | (b << 6) | gap)
        first.append(frame[:-lag][near])
    return Landmarks(
        np.concatenate(hashes).astype(np.int32), np.concatenate(first).astype(np.int32)
    )


def candidates(prints: Sequence[Landmarks], most: int = 20_000_000) -> list[Candidate]:
    """Pairs of clips that share MIN_VOTES hashes or more at one time shift, most votes first.

    In a bucket of equal hashes each entry meets only the NEIGHBOURS after it, so the work is in
    proportion to the length of all clips; `most` bounds the meetings held in memory at a time.
    """
    n = len(prints)
    if n < 2 or not any(len(p.hashes) for p in prints):
        return []
    hashes = np.concatenate([p.hashes for p in prints])
    frames = np.concatenate([p.frames for p in prints]).astype(np.int64)
    clips = np.repeat(np.arange(n), [len(p.hashes) for p in prints])
    order = np.lexsort((clips, hashes))
    hashes, frames, clips = hashes[order], frames[order], clips[order]
    span = 2 * (int(frames.max()) + 2)  # room for shifts of either sign, two frames a step
    found: list[Candidate] = []
    parts = 1 + len(hashes) * NEIGHBOURS // most
    for part in range(parts):
        keys = []
        for lag in range(1, NEIGHBOURS + 1):
            a, b = clips[:-lag], clips[lag:]
            met = (hashes[:-lag] == hashes[lag:]) & (a != b) & ((a + b) % parts == part)
            shift = frames[:-lag][met] - frames[lag:][met]
            keys.append((a[met] * n + b[met]) * span + (shift + span // 2) // 2)
        found += _winners(np.concatenate(keys), n, span)
    return sorted(found, key=lambda c: (-c.votes, c.a, c.b))


def _winners(keys: np.ndarray, n: int, span: int) -> list[Candidate]:
    """For each pair of clips its best shift, votes of two adjoining steps added up."""
    keys, votes = np.unique(keys, return_counts=True)
    if not len(keys):
        return []
    adjoining = np.append(keys[1:] == keys[:-1] + 1, False)
    votes = votes + np.where(adjoining, np.append(votes[1:], 0), 0)
    enough = votes >= MIN_VOTES
    keys, votes, adjoining = keys[enough], votes[enough], adjoining[enough]
    pair = keys // span
    order = np.lexsort((-votes, pair))
    best = order[np.unique(pair[order], return_index=True)[1]]
    # The middle of a step of two frames, or of two such steps.
    shift = (keys[best] % span) * 2 - span // 2 + np.where(adjoining[best], 1.5, 0.5)
    seconds = shift * HOP / SAMPLE_RATE
    return [
        Candidate(int(p // n), int(p % n), float(s), int(v))
        for p, s, v in zip(pair[best], seconds, votes[best], strict=True)
    ]


def correlation(a: np.ndarray, b: np.ndarray, slack: int = 4 * HOP) -> tuple[float, int, int]:
    """The largest normalised cross-correlation of two stretches (N,) that should be in step.

    Returns |correlation| in [0, 1] (a flipped polarity is the same sound), the lag of `b` against
    `a` (samples, within +-slack) and the number of samples compared. The peak is read between
    samples by sinc interpolation, as two formats rarely agree to the sample: half a sample costs
    white noise a third of its correlation.
    """
    length = min(len(a), len(b))
    slack = min(slack, length // 4)
    template = b[slack : length - slack].astype(np.float64)
    a = a[:length].astype(np.float64)
    if len(template) < 2:
        return 0.0, 0, 0
    template = template - template.mean()
    size = fft.next_fast_len(length + len(template), real=True)
    spectrum = fft.rfft(a, size) * np.conj(fft.rfft(template, size))
    cross = fft.irfft(spectrum, size)
    reach = 64  # samples on either side; 0.3 % of white noise lies beyond
    # cross[k] compares the template with a[k : k + len(template)]; k = slack is no lag.
    inside = cross[: 2 * slack + 1]
    sums = np.cumsum(np.concatenate([[0.0], a]))
    squares = np.cumsum(np.concatenate([[0.0], a**2]))
    k = np.arange(len(inside))
    total = sums[k + len(template)] - sums[k]
    energy = squares[k + len(template)] - squares[k] - total**2 / len(template)
    scale = np.sqrt(np.maximum(energy, 0.0) * np.sum(template**2))
    score = np.abs(inside) / np.where(scale > 1e-9 * len(template), scale, np.inf)
    peak = int(np.argmax(score))
    if score[peak] == 0:
        return 0.0, 0, len(template)
    around = np.arange(peak - reach, peak + reach + 1)
    fine = np.linspace(-1, 1, 33)
    between = np.sinc(peak + fine[:, None] - around[None]) @ cross[around % size]
    best = max(float(np.abs(between).max() / scale[peak]), float(score[peak]))
    return min(best, 1.0), peak - slack, len(template)


def compare(a: np.ndarray, b: np.ndarray, votes: int) -> tuple[float, int, float, bool] | None:
    """Whether two stretches (N,), laid beside each other by a candidate's shift, are one sound.

    Args:
        a, b: at SAMPLE_RATE.
        votes: the candidate's.

    Returns (correlation, lag in samples, seconds compared, whether it holds throughout), or None
    for two sounds.
    """
    length = min(len(a), len(b))
    similarity, lag, compared = correlation(a[:length], b[:length])
    if _is_same(similarity, compared / SAMPLE_RATE, votes):
        return similarity, lag, compared / SAMPLE_RATE, True
    if votes < SPLICED_VOTES:
        return None
    # One recording cut or mixed in two ways agrees in parts. Nothing can be said of the parts
    # that are all but silent.
    level = 0.1 * float(np.sqrt(np.mean(a[:length] ** 2)))
    size = 3 * SAMPLE_RATE // 2
    for start in range(0, length - size + 1, SAMPLE_RATE // 2):
        part = a[start : start + size]
        if np.sqrt(np.mean(part**2)) < level:
            continue
        similarity, lag, compared = correlation(part, b[start : start + size])
        if similarity >= 0.95:
            return similarity, lag, compared / SAMPLE_RATE, False
    return None


def _is_same(similarity: float, seconds: float, votes: int) -> bool:
    needed = next(needed for least_s, needed in SAME_BY_S if seconds >= least_s)
    return similarity >= (needed if votes >= SURE_VOTES else SAME_BY_S[-1][1])
