"""Reading a list of files: JSON, JSON Lines, CSV, text, or a Python list.

Readers yield entries one by one and turn what they can't read into problems, so that a user gets
to see all of them at once.
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
_FORMATS = "a JSON list (.json), JSON Lines (.jsonl), CSV with a header (.csv), or a text of URLs (.txt)"
_STRUCTURED = frozenset({"headers", "urls"})
_SEVERAL_LINES = "a value goes on in the next line; expected an object a line, or a JSON list of them: [{...}, {...}]"
_NO_TEXT = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\x1f\x8b", b"PK\x03\x04")  # UTF-16, gzip, and what is zipped, as .xlsx is
_PIECE = 64 * 1024
_ENDS = ("\n", "\r")


class Entry(NamedTuple):
    """One entry of a manifest as it was read.

    Attributes:
        where: Its line or index, for messages.
        fields: What it says; None where it could not be read.
        problem: Why it could not be read.
    """

    where: str
    fields: Mapping[str, Any] | None
    problem: str = ""


def describe_source(files: Files) -> str:
    """Return how messages call a manifest, without secrets."""
    if not isinstance(files, (str, Path)):
        return f"list of {len(files)} files"
    text = str(files).encode("utf-8", "backslashreplace").decode()
    return redact_url(text) if is_source(files) else text


def is_source(files: Files) -> bool:
    """Whether a manifest is named by a URL, for a plugin to read, and not by a path."""
    return isinstance(files, str) and "://" in files


def read(files: Files) -> Iterator[Entry]:
    """Yield the entries of a manifest; problems of single entries are entries too.

    Raises:
        InputError: There is no such file, or it can't be read at all.
        ManifestError: The file as a whole is not what its name says.
    """
    if not isinstance(files, (str, Path)):
        yield from listed(files)
        return
    if is_source(files):
        raise InputError(f"{describe_source(files)}: no plugin reads lists of files from there; --files takes {_FORMATS}")
    path = Path(files)
    with _open_text(path) as stream:
        lines = _ManifestLines(stream)
        try:
            yield from _reader(path, lines)
        except _TooLongError:
            yield Entry(f"line {lines.number}", None, "has more than a mebibyte for one entry; is this a list of files?")


class Listed(NamedTuple):
    """A file of a manifest, and what a catalog says of it: JSON without what is not given."""

    file: FileData
    text: str


def check(entry: Entry, schemes: Collection[str]) -> Listed | list[str]:
    """Return the file that an entry describes, or every problem it has.

    Args:
        entry: The entry as read.
        schemes: URL schemes that a fetcher is there for.
    """
    if entry.fields is None:
        return [f"{entry.where}: {entry.problem}"]
    fields = {name: value for name, value in entry.fields.items() if not (value is None and name in KNOWN_FIELDS)}
    problems = [f"{name} is set by dpp while it runs; rename that field" for name in sorted(RUNTIME_FIELDS & set(fields))]
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
    """Return what stands for an entry that has problems: a file that goes the way of all others, and fails where it is to be fetched."""
    file = FileData.model_validate({"url": f"{BAD_ENTRY}:{entry.where.replace(' ', '-')}", "problem": "; ".join(problems)})
    return Listed(file, as_text(file))


def _storable(file: FileData) -> str:
    """Return a file as JSON, or raise ValueError: what one process says, another has to understand."""
    try:
        text = as_text(file)
        if file.model_extra:
            FileData.model_validate_json(text)
    except PydanticSerializationError as error:
        raise ValueError(
            "holds what JSON can't: text that is not Unicode, an object of some other kind, or lists in lists without end"
        ) from error
    except ValidationError as error:
        raise ValueError("is nested too deep") from error
    return text


def as_text(file: FileData) -> str:
    """Return a file as JSON without what is not given."""
    return file.model_dump_json(exclude_defaults=True)


def _unknown_schemes(urls: Iterable[Any], schemes: Collection[str]) -> list[str]:
    unknown = {scheme for url in urls if (scheme := _scheme(url).lower()) and scheme not in schemes}
    return [f"url: no fetcher for {scheme}: is installed, only for {', '.join(sorted(schemes))}" for scheme in sorted(unknown)]


def _scheme(url: Any) -> str:
    """Return the scheme of a URL; what is none has its own problem already."""
    try:
        return urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:
        return ""


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open("rb") as stream:
            _refuse_no_text(stream.peek()[:4])
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{describe_source(path)}: {reason}; --files takes {_FORMATS}") from error


def _refuse_no_text(head: bytes) -> None:
    """Raise ValueError where a file begins with a mark of something else, or with every other byte zero, as UTF-16 does."""
    if head.startswith(_NO_TEXT) or b"\0\0" in (head[::2], head[1::2]):
        raise ValueError("is no text in UTF-8; save it as such, or unpack it")


class _TooLongError(Exception):
    """A row is longer than any file's entry."""


class _ManifestLines:
    """The lines of a manifest, each with its end, and how many there were; a row of them has at most a mebibyte.

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
        """Return the first character that is no blank, or "" where there is none; blank lines before it are passed."""
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
        """Take note that a row has ended; only a CSV's can go over several lines."""
        self._room = LONGEST

    def rest(self) -> Iterator[str]:
        """Yield what is left, in pieces."""
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
    """Read what its first character says it is; in one go, as it may be a pipe."""
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
            if _goes_on(line.rstrip(), error):
                yield Entry(where, None, _SEVERAL_LINES)
                return
            yield Entry(where, None, f"is not JSON: {_reason(error)}")


def _goes_on(line: str, error: Exception) -> bool:
    """Whether a line is the beginning of JSON that was written over several lines; one that is torn ends elsewhere."""
    return isinstance(error, json.JSONDecodeError) and error.pos >= len(line) and line.endswith(("{", "[", ",", ":"))


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


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
        yield Entry(f"line {max(reader.line_num, 1)}", None, f"the header needs a column url, got {_name_columns(columns)}")
        return
    if len(set(columns)) < len(columns):
        yield Entry(f"line {reader.line_num}", None, f"the header has a column twice: {_name_columns(columns)}")
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
    """Return the names of columns, but not the values, maybe secret, of a file that has no header."""
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
