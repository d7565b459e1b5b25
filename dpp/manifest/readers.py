"""Read a list of files: JSON, JSON Lines, CSV, text, or a Python list.

Readers yield entries one by one, and turn what they cannot read into entries with a problem, so that all problems can be
reported at once.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dpp.errors import InputError, ManifestError
from dpp.manifest.json_stream import LONGEST, decode, items
from dpp.models import RUNTIME_FIELDS, FileData
from dpp.redact import redact_url
from dpp.settings import describe

Files = str | Path | Sequence[Mapping[str, Any]]
KNOWN_FIELDS = frozenset(FileData.model_fields) - RUNTIME_FIELDS
BAD_ENTRY = "manifest"
_FORMATS = "a JSON list (.json), JSON Lines (.jsonl), CSV with a header (.csv), or a text file of URLs (.txt)"
_STRUCTURED = frozenset({"headers", "urls"})
_SEVERAL_LINES = "the value continues on the next line; expected one object per line, or a JSON list: [{...}, {...}]"
# UTF-16, gzip, and zip files such as .xlsx.
_NO_TEXT = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\x1f\x8b", b"PK\x03\x04")
_PIECE = 64 * 1024
_ENDS = ("\n", "\r")


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


def describe_source(files: Files) -> str:
    """Return the name of a manifest for messages, without secrets."""
    if not isinstance(files, (str, Path)):
        return f"list of {len(files)} files"
    text = str(files).encode("utf-8", "backslashreplace").decode()
    return redact_url(text) if is_source(files) else text


def is_source(files: Files) -> bool:
    """Whether a manifest is a URL for a plugin to read, and not a path."""
    return isinstance(files, str) and "://" in files


def read(files: Files) -> Iterator[Entry]:
    """Yield the entries of a manifest; an entry that cannot be read has a problem instead of fields.

    Raises:
        InputError: The file does not exist or cannot be read.
        ManifestError: The content of the file does not match its suffix.
    """
    if not isinstance(files, (str, Path)):
        yield from listed(files)
        return
    if is_source(files):
        raise InputError(f"{describe_source(files)}: no plugin reads manifests from this URL; --files takes {_FORMATS}")
    path = Path(files)
    with _open_text(path) as stream:
        lines = _ManifestLines(stream)
        try:
            yield from _reader(path, lines)
        except _TooLongError:
            yield Entry(f"line {lines.number}", None, "the entry is longer than 1 MiB; is this file a manifest?")


class Listed(NamedTuple):
    """A file of a manifest, and its line in a catalog: JSON without the fields that are not given."""

    file: FileData
    text: str


def check(entry: Entry, schemes: Collection[str]) -> Listed | list[str]:
    """Return the file that an entry describes, or all its problems.

    Args:
        entry: The entry as read.
        schemes: URL schemes for which a fetcher is installed.
    """
    if entry.fields is None:
        return [f"{entry.where}: {entry.problem}"]
    fields = {name: value for name, value in entry.fields.items() if not (value is None and name in KNOWN_FIELDS)}
    problems = [f"{name} is a field that dpp sets during the run; rename it" for name in sorted(RUNTIME_FIELDS & set(fields))]
    try:
        file = FileData.model_validate(fields)
    except ValidationError as error:
        problems += [*describe(error), *_unknown_schemes([fields.get("url")], schemes)]
    else:
        problems += _unknown_schemes([file.url, *(file.urls or ())], schemes)
        try:
            text = _storable(file)
        except ValueError as error:
            problems.append(str(error))
        if not problems:
            return Listed(file, text)
    return [f"{entry.where}: {problem}" for problem in problems]


def bad_entry(entry: Entry, problems: Sequence[str]) -> Listed:
    """Return a placeholder for an invalid entry: a file whose download fails with these problems."""
    file = FileData.model_validate({"url": f"{BAD_ENTRY}:{entry.where.replace(' ', '-')}", "problem": "; ".join(problems)})
    return Listed(file, as_text(file))


def _storable(file: FileData) -> str:
    """Return a file as JSON, or raise ValueError if another process could not read it back."""
    try:
        text = as_text(file)
        if file.model_extra:
            FileData.model_validate_json(text)
    except PydanticSerializationError as error:
        raise ValueError(
            "contains a value that JSON cannot represent: invalid Unicode, an unsupported type, or lists nested too deeply"
        ) from error
    except ValidationError as error:
        raise ValueError("is nested too deeply") from error
    return text


def as_text(file: FileData) -> str:
    """Return a file as JSON without the fields that are not given."""
    return file.model_dump_json(exclude_defaults=True)


def _unknown_schemes(urls: Iterable[Any], schemes: Collection[str]) -> list[str]:
    unknown = {scheme for url in urls if (scheme := _scheme(url).lower()) and scheme not in schemes}
    return [f"url: no fetcher for {scheme}: URLs is installed; choose from {', '.join(sorted(schemes))}" for scheme in sorted(unknown)]


def _scheme(url: Any) -> str:
    """Return the scheme of a URL; "" for an invalid URL."""
    # An invalid URL has its own problem already.
    try:
        return urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:
        return ""


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open("rb") as stream:
            _check_is_text(stream.peek()[:4])
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{describe_source(path)}: {reason}; --files takes {_FORMATS}") from error


def _check_is_text(head: bytes) -> None:
    """Raise ValueError if the first bytes of a file are those of a compressed or UTF-16 file."""
    # In UTF-16 without a byte order mark, every other byte of ASCII text is zero.
    if head.startswith(_NO_TEXT) or b"\0\0" in (head[::2], head[1::2]):
        raise ValueError("not UTF-8 text; save it as UTF-8, or unpack it")


class _TooLongError(Exception):
    """Report a row that is longer than the limit for an entry."""


class _ManifestLines:
    """Iterate over the lines of a manifest, with their line ends, and count them; a row of lines has at most 1 MiB.

    Args:
        stream: The manifest.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.number = 0
        self._stream = stream
        self._ahead = ""
        self._room = LONGEST

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, self._ahead = self._ahead, ""
        if not line.endswith(_ENDS):
            line += self._stream.readline(self._room + 1 - len(line))
        if not line:
            raise StopIteration
        self.number += 1
        self._room -= len(line)
        if self._room < 0:
            raise _TooLongError
        return line

    def first(self) -> str:
        """Return the first character that is not whitespace, or "" if there is none; skip blank lines before it."""
        while piece := self._stream.readline(_PIECE):
            if piece.strip():
                self._ahead = piece
                return piece.lstrip()[0]
            self.number += piece.endswith(_ENDS)
        return ""

    def rows(self) -> Iterator[str]:
        """Yield the lines that are not blank, each of which is a row."""
        for line in self:
            self.end_row()
            if line.strip():
                yield line

    def end_row(self) -> None:
        """Record that a row has ended."""
        # Only rows of CSV can have several lines.
        self._room = LONGEST

    def rest(self) -> Iterator[str]:
        """Yield the rest of the text, in pieces."""
        return itertools.chain([self._ahead], iter(functools.partial(self._stream.read, _PIECE), ""))


