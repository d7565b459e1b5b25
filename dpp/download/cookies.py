"""Cookies within one chain of redirects (RFC 6265): some servers send a file only to clients that return the cookie of a redirect."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from http.cookiejar import http2time  # type: ignore[attr-defined] # the stubs leave it out
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

_MAX_COOKIES = 50
_MAX_BYTES = 4096
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x3a\x3c-\x7e\x80-\xff]*")
_WEB_PORTS = {80, 443}
# Registries that sell names below these: a cookie for co.uk would be one for most of a country.
_REGISTRY = re.compile(r"(?:ac|co|com|edu|go|gov|mil|ne|net|or|org)\.[a-z]{2}")


class _Cookie(NamedTuple):
    name: str
    value: str
    domain: str
    host_only: bool
    port: int
    path: str
    secure: bool


class Cookies:
    """The cookies of one chain of redirects, in memory only.

    A cookie is sent to the host that set it, and to the hosts below its ``Domain`` (RFC 6265, section 5.4). Two rules are stricter:
    another port is another host, except that 80 and 443 are one, and a cookie that came over https is sent over https only.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], _Cookie] = {}

    @property
    def values(self) -> set[str]:
        """The values of all cookies, which must not be shown."""
        return {cookie.value for cookie in self._kept.values()}

    def take(self, url: str, lines: Sequence[str]) -> None:
        """Store the cookies of a response to a URL, or remove those that it expires.

        Args:
            url: The URL of the request.
            lines: The values of its ``Set-Cookie`` headers.
        """
        for line in lines:
            cookie, is_expired = _parse_cookie(urlsplit(url), line)
            if cookie is None:
                continue
            key = cookie.domain, cookie.path, cookie.name
            self._kept.pop(key, None)
            if not is_expired and len(self._kept) < _MAX_COOKIES:
                self._kept[key] = cookie

    def header(self, url: str, given: str = "") -> str:
        """Return the ``Cookie`` header for a request; "" for none.

        Args:
            url: The URL of the request.
            given: The header that the user gave; a cookie of the chain replaces one of the same name.
        """
        target = urlsplit(url)
        sent = sorted((cookie for cookie in self._kept.values() if _goes_to(cookie, target)), key=lambda cookie: -len(cookie.path))
        names = {cookie.name for cookie in sent}
        kept = [pair.strip() for pair in given.split(";") if pair.strip() and pair.partition("=")[0].strip() not in names]
        return "; ".join([*kept, *(f"{cookie.name}={cookie.value}" for cookie in sent)])


def _parse_cookie(origin: SplitResult, line: str) -> tuple[_Cookie | None, bool]:
    """Return the cookie of a Set-Cookie header (RFC 6265, section 5.2), or None; and whether it has expired."""
    pair, *rest = line.split(";")
    name, equals, value = (part.strip() for part in pair.partition("="))
    facts = {key.strip().lower(): text.strip() for key, _, text in (attribute.partition("=") for attribute in rest)}
    host = origin.hostname or ""
    domain = facts.get("domain", "").lstrip(".").lower()
    if not equals or len(line) > _MAX_BYTES or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        return None, False
    if (domain and not _may_set(host, domain)) or ("secure" in facts and origin.scheme != "https"):
        return None, False
    path = facts.get("path", "")
    # RFC 6265, section 5.1.4: without a path, the folder of the request's.
    path = path if path.startswith("/") else origin.path.rpartition("/")[0] or "/"
    cookie = _Cookie(name, value, domain or host, not domain or domain == host, _port(origin), path, origin.scheme == "https")
    return cookie, _is_expired(facts)


def _may_set(host: str, domain: str) -> bool:
    """Whether a host may set cookies for a domain."""
    if domain == host:
        return True
    return "." in domain and not _REGISTRY.fullmatch(domain) and not _is_address(host) and host.endswith("." + domain)


def _is_expired(facts: dict[str, str]) -> bool:
    """Whether a cookie's attributes remove it; Max-Age comes before Expires."""
    if re.fullmatch(r"-?[0-9]{1,18}", age := facts.get("max-age", "")):
        return int(age) <= 0
    expires = http2time(facts.get("expires", ""))
    return expires is not None and expires <= time.time()


def _goes_to(cookie: _Cookie, target: SplitResult) -> bool:
    host, path = target.hostname or "", target.path or "/"
    same_host = host == cookie.domain or (not cookie.host_only and not _is_address(host) and host.endswith("." + cookie.domain))
    same_port = _port(target) == cookie.port or {_port(target), cookie.port} == _WEB_PORTS
    below = path == cookie.path or path.startswith(cookie.path.rstrip("/") + "/")
    return same_host and same_port and below and (target.scheme == "https" or not cookie.secure)


def _port(parts: SplitResult) -> int:
    return parts.port or {"http": 80}.get(parts.scheme, 443)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
