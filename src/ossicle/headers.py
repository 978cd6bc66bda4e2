"""What the headers of audio files promise, and how to hold them to it.

Two kinds of promise break silently in libsndfile: a container (WAV, RF64, W64, AIFF, AU, Ogg) that
ends before its headers say is read short, and an MP3 file that goes on after its header's end is
cut there.
"""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path
from typing import IO, Any

from ossicle.errors import AudioError

# Sizes that writers put into a header when they cannot seek back to correct it (sox, arecord).
_OPEN_SIZES = range(0x7FFF0000, 0x80000001)
_MOST_OGG_PAGE_BYTES = 27 + 255 + 255 * 255


class PatientReader(io.BufferedReader):
    """A file that stays where it is when told to go where no file reaches.

    libsndfile follows a damaged header anywhere; an exception raised in its midst cannot be caught
    and would be printed.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte if that can be; return the position in bytes."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


def check_sample_data(path: Path, handle: IO[bytes]) -> None:
    """Refuse a file that ends before its sample data does.

    Args:
        path: the file's name, for the error.
        handle: the file, open for reading; its position changes.

    Raises:
        AudioError: the file is shorter than its header's size of the sample data, or its last
            Ogg page is cut.
    """
    size = os.fstat(handle.fileno()).st_size
    if _is_ogg_cut(handle, size):
        raise AudioError(path, "is truncated: its last Ogg page is unfinished; replace the file")
    try:
        span = _sample_data(handle)
    except struct.error:
        return  # the header itself is cut: libsndfile says so
    if span is None:
        return
    at, length = span
    missing = at + length - size
    # Less than a frame is a writer's slip (a pad byte counted in), not lost sound.
    if missing > 8:
        raise AudioError(
            path,
            f"is truncated: its header promises {length} bytes of samples, the file holds "
            f"{max(0, size - at)}; replace the file",
        )


def _is_ogg_cut(handle: IO[bytes], size: int) -> bool:
    """Whether the last page (RFC 3533, section 6) is unfinished, and so lost.

    The flag for the stream's end is not asked for: those who record streams leave it out.
    """
    handle.seek(0)
    if handle.read(4) != b"OggS":
        return False
    handle.seek(max(0, size - _MOST_OGG_PAGE_BYTES))
    tail = handle.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    # Byte 26 counts the segments, whose lengths follow, a byte each.
    segments = page[26] if len(page) > 26 else 0
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _sample_data(handle: IO[bytes]) -> tuple[int, int] | None:
    """Position and length in bytes of the sample data that the header names; None: not named."""
    handle.seek(0)
    kind = handle.read(4)
    if kind in (b".snd", b"dns."):  # AU
        at, length = struct.unpack(">II" if kind == b".snd" else "<II", handle.read(8))
        return None if length >= 0xFFFF0000 else (at, length)
    if kind == b"FORM":
        return _find_chunk(handle, 12, ">", b"SSND")
    if kind in (b"RIFF", b"RIFX", b"RF64"):
        return _find_chunk(handle, 12, ">" if kind == b"RIFX" else "<", b"data")
    if kind == b"riff":
        return _find_w64_chunk(handle)
    return None


def _find_chunk(handle: IO[bytes], at: int, order: str, wanted: bytes) -> tuple[int, int] | None:
    large: int | None = None
    while True:
        if handle.seek(at) != at:
            return None
        name, length = struct.unpack(f"{order}4sI", handle.read(8))
        if name == b"ds64":  # RF64 (EBU Tech 3306): the sizes that 32 bits cannot hold
            _, large = struct.unpack("<QQ", handle.read(16))
        if name == wanted:
            if length == 0xFFFFFFFF and large is not None:
                return at + 8, large
            is_open = length >= 0xFFFF0000 or length in _OPEN_SIZES
            return None if is_open else (at + 8, length)
        at += 8 + length + (length & 1)


def _find_w64_chunk(handle: IO[bytes]) -> tuple[int, int] | None:
    at = 40  # after riff's GUID, the file's size and wave's GUID
    while True:
        if handle.seek(at) != at:
            return None
        name, length = struct.unpack("<16sQ", handle.read(24))
        if name[:4] == b"data":
            return at + 24, length - 24
        if length < 24:
            return None
        at += length + (-length) % 8


class EndlessMp3(io.RawIOBase):
    """An MP3 file's bytes with its promised length made too long to stop the decoder.

    libsndfile stops where the Xing header says or, without one, where the first frame's bit rate
    and the file's size put the end: files joined by `cat` and variable rates lose their rest. The
    Xing header's number of frames is overwritten here; without one the size is overstated.
    """

    _MOST_BYTES = 256  # the Xing header lies within so many bytes of the first frame's start

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        head = self._file.read(10)
        start = 0
        if head[:3] == b"ID3":
            # The tag's size has 7 bits a byte (ID3v2, section 3.1).
            start = 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        self._file.seek(start)
        tag = re.search(rb"(?:Xing|Info)\0\0\0[\x01-\x0f]", self._file.read(self._MOST_BYTES))
        has_count = tag is not None and tag[0][-1] & 1
        self._count_at = start + tag.end() if tag is not None and has_count else None
        size = os.fstat(self._file.fileno()).st_size
        # 320 kbit/s over 8 kbit/s is the most that an estimate from one frame can be off by.
        self._size = size if has_count else 64 * size
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; the end lies where the promise puts it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end of the real file."""
        if self._count_at is None and self._at >= self._size - 4096:
            # The decoder looks for a tag at the end: nothing is there.
            data = bytes(min(len(buffer), self._size - self._at))
        else:
            self._file.seek(self._at)
            data = self._file.read(len(buffer))
        if self._count_at is not None:
            patched = bytearray(data)
            for i, byte in enumerate(b"\x7f\xff\xff\xff"):
                if 0 <= (where := self._count_at + i - self._at) < len(patched):
                    patched[where] = byte
            data = bytes(patched)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
