"""The rules of HTTP for fetchers, independent of any HTTP library.

Sources: RFC 9110 (HTTP semantics), sections 8.8.3 (entity tags), 10.2.3 (Retry-After), 13.1.5 (If-Range),
14 (ranges), 15 (status codes); RFC 9112, section 6.3 (length of a message body).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from dpp.base import Part
from dpp.download.codings import Decoder, PackedFile, coding_to_undo
from dpp.download.environment import CA_VARIABLES, Authorities, Environment, authorities
from dpp.download.heads import Chunks, Heads
from dpp.download.peers import check_no_proxy, check_peer
from dpp.download.redirects import MAX_REDIRECTS, REDIRECTS, SAFE_ACROSS_HOSTS, Chain, Headers, next_hop
from dpp.download.refusals import PAGE_BYTES, PAGE_SECONDS, reason_in
from dpp.errors import FetchError
from dpp.headers import BatchHeaders, merge_headers
from dpp.settings import Settings

__all__ = [
    "CA_VARIABLES",
    "MAX_REDIRECTS",
    "PAGE_BYTES",
    "PAGE_SECONDS",
    "REDIRECTS",
    "RETRYABLE",
    "SAFE_ACROSS_HOSTS",
    "STALL_BYTES_PER_SECOND",
    "Authorities",
    "Body",
    "Chain",
    "Chunks",
    "Decoder",
    "Environment",
    "Headers",
    "Heads",
    "PackedFile",
    "RangeRefused",
    "Refusal",
    "TransferTimer",
    "authorities",
    "body_length",
    "check_end",
    "check_no_proxy",
    "check_peer",
    "is_chunked",
    "judge",
    "next_hop",
    "own_headers",
    "parse_retry_after",
    "request_headers",
]

RETRYABLE = frozenset({408, 425, 429}) | frozenset(range(500, 600))
STALL_BYTES_PER_SECOND = 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
# No file needs more digits; int() takes long for very many, or refuses them.
_LENGTH = re.compile(r"[0-9]{1,18}")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class RangeRefused(FetchError):
    """Report that the server cannot continue this part; discard it and request the whole file."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "range", retryable=True)


class Refusal(FetchError):
    """Report that the server responded with a status other than that of a file."""

    def explain(self, page: bytes, headers: Headers, secrets: Collection[str]) -> None:
        """Add the server's own reason to the message, if the status is that of an error.

        The body of another status may be the file itself, which is not shown: that of a 203 is the file as a proxy has changed it
        (RFC 9110, section 15.3.4).

        Args:
            page: The beginning of the body of the response, at most :data:`PAGE_BYTES`, received within :data:`PAGE_SECONDS`.
            headers: The headers of the response.
            secrets: What must not be shown; see :attr:`Chain.secrets`.
        """
        is_error = (self.http_status or 0) >= HTTPStatus.BAD_REQUEST
        if is_error and (reason := reason_in(page, headers, secrets)):
            self.args = (f"{self}: {reason}",)


class Body(NamedTuple):
    """The body of an accepted response, as announced by its headers.

    Attributes:
        offset: Offset of its first byte in the file, in bytes.
        length: Bytes of the body as transferred; None if the last chunk or the end of the connection ends it.
        total: Size of the whole file in bytes, or None.
        encoding: Content coding to decode: ``gzip``, ``deflate`` or ""; "" as well for a file that is stored in its coding.
        etag: Strong entity tag, or None.
        chunked: Whether it is transferred in chunks.
    """

    offset: int
    length: int | None
    total: int | None
    encoding: str
    etag: str | None
    chunked: bool = False


