"""Read, downmix, resample, cut and save audio: with its decoders, the only reader of audio files.

Symbols: C channels, N samples (time last). Samples are float32; integer formats map to [-1, 1],
float files keep values beyond. The rate in Hz travels with the samples.

The order is fixed: decode, mean over the channels, resample. The mean, not FFmpeg's power-keeping
downmix, so that one sound recorded in mono and in stereo has one loudness.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from ossicle.decode import Decoder, open_decoder
from ossicle.errors import AudioError, OssicleError
from ossicle.record import replaced
from ossicle.tally import Tally

# fmt: off
_BY_LIBSNDFILE = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64",
)
# fmt: on
_BY_FFMPEG = (".m4a", ".m4b", ".aac", ".mp4", ".webm", ".mka", ".wma")
# What a folder is searched for; a file is read for its content whatever it is called.
EXTENSIONS = frozenset({*_BY_LIBSNDFILE, *_BY_FFMPEG})
_SAVED_AS = {".wav": "WAV", ".flac": "FLAC"}
# 6 s at 44.1 kHz: small beside a long file, large beside the cost of a call.
_BLOCK_FRAMES = 1 << 18


class Audio(NamedTuple):
    """Samples and their rate.

    Attributes:
        samples: (C, N) float32.
        sample_rate: in Hz.
    """

    samples: np.ndarray
    sample_rate: int


class AudioInfo(NamedTuple):
    """What a file holds.

    Attributes:
        duration_s: in seconds.
        sample_rate: in Hz.
        channels: C.
        format: container and codec, such as "WAV/PCM_16".
    """

    duration_s: float
    sample_rate: int
    channels: int
    format: str


def is_audio(path: str | os.PathLike[str]) -> bool:
    """Whether a file's suffix, in any case, is one of `EXTENSIONS`."""
    return Path(path).suffix.lower() in EXTENSIONS


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Length, rate and channels of a file.

    The length comes from the header where that is exact. MP3 and what FFmpeg reads are decoded
    to the end, in constant memory, because their headers are not to be trusted.

    Raises:
        AudioError: as in `load`.
    """
    with open_decoder(path) as decoder:
        frames = decoder.frames
        if frames is None:
            frames = sum(len(block) for block in decoder.blocks(0, None, _BLOCK_FRAMES))
        duration_s = frames / decoder.sample_rate
        return AudioInfo(duration_s, decoder.sample_rate, decoder.channels, decoder.format)


def load(
    path: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    mono: bool = True,
    onset: float | None = 0.0,
    offset: float | None = None,
    min_duration_s: float = 0.0,
    allow_silent: bool = True,
) -> Audio:
    """Read a file, or a segment of it.

    A segment holds the file's samples round(onset * rate) to round(offset * rate), the last
    excluded, and is resampled by itself. Resampling N samples gives N * to / from, rounded to the
    nearest.

    Args:
        path: the file, in any format that soundfile reads, or FFmpeg with `ossicle[av]`.
        sample_rate: resample to this rate in Hz (soxr, HQ); None keeps the file's own.
        mono: take the mean of the channels, C = 1; otherwise keep them.
        onset: start of the segment in seconds; None or NaN: the file's start.
        offset: end of the segment in seconds, None or NaN: the file's end, as is what lies past it.
        min_duration_s: the shortest length to accept, in seconds.
        allow_silent: accept a file whose samples are all alike or below 1e-7.

    Returns:
        samples (C, N) float32 and their rate in Hz.

    Raises:
        AudioError: the file is missing, a folder, empty, not audio, in need of PyAV, truncated or
            damaged; holds no samples, or NaN or infinite ones; is shorter than `min_duration_s`;
            is silent though that is not allowed; or the segment begins past its end.
        OssicleError: `sample_rate` is not positive.
    """
    _check_rate(sample_rate)
    with open_decoder(path) as decoder:
        rate = sample_rate or decoder.sample_rate
        tally = Tally(decoder.path, decoder.sample_rate)
        blocks = tally.watch(_blocks(decoder, mono, onset, offset))
        pieces = [piece for piece in _resampled(blocks, decoder.sample_rate, rate) if len(piece)]
    tally.check(onset, min_duration_s, allow_silent)
    if not pieces:
        raise tally.too_short(rate)
    return Audio(_time_last(pieces[0] if len(pieces) == 1 else np.concatenate(pieces)), rate)


def stream(
    path: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    mono: bool = True,
    block_s: float = 60.0,
    min_duration_s: float = 0.0,
    allow_silent: bool = True,
    truncated: bool = False,
) -> Iterator[Audio]:
    """Read a file of any length block by block, in constant memory.

    The blocks, joined, are what `load` returns: the resampler runs on across their borders.

    Args:
        path: the file.
        sample_rate: resample to this rate in Hz; None keeps the file's own.
        mono: take the mean of the channels; otherwise keep them.
        block_s: length of a block in seconds.
        min_duration_s, allow_silent: as in `load`.
        truncated: yield all that can be read before raising what is wrong with the rest.

    Yields:
        Audio with samples (C, N), N = round(block_s * rate) but for the last block, which is
        shorter or as long.

    Raises:
        AudioError: as in `load`; what only the end shows (truncation, silence) is raised there.
        OssicleError: `sample_rate` or `block_s` is not positive.
    """
    _check_rate(sample_rate)
    if not (block_s > 0 and math.isfinite(block_s)):
        raise OssicleError(f"block_s must be a positive number of seconds, got {block_s}")
    with open_decoder(path, truncated=truncated) as decoder:
        rate = sample_rate or decoder.sample_rate
        size = max(1, round(block_s * rate))
        tally = Tally(decoder.path, decoder.sample_rate)
        kept: list[np.ndarray] = []
        held, came = 0, False
        damage = decoder.cut_short
        blocks = tally.watch(_blocks(decoder, mono, None, None))
        pieces = _resampled(blocks, decoder.sample_rate, rate)
        while True:
            try:
                piece = next(pieces, None)
            except AudioError as error:
                if not truncated:
                    raise
                piece, damage = None, damage or error
            if piece is None:
                break
            kept.append(piece)
            held += len(piece)
            if held >= size:
                joined = np.concatenate(kept)
                whole = held - held % size
                for at in range(0, whole, size):
                    came = True
                    yield Audio(_time_last(joined[at : at + size].copy()), rate)
                kept, held = [joined[whole:].copy()], held - whole
        if damage is None or not (came or held):
            tally.check(None, min_duration_s, allow_silent)
        if held:
            yield Audio(_time_last(np.concatenate(kept)), rate)
        elif not came and damage is None:
            raise tally.too_short(rate)
        if damage is not None:
            raise damage


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample with soxr HQ, as `load` does.

    Args:
        samples: (N,) or (C, N).
        from_rate: their rate in Hz.
        to_rate: the wanted rate in Hz.

    Returns:
        (..., N * to_rate / from_rate) float32, the length rounded to the nearest; a half goes up
        or down as floating point has it, always alike.

    Raises:
        OssicleError: a rate is not positive, or `samples` has another number of axes.

    >>> resample(np.zeros((2, 441), np.float32), 44100, 16000).shape
    (2, 160)
    """
    _check_rate(from_rate)
    _check_rate(to_rate)
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim not in (1, 2):
        raise OssicleError(f"samples must be (N,) or (C, N), got shape {samples.shape}")
    if from_rate == to_rate:
        return samples
    return np.ascontiguousarray(soxr.resample(samples.T, from_rate, to_rate, quality="HQ").T)