def _reader(path: Path, lines: _ManifestLines) -> Iterator[Entry]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _csv(lines)
    if suffix in (".txt", ".text", ".list", ".urls"):
        return _read_text(lines)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(lines)
    return _sniffed(path, lines, suffix)


def _sniffed(path: Path, lines: _ManifestLines, suffix: str) -> Iterator[Entry]:
    """Detect the format from the first character, and read the manifest."""
    # The manifest may be a pipe, so it cannot be opened again.
    first = lines.first()
    if first == "{":
        return _read_json_lines(lines)
    if first == "[":
        return _json_list(lines)
    if suffix == ".json":
        raise ManifestError(describe_source(path), ["is not JSON: expected a list of objects, each with a url"])
    return _read_text(lines)


def listed(entries: Iterable[Any]) -> Iterator[Entry]:
    """Yield each entry of a list."""
    for index, entry in enumerate(entries):
        yield _to_entry(f"entry {index}", entry)


def _to_entry(where: str, entry: Any) -> Entry:
    if isinstance(entry, Mapping):
        return Entry(where, entry)
    return Entry(where, None, f"expected an object with a url, got {type(entry).__name__}")


def _json_list(lines: _ManifestLines) -> Iterator[Entry]:
    number = 0
    try:
        for entry in items(lines.rest(), lines.number):
            yield _to_entry(f"entry {number}", entry)
            number += 1
    except (ValueError, RecursionError) as error:
        yield Entry(f"entry {number}", None, f"is not JSON: {_reason(error)}")


def _read_json_lines(lines: _ManifestLines) -> Iterator[Entry]:
    for line in lines.rows():
        where = f"line {lines.number}"
        try:
            yield _to_entry(where, decode(line))
        except (ValueError, RecursionError) as error:
            if _continues(line.rstrip(), error):
                yield Entry(where, None, _SEVERAL_LINES)
                return
            yield Entry(where, None, f"is not JSON: {_reason(error)}")


def _continues(line: str, error: Exception) -> bool:
    """Whether a line is the start of JSON that continues on the next line."""
    # A truncated line usually ends with another character.
    return isinstance(error, json.JSONDecodeError) and error.pos >= len(line) and line.endswith(("{", "[", ",", ":"))


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_text(lines: _ManifestLines) -> Iterator[Entry]:
    for line in lines.rows():
        url = line.strip()
        if not url.startswith("#"):
            yield Entry(f"line {lines.number}", {"url": url})


def _csv(lines: _ManifestLines) -> Iterator[Entry]:
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = reader.fieldnames or []
    except csv.Error as error:
        yield _no_csv(reader, error)
        return
    if "url" not in columns:
        yield Entry(f"line {max(reader.line_num, 1)}", None, f"expected a column url in the header, got {_name_columns(columns)}")
        return
    if len(set(columns)) < len(columns):
        yield Entry(f"line {reader.line_num}", None, f"the header has a duplicate column: {_name_columns(columns)}")
        return
    while True:
        lines.end_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _no_csv(reader, error)
        else:
            yield _csv_row(f"line {reader.line_num}", cells)


def _no_csv(reader: csv.DictReader[str], error: csv.Error) -> Entry:
    return Entry(f"line {reader.reader.line_num}", None, f"is not CSV: {error}")


def _name_columns(columns: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    # In a file without a header these are values, which may be secret.
    plain = all(re.fullmatch(r"[A-Za-z][\w -]{0,30}", column.strip()) for column in columns)
    return (", ".join(columns) if plain else "what looks like a row of values") or "nothing"


def _csv_row(where: str, cells: dict[str | Any, str | Any]) -> Entry:
    if None in cells:
        return Entry(where, None, "has more cells than the header has columns")
    try:
        return Entry(where, {name: _cell(name, value) for name, value in cells.items()})
    except ValueError as error:
        return Entry(where, None, str(error))


def _cell(name: str, value: str | None) -> Any:
    if not value:
        return None if name in KNOWN_FIELDS else value
    if name not in _STRUCTURED:
        return value
    if name == "urls" and not value.startswith("["):
        return value.split()
    try:
        return decode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON in this cell") from error
