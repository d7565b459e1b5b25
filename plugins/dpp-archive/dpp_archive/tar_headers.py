"""Parse headers of tar archives: v7, ustar, GNU and pax (POSIX.1-2017, pax, "EXTENDED DESCRIPTION")."""

# Not tarfile: it treats a damaged header as the end of the archive, reads extended headers of any size into memory, and
# does not report whether it reached the end.

from __future__ import annotations

import re
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from dpp import StageError

from dpp_archive.names import decoded, is_decoded

BLOCK = 512
MAX_EXTENDED = 1024 * 1024
ZEROS = bytes(BLOCK)
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENDED = (*PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

_USTAR = b"ustar\0"
_MAGIC = slice(257, 263)
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)  # bytes after a NUL have no meaning
_BINARY = 0x80  # GNU: the rest of the field is a big-endian number
_NEGATIVE = 0xFF
_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]+)=")
_DECIMAL = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Header:
    """The header of one member of a tar.

    Attributes:
        name: Its path; bytes that are not valid in the encoding of names are lone surrogates.
        kind: The type flag, one byte.
        size: Size of its data, in bytes.
        link: The target of a link.
        executable: Whether its owner may execute it.
    """

    name: str
    kind: bytes
    size: int
    link: str
    executable: bool


def corrupt(what: str) -> StageError:
    """Return the error for a damaged tar."""
    return StageError(f"the tar is damaged: {what}; ask the sender for a new copy", "archive-corrupt")


def is_tar(block: bytes) -> bool:
    """Return whether the first block of a file is a tar header: it has ustar's magic or a valid checksum."""
    if len(block) < BLOCK or block == ZEROS:
        return False
    return block[_MAGIC][:5] == _USTAR[:5] or _checksum_fits(block)


def parse(block: bytes, encoding: str | None = None) -> Header:
    """Return the header in a block of 512 bytes.

    Args:
        block: The block.
        encoding: Encoding of names; None is UTF-8.

    Raises:
        StageError: It is not a valid header.
    """
    if not _checksum_fits(block):
        raise corrupt("the checksum of a header does not match")
    # GNU's own format has access and change times at this place
    prefix = _text(block[345:500], encoding) if block[_MAGIC] == _USTAR else ""
    name = _text(block[:100], encoding)
    return Header(
        name=f"{prefix}/{name}" if prefix else name,
        kind=block[156:157],
        size=_number(block[124:136]),
        link=_text(block[157:257], encoding),
        executable=bool(_number(block[100:108]) & stat.S_IXUSR),
    )


def _checksum_fits(block: bytes) -> bool:
    expected = _OCTAL.fullmatch(block[_CHECKSUM])
    if expected is None or not expected[1]:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    # Some old tars added the bytes as signed numbers
    signed = unsigned - 256 * sum(byte >= _BINARY for byte in block[: _CHECKSUM.start] + block[_CHECKSUM.stop :])
    return int(expected[1], 8) in (unsigned, signed)


def _text(field: bytes, encoding: str | None) -> str:
    return decoded(field.partition(b"\0")[0], encoding)


def _number(field: bytes) -> int:
    if field[0] == _NEGATIVE:
        raise corrupt("a header has a negative number")
    if field[0] & _BINARY:
        return int.from_bytes(field, "big") - (_BINARY << 8 * (len(field) - 1))
    octal = _OCTAL.fullmatch(field)
    if octal is None:
        raise corrupt("a header has an invalid number")
    return int(octal[1] or b"0", 8)


def pax_records(data: bytes, encoding: str | None = None) -> dict[str, str]:
    """Return the records of a pax header, each ``LENGTH KEYWORD=VALUE`` and a line feed.

    Args:
        data: The data of the header.
        encoding: Encoding of values that are not UTF-8, as with ``hdrcharset=BINARY``.

    Raises:
        StageError: A record is invalid.
    """
    data = data.rstrip(b"\0")
    records, start = {}, 0
    while start < len(data):
        match = _RECORD.match(data, start)
        end = start + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise corrupt("an extended header has an invalid record")
        value = decoded(data[match.end() : end - 1])
        records[decoded(match[2])] = value if is_decoded(value) else decoded(data[match.end() : end - 1], encoding)
        start = end
    return records


def extended(header: Header, records: Mapping[str, str]) -> Header:
    """Return a header with the name, size and link of the extended headers before it.

    Raises:
        StageError: The size is invalid, or the member is a sparse file.
    """
    if any(keyword.startswith("GNU.sparse.") for keyword in records):
        raise StageError(
            f"the tar member {header.name!r} is a sparse file, which is not supported; pack it without tar's --sparse",
            "archive-unsupported",
        )
    size = records.get("size") or str(header.size)
    if not _DECIMAL.fullmatch(size):
        raise corrupt("an extended header has an invalid size")
    name, link = records.get("path") or header.name, records.get("linkpath") or header.link
    return Header(name, header.kind, int(size), link, header.executable)
