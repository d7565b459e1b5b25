"""Read tables with a header: CSV (RFC 4180), also with semicolons, tabs or vertical bars, as spreadsheets write them."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator
from typing import Any

from dpp.manifest.columns import declared_separator, field_names, is_header, separator_of
from dpp.manifest.digests import is_digest_column
from dpp.manifest.entries import KNOWN_FIELDS, Entry
from dpp.manifest.json_stream import decode
from dpp.manifest.lines import BLANKS, Lines

log = logging.getLogger(__name__)

_STRUCTURED = frozenset({"headers", "urls", "digests"})
# What R, pandas, spreadsheets and databases write for a missing size or digest. In other columns it may be a value: an id "NA".
_MISSING = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "null", "none", "-"})
# A spreadsheet shows and saves a long number in this way, and its last digits are lost.
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d+")


def is_comment(line: str) -> bool:
    """Whether a line before the header is a comment; a header may begin with ``#`` as well."""
    return line.lstrip(BLANKS).startswith("#") and not is_header(line)


def read_table(lines: Lines) -> Iterator[Entry]:
    """Yield the rows of a table; rows without content are skipped.

    Args:
        lines: The table. Its first line may declare the separator, such as ``sep=;``; otherwise the header tells it.
    """
    first = lines.first(is_comment)
    if not first:
        return
    reader = _csv_reader(lines, first)
    try:
        rows = _Rows(field_names(next(reader, [])))
    except (csv.Error, ValueError) as error:
        is_json = first.lstrip(BLANKS).startswith(("[", "{"))
        yield Entry(
            f"line {max(lines.number, 1)}",
            None,
            "looks like JSON; give the file the suffix .json or .jsonl" if is_json else _csv_problem(error),
        )
        return
    while True:
        lines.end_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Entry(f"line {lines.number}", None, _csv_problem(error))
        else:
            if (entry := rows.entry(lines.number, cells)) is not None:
                yield entry


def _csv_reader(lines: Lines, first: str) -> Iterator[list[str]]:
    """Return the rows of cells; a first line that only declares the separator is skipped."""
    separator = declared_separator(first)
    if separator:
        next(lines)
        lines.end_row()
    return csv.reader(lines, delimiter=separator or separator_of(first), strict=True)


def _csv_problem(error: Exception) -> str:
    return f"is not CSV: {error}" if isinstance(error, csv.Error) else str(error)


class _Rows:
    """Turn the cells of rows into entries.

    Args:
        names: The field of each column; "" for a column that is ignored.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._plain = [name for name in names if name in KNOWN_FIELDS - _STRUCTURED]
        self._structured = [name for name in names if name in _STRUCTURED]
        self._may_miss = [name for name in names if name == "size" or is_digest_column(name)]
        self._is_warned = False

    def entry(self, number: int, cells: list[Any]) -> Entry | None:
        """Return the entry for the cells of the row that ends in a line; None if all are blank."""
        width = len(self._names)
        if len(cells) != width:
            if any(cell.strip(BLANKS) for cell in cells[width:]):
                return Entry(f"line {number}", None, "has more cells than the header has columns")
            cells = cells[:width] + [None] * (width - len(cells))
        fields = dict(zip(self._names, cells, strict=True))
        for name in self._plain:
            if value := fields[name]:
                value = value.strip(BLANKS)
            fields[name] = value or None
        for name in self._may_miss:
            if (value := fields[name]) and value.strip(BLANKS).lower() in _MISSING:
                fields[name] = None
        if fields["url"] is None and not any(cell and cell.strip(BLANKS) for cell in cells):
            return None
        return self._completed(f"line {number}", fields)

    def _completed(self, where: str, fields: dict[str, Any]) -> Entry:
        """Return an entry whose structured fields are parsed, and without the columns that have no name."""
        fields.pop("", None)
        if not self._is_warned and "E+" in (fields.get("id") or "") and _SHORTENED.fullmatch(fields["id"]):
            self._is_warned = True
            log.warning("%s: id %s looks like a number that a spreadsheet has shortened; format its column as text", where, fields["id"])
        try:
            for name in self._structured:
                fields[name] = _structure(name, fields[name])
        except ValueError as error:
            return Entry(where, None, str(error))
        return Entry(where, fields)


def _structure(name: str, cell: str | None) -> Any:
    """Return the value of a cell with JSON, or with URLs separated by blanks."""
    value = (cell or "").strip(BLANKS)
    if not value:
        return None
    if name == "urls" and not value.startswith("["):
        return value.split()
    try:
        return decode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON in this cell") from error
