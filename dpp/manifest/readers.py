"""Read a list of files in any format, and check its entries.

Readers yield entries one by one, and turn what they cannot read into entries with a problem, so that all problems can be
reported at once.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from dpp import names
from dpp.errors import InputError, ManifestError
from dpp.manifest.columns import are_names, declared_separator, has_url, is_header, shown_names
from dpp.manifest.digests import with_digests
from dpp.manifest.entries import KNOWN_FIELDS, Entry, listed
from dpp.manifest.formats import PARQUET, check_kind, encoding_of, invalid_byte, open_bytes
from dpp.manifest.json_reader import read_json_lines, read_list, read_objects
from dpp.manifest.json_stream import explained
from dpp.manifest.lines import BLANKS, Lines, TooLongError
from dpp.manifest.parquet import read_parquet
from dpp.manifest.table import is_comment, read_table
from dpp.manifest.url_list import read_urls
from dpp.models import RUNTIME_FIELDS, FileData
from dpp.redact import redact_url
from dpp.settings import describe

Files = str | Path | Sequence[Mapping[str, Any] | str]
BAD_ENTRY = "manifest"
_NO_URL = "url is missing"
TABLES = frozenset({".csv", ".tsv", ".tab", ".psv"})
TEXTS = frozenset({".txt", ".text", ".list", ".urls"})
_FORMATS = "a JSON list (.json), JSON Lines (.jsonl), CSV with a header (.csv, .tsv), Parquet (.parquet), or a text file of URLs (.txt)"


def describe_source(files: Files) -> str:
    """Return the name of a manifest for messages, without secrets."""
    if not isinstance(files, (str, Path)):
        return f"list of {names.counted(len(files), 'file')}"
    text = str(files).encode("utf-8", "backslashreplace").decode()
    return redact_url(text) if is_source(files) else text


def is_source(files: Files) -> bool:
    """Whether a manifest is a URL for a plugin to read, and not a path."""
    return isinstance(files, str) and "://" in files


def read(files: Files, encoding: str = "") -> Iterator[Entry]:
    """Yield the entries of a manifest; an entry that cannot be read has a problem instead of fields.

    Args:
        files: The manifest.
        encoding: Encoding of a file without a byte order mark; by default UTF-8.

    Raises:
        InputError: The file does not exist, cannot be read, or is of a kind that dpp does not read.
        ManifestError: The content of the file does not match its suffix.
    """
    if not isinstance(files, (str, Path)):
        yield from listed(files)
        return
    if is_source(files):
        raise InputError(f"{describe_source(files)}: no plugin reads manifests from this URL; --files takes {_FORMATS}")
    if str(files) == "-" and not Path(files).exists():
        raise InputError("-: no such file; to read a list from standard input, use /dev/stdin")
    path = Path(files)
    try:
        with open_bytes(path) as stream:
            yield from _entries_of_file(path, stream, encoding)
    except (OSError, ValueError) as error:
        raise InputError(f"{describe_source(path)}: {_reason(error)}; --files takes {_FORMATS}") from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not valid {error.encoding}: {error.reason}"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _entries_of_file(path: Path, stream: io.BufferedReader[Any], encoding: str) -> Iterator[Entry]:
    head = stream.peek()
    if head.startswith(PARQUET):
        yield from read_parquet(path)
        return
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    check_kind(head, suffix)
    found = encoding_of(head, encoding)
    # A row with bytes that are not UTF-8 has a problem of its own; other encodings are wrong as a whole.
    errors = "surrogateescape" if found.startswith("utf-8") else "strict"
    with io.TextIOWrapper(stream, encoding=found, errors=errors, newline="") as text:
        lines = Lines(text)
        try:
            yield from _entries_of_lines(path, suffix, lines)
        except TooLongError:
            yield Entry(f"line {lines.number}", None, "the entry is longer than 1 MiB; is this file a manifest?")


def _entries_of_lines(path: Path, suffix: str, lines: Lines) -> Iterator[Entry]:
    """Return the entries in the format that follows from the suffix, or from the first line."""
    if suffix in TABLES:
        return read_table(lines)
    # The manifest may be a pipe, so it cannot be opened again.
    first = lines.first(is_comment)
    start = first.lstrip(BLANKS)[:1]
    if suffix in (".jsonl", ".ndjson"):
        return read_objects(lines, first) if start == "{" else read_json_lines(lines)
    if suffix not in TEXTS and start in ("[", "{"):
        return read_list(lines) if start == "[" else read_objects(lines, first)
    if start == '"' and suffix not in TEXTS and not is_header(first):
        return read_json_lines(lines)
    if suffix == ".json":
        reason = explained("expected a list of objects, each with a url", first.lstrip(BLANKS))
        raise ManifestError(describe_source(path), [f"is not JSON: {reason}"])
    return read_table(lines) if declared_separator(first) or is_header(first) else read_urls(lines)


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
    fields, wrong = with_digests(fields)
    problems += wrong
    try:
        file = FileData.model_validate(fields)
    except ValidationError as error:
        hint = "" if "url" in fields else _names_instead(fields)
        problems += [
            *(problem + hint * (problem == _NO_URL) for problem in describe(error)),
            *_unknown_schemes([fields.get("url")], schemes),
        ]
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
        unsupported = "contains a value that JSON cannot represent: invalid Unicode, an unsupported type, or lists nested too deeply"
        raise ValueError(invalid_byte(repr(file)) or _unsupported_field(file) + unsupported) from error
    except ValidationError as error:
        raise ValueError("is nested too deeply") from error
    return text


def _unsupported_field(file: FileData) -> str:
    """Return the start of a message about a value: the name of its field."""
    for name, value in (file.model_extra or {}).items():
        try:
            to_json(value)
        except PydanticSerializationError:
            return f"{name}: "
    return ""


def _names_instead(fields: Mapping[Any, Any]) -> str:
    """Return the end of a message about a missing url: the fields that may be meant."""
    similar = [name for name in fields if isinstance(name, str) and has_url([name])]
    if similar:
        return f"; found {shown_names(similar)}: rename it to url"
    place = next((place for place in _places_of_urls(fields) if are_names([place])), "")
    return f"; found a URL in {place}: give it as url" if place else ""


def _places_of_urls(fields: Mapping[Any, Any], above: str = "", depth: int = 3) -> Iterator[str]:
    """Yield the places of URLs in fields and the objects in them, such as ``links.self``."""
    for name, value in fields.items():
        if isinstance(value, str) and "://" in value:
            yield f"{above}{name}"
        elif isinstance(value, Mapping) and depth:
            yield from _places_of_urls(value, f"{above}{name}.", depth - 1)


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
