"""The picture of a stretch of sound of any length: a log-mel spectrogram of so many columns.

A minute and a day take the same memory: frames are folded into their column as the file is read.
F bands, W columns, time last.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import scipy.fft
from PIL import Image

from ossicle import audio
from ossicle.errors import AudioError
from ossicle.frontend.mel import mel_edges_hz, mel_filters

BANDS = 128
FRAME_S = 0.045
# A stretch up to this long is read at once; of a longer one a block at a time.
_READ_S = 60.0
_FRAMES_AT_ONCE = 512
_LEAST = 1e-10
_TOP_DB, _LEAST_DB = 70.0, 25.0


class Spectrogram(NamedTuple):
    """What a picture shows.

    Attributes:
        decibels: (F, W) float32, low bands first.
        edges: (W + 1,) seconds in the file: column w lasts from edges[w] to edges[w + 1].
        frequencies: (F,) centres of the bands in Hz.
        top_hz: the upper edge of the highest band.
    """

    decibels: np.ndarray
    edges: np.ndarray
    frequencies: np.ndarray
    top_hz: float


def read_spectrogram(
    path: str | Path,
    onset_s: float | None = None,
    offset_s: float | None = None,
    *,
    columns: int,
    duration_s: float | None = None,
    sample_rate: int | None = None,
) -> Spectrogram:
    """Read a stretch of a file as a spectrogram of at most ``columns`` columns.

    Args:
        path: the file.
        onset_s, offset_s: the stretch in seconds; None is the file's start, its end. What lies
            past the end is left out.
        columns: W; fewer where the stretch has not so many samples.
        duration_s: the file's length in seconds where it is known; None measures it.
        sample_rate: resample to this rate in Hz; None keeps the file's own.

    Returns:
        The spectrogram; see ``columns_of``.

    Raises:
        AudioError: as in ``ossicle.audio.load``; or the stretch begins past the file's end.
    """
    length = audio.info(path).duration_s if duration_s is None else duration_s
    onset = onset_s or 0.0
    offset = length if offset_s is None else min(offset_s, length)
    if not 0 <= onset < offset:
        raise AudioError(path, f"has nothing from {onset:g} s: it lasts {length:g} s")
    if offset - onset <= _READ_S:
        samples, rate = audio.load(path, sample_rate=sample_rate, onset=onset, offset=offset)
        blocks: Iterable[np.ndarray] = [samples[0]]
        # What was read, not what the header or the caller said, is as long as the picture.
        offset = onset + samples.shape[1] / rate
    else:
        pieces = audio.stream(path, sample_rate=sample_rate, block_s=10.0)
        first = next(pieces)
        rate = first.sample_rate
        blocks = _between(first, pieces, round(onset * rate), round(offset * rate))
    picture = columns_of(blocks, rate, offset - onset, columns)
    return picture._replace(edges=picture.edges + onset)


def columns_of(
    blocks: Iterable[np.ndarray], sample_rate: int, duration_s: float, columns: int
) -> Spectrogram:
    """The spectrogram of sound that comes in blocks, in constant memory.

    A frame belongs to the column that its centre lies in. A column shows, for each bin of the
    transform, the geometric mean of the mean and the maximum of its frames' powers: the mean alone
    hides a short sound in a long column, the maximum alone shows nothing but clicks. Bins are then
    summed into mel bands.

    Args:
        blocks: (N,) float samples each, in order.
        sample_rate: Hz.
        duration_s: how long all blocks together are, seconds; more is left out, and what is
            missing is as silent as can be.
        columns: W at most.

    Returns:
        The spectrogram; its times begin at 0.
    """
    n_samples = max(1, round(duration_s * sample_rate))
    width = max(1, min(columns, n_samples))
    n_fft = 1 << max(5, math.ceil(math.log2(FRAME_S * sample_rate)))
    hop = min(n_fft // 2, max(1, n_samples // (2 * width)))
    bands = min(BANDS, n_fft // 4)
    filters = _filters(sample_rate, n_fft, bands)
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    levels = np.full((bands, width), 10 * math.log10(_LEAST), np.float32)

    open_column = -1
    total = peak = np.zeros(0, np.float32)
    count = 0

    def close() -> None:
        if open_column >= 0:
            power = filters @ np.sqrt(total / count * peak)
            levels[:, open_column] = 10 * np.log10(np.maximum(power, _LEAST))

    for number, frames in _frames(blocks, n_fft, hop, n_samples):
        power = np.abs(scipy.fft.rfft(frames * window, axis=1)) ** 2
        centres = (number + np.arange(len(frames))) * hop
        at = np.minimum(centres * width // n_samples, width - 1)
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        sums, peaks = np.add.reduceat(power, starts), np.maximum.reduceat(power, starts)
        counts = np.diff(starts, append=len(at))
        for column, some, high, n in zip(at[starts], sums, peaks, counts, strict=True):
            if column == open_column:
                total, peak, count = total + some, np.maximum(peak, high), count + n
                continue
            close()
            open_column, total, peak, count = int(column), some, high, n
    close()
    edges = np.arange(width + 1) * (n_samples / width / sample_rate)
    centres_hz = mel_edges_hz(bands, 0.0, sample_rate / 2)[1:-1]
    return Spectrogram(levels, edges, centres_hz, sample_rate / 2)


def shades(decibels: np.ndarray) -> np.ndarray:
    """Decibels of any shape as brightness from 0 to 1, float32.

    The loudest is 1, 70 dB below it 0; in noise the quietest tenth is 0, so that the picture is
    not one bright field. Silence is 0.
    """
    loudest = float(decibels.max())
    if float(np.ptp(decibels)) <= 0:
        return np.zeros(decibels.shape, np.float32)
    below = np.maximum(decibels - loudest, -_TOP_DB)
    floor = min(-_LEAST_DB, float(np.quantile(below, 0.1)))
    return np.clip(1 - below / floor, 0, 1).astype(np.float32)


def webp(picture: Spectrogram, size: tuple[int, int], most_bytes: int) -> bytes:
    """A spectrogram as WebP of (width, height) pixels, of at most about so many bytes."""
    image = Image.fromarray(shades(picture.decibels)[::-1]).resize(size, Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps["cividis"](np.asarray(image), bytes=True)[..., :3]
    for quality in (60, 40, 20, 5):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()


def _filters(sample_rate: int, n_fft: int, bands: int) -> np.ndarray:
    filters = mel_filters(sample_rate=sample_rate, n_fft=n_fft, n_mels=bands)
    # A band between two bins takes the nearest one, so that no dark stripe is drawn.
    centres = mel_edges_hz(bands, 0.0, sample_rate / 2)[1:-1]
    for band in np.flatnonzero(~filters.any(axis=1)):
        filters[band, max(1, round(centres[band] * n_fft / sample_rate))] = n_fft / sample_rate
    return (filters / n_fft).astype(np.float32)


def _between(
    first: audio.Audio, rest: Iterator[audio.Audio], start: int, stop: int
) -> Iterator[np.ndarray]:
    """The samples start to stop (excluded) of a stream."""
    at, block = 0, first.samples[0]
    while True:
        piece = block[max(0, start - at) : max(0, stop - at)]
        if len(piece):
            yield piece
        at += len(block)
        if at >= stop:
            return
        following = next(rest, None)
        if following is None:
            return
        block = following.samples[0]


def _frames(
    blocks: Iterable[np.ndarray], n_fft: int, hop: int, n_samples: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, (frames, n_fft)): frame k is centred on sample k * hop < n_samples."""
    held = np.zeros(n_fft // 2, np.float32)
    number, wanted = 0, (n_samples - 1) // hop + 1
    ended = False
    source = iter(blocks)
    while number < wanted:
        # Always so many at once, so that sums do not depend on how the sound is cut into blocks.
        some = min(wanted - number, _FRAMES_AT_ONCE)
        if len(held) < n_fft + (some - 1) * hop:
            block = next(source, None)
            if block is not None:
                held = np.concatenate([held, np.asarray(block, np.float32)])
                continue
            if not ended:
                # The last frames reach past the end by half their length.
                held, ended = np.concatenate([held, np.zeros(n_fft, np.float32)]), True
            some = min(some, (len(held) - n_fft) // hop + 1 if len(held) >= n_fft else 0)
            if some <= 0:
                return
        views = np.lib.stride_tricks.sliding_window_view(held, n_fft)[::hop][:some]
        yield number, views
        number += some
        held = held[some * hop :]
