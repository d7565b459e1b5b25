"""The syntax of what precedes and follows a body (RFC 9112): status lines, header lines, the sizes of chunks, and trailers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

from dpp.errors import FetchError

MAX_LINE = 65_536
MAX_FIELDS = 99
MAX_BYTES = 256 * 1024
MAX_INTERIM = 100
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})( [^\x00\r]*)?\r?\n")
# Servers use names beyond the token of RFC 9110, section 5.6.2; but whitespace in a name makes libraries lose a header.
_FIELD = re.compile(rb"[!-9;-~]*:[^\x00\r]*\r?\n|[ \t][^\x00\r]*\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\x00\r\n]*)?\r?\n")


class Heads:
    """Check the lines of a response, one by one: those of interim responses, of the final one, and of its trailer.

    Attributes:
        status: Status code of the last status line; 0 before the first.
        is_complete: Whether the head of the final response has ended.
    """

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = False
        self._in_fields = False
        self._interim = self._fields = self._bytes = 0

    @property
    def expects_status(self) -> bool:
        """Whether the next line must be a status line."""
        return not self._in_fields and not self.is_complete

    @property
    def is_status_line(self) -> bool:
        """Whether the last line was a status line."""
        return self._in_fields and not self._fields

    def take(self, line: bytes) -> None:
        """Check the next line, with its end.

        Raises:
            FetchError: It is invalid, or there are too many, or too long ones.
        """
        self._bytes += len(line)
        if len(line) > MAX_LINE or self._bytes > MAX_BYTES:
            raise FetchError(f"the response headers have more than {MAX_LINE} bytes in a line, or {MAX_BYTES} in all", "protocol")
        if not self._in_fields and not self.is_complete:
            self._take_status(line)
        elif not line.strip(b"\r\n"):
            self._end()
        else:
            self._take_field(line)

    def _take_status(self, line: bytes) -> None:
        found = _STATUS.fullmatch(line)
        if not found:
            raise FetchError("the response does not start with a valid status line", "protocol")
        self.status, self._in_fields = int(found[1]), True
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise FetchError("the server switched to another protocol, which was not requested", "protocol")
        self._interim += self.status < HTTPStatus.OK
        if self._interim > MAX_INTERIM:
            raise FetchError(f"the server sent more than {MAX_INTERIM} interim (1xx) responses", "protocol")

    def _take_field(self, line: bytes) -> None:
        self._fields += 1
        if not _FIELD.fullmatch(line):
            raise FetchError("the response contains an invalid header line (RFC 9112, section 5)", "protocol")
        if self._fields > MAX_FIELDS:
            raise FetchError(f"the response has more than {MAX_FIELDS} header lines", "protocol")

    def _end(self) -> None:
        self.is_complete = self.status >= HTTPStatus.OK
        self._in_fields = False
        self._fields = 0
        if self.is_complete:
            self._bytes = 0


def chunk_size(line: bytes) -> int:
    """Return the size in the line before a chunk, in bytes (RFC 9112, section 7.1).

    Raises:
        FetchError: It is not a plain hexadecimal number of at most 16 digits.
    """
    found = _CHUNK.fullmatch(line)
    if not found:
        raise FetchError("a chunk of the response body has an invalid size", "truncated", retryable=True)
    return int(found[1], 16)


class Chunks:
    """Decode a chunked body that arrives in blocks, for HTTP libraries that accept more than the standard.

    Args:
        heads: The check of the response's head, for the trailer.
    """

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._line = b""
        self._left = 0
        self._next = "size"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bytes of the file in a block.

        Raises:
            FetchError: The framing is invalid.
        """
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield piece
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            self._line += data[at:end]
            at = end
            if self._line.endswith(b"\n") or len(self._line) > MAX_LINE:
                line, self._line = self._line, b""
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Process a line of the framing."""
        if self._next == "size":
            self._left = chunk_size(line)
            self._next = "end" if self._left else "trailer"
        elif self._next == "trailer" and not line.strip(b"\r\n"):
            self._next = "nothing"
        elif self._next == "trailer":
            self._heads.take(line)
        elif self._next == "end" and line == b"\r\n":
            self._next = "size"
        else:
            raise FetchError("a chunk of the response body does not end where its size says", "truncated", retryable=True)

    def finish(self) -> None:
        """Raise FetchError if the body ended before its last chunk."""
        if self._next != "nothing":
            raise FetchError("the connection closed before the last chunk of the response body", "truncated", retryable=True)
