"""Read the tensors of a TensorFlow checkpoint ("V2", a tensor bundle) without TensorFlow.

The `.index` file is a sorted table in LevelDB's format: blocks of keys, each key given as what it
adds to the one before, a checksum behind each block, and a footer that says where the block of
blocks lies. The key "" holds a BundleHeaderProto; every other key is a tensor's name and holds a
BundleEntryProto: type, shape, and where its bytes lie in the `.data-*` files. Nothing of a
checkpoint is run. Sources: LevelDB's doc/table_format.md; TensorFlow's
core/protobuf/tensor_bundle.proto and core/util/tensor_bundle.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ossicle.errors import DownloadError

FOOTER_BYTES = 48
TABLE_MAGIC = 0xDB4775248B80FB57
# Behind each block: one byte for its compression, four for its checksum.
TRAILER_BYTES = 5
# A key may repeat all of the one before for three bytes of file: bounds on both bound the memory.
MAX_INDEX_BYTES = 4 << 20
MAX_KEY_BYTES = 512
# DataType in TensorFlow's types.proto -> numpy's, as they lie in the file.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 19: "<f2"}


class Entry(NamedTuple):
    """Where a tensor lies and what it is.

    Attributes:
        dtype: TensorFlow's number of the type.
        shape: its axes.
        shard: which of the data files.
        offset: of its first byte there.
        size: bytes.
        checksum: masked CRC-32C of these bytes.
        sliced: whether the tensor is kept in parts under other keys, which are not read.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def read_entries(index: Path) -> tuple[dict[str, Entry], int]:
    """What a checkpoint's `.index` file lists: name -> entry, and the number of data files.

    Raises:
        DownloadError: it is not such a file, is damaged, or is packed in a way that is not read.
    """
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError("larger than any real index")
        table = _read_table(index.read_bytes())
        header = table.pop(b"", None)
        if header is None:
            raise ValueError("it lacks the header of a V2 checkpoint")
        fields = dict(_fields(header))
        if fields.get(2, 0) != 0:
            raise ValueError("its numbers are big-endian")
        entries = {key.decode("utf-8"): _entry(value) for key, value in table.items()}
        return entries, _whole(fields.get(1, 1))
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise _unreadable(index, error) from error


