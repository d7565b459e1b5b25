"""Connections whose every read is under the timer of the attempt that uses them.

A socket's own time-out starts anew with every byte, and HTTP libraries read status lines, headers and the
framing of chunks in loops of their own: there a server that sends a byte now and then holds a thread for days.
"""

from __future__ import annotations

import io
import socket
import ssl
from contextvars import ContextVar
from email.errors import MissingHeaderBodySeparatorDefect
from http.client import HTTPResponse, IncompleteRead, parse_headers
from typing import Any

import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from dpp.download.http import TransferTimer, body_length
from dpp.errors import FetchError

TIMER: ContextVar[TransferTimer] = ContextVar("TIMER")
_INTERIM = frozenset(range(100, 200)) - {101}  # which is the last answer before another protocol
_MAX_INTERIM = 100


def is_bare_end(error: object) -> bool:
    """Whether an error says that TLS ended without its goodbye; Python before 3.11.4 has OpenSSL's name for it only."""
    return isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


class _WatchedReader(io.RawIOBase):
    """Read a socket, no longer at once than its time-out and the attempt's limit allow."""

    def __init__(self, connection: socket.socket, timer: TransferTimer) -> None:
        self._connection = connection
        self._silence = connection.gettimeout()
        self._raw = connection.makefile("rb", buffering=0)
        self._timer = timer
        if hasattr(connection, "suppress_ragged_eofs"):  # TLS, also within a proxy's TLS
            connection.suppress_ragged_eofs = False

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there; raise FetchError where a limit is passed."""
        self._connection.settimeout(self._timer.patience(self._silence))
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            self._timer.received(0)
            raise
        except ssl.SSLError as error:
            if not is_bare_end(error):
                raise
            # anybody can end a TCP connection: no end of a body that has no length
            raise ConnectionResetError("the connection ended without TLS's goodbye") from error
        self._timer.received(count or 0)
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _WholeLines(io.BufferedReader):
    """Read lines that are whole, and one line each.

    To http.client, an end of the connection is as good as the end of the headers or of the chunks; and where a carriage
    return stands alone, its parser of headers begins another line.
    """

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, or as much of it as is allowed."""
        line = super().readline(size)
        if b"\r" in line[:-2]:
            raise FetchError("a line of the answer's headers or chunks is broken by a carriage return", "protocol")
        if line.endswith(b"\n") or len(line) == size:
            return line
        raise ConnectionResetError("the connection ended where a line was due, or within one")


class _Watched:
    """What an HTTPResponse takes for a socket."""

    def __init__(self, connection: socket.socket, timer: TransferTimer) -> None:
        self._reader = _WatchedReader(connection, timer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the reader, buffered as a socket's own file is."""
        return _WholeLines(self._reader)


class _WatchedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Watched(sock, TIMER.get()), *args, **kwargs)  # type: ignore[arg-type] # it calls makefile() only

    def _read_status(self) -> tuple[str, int, str]:
        """Pass over what comes before an answer, which http.client knows one kind of: 100, and neither 102 nor 103."""
        for _ in range(_MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc] # it has no public name
            if status not in _INTERIM:
                return version, status, reason
            parse_headers(self.fp)
        raise FetchError("the server goes on announcing an answer that does not come", "protocol")

    def _get_chunk_left(self) -> int | None:
        """Look at what ends a chunk, which http.client skips whatever it is."""
        if self.chunk_left == 0:
            if self.fp.read(2) != b"\r\n":
                raise IncompleteRead(b"")
            self.chunk_left = None
        left: int | None = super()._get_chunk_left()  # type: ignore[misc] # it has no public name
        return left

    def _read_and_discard_trailer(self) -> None:
        """Read what follows the last chunk, no more of it than of headers; http.client would go on for ever."""
        parse_headers(self.fp)

    def begin(self) -> None:
        """Read the headers, and refuse what makes no sense.

        The parser of headers takes a line that is none for their end, and what follows it for a text: a length or a coding
        there would be lost. A length that is none urllib3 refuses too, but leaves the socket open.
        """
        super().begin()
        if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in self.headers.defects):
            raise FetchError("a line of the answer's headers is none", "protocol")
        body_length(urllib3.HTTPHeaderDict(self.headers.items()))


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _WatchedResponse


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = _WatchedResponse

    def connect(self) -> None:
        """Connect; let OpenSSL say that a connection just ended, which Python before 3.11.4 has it pass over."""
        self.ssl_context = self.ssl_context or create_urllib3_context()
        self.ssl_context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        super().connect()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class WatchedAdapter(HTTPAdapter):
    """Pool connections that are read under the timer in :data:`TIMER`, also those through a proxy."""

    def get(
        self, url: str, headers: dict[str, str], proxies: dict[str, str], verify: str | bool, limits: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        """Ask for a URL, and return the answer before its body.

        A session of requests asks in the same way, and then looks for cookies, an encoding, a history: things that a batch has
        no use for, and that make 310 microseconds of processor time for a file of 4 KiB into 700.

        Args:
            url: What to ask for.
            headers: What to send.
            proxies: Proxies by scheme, as :func:`requests.utils.get_environ_proxies` returns them.
            verify: File or folder of the certificates to trust; True for certifi's.
            limits: How long to wait for a connection, and for bytes.
        """
        request = PreparedRequest()
        request.prepare_url(url, None)
        pool = self.get_connection_with_tls_context(request, verify, proxies)
        self.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call] # the stubs leave it out
        answer: urllib3.BaseHTTPResponse = pool.urlopen(  # type: ignore[attr-defined] # both kinds of pool have it
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
        return answer

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools behind a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager
