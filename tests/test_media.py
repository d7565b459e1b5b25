"""Tests of media types: what is stated, what is shown, and what contradicts a name."""

from __future__ import annotations

import pytest
from dpp import media

PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.mark.parametrize(
    ("stated", "head", "expected"),
    [
        ("text/csv", b"a,b", "text/csv"),
        ("Text/CSV; charset=utf-8", b"a,b", "text/csv"),
        ("", b"a,b", None),
        (None, b"", None),
        (None, b"%PDF-1.7", "application/pdf"),
        ("application/octet-stream", b"%PDF-1.7", "application/pdf"),
        ("binary/octet-stream", b"a,b", "binary/octet-stream"),
        ("application/vnd.oasis.opendocument.text", b"PK\x03\x04", "application/vnd.oasis.opendocument.text"),
        ("application/pdf", PAGE, "text/html"),
        ("application/xhtml+xml", b"<html ", "application/xhtml+xml"),
        (None, b"\xef\xbb\xbf \r\n<HTML>", "text/html"),
        (None, b"<!-- a --> <!-- b -->\n<!doctype  HTML>", "text/html"),
        ("text/plain", b"<htmlish>", "text/plain"),
        ("text/plain", b"see <html>", "text/plain"),
    ],
)
def test_the_type_of_a_file(stated, head, expected):
    assert media.media_type(stated, head) == expected


@pytest.mark.parametrize(
    ("name", "got"),
    [
        *(
            ("a.pdf", "text/html"),
            ("A.PDF", "application/xhtml+xml"),
            ("a.csv", "text/html"),
            ("a.csv.gz", "text/html"),
            ("a.json", "text/html"),
        ),
        *(("a.pdf", "application/json"), ("a.tar.gz", "application/xml"), ("a.xlsx", "text/xml"), ("a.PNG", "application/problem+json")),
    ],
)
def test_types_that_contradict_a_name(name, got):
    assert got in media.contradiction([name], got)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        *(("a", "text/html"), ("a.html", "text/html"), ("A.HTM", "text/html"), ("view.php", "text/html"), ("a.pdf", None)),
        *(("a.pdf", "application/pdf"), ("a.csv", "application/octet-stream"), ("a.csv", "text/plain"), ("a.json", "application/json")),
        *(("a.svg", "application/xml"), ("a.geojson", "application/json"), ("a.pdf", "application/x-unknown"), ("a.rdf", "text/xml")),
    ],
)
def test_types_that_may_be_right(name, got):
    assert media.contradiction([name], got) is None


def test_the_first_name_with_a_suffix_counts():
    assert media.contradiction(["report", "a.pdf"], "text/html")
    assert media.contradiction(["a.html", "a.pdf"], "text/html") is None


@pytest.mark.parametrize(
    ("got", "wanted", "fits"),
    [
        ("application/pdf", "application/pdf", True),
        ("image/png", "text/csv,image/*", True),
        ("text/html", "application/pdf", False),
        ("text/html", "*/*", True),
        (None, "*/*", False),
    ],
)
def test_whether_a_type_is_wanted(got, wanted, fits):
    assert media.fits(got, wanted) is fits


@pytest.mark.parametrize(("text", "expected"), [("", ""), (" Application/PDF , image/* ", "application/pdf,image/*")])
def test_lists_of_types(text, expected):
    assert media.check_types(text) == expected


@pytest.mark.parametrize("text", ["pdf", "a/b;", "a/b,", "application/pdf; charset=x", "a b/c", ","])
def test_lists_that_are_none(text):
    with pytest.raises(ValueError, match="should be media types"):
        media.check_types(text)
