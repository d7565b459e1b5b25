"""Tests of texts of URLs, and of input files of aria2."""

from __future__ import annotations

import pytest
from dpp.manifest.json_stream import LONGEST
from dpp.manifest.readers import read

URL = "https://h/a.csv"
OTHER = "https://h/b.csv"


@pytest.fixture
def rows(tmp_path):
    """Return a function that returns where each entry of a text is, with its fields or problem."""

    def rows(text: str) -> list:
        (tmp_path / "x.txt").write_text(text)
        return [(entry.where, entry.problem or entry.fields) for entry in read(tmp_path / "x.txt")]

    return rows


def test_options_of_aria2_become_fields(rows, caplog):
    text = f"# mine\n{URL}\t{OTHER}\n  out=one.csv\n\tchecksum=sha-256=ABC\n header=A: b:c\n header=D:e\n\n{OTHER}\n checksum=md5=12\n"
    assert rows(text) == [
        (
            "line 2",
            {"url": URL, "urls": [OTHER], "name": "one.csv", "sha256": "ABC", "headers": {"A": "b:c", "D": "e"}},
        ),
        ("line 8", {"url": OTHER, "md5": "12"}),
    ]
    assert not caplog.records


def test_options_that_dpp_does_not_have_are_named_in_one_warning(rows, caplog):
    assert len(rows(f"{URL}\n  dir=/tmp\n  split=4\n{OTHER}\n  dir=/x\n")) == 2
    assert [record.message for record in caplog.records] == ["options of aria2 that dpp does not use: dir, split"]


def test_a_checksum_in_another_notation_is_a_field_like_in_other_formats(rows):
    assert rows(f"{URL}\n  checksum=md5:12\n  checksum=sha-1=ab\n{OTHER}\n  checksum=adler32=00\n") == [
        ("line 1", {"url": URL, "checksum": "md5:12", "sha1": "ab"}),
        ("line 4", {"url": OTHER, "checksum": "adler32=00"}),
    ]


def test_an_indented_url_is_a_url(rows):
    assert rows(f"  {URL}?out=1\n\t{OTHER}\n") == [("line 1", {"url": f"{URL}?out=1"}), ("line 2", {"url": OTHER})]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  out=a\n", ("line 1", "the option out= comes before the first URL")),
        (
            f"{URL}\t1\n  out=a\n",
            ("line 1", "has several columns; expected one URL per line, or a header with a column url"),
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_reported(text, expected, rows):
    assert rows(text) == [expected]


def test_characters_without_a_width_around_a_url_are_removed(rows):
    assert rows(f"\u200b{URL}\u00a0\n\ufeff# no\n\u200b\n") == [("line 1", {"url": URL})]


def test_the_entry_before_a_line_that_is_too_long_is_kept(rows):
    assert [place for place, _ in rows(f"{URL}\n{'x' * (LONGEST + 1)}")] == ["line 1", "line 2"]


def test_text_after_a_url_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("https://h/a name.txt\n")
    (entry,) = read(tmp_path / "x.txt")
    assert entry.problem.startswith("contains a blank; if it is part of the URL, write %20; if a name follows")
