"""Decoders: one file in, blocks of float32 samples out. `audio.py` is their only caller.

soundfile (libsndfile) decodes wav, flac, vorbis, opus, mp3, aiff, au, caf, w64; PyAV (FFmpeg, the
extra `ossicle[av]`) decodes m4a, aac, mp4, webm and wma. The first bytes of the file decide which
of them reads it, not its suffix.

What a header says of the length is worth as much as its format: exact in WAV, FLAC and AIFF, where
fewer samples mean a truncated file; hearsay in MP3, where the length is what is decoded.

Symbols: N frames (one sample of every channel), C channels. Blocks are (N, C), as decoders have it.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import soundfile

from ossicle.errors import AudioError
from ossicle.headers import EndlessMp3, PatientReader, check_sample_data

# libsndfile says 2^63 - 1 frames where a header leaves the length open.
_UNKNOWN_FRAMES = 1 << 62
# From infrasound to bats, with room; in Hz.
_RATES = range(100, 10_000_000)
# The last Ogg page of a file cut without re-encoding may promise a packet more than there is.
_OGG_TOLERANCE_S = 0.1
# The bit reservoir reaches back 511 bytes: at most 22 of the smallest frames, of 1152 samples each.
_MP3_RUN_UP = 24 * 1152


class Decoder:
    """One open file; a context manager.

    Attributes:
        path: the file.
        sample_rate: in Hz.
        channels: C.
        format: container and codec, such as "OGG/VORBIS".
        frames: N where the header is exact, None where only decoding tells.
        cut_short: what shows already at the beginning that the end is missing, else None.
    """

    path: Path
    sample_rate: int
    channels: int
    format: str
    frames: int | None
    cut_short: AudioError | None = None

    def blocks(self, start: int, stop: int | None, block_frames: int) -> Iterator[np.ndarray]:
        """Frames `start` to `stop` (exclusive; None: the end), once, in order.

        Args:
            start: first frame. Past the end: no block comes.
            stop: the frame after the last; past the end, it means the end.
            block_frames: the most frames in a block.

        Yields:
            New float32 arrays (N, C) with 1 <= N <= block_frames, integer formats in [-1, 1].

        Raises:
            AudioError: the file is damaged or ends before its header says.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def open_decoder(path: str | os.PathLike[str], *, truncated: bool = False) -> Decoder:
    """Open a file with the decoder that its first bytes ask for.

    Args:
        path: the file.
        truncated: open it though its end is missing; `Decoder.cut_short` then tells.

    Raises:
        AudioError: missing, a folder, empty, not audio, truncated, or in need of PyAV.
    """
    cut_short: AudioError | None = None
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(path, "is a folder, not an audio file")
        if not stat.S_ISREG(mode):
            raise AudioError(path, "is not a regular file")
        handle = PatientReader(io.FileIO(path))
    except FileNotFoundError:
        raise AudioError(path, "does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(path, f"cannot be opened: {reason}") from None
    try:
        head = handle.read(16)
        if not head:
            raise AudioError(path, "is empty (0 bytes)")
        decoder: Decoder
        if _is_ffmpeg_only(head, path.suffix.lower()):
            handle.close()
            decoder = AvDecoder(path)
        else:
            try:
                check_sample_data(path, handle)
            except AudioError as error:
                if not truncated:
                    raise
                cut_short = error
            handle.seek(0)
            decoder = SoundFileDecoder(path, handle)
            decoder.cut_short = cut_short
    except BaseException:
        handle.close()
        raise
    if decoder.sample_rate not in _RATES:
        # Resampling seconds at 1 Hz would fill the memory.
        decoder.close()
        rate = f"{decoder.sample_rate} Hz"
        raise AudioError(path, f"has a rate of {rate}: its header is damaged, or it is no sound")
    return decoder


def _is_ffmpeg_only(head: bytes, suffix: str) -> bool:
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"0&\xb2u"):  # MP4, Matroska, ASF
        return True
    # An ADTS stream starts like an MPEG frame with a layer of 0, which MP3 never has.
    adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return adts or (suffix == ".aac" and head[:3] == b"ID3")


