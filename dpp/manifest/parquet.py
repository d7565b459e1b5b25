"""Read tables in Parquet, with the optional package pyarrow."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpp.manifest.columns import field_names
from dpp.manifest.entries import Entry

# Rows that are in memory at once.
BATCH_ROWS = 1000
_PAGE_BYTES = 1024 * 1024
_WHOLE = ("id", "name", "size")


def read_parquet(path: Path) -> Iterator[Entry]:
    """Yield the rows of a Parquet file; its columns are named as those of any table.

    Raises:
        ValueError: pyarrow is not installed, or the file is not valid Parquet or no regular file.
    """
    arrow, parquet = _arrow_module("pyarrow"), _arrow_module("pyarrow.parquet")
    if not path.is_file():
        raise ValueError("is Parquet, which cannot be read from a pipe; save it to a file")
    try:
        # Without buffers, whole row groups would be in memory. With threads, later forks of this process would copy their locks.
        with parquet.ParquetFile(path, buffer_size=_PAGE_BYTES, pre_buffer=False) as table:
            yield from _rows(table)
    # Some errors of the format are OSErrors in pyarrow.
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"is not valid Parquet: {str(error).strip()}") from error


def _rows(table: Any) -> Iterator[Entry]:
    try:
        names = field_names(table.schema_arrow.names)
    except ValueError as error:
        yield Entry("columns", None, str(error))
        return
    number = 0
    for batch in table.iter_batches(BATCH_ROWS, use_threads=False):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Entry(f"row {number}", _row_fields(names, values))
            number += 1


def _row_fields(names: list[str], values: tuple[Any, ...]) -> dict[str, Any]:
    fields = dict(zip(names, values, strict=True))
    fields.pop("", None)
    for name in _WHOLE:
        # A column of integers in which one is missing becomes floats in pandas.
        if isinstance(value := fields.get(name), float) and value.is_integer():
            fields[name] = int(value)
    # A map is a list of pairs.
    if isinstance(headers := fields.get("headers"), list):
        fields["headers"] = dict(headers)
    return fields


def _arrow_module(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"is Parquet, which requires pyarrow ({error}); install it: pip install 'dpp[parquet]'") from error
