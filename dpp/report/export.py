"""Export the results of a run as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import csv
import importlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from dpp.errors import ConfigurationError
from dpp.names import suggestion
from dpp.report.table import TIME, Table, cell, make_table
from dpp.workspace.atomic import json_line
from dpp.workspace.ledger import read_ledger

FORMAT_OF_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
FORMATS = ("csv", "jsonl", "parquet")
GROUP_ROWS = 10_000
# OWASP, "CSV Injection": a cell that starts with one of these may be taken for a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def guess_format(path: Path | None) -> str:
    """Return the format for the suffix of a file; CSV without a file.

    Raises:
        ConfigurationError: The suffix is unknown.
    """
    if path is None:
        return "csv"
    if path.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise ConfigurationError(f"{path}: unknown suffix {path.suffix!r}; set --format, or {suggestion(path.suffix, FORMAT_OF_SUFFIX)}")
    return FORMAT_OF_SUFFIX[path.suffix.lower()]


def table_of(results: Sequence[Path], only: Literal["ok", "failed"] | None = None, *, flat: bool = True) -> Table:
    """Return the outcomes of a run as a table.

    Args:
        results: Files with the outcomes, one line per file. They must not change while the table is read.
        only: Status of the files to include; all files if None.
        flat: Whether the fields of results become columns.

    Raises:
        ConfigurationError: There are more than 1,000 columns.
    """
    return make_table(lambda: (outcome for path in results for outcome in read_ledger(path) if only in (None, outcome.status)), flat=flat)


def write_table(form: str, table: Table, stream: IO[bytes], *, raw: bool = False) -> None:
    """Write a table in one of the formats.

    Args:
        form: ``csv``, ``jsonl`` or ``parquet``.
        table: The table.
        stream: Binary stream to write to; it need not be seekable.
        raw: Whether to write text that a spreadsheet may take for a formula without a ``'`` before it (CSV).

    Raises:
        ConfigurationError: pyarrow, which Parquet needs, is not installed.
    """
    if form == "parquet":
        _write_parquet(table, stream)
    else:
        stream.writelines(line.encode() for line in lines_of(form, table, raw=raw))


def lines_of(form: str, table: Table, *, raw: bool = False) -> Iterator[str]:
    """Return the lines of a table as CSV or JSON Lines; see :func:`write_table`."""
    return _csv_lines(table, raw) if form == "csv" else _render_json_lines(table)


class _Echo:
    """A stream for a CSV writer that returns each line instead of storing it."""

    def write(self, text: str) -> str:
        return text


def _csv_lines(table: Table, raw: bool) -> Iterator[str]:
    """Yield lines of CSV as in RFC 4180, with a header; None is an empty cell."""
    writer: Any = csv.writer(_Echo())
    yield writer.writerow(table.columns)
    for row in table.rows():
        yield writer.writerow([_csv_cell(kind, row.get(column), raw) for column, kind in table.columns.items()])


def _csv_cell(kind: str, value: Any, raw: bool) -> Any:
    value = cell(kind, value)
    if kind == TIME and value is not None:
        return _iso(value)
    if isinstance(value, bool):
        return str(value).lower()
    guarded = not raw and kind == "text" and value is not None and value.startswith(FORMULA_STARTS)
    return f"'{value}" if guarded else value


def _iso(moment: Any) -> str:
    """Return a time as in ISO 8601, such as 2026-01-31T12:00:00.000000Z."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _render_json_lines(table: Table) -> Iterator[str]:
    """Yield one JSON object per row, each with every column."""
    for row in table.rows():
        values = {column: row.get(column) for column in table.columns}
        yield json_line({**values, "at": _iso(cell(TIME, values["at"]))}).decode()


def _write_parquet(table: Table, stream: IO[bytes]) -> None:
    arrow, parquet = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    schema = _schema(arrow, table)
    with parquet.ParquetWriter(stream, schema) as writer:
        remaining = table.rows()
        while rows := list(itertools.islice(remaining, GROUP_ROWS)):
            writer.write_batch(_record_batch(arrow, schema, table, rows))


def _record_batch(arrow: Any, schema: Any, table: Table, rows: list[dict[str, Any]]) -> Any:
    columns = [[cell(kind, row.get(column)) for row in rows] for column, kind in table.columns.items()]
    return arrow.record_batch([arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema)


def _schema(arrow: Any, table: Table) -> Any:
    types = {"integer": arrow.int64(), "number": arrow.float64(), "boolean": arrow.bool_(), TIME: arrow.timestamp("us", tz="UTC")}
    return arrow.schema([(column, types.get(kind, arrow.string())) for column, kind in table.columns.items()])


def _arrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"Parquet requires pyarrow, which cannot be imported ({error}); install it: pip install 'dpp[parquet]'"
        ) from error