class _ForwardFile(soundfile.SoundFile):
    """Reads without soundfile's seek after each block, at whose end a cut FLAC file fails."""

    def seekable(self) -> bool:
        return False


class SoundFileDecoder(Decoder):
    """What libsndfile reads."""

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path = path
        # From an open file libsndfile judges by content alone; from a name it would take a text
        # file called .au or .vox for samples.
        self._handle: IO[bytes] | None = handle
        try:
            self._file = _ForwardFile(handle)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            if path.suffix.lower() != ".mp3":
                raise _not_audio(path) from error
            try:
                # By name, libsndfile lets its MP3 decoder skip rubbish before the first frame.
                self._file = _ForwardFile(path)
                self._handle = None
                handle.close()
            except (soundfile.SoundFileError, TypeError, ValueError):
                raise _not_audio(path) from error
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        self.format = f"{self._file.format}/{self._file.subtype}"
        self._is_mp3 = self._file.subtype.startswith("MPEG")
        self._header_frames = self._file.frames
        known = self._header_frames < _UNKNOWN_FRAMES and not self._is_mp3
        self.frames = self._header_frames if known else None

    def blocks(self, start: int, stop: int | None, block_frames: int) -> Iterator[np.ndarray]:
        """Frames `start` to `stop`; see `Decoder.blocks`. Seeks where that is exact."""
        end = self._header_frames if stop is None else min(stop, self._header_frames)
        position = start
        if start < end:
            skip = self._seek(start)
            for block in _read(self._file, self.path, start, skip, end - start, block_frames):
                position += len(block)
                yield block
            if self.frames is not None and end - position > self._tolerance():
                raise AudioError(
                    self.path,
                    f"is truncated or damaged: its header promises "
                    f"{self._header_frames / self.sample_rate:.2f} s, decoding ended at "
                    f"{position / self.sample_rate:.2f} s; replace the file",
                )
        wants_more = stop is None or position < stop
        if self._is_mp3 and wants_more and position >= end and self._has_more_mpeg(start):
            yield from self._beyond_header(position, stop, block_frames)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._handle is not None:
            self._handle.close()

    def _seek(self, start: int) -> int:
        """Go to frame `start`; return how many frames are left to drop."""
        if start == 0:
            return 0
        if self.frames is None and not self._is_mp3:
            return start  # libsndfile cannot seek in a FLAC file of open length
        # An MP3 frame borrows bits from frames before it: those are decoded too, and dropped.
        early = min(start, _MP3_RUN_UP) if self._is_mp3 else 0
        try:
            self._file.seek(start - early)
        except soundfile.SoundFileError as error:
            at_s = start / self.sample_rate
            raise AudioError(
                self.path, f"is truncated or damaged before {at_s:.2f} s; replace the file"
            ) from error
        return early

    def _tolerance(self) -> int:
        return int(_OGG_TOLERANCE_S * self.sample_rate) if self.format.startswith("OGG") else 0

    def _has_more_mpeg(self, start: int) -> bool:
        """Whether MPEG frames follow those that the header counted."""
        if self._handle is None:
            return False
        if start >= self._header_frames:
            return True  # nothing is decoded yet: find out by decoding
        rest = self._handle.read(1 << 14)
        # A tag (ID3v1, APE, Lyrics) and up to two frames of encoder padding may rightly remain.
        if len(rest) < 4096:
            return False
        is_frame = rest[0] == 0xFF and rest[1] & 0xE0 == 0xE0
        return rest[:3] == b"ID3" or (is_frame and rest.count(rest[:2]) > 3)

    def _beyond_header(
        self, position: int, stop: int | None, block_frames: int
    ) -> Iterator[np.ndarray]:
        count = None if stop is None else stop - position
        with EndlessMp3(self.path) as view, _ForwardFile(view) as file:
            yield from _read(file, self.path, position, position, count, block_frames)


