"""Unpack a zip, and check its members against its central directory.

Numbers in comments are sections of PKWARE's APPNOTE 6.3.10.
"""

# zipfile parses the central directory, but only after this module has checked its place, its end and its number of entries:
# zipfile accepts data before and after a zip, and makes an object per entry before anything can be limited. Members are read
# here, because zipfile stops at the size in the directory and does not report that a member has more data.

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from dpp import StageError

from dpp_archive.folder import Folder, shown, unsafe
from dpp_archive.limits import Budget
from dpp_archive.names import UTF8_FLAG, ZIP_ENCODING, decode_zip_names, decoded
from dpp_archive.streams import READ_BLOCK, one_stream

METHODS = {0: "", 8: "deflate", 12: "bz2", 14: "lzma", 93: "zst", 95: "xz"}  # 4.4.5; 0 is stored without compression
_OTHER_METHODS = {1: "Shrink", 2: "Reduce", 3: "Reduce", 4: "Reduce", 5: "Reduce", 6: "Implode", 9: "Deflate64", 10: "PKWARE DCL Implode"}
_OTHER_METHODS |= {16: "IBM CMPSC", 18: "IBM TERSE", 19: "IBM LZ77", 20: "old Zstandard", 94: "MP3", 96: "JPEG", 97: "WavPack", 98: "PPMd"}

_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_ENTRY = struct.Struct("<4s24x3H12x")  # 4.3.12
_LOCAL = struct.Struct("<4s2xHH16xHH")  # 4.3.7
_DOS_FOLDER = stat.FILE_ATTRIBUTE_DIRECTORY  # 4.4.15: the lower byte of the attributes is that of MS-DOS
_LZMA = struct.Struct("<2xH5s")  # 5.8.8
_LZMA_PROPERTIES = 5  # bytes
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 256 * 1024 * 1024  # bytes; zipfile reads the whole directory into memory
_COUNT_WRAPS = 0x10000
_ENCRYPTED, _HAS_LZMA_END, _MASKED = 0x1, 0x2, 0x2000  # 4.4.4
_AES = 99
_REFUSED = {stat.S_IFCHR: "is a device", stat.S_IFBLK: "is a device"}
_REFUSED |= {stat.S_IFIFO: "is a named pipe", stat.S_IFSOCK: "is a socket"}


@dataclass(frozen=True)
class Directory:
    """The place of the central directory.

    Attributes:
        start: Offset of its first byte.
        end: Offset of the first byte after it.
        count: Number of entries in the end record.
        wraps: Whether that number has 16 bits only.
    """

    start: int
    end: int
    count: int
    wraps: bool


class _Section:
    """A part of a file that can be read once."""

    def __init__(self, source: BinaryIO, start: int, size: int) -> None:
        self._source = source
        self.left = size
        source.seek(start)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, self.left))
        self.left -= len(data)
        return data


def corrupt(what: str) -> StageError:
    """Return the error for a damaged zip."""
    return StageError(f"the zip is damaged: {what}; ask the sender for a new copy", "archive-corrupt")


def unpack_zip(source: BinaryIO, folder: Folder, budget: Budget) -> None:
    """Unpack a zip into a folder.

    Raises:
        StageError: It is truncated, damaged, encrypted, too large, or has a member that is rejected.
    """
    directory = _find_directory(source)
    _count_members(source, directory, budget)
    members = _members(source)
    folder.warnings += decode_zip_names(members, folder.rules.name_encoding)
    # In order of their offsets, so that members which share bytes are found: that is how the densest zip bombs work
    free = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < free:
            raise unsafe(member.filename, "overlaps another member")
        start = _data_start(source, member, directory)
        free = start + member.compress_size
        if free > directory.start:
            raise corrupt(f"{shown(member.filename)} reaches into the central directory")
        _unpack_member(member, _Section(source, start, member.compress_size), folder, budget)


def has_end_record(path: Path) -> bool:
    """Return whether a file ends like a zip, whatever it begins with."""
    with path.open("rb") as source:
        _, tail, at = _find_end_record(source)
    return at >= 0 and len(tail) - at >= _END.size


