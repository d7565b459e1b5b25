"""Download one file over a session, with many reads in flight, and check that the file does not change meanwhile."""

from __future__ import annotations

import asyncio
import stat
from collections import deque
from typing import NamedTuple

import asyncssh
from dpp import FetchError, Part

from dpp_sftp.session import INVALID, LOST, MAX_MESSAGE, Session, readable, send

BLOCK = 32 * 1024  # bytes; every server has to support reads of this length (draft-ietf-secsh-filexfer-02, section 3)
LARGEST_BLOCK = MAX_MESSAGE - 1024
READS = 64
WORTH_CONTINUING = 256 * 1024


class _Read(NamedTuple):
    """A read in flight."""

    offset: int
    length: int
    response: asyncio.Task[bytes]


class Reads:
    """Read a part of a file with up to 2 MiB in flight (64 reads of 32 KiB, or fewer larger ones).

    Args:
        file: The open file.
        offset: Offset of the first byte.
        end: Offset after the last byte.
        block: Length of a read, in bytes.
    """

    def __init__(self, file: asyncssh.SFTPClientFile, offset: int, end: int, block: int) -> None:
        self._file = file
        self._next = offset
        self._end = end
        self._block = block
        self._most = READS * BLOCK // block
        self._in_flight: deque[_Read] = deque()
        self._after: asyncio.Task[asyncssh.SFTPAttrs] | None = None
        self._send_reads()

    def _send_reads(self) -> None:
        """Send reads up to the limit, and after the last one a request for the file's attributes."""
        while self._next < self._end and len(self._in_flight) < self._most:
            self._in_flight.append(self._read(self._next, min(self._block, self._end - self._next)))
            self._next += self._in_flight[-1].length
        if self._next >= self._end and self._after is None:
            self._after = send(self._file.stat())

    def _read(self, offset: int, length: int) -> _Read:
        return _Read(offset, length, send(self._file.read(length, offset)))

    async def into(self, part: Part) -> tuple[bool, asyncssh.SFTPAttrs]:
        """Write the bytes into a part.

        Returns:
            Whether the file was read up to ``end``, and its attributes after the last read.
        """
        while self._in_flight:
            offset, length, response = self._in_flight.popleft()
            data = await response
            if not data:
                return False, await self._file.stat()
            if len(data) > length:
                raise asyncssh.SFTPBadMessage(f"the server sent {len(data)} bytes for a read of {length} bytes")
            # A server may send less than requested: request the rest, and the attributes again after it
            if len(data) < length:
                self._in_flight.appendleft(self._read(offset + len(data), length - len(data)))
                self._after = None
            self._send_reads()
            part.write(data)
        assert self._after is not None
        return True, await self._after


async def fetch(session: Session, path: bytes, part: Part, expected: int | None, listed: str | None = None) -> None:
    """Download a file into a part, or the rest of it if the part has its first bytes.

    Args:
        session: The session.
        path: Path of the file on the server.
        part: The part to write into.
        expected: Size of the file from the manifest, in bytes, or None.
        listed: Version of the file according to a listing, or None; see :func:`version`.

    Raises:
        FetchError: The file cannot be read, or it changed during the download.
    """
    try:
        file = await session.open(path)
        try:
            await _copy(file, part, expected, listed, _block(session))
        finally:
            # Without waiting for the response, which saves a round trip per file
            send(file.close())
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPError as error:
        raise refused(error) from error


def _block(session: Session) -> int:
    """Return the length of a read, in bytes: the maximum that the server announces, as OpenSSH does, or else 32 KiB."""
    # asyncssh creates a task per read: with 255 KiB, a large file takes half the processor time
    return max(BLOCK, min(session.client.limits.max_read_len, LARGEST_BLOCK))


async def _copy(file: asyncssh.SFTPClientFile, part: Part, expected: int | None, listed: str | None, block: int) -> None:
    offset = part.offset
    look = send(file.stat())
    # If the size is known, send the reads with the first request: a small file takes two round trips
    reads = Reads(file, 0, expected, block) if expected is not None and not offset else None
    before = await look
    size = _checked(before, expected)
    known = version(before.mtime, size)
    tag = known and f'"{known}"'
    if offset and (part.etag != tag or offset > size):
        offset = 0
    # The version of the listing, with which the next listing is compared: a file replaced since is then downloaded again
    part.begin(offset, total=size, etag=tag if size >= WORTH_CONTINUING else None, source_version=listed or known)
    try:
        is_whole, after = await (reads or Reads(file, offset, size, block)).into(part)
    except LOST as error:
        raise FetchError(
            f"the connection broke before the file was complete: {readable(error.reason)}", "truncated", retryable=True
        ) from error
    if not _same(before, after):
        raise FetchError(f"the file changed during the download: it had {size} bytes, now {after.size}", "changed", retryable=True)
    if not is_whole:
        raise FetchError(f"expected a file of {size} bytes, but the server sent fewer", "truncated", retryable=True)


def is_kind(attributes: asyncssh.SFTPAttrs, kind: int) -> bool:
    """Return whether a file has a type such as ``stat.S_IFREG``; False if the server does not report the type."""
    return attributes.permissions is not None and stat.S_IFMT(attributes.permissions) == kind


def _checked(attributes: asyncssh.SFTPAttrs, expected: int | None) -> int:
    """Return the size of a regular file, in bytes; raise FetchError if it is not the expected one."""
    if attributes.permissions is not None and not is_kind(attributes, stat.S_IFREG):
        raise FetchError("expected a regular file, got a folder or a special file", "not-a-file")
    if attributes.size is None:
        raise asyncssh.SFTPBadMessage("the server did not report the size of the file")
    if expected not in (None, attributes.size):
        raise FetchError(
            f"expected {expected} bytes from the manifest or the listing, but the server has {attributes.size}; the file may have "
            "been replaced: run the same command again, which lists the folder again",
            "size",
        )
    return attributes.size


def version(mtime: int | None, size: int | None) -> str | None:
    """Return the version of a file from the time of its last change, which SFTP has in seconds, and its size; None without a time."""
    return f"{mtime}-{size}" if mtime and size is not None else None


async def current_version(session: Session, path: bytes) -> str | None:
    """Return the version of a file on the server, or None if there is none.

    Raises:
        FetchError: The server does not say.
    """
    try:
        state = await session.stat(path)
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPNoSuchFile:
        return None
    except asyncssh.SFTPError as error:
        raise refused(error) from error
    return version(state.mtime, state.size)


def _same(before: asyncssh.SFTPAttrs, after: asyncssh.SFTPAttrs) -> bool:
    return (before.size, before.mtime) == (after.size, after.mtime)


def refused(error: asyncssh.SFTPError) -> FetchError:
    """Return the error for an SFTP status of the server."""
    if isinstance(error, asyncssh.SFTPNoSuchFile):
        return FetchError("the server has no such file", "not-found")
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return FetchError("the server denied read permission", "permission")
    status = f"status {error.code}: {readable(error.reason)}"
    if isinstance(error, asyncssh.SFTPOpUnsupported):
        return FetchError(f"the server does not support this request: {status}", "protocol")
    return FetchError(f"the server could not read it: {status}", "read", retryable=True)