def read_checkpoint(
    index: Path, shards: Sequence[Path], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint by name, each with its checksum verified.

    Args:
        index: the `.index` file.
        shards: the `.data-*` files, in order.
        names: those wanted; None is all.

    Raises:
        DownloadError: a file is damaged or is none of a checkpoint, or there is no such tensor.
    """
    entries, number = read_entries(index)
    if number != len(shards):
        raise DownloadError(f"{index}: names {number} data files, {len(shards)} are given")
    tensors = {}
    for name in entries if names is None else names:
        if name not in entries:
            raise DownloadError(f"{index}: holds no tensor {name!r}")
        entry = entries[name]
        try:
            if not 0 <= entry.shard < number:
                raise ValueError("lies in a data file that is not there")
            tensors[name] = _read_tensor(shards[entry.shard], entry)
        except (OSError, ValueError) as error:
            raise _unreadable(index, error, f"{name}: ") from error
    return tensors


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted as LevelDB stores it.

    >>> hex(masked_crc32c(b"123456789") - 0xA282EAD8 & 0xFFFFFFFF)  # e3069283, rotated by 15 bits
    '0x2507c60d'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def _read_table(content: bytes) -> dict[bytes, bytes]:
    """Keys and values of a sorted table."""
    footer = content[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != TABLE_MAGIC:
        raise ValueError("it does not end as an index does")
    position = 0
    handle = []  # of the meta block, which is empty, and of the block of blocks
    for _ in range(4):
        value, position = _varint(footer, position)
        handle.append(value)
    body = content[:-FOOTER_BYTES]
    table: dict[bytes, bytes] = {}
    last_key, last_end = None, 0
    for _, place in _block_items(_block(body, handle[2], handle[3])):
        offset, position = _varint(place, 0)
        size, _ = _varint(place, position)
        # In order and without overlap, or a small file could name one block a million times.
        if offset < last_end:
            raise ValueError("its blocks overlap")
        last_end = offset + size + TRAILER_BYTES
        for key, item in _block_items(_block(body, offset, size)):
            if last_key is not None and key <= last_key:
                raise ValueError("its keys are not in order")
            table[key] = item
            last_key = key
    return table


def _block(body: bytes, offset: int, size: int) -> bytes:
    """A block's content, if it lies in the file, is not compressed, and its checksum holds."""
    if offset + size + TRAILER_BYTES > len(body):
        raise ValueError("a block lies outside the file")
    content, kind = body[offset : offset + size], body[offset + size]
    (checksum,) = struct.unpack_from("<I", body, offset + size + 1)
    if masked_crc32c(body[offset : offset + size + 1]) != checksum:
        raise ValueError("a block's checksum is wrong")
    if kind != 0:
        raise ValueError("its blocks are compressed, which is not read")
    return content


def _block_items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; the restart points at its end are for searching alone."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is cut short")
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + added + length > end:
            raise ValueError("a key or its value lies outside its block")
        if shared + added > MAX_KEY_BYTES:
            raise ValueError("a key is longer than any real one")
        key = key[:shared] + block[position : position + added]
        position += added + length
        yield key, block[position - length : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A whole number in base 128, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number does not end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer: whole numbers, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _varint(message, position)
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                length, position = _varint(message, position)
            value = message[position : position + length]
            position += length
            if position > len(message):
                raise ValueError("a field is cut short")
        else:
            raise ValueError("a field is of an unknown kind")
        yield tag >> 3, value


def _entry(message: bytes) -> Entry:
    values: dict[int, int | bytes] = {}
    sliced = False
    for number, value in _fields(message):
        values[number] = value
        sliced = sliced or number == 7
    checksum = values.get(6, bytes(4))
    if not isinstance(checksum, bytes):
        raise ValueError("a checksum is none")
    dtype, shard, offset, size = (_whole(values.get(number, 0)) for number in (1, 3, 4, 5))
    shape = _shape(values.get(2, b""))
    return Entry(dtype, shape, shard, offset, size, struct.unpack("<I", checksum)[0], sliced)


def _shape(message: int | bytes) -> tuple[int, ...]:
    """TensorShapeProto: its field 2 once for each axis, in which field 1 is the length."""
    if not isinstance(message, bytes):
        raise ValueError("a shape is none")
    axes = [axis for number, axis in _fields(message) if number == 2]
    return tuple(_whole(dict(_fields(a)).get(1, 0)) if isinstance(a, bytes) else -1 for a in axes)


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int) or value >= 1 << 63:
        raise ValueError("a number is none, or is negative")
    return value


def _read_tensor(shard: Path, entry: Entry) -> np.ndarray:
    if entry.sliced:
        raise ValueError("is kept in parts, which are not read")
    if entry.dtype not in DTYPES:
        raise ValueError(f"is of TensorFlow's type {entry.dtype}, which is not read")
    dtype = np.dtype(DTYPES[entry.dtype])
    if min(entry.shape, default=0) < 0 or math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"has {entry.size} bytes for the shape {entry.shape}")
    with shard.open("rb") as file:
        # Before reading, as a size out of a damaged index could be any.
        if entry.offset + entry.size > shard.stat().st_size:
            raise ValueError(f"lies outside {shard.name}")
        file.seek(entry.offset)
        content = file.read(entry.size)
    if masked_crc32c(content) != entry.checksum:
        raise ValueError(f"its checksum is wrong in {shard.name}")
    return np.frombuffer(content, dtype).reshape(entry.shape).copy()


def _unreadable(path: Path, error: Exception, where: str = "") -> DownloadError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DownloadError(f"{path}: not a TensorFlow checkpoint that can be read ({where}{reason})")