def _find_end_record(source: BinaryIO) -> tuple[int, bytes, int]:
    """Return the offset of the file's last bytes, these bytes, and the place of the end record in them or -1."""
    size = source.seek(0, os.SEEK_END)
    start = source.seek(max(0, size - _MAX_COMMENT - _END.size))
    tail = source.read()
    return start, tail, tail.rfind(b"PK\5\6")


def _check_start(source: BinaryIO) -> None:
    source.seek(0)
    start = source.read(4)
    if start == b"PK\7\x08":
        raise _split()
    if not start.startswith(b"PK"):
        raise StageError(
            "the zip has other data before its first member, as self-extracting programs have; remove it (zip --junk-sfx)",
            "archive-unsupported",
        )


def _split() -> StageError:
    return StageError("the zip is one part of a split archive; join the parts first (zip --split-size 0)", "archive-unsupported")


def _find_directory(source: BinaryIO) -> Directory:
    """Return the place of the central directory, from the end record at the end of the file."""
    tail_start, tail, at = _find_end_record(source)
    if at < 0 or len(tail) - at < _END.size:
        _check_start(source)
        raise StageError("the zip is truncated: its end record is missing; download the file again", "archive-truncated")
    _, disk, first_disk, _, count, length, start, comment = _END.unpack_from(tail, at)
    surplus = len(tail) - at - _END.size - comment
    if surplus < 0:
        raise StageError(f"the zip is truncated: {-surplus} bytes of its comment are missing; download the file again", "archive-truncated")
    if surplus:
        raise corrupt(f"{surplus} bytes follow its end")
    found = _find_directory64(source, tail_start + at)
    if found:
        return found
    if disk or first_disk:
        raise _split()
    _check_start(source)
    if start + length != tail_start + at:
        raise corrupt("its central directory does not end where its end record starts; bytes are missing or were added")
    return Directory(start, tail_start + at, count, wraps=True)


def _find_directory64(source: BinaryIO, end: int) -> Directory | None:
    """Return the place of the central directory from the zip64 end record, or None if there is none."""
    if end < _END64_LOCATOR.size + _END64.size:
        return None
    source.seek(end - _END64_LOCATOR.size - _END64.size)
    record, locator = source.read(_END64.size), source.read(_END64_LOCATOR.size)
    if not locator.startswith(b"PK\6\7"):
        return None
    signature, *_, count, length, start = _END64.unpack(record)
    at = end - _END64_LOCATOR.size - _END64.size
    if signature != b"PK\6\6" or start + length != at:
        raise corrupt("its zip64 end record is not before its locator and after the central directory")
    return Directory(start, at, count, wraps=False)


def _count_members(source: BinaryIO, directory: Directory, budget: Budget) -> None:
    """Check that the central directory is complete and does not exceed the limits, before zipfile reads it."""
    if directory.end - directory.start > _MAX_DIRECTORY:
        size = directory.end - directory.start
        raise StageError(f"the zip has a central directory of {size} bytes; the maximum is {_MAX_DIRECTORY}", "archive-limit")
    source.seek(directory.start)
    count, position = 0, directory.start
    while position < directory.end:
        entry = source.read(_ENTRY.size)
        if len(entry) < _ENTRY.size or not entry.startswith(b"PK\1\2"):
            raise corrupt("its central directory has an invalid entry")
        lengths = sum(_ENTRY.unpack(entry)[1:])
        source.seek(lengths, os.SEEK_CUR)
        position += _ENTRY.size + lengths
        count += 1
        budget.check_members(count)
    # Some writers let the 16-bit number overflow and write no zip64 record
    counted = count % _COUNT_WRAPS if directory.wraps else count
    if position != directory.end or counted != directory.count:
        raise corrupt(f"expected {directory.count} entries in its central directory, got {count}")


def _members(source: BinaryIO) -> list[ZipInfo]:
    try:
        with ZipFile(source) as archive:
            members = archive.infolist()
    except UnicodeDecodeError as error:
        shown_bytes = shown(decoded(error.object))
        raise StageError(
            f"the member name {shown_bytes} is marked as UTF-8, but is not; pack the files with another program", "archive-names"
        ) from error
    except (BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, OverflowError) as error:
        raise corrupt(f"its central directory is invalid: {error}") from error
    encrypted = next((member for member in members if member.flag_bits & (_ENCRYPTED | _MASKED) or member.compress_type == _AES), None)
    if encrypted:
        name = shown(encrypted.orig_filename)
        raise StageError(
            f"the zip member {name} is encrypted with a password; decrypt the archive in a step before decompress", "archive-encrypted"
        )
    return members


