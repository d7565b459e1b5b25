"""asyncssh's SFTP client, and a guard between it and the server.

asyncssh takes messages of up to 4 MiB, takes an answer without data for the end of a file, and asks without end for more
of a listing whose answers are empty. The guard refuses all of that, and counts what comes, which no part of asyncssh tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import asyncssh
from asyncssh.logging import SSHLogger
from asyncssh.packet import PacketDecodeError
from asyncssh.sftp import start_sftp_client

T = TypeVar("T")
VERSION = 3  # draft-ietf-secsh-filexfer-02, which every server speaks
WINDOW = 4 * 1024 * 1024
PACKET = 64 * 1024
MAX_MESSAGE = 256 * 1024

# What ends a session: the server is gone, or what it sends makes no sense
LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
INVALID = (asyncssh.SFTPBadMessage, PacketDecodeError)

_READABLE = 200
_DATA, _NAME = 103, 104
_COUNT = slice(5, 9)  # of bytes or of names, after a message's kind and number


class Unanswered(asyncssh.SFTPConnectionLost):
    """The session ended before the server had said anything of a file."""


class Session:
    """An SFTP session. Used by one event loop, in one thread at a time.

    Args:
        reader: What the server sends.
        writer: Takes what is sent to the server.

    Attributes:
        client: asyncssh's client, from :meth:`start` on.
    """

    client: asyncssh.SFTPClient

    def __init__(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        self._guard = _Guard(reader)
        self._outbox = _Outbox(writer)

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._guard.received

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._guard.has_ended

    async def start(self, ssh: asyncssh.SSHClientConnection) -> None:
        """Agree on version 3, the only one that is asked for; as ``ssh.start_sftp_client()`` would, but with the guard."""
        reader, writer = cast("asyncssh.SSHReader[bytes]", self._guard), cast("asyncssh.SSHWriter[bytes]", self._outbox)
        loop = asyncio.get_running_loop()
        try:
            self.client = await start_sftp_client(ssh, loop, "replace", reader, writer, None, "strict", VERSION)
        except PacketDecodeError as error:
            raise asyncssh.SFTPBadMessage(str(error)) from error
        if self.client.version != VERSION:
            raise asyncssh.SFTPBadMessage(f"the server answers with version {self.client.version} of SFTP where {VERSION} was asked for")

    async def open(self, path: bytes) -> asyncssh.SFTPClientFile:
        """Return a file that is open for reading; each read of it is one request."""
        try:
            return await self.client.open(path, "rb", block_size=0)
        except LOST as error:
            raise Unanswered(error.reason) from error


def ask(request: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Send a request once the event loop gets to it, in order; an error that nobody waits for is not logged."""
    answer = asyncio.ensure_future(request)
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


def readable(text: str) -> str:
    """Return the beginning of what a server says, without what could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:_READABLE])


class _Guard:
    """Stand in for the SSHReader that asyncssh's client reads messages from: the length of one, then the rest of it.

    Attributes:
        received: Bytes that came so far.
        has_ended: Whether nothing comes any more.
    """

    def __init__(self, reader: asyncssh.SSHReader[bytes]) -> None:
        self._reader = reader
        self._unread = bytearray()
        self.received = 0
        self.has_ended = False

    @property
    def logger(self) -> SSHLogger:
        """Where asyncssh logs to."""
        return self._reader.logger

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncssh knows of the connection."""
        return self._reader.get_extra_info(name, default)

    async def readexactly(self, count: int) -> bytes:
        """Return the next bytes; they are a message, or the four bytes of its length."""
        if not 1 <= count <= MAX_MESSAGE:
            raise asyncssh.SFTPBadMessage(f"the server sends a message of {count} bytes, expected 1 to {MAX_MESSAGE}")
        while len(self._unread) < count:
            await self._receive()
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        if taken[0] in (_DATA, _NAME) and taken[_COUNT] == bytes(4):
            raise asyncssh.SFTPBadMessage("the server sends nothing and does not say that this is the end")
        return taken

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(PACKET)
        except (OSError, asyncssh.Error) as error:
            self.has_ended = True
            raise asyncssh.SFTPConnectionLost(readable(str(error))) from error
        if not data:
            self.has_ended = True
            raise asyncssh.SFTPConnectionLost("the server ended the session")
        self.received += len(data)
        self._unread += data


class _Outbox:
    """Stand in for the SSHWriter that asyncssh's client writes to: requests of one turn of the event loop leave together.

    asyncssh would write each by itself, in two calls of the system: it puts an empty packet (SSH_MSG_IGNORE) before it.

    Attributes:
        channel: asyncssh's channel.
    """

    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self.channel = writer.channel

    def write(self, data: bytes) -> None:
        """Send a request along with others."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        if not self.channel.is_closing():
            self._writer.write(data)

    def close(self) -> None:
        """End the session."""
        self._writer.close()
