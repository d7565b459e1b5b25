"""Read JSON of other programs: reject duplicate names, and read lists of any length in little memory.

A list may be the whole text, or a member of an object, as in ``{"files": [...]}``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from typing import Any

from dpp.manifest.pages import further_page, larger_total

log = logging.getLogger(__name__)

LONGEST = 1024 * 1024
_BLANK = " \t\r\n"
_ENDS = frozenset(f"{_BLANK},]}}:")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, or raise ValueError if a name occurs twice."""
    # Another program may read the other value (RFC 8259, section 4).
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate name in an object: {next(name for name in made if names.count(name) > 1)[:40]!r}")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
decode = _DECODER.decode


def explained(reason: str, found: str) -> str:
    """Return the parser's reason with its cause, if it is something that other programs accept as JSON.

    Args:
        reason: The reason.
        found: The text at its place, of two characters or more.
    """
    if found.startswith(("//", "/*", "#")):
        return f"{reason} (JSON has no comments; remove them)"
    if found.startswith("'"):
        return f"{reason} (JSON has no single quotes; use double ones)"
    # An empty list or object is read before.
    if (
        reason.startswith(("Illegal trailing comma", "Expecting value" if found.startswith("]") else "Expecting property name"))
        and found[:1] in "]},"
    ):
        return f"{reason} (JSON has no comma after the last item; remove it)"
    return reason


def items(pieces: Iterator[str], above: int = 0) -> Iterator[Any]:
    """Yield the items of a JSON list.

    Args:
        pieces: The text, split anywhere; it starts with ``[``, after whitespace.
        above: Number of lines before it, for messages.

    Raises:
        ValueError: The text is not JSON, or an item is longer than 1 MiB.
        RecursionError: An item is nested too deeply.
    """
    text = _Text(pieces, above)
    yield from _list_items(text)
    if text.peek():
        raise text.error("Extra data")


def objects(pieces: Iterator[str], lists: Collection[str], above: int = 0) -> Iterator[Any]:
    """Yield the values of a text of JSON objects; of an object that has a list of entries, yield the items of the list.

    Args:
        pieces: The text, split anywhere.
        lists: Names of members that are such lists, unless the object has a url before them.
        above: Number of lines before the text, for messages.

    Raises:
        ShapeError: An object has both a list and a url, has two lists or further pages, or is too long without a list.
        ValueError: The text is not JSON.
        RecursionError: A value is nested too deeply.
    """
    text = _Text(pieces, above)
    while first := text.peek():
        if first == "{":
            yield from _object_or_list(text, lists)
        else:
            yield text.value()


class ShapeError(ValueError):
    """Report JSON that is valid, but not a list of files."""


def _list_items(text: _Text) -> Iterator[Any]:
    text.take()
    if text.peek() == "]":
        text.take()
        return
    while True:
        yield text.value()
        if text.peek() not in (",", "]"):
            raise text.error("Expecting ',' delimiter")
        if text.take() == "]":
            return


def _object_or_list(text: _Text, lists: Collection[str]) -> Iterator[Any]:
    members: dict[str, Any] = {}
    found, number, size = "", 0, 0
    for name in _member_names(text):
        if name in members:
            raise text.error(f"duplicate name in an object: {name[:40]!r}")
        if name in lists and not number and "url" not in members and text.peek() == "[":
            found, members[name] = name, None
            for item in _list_items(text):
                number += 1
                yield item
            continue
        before = text.passed
        members[name] = text.value()
        size += text.passed - before
        if size > LONGEST:
            raise ShapeError(f"the object is longer than 1 MiB; a list of files is read from its member {' or '.join(sorted(lists))}")
    if not found:
        yield members
    else:
        _check_list(found, number, members, lists)


def _check_list(name: str, number: int, members: dict[str, Any], lists: Collection[str]) -> None:
    """Check that the list in an object has all of its files.

    Args:
        name: Name of the list.
        number: Number of its items.
        members: The members of the object.
        lists: Names of other lists of files.
    """
    if "url" in members:
        raise ShapeError(f"the object has both a url and a list {name}; give one of them")
    if other := next((other for other in lists if _lists_files(members.get(other))), ""):
        raise ShapeError(f"the object has two lists of files, {name} and {other}; put all files into one list")
    if place := further_page(members):
        raise ShapeError(f"the list continues on another page ({place[:80]}); put all pages into one list")
    if total := larger_total(members, number):
        log.warning("the list has %d entries, but its %s is %d; if it is one page of several, put all pages into one list", number, *total)


def _lists_files(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return "url" in first if isinstance(first, dict) else isinstance(first, str) and "://" in first


def _member_names(text: _Text) -> Iterator[str]:
    """Yield the name of each member of an object, with the text at the member's value."""
    text.take()
    if text.peek() == "}":
        text.take()
        return
    while True:
        if text.peek() != '"':
            raise text.error("Expecting property name enclosed in double quotes")
        name = str(text.value())
        if text.peek() != ":":
            raise text.error("Expecting ':' delimiter")
        text.take()
        yield name
        if text.peek() not in (",", "}"):
            raise text.error("Expecting ',' delimiter")
        if text.take() == "}":
            return


class _Text:
    """A text of which only a window is in memory: the unread rest of the received pieces.

    Args:
        pieces: The text.
        above: Number of lines before it.
    """

    def __init__(self, pieces: Iterator[str], above: int) -> None:
        self._pieces = pieces
        self._window = ""
        self._at = 0
        self._lines = above
        self._column = 0
        self._forgotten = 0

    @property
    def passed(self) -> int:
        """Number of characters that were read."""
        return self._forgotten + self._at

    def peek(self) -> str:
        """Return the next character that is not whitespace, or "" at the end."""
        while True:
            while self._at < len(self._window):
                if self._window[self._at] not in _BLANK:
                    return self._window[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self) -> str:
        """Return the character that :meth:`peek` returns, and advance past it."""
        found = self.peek()
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value, and advance past it."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                passed = error.pos - self._at
                if not self._more():
                    self._at += passed
                    raise self.error(error.msg) from error
            else:
                passed, is_whole = end - self._at, self._window[end : end + 1] in _ENDS
                # A number may continue in the next piece.
                if is_whole or not self._more():
                    self._at += passed
                    return value

    def error(self, reason: str) -> ValueError:
        """Return an error with a reason and the current line and column."""
        reason = explained(reason, self._window[self._at : self._at + 2])
        self._forget()
        return ValueError(f"{reason}: line {self._lines + 1} column {self._column + 1}")

    def _more(self) -> bool:
        """Double the window, up to 1 MiB; return whether text was added."""
        # Doubling limits how often a long value is parsed anew.
        self._forget()
        wanted, found = len(self._window) + 1, []
        while 0 < wanted <= LONGEST and (piece := next(self._pieces, "")):
            found.append(piece)
            wanted -= len(piece)
        self._window += "".join(found)
        return bool(found)

    def _forget(self) -> None:
        """Drop the read part of the window, and update the line and column."""
        passed = self._window[: self._at]
        ends = passed.count("\n")
        self._lines += ends
        self._column = len(passed) - passed.rfind("\n") - 1 if ends else self._column + len(passed)
        self._window = self._window[self._at :]
        self._forgotten += self._at
        self._at = 0
