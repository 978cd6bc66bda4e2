"""The checkpoint reader against TensorFlow's own, a slow encoder, and damaged files."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from ossicle.backbones.tf_checkpoint_reader import masked_crc32c, read_checkpoint, read_entries
from ossicle.backbones.weights_musicnn import MSD, MTT, fetch_musicnn
from ossicle.errors import DownloadError

# TensorFlow 2.21.0's NewCheckpointReader on the two published checkpoints, all 150 tensors of each:
# SHA-256 over the lines "{name} {dtype} {shape} {SHA-256 of the bytes}", sorted by name.
ALL_TENSORS = {
    "MTT_musicnn": "83e104af1384f8f476f36751eab9083788fae45252555dd090c23949efaf0e81",
    "MSD_musicnn": "e5c89c9549da49d3e0b6aa53fe639726622d75818b9cdd813c457d0339ff9b94",
}
# From the same reader, MTT_musicnn.
DENSE_KERNEL = "ebf4079e9f6870f903edbc215378d287c29a1fa21f649a3bb01a085a32704801"


def slow_crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit (RFC 3720, 12.1)."""
    register = 0xFFFFFFFF
    for byte in data:
        for i in range(8):
            low = (register ^ (byte >> i)) & 1
            register = (register >> 1) ^ (0x82F63B78 * low)
    return register ^ 0xFFFFFFFF


def slow_mask(crc: int) -> int:
    """LevelDB's util/crc32c.h, Mask: rotate right by 15 bits, add a constant."""
    bits = f"{crc:032b}"
    return (int(bits[-15:] + bits[:-15], 2) + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    groups = []
    while True:
        groups.append(value % 128)
        value //= 128
        if not value:
            return bytes(g + 128 for g in groups[:-1]) + bytes(groups[-1:])


def number(field: int, value: int) -> bytes:
    return varint(field * 8) + varint(value) if value else b""


def nested(field: int, message: bytes) -> bytes:
    return varint(field * 8 + 2) + varint(len(message)) + message


def entry(dtype: int, shape: tuple[int, ...], shard: int, offset: int, data: bytes, odd) -> bytes:
    """A tensor's entry, with ``odd`` values in place of the right ones."""
    right = {"dtype": dtype, "shape": shape, "shard": shard, "offset": offset, "size": len(data)}
    values = right | odd
    axes = b"".join(nested(2, number(1, size)) for size in values["shape"])
    message = number(1, values["dtype"]) + nested(2, axes) + number(3, values["shard"])
    message += number(4, values["offset"]) + number(5, values["size"])
    message += varint(6 * 8 + 5) + struct.pack("<I", slow_mask(slow_crc32c(data)))
    return message + odd.get("more", b"")


def block(items: list[tuple[bytes, bytes]], restart: int = 3) -> bytes:
    content, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(items):
        shared = 0
        if i % restart == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        last = key
    return content + b"".join(struct.pack("<I", r) for r in [*restarts, len(restarts)])


def closed(content: bytes, kind: int = 0) -> bytes:
    body = content + bytes([kind])
    return body + struct.pack("<I", slow_mask(slow_crc32c(body)))


def table(items: list[tuple[bytes, bytes]], per_block: int = 4, kind: int = 0) -> bytes:
    """A sorted table as LevelDB's doc/table_format.md has it."""
    file, handles = b"", []
    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        content = block(part)
        handles.append((part[-1][0], varint(len(file)) + varint(len(content))))
        file += closed(content, kind)
    footer = b""
    for part in ([], handles):
        content = block(part)
        footer += varint(len(file)) + varint(len(content))
        file += closed(content)
    return file + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


HEADER = number(1, 2) + nested(3, number(1, 1))
TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 6: np.int8, 9: np.int64}


