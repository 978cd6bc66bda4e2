"""The most frequent words of a language, from the lists inside the Python wheel of wordfreq.

The lists are CC-BY-SA-4.0 data (Robyn Speer, wordfreq 3.1.1, with sources such as Wikipedia,
OPUS OpenSubtitles 2018, SUBTLEX and Google Books Ngrams); the wheel's code is not used.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

from ossicle.download import WheelMember, fetch_wheel_members
from ossicle.errors import DataError

REQUIREMENT = "wordfreq==3.1.1"
LICENCE = "words of wordfreq 3.1.1 (CC-BY-SA-4.0)"
# Language -> checksum of its short list.
LISTS = {
    "en": "f94a80cba6a3857b260d0666b5432bb7ea9b85315574dee9c306e87f61298247",
    "de": "2115b5bb4adb671a3352555a480b9c2f5b03493e9f7e4047997361d62310017a",
    "fr": "8fbbf619ff2e6ff5b3d99d41e69c105daf5795771ce8ef36529f210d571abe6e",
    "es": "ff5853040f65bcc9cb3ed3721d1d09d4405389c1741ebbf529612220829ff5af",
    "it": "07a4355d735d9cc864ce9fe679d94a13dee4cefa2495b6b013ecdb214b231c66",
    "pt": "fe4e551f6da739583d66cd5ef4fca28a1ccfa2ae5a53a5cbf48aa73dd7c91e0c",
    "nl": "ae0d64f10e9d11898b2b9481c0b20698ec40c79b8025edfdd70856bd593ad4b0",
    "sv": "a7c52a3d3576db1b7d4280be47aafccabdc70f9a56c5a40bc94b9139e271adf6",
    "pl": "95691a55cc2afe0719c11f187fe55a8956bef0654ec476e945af3c495b4aa285",
    "cs": "213812b32ab2b2cdb626e5e1ced308d0d89e2990ae1eb5cf183c5e1f16d52940",
    "ru": "ddb45281a609f8c5c4bf3ece7b045c540f76fe36bb438a108e2a45c6f593a078",
    "uk": "c8cc895dd13da4a905d268d96382f2675f49fed770e89804c4f8f114a2564dec",
    "tr": "10980704ee3ac5b52f226579251905412a04ead57092a12182dd0b8be6a765df",
    "fi": "7c33d07743908b9ae43347d96f60e4d1d30fa3529f59fdefcbf16441040183d7",
    "hu": "84130f74f9ea8f097bfb25d3778d03d26449dba255df7e60f42bbef463fdc582",
    "ro": "c17fe82952ed209bb45b95c56cb5c7f077ca921a84578c3807d48ddc1dd842e2",
}
_CYRILLIC = ("ru", "uk")


def fetch_word_lists() -> dict[str, Path]:
    """The file of each language of `LISTS`, in that order.

    Raises:
        DownloadError: see ``ossicle.download.fetch_wheel_members``.
    """
    members = [
        WheelMember(
            f"wordfreq/data/small_{language}.msgpack.gz",
            sha256,
            f"wordfreq-3.1.1-small_{language}.msgpack.gz",
        )
        for language, sha256 in LISTS.items()
    ]
    return dict(zip(LISTS, fetch_wheel_members(REQUIREMENT, members), strict=True))


def frequent_words(path: Path, language: str, most: int) -> list[str]:
    """The first words of a list that can be spoken as they stand, most frequent first.

    Those of 3 letters or more, all letters and of the language's script.

    Args:
        path: a gzipped list in the format "cB", see ``read_centibels``.
        language: its code, which tells the script.
        most: how many words at most.

    Raises:
        DataError: the file cannot be read or is no such list.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a word list; remove it") from error
    try:
        steps = read_centibels(content)
    except DataError as error:
        raise DataError(f"{path}: {error}; remove it") from error
    fits = _is_cyrillic if language in _CYRILLIC else _is_latin
    words = (word for step in steps for word in step)
    kept = [word for word in words if len(word) >= 3 and word.isalpha() and fits(word)]
    return kept[:most]


def _is_cyrillic(word: str) -> bool:
    return all("\u0400" <= letter <= "\u052f" for letter in word)


def _is_latin(word: str) -> bool:
    return all(letter < "\u0250" for letter in word)


def read_centibels(content: bytes) -> list[list[str]]:
    """A list in wordfreq's format "cB", version 1: words by their frequency.

    Args:
        content: MessagePack: an array that begins with the map {"format": "cB", "version": 1};
            of what follows, array i holds the words of frequency 10 ** (-i / 100).

    Raises:
        DataError: it is not that.
    """
    try:
        value, end = _value(content, 0)
    except (IndexError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise DataError("ends too early or is damaged") from error
    if end != len(content) or not isinstance(value, list) or not value:
        raise DataError("is not one list of words")
    if value[0] != {"format": "cB", "version": 1}:
        raise DataError("is not in the format cB of version 1")
    steps: list[list[str]] = value[1:]
    for step in steps:
        if not isinstance(step, list) or not all(isinstance(word, str) for word in step):
            raise DataError("holds something else than words")
    return steps


def _value(content: bytes, at: int) -> tuple[Any, int]:
    """One value of MessagePack (its specification, "Formats"), and where the next one begins.

    Of its types those that the lists use: small non-negative integers, strings, arrays, maps.
    """
    kind = content[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind < 0x90:
        return _map(content, at, kind & 0x0F)
    if kind < 0xA0:
        return _array(content, at, kind & 0x0F)
    if kind < 0xC0:
        return _text(content, at, kind & 0x1F)
    if kind in (0xD9, 0xDA, 0xDB):
        form = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}[kind]
        (size,) = struct.unpack_from(form, content, at)
        return _text(content, at + struct.calcsize(form), size)
    if kind in (0xDC, 0xDD):
        form = {0xDC: ">H", 0xDD: ">I"}[kind]
        (size,) = struct.unpack_from(form, content, at)
        return _array(content, at + struct.calcsize(form), size)
    raise DataError(f"holds a value of the type 0x{kind:02x}, which no word list has")


def _text(content: bytes, at: int, size: int) -> tuple[str, int]:
    if at + size > len(content):
        raise IndexError(at)
    return content[at : at + size].decode("utf-8"), at + size


def _array(content: bytes, at: int, size: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(size):
        value, at = _value(content, at)
        values.append(value)
    return values, at


def _map(content: bytes, at: int, size: int) -> tuple[dict[str, Any], int]:
    flat, at = _array(content, at, 2 * size)
    if not all(isinstance(key, str) for key in flat[::2]):
        raise DataError("holds a map whose keys are no texts")
    return dict(zip(flat[::2], flat[1::2], strict=True)), at
