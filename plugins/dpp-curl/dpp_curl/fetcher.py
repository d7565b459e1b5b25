"""Download with one libcurl handle per thread; :mod:`dpp.http` checks the responses, as for dpp's own fetcher."""

from __future__ import annotations

import functools
import os
import re
import select
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import pycurl
from dpp import BaseFetcher, FetchError, FileData, Part, Settings, __version__, http
from requests import Request

from dpp_curl.response import Response

AGENT = f"dpp/{__version__} {pycurl.version.split()[0]} libcurl/{pycurl.version_info()[1]}"
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
# CURLE_WEIRD_SERVER_REPLY under its old name, and the error for HTTP/0.9
_INVALID = {pycurl.E_FTP_WEIRD_SERVER_REPLY, pycurl.E_UNSUPPORTED_PROTOCOL}
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
            response = Response(part, timer, judge, file)
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

    def _finish(self, response: Response, url: str, file: FileData) -> None:
        try:
            response.finish(file.size)
        except http.PackedFile:
            self._packed.add(url)
            raise

    def _perform(self, chain: http.Chain, response: Response, timer: http.TransferTimer) -> None:
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
                raise response.failure or self._mapped(response, chain.proxy, *error.args) from error
        finally:
            response.close_sockets()
            kept.add(handle.getinfo(pycurl.ACTIVESOCKET))

    def _mapped(self, response: Response, proxy: str, code: int, message: str) -> FetchError:
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
            what = "cannot read the CA certificates" if code == pycurl.E_SSL_CACERT_BADFILE else "TLS handshake failed"
            return FetchError(f"{what}: {message}", "tls")
        if code in _BROKEN and response.has_head:
            return FetchError("the connection closed before the response body was complete", "truncated", retryable=True)
        if code in _CONNECTION | _BROKEN:
            reason = (
                f"connection refused{' by the proxy' * bool(proxy)}"
                if code == pycurl.E_COULDNT_CONNECT
                else "cannot connect, or the connection was lost"
            )
            if refusal := _PROXY_REFUSAL.search(message):
                reason = f"the proxy responded with {refusal[1]}"
            return FetchError(reason, "connection", retryable=True)
        return FetchError(f"{_invalid_part(code, response)} (curl error {code})", "protocol")

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
        # A session that is resumed shows no certificate, which may have expired since
        handle.setopt(pycurl.SSL_SESSIONID_CACHE, 0)
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


def _invalid_part(code: int, response: Response) -> str:
    if code not in _INVALID:
        return "the URL or the response is not valid for libcurl"
    return "the response does not start with a valid status line" if response.expects_status else "the response has invalid headers"


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
