"""Fetching one file over a session: many reads on their way at once, and a look at the file before and after."""

from __future__ import annotations

import stat
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dpp import FetchError, Part

from dpp_sftp.wire import Attributes, Broken, Code, Cursor, StatusError, WireError

if TYPE_CHECKING:
    from dpp_sftp.channel import Answer, Channel

BLOCK = 32 * 1024
READS = 64
WORTH_CONTINUING = 256 * 1024


class _Read(NamedTuple):
    """A read on its way."""

    offset: int
    length: int
    answer: Answer


class Reads:
    """Read a file from an offset on, with up to 64 reads of 32 KiB on their way, as OpenSSH's sftp does.

    Every server has to answer reads of 32 KiB in full (draft-ietf-secsh-filexfer-02, section 3); larger ones, not all do.

    Args:
        channel: The session.
        handle: The open file.
        offset: Where to begin.
        end: Where to end.
    """

    def __init__(self, channel: Channel, handle: bytes, offset: int, end: int) -> None:
        self._channel = channel
        self._handle = handle
        self._next = offset
        self._end = end
        self._under_way: deque[_Read] = deque()
        self._after: Answer | None = None
        self._ask()

    def _ask(self) -> None:
        """Keep as many reads on their way as may be, and after the last one ask what became of the file."""
        while self._next < self._end and len(self._under_way) < READS:
            self._under_way.append(self._read(self._next, min(BLOCK, self._end - self._next)))
            self._next += self._under_way[-1].length
        if self._next >= self._end and self._after is None:
            self._after = self._channel.fstat(self._handle)

    def _read(self, offset: int, length: int) -> _Read:
        return _Read(offset, length, self._channel.read(self._handle, offset, length))

    async def into(self, part: Part) -> Attributes:
        """Write what is read, and return what the server says of the file after it.

        A server may send less than was asked for; the rest is asked for again, and the file looked at after that.
        """
        while self._under_way:
            offset, length, answer = self._under_way.popleft()
            data = Cursor(await answer).string()
            if not 0 < len(data) <= length:
                raise WireError(f"a read of {length} bytes was answered with {len(data)}")
            if len(data) < length:
                self._under_way.appendleft(self._read(offset + len(data), length - len(data)))
                self._after = None
            self._ask()
            part.write(data)
        assert self._after is not None
        return Cursor(await self._after).attributes()


async def fetch(channel: Channel, path: bytes, part: Part, expected: int | None) -> None:
    """Write a file into a part, or the rest of it where the part has its beginning.

    Where the size is known and nothing is there yet, its reads follow the opening at once; so a small file takes
    two round trips, and its closing is not waited for.

    Args:
        channel: The session.
        path: The file.
        part: Takes the bytes.
        expected: Size that the manifest gives, in bytes.

    Raises:
        FetchError: The file can't be had, or is not the one that it was when it was opened.
    """
    try:
        handle = await channel.open(path)
        try:
            await _copy(channel, handle, part, expected)
        finally:
            channel.close(handle)
    except StatusError as error:
        raise refused(error) from error


async def _copy(channel: Channel, handle: bytes, part: Part, expected: int | None) -> None:
    offset = part.offset
    look = channel.fstat(handle)
    reads = Reads(channel, handle, 0, expected) if expected is not None and not offset else None
    before = Cursor(await look).attributes()
    size = _checked(before, expected)
    tag = _tag(before)
    if offset and (part.etag != tag or offset > size):
        offset = 0
    part.begin(offset, total=size, etag=tag if size >= WORTH_CONTINUING else None)
    is_whole, after = await _read(channel, handle, reads or Reads(channel, handle, offset, size), part)
    if not _same(before, after):
        raise FetchError(f"the file changed while it was fetched: it had {size} bytes, now {after.size}", "changed", retryable=True)
    if not is_whole:
        raise FetchError(f"the file ends before its {size} bytes are there", "truncated", retryable=True)


async def _read(channel: Channel, handle: bytes, reads: Reads, part: Part) -> tuple[bool, Attributes]:
    """Write what is read into the part; return whether that was all of it, and what the server says of the file after it."""
    try:
        return True, await reads.into(part)
    except Broken as error:
        raise FetchError(f"the connection broke in the middle of the file: {error}", "truncated", retryable=True) from error
    except StatusError as error:
        if error.code != Code.END:
            raise
    return False, Cursor(await channel.fstat(handle)).attributes()


def _checked(attributes: Attributes, expected: int | None) -> int:
    """Return the size of a file that can be fetched."""
    if attributes.mode is not None and not attributes.is_kind(stat.S_IFREG):
        raise FetchError("this is no regular file", "not-a-file")
    if attributes.size is None:
        raise WireError("it does not say how large the file is")
    if expected not in (None, attributes.size):
        raise FetchError(
            f"expected {expected} bytes as the manifest or the listing says, the server has {attributes.size}; the file may have "
            "been replaced since: run the batch again, which lists a folder anew",
            "size",
        )
    return attributes.size


def _tag(attributes: Attributes) -> str | None:
    """Return an entity tag for a file as it is: from its time of change, which SFTP knows to the second, and its size."""
    return None if attributes.mtime is None else f'"{attributes.mtime}-{attributes.size}"'


def _same(before: Attributes, after: Attributes) -> bool:
    return (before.size, before.mtime) == (after.size, after.mtime)


def refused(error: StatusError) -> FetchError:
    """Return what a server's status means for a file."""
    if error.code == Code.NO_SUCH_FILE:
        return FetchError("the server has no such file", "not-found")
    if error.code == Code.PERMISSION_DENIED:
        return FetchError("the server gives no permission to read it", "permission")
    if error.code in (Code.NO_CONNECTION, Code.CONNECTION_LOST):
        return FetchError(f"the server lost its own connection: {error}", "connection", retryable=True)
    if error.code in (Code.BAD_MESSAGE, Code.UNSUPPORTED):
        return FetchError(f"the server does not know how to do this: {error}", "protocol")
    return FetchError(f"the server cannot read it: {error}", "read", retryable=True)