def tensors() -> dict[str, tuple[int, np.ndarray]]:
    """By name, TensorFlow's number of the type and the values, in the order of the names."""
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (2, 3), (0, 4), (1, 1, 2, 2), (5,), (7, 2)]
    made = {"half": (19, rng.normal(size=4).astype(np.float16))}
    for i, shape in enumerate(shapes):
        for code, kind in list(TYPES.items())[i % 2 :: 2]:
            values = rng.integers(0, 100, shape).astype(kind)
            made[f"scope/layer_{i}/{np.dtype(kind).name}"] = (code, values)
    return dict(sorted(made.items()))


def written(folder: Path, change: dict[str, dict] | None = None, **how) -> tuple[Path, list[Path]]:
    """A checkpoint in two data files, its entries as they are or with odd values."""
    data, items = [b"", b""], [(b"", HEADER)]
    for i, (name, (code, values)) in enumerate(tensors().items()):
        shard, content = i % 2, values.tobytes()
        odd = (change or {}).get(name, {})
        message = entry(code, values.shape, shard, len(data[shard]), content, odd)
        items.append((name.encode(), message))
        data[shard] += content
    folder.mkdir(exist_ok=True)
    index, shards = folder / "x.index", [folder / f"x.data-0000{i}-of-00002" for i in range(2)]
    index.write_bytes(table(items, **how))
    for path, content in zip(shards, data, strict=True):
        path.write_bytes(content)
    return index, shards


@pytest.mark.parametrize("published", [MTT, MSD], ids=lambda p: p.folder)
def test_every_tensor_is_tensorflows(published):
    try:
        index, data = fetch_musicnn(published)
    except DownloadError as error:  # a machine without a network
        pytest.skip(str(error))
    found = read_checkpoint(index, [data])
    lines = [
        f"{name} {values.dtype} {list(values.shape)} {hashlib.sha256(values.tobytes()).hexdigest()}"
        for name, values in sorted(found.items())
    ]
    assert len(lines) == 150
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == ALL_TENSORS[published.folder]
    if published is MTT:
        one = read_checkpoint(index, [data], ["dense/kernel"])
        assert list(one) == ["dense/kernel"]
        assert one["dense/kernel"].shape == (1506, 200)
        assert hashlib.sha256(one["dense/kernel"].tobytes()).hexdigest() == DENSE_KERNEL


@pytest.mark.parametrize("per_block", [1, 4, 100])
def test_what_a_slow_encoder_wrote(tmp_path, per_block):
    index, shards = written(tmp_path, per_block=per_block)
    found = read_checkpoint(index, shards)
    want = tensors()
    assert list(found) == list(want)
    for name, (_, values) in want.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].shape == values.shape, name
        np.testing.assert_array_equal(found[name], values)
    entries, number_of_shards = read_entries(index)
    assert number_of_shards == 2
    assert entries["scope/layer_2/int32"].shape == (2, 3)
    found["half"][:] = 0  # one's own, to write on


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4; the last is the check value of the catalogue of CRCs
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_checksums_of_the_standard(data, crc):
    assert slow_crc32c(data) == crc
    assert masked_crc32c(data) == slow_mask(crc)


def test_no_damaged_byte_goes_unnoticed(tmp_path):
    """What is read in spite of a flipped byte is what was written: it lay in a gap."""
    index, shards = written(tmp_path)
    want = {name: values for name, (_, values) in tensors().items()}
    unread = 0
    for path in (index, *shards):
        whole = path.read_bytes()
        for i in range(len(whole)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :])
            try:
                found = read_checkpoint(index, shards)
            except DownloadError as error:
                assert str(path) in str(error) or str(index) in str(error)
                assert "\n" not in str(error)
                continue
            unread += 1
            assert list(found) == list(want)
            for name, values in want.items():
                np.testing.assert_array_equal(found[name], values)
        path.write_bytes(whole)
    # The meta block (of no items) with its handle, and the footer's padding.
    assert unread <= 48


def test_files_cut_short(tmp_path):
    index, shards = written(tmp_path)
    for path in (index, *shards):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(DownloadError, match="not a TensorFlow checkpoint"):
                read_checkpoint(index, shards)
        path.write_bytes(whole)


