"""Reading a list of files: JSON, JSON Lines, CSV, text, or a Python list.

Readers yield rows one by one and turn what they can't read into problems, so that a user gets
to see all of them at once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dpp.errors import InputError, ManifestError
from dpp.models import RUNTIME_FIELDS, FileData
from dpp.settings import describe

Files = str | Path | Sequence[Mapping[str, Any]]
KNOWN_FIELDS = frozenset(FileData.model_fields) - RUNTIME_FIELDS
_FORMATS = "a JSON list (.json), JSON Lines (.jsonl), CSV with a header (.csv), or a text of URLs (.txt)"
_STRUCTURED = frozenset({"headers", "urls"})


class Row(NamedTuple):
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
    """Return how messages call a manifest."""
    return str(files) if isinstance(files, (str, Path)) else f"list of {len(files)} files"


def read(files: Files) -> Iterator[Row]:
    """Yield the rows of a manifest; problems of single rows are rows too.

    Raises:
        InputError: There is no such file, or it can't be read at all.
        ManifestError: The file as a whole is not what its name says.
    """
    if not isinstance(files, (str, Path)):
        yield from listed(files)
        return
    path = Path(files)
    with _opened(path) as stream:
        yield from _reader(path, stream)(stream)


def check(row: Row, schemes: Collection[str]) -> FileData | list[str]:
    """Return the file that a row describes, or every problem it has.

    Args:
        row: The row as read.
        schemes: URL schemes that a fetcher is there for.
    """
    if row.fields is None:
        return [f"{row.where}: {row.problem}"]
    fields = {name: value for name, value in row.fields.items() if not (value is None and name in KNOWN_FIELDS)}
    problems = [f"{name} is set by dpp while it runs; rename that field" for name in sorted(RUNTIME_FIELDS & set(fields))]
    try:
        file = FileData.model_validate(fields)
        file.model_dump_json()
    except ValidationError as error:
        problems += describe(error)
    except PydanticSerializationError:
        problems.append("holds what JSON can't: text that is not Unicode, or an object of some other kind")
    except RecursionError:
        problems.append("is nested too deep")
    else:
        problems += _unknown_schemes(file, schemes)
        if not problems:
            return file
    return [f"{row.where}: {problem}" for problem in problems]


def _unknown_schemes(file: FileData, schemes: Collection[str]) -> list[str]:
    known = ", ".join(sorted(schemes))
    found = {urlsplit(url).scheme.lower() for url in (file.url, *(file.urls or ()))}
    return [f"url: no fetcher for {scheme}: is installed, only for {known}" for scheme in sorted(found - set(schemes))]


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; --files takes {_FORMATS}") from error
    with stream:
        yield stream


def _reader(path: Path, stream: IO[str]) -> Callable[[IO[str]], Iterator[Row]]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _csv
    if suffix in (".txt", ".text", ".list", ".urls"):
        return _text
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines
    return _sniffed(path, stream, suffix)


def _sniffed(path: Path, stream: IO[str], suffix: str) -> Callable[[IO[str]], Iterator[Row]]:
    first = next((text[0] for line in stream if (text := line.strip())), "")
    stream.seek(0)
    if first == "{":
        return _json_lines
    if first == "[":
        return lambda lines: _json_list(path, lines)
    if suffix == ".json":
        raise ManifestError(str(path), ["is not JSON: expected a list of objects, each with a url"])
    return _text


def listed(entries: Iterable[Any]) -> Iterator[Row]:
    """Yield a row for each entry of a list."""
    for index, entry in enumerate(entries):
        yield _row(f"entry {index}", entry)


def _row(where: str, entry: Any) -> Row:
    if isinstance(entry, Mapping):
        return Row(where, entry)
    return Row(where, None, f"expected an object with a url, got {type(entry).__name__}")


def _json_list(path: Path, stream: IO[str]) -> Iterator[Row]:
    try:
        entries = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise ManifestError(str(path), [f"is not JSON: {_reason(error)}"]) from error
    yield from listed(entries)


def _json_lines(stream: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield _row(f"line {number}", json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Row(f"line {number}", None, f"is not JSON: {_reason(error)}")


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _text(stream: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        url = line.strip()
        if url and not url.startswith("#"):
            yield Row(f"line {number}", {"url": url})


def _csv(stream: IO[str]) -> Iterator[Row]:
    reader = csv.DictReader(stream, strict=True)
    try:
        columns = reader.fieldnames or []
        if "url" not in columns:
            yield Row("line 1", None, f"the header needs a column url, got {', '.join(columns) or 'nothing'}")
            return
        for cells in reader:
            yield _csv_row(f"line {reader.line_num}", cells)
    except csv.Error as error:
        yield Row(f"line {reader.line_num}", None, f"is not CSV: {error}")


def _csv_row(where: str, cells: dict[str | Any, str | Any]) -> Row:
    if None in cells:
        return Row(where, None, "has more cells than the header has columns")
    try:
        return Row(where, {name: _cell(name, value) for name, value in cells.items()})
    except ValueError as error:
        return Row(where, None, str(error))


def _cell(name: str, value: str | None) -> Any:
    if not value:
        return None if name in KNOWN_FIELDS else value
    if name not in _STRUCTURED:
        return value
    if name == "urls" and not value.startswith("["):
        return value.split()
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected JSON in this cell") from error