def own_headers(settings: Settings, url: str, given: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the headers that the user gives for a request: those of the batch, of its host, and of the manifest, which come first.

    Args:
        settings: The settings, with ``user_agent`` and ``headers``.
        url: The URL of the request.
        given: The headers in the manifest.
    """
    if not settings.headers and not settings.user_agent:
        return given
    agent = {"User-Agent": settings.user_agent} if settings.user_agent else {}
    return merge_headers(agent, BatchHeaders(settings.headers).of(url), given or {})


def request_headers(given: Mapping[str, str] | None, part: Part, agent: str) -> dict[str, str]:
    """Return the headers of a request: identity coding, those of the user, and a range to continue a part."""
    usual, own = {"User-Agent": agent, "Accept": "*/*"}, {"Accept-Encoding": "identity"}
    # The part's stored entity tag may be damaged, so it is checked again.
    if (etag := _strong(part.etag)) and part.offset:
        own |= {"Range": f"bytes={part.offset}-", "If-Range": etag}
    return merge_headers(usual, given, own) if given else usual | own


def judge(
    status: int,
    headers: Headers,
    part: Part,
    requested_offset: int,
    *,
    urls: Sequence[str] = (),
    size: int | None = None,
    packed: bool = False,
) -> Body:
    """Return the body that a response announces.

    Args:
        status: Status code of the response, after redirects.
        headers: Headers of the response.
        part: The part that is continued.
        requested_offset: The requested offset in bytes; 0 for the whole file.
        urls: The URLs of the request and its redirects; their names show which files stay packed.
        size: Size of the file in the manifest, in bytes, or None.
        packed: Whether the body is not decoded in any case, as after :class:`PackedFile`.

    Raises:
        RangeRefused: The part cannot be continued.
        Refusal: The status is not that of a file.
        FetchError: The response does not contain the file.
    """
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and requested_offset:
        raise RangeRefused("the server rejected the requested range")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise _refused_status(status, headers)
    etag = _strong(headers.get("ETag"))
    length, encoding = body_length(headers), "" if packed else coding_to_undo(headers, urls, size)
    if status == HTTPStatus.OK:
        return Body(0, length, None if encoding else length, encoding, None if encoding else etag, is_chunked(headers))
    if not requested_offset:
        raise FetchError("expected the whole file, got 206 Partial Content", "protocol", http_status=206)
    return _continuation(headers, part, requested_offset, length, etag, encoding)


def _continuation(headers: Headers, part: Part, requested_offset: int, length: int | None, etag: str | None, encoding: str) -> Body:
    match = _CONTENT_RANGE.fullmatch((headers.get("Content-Range") or "").strip())
    if match is None or int(match[1]) != requested_offset or encoding:
        raise RangeRefused("the server sent a different range than requested")
    if etag != part.etag:
        raise RangeRefused("the file changed on the server, or the response has no entity tag to compare")
    sent = int(match[2]) - requested_offset + 1
    if match[3] != str(requested_offset + sent) or sent < 1 or length not in (None, sent):
        raise RangeRefused("the range in the response ends before the end of the file, or contradicts its length")
    if part.total not in (None, requested_offset + sent):
        raise RangeRefused("the size of the file changed since the download started")
    return Body(requested_offset, sent, requested_offset + sent, "", part.etag, is_chunked(headers))


def _refused_status(status: int, headers: Headers) -> Refusal:
    return Refusal(
        f"the server responded with {status}",
        f"http-{status}",
        retryable=status in RETRYABLE,
        http_status=status,
        retry_after=parse_retry_after(headers.get("Retry-After")),
    )


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, section 10.2.3); None if it is missing or invalid."""
    if value is None:
        return None
    try:
        return max(0.0, Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None


def body_length(headers: Headers) -> int | None:
    """Return the length of a body as transferred, in bytes; None if the headers do not state it.

    Raises:
        FetchError: The headers are invalid or contradict each other.
    """
    chunked, lines = is_chunked(headers), headers.getlist("Content-Length")
    if not lines:
        return None
    values = {value.strip(" \t") for line in lines for value in line.split(",")}
    if len(values) > 1 or not all(map(_LENGTH.fullmatch, values)):
        raise FetchError(f"invalid Content-Length: {', '.join(sorted(values))[:80]}", "protocol")
    return None if chunked else int(values.pop())


def is_chunked(headers: Headers) -> bool:
    """Return whether the body is transferred in chunks.

    Raises:
        FetchError: It has another transfer coding.
    """
    # HTTP libraries ignore other codings, and would return their framing as part of the file.
    codings = [coding.lower() for coding in headers.getlist("Transfer-Encoding")]
    if not codings:
        return False
    if codings not in (["identity"], ["chunked"]):
        raise FetchError(f"unsupported Transfer-Encoding {', '.join(codings)[:80]!r}; expected 'chunked' or none", "protocol")
    return codings == ["chunked"]


def _strong(etag: object) -> str | None:
    return etag if isinstance(etag, str) and _STRONG_ETAG.fullmatch(etag) else None


def check_end(body: Body, received: int, written: int, expected: int | None) -> None:
    """Raise FetchError if a body that has ended is incomplete, or empty without the manifest expecting it.

    Args:
        body: The body, as announced.
        received: Bytes received, as transferred.
        written: Bytes after decoding.
        expected: Size of the file in the manifest, in bytes, or None.
    """
    if body.length is not None and received != body.length:
        raise FetchError(f"expected {body.length} bytes, but the connection closed after {received}", "truncated", retryable=True)
    if not body.offset and not written and expected != 0:
        raise FetchError("the response body is empty; for an empty file, set size to 0 in the manifest", "empty")


class TransferTimer:
    """Enforce the time limits that a socket's own timeout does not cover: stalls, and the whole attempt.

    Args:
        settings: The settings, with ``read_timeout``, ``stall_timeout`` and ``total_timeout`` in seconds of a monotonic clock.
        part: The part that takes the bytes; its waits for the run's rate limit do not count as stalls or silence.
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

    def request_sent(self) -> None:
        """Record that a request is sent."""
        # The time until the first byte of the response is a wait, not a stall.
        self._heard = time.monotonic()
        self._window_began, self._window_bytes = None, 0

    def limit(self, seconds: float) -> None:
        """End the attempt within these seconds from now."""
        rest = time.monotonic() - self._began + seconds
        self._total = min(self._total, rest) if self._total else rest

    @property
    def is_waiting(self) -> bool:
        """Whether no byte has arrived since the request was sent."""
        return self._window_began is None

    def patience(self, silence: float | None) -> float | None:
        """Return the seconds to wait for the next bytes: the limit for silence, or the rest of ``total_timeout`` if that is shorter."""
        if not self._total:
            return silence
        left = max(0.001, self._total - (time.monotonic() - self._began))
        return left if silence is None else min(silence, left)

    def _excuse(self) -> None:
        """Discount the time that the part has waited for the rate limit since the last call."""
        if self._part is None or self._part.waited == self._excused:
            return
        waited, self._excused = self._part.waited - self._excused, self._part.waited
        self._heard += waited
        if self._window_began is not None:
            self._window_began += waited

    def received(self, count: int) -> None:
        """Record received bytes; raise FetchError if a limit is exceeded."""
        self._excuse()
        now = time.monotonic()
        if count:
            self._heard = now
            self._window_began = self._window_began or now
        self._window_bytes += count
        self._check(now)

    def silent(self) -> None:
        """Raise FetchError if a limit is exceeded, including ``read_timeout``; for HTTP libraries without a limit for silence."""
        self._excuse()
        now = time.monotonic()
        if now - self._heard > self._silence:
            raise FetchError(f"no data from the server for {self._silence:g} s (read_timeout)", "timeout", retryable=True)
        self._check(now)

    def _check(self, now: float) -> None:
        if self._total and now - self._began > self._total:
            raise FetchError(f"the attempt took longer than {self._total:g} s (total_timeout)", "timeout", retryable=True)
        if self._window_began is None or now - self._window_began < self._stall:
            return
        if self._window_bytes < STALL_BYTES_PER_SECOND * self._stall:
            raise FetchError(f"received only {self._window_bytes} bytes in {self._stall:g} s (stall_timeout)", "timeout", retryable=True)
        self._window_began, self._window_bytes = now, 0
