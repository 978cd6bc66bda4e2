"""Write sound files of any length as their samples come, several of one recording with one gain.

What is written may go beyond full scale before its end is known. So samples go to a temporary file
as they are (float32), and to WAV or FLAC once all are there: never clipped, with one gain for all
files of a recording, so that they still add up.

Symbols: S files, C channels, N samples; time last.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np
import soundfile

from ossicle.errors import AudioError, DataError

FORMATS = ("wav", "flac")
_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FLAC_CHANNELS, _FLAC_RATE = 8, 655_350
# A WAV file counts its bytes in 32 bits; longer ones become RF64 (EBU Tech 3306), by the same name.
_WAV_BYTES = 0xFFFF_0000
_BLOCK_FRAMES = 1 << 16


class Written(NamedTuple):
    """What became of the files.

    Attributes:
        gain_db: that all of them were turned down by, 0 or negative.
        peak: the greatest magnitude before that.
        frames: N.
    """

    gain_db: float
    peak: float
    frames: int


def subtype_like(coding: str, kind: str) -> str:
    """The subtype that keeps what an input's coding can hold.

    Args:
        coding: of the input, as `ossicle.audio.AudioInfo.format` names it: "WAV/PCM_24".
        kind: of `FORMATS`. FLAC has no floating point: it becomes 24 bits.

    >>> subtype_like("WAV/FLOAT", "wav"), subtype_like("OGG/VORBIS", "flac")
    ('FLOAT', 'PCM_16')
    """
    name = coding.rpartition("/")[2]
    wav = {"PCM_24": "PCM_24", "PCM_32": "PCM_32", "FLOAT": "FLOAT", "DOUBLE": "FLOAT"}
    subtype = wav.get(name, "PCM_16")
    return "PCM_24" if kind == "flac" and subtype in ("PCM_32", "FLOAT") else subtype


def check_writable(
    path: str | os.PathLike[str], sample_rate: int, channels: int, subtype: str
) -> str:
    """soundfile's name of the format that a file's suffix asks for.

    Raises:
        AudioError: the suffix is neither .wav nor .flac, or the format cannot hold such sound.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise AudioError(path, "can be written as .wav or .flac only")
    if kind == "flac" and (channels > _FLAC_CHANNELS or sample_rate > _FLAC_RATE):
        raise AudioError(
            path,
            f"FLAC holds at most {_FLAC_CHANNELS} channels and {_FLAC_RATE} Hz, not {channels} "
            f"channels and {sample_rate} Hz; write WAV instead",
        )
    if subtype not in _BITS and (subtype != "FLOAT" or kind == "flac"):
        raise AudioError(path, f"{kind} cannot be written as {subtype}")
    if kind == "flac" and subtype == "PCM_32":
        raise AudioError(path, "FLAC holds at most 24 bits")
    return kind.upper()


