"""One libcurl handle a thread, its connections kept, and its answers judged by the rules of dpp."""

from __future__ import annotations

import functools
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import certifi
import pycurl
from dpp import BaseFetcher, FetchError, FileData, Part, Settings, __version__, http
from requests import Request
from requests.utils import get_environ_proxies, select_proxy

AGENT = f"dpp/{__version__} {pycurl.version.split()[0]} libcurl/{pycurl.version_info()[1]}"
DISCARDED_BYTES = 64 * 1024
GATHERED_BYTES = 256 * 1024  # libcurl hands over 16 KiB at a time: 16,000 calls for a file of 256 MiB
CHECK_SECONDS = 0.05
_E_PROXY = 97  # CURLE_PROXY, which pycurl has no name for
_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, likewise

_STATUS = re.compile(rb"HTTP/\S+ (\d{3})\s")
_PLAIN = re.compile(r"[!-~]*")

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
    """Fetch over http and https with libcurl.

    TLS is verified always, against ``$REQUESTS_CA_BUNDLE``, ``$CURL_CA_BUNDLE`` or certifi's list. Proxies come from
    the environment, ``~/.netrc`` counts where the manifest gives no credentials, cookies are not kept.
    """

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._local = threading.local()
        self._handles: list[pycurl.Curl] = []
        self._netrc = Path("~/.netrc").expanduser().exists()
        self._proxy = functools.lru_cache(maxsize=1024)(_proxy)

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole of a URL into the part; see :class:`dpp.BaseFetcher`."""
        timer = http.TransferTimer(self.settings, part)
        asked = part.offset
        headers = http.request_headers(file.headers, part, AGENT)
        for _ in range(http.MAX_REDIRECTS + 1):
            timer.asked()
            answer = _Answer(part, asked, timer)
            self._perform(url, headers, answer, timer)
            answer.complete()
            if answer.status not in http.REDIRECTS:
                answer.finish(file.size)
                return
            url, headers = http.next_hop(url, answer.headers.get("Location"), headers)
        raise FetchError(f"was redirected more than {http.MAX_REDIRECTS} times", "redirect")

    def _perform(self, url: str, headers: Mapping[str, str], answer: _Answer, timer: http.TransferTimer) -> None:
        """Send one request and let the answer take what comes."""
        handle, kept = self._handle()
        handle.setopt(pycurl.URL, url if _PLAIN.fullmatch(url) else _encoded(url))
        handle.setopt(pycurl.HTTPHEADER, _header_lines(headers))
        handle.setopt(pycurl.PROXY, self._proxy(*http.site(url)))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(timer.patience(self.settings.connect_timeout)))
        handle.setopt(pycurl.TIMEOUT_MS, _milliseconds(timer.patience(None)))
        handle.setopt(pycurl.HEADERFUNCTION, answer.lines.append)
        handle.setopt(pycurl.WRITEFUNCTION, answer.take_body)
        handle.setopt(pycurl.XFERINFOFUNCTION, answer.check_limits)
        if self._netrc:
            given = any(name.lower() == "authorization" for name in headers)
            handle.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED if given else pycurl.NETRC_OPTIONAL)
        try:
            handle.perform()
        except pycurl.error as error:
            if not answer.is_enough and not answer.is_no_file():
                answer.keep()
                raise answer.failure or self._mapped(answer, *error.args) from error
        finally:
            kept.add(handle.getinfo(pycurl.ACTIVESOCKET))

    def _mapped(self, answer: _Answer, code: int, message: str) -> FetchError:
        """Return what libcurl's error means; its own texts may hold the URL."""
        if code == pycurl.E_OPERATION_TIMEDOUT:
            limit = f"total_timeout, {self.settings.total_timeout:g} s" if answer.has_begun else "connect_timeout or total_timeout"
            return FetchError(f"the server did not answer in time ({limit})", "timeout", retryable=True)
        if code in _DNS:
            return FetchError("the host's name does not resolve", "dns", retryable=True)
        if code == pycurl.E_SSL_CONNECT_ERROR and _BROKEN_HANDSHAKE.search(message):
            code = pycurl.E_RECV_ERROR
        if code in _TLS:
            return FetchError(f"the TLS certificate or handshake was refused: {message}", "tls")
        if code in _BROKEN and answer.has_begun:
            return FetchError("the connection broke before the body was complete", "truncated", retryable=True)
        if code in _CONNECTION | _BROKEN:
            reason = "connection refused" if code == pycurl.E_COULDNT_CONNECT else "the connection broke or was not made"
            if refusal := _PROXY_REFUSAL.search(message):
                reason = f"the proxy answered {refusal[1]}"
            return FetchError(reason, "connection", retryable=True)
        return FetchError(f"the answer or the URL makes no sense to libcurl (error {code})", "protocol")

    def _handle(self) -> tuple[pycurl.Curl, _Kept]:
        """Return this thread's handle and the connections that it keeps; a new one where one of them is not to be used again."""
        known: tuple[pycurl.Curl, _Kept] | None = getattr(self._local, "known", None)
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
        handle.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        handle.setopt(pycurl.HTTPAUTH, pycurl.HTTPAUTH_BASIC)
        handle.setopt(pycurl.NOPROGRESS, 0)
        handle.setopt(pycurl.CAINFO, http.authorities() or certifi.where())
        handle.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        return handle

    def close(self) -> None:
        """Close all connections but those of threads that were left behind in the middle of a transfer."""
        while self._handles:
            with suppress(pycurl.error):
                self._handles.pop().close()


