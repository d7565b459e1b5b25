"""Redirects: where the next request goes, and which headers and cookies it may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from dpp import names
from dpp.download.cookies import Cookies
from dpp.download.environment import Environment
from dpp.errors import FetchError
from dpp.redact import redact_url, secrets_of

MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAFE_ACROSS_HOSTS = frozenset({"accept", "accept-encoding", "accept-language", "range", "if-range", "user-agent"})
# The URL standard strips these around a URL, and urlsplit ignores them.
_AROUND_A_URL = "".join(map(chr, range(0x21)))


class Headers(Protocol):
    """The headers of a response; names are case-insensitive."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header; the values of a repeated header are joined with commas."""

    def getlist(self, name: str, /) -> Sequence[str]:
        """Return all values of a header, in the order received."""


class Chain:
    """One request and the redirects that follow it.

    A server that sets a cookie with a redirect gets it back, within this chain only: nothing is stored.

    Args:
        url: The URL to begin with.
        headers: The headers of its request.
        environment: Proxies and credentials.

    Attributes:
        url: The URL of the next request.
        urls: All URLs so far, in order.
    """

    def __init__(self, url: str, headers: dict[str, str], environment: Environment) -> None:
        self.url = url
        self.urls = [url]
        self._environment = environment
        self._first = self._given = headers
        self._cookies = Cookies()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request, with cookies and credentials."""
        headers = self._given | self._environment.authorization(self.url, self._given)
        if not self._cookies.values:
            return headers
        given = next((value for name, value in headers.items() if name.lower() == "cookie"), "")
        cookie = self._cookies.header(self.url, given)
        return {name: value for name, value in headers.items() if name.lower() != "cookie"} | ({"Cookie": cookie} if cookie else {})

    @property
    def proxy(self) -> str:
        """The URL of the proxy of the next request, or ""."""
        return self._environment.proxy(self.url)

    @property
    def secrets(self) -> set[str]:
        """The texts that must not be shown, as a server may repeat what it got."""
        given = {name: value for name, value in self._first.items() if name.lower() not in SAFE_ACROSS_HOSTS}
        urls = [*self.urls, *map(self._environment.proxy, self.urls)]
        credentials = [self._environment.authorization(url, {}) for url in self.urls]
        return secrets_of(urls, given).union(self._cookies.values, *(secrets_of((), headers) for headers in credentials))

    def follow(self, headers: Headers) -> None:
        """Continue with the target of a redirect.

        Args:
            headers: The headers of the redirect.

        Raises:
            FetchError: The target is not one to follow (see :func:`next_hop`), or there were too many redirects.
        """
        if len(targets := dict.fromkeys(headers.getlist("Location"))) > 1:
            raise FetchError(f"{redact_url(self.url)} redirects to {len(targets)} URLs", "protocol")
        self._cookies.take(self.url, headers.getlist("Set-Cookie"))
        self.url, self._given = next_hop(self.url, next(iter(targets), None), self._given)
        if len(self.urls) > MAX_REDIRECTS:
            raise FetchError(f"more than {MAX_REDIRECTS} redirects", "redirect")
        self.urls.append(self.url)


def next_hop(url: str, location: str | None, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the target of a redirect, and the headers that may be sent to it.

    Raises:
        FetchError: The target is missing, invalid, or neither http nor https.
    """
    try:
        target = urljoin(url, _as_utf8(location or "").strip(_AROUND_A_URL))
        scheme, old, new = urlsplit(target).scheme, _url_origin(url), _url_origin(target)
    except ValueError as error:
        raise FetchError(f"{redact_url(url)} redirects to an invalid URL", "redirect") from error
    if not names.has_one_host(target):
        raise FetchError(f"{redact_url(url)} redirects to a URL with a backslash before its path", "redirect")
    if not location:
        raise FetchError(f"{redact_url(url)} redirects without a Location header", "redirect")
    if scheme not in ("http", "https") or not new[1]:
        raise FetchError(f"redirected to {redact_url(target)}; expected an http or https URL", "redirect")
    if old == new:
        return _with_user_of(url, target), headers
    return target, {name: value for name, value in headers.items() if name.lower() in SAFE_ACROSS_HOSTS}


def _as_utf8(location: str) -> str:
    """Decode a header as UTF-8, which most servers send, after it was read as ISO 8859-1; if it is not UTF-8, return it unchanged."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _with_user_of(url: str, target: str) -> str:
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    parts = urlsplit(target)
    return target if "@" in parts.netloc else parts._replace(netloc=f"{user}{at}{parts.netloc}").geturl()


def _url_origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
