"""Unpack a tar from a stream, and check that it is complete."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from dpp import StageError

from dpp_archive.folder import Folder, shown, unsafe
from dpp_archive.limits import Budget
from dpp_archive.names import decoded
from dpp_archive.tar_headers import (
    BLOCK,
    EXTENDED,
    MAX_EXTENDED,
    PAX,
    REGULAR,
    ZEROS,
    Header,
    corrupt,
    extended,
    parse,
    pax_records,
)

_REFUSED = {
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a named pipe",
}

# GNU's types ("Basic Tar Format" in its manual), and one of Solaris
_OTHER_KINDS = {
    tarfile.GNUTYPE_SPARSE: "a sparse file (tar --sparse)",
    b"A": "an access control list of Solaris",
    b"D": "a folder of an incremental backup (tar --listed-incremental)",
    b"M": "the rest of a file of a multi-volume tar",
    b"V": "the label of a volume (tar --label)",
}


class Stream:
    """Read pieces of a given size from blocks of any size.

    Args:
        blocks: The blocks.
        budget: The limits that each block counts against when it is read.
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
        """Return the next ``size`` bytes without removing them; fewer at the end."""
        while len(self._buffer) < size and (more := self._next()):
            self._buffer = memoryview(bytes(self._buffer) + more)
        return bytes(self._buffer[:size])

    def rest(self) -> Iterator[memoryview]:
        """Yield the remaining bytes."""
        while len(self._buffer) or len(self._fill()):
            yield self._cut(len(self._buffer))

    def take(self, size: int) -> Iterator[memoryview]:
        """Yield the next ``size`` bytes.

        Raises:
            StageError: The stream ends before.
        """
        while size:
            if not len(self._buffer) and not len(self._fill()):
                raise StageError(f"the tar is truncated: at least {size} bytes are missing; download the file again", "archive-truncated")
            piece = self._cut(size)
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes in one piece; raise StageError if the stream ends before."""
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
        StageError: It is truncated, damaged, too large, or has a member that is rejected.
    """
    records: dict[str, str] = {}
    while (block := stream.exactly(BLOCK)) != ZEROS:
        header = parse(block, folder.rules.name_encoding)
        if header.kind in EXTENDED:
            records |= _records(header, stream, folder.rules.name_encoding)
        else:
            _unpack_member(extended(header, records), stream, folder)
            records = {}
    _check_end(stream, records)


def _records(header: Header, stream: Stream, encoding: str | None) -> dict[str, str]:
    """Return the records of an extended header, which describe the next member."""
    if header.size > MAX_EXTENDED:
        raise StageError(f"the tar has an extended header of {header.size} bytes; the maximum is {MAX_EXTENDED}", "archive-limit")
    data = stream.exactly(header.size)
    _skip_padding(header, stream)
    if header.kind not in PAX:
        return {"path" if header.kind == tarfile.GNUTYPE_LONGNAME else "linkpath": decoded(data.rstrip(b"\0"), encoding)}
    records = pax_records(data, encoding)
    if header.kind != tarfile.XGLTYPE:
        return records
    if not records.keys().isdisjoint(("path", "linkpath", "size")):
        raise corrupt("a global header sets one name or size for all members")
    return {}


def _unpack_member(header: Header, stream: Stream, folder: Folder) -> None:
    is_folder = header.kind == tarfile.DIRTYPE or (header.kind == tarfile.AREGTYPE and header.name.endswith("/"))
    if header.kind in REGULAR and not is_folder:
        folder.add_file(header.name, stream.take(header.size), executable=header.executable)
        _skip_padding(header, stream)
        return
    if header.kind in _REFUSED:
        raise unsafe(header.name, _REFUSED[header.kind])
    if not is_folder and header.kind not in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        what = _OTHER_KINDS.get(header.kind, f"of the unknown type {header.kind!r}")
        raise StageError(
            f"the tar member {shown(header.name)} is {what}, which decompress cannot unpack; pack the files in another way",
            "archive-unsupported",
        )
    if header.size:
        raise corrupt(f"{shown(header.name)} is a folder or a link, but has a size of {header.size} bytes")
    if is_folder:
        folder.add_folder(header.name)
    elif header.kind == tarfile.SYMTYPE:
        folder.add_link(header.name)
    else:
        folder.add_copy(header.name, header.link)


def _skip_padding(header: Header, stream: Stream) -> None:
    stream.exactly(-header.size % BLOCK)


def _check_end(stream: Stream, records: dict[str, str]) -> None:
    """Check that a second block of zeros follows the first, and only zeros up to the end."""
    if records:
        raise corrupt("the last extended header has no member")
    # A damaged block may become zeros; two of them mark the end of every complete tar
    if stream.exactly(BLOCK) != ZEROS:
        raise corrupt("expected two blocks of zeros at its end, got one")
    if any(bytes(piece).strip(b"\0") for piece in stream.rest()):
        raise corrupt("data follows its end")
    if stream.position % BLOCK:
        raise StageError("the tar is truncated in its last block; download the file again", "archive-truncated")
