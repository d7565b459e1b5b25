"""Read manifests in JSON: a list, JSON Lines, an object with a list of files, or one object, which is one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dpp.manifest.columns import name_of_url
from dpp.manifest.entries import Entry, to_entry
from dpp.manifest.json_stream import ShapeError, decode, explained, items, objects
from dpp.manifest.lines import PIECE, Lines

# Members under which programs and web services give their lists.
LISTS = ("files", "data", "entries", "items", "records", "results")
_SEVERAL_LINES = "the value continues on the next line; expected one object per line, or a JSON list: [{...}, {...}]"


def read_list(lines: Lines) -> Iterator[Entry]:
    """Yield the items of a JSON list, in bounded memory."""
    return _entries(items(lines.rest(), lines.number))


def read_objects(lines: Lines, first: str) -> Iterator[Entry]:
    """Yield the objects of JSON Lines, the items of an object's list, or objects that have several lines.

    Args:
        lines: The text.
        first: The start of its first line.
    """
    if _is_one_per_line(first):
        return read_json_lines(lines)
    return _entries(objects(lines.rest(), LISTS, lines.number))


def _is_one_per_line(first: str) -> bool:
    """Whether a text whose first line starts like this is JSON Lines."""
    if len(first) >= PIECE:
        return False
    try:
        value = decode(first)
    except (ValueError, RecursionError) as error:
        return not (_continues(first.rstrip(), error, also="}]"))
    return "url" in value or not any(isinstance(value.get(name), list) for name in LISTS)


def read_json_lines(lines: Lines) -> Iterator[Entry]:
    """Yield the object of each line; a line that is invalid does not hide the following ones."""
    for line in lines.rows():
        where = f"line {lines.number}"
        try:
            yield _entry(where, decode(line))
        except (ValueError, RecursionError) as error:
            if _continues(line.rstrip(), error):
                yield Entry(where, None, _SEVERAL_LINES)
                return
            yield Entry(where, None, f"is not JSON: {_json_problem(error)}")


def _entries(values: Iterable[Any]) -> Iterator[Entry]:
    number = 0
    try:
        for value in values:
            yield _entry(f"entry {number}", value)
            number += 1
    except ShapeError as error:
        yield Entry(f"entry {number}", None, str(error))
    except (ValueError, RecursionError) as error:
        yield Entry(f"entry {number}", None, f"is not JSON: {_json_problem(error)}")


def _entry(where: str, value: Any) -> Entry:
    if type(value) is not dict or "url" in value:
        return to_entry(where, value)
    # The link of a record that lists its files is that of its page.
    is_record = any(_has_objects(value.get(member)) for member in LISTS)
    if (name := name_of_url(value)) and isinstance(value[name], str) and not is_record:
        return Entry(where, {"url" if field == name else field: item for field, item in value.items()})
    other = _other_shape(value)
    if not other:
        return to_entry(where, value)
    return Entry(where, None, f"has {other} and no url; expected a list alone, [{{...}}], or as a member {' or '.join(LISTS)}")


def _other_shape(value: dict[str, Any]) -> str:
    """Return in which other way an object without a url seems to list files; "" for none."""
    lists = [name for name, member in value.items() if _has_objects(member)]
    if lists:
        return f"a list {lists[0]!r}" if lists[0].isidentifier() else "another list"
    members = value.values()
    if (members and all(isinstance(member, Mapping) for member in members)) or any(isinstance(value.get(name), Mapping) for name in LISTS):
        return "objects by name"
    # One may be an entry whose url has another name.
    return "URLs by name" if len(members) > 1 and all(isinstance(member, str) and "://" in member for member in members) else ""


def _has_objects(member: Any) -> bool:
    return isinstance(member, list) and bool(member) and isinstance(member[0], Mapping)


def _continues(line: str, error: Exception, also: str = "") -> bool:
    """Whether a line is the start of JSON that continues on the next line: it ends in one of ``{[,:``, or one of the given."""
    # A truncated line usually ends with another character.
    return isinstance(error, json.JSONDecodeError) and error.pos >= len(line) and line.endswith((*"{[,:", *also))


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{explained(error.msg, error.doc[error.pos :][:2])}: column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