class _Kept:
    """The sockets of the connections that a handle keeps.

    What an answer sends behind its length would be taken for the answer to the next request: libcurl looks for it once a
    second at most.
    """

    def __init__(self) -> None:
        self._poll = select.poll()

    def add(self, socket: int) -> None:
        """Watch the connection that was used, unless it was closed."""
        if socket >= 0:
            self._poll.register(socket, select.POLLIN)

    def are_silent(self) -> bool:
        """Say whether there is nothing to read, neither bytes nor an end."""
        return not self._poll.poll(0)

    def close(self, socket: int) -> int:
        """Close a socket for libcurl."""
        with suppress(KeyError):
            self._poll.unregister(socket)
        os.close(socket)
        return 0


class _Headers:
    """The headers of an answer, decoded when asked for; see :class:`dpp.http.Headers`."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if colon and name[-1:].isspace():  # to libcurl no header, so that it would leave a Transfer-Encoding in the body
                raise FetchError("a header of the answer has a blank before its colon", "protocol")
            self._values.setdefault(name.strip().lower(), []).append(value)

    def get(self, name: str, /) -> str | None:
        values = self.getlist(name)
        return ", ".join(values) if values else None

    def getlist(self, name: str, /) -> Sequence[str]:
        return [value.strip().decode("latin-1") for value in self._values.get(name.lower().encode(), ())]


class _Answer:
    """Takes an answer from libcurl's callbacks.

    Header lines are gathered, and judged when the body begins; lines after the body are trailers, and ignored. The body
    goes into the part. An exception must not leave a callback, so the first one is kept as ``failure`` and ends the
    transfer. The body of an answer that is no file is read to its end where it is short and comes soon, so that its
    connection can be used again; more of it ``is_enough``.
    """

    def __init__(self, part: Part, asked: int, timer: http.TransferTimer) -> None:
        self.status = 0
        self.lines: list[bytes] = []
        self._lines_seen = 0
        self.headers = _Headers(())
        self.failure: BaseException | None = None
        self.is_enough = False
        self._part = part
        self._asked = asked
        self._timer = timer
        self._body: http.Body | None = None
        self._decoder = http.Decoder("")
        self._received = self._written = 0
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._next_check = time.monotonic() + CHECK_SECONDS

    def _judge(self) -> None:
        """Read the headers: those of the last answer, as interim ones may come before it. libcurl takes any end for that of the headers."""
        starts = [number for number, line in enumerate(self.lines) if line.startswith(b"HTTP/")]
        if starts:
            if self.lines[-1].strip():
                raise FetchError("the connection ended within the headers", "connection", retryable=True)
            self.status = _status(self.lines[starts[-1]])
            self.headers = _Headers(self.lines[starts[-1] + 1 :])
        if self.status >= HTTPStatus.OK and self.status not in http.REDIRECTS:
            self._begin()

    def _begin(self) -> None:
        body = http.judge(self.status, self.headers, self._part, self._asked)
        self._part.begin(body.offset, total=body.total, etag=body.etag, content_type=self.headers.get("Content-Type"))
        self._body, self._decoder = body, http.Decoder(body.encoding)

    def check_limits(self, *progress: int) -> int:
        """Say whether to go on; libcurl asks at least once a second."""
        if time.monotonic() < self._next_check:
            return 0
        self.keep(self._check)
        return int(self.is_enough or self.failure is not None)

    def is_no_file(self) -> bool:
        """Say whether the headers are there and make the body one that does not matter."""
        last = next((line for line in reversed(self.lines) if line.startswith(b"HTTP/")), b"")
        return bool(last) and not self.lines[-1].strip() and _status(last) in range(300, 600)

    @property
    def has_begun(self) -> bool:
        """Whether anything of an answer came."""
        return bool(self.lines)

    def _check(self) -> None:
        if len(self.lines) > self._lines_seen:
            self._timer.received(sum(map(len, self.lines[self._lines_seen :])))
            self._lines_seen = len(self.lines)
        else:
            self.is_enough = self.is_no_file()
        self._timer.silent()
        self._next_check = time.monotonic() + CHECK_SECONDS

    def take_body(self, data: bytes) -> int:
        """Take some of the body; returning another number than its length ends the transfer."""
        self._received += len(data)
        if not self.status:
            self.keep(self._judge)
        if self._body is None:
            self.is_enough = self._received > DISCARDED_BYTES
            return 0 if self.is_enough else len(data)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_BYTES:
            self.keep()
        return len(data) if self.failure is None else 0

    def keep(self, check: Callable[[], None] | None = None) -> None:
        """Write what was gathered, and check something more; the first error is kept for the caller."""
        try:
            if self._gathered:
                self._take()
            if check:
                check()
        except BaseException as error:  # noqa: BLE001 - kept for the caller
            self.failure = self.failure or error

    def _take(self) -> None:
        data = b"".join(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._timer.received(len(data))
        for decoded in self._decoder.feed(data):
            self._written += len(decoded)
            self._part.write(decoded)

    def complete(self) -> None:
        """Judge an answer that had no body, and write the last of one that had; raise what went wrong on the way."""
        if not self.status:
            self._judge()
        self.keep()
        if self.failure is not None:
            raise self.failure

    def finish(self, expected: int | None) -> None:
        """Make sure that the body was whole."""
        if self._body is None:
            raise FetchError("the connection ended before there was an answer", "connection", retryable=True)
        self._decoder.finish()
        http.check_end(self._body, self._received, self._written, expected)


def _status(line: bytes) -> int:
    """Return the code of a status line; libcurl lets more pass than has one."""
    found = _STATUS.match(line)
    if not found:
        raise FetchError("the answer begins with no status", "protocol")
    return int(found[1])


def _header_lines(headers: Mapping[str, str]) -> list[bytes]:
    """Return headers as libcurl takes them: without a value, a colon would mean to leave the header out."""
    return [(f"{name}: {value}" if value else f"{name};").encode("latin-1") for name, value in headers.items()]


def _encoded(url: str) -> str:
    """Return a URL in ASCII without blanks: the path percent-encoded, the host as IDNA."""
    try:
        return str(Request("GET", url).prepare().url)
    except ValueError as error:
        raise FetchError("the URL makes no sense to the HTTP library", "protocol") from error


def _proxy(scheme: str, host: str) -> str:
    """Return the proxy that the environment names for a host, or "" for none."""
    url = f"{scheme}://{host}/"
    return select_proxy(url, get_environ_proxies(url)) or ""


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(seconds * 1000))
