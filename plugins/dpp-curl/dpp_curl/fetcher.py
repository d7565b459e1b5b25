"""Download with one libcurl handle per thread; :mod:`dpp.http` checks the responses, as for dpp's own fetcher."""

from __future__ import annotations

import functools
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlsplit

import pycurl
from dpp import BaseFetcher, FetchError, FileData, Part, Settings, __version__, http
from requests import Request

AGENT = f"dpp/{__version__} {pycurl.version.split()[0]} libcurl/{pycurl.version_info()[1]}"
DISCARDED_BYTES = 64 * 1024
GATHERED_BYTES = 256 * 1024  # libcurl passes 16 KiB per call: 16,000 calls for a file of 256 MiB
CHECK_SECONDS = 0.05
# Constants of libcurl that pycurl does not define: CURLE_PROXY, CURLOPT_SUPPRESS_CONNECT_HEADERS
_E_PROXY = 97
_SUPPRESS_CONNECT_HEADERS = 265

# The file and the folder of CA certificates, for servers and for proxies
_CA_OPTIONS = (pycurl.CAINFO, pycurl.CAPATH, pycurl.PROXY_CAINFO, pycurl.PROXY_CAPATH)

# A URL that libcurl must send as it is, as signatures cover each byte; requests escapes others, and removes dot segments
_PLAIN = re.compile(
    r"https?://[a-z0-9.:-]+(?:/(?!\.{1,2}(?:[/?]|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)


_DNS = {pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_RESOLVE_PROXY}
_TLS = {
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_ISSUER_ERROR,
    pycurl.E_SSL_CRL_BADFILE,
}
_BROKEN_HANDSHAKE = re.compile(r"unexpected eof|reset by peer|broken pipe|SYSCALL", re.IGNORECASE)
_PROXY_REFUSAL = re.compile(r"CONNECT tunnel failed, response (\d{3})")
_CONNECTION = {pycurl.E_COULDNT_CONNECT, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, _E_PROXY}
_BROKEN = {pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR}


class CurlFetcher(BaseFetcher):
    """Download ``http`` and ``https`` URLs with libcurl.

    TLS certificates are always verified. Certificates, proxies and credentials come from the environment; see
    :class:`dpp.http.Environment`. Cookies are sent back within a chain of redirects, and not stored.
    """

    settings: Settings
    checks_peers = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._local = threading.local()
        self._handles: list[pycurl.Curl] = []
        self._environment = http.Environment()
        self._packed: set[str] = set()

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Download a URL into the part; see :class:`dpp.BaseFetcher`."""
        timer = http.TransferTimer(self.settings, part)
        given = http.own_headers(self.settings, url, file.headers)
        chain = http.Chain(url, http.request_headers(given, part, AGENT), self._environment)
        known = functools.partial(http.judge, urls=chain.urls, size=file.size, packed=url in self._packed)
        judge = functools.partial(known, part=part, requested_offset=part.offset)
        while True:
            timer.request_sent()
            response = _Response(part, timer, judge, file.sha256)
            self._perform(chain, response, timer)
            try:
                response.complete()
            except http.Refusal as refusal:
                refusal.explain(response.page, response.headers, chain.secrets)
                raise
            if response.status not in http.REDIRECTS:
                self._finish(response, url, file)
                return
            chain.follow(response.headers)

    def _finish(self, response: _Response, url: str, file: FileData) -> None:
        try:
            response.finish(file.size)
        except http.PackedFile:
            self._packed.add(url)
            raise

    def _perform(self, chain: http.Chain, response: _Response, timer: http.TransferTimer) -> None:
        """Send one request and pass the response to ``response``."""
        handle, kept = self._handle()
        handle.setopt(pycurl.URL, _for_libcurl(chain.url))
        handle.setopt(pycurl.HTTPHEADER, _header_lines(chain.headers))
        handle.setopt(pycurl.PROXY, chain.proxy)
        if self.settings.deny_private:
            http.check_no_proxy(chain.proxy)
            handle.setopt(pycurl.OPENSOCKETFUNCTION, response.open_socket)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(timer.patience(self.settings.connect_timeout)))
        handle.setopt(pycurl.TIMEOUT_MS, _milliseconds(timer.patience(None)))
        handle.setopt(pycurl.HEADERFUNCTION, response.take_line)
        handle.setopt(pycurl.WRITEFUNCTION, response.take_body)
        handle.setopt(pycurl.XFERINFOFUNCTION, response.check_limits)
        try:
            handle.perform()
        except pycurl.error as error:
            if not response.is_enough and not response.is_no_file():
                response.keep()
                raise response.failure or self._mapped(response, *error.args) from error
        finally:
            response.close_sockets()
            kept.add(handle.getinfo(pycurl.ACTIVESOCKET))

    def _mapped(self, response: _Response, code: int, message: str) -> FetchError:
        """Return the error for a failed transfer."""
        # libcurl's own messages may contain the URL and its secrets, so only those about TLS are shown
        if code == pycurl.E_OPERATION_TIMEDOUT:
            limit = f"total_timeout ({self.settings.total_timeout:g} s)" if response.has_begun else "connect_timeout or total_timeout"
            return FetchError(f"there was no complete response within {limit}", "timeout", retryable=True)
        if code in _DNS:
            whose = "proxy's " if code == pycurl.E_COULDNT_RESOLVE_PROXY else ""
            return FetchError(f"the {whose}host name does not resolve", "dns", retryable=True)
        # A connection that breaks during the handshake is worth a retry; a certificate that is rejected is not
        if code == pycurl.E_SSL_CONNECT_ERROR and _BROKEN_HANDSHAKE.search(message):
            code = pycurl.E_RECV_ERROR
        if code in _TLS:
            return FetchError(f"TLS handshake failed: {message}", "tls")
        if code in _BROKEN and response.has_begun:
            return FetchError("the connection closed before the response body was complete", "truncated", retryable=True)
        if code in _CONNECTION | _BROKEN:
            reason = "connection refused" if code == pycurl.E_COULDNT_CONNECT else "cannot connect, or the connection was lost"
            if refusal := _PROXY_REFUSAL.search(message):
                reason = f"the proxy responded with {refusal[1]}"
            return FetchError(reason, "connection", retryable=True)
        return FetchError(f"the URL or the response is not valid for libcurl (curl error {code})", "protocol")

    def _handle(self) -> tuple[pycurl.Curl, _Kept]:
        """Return this thread's handle and its open connections, or a new handle if one of them cannot be used again."""
        known: tuple[pycurl.Curl, _Kept] | None = getattr(self._local, "known", None)
        # libcurl would take bytes after the end of a response for the next response: it checks idle connections once a
        # second at most
        if known and known[1].are_silent():
            return known
        if known:
            self._handles.remove(known[0])
            known[0].close()
        kept = _Kept()
        handle = self._new_handle(kept)
        self._handles.append(handle)
        self._local.known = handle, kept
        return handle, kept

    def _new_handle(self, kept: _Kept) -> pycurl.Curl:
        handle = pycurl.Curl()
        handle.setopt(pycurl.CLOSESOCKETFUNCTION, kept.close)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
        # libcurl accepts chunks that do not end where their size says
        handle.setopt(pycurl.HTTP_TRANSFER_DECODING, 0)
        handle.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        handle.setopt(pycurl.NOPROGRESS, 0)
        handle.setopt(pycurl.PATH_AS_IS, 1)
        # Without this, libcurl applies NO_PROXY again, by other rules
        handle.setopt(pycurl.NOPROXY, "")
        for option, path in zip(_CA_OPTIONS, 2 * self._environment.authorities, strict=True):
            handle.setopt(option, path) if path else handle.unsetopt(option)
        handle.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        return handle

    def close(self) -> None:
        """Close all connections, except those of threads whose transfer was abandoned and still runs."""
        while self._handles:
            # pycurl refuses to close a handle that another thread is using
            with suppress(pycurl.error):
                self._handles.pop().close()


class _Kept:
    """The sockets of the open connections of a handle."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def add(self, socket: int) -> None:
        """Watch the socket of the last request, unless it was closed (-1)."""
        if socket >= 0:
            self._poll.register(socket, select.POLLIN)

    def are_silent(self) -> bool:
        """Return whether no socket has bytes or an end of file to read."""
        return not self._poll.poll(0)

    def close(self, socket: int) -> int:
        """Close a socket for libcurl."""
        with suppress(KeyError):
            self._poll.unregister(socket)
        os.close(socket)
        return 0


class _Headers:
    """The headers of a response, decoded on access; see :class:`dpp.http.Headers`."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            self._values.setdefault(name.strip().lower(), []).append(value)

    def get(self, name: str, /) -> str | None:
        values = self.getlist(name)
        return ", ".join(values) if values else None

    def getlist(self, name: str, /) -> Sequence[str]:
        return [value.strip(b" \t\r\n").decode("latin-1") for value in self._values.get(name.lower().encode(), ())]


class _Response:
    """One response, received from libcurl's callbacks: checks its headers and writes its body into the part.

    Attributes:
        status: The status code of the final response; 0 before its headers were checked.
        lines: All header lines, those of interim responses and trailers included.
        headers: The headers of the final response.
        failure: The first exception of a callback.
        page: The beginning of an error page.
        is_enough: Whether to end the transfer because the rest of an error page is not needed.
    """

    def __init__(self, part: Part, timer: http.TransferTimer, judge: Callable[[int, http.Headers], http.Body], sha256: str | None) -> None:
        self.status = 0
        self.lines: list[bytes] = []
        self._heads = http.Heads()
        self._lines_seen = 0
        self.headers = _Headers(())
        # pycurl prints an exception that leaves a callback and drops it; so it is kept here for the caller to raise
        self.failure: BaseException | None = None
        self.page = b""
        self.is_enough = False
        self._refusal: http.Refusal | None = None
        self._page_end = 0.0
        self._part = part
        self._timer = timer
        self._accept = judge
        self._sha256 = sha256
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
            if self.lines[-1].strip():
                raise FetchError("the connection closed before the end of the response headers", "connection", retryable=True)
            self.status = self._heads.status
            self.headers = _Headers(self.lines[starts[-1] + 1 :])
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
        self._body, self._decoder = body, http.Decoder(body.encoding, self._sha256)

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
        self.keep(functools.partial(self._heads.take, line))
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


def _header_lines(headers: Mapping[str, str]) -> list[bytes]:
    """Return headers as lines for libcurl."""
    # "Name:" would remove the header; libcurl sends "Name;" as a header without a value
    return [(f"{name}: {value}" if value else f"{name};").encode("latin-1") for name, value in headers.items()]


def _for_libcurl(url: str) -> str:
    """Return a URL in ASCII, without its user part: the path percent-encoded, the host as IDNA."""
    # The user is in the Authorization header, as for dpp's own fetcher
    parts = urlsplit(url)
    if "@" in parts.netloc:
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if _PLAIN.fullmatch(url):
        return url
    try:
        return str(Request("GET", url).prepare().url)
    except ValueError as error:
        raise FetchError("the URL is not valid", "protocol") from error


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(seconds * 1000))
