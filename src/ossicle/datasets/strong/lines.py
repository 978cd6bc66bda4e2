"""Label files as text: whatever encoding and line ends they have, numbers that return exactly.

Times are handled as decimals where they are added or subtracted, because a file holds decimals:
3.4 + 0.2 is then 3.6, as it was meant, and what is read equals what was written.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from pathlib import Path

from ossicle.errors import DataError
from ossicle.record import replaced

# Exponents of three digits hold all floats; longer ones would make `plus` write a book.
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_COMMA = re.compile(r"[-+]?\d*,\d+", re.ASCII)
_LINE_END = re.compile(r"\r\n|\n|\r")
# Enough for the sum of any two floats: they reach from 1e-324 to 1e308.
_EXACT = Context(prec=700)


def read_text(path: str | os.PathLike[str], notes: list[str]) -> str:
    """The text of a file: UTF-8 or UTF-16 by its mark, else UTF-8, else Windows-1252 (told).

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{os.fspath(path)}: is not UTF-8, read as Windows-1252 (Latin 1)")
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if "\0" in text:
        raise DataError(f"{os.fspath(path)}: is not a text file")
    return text


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 without a mark; the file appears whole or not at all.

    Raises:
        DataError: the text holds what UTF-8 cannot (half a surrogate pair).
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        wrong = text[error.start : error.end].encode("unicode_escape").decode()
        raise DataError(f"{os.fspath(path)}: {wrong} cannot be written as UTF-8") from None
    with replaced(path) as part:
        part.write_bytes(data)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of all lines that are not blank.

    Only \\n, \\r\\n and \\r end a line: labels may hold the other signs that Python splits at.
    """
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip():
            yield number, line


def records(
    text: str, delimiter: str, path: str | os.PathLike[str], quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of all rows that are not blank.

    Args:
        text: the table.
        delimiter: one character.
        path: named in errors.
        quoted: whether fields may stand in double quotes, as in CSV.

    Raises:
        DataError: quotes that do not match.
    """
    if not quoted:
        for number, line in numbered(text):
            yield number, line.split(delimiter)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise DataError(f"{os.fspath(path)}: line {reader.line_num}: {error}") from error


def write_records(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    """Rows as CSV; quotes stand only round fields that need them."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def number(text: str, name: str, where: str) -> float:
    """A number; NaN for an empty field or "nan".

    Args:
        text: the field.
        name: what it is, such as "onset".
        where: the file and line, for errors.

    Raises:
        DataError: it is no number, or has a comma as decimal sign.
    """
    text = text.strip()
    if not text or text.lower() == "nan":
        return math.nan
    if _COMMA.fullmatch(text):
        raise DataError(
            f"{where}: {name} {text!r} has a comma as decimal sign; write {text.replace(',', '.')}"
        )
    if not _NUMBER.fullmatch(text):
        raise DataError(f"{where}: {name} {text!r} is not a number")
    value = float(text)
    if math.isinf(value):
        raise DataError(f"{where}: {name} {text!r} is too large")
    return value


def plus(first: str, second: str) -> str:
    """The sum of two numbers as they are written, in decimals and exact."""
    return _plain(_EXACT.add(Decimal(first.strip()), Decimal(second.strip())))


def minus(first: str, second: str) -> str:
    """`first` - `second` as they are written, in decimals and exact."""
    return _plain(_EXACT.subtract(Decimal(first.strip()), Decimal(second.strip())))


def is_number(text: str) -> bool:
    """Whether a field is a number with a point or without."""
    return _NUMBER.fullmatch(text.strip()) is not None


def digits(value: float) -> str:
    """The shortest decimals that are read as just this number, without an exponent; "" for NaN.

    There is always a point ("2.0"): tables of whole numbers alone would be read as integers.
    """
    return "" if math.isnan(value) else _plain(Decimal(repr(float(value) + 0.0)))


def whole(value: float) -> str:
    """A number without a point where it is whole, for numbers of channels."""
    return digits(value).removesuffix(".0")


def _plain(value: Decimal) -> str:
    before, _, after = format(value, "f").partition(".")
    return f"{before}.{after.rstrip('0') or '0'}"


def printable(value: str, what: str, kind: str, path: str | os.PathLike[str]) -> str:
    """`value`, where a format of lines and tabs can hold it.

    Raises:
        DataError: it has a tab, a line break or another control character.
    """
    if any(unicodedata.category(sign) == "Cc" for sign in value):
        raise DataError(
            f"{os.fspath(path)}: the {what} {value!r} has a tab, a line break or another control "
            f"character, which {kind} files cannot hold; rename it, or write a csv table"
        )
    return value