def _read(
    file: soundfile.SoundFile,
    path: Path,
    start: int,
    skip: int,
    count: int | None,
    block_frames: int,
) -> Iterator[np.ndarray]:
    """Drop `skip` frames to come to frame `start`, then yield up to `count` (None: all)."""
    position = -skip
    while count is None or position < count:
        limit = -position if position < 0 else block_frames if count is None else count - position
        out = np.empty((min(limit, block_frames), file.channels), dtype=np.float32)
        try:
            got = len(file.read(out=out))
        except soundfile.SoundFileError as error:
            done_s = (start + position) / file.samplerate
            raise AudioError(
                path, f"is truncated or damaged after {done_s:.2f} s; replace the file"
            ) from error
        if got and position >= 0:
            yield out[:got]
        position += got
        if got < len(out):
            return


class AvDecoder(Decoder):
    """What FFmpeg reads, through PyAV. Segments are decoded from the start and dropped."""

    frames = None

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise AudioError(
                path,
                f"{path.suffix or 'this format'} needs PyAV: pip install 'ossicle[av]', or "
                "convert the file to WAV or FLAC",
            ) from None
        self.path = path
        self._error = av.FFmpegError
        try:
            # An absolute name: FFmpeg takes what precedes a colon for a protocol.
            self._container = av.open(str(path.absolute()), metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _not_audio(path) from error
        try:
            if not self._container.streams.audio:
                raise AudioError(path, "holds no audio stream")
            stream: Any = self._container.streams.audio[0]
            self._decoded = self._container.decode(stream)
            # The first frame, not the header, knows the rate of HE-AAC.
            self._first = next(self._decoded, None)
            if self._first is None:
                raise AudioError(path, "holds no samples")
        except av.FFmpegError as error:
            self.close()
            raise _not_audio(path) from error
        except BaseException:
            self.close()
            raise
        self.sample_rate = self._first.sample_rate
        self.channels = self._first.layout.nb_channels
        container = self._container.format.name.split(",")[0]
        self.format = f"{container}/{stream.codec_context.codec.name}".upper()
        # Of FFmpeg's containers, MP4's header is exact; the others estimate or leave it open.
        exact = container == "mov" and stream.duration and stream.time_base
        self._promised_s = float(stream.duration * stream.time_base) if exact else 0.0

    def blocks(self, start: int, stop: int | None, block_frames: int) -> Iterator[np.ndarray]:
        """Frames `start` to `stop`; see `Decoder.blocks`. Can be called once."""
        position = 0  # of the next decoded frame
        kept: list[np.ndarray] = []
        held = 0
        for samples in self._samples():
            first = max(0, start - position)
            last = len(samples) if stop is None else min(len(samples), stop - position)
            position += len(samples)
            if first < last:
                kept.append(samples[first:last])
                held += last - first
            while held >= block_frames:
                joined = np.concatenate(kept)
                yield joined[:block_frames]
                kept, held = [joined[block_frames:]], held - block_frames
            if stop is not None and position >= stop:
                break
        else:
            if self._promised_s > position / self.sample_rate + _OGG_TOLERANCE_S:
                raise AudioError(
                    self.path,
                    f"is truncated: its header promises {self._promised_s:.2f} s, decoding ended "
                    f"at {position / self.sample_rate:.2f} s; replace the file",
                )
        if held:
            yield np.concatenate(kept)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _samples(self) -> Iterator[np.ndarray]:
        position = 0
        frame = self._first
        while frame is not None:
            shape = (frame.sample_rate, frame.layout.nb_channels)
            if shape != (self.sample_rate, self.channels):
                raise AudioError(self.path, "changes its rate or channels midway; convert it first")
            yield _as_float(frame)
            position += frame.samples
            try:
                frame = next(self._decoded, None)
            except self._error as error:
                raise AudioError(
                    self.path,
                    f"is truncated or damaged after {position / self.sample_rate:.2f} s; "
                    "replace the file",
                ) from error


def _as_float(frame: Any) -> np.ndarray:
    """An FFmpeg frame as float32 (N, C), integers in [-1, 1]."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(samples.dtype, np.integer):
        scale = np.float32(-1.0 / np.iinfo(samples.dtype).min)
        return samples.astype(np.float32) * scale
    return samples.astype(np.float32)


def _not_audio(path: Path) -> AudioError:
    return AudioError(path, "cannot be read as audio: not an audio file, or damaged at its start")
