"""Parameters of a query that only this source has."""

from __future__ import annotations

import pytest
from dpp import ConfigurationError

from dpp_sftp.query import FolderQuery


def read(query):
    return FolderQuery.read(f"sftp://host/in/?{query}")


def test_everything_can_be_asked_for():
    wanted = FolderQuery(pattern=("*.gpg",), recursive=True, min_age=600, offset=2, limit=3, signatures=True)
    assert read("pattern=*.gpg&recursive=true&min_age=10m&offset=2&limit=3&signatures=yes") == wanted


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_an_age_has_a_unit(text, seconds):
    assert read(f"min_age={text}").min_age == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("min_age=10w", "min_age: should be a time"),
        ("min_age=nan", "min_age: should be a time"),
        ("signatures=perhaps", "signatures: should be true or false"),
        ("a=1&limit=x", "limit: should be a whole number; unknown option 'a'; the parameters are pattern, .*, min_age, signatures"),
    ],
)
def test_what_makes_no_sense_is_named(text, problem):
    with pytest.raises(ConfigurationError, match=f"--files sftp://host/in/.*: {problem}"):
        read(text)