class JointWriter:
    """Files of one recording, written side by side; they appear whole, all of them, or not at all.

    A context manager: what is not finished when it ends is taken away.

    Args:
        paths: S names that end in .wav or .flac; their folders are made.
        sample_rate: Hz.
        channels: C.
        subtype: "PCM_16", "PCM_24", "PCM_32" or, in WAV, "FLOAT", which holds values beyond 1 and
            is never turned down.
        work: folder for temporary files, on the same disk; None: beside the files.

    Raises:
        AudioError: a file's format cannot hold such sound.
        DataError: a folder cannot be made or written to.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        sample_rate: int,
        channels: int,
        subtype: str = "PCM_16",
        *,
        work: Path | None = None,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self._kinds = [check_writable(p, sample_rate, channels, subtype) for p in self.paths]
        self._rate, self._channels, self._subtype = sample_rate, channels, subtype
        self._low = self._high = 0.0
        self._frames = 0
        self._raw: list[IO[bytes]] = []
        self._parts: list[Path] = []
        mark = f"{os.getpid()}.{secrets.token_hex(4)}"
        self._names = [(work or p.parent) / f".{mark}.{i}" for i, p in enumerate(self.paths)]
        try:
            for path, name in zip(self.paths, self._names, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                name.parent.mkdir(parents=True, exist_ok=True)
                self._raw.append(self._part(name, "raw").open("w+b"))
        except OSError as error:
            self.close()
            raise self._failed(path, error) from error

    def _part(self, name: Path, kind: str) -> Path:
        part = name.with_name(f"{name.name}.{kind}.part")
        self._parts.append(part)
        return part

    def _failed(self, path: Path, error: BaseException) -> DataError:
        reason = getattr(error, "strerror", None) or str(error) or "is the disk full?"
        return DataError(f"{path}: cannot be written ({reason})")

    def write(self, sources: np.ndarray) -> None:
        """Append samples (S, C, n) float32 to the files.

        Raises:
            DataError: the disk is full, or holds no such file.
            AudioError: values are not finite.
        """
        if not sources.shape[-1]:
            return
        low, high = float(sources.min()), float(sources.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise AudioError(self.paths[0], "is not written: its samples hold NaN or infinities")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._frames += sources.shape[-1]
        for path, raw, source in zip(self.paths, self._raw, sources, strict=True):
            try:
                raw.write(np.ascontiguousarray(source.T, dtype="<f4").tobytes())
            except OSError as error:
                raise self._failed(path, error) from error

    def finish(self) -> Written:
        """Turn down what goes beyond full scale, and give the files their names.

        Raises:
            DataError: nothing was written, or the disk is full.
        """
        if not self._frames:
            raise DataError(f"{self.paths[0]}: is not written: there are no samples")
        gain = self._gain()
        done: list[tuple[Path, Path]] = []
        for path, kind, name, raw in zip(
            self.paths, self._kinds, self._names, self._raw, strict=True
        ):
            part = self._part(name, "done")
            try:
                raw.seek(0)
                self._encode(part, kind, raw, gain)
            except (OSError, soundfile.SoundFileError, AssertionError) as error:
                raise self._failed(path, error) from error
            raw.close()
            name.with_name(f"{name.name}.raw.part").unlink()
            done.append((part, path))
        try:
            for part, path in done:
                part.replace(path)
        except OSError as error:
            raise self._failed(path, error) from error
        gain_db = 20 * math.log10(gain) if gain < 1 else 0.0
        return Written(gain_db, max(-self._low, self._high), self._frames)

    def _gain(self) -> float:
        """The largest, up to 1, under which integers hold all values."""
        if self._subtype not in _BITS:
            return 1.0
        steps = 2 ** (_BITS[self._subtype] - 1)
        # The greatest integer is one step below full scale; what rounds to it needs no gain.
        gain = 1.0
        if self._high * steps >= steps - 0.5:
            gain = min(gain, (steps - 1) / steps / self._high)
        if -self._low > 1:
            gain = min(gain, 1 / -self._low)
        return gain

    def _encode(self, part: Path, kind: str, raw: IO[bytes], gain: float) -> None:
        size = self._frames * self._channels * _BITS.get(self._subtype, 32) // 8
        if kind == "WAV" and size > _WAV_BYTES:
            kind = "RF64"
        with ExitStack() as stack:
            # By descriptor: libsndfile takes only such names as are text, and Python's own
            # writing would swallow the error of a full disk.
            handle = stack.enter_context(part.open("w+b"))
            file = stack.enter_context(
                soundfile.SoundFile(
                    handle.fileno(),
                    "w",
                    self._rate,
                    self._channels,
                    self._subtype,
                    format=kind,
                    closefd=False,
                )
            )
            for block in _frames_of(raw, self._channels):
                file.write(_coded(block, self._subtype, gain))
            written = file.frames
        if written != self._frames:
            raise OSError(0, "not all was written: is the disk full?")

    def close(self) -> None:
        """Take away what is temporary."""
        for raw in self._raw:
            # A full disk fails again when what is buffered is written.
            with suppress(OSError):
                raw.close()
        for part in self._parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _frames_of(raw: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    """Blocks (n, C) of a file of float32 frames."""
    while data := raw.read(4 * channels * _BLOCK_FRAMES):
        yield np.frombuffer(data, "<f4").reshape(-1, channels)


def _coded(block: np.ndarray, subtype: str, gain: float) -> np.ndarray:
    """Samples as the file takes them, rounded to the nearest.

    libsndfile's own conversion cuts off what is below an integer, which sources that add up would
    not survive.
    """
    if subtype not in _BITS:
        return np.asarray(block * np.float32(gain), np.float32)
    bits = _BITS[subtype]
    steps = np.rint(block.astype(np.float64) * (gain * 2.0 ** (bits - 1)))
    if bits == 16:
        return steps.astype(np.int16)
    # soundfile takes 24 bits as the upper ones of 32.
    return (steps.astype(np.int64) << (32 - bits)).astype(np.int32)