def save(path: str | os.PathLike[str], audio: Audio, subtype: str | None = None) -> None:
    """Write WAV or FLAC, by the suffix; the file appears whole or not at all.

    Args:
        path: a name that ends in .wav or .flac; its folder must exist.
        audio: samples (C, N) or (N,) and their rate in Hz.
        subtype: soundfile's name for the coding; None: 16-bit integers. "FLOAT" (WAV) keeps every
            value as it is.

    Raises:
        AudioError: another suffix or subtype; NaN, infinite or no samples; values beyond [-1, 1],
            which integers cannot hold (nothing is ever clipped); or the folder cannot be written.
    """
    path = Path(path)
    kind = _SAVED_AS.get(path.suffix.lower())
    if kind is None:
        raise AudioError(path, "can be saved as .wav or .flac only")
    subtype = (subtype or "PCM_16").upper()
    if not soundfile.check_format(kind, subtype):
        known = ", ".join(soundfile.available_subtypes(kind))
        raise AudioError(path, f"{kind} has no subtype {subtype}; use one of {known}")
    samples = np.atleast_2d(np.asarray(audio.samples, dtype=np.float32))
    if samples.ndim != 2 or samples.size == 0:
        raise AudioError(path, f"samples must be (C, N) and not empty, got {samples.shape}")
    low, high = float(samples.min()), float(samples.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AudioError(path, "is not written: its samples hold NaN or infinite values")
    peak = max(-low, high)
    if peak > 1 and subtype not in ("FLOAT", "DOUBLE"):
        raise AudioError(
            path,
            f"is not written: samples reach {peak:.3g} and {subtype} ends at 1; "
            "scale them, or save WAV with subtype FLOAT",
        )
    try:
        with (
            replaced(path) as part,
            part.open("wb") as handle,
            soundfile.SoundFile(
                handle, "w", audio.sample_rate, len(samples), subtype, format=kind
            ) as file,
        ):
            for at in range(0, samples.shape[1], _BLOCK_FRAMES):
                file.write(samples[:, at : at + _BLOCK_FRAMES].T)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(path, f"cannot be written: {error}") from error


def window_onsets(n_samples: int, window: int, hop: int) -> np.ndarray:
    """First samples of the windows that cover a recording: 0, hop, 2 hop, ...

    The last window may reach past the end (the caller pads it); it is there only if the windows
    before it leave samples at the end uncovered, and none begins past the end. With hop <= window
    every sample is covered and the count is 1 + ceil(max(0, n_samples - window) / hop).

    Args:
        n_samples: length of the recording; 0 gives no window.
        window: length of a window in samples.
        hop: distance between windows in samples; beyond `window` it leaves gaps.

    Returns:
        (windows,) int64.

    Raises:
        OssicleError: window or hop below 1, or n_samples below 0.

    >>> window_onsets(10, 4, 2)
    array([0, 2, 4, 6])
    >>> window_onsets(11, 4, 2)
    array([0, 2, 4, 6, 8])
    """
    n_samples, window, hop = map(operator.index, (n_samples, window, hop))
    if window < 1 or hop < 1 or n_samples < 0:
        raise OssicleError(
            f"window and hop must be at least 1 sample and n_samples at least 0, "
            f"got {window}, {hop} and {n_samples}"
        )
    if n_samples == 0:
        return np.zeros(0, dtype=np.int64)
    count = 1 - (min(0, window - n_samples) // hop)  # the ceiling, in integers
    count = min(count, (n_samples - 1) // hop + 1)
    return np.arange(count, dtype=np.int64) * hop


def _check_rate(sample_rate: int | None) -> None:
    if sample_rate is not None and not sample_rate > 0:
        raise OssicleError(f"a sample rate must be a positive number of Hz, got {sample_rate}")


def _blocks(
    decoder: Decoder, mono: bool, onset: float | None, offset: float | None
) -> Iterator[np.ndarray]:
    """Decoded blocks, (N,) for one channel or the mean, otherwise (N, C)."""
    start, stop = _segment(decoder, onset, offset)
    for block in decoder.blocks(start, stop, _BLOCK_FRAMES):
        if block.shape[1] == 1:
            yield block[:, 0]
        else:
            yield _mean(block) if mono else block


def _mean(block: np.ndarray) -> np.ndarray:
    # Column by column: numpy's mean over so short an axis takes ten times as long.
    total = block[:, 0].copy()
    for channel in range(1, block.shape[1]):
        total += block[:, channel]
    total /= np.float32(block.shape[1])
    return total


def _segment(decoder: Decoder, onset: float | None, offset: float | None) -> tuple[int, int | None]:
    """First frame and the frame after the last (None: the end)."""
    begin = 0.0 if onset is None or math.isnan(onset) else onset
    end = math.inf if offset is None or math.isnan(offset) else offset
    if not 0 <= begin < end:
        raise AudioError(
            decoder.path,
            f"has no segment {begin:g} to {end:g} s: an onset is at least 0 and before its offset",
        )
    rate = decoder.sample_rate
    return round(begin * rate), None if math.isinf(end) else round(end * rate)


def _resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Blocks (N,) or (N, C) at another rate; what the resampler holds back comes last."""
    if from_rate == to_rate:
        yield from blocks
        return
    resampler: soxr.ResampleStream | None = None
    nothing = np.zeros(0, dtype=np.float32)
    for block in blocks:
        if resampler is None:
            channels = 1 if block.ndim == 1 else block.shape[1]
            resampler = soxr.ResampleStream(from_rate, to_rate, channels, "float32", "HQ")
            nothing = block[:0]
        yield resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(nothing, last=True)


def _time_last(samples: np.ndarray) -> np.ndarray:
    return samples[np.newaxis] if samples.ndim == 1 else np.ascontiguousarray(samples.T)
