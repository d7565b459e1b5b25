"""Tests of FileData: its fields are checked, and kept by copies, pickles and JSON."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from dpp import Failure, FileData, Outcome
from dpp.models import check_url
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

URL = "https://example.org/data/report.csv.gz"
TRIPS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": FileData.model_copy,
    "deep model_copy": lambda file: file.model_copy(deep=True),
    "pickle": lambda file: pickle.loads(pickle.dumps(file)),
    "json": lambda file: FileData.model_validate_json(file.model_dump_json()),
    "dict": lambda file: FileData.model_validate(file.model_dump()),
}


def problems(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        FileData.model_validate(fields)
    return str(caught.value)


def test_id_and_name_come_from_the_url_where_they_are_not_given():
    file = FileData(url=URL)
    assert (file.id, file.name) == ("report.csv", "report.csv")
    assert "id" not in file.model_fields_set


@pytest.mark.parametrize(("value", "expected"), [("x", "x"), (7, "7"), (0, "0"), (-1, "-1"), ("ä/..", "ä/..")])
def test_labels_are_texts_or_whole_numbers(value, expected):
    file = FileData(url=URL, id=value, name=value)
    assert (file.id, file.name) == (expected, expected)


@pytest.mark.parametrize("field", ["id", "name"])
@pytest.mark.parametrize("value", [True, 1.5, "", [], {}, None, b"x"])
def test_labels_are_nothing_else(field, value):
    if value == b"x":
        assert getattr(FileData(url=URL, **{field: value}), field) == "x"
    else:
        assert field in problems(url=URL, **{field: value})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://h/a b", "contains whitespace or a control character; percent-encode it"),
        ("https://h/a\0b", "contains whitespace or a control character; percent-encode it"),
        ("https://h/a\n", "contains whitespace or a control character; percent-encode it"),
        ("https://h/a\u200b", "contains the invisible character U"),
        ("https://h/\u202etxt.exe", "contains the invisible character U"),
        ("\u201chttps://h/a\u201d", "is in quotes; remove them"),
        ("", "has no scheme"),
        ("/tmp/file", "has no scheme"),
        ("https:///a", "has no host"),
        ("http://a\\@b/c", "contains a backslash before its path; use slashes, and percent-encode it in a user name or password"),
        ("HTTP://me:pw@/a", "has no host"),
        ("https://h:99999/a", "has an invalid host or port"),
        ("https://[::1/a", "has an invalid host or port"),
    ],
)
def test_what_is_no_url_is_refused_with_the_reason(url, reason):
    with pytest.raises(ValueError, match=reason):
        check_url(url)
    assert reason in problems(url=URL, urls=[url])


@pytest.mark.parametrize("url", ["https://me:hunter2/x@host/", "https://me:hunter2@ex\u2100mple.org/x", "https://me:hunter2@[bad]/x"])
def test_a_wrong_url_does_not_give_its_password_away(url):
    with pytest.raises(ValueError, match="percent-encode") as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://[::1]:8080/a", "file:///tmp/x", "S3://bucket/key", "https://me:pw@h/?x", "sftp://DOMAIN\\me@h/x"])
def test_urls_of_any_scheme_are_kept_as_they_are(url):
    assert FileData(url=url, urls=[url]).urls == [url] == [FileData(url=url).url]


def test_known_fields_are_understood():
    file = FileData(url=URL, sha256=f" {'AB' * 32}\n", size="12", headers={"X-Key": "v"}, urls=["file:///b"])
    assert (file.sha256, file.size, file.headers, file.urls) == ("ab" * 32, 12, {"X-Key": "v"}, ["file:///b"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "ab" * 31),
        ("sha256", "gg" * 32),
        ("sha256", ""),
        ("sha256", 5),
        ("size", -1),
        ("size", 1.5),
        ("size", True),
        ("size", "many"),
        ("headers", {"X": 1}),
        ("headers", ["X: 1"]),
        ("headers", "X: 1"),
        ("urls", "https://h/"),
        ("urls", [1]),
        ("url", 5),
        ("url", None),
    ],
)
def test_known_fields_of_another_kind_are_refused(field, value):
    assert field in problems(**{"url": URL, field: value})


EXTRA = {"provider": "nasa", "schema": {"a": [1]}, "copy": 2, "json": None, "dict": "d", "model_dump": 1, "_x": 2, "Ünïcode key": 3}


@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_other_fields_survive_every_trip_and_are_attributes(trip):
    file = trip(FileData(url=URL, **EXTRA))
    assert (file.provider, file.schema, file.copy, file.json, file.dict) == ("nasa", {"a": [1]}, 2, None, "d")
    assert file.model_extra == EXTRA
    assert file == FileData(url=URL, **EXTRA)


@pytest.mark.parametrize("field", ["provider", "schema", "copy"])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_changed_field_is_read_and_written_alike(field, was_there):
    file = FileData(url=URL, **({field: "old"} if was_there else {}))
    changed = file.model_copy(update={field: "new"})
    setattr(file, field, "new")
    for one in (file, changed):
        assert (getattr(one, field), one.model_dump()[field], json.loads(one.model_dump_json())[field]) == ("new", "new", "new")


@given(st.dictionaries(st.text(max_size=20), st.integers() | st.text() | st.lists(st.booleans()), max_size=5))
def test_any_extra_field_survives_json(extra):
    extra = {name: value for name, value in extra.items() if name not in FileData.model_fields}
    file = FileData.model_validate({"url": URL, **extra})
    assert FileData.model_validate_json(file.model_dump_json()).model_extra == extra


def test_a_deep_copy_shares_nothing():
    file = FileData(url=URL, schema={"a": 1}, processing_history=[{"name": "x"}])
    other = file.model_copy(deep=True)
    other.schema["a"] = 2
    other.processing_history.clear()
    assert (file.schema, file.model_dump()["schema"], len(file.processing_history)) == ({"a": 1}, {"a": 1}, 1)


def test_where_a_file_is_and_why_it_failed_goes_through_json_but_not_where_a_step_writes():
    failure = Failure(stage="download", error_class="http-404", message="gone", http_status=404)
    file = FileData(url=URL, local_path=Path("/w/a"), output_dir=Path("/w/out"), error=failure)
    again = FileData.model_validate_json(file.model_dump_json())
    assert (again.local_path, again.error, again.output_dir) == (Path("/w/a"), failure, None)


def test_a_failure_names_a_stage_that_there_is():
    with pytest.raises(ValidationError):
        Failure(stage="upload", error_class="x", message="y")


def test_a_failure_keeps_the_ends_of_what_is_too_long():
    failure = Failure(stage="process", error_class="x", message=f"no {'x' * 10**6} here", traceback=f"in a\n{'x' * 10**6}\nin b")
    assert [len(failure.message) < 2_100, len(failure.traceback) < 20_100] == [True, True]
    assert [failure.message[:4], failure.message[-5:], failure.traceback[:5], failure.traceback[-5:]] == [
        "no x",
        " here",
        "in a\n",
        "\nin b",
    ]


@pytest.mark.parametrize(("status", "ok"), [("ok", True), ("failed", False)])
def test_an_outcome_says_whether_the_file_went_through(status, ok):
    outcome = Outcome(id="a", name="a", url=URL, key="k", status=status, result={"n": [1, None]})
    assert outcome.ok is ok
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
