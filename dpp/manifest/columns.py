"""The header of a table: which separator it has, and which column is which field."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Collection, Iterable, Sequence

from dpp.manifest.entries import KNOWN_FIELDS
from dpp.manifest.formats import invalid_byte
from dpp.manifest.lines import BLANKS

SEPARATORS = (",", ";", "\t", "|")
# Other names of the column url; none of them is a field of dpp, and a table needs a url.
URL_NAMES = frozenset({"uri", "link", "href", "downloadurl", "downloaduri", "downloadlink", "fileurl", "fileuri", "filelink"})
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w\s]|\t)"?[,;\t|]*[\r\n]*', re.IGNORECASE)
_LIKE_URL = re.compile(r"ur[il]|link|href")
_NO_NAME = re.compile(r"(unnamed: \d+(_level_\d+)?|__index_level_\d+__)?", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[^\W\d][\w .()-]{0,40}")
_PUNCTUATION = re.compile(r"[\s_./-]+")
_TYPOGRAPHIC_QUOTES = re.compile("[\u201c\u201d\u201e\u201f\u2018\u2019\u00ab\u00bb]")


def declared_separator(line: str) -> str:
    """Return the separator that a first line such as ``sep=;`` declares, as Excel reads it; "" for any other line."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return found[1] if found else ""


def separator_of(header: str) -> str:
    """Return the separator of a header line: the one that gives a column url and, of several, the most columns.

    Without a column url it is the one that gives the most columns; the comma goes first, then semicolon, tab and vertical bar.
    """
    return max(SEPARATORS, key=lambda separator: _rank(split_header(header, separator)))


def _rank(cells: Sequence[str]) -> tuple[bool, int]:
    return has_url(cells), len(cells)


def split_header(line: str, separator: str) -> list[str]:
    """Return the cells of a header's first line; none if it is not CSV."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def has_url(cells: Iterable[str]) -> bool:
    """Whether a header has a column of URLs."""
    return any(_compared_name(cell) == "url" or _compared_name(cell) in URL_NAMES for cell in cells)


def name_of_url(names: Collection[str]) -> str:
    """Return the only one of the names of fields that is another name for url; "" if there is none, or several."""
    found = [name for name in names if _compared_name(name) == "url"] or [name for name in names if _compared_name(name) in URL_NAMES]
    return found[0] if len(found) == 1 else ""


def is_header(line: str) -> bool:
    """Whether a line is a header: one of its columns has the URLs."""
    # A URL may end in ",url", so a line with a URL is none.
    return "://" not in line and has_url(split_header(line, separator_of(line)))


def field_names(header: Sequence[str]) -> list[str]:
    """Return the field of each column: known fields in lower case, others as they are, "" for columns without a name.

    Args:
        header: The names as in the file.

    Raises:
        ValueError: There is no column url, two columns are one field, or a name is not valid UTF-8.
    """
    if problem := invalid_byte("".join(header)):
        raise ValueError(f"the header {problem}")
    plain = [_column_name(cell) for cell in header]
    fields = [_field(name, plain) for name in plain]
    if "url" not in fields:
        fields[_url_column(plain)] = "url"
    named = [field for field in fields if field]
    if len(set(named)) < len(named):
        raise ValueError(f"the header has a duplicate column: {shown_names(plain)}")
    return fields


def _column_name(cell: str) -> str:
    name = cell.strip(BLANKS).removeprefix("#").strip(BLANKS)
    return "" if _NO_NAME.fullmatch(name) else name


def _field(name: str, others: Sequence[str]) -> str:
    lower = name.lower()
    # A table may have both id and ID.
    return lower if lower in KNOWN_FIELDS and lower not in others else name


@functools.lru_cache(1000)
def _compared_name(name: str) -> str:
    return _PUNCTUATION.sub("", _column_name(name).casefold())


def _url_column(names: Sequence[str]) -> int:
    """Return the index of the only column that has another name for url, or raise ValueError."""
    columns = [index for index, name in enumerate(names) if _compared_name(name) in URL_NAMES]
    if len(columns) == 1:
        return columns[0]
    if any(map(_TYPOGRAPHIC_QUOTES.search, names)):
        raise ValueError('the header has typographic quotes; replace them by " in a plain text editor')
    if columns:
        raise ValueError(f"several columns may be the url: {', '.join(names[index] for index in columns)}; name one of them url")
    if not are_names(names):
        raise ValueError("expected a header with a column url, such as url,id; found what looks like a row of values")
    similar = next((name for name in names if _LIKE_URL.search(name.casefold())), "")
    hint = f"; did you mean {similar!r}? Name that column url" if similar else ""
    raise ValueError(f"no column url in the header; found: {shown_names(names)}{hint}")


def are_names(texts: Iterable[str]) -> bool:
    """Whether texts are names that a message may show; in a table without a header they are values, which may be secret."""
    return all(map(_PLAIN_NAME.fullmatch, filter(None, texts)))


def shown_names(names: Sequence[str]) -> str:
    """Return names of columns or fields for a message, without those that may be values."""
    return (", ".join(filter(None, names)) if are_names(names) else "names that may be values") or "nothing"
