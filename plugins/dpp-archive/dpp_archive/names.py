"""Decode the names of members, as each format declares them or as the option ``name_encoding`` says."""

from __future__ import annotations

import codecs
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from zipfile import ZipInfo

from dpp import StageError

UTF8_FLAG = 0x800  # APPNOTE 4.4.4, bit 11: the name is in UTF-8
# The spec knows no other encoding than CP437 without that flag (APPNOTE, appendix D); zipfile decodes with it, which loses no byte
ZIP_ENCODING = "cp437"
_UNICODE_PATH = 0x7075  # APPNOTE 4.6.9
_FIELD = struct.Struct("<HH")  # APPNOTE 4.5.1: kind and size of an extra field
_UNDECODED = re.compile(r"[\ud800-\udfff]")
_TRAILING_BACKSLASH = re.compile(rb"[\x80-\xff]\\")
_DOS_SYSTEMS = {0, 6, 10, 14}  # APPNOTE 4.4.2: FAT, HPFS, NTFS, VFAT
_ADVICE = "set name_encoding of decompress to the encoding of the archive's names, such as cp932, gbk or cp1252"


def check_encoding(encoding: str) -> str:
    """Return an encoding, if it is a known one in which ASCII stays ASCII.

    Raises:
        ValueError: It is not.
    """
    try:
        if "a/b\\".encode(encoding) == b"a/b\\":
            return codecs.lookup(encoding).name
    except (LookupError, UnicodeError):
        pass
    raise ValueError(f"unknown encoding {encoding!r}; expected one of Python's that contains ASCII, such as cp932, gbk or cp1252")


def decoded(name: bytes, encoding: str | None = None) -> str:
    """Return a name as text, with bytes that are not valid in the encoding (default: UTF-8) as lone surrogates."""
    return name.decode(encoding or "utf-8", "surrogateescape")


def is_decoded(name: str) -> bool:
    """Return whether all bytes of a name were valid in its encoding."""
    return not _UNDECODED.search(name)


def undecodable(shown: str) -> StageError:
    """Return the error for a name that is not valid in its encoding."""
    return StageError(f"the member name {shown} is not in the expected encoding; {_ADVICE}", "archive-names")


def decode_zip_names(members: Iterable[ZipInfo], encoding: str | None) -> list[str]:
    """Set ``filename`` of each member of a zip, with slashes between folders.

    A name is in UTF-8 if its member has the flag for it, or a valid Unicode Path field. The others are in ``encoding``. Without
    one they are in UTF-8, if that fits all of them, and else in CP437.

    Returns:
        Warnings about names that had to be guessed.

    Raises:
        StageError: The names do not show where their folders are.
    """
    undeclared = []
    for member in members:
        declared = member.orig_filename if member.flag_bits & UTF8_FLAG else _unicode_path(member)
        member.filename = member.orig_filename if declared is None else declared
        if declared is None:
            undeclared.append(member)
    raw = [_raw(member) for member in undeclared]
    chosen = encoding or _guessed(raw)
    for member, name in zip(undeclared, raw, strict=True):
        member.filename = decoded(name, chosen)
    guessed = [] if encoding or chosen == "utf-8" else [name for name in raw if not name.isascii()]
    return [*_warn_about_encoding(guessed), *_replace_backslashes(members)]


def _raw(member: ZipInfo) -> bytes:
    return member.orig_filename.encode(ZIP_ENCODING)


def _guessed(names: Iterable[bytes]) -> str:
    # Info-ZIP and macOS write UTF-8 without the flag
    return "utf-8" if all(is_decoded(decoded(name)) for name in names) else ZIP_ENCODING


def _unicode_path(member: ZipInfo) -> str | None:
    """Return the name in a member's Unicode Path field (APPNOTE 4.6.9), or None if it has none for its present name."""
    extra = member.extra
    while len(extra) >= _FIELD.size:
        kind, size = _FIELD.unpack_from(extra)
        end = _FIELD.size + size
        data, extra = extra[_FIELD.size : end], extra[end:]
        # The CRC differs after a program renamed the member and did not know the field
        if kind == _UNICODE_PATH and data[:5] == struct.pack("<BL", 1, zlib.crc32(_raw(member))):
            name = decoded(data[5:])
            return name if name and is_decoded(name) else None
    return None


def _warn_about_encoding(guessed: list[bytes]) -> Iterator[str]:
    if not guessed:
        return
    first = repr(decoded(guessed[0], ZIP_ENCODING))
    # In Shift-JIS, GBK and Big5, the second byte of a character may be that of a backslash
    if any(_TRAILING_BACKSLASH.search(name) for name in guessed):
        raise undecodable(first)
    yield f"read member names that are not UTF-8 as CP437 (number: {len(guessed)}, first: {first}); if they are wrong, {_ADVICE}"


def _replace_backslashes(members: Iterable[ZipInfo]) -> Iterator[str]:
    """Replace the backslashes that some programs on Windows write between folders (APPNOTE 4.4.17.1 requires slashes)."""
    others = 0
    for member in members:
        if "\\" in member.filename:
            member.filename = member.filename.replace("\\", "/")
            others += member.create_system not in _DOS_SYSTEMS
    if others:
        yield f"read backslashes in member names as separators of folders, although the zip was not made on Windows (names: {others})"
