"""HTTP connections that check the attempt's time limits at every read.

A socket's own timeout restarts with every byte, and HTTP libraries read status lines, headers and chunk framing in
loops: a server that sends a byte now and then could block a thread for days.
"""

from __future__ import annotations

import functools
import io
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from http.client import HTTPResponse, IncompleteRead, parse_headers
from typing import Any, cast

import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from dpp.download.environment import Authorities
from dpp.download.heads import MAX_LINE, Heads, chunk_size
from dpp.download.http import TransferTimer, body_length
from dpp.download.peers import check_peer
from dpp.errors import FetchError

TIMER: ContextVar[TransferTimer] = ContextVar("TIMER")
_BLANKS = b" \t\r\n"
_FRESH: ContextVar[bool] = ContextVar("_FRESH", default=False)


def is_bare_end(error: object) -> bool:
    """Whether an error means that the connection closed without a TLS close_notify."""
    # Python before 3.11.4 raises SSLError with OpenSSL's name for it, instead of SSLEOFError.
    return isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


class _WatchedReader(io.RawIOBase):
    """Read from a socket, within its timeout and the attempt's time limits."""

    def __init__(self, connection: socket.socket, timer: TransferTimer) -> None:
        self._connection = connection
        self._silence = connection.gettimeout()
        self._raw = connection.makefile("rb", buffering=0)
        self._timer = timer
        # TLS sockets have this attribute, also those inside a proxy's TLS.
        if hasattr(connection, "suppress_ragged_eofs"):
            connection.suppress_ragged_eofs = False

    def readable(self) -> bool:
        """Return true: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read the available bytes; raise FetchError if a limit is exceeded."""
        self._connection.settimeout(self._timer.patience(self._silence))
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            self._timer.received(0)
            raise
        except ssl.SSLError as error:
            if not is_bare_end(error):
                raise
            # Anybody on the path can close a TCP connection, so this must not count as the end of a body without a length.
            raise ConnectionResetError("the connection closed without a TLS close_notify") from error
        self._timer.received(count or 0)
        return count

    def close(self) -> None:
        """Close the reader; the socket stays open."""
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Read complete lines only, and check those of heads and trailers.

    Attributes:
        heads: The check of the next lines; None where they are not those of a head.
    """

    heads: Heads | None = None

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, or its first ``size`` bytes; a folded header line is one."""
        line = self._whole_line(size)
        if self.heads is None:
            return line
        self.heads.take(line)
        if self.heads.is_status_line:
            return line
        # http.client knows neither folded values nor whitespace after them.
        while line.strip(_BLANKS) and self.peek(1)[:1] in (b" ", b"\t"):
            more = self._whole_line(size)
            self.heads.take(more)
            line = line.rstrip(_BLANKS) + b" " + more.strip(_BLANKS) + b"\r\n"
        return line.rstrip(_BLANKS) + b"\r\n"

    def _whole_line(self, size: int | None) -> bytes:
        line = super().readline(size)
        # The header parser of http.client starts another line at a bare carriage return.
        if b"\r" in line[:-2]:
            raise FetchError("a header or chunk line of the response contains a bare carriage return", "protocol")
        if line.endswith(b"\n") or len(line) == size:
            return line
        if self.heads and self.heads.expects_status and line[:5] != b"HTTP/"[: len(line)]:
            raise FetchError("the response does not start with a valid status line", "protocol")
        # http.client would take the end of the connection for the end of the headers or chunks.
        raise ConnectionResetError("the connection closed before the end of a line")


