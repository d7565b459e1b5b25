"""The rules of HTTP that a fetcher must keep, apart from any HTTP library.

Sources: RFC 9110 (HTTP semantics), sections 8.8.3 (entity tags), 10.2.3 (Retry-After), 13.1.5 (If-Range),
14 (ranges), 15 (status codes); RFC 9112, section 6.3 (length of a message body).
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from dpp.base import Part
from dpp.errors import FetchError
from dpp.redact import redact_url
from dpp.settings import Settings

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
MAX_REDIRECTS = 10
RETRYABLE = frozenset({408, 425, 429}) | frozenset(range(500, 600))
REDIRECTS = frozenset({301, 302, 303, 307, 308})
STALL_BYTES_PER_SECOND = 1024
SAFE_ACROSS_HOSTS = frozenset({"accept", "accept-encoding", "accept-language", "range", "if-range", "user-agent"})
_PIECE = 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")  # more digits than any file needs, which int() takes long for, or refuses
_AROUND_A_URL = "".join(map(chr, range(0x21)))  # what the URL standard strips, and urlsplit sees through
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class Headers(Protocol):
    """The headers of an answer, each with all the values it was sent with; names in any case."""

    def get(self, name: str, /) -> str | None:
        """Return the header's value, values of repeated ones joined with commas."""

    def getlist(self, name: str, /) -> Sequence[str]:
        """Return all values that the header was sent with."""


class RangeRefused(FetchError):
    """The server can't continue this part: throw it away and ask for the whole."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "range", retryable=True)


class Body(NamedTuple):
    """What an accepted answer is about to send.

    Attributes:
        offset: Where in the file its first byte belongs.
        length: Bytes of the body as transferred, or None where it ends with the chunks or the connection.
        total: Size of the whole file, or None.
        encoding: Content coding to undo: ``gzip``, ``deflate`` or "".
        etag: Strong entity tag, or None.
    """

    offset: int
    length: int | None
    total: int | None
    encoding: str
    etag: str | None


def request_headers(given: Mapping[str, str] | None, part: Part, agent: str) -> dict[str, str]:
    """Return the headers to send: identity coding, what the manifest gives, and how to continue a part."""
    usual, own = {"User-Agent": agent, "Accept": "*/*"}, {"Accept-Encoding": "identity"}
    if (etag := _strong(part.etag)) and part.offset:  # what the part's own facts say may be damaged
        own |= {"Range": f"bytes={part.offset}-", "If-Range": etag}
    return _merge_headers(usual, given, own) if given else usual | own


def _merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of all layers, a later one's in place of an earlier one's whatever their case."""
    chosen = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(chosen.values())


def next_hop(url: str, location: str | None, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return where a redirect leads, and the headers that may go there.

    Raises:
        FetchError: It leads nowhere, or away from http and https.
    """
    try:
        target = urljoin(url, _decoded(location or "").strip(_AROUND_A_URL))
        scheme, old, new = urlsplit(target).scheme, _url_origin(url), _url_origin(target)
    except ValueError as error:
        raise FetchError(f"redirected to something that is no URL by {redact_url(url)}", "redirect") from error
    if not location or scheme not in ("http", "https") or not new[1]:
        raise FetchError(f"redirected to {redact_url(target) if location else 'nowhere'}; only http and https are followed", "redirect")
    if old == new:
        return _with_user_of(url, target), headers
    return target, {name: value for name, value in headers.items() if name.lower() in SAFE_ACROSS_HOSTS}


def _decoded(location: str) -> str:
    """Return a header that was read as ISO 8859-1 as the UTF-8 that most servers send, where it is that."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _with_user_of(url: str, target: str) -> str:
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    parts = urlsplit(target)
    return target if "@" in parts.netloc else parts._replace(netloc=f"{user}{at}{parts.netloc}").geturl()


def site(url: str) -> tuple[str, str]:
    """Return a URL's scheme and host with port, for which the environment names proxies and credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def authorities() -> str:
    """Return the certificates that the environment names, as for requests and curl; "" for a library's own."""
    return next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), "")


