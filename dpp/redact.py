"""The one place that takes secrets out of what people get to see.

A secret is: the user part of a URL, its whole query, and the value of any header that a manifest gives.
Logs, reports, ledgers, task ids and messages carry only what passed through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlsplit, urlunsplit

MASK = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"<>]+")
_SHORTEST_SECRET = 4


def redact_url(url: str) -> str:
    """Return the URL without user part, query and fragment.

    Example:
        >>> redact_url("https://me:pw@example.org/a.csv?sig=1")
        'https://***@example.org/a.csv?***'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host}" if at and user else host
    return urlunsplit((parts.scheme, netloc, parts.path, MASK if parts.query else "", ""))


def url_secrets(url: str) -> set[str]:
    """Return the parts of a URL that must not be shown."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url}
    found = {parts.query, parts.password or "", parts.netloc.rpartition("@")[0]}
    return found | {value for _, value in parse_qsl(parts.query)}


def secrets_of(urls: Iterable[str], headers: Mapping[str, str] | None) -> set[str]:
    """Return every secret that a file's URLs and headers carry."""
    found = set(headers.values()) if headers else set()
    for url in urls:
        found |= url_secrets(url)
    return found


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return text with every URL in it redacted and every known secret masked.

    Secrets shorter than four characters are left: masking them would eat ordinary words.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return _URL.sub(lambda match: redact_url(match.group()), text)