ONE = "scope/layer_1/uint8"  # three values


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offset": 10**15}, "lies outside"),
        ({"size": 2**62, "shape": (2**62,)}, "lies outside"),
        ({"shape": (2**62, 4)}, "bytes for the shape"),
        ({"shape": (2,)}, "bytes for the shape"),
        ({"shape": (1,) * 70 + (3,)}, "dimension"),
        ({"shape": (2**63,)}, "negative"),
        ({"shard": 2}, "data file that is not there"),
        ({"dtype": 7}, "type 7"),
        ({"dtype": 0}, "type 0"),
        ({"more": nested(7, b"")}, "in parts"),
        ({"more": number(1, 3) + b"\x0b"}, "unknown kind"),
        ({"more": b"\x12\x7f"}, "cut short"),
        ({"more": b"\x08" + b"\xff" * 11}, "does not end"),
        ({"more": b"\x30\x01"}, "a checksum is none"),
        ({"more": b"\x22\x01a"}, "a number is none"),
        ({"more": b"\x10\x01"}, "a shape is none"),
    ],
)
def test_entries_that_lie(tmp_path, change, reason):
    assert ONE in tensors()
    index, shards = written(tmp_path, {ONE: change})
    with pytest.raises(DownloadError, match=reason):
        read_checkpoint(index, shards)


def refused(folder: Path, content: bytes, reason: str) -> None:
    index = folder / "odd.index"
    index.write_bytes(content)
    with pytest.raises(DownloadError, match=reason):
        read_entries(index)


def test_indexes_that_lie(tmp_path):
    good = [(b"", HEADER), (b"a", b""), (b"b", b"")]
    refused(tmp_path, table(good[1:]), "lacks the header")
    refused(tmp_path, table([(b"", number(2, 1)), *good[1:]]), "big-endian")
    refused(tmp_path, table([good[0], good[2], good[1]]), "not in order")
    refused(tmp_path, table([good[0], good[1], good[1]], per_block=1), "not in order")
    refused(tmp_path, table([*good, (b"b\xff", b"")]), "utf-8")
    refused(tmp_path, table([*good, (b"b" * 513, b"")]), "longer than any real one")
    refused(tmp_path, table(good, kind=1), "compressed")
    refused(tmp_path, b"", "does not end as an index")
    refused(tmp_path, bytes(5 << 20), "larger than any real index")
    content = closed(block(good))
    place = varint(0) + varint(len(content) - 5)
    for handles, reason in (
        ([(b"b", place), (b"c", place)], "overlap"),
        ([(b"b", varint(10**9) + varint(10))], "outside the file"),
        ([(b"b", varint(0) + varint(2**64 - 1))], "outside the file"),
    ):
        inner = block(handles)
        footer = varint(0) + varint(0) + varint(len(content)) + varint(len(inner))
        magic = struct.pack("<Q", 0xDB4775248B80FB57)
        refused(tmp_path, content + closed(inner) + footer.ljust(40, b"\0") + magic, reason)
    # A block's own numbers: more restarts than it holds, a key or a value beyond its end.
    for inner, reason in (
        (struct.pack("<I", 2**31), "cut short"),
        (b"\x05\x01\x00a" + struct.pack("<I", 0), "outside its block"),
        (b"\x00\x01\x7fa" + struct.pack("<I", 0), "outside its block"),
        (b"\x00", "cut short"),
    ):
        footer = varint(0) + varint(0) + varint(0) + varint(len(inner))
        magic = struct.pack("<Q", 0xDB4775248B80FB57)
        refused(tmp_path, closed(inner) + footer.ljust(40, b"\0") + magic, reason)


def test_what_is_not_there_is_named(tmp_path):
    index, shards = written(tmp_path)
    with pytest.raises(DownloadError, match="no tensor 'absent'"):
        read_checkpoint(index, shards, ["absent"])
    with pytest.raises(DownloadError, match="names 2 data files, 1 are given"):
        read_checkpoint(index, shards[:1])
    shards[1].unlink()
    with pytest.raises(DownloadError, match="No such file"):
        read_checkpoint(index, shards)
    with pytest.raises(DownloadError, match="No such file"):
        read_entries(tmp_path / "absent.index")