def _url_origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def judge(status: int, headers: Headers, part: Part, asked: int) -> Body:
    """Return what an answer will send, or say why it is no file.

    Args:
        status: Its status code; redirects were followed already.
        headers: Its headers.
        part: The part that is being continued.
        asked: The offset that was asked for; 0 where the whole was.

    Raises:
        RangeRefused: The part can't be continued.
        FetchError: Anything else that is no whole file.
    """
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and asked:
        raise RangeRefused("the server has no such range")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise _refusal(status, headers)
    etag = _strong(headers.get("ETag"))
    length, encoding = body_length(headers), _encoding(headers)
    if status == HTTPStatus.OK:
        return Body(0, length, None if encoding else length, encoding, None if encoding else etag)
    if not asked:
        raise FetchError("got 206 Partial Content though the whole file was asked for", "protocol", http_status=206)
    return _continuation(headers, part, asked, length, etag, encoding)


def _continuation(headers: Headers, part: Part, asked: int, length: int | None, etag: str | None, encoding: str) -> Body:
    match = _CONTENT_RANGE.fullmatch((headers.get("Content-Range") or "").strip())
    if match is None or int(match[1]) != asked or encoding:
        raise RangeRefused("the server sent another range than was asked for")
    if etag != part.etag:
        raise RangeRefused("the file has changed on the server, or the server does not say that it has not")
    sent = int(match[2]) - asked + 1
    if match[3] != str(asked + sent) or sent < 1 or length not in (None, sent):
        raise RangeRefused("the server's range does not reach the end of the file, or its length does not fit")
    if part.total not in (None, asked + sent):
        raise RangeRefused("the file has another size than when the part was begun")
    return Body(asked, sent, asked + sent, "", part.etag)


