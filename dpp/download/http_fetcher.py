"""Fetch http and https URLs with requests; all threads of a process share one adapter with pooled connections."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
import urllib3

from dpp._version import __version__
from dpp.base import BaseFetcher, Part
from dpp.download import http
from dpp.download.http_connection import TIMER, WatchedAdapter, is_bare_end
from dpp.errors import FetchError
from dpp.models import FileData
from dpp.redact import MASK
from dpp.settings import Settings

AGENT = f"dpp/{__version__} python-requests/{requests.__version__}"
_BLOCK = 256 * 1024
_PROXY_REFUSAL = re.compile(r"Tunnel connection failed: (\d{3})")
_OTHER = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError)


class RequestsFetcher(BaseFetcher):
    """Fetch over http and https.

    TLS certificates are always verified. Certificates, proxies and credentials come from the environment; see
    :class:`dpp.http.Environment`.
    Cookies are sent back within a chain of redirects, and not stored.
    """

    settings: Settings
    checks_peers = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._environment = http.Environment()
        self._packed: set[str] = set()
        self._adapter = WatchedAdapter(self._environment.authorities, settings.download_threads, public_only=settings.deny_private)
        for name in ("urllib3.connection", "urllib3.connectionpool"):
            logging.getLogger(name).addFilter(_without_query)

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole of a URL into the part; see :class:`dpp.base.BaseFetcher`."""
        timer = http.TransferTimer(self.settings, part)
        TIMER.set(timer)
        requested_offset = part.offset
        given = http.own_headers(self.settings, url, file.headers)
        chain = http.Chain(url, http.request_headers(given, part, AGENT), self._environment)
        with _mapped_errors(), self._response(chain, timer) as response:
            try:
                body = http.judge(
                    response.status, response.headers, part, requested_offset, urls=chain.urls, size=file.size, packed=url in self._packed
                )
            except http.Refusal as refusal:
                refusal.explain(_page(response, timer), response.headers, chain.secrets)
                raise
            part.begin(body.offset, total=body.total, etag=body.etag, content_type=response.headers.get("Content-Type"))
            try:
                _receive(response, body, part, file)
            except http.PackedFile:
                self._packed.add(url)
                raise

    @contextmanager
    def _response(self, chain: http.Chain, timer: http.TransferTimer) -> Iterator[urllib3.BaseHTTPResponse]:
        """Follow redirects, and yield the final response."""
        while True:
            timer.request_sent()
            response = self._get(chain, timer)
            try:
                if response.status not in http.REDIRECTS:
                    yield response
                    return
                chain.follow(response.headers)
            finally:
                response.close()

    def _get(self, chain: http.Chain, timer: http.TransferTimer) -> urllib3.BaseHTTPResponse:
        if self.settings.deny_private:
            http.check_no_proxy(chain.proxy)
        limits = urllib3.Timeout(connect=timer.patience(self.settings.connect_timeout), read=self.settings.read_timeout)
        try:
            return self._adapter.get(chain.url, chain.headers, chain.proxy, limits)
        # No body was read yet, so this is not a truncated one.
        except urllib3.exceptions.ProtocolError as error:
            raise _connection_error(error) from error
        except requests.exceptions.InvalidSchema as error:
            reason = "the proxy needs the package PySocks: pip install PySocks, or use the plugin dpp-curl"
            raise FetchError(reason, "connection") from error

    def close(self) -> None:
        """Close all pooled connections."""
        self._adapter.close()


def _without_query(record: logging.LogRecord) -> bool:
    """Mask the query in a log record of urllib3, whose warnings contain whole URLs."""
    record.msg, record.args = re.sub(r"\?[^\s\"')]+", f"?{MASK}", record.getMessage()), ()
    return True


def _receive(raw: urllib3.BaseHTTPResponse, body: http.Body, part: Part, file: FileData) -> None:
    """Copy the body into the part as it arrives."""
    decoder = http.Decoder(body.encoding, file)
    received = written = 0
    while data := raw.read1(_BLOCK, decode_content=False):
        received += len(data)
        for decoded in decoder.feed(data):
            written += len(decoded)
            part.write(decoded)
    decoder.finish()
    http.check_end(body, received, written, file.size)


def _page(raw: urllib3.BaseHTTPResponse, timer: http.TransferTimer) -> bytes:
    """Return the beginning of an error page, or what arrives of it within a short time."""
    timer.limit(http.PAGE_SECONDS)
    page = b""
    with suppress(FetchError, OSError, urllib3.exceptions.HTTPError):
        while len(page) < http.PAGE_BYTES and (data := raw.read1(http.PAGE_BYTES, decode_content=False)):
            page += data
    return page


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn exceptions of requests and urllib3 into FetchError."""
    # Their own messages are not shown, as they may contain the URL's query.
    try:
        yield
    except FetchError:
        raise
    except urllib3.exceptions.SSLError as error:
        raise _tls_error(error) from error
    # NewConnectionError is a TimeoutError as well, so this comes first.
    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError) as error:
        raise _connection_error(error) from error
    except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise FetchError("no response in time (connect_timeout, read_timeout)", "timeout", retryable=True) from error
    except urllib3.exceptions.ProtocolError as error:
        raise FetchError("the connection closed before the response body was complete", "truncated", retryable=True) from error
    # All errors of requests are OSErrors, so this comes first.
    except _OTHER as error:
        raise FetchError(f"invalid response or URL ({type(error).__name__})", "protocol") from error
    # The remaining reason is the file or folder of CA certificates.
    except OSError as error:
        raise _authorities_error(error) from error


def _connection_error(error: urllib3.exceptions.HTTPError) -> FetchError:
    is_of_proxy = isinstance(error, urllib3.exceptions.ProxyError)
    cause = error.original_error if isinstance(error, urllib3.exceptions.ProxyError) else error
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return FetchError("the host name does not resolve", "dns", retryable=True)
    text = str(error)
    reason = f"connection refused{' by the proxy' * is_of_proxy}" if "refused" in text else "cannot connect, or the connection was lost"
    if refusal := _PROXY_REFUSAL.search(text):
        reason = f"the proxy responded with {refusal[1]}"
    return FetchError(reason, "connection", retryable=True)


def _tls_error(error: urllib3.exceptions.SSLError) -> FetchError:
    if is_bare_end(error.args[0]):
        return FetchError("the connection closed during the TLS handshake", "connection", retryable=True)
    cause, text = error.args[0], str(error)
    start = text.find("certificate verify failed")
    if start >= 0:
        return FetchError(f"TLS handshake failed: {text[start:].split(' (_ssl', maxsplit=1)[0]}", "tls")
    if isinstance(cause, OSError) and getattr(cause, "library", "X509") in ("X509", "PEM"):
        return _authorities_error(cause)
    # OpenSSL's name of the error, such as WRONG_VERSION_NUMBER
    reason = getattr(cause, "reason", None) or type(cause).__name__
    return FetchError(f"TLS handshake failed: {reason.replace('_', ' ').lower()}", "tls")


def _authorities_error(error: OSError) -> FetchError:
    reason = "not in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
    return FetchError(f"cannot read the CA certificates: {reason}; check {', '.join(http.CA_VARIABLES)}", "tls")
