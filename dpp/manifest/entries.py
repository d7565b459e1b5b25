"""The entries of a manifest as they are read, before they are checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dpp.models import RUNTIME_FIELDS, FileData

KNOWN_FIELDS = frozenset(FileData.model_fields) - RUNTIME_FIELDS


class Entry(NamedTuple):
    """One entry of a manifest as it was read.

    Attributes:
        where: Its line or index, for messages.
        fields: Its fields; None if it could not be read.
        problem: Why it could not be read.
    """

    where: str
    fields: Mapping[str, Any] | None
    problem: str = ""


def to_entry(where: str, value: Any) -> Entry:
    """Return the entry for a value: an object with its fields, or a text, which is a URL."""
    # The check for a Mapping alone is slow, and nearly all values are dicts.
    if type(value) is dict or isinstance(value, Mapping):
        return Entry(where, value)
    if isinstance(value, str):
        return Entry(where, {"url": value})
    return Entry(where, None, f"expected an object with a url, or a URL, got {type(value).__name__}")


def listed(entries: Iterable[Any]) -> Iterator[Entry]:
    """Yield each entry of a list."""
    for index, entry in enumerate(entries):
        yield to_entry(f"entry {index}", entry)
