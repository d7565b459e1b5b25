"""Fetch http and https URLs with requests; all threads of a process share one adapter with pooled connections."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, get_netrc_auth

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

    TLS certificates are always verified. Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY``).
    Cookies are sent back within a chain of redirects, and not stored.
    """

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._adapter = WatchedAdapter(pool_connections=32, pool_maxsize=settings.download_threads)
        self._environment = functools.lru_cache(maxsize=1024)(_environment)
        for name in ("urllib3.connection", "urllib3.connectionpool"):
            logging.getLogger(name).addFilter(_without_query)

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole of a URL into the part; see :class:`dpp.base.BaseFetcher`."""
        timer = http.TransferTimer(self.settings, part)
        TIMER.set(timer)
        requested_offset = part.offset
        chain = http.Chain(url, http.request_headers(file.headers, part, AGENT))
        with _mapped_errors(), self._response(chain, timer) as response:
            body = http.judge(response.status, response.headers, part, requested_offset, urls=chain.urls, size=file.size)
            part.begin(body.offset, total=body.total, etag=body.etag, content_type=response.headers.get("Content-Type"))
            _receive(response, body, part, file.size)

    @contextmanager
    def _response(self, chain: http.Chain, timer: http.TransferTimer) -> Iterator[urllib3.BaseHTTPResponse]:
        """Follow redirects, and yield the final response."""
        while True:
            timer.request_sent()
            response = self._get(chain.url, chain.headers, timer)
            try:
                if response.status not in http.REDIRECTS:
                    yield response
                    return
                chain.follow(response.headers)
            finally:
                response.close()

    def _get(self, url: str, headers: dict[str, str], timer: http.TransferTimer) -> urllib3.BaseHTTPResponse:
        proxies, verify, netrc = self._environment(*http.site(url))
        limits = urllib3.Timeout(connect=timer.patience(self.settings.connect_timeout), read=self.settings.read_timeout)
        try:
            return self._adapter.get(url, headers | _authorization(url, headers, netrc), proxies, verify, limits)
        # No body was read yet, so this is not a truncated one.
        except urllib3.exceptions.ProtocolError as error:
            raise _connection_error(error) from error

    def close(self) -> None:
        """Close all pooled connections."""
        self._adapter.close()


def _environment(scheme: str, host: str) -> tuple[dict[str, str], str | bool, tuple[str, str] | None]:
    """Return the proxies, certificates and credentials (~/.netrc) that the environment defines for a host."""
    # The caller caches this: looking it up takes half as long as a request.
    url = f"{scheme}://{host}/"
    return dict(get_environ_proxies(url)), http.authorities() or True, get_netrc_auth(url)


def _authorization(url: str, headers: dict[str, str], netrc: tuple[str, str] | None) -> dict[str, str]:
    """Return the Authorization header from the URL or ~/.netrc; nothing if the manifest has one."""
    if "authorization" in map(str.lower, headers):
        return {}
    parts = urlsplit(url)
    if parts.username is not None:
        netrc = _unquoted(parts.username), _unquoted(parts.password or "")
    return urllib3.make_headers(basic_auth=":".join(netrc)) if netrc else {}


def _unquoted(text: str) -> str:
    # Headers are sent as ISO 8859-1.
    return unquote_to_bytes(text).decode("latin-1")


def _without_query(record: logging.LogRecord) -> bool:
    """Mask the query in a log record of urllib3, whose warnings contain whole URLs."""
    record.msg, record.args = re.sub(r"\?[^\s\"')]+", f"?{MASK}", record.getMessage()), ()
    return True


def _receive(raw: urllib3.BaseHTTPResponse, body: http.Body, part: Part, expected: int | None) -> None:
    """Copy the body into the part as it arrives."""
    decoder = http.Decoder(body.encoding)
    received = written = 0
    while data := raw.read1(_BLOCK, decode_content=False):
        received += len(data)
        for decoded in decoder.feed(data):
            written += len(decoded)
            part.write(decoded)
    decoder.finish()
    http.check_end(body, received, written, expected)


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
        raise FetchError(f"cannot set up TLS: {error}; check {' and '.join(http.CA_VARIABLES)}", "tls") from error


def _connection_error(error: urllib3.exceptions.HTTPError) -> FetchError:
    cause = error.original_error if isinstance(error, urllib3.exceptions.ProxyError) else error
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return FetchError("the host name does not resolve", "dns", retryable=True)
    text = str(error)
    reason = "connection refused" if "refused" in text else "cannot connect, or the connection was lost"
    if refusal := _PROXY_REFUSAL.search(text):
        reason = f"the proxy responded with {refusal[1]}"
    return FetchError(reason, "connection", retryable=True)


def _tls_error(error: urllib3.exceptions.SSLError) -> FetchError:
    if is_bare_end(error.args[0]):
        return FetchError("the connection closed during the TLS handshake", "connection", retryable=True)
    text = str(error)
    start = text.find("certificate verify failed")
    reason = text[start:].split(" (_ssl", maxsplit=1)[0] if start >= 0 else type(error).__name__
    return FetchError(f"TLS handshake failed: {reason}", "tls")
