"""Headers of HTTP requests, as manifests and settings give them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dpp.names import host_of
from dpp.redact import secrets_of

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PUBLIC = frozenset({"accept", "accept-language", "user-agent"})


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ValueError if a header cannot be sent."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("a header name or value contains an invalid character (RFC 9110, section 5)")


def merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Merge headers; a later layer replaces earlier headers of the same name, in any case."""
    chosen = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(chosen.values())


class BatchHeaders:
    """The headers of a whole batch, and those of some of its hosts.

    Args:
        given: Values by header name, for all hosts, and objects of such values by host, with or without a port.

    Raises:
        ValueError: A header cannot be sent, or is not a text.
    """

    def __init__(self, given: Mapping[str, str | Mapping[str, str]]) -> None:
        self._of_all = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
        self._by_host = {host.lower(): value for host, value in given.items() if isinstance(value, Mapping)}
        for headers in self._layers():
            if not all(isinstance(value, str) for value in headers.values()):
                raise ValueError('should be an object of texts, or of such objects by host: {"X-Key": "...", "api.example.org": {...}}')
            check_headers(headers)

    def of(self, url: str) -> dict[str, str]:
        """Return the headers for a URL; those of its host replace those of all hosts."""
        host = host_of(url)
        name = re.sub(r":[0-9]*$", "", host)
        return merge_headers(self._of_all, self._by_host.get(name, {}), self._by_host.get(host, {}))

    def secrets(self) -> set[str]:
        """Return the values that must not be shown: all but those that say what the client is and accepts."""
        values = [{name: value for name, value in headers.items() if name.lower() not in _PUBLIC} for headers in self._layers()]
        return set().union(*(secrets_of((), headers) for headers in values))

    def _layers(self) -> list[Mapping[str, str]]:
        return [self._of_all, *self._by_host.values()]
