"""The results of a run as a file for other programs: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import importlib
import itertools
from collections.abc import Iterator
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
# OWASP, "CSV Injection": a cell that begins with one of these may be taken for a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def guess_format(path: Path | None) -> str:
    """Return the format that a file's suffix stands for; CSV where there is no file.

    Raises:
        ConfigurationError: The suffix stands for none.
    """
    if path is None:
        return "csv"
    if path.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise ConfigurationError(
            f"{path}: no format is known for suffix {path.suffix!r}; {suggestion(path.suffix, FORMAT_OF_SUFFIX)}, or say --format"
        )
    return FORMAT_OF_SUFFIX[path.suffix.lower()]


def table_of(results: Path, only: Literal["ok", "failed"] | None = None, *, flat: bool = True) -> Table:
    """Return the outcomes of a run as a table.

    Args:
        results: The outcomes, one line per file. It must not change while the table is read.
        only: Which files; all of them if None.
        flat: Whether the fields of results are columns of their own.

    Raises:
        ConfigurationError: There are more columns than anybody can read.
    """
    return make_table(lambda: (outcome for outcome in read_ledger(results) if only in (None, outcome.status)), flat=flat)


def write_table(form: str, table: Table, stream: IO[bytes], *, raw: bool = False) -> None:
    """Write a table in one of the formats.

    Args:
        form: ``csv``, ``jsonl`` or ``parquet``.
        table: What to write.
        stream: Takes the bytes; it need not be one that can be gone back in.
        raw: Whether text in CSV that a spreadsheet may take for a formula is left as it is.

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
    """Give back what a CSV writer writes."""

    def write(self, text: str) -> str:
        return text


def _csv_lines(table: Table, raw: bool) -> Iterator[str]:
    """Yield CSV after RFC 4180, with a header; what is None is empty."""
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
    """Return a time after ISO 8601, such as 2026-01-31T12:00:00.000000Z."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _render_json_lines(table: Table) -> Iterator[str]:
    """Yield a JSON object a row, each with every column."""
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
        raise ConfigurationError(f"Parquet needs pyarrow, which can't be imported ({error}): pip install 'dpp[parquet]'") from error
