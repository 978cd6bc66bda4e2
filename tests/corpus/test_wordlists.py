"""Lists of frequent words: their format, their order, broken ones."""

from __future__ import annotations

import gzip
import struct

import pytest

from ossicle.corpus import wordlists
from ossicle.errors import DataError


def packed(value) -> bytes:
    """MessagePack by its specification, for what a list holds."""
    if isinstance(value, int):
        return bytes([value])
    if isinstance(value, dict):
        pairs = b"".join(packed(k) + packed(v) for k, v in value.items())
        return bytes([0x80 | len(value)]) + pairs
    if isinstance(value, list):
        head = bytes([0x90 | len(value)])
        if len(value) >= 16:
            head = b"\xdc" + struct.pack(">H", len(value))
        return head + b"".join(map(packed, value))
    text = value.encode()
    head = bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])
    return head + text


HEADER = {"format": "cB", "version": 1}


def test_a_word_list_is_read_back():
    steps = [[] for _ in range(40)]
    steps[3], steps[7] = ["the"], ["Wörter", "x" * 40, "слово"]
    assert wordlists.read_centibels(packed([HEADER, *steps])) == steps


def test_words_come_by_frequency_in_their_script(tmp_path):
    steps = [["the", "to"], [], ["it's", "größe", "слово"], ["a1b", "house", "end"]]
    path = tmp_path / "list.msgpack.gz"
    path.write_bytes(gzip.compress(packed([HEADER, *steps])))
    assert wordlists.frequent_words(path, "de", 10) == ["the", "größe", "house", "end"]
    assert wordlists.frequent_words(path, "de", 2) == ["the", "größe"]
    assert wordlists.frequent_words(path, "ru", 10) == ["слово"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (packed([HEADER, ["the"]])[:-1], "ends too early"),
        (packed([HEADER, ["the"]]) + b"\x00", "not one list"),
        (packed([{"format": "cB", "version": 2}]), "format cB"),
        (packed([HEADER, [7]]), "something else"),
        (packed([{7: 7}]), "keys"),
        (b"\x91\xc0", "0xc0"),
        (b"\xdd\xff\xff\xff\xff", "ends too early"),
        (b"\x91" * 100_000, "ends too early"),
        (b"\x91\xa2\xff\xfe", "damaged"),
        (b"", "ends too early"),
    ],
)
def test_a_broken_word_list_is_refused(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        wordlists.read_centibels(content)
    path = tmp_path / "list.msgpack.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=rf"list\.msgpack\.gz: .*{problem}"):
        wordlists.frequent_words(path, "en", 1)


def test_a_file_that_is_no_list_is_named(tmp_path):
    path = tmp_path / "list.msgpack.gz"
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"list\.msgpack\.gz"):
        wordlists.frequent_words(path, "en", 1)
