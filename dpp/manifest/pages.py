"""Whether the object around a list of files says that the list is one page of several, as the APIs of many services do.

Sources: JSON:API and HAL (``links``, ``_links``), OData (``@odata.nextLink``), Google (``nextPageToken``), S3 (``IsTruncated``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NEXT = re.compile(r"(?:odata)?next(?:page)?(?:link|links|url|uri|href|token|cursor|marker)?")
_MORE = re.compile(r"(?:has|is)?(?:more|truncated)|hasnext(?:page)?")
# Without "size", which is mostly in bytes.
_TOTAL = re.compile(r"total(?:count|items|results|records|hits|files|elements|entries)?|count|numfound|numberofitems")
# Members whose own members speak of the list.
_AROUND = frozenset({"links", "pagination", "paging", "page", "pageinfo", "meta", "metadata", "cursors"})


def further_page(members: Mapping[str, Any]) -> str:
    """Return the place of the member that tells of another page, such as ``links.next``; "" if there is none.

    Args:
        members: The members of the object, without its list.
    """
    return next((place for place, name, value in _facts(members) if _is_further(name, value)), "")


def larger_total(members: Mapping[str, Any], number: int) -> tuple[str, int] | None:
    """Return the place and value of a member that gives a total larger than the number of entries; None if there is none."""
    totals = ((place, value) for place, name, value in _facts(members) if _TOTAL.fullmatch(name) and type(value) is int)
    return next(((place, value) for place, value in totals if value > number), None)


def _facts(members: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the place, the name in plain letters, and the value of each member that may speak of the list."""
    for name, value in members.items():
        place, plain = f"{above}{name}", re.sub(r"[^a-z]", "", name.lower())
        yield place, plain, value
        if plain in _AROUND and isinstance(value, Mapping):
            yield from _facts(value, f"{place}.")
        elif plain in _AROUND and isinstance(value, list):
            # Links as in RFC 8288, each with its relation.
            yield from ((f"{place}.next", "next", link) for link in value if isinstance(link, Mapping) and link.get("rel") == "next")


def _is_further(name: str, value: Any) -> bool:
    if _MORE.fullmatch(name):
        return value is True
    if isinstance(value, Mapping):
        value = next((value[member] for member in ("href", "url", "uri") if member in value), None)
    return _NEXT.fullmatch(name) is not None and bool(value) and isinstance(value, (str, int))
