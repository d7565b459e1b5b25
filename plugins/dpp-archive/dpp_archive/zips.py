"""Unpacking a zip, with what its central directory says held against what is there.

Sections are those of PKWARE's APPNOTE 6.3.10. The directory is read by zipfile, once it is known where it lies, that it ends
where the archive ends, and how many members it has. The members are read here: zipfile gives what a directory promises of
a member, and does not say whether there was more.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from dpp import StageError

from dpp_archive.folder import Folder, shown, unsafe
from dpp_archive.limits import Budget
from dpp_archive.streams import READ_BLOCK, one_stream

METHODS = {0: "", 8: "deflate", 12: "bz2", 93: "zst", 95: "xz"}  # 4.4.5; the first is stored as it is

_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_ENTRY = struct.Struct("<4s24x3H12x")  # 4.3.12
_LOCAL = struct.Struct("<4s2xHH16xHH")  # 4.3.7
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 256 * 1024 * 1024  # bytes; zipfile reads all of it into memory
_COUNT_WRAPS = 0x10000
_ENCRYPTED, _UTF8, _MASKED = 0x1, 0x800, 0x2000  # 4.4.4
_AES = 99
_REFUSED = {stat.S_IFLNK: "is a symbolic link", stat.S_IFCHR: "is a device", stat.S_IFBLK: "is a device"}
_REFUSED |= {stat.S_IFIFO: "is a named pipe", stat.S_IFSOCK: "is a socket"}


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies.

    Attributes:
        start: Its offset.
        end: The offset of what follows it.
        count: How many members it is said to have.
        wraps: Whether the count is one of 16 bits.
    """

    start: int
    end: int
    count: int
    wraps: bool


class _Section:
    """A part of a file, to be read once."""

    def __init__(self, source: BinaryIO, start: int, size: int) -> None:
        self._source = source
        self.left = size
        source.seek(start)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, self.left))
        self.left -= len(data)
        return data


def corrupt(what: str) -> StageError:
    """Return the refusal of a damaged zip."""
    return StageError(f"the zip is damaged: {what}", "archive-corrupt")


def unpack_zip(source: BinaryIO, folder: Folder, budget: Budget) -> None:
    """Unpack a zip into a folder.

    Raises:
        StageError: It is cut short, damaged, encrypted, too large, or has a member that is refused.
    """
    directory = _find_directory(source)
    _count_members(source, directory, budget)
    free = 0
    for member in sorted(_members(source), key=lambda member: member.header_offset):
        if member.header_offset < free:
            raise unsafe(member.orig_filename, "overlaps another one")
        start = _data_start(source, member, directory)
        free = start + member.compress_size
        if free > directory.start:
            raise corrupt(f"{shown(member.orig_filename)} reaches into the central directory")
        _unpack_member(member, _Section(source, start, member.compress_size), folder, budget)


def _find_directory(source: BinaryIO) -> Directory:
    """Return where the central directory lies: before its end record, which is the end of the file."""
    size = source.seek(0, os.SEEK_END)
    tail_start = source.seek(max(0, size - _MAX_COMMENT - _END.size))
    tail = source.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise StageError("the zip is cut short: it has no end record; fetch it again", "archive-truncated")
    _, disk, first_disk, _, count, length, start, comment = _END.unpack_from(tail, at)
    surplus = len(tail) - at - _END.size - comment
    if surplus < 0:
        raise StageError(f"the zip is cut short: {-surplus} bytes of its comment are missing; fetch it again", "archive-truncated")
    if surplus:
        raise corrupt(f"{surplus} bytes follow its end")
    found = _find_directory64(source, tail_start + at)
    if found:
        return found
    if disk or first_disk:
        raise StageError("the zip is one part of several; join them first", "archive-unsupported")
    if start + length != tail_start + at:
        raise corrupt("its central directory is not where its end record says; it was cut, or joined to something else")
    return Directory(start, tail_start + at, count, wraps=True)


def _find_directory64(source: BinaryIO, end: int) -> Directory | None:
    """Return what a zip64 end record before the end record says, where there is one."""
    if end < _END64_LOCATOR.size + _END64.size:
        return None
    source.seek(end - _END64_LOCATOR.size - _END64.size)
    record, locator = source.read(_END64.size), source.read(_END64_LOCATOR.size)
    if not locator.startswith(b"PK\6\7"):
        return None
    signature, *_, count, length, start = _END64.unpack(record)
    at = end - _END64_LOCATOR.size - _END64.size
    if signature != b"PK\6\6" or start + length != at:
        raise corrupt("its zip64 end record is not where it should be")
    return Directory(start, at, count, wraps=False)


