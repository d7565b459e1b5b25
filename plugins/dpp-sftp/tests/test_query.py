"""What a query asks for."""

from __future__ import annotations

import pytest

from dpp_sftp.query import Query, parse


def test_nothing_asks_for_all():
    assert parse("") == Query()


def test_everything_can_be_asked_for():
    wanted = parse("pattern=*.gpg&pattern=a%26b%2B+*&recursive=true&min_age=10m&offset=2&limit=3&signatures=yes")
    assert wanted == Query(("*.gpg", "a&b++*"), recursive=True, min_age=600, offset=2, limit=3, signatures=True)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_an_age_has_a_unit(text, seconds):
    assert parse(f"min_age={text}").min_age == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("patern=x", "unknown parameter 'patern'; known are pattern, recursive"),
        ("pattern=", "pattern has no value"),
        ("limit=1&limit=2", "limit is given twice"),
        ("limit=-1", "limit should be a whole number"),
        ("offset=²", "offset should be a whole number"),
        ("min_age=10w", "min_age should be a time"),
        ("min_age=nan", "min_age should be a time"),
        ("recursive=perhaps", "recursive should be true or false"),
        ("a=1&limit=x", "unknown parameter 'a'.*; limit should be"),
    ],
)
def test_what_makes_no_sense_is_named(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse(text)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "in/a.csv", True),
        ("in/*.csv", "in/a.csv", True),
        ("in/*.csv", "out/a.csv", False),
        ("*.CSV", "a.csv", False),
        ("[ab].csv", "a.csv", True),
    ],
)
def test_a_pattern_with_a_slash_is_for_the_path(pattern, path, matches):
    assert Query((pattern,)).matches(path) is matches
