"""Fetching one file over a session: many reads on their way at once, and a look at the file before and after."""

from __future__ import annotations

import asyncio
import stat
from collections import deque
from typing import NamedTuple

import asyncssh
from dpp import FetchError, Part

from dpp_sftp.session import INVALID, LOST, MAX_MESSAGE, Session, ask, readable

BLOCK = 32 * 1024  # reads of that length, every server has to answer in full: draft-ietf-secsh-filexfer-02, section 3
LARGEST_BLOCK = MAX_MESSAGE - 1024
READS = 64
WORTH_CONTINUING = 256 * 1024


class _Read(NamedTuple):
    """A read on its way."""

    offset: int
    length: int
    answer: asyncio.Task[bytes]


class Reads:
    """Read a file from an offset on, with up to 64 reads of 32 KiB on their way, or as many bytes in larger blocks.

    Args:
        file: The open file.
        offset: Where to begin.
        end: Where to end.
        block: How many bytes a read is for.
    """

    def __init__(self, file: asyncssh.SFTPClientFile, offset: int, end: int, block: int) -> None:
        self._file = file
        self._next = offset
        self._end = end
        self._block = block
        self._most = READS * BLOCK // block
        self._under_way: deque[_Read] = deque()
        self._after: asyncio.Task[asyncssh.SFTPAttrs] | None = None
        self._ask()

    def _ask(self) -> None:
        """Keep as many reads on their way as may be, and after the last one ask what became of the file."""
        while self._next < self._end and len(self._under_way) < self._most:
            self._under_way.append(self._read(self._next, min(self._block, self._end - self._next)))
            self._next += self._under_way[-1].length
        if self._next >= self._end and self._after is None:
            self._after = ask(self._file.stat())

    def _read(self, offset: int, length: int) -> _Read:
        return _Read(offset, length, ask(self._file.read(length, offset)))

    async def into(self, part: Part) -> tuple[bool, asyncssh.SFTPAttrs]:
        """Write what is read into a part; return whether that was all of it, and what the server says of the file after it.

        A server may send less than was asked for; the rest is asked for again, and the file looked at after that.
        """
        while self._under_way:
            offset, length, answer = self._under_way.popleft()
            data = await answer
            if not data:
                return False, await self._file.stat()
            if len(data) > length:
                raise asyncssh.SFTPBadMessage(f"a read of {length} bytes was answered with {len(data)}")
            if len(data) < length:
                self._under_way.appendleft(self._read(offset + len(data), length - len(data)))
                self._after = None
            self._ask()
            part.write(data)
        assert self._after is not None
        return True, await self._after


async def fetch(session: Session, path: bytes, part: Part, expected: int | None) -> None:
    """Write a file into a part, or the rest of it where the part has its beginning.

    Where the size is known and nothing is there yet, its reads follow the opening at once; so a small file takes
    two round trips, and its closing is not waited for.

    Args:
        session: The session.
        path: The file.
        part: Takes the bytes.
        expected: Size that the manifest gives, in bytes.

    Raises:
        FetchError: The file can't be had, or is not the one that it was when it was opened.
    """
    try:
        file = await session.open(path)
        try:
            await _copy(file, part, expected, _block(session))
        finally:
            ask(file.close())
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPError as error:
        raise refused(error) from error


def _block(session: Session) -> int:
    """Return how many bytes to ask for at once: as many as the server announces, which OpenSSH's does, but of any 32 KiB.

    A read costs asyncssh a task, so in blocks of 255 KiB a large file takes half the processor time.
    """
    return max(BLOCK, min(session.client.limits.max_read_len, LARGEST_BLOCK))


async def _copy(file: asyncssh.SFTPClientFile, part: Part, expected: int | None, block: int) -> None:
    offset = part.offset
    look = ask(file.stat())
    reads = Reads(file, 0, expected, block) if expected is not None and not offset else None
    before = await look
    size = _checked(before, expected)
    tag = _tag(before)
    if offset and (part.etag != tag or offset > size):
        offset = 0
    part.begin(offset, total=size, etag=tag if size >= WORTH_CONTINUING else None)
    try:
        is_whole, after = await (reads or Reads(file, offset, size, block)).into(part)
    except LOST as error:
        raise FetchError(
            f"the connection broke in the middle of the file: {readable(error.reason)}", "truncated", retryable=True
        ) from error
    if not _same(before, after):
        raise FetchError(f"the file changed while it was fetched: it had {size} bytes, now {after.size}", "changed", retryable=True)
    if not is_whole:
        raise FetchError(f"the file ends before its {size} bytes are there", "truncated", retryable=True)


def is_kind(attributes: asyncssh.SFTPAttrs, kind: int) -> bool:
    """Whether a file is of a kind such as ``stat.S_IFREG``; False where the server does not say."""
    return attributes.permissions is not None and stat.S_IFMT(attributes.permissions) == kind


def _checked(attributes: asyncssh.SFTPAttrs, expected: int | None) -> int:
    """Return the size of a file that can be fetched."""
    if attributes.permissions is not None and not is_kind(attributes, stat.S_IFREG):
        raise FetchError("this is no regular file", "not-a-file")
    if attributes.size is None:
        raise asyncssh.SFTPBadMessage("it does not say how large the file is")
    if expected not in (None, attributes.size):
        raise FetchError(
            f"expected {expected} bytes as the manifest or the listing says, the server has {attributes.size}; the file may have "
            "been replaced since: run the batch again, which lists a folder anew",
            "size",
        )
    return attributes.size


def _tag(attributes: asyncssh.SFTPAttrs) -> str | None:
    """Return an entity tag for a file as it is: from its time of change, which SFTP knows to the second, and its size."""
    return None if attributes.mtime is None else f'"{attributes.mtime}-{attributes.size}"'


def _same(before: asyncssh.SFTPAttrs, after: asyncssh.SFTPAttrs) -> bool:
    return (before.size, before.mtime) == (after.size, after.mtime)


def refused(error: asyncssh.SFTPError) -> FetchError:
    """Return what a server's status means for a file."""
    if isinstance(error, asyncssh.SFTPNoSuchFile):
        return FetchError("the server has no such file", "not-found")
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return FetchError("the server gives no permission to read it", "permission")
    said = f"status {error.code}: {readable(error.reason)}"
    if isinstance(error, asyncssh.SFTPOpUnsupported):
        return FetchError(f"the server does not know how to do this: {said}", "protocol")
    return FetchError(f"the server cannot read it: {said}", "read", retryable=True)