def _refusal(status: int, headers: Headers) -> FetchError:
    return FetchError(
        f"the server answered {status}",
        f"http-{status}",
        retryable=status in RETRYABLE,
        http_status=status,
        retry_after=parse_retry_after(headers.get("Retry-After")),
    )


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, or None where it makes no sense."""
    if value is None:
        return None
    try:
        return max(0.0, Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None


def body_length(headers: Headers) -> int | None:
    """Return how many bytes a body has as transferred, or None where that is not said.

    Raises:
        FetchError: The headers contradict each other, or themselves.
    """
    lines = headers.getlist("Content-Length")
    if _chunked(headers) or not lines:
        return None
    values = {value.strip() for line in lines for value in line.split(",")}
    if len(values) > 1 or not all(map(_LENGTH.fullmatch, values)):
        raise FetchError(f"Content-Length makes no sense: {', '.join(sorted(values))[:80]}", "protocol")
    return int(values.pop())


def _chunked(headers: Headers) -> bool:
    """Whether the body comes in chunks; HTTP libraries take any other transfer coding for none, and its framing for the file."""
    codings = [coding.lower() for coding in headers.getlist("Transfer-Encoding")]
    if not codings:
        return False
    if codings not in (["identity"], ["chunked"]):
        raise FetchError(f"the server sent the body with Transfer-Encoding {', '.join(codings)[:80]!r}", "protocol")
    return codings == ["chunked"]


def _encoding(headers: Headers) -> str:
    encoding = (headers.get("Content-Encoding") or "").strip().lower()
    if not encoding or encoding == "identity":
        return ""
    if encoding in ("gzip", "x-gzip", "deflate"):
        return encoding.removeprefix("x-")
    raise FetchError(f"the server encoded the body as {encoding[:40]} though identity was asked for", "encoding")


def _strong(etag: object) -> str | None:
    return etag if isinstance(etag, str) and _STRONG_ETAG.fullmatch(etag) else None


def check_end(body: Body, received: int, written: int, expected: int | None) -> None:
    """Raise FetchError where a body that has ended is no whole file.

    Args:
        body: What was announced.
        received: Bytes that came over the wire.
        written: Bytes after decoding.
        expected: Size of the file as the manifest says: an empty answer is a file only where that is 0.
    """
    if body.length is not None and received != body.length:
        raise FetchError(f"expected {body.length} bytes, the connection ended after {received}", "truncated", retryable=True)
    if not body.offset and not written and expected != 0:
        raise FetchError("the body is empty; an empty file needs size 0 in the manifest", "empty")


class Decoder:
    """Undo a content coding piece by piece, and know whether its end was reached.

    Args:
        encoding: ``gzip``, ``deflate`` or "" for none.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes decode to, in pieces of at most 1 MiB, as a few bytes may decode to a thousand times as many."""
        try:
            yield from self._inflated(self._inflate, data) if self._inflate else (data,)
        except zlib.error as error:
            raise FetchError(f"the body is not {self._encoding} though its header says so", "encoding") from error

    def _inflated(self, inflate: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if inflate.eof:
                inflate = self._inflate = self._next_member()
            piece = inflate.decompress(data, _PIECE)
            yield piece
            data = inflate.unconsumed_tail or inflate.unused_data
            full = len(piece) == _PIECE and not inflate.eof

    def _next_member(self) -> zlib._Decompress:
        if self._encoding != "gzip":
            raise zlib.error("there is data after the end")
        return zlib.decompressobj(zlib.MAX_WBITS | 16)

    def finish(self) -> None:
        """Raise FetchError where the body ended before its coding did."""
        if self._inflate is not None and not self._inflate.eof:
            raise FetchError(f"the {self._encoding} body ends too early", "truncated", retryable=True)


class TransferTimer:
    """Keep the limits that a socket's own time-out does not: a stall, from the first bytes on, and the whole attempt.

    Args:
        settings: ``stall_timeout`` and ``total_timeout``, in seconds of a monotonic clock.
        part: Where the bytes go; what it waits for the run's rate limit is no stall and no silence of the server's.
    """

    def __init__(self, settings: Settings, part: Part | None = None) -> None:
        self._part = part
        self._excused = 0.0
        self._stall = settings.stall_timeout
        self._total = settings.total_timeout
        self._began = time.monotonic()
        self._silence = settings.read_timeout
        self._heard = self._began
        self._window_began: float | None = None
        self._window_bytes = 0

    def asked(self) -> None:
        """Take note of a request: what comes before its answer is a wait and no stall."""
        self._heard = time.monotonic()
        self._window_began, self._window_bytes = None, 0

    def patience(self, silence: float | None) -> float | None:
        """Return how long to wait for the next bytes: the limit for silence, or what is left of the whole."""
        if not self._total:
            return silence
        left = max(0.001, self._total - (time.monotonic() - self._began))
        return left if silence is None else min(silence, left)

    def _excuse(self) -> None:
        """Take no account of the time that the part has waited since last asked."""
        if self._part is None or self._part.waited == self._excused:
            return
        waited, self._excused = self._part.waited - self._excused, self._part.waited
        self._heard += waited
        if self._window_began is not None:
            self._window_began += waited

    def received(self, count: int) -> None:
        """Take note of bytes; raise FetchError where a limit is passed."""
        self._excuse()
        now = time.monotonic()
        if count:
            self._heard = now
            self._window_began = self._window_began or now
        self._window_bytes += count
        self._check(now)

    def silent(self) -> None:
        """Raise FetchError where a limit is passed, that for a server's silence among them; for libraries without that limit."""
        self._excuse()
        now = time.monotonic()
        if now - self._heard > self._silence:
            raise FetchError(f"the server was silent for {self._silence:g} s (read_timeout)", "timeout", retryable=True)
        self._check(now)

    def _check(self, now: float) -> None:
        if self._total and now - self._began > self._total:
            raise FetchError(f"took longer than {self._total:g} s (total_timeout)", "timeout", retryable=True)
        if self._window_began is None or now - self._window_began < self._stall:
            return
        if self._window_bytes < STALL_BYTES_PER_SECOND * self._stall:
            raise FetchError(f"got only {self._window_bytes} bytes in {self._stall:g} s (stall_timeout)", "timeout", retryable=True)
        self._window_began, self._window_bytes = now, 0
