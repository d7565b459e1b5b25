"""Unpacking a tar as it streams by, to its very end."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from dpp import StageError

from dpp_archive.folder import Folder, shown, unsafe
from dpp_archive.limits import Budget
from dpp_archive.tar_headers import (
    BLOCK,
    EXTENDED,
    MAX_EXTENDED,
    PAX,
    REGULAR,
    ZEROS,
    Header,
    corrupt,
    decoded,
    extended,
    parse,
    pax_records,
)

_REFUSED = {
    tarfile.SYMTYPE: "is a symbolic link",
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a named pipe",
}


class Stream:
    """Blocks of any size, to be taken in pieces of a wanted size.

    Args:
        blocks: The blocks.
        budget: Counts them when they come.
    """

    def __init__(self, blocks: Iterator[bytes], budget: Budget) -> None:
        self._blocks = blocks
        self._budget = budget
        self._buffer = memoryview(b"")
        self.position = 0

    def _next(self) -> memoryview:
        block = next(self._blocks, b"")
        self._budget.spend(len(block))
        return memoryview(block)

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them; fewer at the end."""
        while len(self._buffer) < size and (more := self._next()):
            self._buffer = memoryview(bytes(self._buffer) + more)
        return bytes(self._buffer[:size])

    def rest(self) -> Iterator[memoryview]:
        """Take all that is left."""
        while len(self._buffer) or len(self._fill()):
            yield self._cut(len(self._buffer))

    def take(self, size: int) -> Iterator[memoryview]:
        """Take the next bytes.

        Raises:
            StageError: There are fewer.
        """
        while size:
            if not len(self._buffer) and not len(self._fill()):
                raise StageError(
                    f"the tar is cut short: {size} bytes of a member or its end are missing; fetch it again", "archive-truncated"
                )
            piece = self._cut(size)
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """Return the next bytes, in one piece."""
        return b"".join(self.take(size))

    def _fill(self) -> memoryview:
        self._buffer = self._next()
        return self._buffer

    def _cut(self, size: int) -> memoryview:
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        self.position += len(piece)
        return piece


def unpack_tar(stream: Stream, folder: Folder) -> None:
    """Unpack a tar into a folder.

    Raises:
        StageError: It is cut short, damaged, too large, or has a member that is refused.
    """
    records: dict[str, str] = {}
    while (block := stream.exactly(BLOCK)) != ZEROS:
        header = parse(block)
        if header.kind in EXTENDED:
            records |= _records(header, stream)
        else:
            _unpack_member(extended(header, records), stream, folder)
            records = {}
    _check_end(stream, records)


def _records(header: Header, stream: Stream) -> dict[str, str]:
    """Return what an extended header says of the next member."""
    if header.size > MAX_EXTENDED:
        raise StageError(f"the tar has an extended header of {header.size} bytes; {MAX_EXTENDED} are granted", "archive-limit")
    data = stream.exactly(header.size)
    _skip_padding(header, stream)
    if header.kind not in PAX:
        return {"path" if header.kind == tarfile.GNUTYPE_LONGNAME else "linkpath": decoded(data.rstrip(b"\0"))}
    records = pax_records(data)
    if header.kind != tarfile.XGLTYPE:
        return records
    if not records.keys().isdisjoint(("path", "linkpath", "size")):
        raise corrupt("a global header gives all members one name or size")
    return {}


def _unpack_member(header: Header, stream: Stream, folder: Folder) -> None:
    is_folder = header.kind == tarfile.DIRTYPE or (header.kind == tarfile.AREGTYPE and header.name.endswith("/"))
    if header.kind in REGULAR and not is_folder:
        folder.add_file(header.name, stream.take(header.size), executable=header.executable)
        _skip_padding(header, stream)
        return
    if header.kind in _REFUSED:
        raise unsafe(header.name, _REFUSED[header.kind])
    if not is_folder and header.kind != tarfile.LNKTYPE:
        raise StageError(f"its member {shown(header.name)} is of a type that is not supported: {header.kind!r}", "archive-unsupported")
    if header.size:
        raise corrupt(f"{shown(header.name)}, which is no file, says that it has data")
    if is_folder:
        folder.add_folder(header.name)
    else:
        folder.add_copy(header.name, header.link)


def _skip_padding(header: Header, stream: Stream) -> None:
    stream.exactly(-header.size % BLOCK)


def _check_end(stream: Stream, records: dict[str, str]) -> None:
    """Make sure that a second block of zeros follows the first, and nothing but zeros up to the end."""
    if records:
        raise corrupt("an extended header has no member")
    if stream.exactly(BLOCK) != ZEROS:
        raise corrupt("its end, two blocks of zeros, is only one")
    if any(bytes(piece).strip(b"\0") for piece in stream.rest()):
        raise corrupt("something follows its end")
    if stream.position % BLOCK:
        raise StageError("the tar is cut short within its last block; fetch it again", "archive-truncated")
