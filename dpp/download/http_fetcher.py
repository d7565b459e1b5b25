"""Fetching http and https with requests: pooled connections, one adapter for all threads of a process."""

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

    TLS is verified always. Proxies come from the environment, as everywhere (``HTTPS_PROXY``, ``NO_PROXY``).
    Cookies are not kept: a batch of files is no browsing session.
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
        asked = part.offset
        headers = http.request_headers(file.headers, part, AGENT)
        with _mapped_errors(), self._answer(url, headers, timer) as answer:
            body = http.judge(answer.status, answer.headers, part, asked)
            part.begin(body.offset, total=body.total, etag=body.etag, content_type=answer.headers.get("Content-Type"))
            _receive(answer, body, part, file.size)

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str], timer: http.TransferTimer) -> Iterator[urllib3.BaseHTTPResponse]:
        """Follow redirects to the answer that counts."""
        for _ in range(http.MAX_REDIRECTS + 1):
            timer.asked()
            answer = self._get(url, headers, timer)
            try:
                if answer.status not in http.REDIRECTS:
                    yield answer
                    return
                url, headers = http.next_hop(url, answer.headers.get("Location"), headers)
            finally:
                answer.close()
        raise FetchError(f"was redirected more than {http.MAX_REDIRECTS} times", "redirect")

    def _get(self, url: str, headers: dict[str, str], timer: http.TransferTimer) -> urllib3.BaseHTTPResponse:
        proxies, verify, netrc = self._environment(*http.site(url))
        limits = urllib3.Timeout(connect=timer.patience(self.settings.connect_timeout), read=self.settings.read_timeout)
        try:
            return self._adapter.get(url, headers | _authorization(url, headers, netrc), proxies, verify, limits)
        except urllib3.exceptions.ProtocolError as error:  # what broke here is no body
            raise _connection_error(error) from error

    def close(self) -> None:
        """Close all pooled connections."""
        self._adapter.close()


def _environment(scheme: str, host: str) -> tuple[dict[str, str], str | bool, tuple[str, str] | None]:
    """Return what the environment says for a host: proxies, certificates, and credentials of ~/.netrc.

    requests asks for all of it at every request, which takes half as long as the request itself.
    """
    url = f"{scheme}://{host}/"
    return dict(get_environ_proxies(url)), http.authorities() or True, get_netrc_auth(url)


def _authorization(url: str, headers: dict[str, str], netrc: tuple[str, str] | None) -> dict[str, str]:
    """Return the header to authenticate with: none where the manifest gives one; else from the URL, or from ~/.netrc."""
    if "authorization" in map(str.lower, headers):
        return {}
    parts = urlsplit(url)
    if parts.username is not None:
        netrc = _unquoted(parts.username), _unquoted(parts.password or "")
    return urllib3.make_headers(basic_auth=":".join(netrc)) if netrc else {}


def _unquoted(text: str) -> str:
    return unquote_to_bytes(text).decode("latin-1")  # as which headers are sent


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query out of a log record of urllib3, which warns with whole URLs."""
    record.msg, record.args = re.sub(r"\?[^\s\"')]+", f"?{MASK}", record.getMessage()), ()
    return True


def _receive(raw: urllib3.BaseHTTPResponse, body: http.Body, part: Part, expected: int | None) -> None:
    """Copy the body into the part as it comes."""
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
    """Turn what requests and urllib3 raise into FetchError; their own texts may hold the URL's query."""
    try:
        yield
    except FetchError:
        raise
    except urllib3.exceptions.SSLError as error:
        raise _tls_error(error) from error
    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError) as error:  # the first is a TimeoutError too
        raise _connection_error(error) from error
    except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise FetchError("the server did not answer in time", "timeout", retryable=True) from error
    except urllib3.exceptions.ProtocolError as error:
        raise FetchError("the connection broke before the body was complete", "truncated", retryable=True) from error
    except _OTHER as error:  # before OSError, which requests derives all its errors from
        raise FetchError(f"the answer or the URL makes no sense to the HTTP library ({type(error).__name__})", "protocol") from error
    except OSError as error:  # what is left: the file or folder in REQUESTS_CA_BUNDLE
        raise FetchError(f"no connection can be set up: {error}", "tls") from error


def _connection_error(error: urllib3.exceptions.HTTPError) -> FetchError:
    cause = error.original_error if isinstance(error, urllib3.exceptions.ProxyError) else error
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return FetchError("the host's name does not resolve", "dns", retryable=True)
    text = str(error)
    reason = "connection refused" if "refused" in text else "the connection broke or was not made"
    if refusal := _PROXY_REFUSAL.search(text):
        reason = f"the proxy answered {refusal[1]}"
    return FetchError(reason, "connection", retryable=True)


def _tls_error(error: urllib3.exceptions.SSLError) -> FetchError:
    if is_bare_end(error.args[0]):
        return FetchError("the connection broke within the TLS handshake", "connection", retryable=True)
    text = str(error)
    start = text.find("certificate verify failed")
    reason = text[start:].split(" (_ssl", maxsplit=1)[0] if start >= 0 else type(error).__name__
    return FetchError(f"the TLS certificate or handshake was refused: {reason}", "tls")
