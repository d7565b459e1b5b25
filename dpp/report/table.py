"""Outcomes as a table: the fields of results become columns, each with one type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dpp.errors import ConfigurationError
from dpp.models import Outcome

COLUMN_LIMIT = 1000
NESTED = ("seconds", "result")
TIME = "time"
MIXED = "json"
COLUMN_TYPES = {
    "http_status": "integer",
    "attempts": "integer",
    "bytes": "integer",
    "digests": MIXED,
    "plugins": MIXED,
    "cached": "boolean",
    "at": TIME,
}
_LONG = range(-(2**63), 2**63)


@dataclass
class Table:
    """A table of outcomes.

    Attributes:
        columns: The type of each column: ``text``, ``integer``, ``number``, ``boolean``, ``time`` (seconds since 1970-01-01
            UTC) or ``json``, for lists and for values of several types.
        rows: Function that returns an iterator over the rows, each with its values by column; None may be omitted.
    """

    columns: dict[str, str]
    rows: Callable[[], Iterator[dict[str, Any]]]


def make_table(outcomes: Callable[[], Iterable[Outcome]], *, flat: bool = True) -> Table:
    """Return outcomes as a table, without keeping them in memory.

    Args:
        outcomes: Function that returns the outcomes; called once here for the columns, and once for the rows.
        flat: Whether the fields of results become columns such as ``result.lines``; otherwise ``result`` is one column.

    Raises:
        ConfigurationError: There are more than 1,000 columns.
    """

    def rows() -> Iterator[dict[str, Any]]:
        return (flatten(outcome, flat=flat) for outcome in outcomes())

    return Table(_columns(rows(), flat), rows)


def flatten(outcome: Outcome, *, flat: bool = True) -> dict[str, Any]:
    """Return the values of an outcome by column; a list is one value, and an empty object has no column."""
    row: dict[str, Any] = {}
    for field, value in outcome.model_dump().items():
        if field in NESTED and (flat or field != "result"):
            row.update(_leaves(field, value))
        else:
            row[field] = value
    return row


def _leaves(column: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield column, value
        return
    for name, item in value.items():
        yield from _leaves(f"{column}.{json.dumps([name]) if '.' in name else name}", item)


def _columns(rows: Iterable[Mapping[str, Any]], flat: bool) -> dict[str, str]:
    """Return the types of the columns, in the order of an outcome's fields, and those of one field by name."""
    # A fixed order: it must not depend on which file ended first.
    found: dict[str, str] = {}
    for row in rows:
        for column, value in row.items():
            if value is not None:
                kind = kind_of(value)
                found[column] = _common_type(found.get(column, kind), kind)
        if len(found) > COLUMN_LIMIT:
            raise ConfigurationError(
                f"the results have more than {COLUMN_LIMIT} fields, the limit for columns; use --no-flatten to write them as one column"
            )
    kinds = (
        {field: "text" for field in Outcome.model_fields if field not in NESTED}
        | found
        | COLUMN_TYPES
        | ({} if flat else {"result": MIXED})
    )
    order = list(Outcome.model_fields)
    return {column: kinds[column] for column in sorted(kinds, key=lambda column: (order.index(column.partition(".")[0]), column))}


def kind_of(value: Any) -> str:
    """Return the column type for a value."""
    # Parquet and most readers of CSV have no integers of more than 64 bits.
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _LONG else MIXED
    return {float: "number", str: "text"}.get(type(value), MIXED)


def _common_type(one: str, other: str) -> str:
    if one == other:
        return one
    return "number" if {one, other} == {"integer", "number"} else MIXED


def cell(kind: str, value: Any) -> Any:
    """Return a value in the type of its column: JSON as text, a time with its time zone."""
    if value is None:
        return None
    if kind == MIXED:
        return json.dumps(value, ensure_ascii=False)
    if kind == TIME:
        return datetime.fromtimestamp(value, UTC)
    return float(value) if kind == "number" else value
