"""Tests of reading manifests: all formats, all problems at once, no secret in any message."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dpp import FileData, InputError, ManifestError
from dpp.manifest.entries import Entry, listed
from dpp.manifest.json_stream import LONGEST, items
from dpp.manifest.readers import Listed, check, describe_source, read
from hypothesis import given
from hypothesis import strategies as st

SCHEMES = {"http", "https", "file"}
URL = "https://h/a.csv"
OTHER = "https://h/b.csv"
SECRETS = ("hunter2", "s3cret", "t0ken")


def checked(files) -> list[FileData | list[str]]:
    return [plain(check(row, SCHEMES)) for row in read(files)]


def plain(found: Listed | list[str]) -> FileData | list[str]:
    return found.file if isinstance(found, Listed) else found


def files_of(files) -> list[FileData]:
    found = checked(files)
    assert all(isinstance(file, FileData) for file in found), found
    return found


def problems_of(files) -> list[str]:
    return [problem for found in checked(files) if isinstance(found, list) for problem in found]


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.fixture
def written(tmp_path):
    """Return a function that writes bytes to a file of a name."""

    def write(name: str, data: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


FORMATS = {
    "x.json": f'[{{"url": "{URL}", "id": 1, "tag": "ü"}},\n {{"url": "{OTHER}", "tag": ""}}]',
    "x.jsonl": f'{{"url": "{URL}", "id": 1, "tag": "ü"}}\n\n{{"url": "{OTHER}", "tag": ""}}\n',
    "x.ndjson": f'{{"url": "{URL}", "id": 1, "tag": "ü"}}\n{{"url": "{OTHER}", "tag": ""}}',
    "x.csv": f'url,id,tag\n{URL},1,"ü"\n\n{OTHER},,\n',
    "lines.json": f'\n \n{{"url": "{URL}", "id": 1, "tag": "ü"}}\n{{"url": "{OTHER}", "tag": ""}}\n',
    "noname": f' [\n{{"url": "{URL}", "id": 1, "tag": "ü"}},{{"url": "{OTHER}", "tag": ""}}]',
    "X.CSV": f"tag,url,id\nü,{URL},1\n,{OTHER},",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name, mark, ends, written):
    path = written(name, mark + FORMATS[name].replace("\n", ends).encode())
    found = [(file.url, file.id, file.name, file.tag) for file in files_of(path)]
    assert found == [(URL, "1", "a", "ü"), (OTHER, "b", "b", "")]


@pytest.mark.parametrize("name", ["x.txt", "x.text", "x.list", "x.urls", "noname", "x.other"])
def test_a_text_of_urls_has_comments_and_blank_lines(name, written):
    path = written(name, f"# mine\r\n\r\n  {URL}\t\r\n#{URL}\r\n{OTHER}")
    assert [(row.where, row.fields) for row in read(str(path))] == [("line 3", {"url": URL}), ("line 5", {"url": OTHER})]


def test_a_python_list_is_a_manifest():
    assert [file.url for file in files_of([{"url": URL}, {"url": OTHER, "id": None, "headers": None}])] == [URL, OTHER]
    assert [file.url for file in files_of([URL, {"url": OTHER}])] == [URL, OTHER]
    assert problems_of([{"url": URL}, None, [URL]]) == [
        f"entry {index}: expected an object with a url, or a URL, got {kind}" for index, kind in ((1, "NoneType"), (2, "list"))
    ]


def test_structured_fields_of_a_csv_are_json_or_urls_with_blanks_between(written):
    path = written("x.csv", f'url,headers,urls,size\n{URL},"{{""X"": ""1""}}",{OTHER} {URL},5\n{URL},,"[""{OTHER}""]",\n')
    one, other = files_of(path)
    assert (one.headers, one.urls, one.size) == ({"X": "1"}, [OTHER, URL], 5)
    assert (other.headers, other.urls, other.size) == (None, [OTHER], None)


@pytest.mark.parametrize("cell", ["{", "X: 1", deep(20_000)], ids=["torn", "text", "deep"])
def test_a_csv_cell_that_is_no_json_is_a_problem_of_its_line(cell, written):
    path = written("x.csv", f"url,headers\n{URL},{cell}\n{OTHER},\n")
    assert problems_of(path) == ["line 2: headers: expected JSON in this cell"]


NO_HEADER = "expected a header with a column url, such as url,id; found what looks like a row of values"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,id\nx,y\n", "line 1: no column url in the header; found: a, id"),
        (f"https://me:hunter2@h/a,s3cret\n{URL},1\n", f"line 1: {NO_HEADER}"),
        ("a\0b,c\n", f"line 1: {NO_HEADER}"),
        (f"url,id\n{URL},1,2\n", "line 2: has more cells than the header has columns"),
        (f'url,id\n{URL},"1"x\n', "line 2: is not CSV: ',' expected after '\"'"),
        (f'url,id\n{URL},"1\n', "line 2: is not CSV: unexpected end of data"),
        (f"url,id\n{URL},{'x' * 200_000}\n", "line 2: is not CSV: field larger than field limit (131072)"),
        ('url,id\n,"a\nb"\n', "line 3: url is missing"),
        ('url,"id"x\n', "line 1: is not CSV: ',' expected after '\"'"),
    ],
)
def test_problems_of_a_csv_have_their_line(text, expected, written):
    assert problems_of(written("x.csv", text)) == [expected]


def test_rows_after_one_that_is_no_csv_are_checked_too(written):
    path = written("x.csv", f'url,id\n{URL},"1"x\n/nope,1\n{URL},2\n{URL},"3"x\n')
    assert [problem.partition(": ")[0] for problem in problems_of(path)] == ["line 2", "line 3", "line 5"]


@pytest.mark.fault(22, 23)
def test_problems_of_json_lines_have_their_line_and_do_not_hide_one_another(written):
    path = written("x.jsonl", f'{{"url": "{URL}"}}\n{{torn\n\n[]\n5\n{deep(100_000)}\n{{"id": 1}}\n{"9" * 5000}\n')
    found = problems_of(path)
    assert found[0].startswith("line 2: is not JSON: Expecting property name")
    assert found[1:5] == [
        "line 4: expected an object with a url, or a URL, got list",
        "line 5: expected an object with a url, or a URL, got int",
        "line 6: is not JSON: nested too deeply",
        "line 7: url is missing",
    ]
    assert found[5].startswith("line 8: is not JSON: Exceeds the limit")


@pytest.mark.fault(22)
def test_all_problems_of_all_rows_are_reported():
    wrong = {"url": "/x", "id": 1.5, "size": True, "sha256": "x", "headers": {"A": 1}, "urls": [""], "error": None}
    found = problems_of([{"url": URL}, wrong, {}])
    assert [problem.partition(":")[0] for problem in found] == ["entry 1"] * 7 + ["entry 2"]
    assert {re.split(r"[ :.]", problem.split(": ", 1)[1])[0] for problem in found} == {*wrong}


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: t0ken"},
        {"X": "t0ken\n"},
        {"X": "t0ken\0"},
        {"X": "t0ken\u2603"},
        {"X\r\nY": "t0ken"},
        {"X:": "t0ken"},
        {"X\u00e9": "t0ken"},
        {"": "t0ken"},
        {"A": "fine", "B C": "t0ken"},
    ],
)
def test_a_header_that_cannot_be_sent_is_a_problem_of_its_row(headers):
    fine, (problem,), other = checked([{"url": URL}, {"url": OTHER, "headers": headers}, {"url": OTHER, "headers": {"X": "caf\u00e9"}}])
    assert problem.startswith("entry 1: headers: ")
    assert "t0ken" not in problem
    assert (fine.headers, other.headers) == (None, {"X": "caf\u00e9"})


@pytest.mark.parametrize("field", ["local_path", "output_dir", "processing_history", "error"])
@pytest.mark.parametrize("value", [None, "x", []])
def test_what_dpp_sets_while_it_runs_is_reserved(field, value):
    assert f"entry 0: {field} is a field that dpp sets during the run; rename it" in problems_of([{"url": URL, field: value}])


@pytest.mark.parametrize(
    ("fields", "scheme"), [({"url": "sftp://h/a"}, "sftp"), ({"url": URL, "urls": [OTHER, "S3://b/k"]}, "s3"), ({"url": "C:\\x"}, "c")]
)
def test_a_scheme_without_a_fetcher_is_a_problem(fields, scheme):
    assert problems_of([fields]) == [f"entry 0: url: no fetcher for {scheme}: URLs is installed; choose from file, http, https"]


def test_a_scheme_counts_in_any_case():
    assert files_of([{"url": "HTTPS://h/a"}])[0].url == "HTTPS://h/a"


@pytest.mark.parametrize("value", ["\ud8e9", b"\xff", object(), ["\ud800"], {"\ud800": 1}, json.loads(deep(300))])
def test_what_json_can_not_hold_is_a_problem(value):
    (found,) = problems_of([{"url": URL, "x": value}])
    assert found.startswith("entry 0: x: contains a value that JSON cannot represent")


def test_a_field_that_may_be_the_url_is_named():
    assert problems_of([{"URL": URL}, {"download_url": URL, "x": 1}, {"x": 1}]) == [
        "entry 0: url is missing; found URL: rename it to url",
        "entry 1: url is missing; found download_url: rename it to url",
        "entry 2: url is missing",
    ]


def test_where_a_url_is_instead_is_named():
    files = [{"links": {"self": URL}}, {"assets": {"data": {"href": URL}}}, {"location": URL}, {f"{URL}?key=hush": {"x": URL}}]
    assert problems_of(files) == [
        "entry 0: url is missing; found a URL in links.self: give it as url",
        "entry 1: url is missing; found a URL in assets.data.href: give it as url",
        "entry 2: url is missing; found a URL in location: give it as url",
        "entry 3: url is missing",
    ]


def test_a_list_in_itself_is_a_problem():
    endless: list = []
    endless.append(endless)
    assert len(problems_of([{"url": URL, "x": endless}])) == 1


@pytest.mark.parametrize(("depth", "fine"), [(199, True), (200, True), (201, False), (254, False), (256, False)])
def test_what_passes_can_be_read_back_by_a_worker(depth, fine):
    (found,) = checked([{"url": URL, "x": json.loads(deep(depth))}])
    assert isinstance(found, FileData) is fine
    if fine:
        assert FileData.model_validate_json(found.model_dump_json()) == found
    else:
        assert found[0].startswith(("entry 0: is nested too deeply", "entry 0: x: contains a value that JSON cannot represent"))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.txt"])
def test_bad_utf8_is_a_problem_of_its_row(name, written):
    text = {
        "x.json": f'[{{"url": "{URL}", "id": "caf\udce9"}}]',
        "x.jsonl": f'{{"url": "{URL}", "id": "caf\udce9"}}',
        "x.csv": f"url,id\n{URL},caf\udce9",
        "x.txt": f"{URL}/caf\udce9",
    }
    (found,) = problems_of(written(name, text[name].encode("utf-8", "surrogateescape")))
    assert re.match(r"(entry 0|line [12]): contains the byte 0xe9, which is not valid UTF-8; .* set --encoding windows-1252, or", found)


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not JSON: expected a list of objects, each with a url"),
        (b" \n\n", "is not JSON: expected a list of objects, each with a url"),
        (b"text", "is not JSON: expected a list of objects, each with a url"),
    ],
)
def test_a_file_that_is_no_json_list_is_refused_as_a_whole(data, reason, written):
    path = written("x.json", data)
    with pytest.raises(ManifestError) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}: 1 problem, nothing was fetched:\n  {reason}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{]", "entry 0: is not JSON: Expecting property name enclosed in double quotes: line 1 column 3"),
        (f'[\n{{"url": "{URL}"}},\n{{"url" 1}}\n]', "entry 1: is not JSON: Expecting ':' delimiter: line 3 column 8"),
        (f'\n \n[{{"url": "{URL}"}}', "entry 1: is not JSON: Expecting ',' delimiter: line 3 column 28"),
        ("[] []", "entry 0: is not JSON: Extra data: line 1 column 4"),
        ('["a" "b"]', "entry 1: is not JSON: Expecting ',' delimiter: line 1 column 6"),
        ("[1,]", "entry 1: is not JSON: Expecting value (JSON has no comma after the last item; remove it): line 1 column 4"),
        ("[tru", "entry 0: is not JSON: Expecting value: line 1 column 2"),
        ("[", "entry 0: is not JSON: Expecting value: line 1 column 2"),
        (deep(100_000), "entry 0: is not JSON: nested too deeply"),
        (f'[{{"url": "{URL}", "url": "{OTHER}"}}]', "entry 0: is not JSON: duplicate name in an object: 'url'"),
    ],
)
def test_what_is_wrong_with_a_json_list_is_said_with_its_place(text, expected, written):
    assert problems_of(written("x.json", text))[-1] == expected


@pytest.mark.parametrize("count", [0, 1, 3, 5000])
@pytest.mark.parametrize("item", [7, -1.5e300, "é\n]", [], {"a": [{}]}, None], ids=repr)
@pytest.mark.parametrize("indent", [None, 1], ids=["compact", "indented"])
def test_a_json_list_is_read_item_by_item(item, count, indent, written):
    path = written("x.json", json.dumps([{"url": URL, "x": item}] * count, indent=indent))
    assert [row.fields for row in read(path)] == [{"url": URL, "x": item}] * count


def test_items_of_a_json_list_do_not_depend_on_where_its_text_is_cut():
    text = json.dumps([12, -3.5, True, None, 'a\u00e9\\" [', {"b": [1, {"c": "]"}]}, [[]], 1234567890])
    for cut in range(1, len(text)):
        for pieces in ([text[:cut], text[cut:]], list(text)):
            assert list(items(iter(pieces))) == json.loads(text)


def test_an_object_over_several_lines_among_json_lines_is_one_problem(written):
    path = written("x.jsonl", f'{{"url": "{URL}"}}\n{{"url":\n"{OTHER}"}}\n')
    assert problems_of(path) == [
        "line 2: the value continues on the next line; expected one object per line, or a JSON list: [{...}, {...}]"
    ]


def test_lines_that_end_in_a_comma_are_problems_each(written):
    path = written("x.jsonl", f'{{"url": "{URL}"}},\n{{"url": "{OTHER}"\n{{"url": "{OTHER}"}}\n')
    assert [problem[:28] for problem in problems_of(path)] == ["line 1: is not JSON: Extra d", "line 2: is not JSON: Expecti"]


def test_a_name_that_is_there_twice_is_a_problem_of_its_row(written):
    path = written("x.jsonl", f'{{"url": "{URL}", "url": "{OTHER}"}}\n{{"url": "{URL}", "x": [{{"a": 1, "a": 1}}]}}\n{{"url": "{URL}"}}')
    assert problems_of(path) == [f"line {n}: is not JSON: duplicate name in an object: {name!r}" for n, name in ((1, "url"), (2, "a"))]
    assert problems_of(written("x.csv", f"url,id,url\n{URL},1,{OTHER}\n")) == ["line 1: the header has a duplicate column: url, id, url"]


TOO_LONG = "the entry is longer than 1 MiB; is this file a manifest?"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.jsonl", f'{{"url": "{URL}"}}\n{{"url": "{URL}", "x": "{"x" * LONGEST}"}}\n', f"line 2: {TOO_LONG}"),
        ("x.txt", f"# mine\n{URL}\n{'x' * (LONGEST + 1)}", f"line 3: {TOO_LONG}"),
        ("x.csv", "url,id\n" + '"x\n",' * LONGEST, f"line {2 + LONGEST // 5}: {TOO_LONG}"),
        ("x.csv", "url" + "," * LONGEST, f"line 1: {TOO_LONG}"),
        ("x.json", "[" + f'{{"url": "{URL}", "x": "{"x" * LONGEST}', "entry 0: is not JSON: Unterminated string"),
        ("x", "x" * (LONGEST + 1), f"line 1: {TOO_LONG}"),
    ],
)
def test_an_entry_that_is_too_long_for_one_is_a_problem(name, text, expected, written):
    found = problems_of(written(name, text))
    assert [problem[: len(expected)] for problem in found[-1:]] == [expected]


@pytest.mark.parametrize(("name", "data"), [("x.json", "[]"), ("x.jsonl", ""), ("x.txt", "\n# none\n"), ("x.csv", "url\n"), ("x.csv", "")])
def test_an_empty_manifest_has_no_files(name, data, written):
    assert checked(written(name, data)) == []


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.json", "No such file"), (".", "Is a directory"), ("a\0b", "embedded null byte"), ("x" * 300, "too long")]
)
def test_what_can_not_be_opened_is_said_with_what_would_do(name, reason, tmp_path):
    with pytest.raises(InputError, match=f"{reason}.*; --files takes a JSON list"):
        list(read(tmp_path / name))


def test_an_error_while_reading_is_said_too():
    with pytest.raises(InputError, match=r"^/proc/self/mem: Input/output error; "):
        list(read("/proc/self/mem"))


def test_a_pipe_is_read_in_one_go():
    code = "from dpp.manifest.readers import read; print([row.fields['url'] for row in read('/dev/stdin')])"
    for text in (f'[{{"url": "{URL}"}}]', f'\n{{"url": "{URL}"}}\n', f"{URL}\n"):
        done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)
        assert done.stdout == f"['{URL}']\n"


def test_json_lines_are_streamed(tmp_path):
    pipe = tmp_path / "x.jsonl"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["/bin/sh", "-c", f'echo \'{{"url": "{URL}"}}\' > x.jsonl; echo more'], stdout=subprocess.PIPE)
    rows = read(pipe)
    assert next(rows) == Entry("line 1", {"url": URL})
    assert list(rows) == []
    assert writer.communicate(timeout=60) == (b"more\n", None)


def test_an_endless_source_of_json_lines_gives_its_first_row_at_once():
    endless = subprocess.Popen(["/usr/bin/env", "yes", '{"url": "https://h/a"}'], stdout=subprocess.PIPE)
    rows = read(f"/proc/self/fd/{endless.stdout.fileno()}")
    assert next(rows).fields == {"url": "https://h/a"}
    rows.close()
    endless.stdout.close()
    assert endless.wait(timeout=60) != 0


def test_a_url_that_no_plugin_reads_is_refused_without_its_secrets():
    url = "https://me:hunter2@h/x.json?sig=s3cret"
    with pytest.raises(InputError, match=r"^https://\*\*\*@h/x\.json\?\*\*\*: no plugin reads manifests from this URL"):
        list(read(url))
    assert describe_source(url) == "https://***@h/x.json?***"


@pytest.mark.parametrize(("files", "expected"), [("a/x.json", "a/x.json"), (Path("x\udce9"), "x\\udce9"), ([{}, {}], "list of 2 files")])
def test_messages_call_a_manifest_by_its_path(files, expected):
    assert describe_source(files) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://me:hunter2/x@h/?sig=s3cret"},
        {"url": "https://me:hunter2@ex\u2100mple.org/?sig=s3cret"},
        {"url": "https://me:hunter2@h/a b?sig=s3cret"},
        {"url": "//me:hunter2@h/?sig=s3cret"},
        {"url": "sftp://me:hunter2@h/?sig=s3cret"},
        {"url": ["https://me:hunter2@h/?sig=s3cret"]},
        {"url": URL, "urls": ["https://me:hunter2@h:x/?sig=s3cret"]},
        {"url": URL, "headers": {"Authorization": ["t0ken"]}},
        {"url": URL, "headers": "Authorization: t0ken"},
        {"url": URL, "size": "t0ken", "sha256": "s3cret", "id": ["hunter2"]},
        {"url": "https://me:hunter2@h/?sig=s3cret", "headers": {"A": "t0ken"}, "x": "\udce9"},
    ],
)
def test_no_message_gives_a_secret_away(fields):
    found = "\n".join(problems_of([fields]))
    assert found
    assert not [secret for secret in SECRETS if secret in found]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["url", "id", "x", "copy"]) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("id", "name", "sha256", "size", "headers", "urls", "x", "schema", "error", "model_config", "__class__"), json_values
        ),
        "url": st.sampled_from([URL, OTHER, "https://[", "a:b"]) | json_values,
    },
)


@given(st.lists(entries | json_values, max_size=4), st.booleans())
def test_any_json_gives_files_or_problems(written, content, as_lines):
    text = "\n".join(map(json.dumps, content)) if as_lines else json.dumps(content)
    rows = list(read(written("x.jsonl" if as_lines else "x.json", text)))
    assert len(rows) == len(content)
    for row in rows:
        found = plain(check(row, SCHEMES))
        assert found
        assert isinstance(found, FileData) or all(problem.startswith(f"{row.where}: ") for problem in found)


@given(st.binary(max_size=80), st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.txt", "x"]), st.sampled_from([b"", b"url\n", b"[", b"{"]))
def test_any_bytes_give_files_or_problems(written, data, name, start):
    try:
        found = checked(written(name, start + data))
    except InputError as error:
        found = [str(error)]
    assert all(isinstance(one, FileData) or one for one in found)


@given(st.dictionaries(st.integers() | st.text(max_size=4) | st.none(), st.just(1), max_size=3))
def test_fields_with_names_that_are_no_text_are_problems(fields):
    (row,) = listed([{"url": URL, **fields}])
    found = plain(check(row, SCHEMES))
    if not all(isinstance(name, str) for name in fields):
        assert any("Keys should be strings" in problem for problem in found)


def test_a_dash_names_the_file_of_standard_input():
    with pytest.raises(InputError, match="to read a list from standard input, use /dev/stdin"):
        list(read("-"))
