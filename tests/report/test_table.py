"""Outcomes as a table: columns, their order and their types."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from dpp import ConfigurationError, Outcome
from dpp.report.table import cell, make_table

FIXED = [
    "id",
    "name",
    "url",
    "key",
    "status",
    "stage",
    "error_class",
    "message",
    "http_status",
    "attempts",
    "bytes",
    "sha256",
    "digests",
    "content_type",
    "media_type",
    "warning",
    "source_version",
]
LAST = ["run", "cached", "at", "traceback"]


def outcomes(*results):
    return [Outcome(id=str(number), name="n", url="u", key="k", status="ok", result=result) for number, result in enumerate(results)]


def result_columns(*results):
    columns = make_table(lambda: outcomes(*results)).columns
    return {column: kind for column, kind in columns.items() if column.startswith("result")}


def test_columns_are_those_of_all_rows_in_an_order_that_does_not_depend_on_theirs():
    one, other = {"b": 1, "a": "x"}, {"c": {"d": True}}
    columns = make_table(lambda: outcomes(one, other)).columns
    assert list(columns) == [*FIXED, "plugins", "result.a", "result.b", "result.c.d", *LAST]
    assert list(make_table(lambda: outcomes(other, one)).columns) == list(columns)


def test_where_nothing_is_known_the_columns_of_every_outcome_remain():
    assert list(make_table(list).columns) == [*FIXED, "plugins", *LAST]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, None), "integer"),
        ((1, 1.5), "number"),
        (("a", "b"), "text"),
        ((True, False), "boolean"),
        ((True, 1), "json"),
        ((1, "1"), "json"),
        (([1], [2]), "json"),
        ((2**63, 1), "json"),
        ((-(2**63), 2**63 - 1), "integer"),
    ],
)
def test_a_column_has_the_kind_that_all_its_values_fit(values, kind):
    assert result_columns(*values) == {"result": kind}


def test_a_name_with_a_dot_is_not_taken_for_a_nested_one():
    row = next(make_table(lambda: outcomes({"a.b": 1, "a": {"b": 2}})).rows())
    assert (row['result.["a.b"]'], row["result.a.b"]) == (1, 2)


def test_results_can_stay_in_one_column():
    table = make_table(lambda: outcomes({"a": 1}), flat=False)
    assert table.columns["result"] == "json"
    assert next(table.rows())["result"] == {"a": 1}


def test_more_columns_than_anybody_can_read_are_refused():
    with pytest.raises(ConfigurationError, match=r"more than 1000 fields.*--no-flatten"):
        result_columns({f"word{number}": 1 for number in range(1001)})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("json", "é", '"é"'),
        ("json", None, None),
        ("time", 0.5, datetime(1970, 1, 1, 0, 0, 0, 500000, UTC)),
        ("number", 1, 1.0),
        ("text", "a", "a"),
    ],
)
def test_a_cell_is_what_its_column_holds(kind, value, expected):
    got = cell(kind, value)
    assert (got, type(got)) == (expected, type(expected))
