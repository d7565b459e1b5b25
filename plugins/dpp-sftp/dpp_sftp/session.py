"""asyncssh's SFTP client, with a guard that checks the messages of the server."""

# asyncssh accepts messages of up to 4 MiB, treats a response without data as the end of a file, and repeats requests forever
# if the responses to a listing are empty. The guard rejects all of these, and counts received bytes, which asyncssh does not.

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import asyncssh
from asyncssh.logging import SSHLogger
from asyncssh.packet import PacketDecodeError
from asyncssh.sftp import start_sftp_client

T = TypeVar("T")
VERSION = 3  # draft-ietf-secsh-filexfer-02, which every server supports
WINDOW = 4 * 1024 * 1024
PACKET = 64 * 1024
MAX_MESSAGE = 256 * 1024

# Errors that end a session: the connection is lost, or a message is invalid
LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
INVALID = (asyncssh.SFTPBadMessage, PacketDecodeError)

_READABLE = 200
_DATA, _NAME = 103, 104
_COUNT = slice(5, 9)  # number of bytes or names, after the type and the number of a message


class NoResponse(asyncssh.SFTPConnectionLost):
    """The session ended before the response to the first request for a file."""


class Session:
    """An SFTP session, used by one event loop and one thread at a time.

    Args:
        reader: Stream from the server.
        writer: Stream to the server.

    Attributes:
        client: asyncssh's client, after :meth:`start`.
    """

    client: asyncssh.SFTPClient

    def __init__(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        self._guard = _Guard(reader)
        self._outbox = _Outbox(writer)

    @property
    def received(self) -> int:
        """Number of bytes received."""
        return self._guard.received

    @property
    def has_ended(self) -> bool:
        """Whether the stream from the server has ended."""
        return self._guard.has_ended

    async def start(self, ssh: asyncssh.SSHClientConnection) -> None:
        """Start asyncssh's client with version 3 of SFTP."""
        # As ssh.start_sftp_client() does it, but with the guard between the streams and the client
        reader, writer = cast("asyncssh.SSHReader[bytes]", self._guard), cast("asyncssh.SSHWriter[bytes]", self._outbox)
        loop = asyncio.get_running_loop()
        try:
            self.client = await start_sftp_client(ssh, loop, "replace", reader, writer, None, "strict", VERSION)
        except PacketDecodeError as error:
            raise asyncssh.SFTPBadMessage(str(error)) from error
        if self.client.version != VERSION:
            raise asyncssh.SFTPBadMessage(f"expected version {VERSION} of SFTP, got {self.client.version}")

    async def open(self, path: bytes) -> asyncssh.SFTPClientFile:
        """Open a file for reading; each read of it is one request."""
        try:
            return await self.client.open(path, "rb", block_size=0)
        except LOST as error:
            raise NoResponse(error.reason) from error

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Return the attributes of a file; links are followed."""
        try:
            return await self.client.stat(path)
        except LOST as error:
            raise NoResponse(error.reason) from error


def send(request: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Send a request in the next iteration of the event loop, and return its response as a task."""
    response = asyncio.ensure_future(request)
    # Retrieve the error, so that asyncio does not log it if the task is never awaited
    response.add_done_callback(lambda done: done.cancelled() or done.exception())
    return response


def readable(text: str) -> str:
    """Return the first 200 characters of a server's text, with control characters replaced."""
    return "".join(char if char.isprintable() else "?" for char in text[:_READABLE])


class _Guard:
    """A replacement for the SSHReader of asyncssh's client, which reads the length of a message and then the message.

    Attributes:
        received: Number of bytes received.
        has_ended: Whether the stream has ended.
    """

    def __init__(self, reader: asyncssh.SSHReader[bytes]) -> None:
        self._reader = reader
        self._unread = bytearray()
        self.received = 0
        self.has_ended = False

    @property
    def logger(self) -> SSHLogger:
        """The logger of asyncssh."""
        return self._reader.logger

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a property of the connection."""
        return self._reader.get_extra_info(name, default)

    async def readexactly(self, count: int) -> bytes:
        """Return the next ``count`` bytes: a message, or the four bytes of its length."""
        if not 1 <= count <= MAX_MESSAGE:
            raise asyncssh.SFTPBadMessage(f"the server sent a message of {count} bytes, expected 1 to {MAX_MESSAGE}")
        while len(self._unread) < count:
            await self._receive()
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        if taken[0] in (_DATA, _NAME) and taken[_COUNT] == bytes(4):
            raise asyncssh.SFTPBadMessage("the server sent an empty response instead of the end-of-file status")
        return taken

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(PACKET)
        except (OSError, asyncssh.Error) as error:
            self.has_ended = True
            raise asyncssh.SFTPConnectionLost(readable(str(error))) from error
        if not data:
            self.has_ended = True
            raise asyncssh.SFTPConnectionLost("the server closed the session")
        self.received += len(data)
        self._unread += data


class _Outbox:
    """A replacement for the SSHWriter of asyncssh's client, which sends all requests of one loop iteration together.

    Attributes:
        channel: asyncssh's channel.
    """

    # asyncssh sends each request separately and with two system calls: it puts an empty packet (SSH_MSG_IGNORE) before it
    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self.channel = writer.channel

    def write(self, data: bytes) -> None:
        """Queue a request; it is sent in the next iteration of the loop."""
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