class _Watched:
    """A substitute for the socket of an HTTPResponse."""

    def __init__(self, connection: socket.socket, timer: TransferTimer) -> None:
        self._reader = _WatchedReader(connection, timer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the reader, buffered like the file of a socket."""
        return _Lines(self._reader)


class _WatchedResponse(HTTPResponse):
    fp: _Lines

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Watched(sock, TIMER.get()), *args, **kwargs)  # type: ignore[arg-type] # it calls makefile() only
        self._heads = self.fp.heads = Heads()

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim responses, and return the status line of the final one."""
        # http.client skips only 100, not 102 and 103.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc] # it has no public name
            if status >= HTTPStatus.OK:
                return version, status, reason
            parse_headers(self.fp)

    def _read_next_chunk_size(self) -> int:
        """Read the line before a chunk, in which http.client accepts signs, prefixes and underscores."""
        return chunk_size(self.fp.readline(MAX_LINE))

    def _get_chunk_left(self) -> int | None:
        """Check the end of a chunk, which http.client skips without a check."""
        if self.chunk_left == 0:
            if self.fp.read(2) != b"\r\n":
                raise IncompleteRead(b"")
            self.chunk_left = None
        left: int | None = super()._get_chunk_left()  # type: ignore[misc] # it has no public name
        return left

    def _read_and_discard_trailer(self) -> None:
        """Read the trailer after the last chunk, with the checks that apply to headers."""
        # http.client has no limit here.
        self.fp.heads = self._heads
        parse_headers(self.fp)

    def begin(self) -> None:
        """Read the headers, and raise FetchError if they are invalid."""
        super().begin()
        if self.fp is not None:
            self.fp.heads = None
        # urllib3 rejects an invalid length as well, but leaves the socket open.
        body_length(urllib3.HTTPHeaderDict(self.headers.items()))


class _StaleConnection(urllib3.exceptions.ProtocolError):
    """Report that a connection that was used before ended before the first byte of a response."""


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that recognizes its own end while it was idle."""

    response_class = _WatchedResponse
    _is_reused = False

    def connect(self) -> None:
        """Connect, for a first request."""
        self._is_reused = False
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; raise :class:`_StaleConnection` if the connection ended while it was idle."""
        with self._unless_stale():
            super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        """Read the headers of the response, as :meth:`request` does."""
        with self._unless_stale():
            response = super().getresponse()
        self._is_reused = True
        return response

    @contextmanager
    def _unless_stale(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        # urllib3 ignores a broken pipe, as the response may have come before it.
        except OSError as error:
            if self._is_reused and TIMER.get().is_waiting and not isinstance(error, BrokenPipeError):
                raise _StaleConnection("the connection ended while it was idle") from error
            raise


class _HTTPSConnection(_Connection, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        """Connect, with a TLS context that reports a connection that closes without a close_notify."""
        # A new one each time: a context would also trust the certificates that the file of CA certificates had before.
        self.ssl_context = create_urllib3_context()
        # Python before 3.11.4 sets OP_IGNORE_UNEXPECTED_EOF.
        self.ssl_context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        super().connect()


class _PublicOnly:
    """Close a connection to a peer that is not public, before anything is sent."""

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc] # of the class that it is combined with
        try:
            check_peer(connection.getpeername()[0])
        except BaseException:
            connection.close()
            raise
        return connection


class _PublicHTTPConnection(_PublicOnly, _Connection):
    pass


class _PublicHTTPSConnection(_PublicOnly, _HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        """Return a connection, closed and thus a new one where :data:`_FRESH` is set."""
        connection = super()._get_conn(timeout)
        if _FRESH.get():
            connection.close()
        return connection


class _HTTPSPool(_HTTPPool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _PublicHTTPPool(_HTTPPool):
    ConnectionCls = _PublicHTTPConnection


class _PublicHTTPSPool(_HTTPSPool):
    ConnectionCls = _PublicHTTPSConnection


def _sent_afresh(send: Callable[[], urllib3.BaseHTTPResponse]) -> urllib3.BaseHTTPResponse:
    """Send a request on a new connection: others in the pool may have ended as well."""
    TIMER.get().request_sent()
    token = _FRESH.set(True)
    try:
        return send()
    finally:
        _FRESH.reset(token)


class WatchedAdapter(HTTPAdapter):
    """Pool connections whose reads check the timer in :data:`TIMER`, with and without a proxy.

    Args:
        authorities: Where the trusted CA certificates are.
        size: Maximum number of idle connections per host.
        public_only: Whether to refuse peers that are not public.
    """

    def __init__(self, authorities: Authorities, size: int, *, public_only: bool = False) -> None:
        self._authorities = authorities
        self._pools = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool} if public_only else {"http": _HTTPPool, "https": _HTTPSPool}
        super().__init__(pool_connections=32, pool_maxsize=size)

    def get(self, url: str, headers: dict[str, str], proxy: str, limits: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """Request a URL, and return the response before its body is read.

        Args:
            url: The URL.
            headers: The headers to send.
            proxy: URL of the proxy, or "" for none.
            limits: Maximum seconds to wait for a connection, and for bytes.
        """
        # A requests.Session also handles cookies, encodings and a history, which a batch does not need: for a file of 4 KiB
        # it takes 700 microseconds of processor time instead of 310.
        request = PreparedRequest()
        request.prepare_url(url, None)
        proxies = {"http": proxy, "https": proxy} if proxy else {}
        pool = self.get_connection_with_tls_context(request, True, proxies)  # noqa: FBT003 - the name differs between versions
        send = functools.partial(
            pool.urlopen,  # type: ignore[attr-defined] # both kinds of pool have it
            "GET",
            self.request_url(request, proxies),
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=limits,
            preload_content=False,
            decode_content=False,
        )
        try:
            return cast("urllib3.BaseHTTPResponse", send())
        # The server may close an idle connection at any time; a request that it did not see is sent again (RFC 9112, section 9.3.1).
        except _StaleConnection:
            return _sent_afresh(send)

    def build_connection_pool_key_attributes(self, request: PreparedRequest, verify: Any, cert: Any = None) -> Any:
        """Return the facts of a pool: host, and certificates."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, tls | {"ca_certs": self._authorities.file or None, "ca_cert_dir": self._authorities.folder or None}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool manager."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Create the pool manager for a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager
