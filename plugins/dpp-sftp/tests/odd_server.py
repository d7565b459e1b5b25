"""An asyncssh server that sends invalid responses, which OpenSSH's server never does."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import asyncssh


class Kind(IntEnum):
    """Types of messages (draft-ietf-secsh-filexfer-02, section 3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    FSTAT = 8
    OPENDIR = 11
    READDIR = 12
    STAT = 17
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Code(IntEnum):
    """Status codes (section 7)."""

    OK = 0
    END = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    UNSUPPORTED = 8


Reply = Callable[[int, int, bytes], bytes | None]


class _Login(asyncssh.SSHServer):
    """A server without authentication."""

    def __init__(self, connections: list[asyncssh.SSHServerConnection], reply: Reply, piece: int) -> None:
        self._connections = connections
        self._reply = reply
        self._piece = piece

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.append(conn)

    def session_requested(self) -> _Liar:
        return _Liar(self._reply, self._piece)

    def begin_auth(self, username: str) -> bool:
        return False


class _Liar(asyncssh.SSHServerSession[bytes]):
    """Respond to each SFTP request with the result of ``reply``; None ends the session."""

    def __init__(self, reply: Reply, piece: int) -> None:
        self._reply = reply
        self._piece = piece
        self._unread = b""

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._unread += data
        while len(self._unread) >= 4 and len(self._unread) >= (end := 4 + int.from_bytes(self._unread[:4])):
            request, self._unread = self._unread[4:end], self._unread[end:]
            answer = self._reply(request[0], int.from_bytes(request[1:5]), request[5:])
            if answer is None:
                self._channel.close()
                return
            for start in range(0, len(answer), self._piece):
                self._channel.write(answer[start : start + self._piece])


@contextmanager
def odd_server(folder: Path, *, reply: Reply, piece: int = 2**30) -> Iterator[int]:
    """Run a server; yield its port.

    Args:
        folder: Folder with ``host_key``.
        reply: Returns the response to an SFTP request; its arguments are type, number and body.
        piece: Maximum size of the pieces in which responses are sent, in bytes.
    """
    loop, connections = asyncio.new_event_loop(), list[asyncssh.SSHServerConnection]()
    keys = [str(folder / "host_key")]
    listening = asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=keys,
        server_factory=lambda: _Login(connections, reply, piece),
        encoding=None,
    )
    server = loop.run_until_complete(listening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.get_port()
    finally:
        asyncio.run_coroutine_threadsafe(_end(server, connections), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncssh.SSHAcceptor, connections: list[asyncssh.SSHServerConnection]) -> None:
    server.close()
    for connection in connections:
        connection.abort()
        await connection.wait_closed()
    await server.wait_closed()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def message(kind: int, number: int, body: bytes) -> bytes:
    """Return a message as bytes."""
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


def string(data: bytes) -> bytes:
    """Return bytes with their length in front."""
    return struct.pack(">I", len(data)) + data


def attributes(size: int, mode: int = 0o100644, mtime: int = 1) -> bytes:
    """Return attributes: size, mode and times."""
    return struct.pack(">IQIII", 0x1 | 0x4 | 0x8, size, mode, mtime, mtime)


def status(code: int) -> bytes:
    """Return the body of a status."""
    return struct.pack(">I", code) + string(b"\x1b[31mso") + string(b"")
