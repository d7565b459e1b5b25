"""Tests of tables: separators, headers and rows as spreadsheets save them."""

from __future__ import annotations

import csv
import functools
import io

import pytest
from dpp.manifest.entries import Entry
from dpp.manifest.lines import Lines
from dpp.manifest.readers import check, read
from dpp.manifest.table import read_table
from hypothesis import given
from hypothesis import strategies as st

URL = "https://h/a.csv"
OTHER = "https://h/b.csv"


def rows_of(text: str) -> list[Entry]:
    return list(read_table(Lines(io.StringIO(text, newline=""))))


def fields_of(text: str) -> list[dict]:
    found = rows_of(text)
    assert not [entry.problem for entry in found if entry.problem]
    return [dict(entry.fields) for entry in found]


def problem_of(text: str) -> str:
    (entry,) = rows_of(text)
    assert entry.fields is None
    return f"{entry.where}: {entry.problem}"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_separator_is_told_by_the_header_or_by_a_line_for_excel(separator, declared, end):
    lines = [separator.join(cells) for cells in (("url", '"id"', "note"), (URL, "1", '"a, b; c|d\te"'))]
    text = end.join([*([f"sep={separator}"] if declared else []), *lines])
    assert fields_of(text) == [{"url": URL, "id": "1", "note": "a, b; c|d\te"}]


@pytest.mark.parametrize(("header", "note"), [("url;a,b", "a,b"), ("a,b;url", "a,b"), ("url\ta;b,c", "a;b,c")])
def test_only_a_separator_that_gives_a_column_url_counts(header, note):
    cells = (URL, "1") if header.startswith("url") else ("1", URL)
    text = header + "\n" + ("\t" if "\t" in header else ";").join(cells)
    assert fields_of(text) == [{"url": URL, note: "1"}]


def test_a_declared_separator_may_be_any_sign():
    assert fields_of(f'"sep=^"\nurl^id\n{URL}^1\n') == [{"url": URL, "id": "1"}]
    assert problem_of(f"sep=;\nurl,id\n{URL},1\n").startswith("line 2: ")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.TAB", "x.psv", "x.txt", "x"])
def test_a_table_is_known_by_its_suffix_or_its_header(name, tmp_path):
    (tmp_path / name).write_text(f"url\tid\n{URL}\t1\n")
    assert [entry.fields for entry in read(tmp_path / name)] == [{"url": URL, "id": "1"}]


def test_a_url_that_ends_like_a_header_is_no_header(tmp_path):
    url = "https://h/q?fields=id,url"
    (tmp_path / "x.txt").write_text(f"{url}\n{URL}\n")
    assert [entry.fields for entry in read(tmp_path / "x.txt")] == [{"url": url}, {"url": URL}]


@pytest.mark.parametrize(
    "header",
    [
        "url,id",
        " url , id ",
        "URL,Id",
        "\u00a0Url\u200b,ID",
        "#url,id",
        '"url","id"',
        "Link,ID",
        "download_url,id",
        "File URL,id",
        "href,id",
    ],
)
def test_names_in_a_header_are_known_in_any_form(header):
    assert fields_of(f"{header}\n{URL},1\n") == [{"url": URL, "id": "1"}]


def test_the_exact_name_of_a_field_goes_first():
    assert fields_of(f"url,URL,id,ID,Link,Department\n{URL},a,1,2,b,c\n") == [
        {"url": URL, "URL": "a", "id": "1", "ID": "2", "Link": "b", "Department": "c"}
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("name,ftp_url", "no column url in the header; found: name, ftp_url; did you mean 'ftp_url'? Name that column url"),
        ("name,path", "no column url in the header; found: name, path"),
        ("Link,download_url", "several columns may be the url: Link, download_url; name one of them url"),
        ("\u201curl\u201d,\u201cid\u201d", 'the header has typographic quotes; replace them by " in a plain text editor'),
        ("url,ID,Id", "the header has a duplicate column: url, ID, Id"),
        ("https://me:hunter2@h/a,1", "expected a header with a column url, such as url,id; found what looks like a row of values"),
    ],
)
def test_a_header_without_a_clear_url_is_refused_with_the_names_found(header, expected):
    assert problem_of(f"{header}\n{URL},1\n") == f"line 1: {expected}"


def test_comments_blank_lines_and_rows_of_separators_are_skipped():
    text = f"# from the portal\n\n  \nurl,id,\n,,\n{URL},1,\n , ,\u00a0\n\n{OTHER},2,\n,,,,,\n"
    assert [(entry.where, entry.fields) for entry in rows_of(text)] == [
        ("line 6", {"url": URL, "id": "1"}),
        ("line 9", {"url": OTHER, "id": "2"}),
    ]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "unnamed: 12", "__index_level_0__"])
def test_columns_without_a_name_are_ignored(name):
    assert fields_of(f"{name},url,id,,\n0,{URL},1,,\n1,{OTHER},2,,note\n") == [{"url": URL, "id": "1"}, {"url": OTHER, "id": "2"}]


def test_blanks_around_known_fields_are_removed_and_other_cells_stay():
    text = f'url,id,sha256,urls,note\n"\ufeff {URL}\u00a0", 1\u200b,\u00a0,\u00a0{OTHER} , n \n'
    assert fields_of(text) == [{"url": URL, "id": "1", "sha256": None, "urls": [OTHER], "note": " n "}]


@pytest.mark.parametrize("missing", ["NA", "N/A", "#N/A", "<NA>", "NULL", "null", "None", "nan", "NaN", "-", " NA ", " "])
@pytest.mark.parametrize("name", ["size", "sha256", "MD5", "md5sum", "checksum", "digests"])
def test_a_size_or_digest_may_be_missing_as_other_programs_write_it(name, missing, tmp_path):
    (tmp_path / "x.csv").write_text(f"url,id,name,note,{name}\n{URL},NA,null,-,{missing}\n")
    (listed,) = map(functools.partial(check, schemes={"https"}), read(tmp_path / "x.csv"))
    file = listed.file
    assert (file.size, file.sha256, file.digests) == (None, None, None)
    assert (file.id, file.name, file.note) == ("NA", "null", "-")


def test_short_rows_lack_their_last_fields_and_long_ones_are_problems():
    assert fields_of(f"url,id,note\n{URL}\n") == [{"url": URL, "id": None, "note": None}]
    assert problem_of(f"url,id\n{URL},1,,x\n") == "line 2: has more cells than the header has columns"


def test_a_note_after_the_rows_is_a_problem_of_its_line():
    rows = rows_of(f"url,id\n{URL},1\n\nTotal: 1 file,\n,2 of 2 pages\n")
    assert [(entry.where, entry.fields["url"]) for entry in rows[1:]] == [("line 4", "Total: 1 file"), ("line 5", None)]


def test_ids_that_a_spreadsheet_shortened_are_warned_of_once(caplog):
    assert [row["id"] for row in fields_of(f"url,id\n{URL},1E+05\n{OTHER},2.5E+12\nhttps://h/c,1.0\n")] == ["1E+05", "2.5E+12", "1.0"]
    assert [record.message for record in caplog.records] == [
        "line 2: id 1E+05 looks like a number that a spreadsheet has shortened; format its column as text"
    ]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.sampled_from(",;\t|"), st.lists(cells, min_size=1, max_size=5))
def test_any_cell_is_read_as_it_was_written(separator, notes):
    made = io.StringIO()
    csv.writer(made, delimiter=separator).writerows([("url", "note"), *((URL, note) for note in notes)])
    assert [row["note"] for row in fields_of(made.getvalue())] == notes
