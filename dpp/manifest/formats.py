"""What a manifest's first bytes tell: its encoding, or that it is another kind of file, which the user has to convert."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dpp.media import is_html

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
UNPACKED_MAX = 4 * 1024**3
# UTF-32 goes first, as its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_AS_CSV = "save it as CSV"
_UNPACK = "unpack it"
# Signatures: https://www.iana.org/assignments/media-types, and the formats' own specifications.
_OTHERS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": f"is an old Office document, such as an Excel workbook (.xls); {_AS_CSV}",
    b"SQLite format 3\0": "is a SQLite database; export the table as CSV: sqlite3 -header -csv FILE 'SELECT ...'",
    GZIP: f"is packed with gzip twice; {_UNPACK}",
    b"BZh": f"is packed with bzip2; {_UNPACK}",
    b"\xfd7zXZ\0": f"is packed with xz; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"is packed with zstd; {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"is a 7z archive; {_UNPACK}",
    b"%PDF-": f"is a PDF; {_AS_CSV}, or as a text of URLs",
    b"ARROW1": "is an Arrow (Feather) file; save it as Parquet or CSV",
    b"Obj\x01": "is an Avro file; save it as Parquet or JSON",
    b"version https://git-lfs": "is a Git LFS pointer; fetch the file itself: git lfs pull",
    b"<?xml": f"is XML; {_AS_CSV} or JSON",
}
_ZIPS = {
    b"opendocument.spreadsheet": f"is an OpenDocument spreadsheet; {_AS_CSV}",
    b"xl/": f"is an Excel workbook; {_AS_CSV}",
    b"[Content_Types].xml": f"is an Excel workbook or another Office document; {_AS_CSV}",
    b"": f"is a zip archive; {_UNPACK}",
}
# Python makes a surrogate of each such byte, and repr an escape of that.
_INVALID_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")
_SUFFIXES = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML", ".ini": "INI"}


def check_kind(head: bytes, suffix: str) -> None:
    """Raise ValueError if a file is of a kind that is not read, with what to do.

    Args:
        head: Its first bytes.
        suffix: The suffix of its name in lower case.
    """
    if head.startswith(b"PK\x03\x04"):
        raise ValueError(next(text for mark, text in _ZIPS.items() if mark in head))
    if is_html(head):
        raise ValueError("is an HTML page, perhaps of a sign-in or an error; download the list itself")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:32].lower()
    for mark, text in _OTHERS.items():
        if head.startswith(mark) or start.startswith(mark.lower()):
            raise ValueError(text)
    if suffix in _SUFFIXES:
        raise ValueError(f"is {_SUFFIXES[suffix]}; save it as JSON")


def encoding_of(head: bytes, given: str) -> str:
    """Return the encoding of a text: that of its byte order mark, the given one, or UTF-8.

    Args:
        head: The first bytes of the text.
        given: The encoding that the user named, or "".

    Raises:
        ValueError: The text seems to be UTF-16 without a byte order mark.
    """
    if marked := next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), ""):
        return marked
    if given:
        return given
    # In UTF-16, every other byte of ASCII text is zero.
    if b"\0\0" in (head[0:4:2], head[1:4:2]):
        order = "le" if head[1:2] == b"\0" else "be"
        raise ValueError(f"is not UTF-8 text; it looks like UTF-16 without a byte order mark: set --encoding utf-16-{order}")
    return "utf-8"


def invalid_byte(text: str) -> str:
    """Return the problem of a text that was decoded from invalid UTF-8; "" if it was valid.

    Args:
        text: The text, as Python decodes it with ``surrogateescape``, or its ``repr``.
    """
    found = _INVALID_BYTE.search(text if text.isascii() else repr(text))
    if found is None:
        return ""
    return (
        f"contains the byte 0x{found[1]}, which is not valid UTF-8; if the manifest is Windows-1252, as Excel saves CSV, "
        "set --encoding windows-1252, or save it as UTF-8"
    )


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader[Any]]:
    """Open a manifest as bytes, unpacked if it is packed with gzip.

    Raises:
        OSError: The file cannot be opened or read.
        ValueError: The packed file is damaged, or unpacks to more than 4 GiB.
    """
    with path.open("rb") as stream:
        if not stream.peek(len(GZIP)).startswith(GZIP):
            yield stream
            return
        try:
            yield io.BufferedReader(_Unpacked(stream))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"is damaged or incomplete gzip: {error}") from error


class _Unpacked(io.RawIOBase):
    """The unpacked content of a gzip file, of limited length: 4 MB of gzip can unpack to 4 GB."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._unpacked = gzip.GzipFile(fileobj=stream)
        self._left = UNPACKED_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._unpacked.read1(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"unpacks to more than {UNPACKED_MAX >> 20} MiB; unpack it if this is right")
        buffer[: len(data)] = data
        return len(data)
