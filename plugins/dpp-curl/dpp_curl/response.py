"""A response as libcurl passes it: header lines and blocks of the body, in calls that must not raise."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import NoReturn

import pycurl
from dpp import FetchError, FileData, Part, http

DISCARDED_BYTES = 64 * 1024
GATHERED_BYTES = 256 * 1024  # libcurl passes 16 KiB per call: 16,000 calls for a file of 256 MiB
CHECK_SECONDS = 0.05


class ResponseHeaders:
    """The headers of a response, decoded on access; see :class:`dpp.http.Headers`.

    Args:
        lines: The header lines, with their ends.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            self._values.setdefault(name.strip().lower(), []).append(value)

    def get(self, name: str, /) -> str | None:
        """Return the value of a header; the values of a repeated header are joined with commas."""
        values = self.getlist(name)
        return ", ".join(values) if values else None

    def getlist(self, name: str, /) -> Sequence[str]:
        """Return all values of a header, in the order received."""
        return [value.strip(b" \t\r\n").decode("latin-1") for value in self._values.get(name.lower().encode(), ())]


class Response:
    """One response, received from libcurl's callbacks: checks its headers and writes its body into the part.

    Args:
        part: The part.
        timer: The time limits of the attempt.
        judge: Called with the status code and the headers of the final response; see :func:`dpp.http.judge`.
        file: The file, whose digests may be those of the coded body.

    Attributes:
        status: The status code of the final response; 0 before its headers were checked.
        lines: All header lines, those of interim responses and trailers included.
        headers: The headers of the final response.
        failure: The first exception of a callback.
        page: The beginning of an error page.
        is_enough: Whether to end the transfer because the rest of an error page is not needed.
    """

    def __init__(self, part: Part, timer: http.TransferTimer, judge: Callable[[int, http.Headers], http.Body], file: FileData) -> None:
        self.status = 0
        self.lines: list[bytes] = []
        self._heads = http.Heads()
        self._lines_seen = 0
        self.headers = ResponseHeaders(())
        # pycurl prints an exception that leaves a callback and drops it; so it is kept here for the caller to raise
        self.failure: BaseException | None = None
        self.page = b""
        self.is_enough = False
        self._refusal: http.Refusal | None = None
        self._page_end = 0.0
        self._part = part
        self._timer = timer
        self._accept = judge
        self._file = file
        self._body: http.Body | None = None
        self._decoder = http.Decoder("")
        self._chunks: http.Chunks | None = None
        self._received = self._written = 0
        self._sockets: list[socket.socket] = []
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._next_check = time.monotonic() + CHECK_SECONDS

    def _judge(self) -> None:
        """Check the headers of the final response."""
        # Interim responses (1xx) and their headers come first
        starts = [number for number, line in enumerate(self.lines) if line.startswith(b"HTTP/")]
        if starts:
            # libcurl accepts a connection that closes before the empty line after the headers
            if not self._heads.is_complete and not self._heads.expects_status:
                _raise_lost_head()
            self.status = self._heads.status
            self.headers = ResponseHeaders(self.lines[starts[-1] + 1 :])
            http.body_length(self.headers)
            self._chunks = http.Chunks(self._heads) if http.is_chunked(self.headers) else None
        if self.status >= HTTPStatus.OK and self.status not in http.REDIRECTS:
            self._begin()

    def _begin(self) -> None:
        try:
            body = self._accept(self.status, self.headers)
        except http.Refusal as refusal:
            # Raised when its page has arrived
            self._refusal = refusal
            return
        self._part.begin(body.offset, total=body.total, etag=body.etag, content_type=self.headers.get("Content-Type"))
        self._body, self._decoder = body, http.Decoder(body.encoding, self._file)

    def open_socket(self, purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        """Return a socket for libcurl to connect, or refuse the address if it is not public."""
        family, kind, protocol, (host, *_) = address
        self.keep(lambda: http.check_peer(host))
        if self.failure:
            return pycurl.SOCKET_BAD
        # pycurl passes a copy of the descriptor to libcurl
        self._sockets.append(socket.socket(family, kind, protocol))
        return self._sockets[-1]

    def close_sockets(self) -> None:
        """Close the sockets whose copies libcurl has."""
        while self._sockets:
            self._sockets.pop().close()

    def check_limits(self, *progress: int) -> int:
        """Check the time limits, and return 1 to end the transfer or 0; libcurl calls it at least once a second."""
        if time.monotonic() < self._next_check:
            return 0
        self.keep(self._check)
        return int(self.is_enough or self.failure is not None)

    def is_no_file(self) -> bool:
        """Return whether the headers are complete and the body is not a file but a redirect or an error page."""
        return self._refusal is not None or self._code() >= HTTPStatus.MULTIPLE_CHOICES

    def _code(self) -> int:
        """Return the status code of the final response, or 0 before its headers are complete."""
        return self._heads.status if self._heads.is_complete else 0

    @property
    def has_begun(self) -> bool:
        """Whether any header line has arrived."""
        return bool(self.lines)

    @property
    def has_head(self) -> bool:
        """Whether all headers of the final response have arrived."""
        return self._heads.is_complete

    @property
    def expects_status(self) -> bool:
        """Whether the next line must be a status line."""
        return self._heads.expects_status

    def _check(self) -> None:
        if len(self.lines) > self._lines_seen:
            self._timer.received(sum(map(len, self.lines[self._lines_seen :])))
            self._lines_seen = len(self.lines)
        else:
            self.is_enough = self.is_no_file() and self._is_page_over()
        self._timer.silent()
        self._next_check = time.monotonic() + CHECK_SECONDS

    def _is_page_over(self) -> bool:
        """Return whether the time for an error page is over; nothing waits for the page of a redirect."""
        now = time.monotonic()
        self._page_end = self._page_end or now + http.PAGE_SECONDS
        return now > self._page_end or self._code() in http.REDIRECTS

    def take_line(self, line: bytes) -> int:
        """Process a line of the headers or the trailer; return its length, or -1 to end the transfer."""
        self.lines.append(line)
        # The end of the connection ends the last line for libcurl
        self.keep(functools.partial(self._heads.take, line) if line.endswith(b"\n") else _raise_lost_head)
        return len(line) if self.failure is None else -1

    def take_body(self, data: bytes) -> int:
        """Process a block of the body; return its length, or 0 to end the transfer."""
        if not self.status:
            self.keep(self._judge)
        # A short error page is read to its end, so that its connection can be used again
        if self._body is None:
            self._received += len(data)
            self.keep(functools.partial(self._take_page, data))
            self.is_enough = self._received > DISCARDED_BYTES
            return 0 if self.is_enough else len(data)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_BYTES:
            self.keep()
        return len(data) if self.failure is None else 0

    def keep(self, check: Callable[[], None] | None = None) -> None:
        """Write the gathered blocks and run ``check``; store the first error in ``failure``."""
        try:
            if self._gathered:
                self._take()
            if check:
                check()
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.failure = self.failure or error

    def _take(self) -> None:
        data = b"".join(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._timer.received(len(data))
        for piece in self._transferred(data):
            self._received += len(piece)
            for decoded in self._decoder.feed(piece):
                self._written += len(decoded)
                self._part.write(decoded)

    def _take_page(self, data: bytes) -> None:
        # The rest of a page is not needed, and neither is its framing
        with suppress(FetchError):
            self.page = (self.page + b"".join(self._transferred(data)))[: http.PAGE_BYTES]

    def _transferred(self, data: bytes) -> Iterable[bytes]:
        return self._chunks.feed(data) if self._chunks else (data,)

    def complete(self) -> None:
        """Check a response without a body, write the last blocks of one with a body, and raise the first error."""
        if not self.status:
            self._judge()
        self.keep()
        if error := self.failure or self._refusal:
            raise error

    def finish(self, expected: int | None) -> None:
        """Check that the body is complete.

        Args:
            expected: Size of the file from the manifest, in bytes, or None.

        Raises:
            FetchError: It is not, or there was no response.
        """
        if self._body is None:
            raise FetchError("the connection closed before a response arrived", "connection", retryable=True)
        if self._chunks:
            self._chunks.finish()
        self._decoder.finish()
        http.check_end(self._body, self._received, self._written, expected)


def _raise_lost_head() -> NoReturn:
    raise FetchError("the connection closed before the end of the response headers", "connection", retryable=True)