def _data_start(source: BinaryIO, member: ZipInfo, directory: Directory) -> int:
    """Return the offset of a member's data, and check that its local header belongs to the same member."""
    # A zip64 offset may be larger than seek() accepts
    source.seek(min(member.header_offset, directory.start))
    header = source.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise corrupt(f"there is no local header at the offset that its central directory gives for {shown(member.filename)}")
    _, flags, method, name_length, extra_length = _LOCAL.unpack(header)
    name = source.read(name_length).decode("utf-8" if member.flag_bits & UTF8_FLAG else ZIP_ENCODING, "replace")
    if name != member.orig_filename or method != member.compress_type or flags & _ENCRYPTED:
        raise corrupt(f"the local header of {shown(member.filename)} differs from its entry in the central directory")
    return int(member.header_offset + _LOCAL.size + name_length + extra_length)


def _unpack_member(member: ZipInfo, section: _Section, folder: Folder, budget: Budget) -> None:
    name, mode = member.filename, member.external_attr >> 16
    # Info-ZIP marks what it read from a pipe as one: cat a | zip - -
    is_data_of_pipe = stat.S_ISFIFO(mode) and member.file_size > 0
    if stat.S_IFMT(mode) in _REFUSED and not is_data_of_pipe:
        raise unsafe(name, _REFUSED[stat.S_IFMT(mode)])
    if member.compress_type not in METHODS:
        method = _OTHER_METHODS.get(member.compress_type, "an unknown method")
        raise StageError(
            f"the zip member {shown(name)} is compressed with {method} (method {member.compress_type}), which decompress cannot unpack; "
            "pack it with deflate, or unpack it in a step of your own and add zip to keep of decompress",
            "archive-unsupported",
        )
    blocks = _verified(member, _content(member, section), budget)
    if stat.S_ISLNK(mode):
        folder.add_link(name)
        deque(blocks, maxlen=0)  # its target, read so that damage is found
        return
    if not (name.endswith("/") or _is_marked_as_folder(member)):
        folder.add_file(name, blocks, executable=bool(mode & stat.S_IXUSR))
        return
    folder.add_folder(name)
    if member.file_size or any(blocks):
        raise corrupt(f"{shown(name)} is a folder, but has data")


def _is_marked_as_folder(member: ZipInfo) -> bool:
    """Return whether a member without data has the attributes of a folder, whose slash some programs leave out."""
    mode = member.external_attr >> 16
    return not member.file_size and (stat.S_ISDIR(mode) or (not stat.S_IFMT(mode) and bool(member.external_attr & _DOS_FOLDER)))


def _content(member: ZipInfo, section: _Section) -> Iterator[bytes]:
    """Yield the unpacked data of a member, without a limit."""
    kind = METHODS[member.compress_type]
    if not kind:
        yield from iter(lambda: section.read(READ_BLOCK), b"")
        return
    rest = yield from one_stream(section, kind, _lzma_header(member, section) if kind == "lzma" else b"")
    if rest or section.left:
        raise corrupt(f"bytes follow the data of {shown(member.filename)}")


def _lzma_header(member: ZipInfo, section: _Section) -> bytes:
    """Read the header of a member's LZMA data, and return that of an LZMA file (.lzma) with the same data."""
    header = section.read(_LZMA.size)
    if len(header) < _LZMA.size or _LZMA.unpack(header)[0] != _LZMA_PROPERTIES:
        raise corrupt(f"the LZMA header of {shown(member.filename)} is invalid")
    size = -1 if member.flag_bits & _HAS_LZMA_END else member.file_size
    return _LZMA.unpack(header)[1] + size.to_bytes(8, "little", signed=size < 0)  # type: ignore[no-any-return]


def _verified(member: ZipInfo, blocks: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    """Yield a member's content, and check its size and CRC against the central directory."""
    size = crc = 0
    for block in blocks:
        budget.spend(len(block))
        size, crc = size + len(block), zlib.crc32(block, crc)
        if size > member.file_size:
            break
        yield block
    if (size, crc) != (member.file_size, member.CRC):
        raise corrupt(f"the size or CRC of {shown(member.filename)} differs from the central directory")
