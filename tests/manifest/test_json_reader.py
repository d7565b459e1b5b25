"""Tests of JSON manifests of other shapes than a list of objects: an object with a list, one object, texts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from dpp.manifest.json_reader import LISTS
from dpp.manifest.json_stream import LONGEST, ShapeError, objects
from dpp.manifest.readers import read

URL = "https://h/a.csv"
OTHER = "https://h/b.csv"
TWO = [{"url": URL, "id": "}]"}, {"url": OTHER}]


@pytest.fixture
def fields(tmp_path):
    """Return a function that returns the fields or problems of a manifest with a text."""

    def fields(text: str, name: str = "x.json") -> list:
        (tmp_path / name).write_text(text)
        return [entry.problem or entry.fields for entry in read(tmp_path / name)]

    return fields


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x"])
@pytest.mark.parametrize("member", LISTS)
def test_a_list_in_an_object_is_a_manifest(member, name, indent, fields):
    for whole in ({member: TWO}, {"count": 2, "next": None, member: TWO, "extra": {"files": [1]}, "n": 3}):
        assert fields(json.dumps(whole, indent=indent), name) == TWO


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x"])
@pytest.mark.parametrize("indent", [1, 4])
def test_objects_over_several_lines_are_entries(name, indent, fields):
    assert fields(json.dumps(TWO[0], indent=indent), name) == TWO[:1]
    assert fields("\n".join(json.dumps(one, indent=indent) for one in TWO), name) == TWO


def test_an_entry_may_have_a_list_of_such_a_name(fields):
    entry = {"url": URL, "files": [{"url": OTHER}], "data": [1]}
    for indent in (None, 1):
        assert fields(json.dumps(entry, indent=indent)) == [entry]
        assert fields("\n".join([json.dumps(entry)] * 2)) == [entry] * 2


def test_urls_alone_are_entries(fields):
    expected = [{"url": URL}, {"url": OTHER}]
    assert fields(json.dumps([URL, OTHER])) == expected
    assert fields(json.dumps({"files": [URL, OTHER]})) == expected
    for name in ("x.jsonl", "x.json", "x"):
        assert fields(f'"{URL}"\n"{OTHER}"\n', name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"assets": [{"url": "u"}]}', "has a list 'assets' and no url; expected a list alone, [{...}], or as a member files or data"),
        ('{"assets": [\n{"url": "u"}]}', "has a list 'assets' and no url"),
        ('{"files": [\n{"url": "u"}], "url": "x"}', "the object has both a url and a list files; give one of them"),
        ('{"next": "https://h/?page=2", "results": []}', "the list continues on another page (next); put all pages into one list"),
        ('{"data": [], "links": {"self": "u", "next": "https://h/?page=2"}}', "the list continues on another page (links.next); put"),
        ('{"data": [], "_links": {"next": {"href": "u"}}}', "the list continues on another page (_links.next)"),
        ('{"items": [], "nextPageToken": "x"}', "the list continues on another page (nextPageToken)"),
        ('{"items": [], "next_page": 2}', "the list continues on another page (next_page)"),
        ('{"@odata.nextLink": "u", "data": []}', "the list continues on another page (@odata.nextLink)"),
        ('{"items": [], "cursor": "x", "has_more": true}', "the list continues on another page (has_more)"),
        ('{"entries": [], "IsTruncated": true}', "the list continues on another page (IsTruncated)"),
        ('{"items": [], "meta": {"pagination": {"next_cursor": "x"}}}', "the list continues on another page (meta.pagination.next_cursor)"),
        ('{"items": [], "links": [{"rel": "next", "href": "u"}]}', "the list continues on another page (links.next)"),
        (
            '{"files": [{"url": "u"}], "results": [{"url": "v"}]}',
            "the object has two lists of files, files and results; put all files into one",
        ),
        ('{"files": [{"url": "u"}], "data": ["https://h/"]}', "the object has two lists of files, files and data"),
        ('{"files": [\n{"url": "u"}', "is not JSON: Expecting ',' delimiter: line 2 column 13"),
        ('{"files": [],\n"files": []}', "is not JSON: duplicate name in an object: 'files'"),
        ('{"a": 1,\n2}', "is not JSON: Expecting property name enclosed in double quotes: line 2 column 1"),
        ('{"a":\n1 "b"}', "is not JSON: Expecting ',' delimiter: line 2 column 3"),
        ('{"files": [\n1], "b"}', "is not JSON: Expecting ':' delimiter"),
    ],
)
def test_what_is_wrong_with_an_object_is_reported(text, expected, fields):
    assert fields(text)[-1].startswith(expected)


def test_the_last_page_is_a_whole_list(fields, caplog):
    last = {"next": None, "links": {"prev": "https://h/?page=1", "next": ""}, "has_more": False, "nextPageToken": "", "page": 2, "total": 2}
    last |= {"total_size": 4096, "nextUrl": {"title": "Next release"}}
    for whole in ({**last, "data": TWO}, {"data": TWO, **last}, {"data": [], "files": TWO, "results": [1, {"a": 1}], "total": "9"}):
        assert fields(json.dumps(whole)) == TWO
    assert not caplog.records


@pytest.mark.parametrize("text", ['"total": 900', '"meta": {"totalCount": 900}', '"count": 900', '"pagination": {"total_items": 900}'])
def test_a_total_that_is_larger_than_the_list_is_named(text, fields, caplog):
    assert fields(f'{{{text}, "data": {json.dumps(TWO)}}}') == TWO
    (record,) = caplog.records
    assert re.fullmatch(r"the list has 2 entries, but its \S+ is 900; if it is one page of several, .*", record.getMessage())


def test_an_object_without_a_list_has_at_most_1_mib():
    pieces = iter(['{"a":', *(f'"{"x" * 1000}", "b{number}":' for number in range(LONGEST // 1000 + 2)), "1}"])
    with pytest.raises(ShapeError, match="longer than 1 MiB"):
        list(objects(pieces, LISTS))


def test_objects_do_not_depend_on_where_their_text_is_cut():
    text = json.dumps({"n": 12, "b": True, "files": [1, {"c": "]"}, [{}]], "z": -1.5}) + json.dumps({"a": 123}) + " 7"
    for cut in range(1, len(text)):
        for pieces in ([text[:cut], text[cut:]], list(text)):
            assert list(objects(iter(pieces), LISTS)) == [1, {"c": "]"}, [{}], {"a": 123}, 7]


def test_a_long_list_in_an_object_is_read_in_little_memory(tmp_path):
    with (tmp_path / "x.json").open("w") as stream:
        stream.write('{"count": 1, "files": [')
        stream.writelines(f'{{"url": "https://h/{number}", "x": "{"y" * 200}"}},' for number in range(200_000))
        stream.write('{"url": "https://h/"}]}')
    code = (
        "import resource, sys\nfrom dpp.manifest.readers import read\n"
        "next(read(sys.argv[1]))\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(1 for _ in read(sys.argv[1])) == 200_001\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.json"], capture_output=True, text=True, check=True, env={**os.environ})
    assert int(done.stdout) < 8 * 1024


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f'{{"url": "{URL}",}}', "no comma after the last item"),
        (f"{{'url': '{URL}'}}", "no single quotes"),
        (f'{{"url": "{URL}" /* one */}}', "no comments"),
    ],
    ids=["comma", "quotes", "comment"],
)
def test_what_other_programs_accept_as_json_is_named(text, cause, name, fields):
    (problem,) = fields(f"[{text}]" if name == "x.json" else text, name)
    assert cause in problem
    assert URL not in problem


@pytest.mark.parametrize("text", [f'[{{"url": "{URL}"}},]', f'{{"files": ["{URL}",]}}'])
def test_a_comma_after_the_last_item_is_named(text, fields):
    *_, problem = fields(text)
    assert " (JSON has no comma after the last item; remove it): " in problem  # after the words of Python, which differ between versions


@pytest.mark.parametrize(
    ("value", "shape"),
    [({"files": {"a": {"url": URL}}}, "objects"), ({"a": {"url": URL}, "b": {"url": OTHER}}, "objects"), ({"a": URL, "b": OTHER}, "URLs")],
    ids=["files", "objects", "URLs"],
)
def test_files_by_name_are_refused_with_what_is_expected(value, shape, fields):
    (problem,) = fields(json.dumps(value))
    assert problem.startswith(f"has {shape} by name and no url; expected a list alone, [{{...}}], or as a member files or data")


@pytest.mark.parametrize("name", ["URL", "download_url", "downloadUrl", "href", "link", "file-url"])
def test_a_url_has_the_names_that_tables_give_it(name, fields):
    entry = {"id": "1", name: URL, "size": 4}
    for text in (json.dumps([entry]), json.dumps({"results": [entry]}), json.dumps(entry)):
        assert fields(text) == [{"id": "1", "url": URL, "size": 4}]
    assert fields(json.dumps([{**entry, "url": OTHER}])) == [{**entry, "url": OTHER}]


@pytest.mark.parametrize("entry", [{"link": URL, "href": OTHER}, {"link": {"self": URL}}, {"href": 5}, {"": URL}])
def test_a_url_is_not_guessed(entry, fields):
    assert fields(json.dumps([{"id": "1", **entry}])) == [{"id": "1", **entry}]


def test_the_link_of_a_record_with_files_is_not_taken_for_a_file(fields):
    record = {"id": "1", "link": "https://h/landing", "files": [{"download_url": URL}]}
    (problem,) = fields(json.dumps([record]))
    assert problem.startswith("has a list 'files' and no url")
    assert fields(json.dumps([{"link": URL, "authors": [{"name": "A"}], "files": []}]))[0]["url"] == URL


def test_json_with_the_suffix_of_a_table_is_named(fields):
    assert fields(json.dumps(TWO), "x.csv") == ["looks like JSON; give the file the suffix .json or .jsonl"]