def _count_members(source: BinaryIO, directory: Directory, budget: Budget) -> None:
    """Walk through the directory, before zipfile makes an object of each entry, and make sure that it is whole."""
    if directory.end - directory.start > _MAX_DIRECTORY:
        raise StageError(f"the zip has a central directory of more than {_MAX_DIRECTORY} bytes", "archive-limit")
    source.seek(directory.start)
    count, position = 0, directory.start
    while position < directory.end:
        entry = source.read(_ENTRY.size)
        if len(entry) < _ENTRY.size or not entry.startswith(b"PK\1\2"):
            raise corrupt("its central directory has an entry that is none")
        lengths = sum(_ENTRY.unpack(entry)[1:])
        source.seek(lengths, os.SEEK_CUR)
        position += _ENTRY.size + lengths
        count += 1
        budget.check_members(count)
    counted = count % _COUNT_WRAPS if directory.wraps else count  # some writers begin again at zero
    if position != directory.end or counted != directory.count:
        raise corrupt(f"its central directory should have {directory.count} entries, and has {count}")


def _members(source: BinaryIO) -> list[ZipInfo]:
    try:
        with ZipFile(source) as archive:
            members = archive.infolist()
    except (BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, OverflowError) as error:
        raise corrupt(f"its central directory makes no sense: {error}") from error
    encrypted = next((member for member in members if member.flag_bits & (_ENCRYPTED | _MASKED) or member.compress_type == _AES), None)
    if encrypted:
        name = shown(encrypted.orig_filename)
        raise StageError(f"its member {name} needs a password; decrypt the archive in a step before", "archive-encrypted")
    return members


def _data_start(source: BinaryIO, member: ZipInfo, directory: Directory) -> int:
    """Return the offset of a member's data, which its local header says, and make sure that it is the same member's."""
    source.seek(min(member.header_offset, directory.start))  # an offset may be one that no file has
    header = source.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise corrupt(f"{shown(member.orig_filename)} is not where the central directory says")
    _, flags, method, name_length, extra_length = _LOCAL.unpack(header)
    name = source.read(name_length).decode("utf-8" if member.flag_bits & _UTF8 else "cp437", "replace")
    if name != member.orig_filename or method != member.compress_type or flags & _ENCRYPTED:
        raise corrupt(f"{shown(member.orig_filename)} is another member where it lies than in the central directory")
    return int(member.header_offset + _LOCAL.size + name_length + extra_length)


def _unpack_member(member: ZipInfo, section: _Section, folder: Folder, budget: Budget) -> None:
    name, mode = member.orig_filename, member.external_attr >> 16
    if stat.S_IFMT(mode) in _REFUSED:
        raise unsafe(name, _REFUSED[stat.S_IFMT(mode)])
    if member.compress_type not in METHODS:
        raise StageError(
            f"its member {shown(name)} is packed by method {member.compress_type}, which is not supported", "archive-unsupported"
        )
    blocks = _verified(member, _content(member, section), budget)
    if not name.endswith("/"):
        folder.add_file(name, blocks, executable=bool(mode & stat.S_IXUSR))
        return
    folder.add_folder(name)
    if member.file_size or any(blocks):
        raise corrupt(f"{shown(name)}, which is a folder, has data")


def _content(member: ZipInfo, section: _Section) -> Iterator[bytes]:
    """Yield what a member's data unpacks to, all of it."""
    kind = METHODS[member.compress_type]
    if not kind:
        yield from iter(lambda: section.read(READ_BLOCK), b"")
        return
    rest = yield from one_stream(section, kind)
    if rest or section.left:
        raise corrupt(f"something follows the data of {shown(member.orig_filename)}")


def _verified(member: ZipInfo, blocks: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    """Yield a member's content, and make sure that it is as long as the directory says and has its CRC."""
    size = crc = 0
    for block in blocks:
        budget.spend(len(block))
        size, crc = size + len(block), zlib.crc32(block, crc)
        if size > member.file_size:
            break
        yield block
    if (size, crc) != (member.file_size, member.CRC):
        raise corrupt(f"{shown(member.orig_filename)} is not what the central directory says, by its size or CRC")
