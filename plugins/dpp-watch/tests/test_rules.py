"""Tests of the rules: which files are taken, and which marker belongs to which file."""

from __future__ import annotations

import pytest
from dpp import ConfigurationError

from dpp_watch.rules import Rules


@pytest.mark.parametrize("path", [".hidden", "a.part", "a.tmp", "a.crdownload", "sub/.x"])
def test_incomplete_and_hidden_files_are_ignored(path):
    assert not Rules().takes(path)


def test_patterns_with_a_slash_are_for_paths():
    rules = Rules(patterns=("*.nc", "raw/*"), ignored=("old/*", "*_test.*"))
    assert [path for path in ("a.nc", "sub/a.nc", "raw/b.csv", "b.csv", "old/a.nc", "a_test.nc", "A.NC") if rules.takes(path)] == [
        "a.nc",
        "sub/a.nc",
        "raw/b.csv",
    ]


@pytest.mark.parametrize(("marker", "path"), [("{name}.done", "sub/a.nc.done"), ("ok-{name}", "sub/ok-a.nc")])
def test_a_marker_belongs_to_its_file_and_is_not_taken_itself(marker, path):
    rules = Rules(ready="marker", marker=marker)
    assert rules.marker_of("sub/a.nc") == path
    assert rules.marked_by(path) == "sub/a.nc"
    assert not rules.takes(path)
    assert rules.marked_by("sub/a.nc") == ""


@pytest.mark.parametrize("marker", ["", "done", "{name}", "{name}{name}", "flags/{name}.done"])
def test_an_invalid_marker_is_refused(marker):
    with pytest.raises(ConfigurationError, match=r"expected a file name with \{name\} once"):
        Rules(ready="marker", marker=marker)
