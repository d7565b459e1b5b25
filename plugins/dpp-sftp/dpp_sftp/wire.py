"""The messages of SFTP, version 3, as bytes: draft-ietf-secsh-filexfer-02, which every server speaks.

A message is a length, a kind, for all but the first a number that its answer repeats, and a body. What comes from a
server is checked before it is believed: lengths never reach beyond what is there.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

VERSION = 3
_READABLE = 200
MAX_MESSAGE = 256 * 1024
_HEADER = struct.Struct(">IBI")
_READ = struct.Struct(">QI")
_SIZE, _OWNER, _MODE, _TIMES, _EXTENDED = 0x1, 0x2, 0x4, 0x8, 0x80000000
_FOR_READING = struct.pack(">II", 1, 0)  # SSH_FXF_READ, no attributes


class Kind(IntEnum):
    """Kinds of messages (section 3)."""

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


class Code(IntEnum):
    """Codes of a status (section 7) that mean something to a reader of files."""

    OK = 0
    END = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    UNSUPPORTED = 8


class WireError(Exception):
    """The server said something that makes no sense."""


class Broken(Exception):
    """The session has ended; the message says how."""


class StatusError(Exception):
    """The server answered a request with a status.

    Args:
        code: Its number; not all servers keep to those of :class:`Code`.
        text: What the server says of it.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"status {code}: {text}" if text else f"status {code}")
        self.code = code
        self.text = text


class Attributes(NamedTuple):
    """What a server says of a file; None where it does not say it.

    Attributes:
        size: Bytes.
        mode: Kind and permissions, as in :mod:`stat`.
        mtime: Seconds since 1970-01-01 UTC.
    """

    size: int | None = None
    mode: int | None = None
    mtime: int | None = None

    def is_kind(self, kind: int) -> bool:
        """Whether the file is of a kind such as ``stat.S_IFREG``; False where the server does not say."""
        return self.mode is not None and stat.S_IFMT(self.mode) == kind


class Cursor:
    """Read a message from its beginning.

    Args:
        data: Its body.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self._at + count
        if end > len(self._data):
            raise WireError("a message ends in the middle")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int = 4) -> int:
        """Return the next number of 4 or 8 bytes."""
        return int.from_bytes(self.take(size))

    def string(self) -> bytes:
        """Return the next string."""
        return self.take(self.number())

    def is_at_end(self) -> bool:
        """Whether there is nothing more."""
        return self._at == len(self._data)

    def attributes(self) -> Attributes:
        """Return the next attributes (section 5)."""
        flags = self.number()
        size = self.number(8) if flags & _SIZE else None
        self.take(8 if flags & _OWNER else 0)
        mode = self.number() if flags & _MODE else None
        _, mtime = (self.number(), self.number()) if flags & _TIMES else (None, None)
        for _ in range(self.number() if flags & _EXTENDED else 0):
            self.string(), self.string()
        return Attributes(size, mode, mtime)


def string(data: bytes) -> bytes:
    """Return bytes with their length before them."""
    return len(data).to_bytes(4) + data


def request(kind: int, number: int, body: bytes) -> bytes:
    """Return a request as bytes; that of INIT has the version for its number."""
    return _HEADER.pack(len(body) + 5, kind, number) + body


def open_body(path: bytes) -> bytes:
    """Return the body of a request to open a file for reading."""
    return string(path) + _FOR_READING


def read_body(handle: bytes, offset: int, count: int) -> bytes:
    """Return the body of a request for bytes of an open file."""
    return string(handle) + _READ.pack(offset, count)


def status(body: bytes) -> StatusError:
    """Return what a status says; servers of old leave the text out."""
    cursor = Cursor(body)
    code = cursor.number()
    text = b"" if cursor.is_at_end() else cursor.string()
    return StatusError(code, readable(text.decode("utf-8", "replace")))


def readable(text: str) -> str:
    """Return the beginning of what a server says, without what could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:_READABLE])


def names(body: bytes) -> Iterator[tuple[bytes, Attributes]]:
    """Yield the names of an answer to READDIR, with what it says of them."""
    cursor = Cursor(body)
    for _ in range(cursor.number()):
        name = cursor.string()
        cursor.string()  # what ls -l would show
        yield name, cursor.attributes()
