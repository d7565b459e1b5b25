"""Counting lines."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
from dpp import FileData
from pydantic import ValidationError

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def linecount(monkeypatch):
    """The plugin, installed or not."""
    monkeypatch.syspath_prepend(PROJECT)
    return importlib.import_module("dpp_linecount")


@pytest.mark.parametrize(
    ("body", "lines", "filled"),
    [
        (b"", 0, 0),
        (b"\n", 1, 0),
        (b"a", 1, 1),
        (b"a\n", 1, 1),
        (b"a\nb", 2, 2),
        (b"a\n\n \t\nb\n", 4, 2),
        (b"a\r\n\r\nb\r\n", 3, 2),
        (b"\xff\xfe\n\x00\n", 2, 2),
        (b"x" * 100_000 + b"\n" + b"y" * 100_000, 2, 2),
    ],
)
def test_lines_are_counted(linecount, tmp_path, body, lines, filled):
    path = tmp_path / "file.txt"
    path.write_bytes(body)
    file = FileData(url="file:///file.txt", local_path=path)
    assert linecount.LineCount().process(file) == {"lines": lines}
    assert linecount.LineCount(skip_blank=True).process(file) == {"lines": filled}


def test_the_hook_offers_the_processor(linecount):
    assert [(cls.name, cls.version) for cls in linecount.dpp_processors()] == [("line-count", "1")]


@pytest.mark.parametrize("options", [{"skip_blank": "perhaps"}, {"skip_blanks": True}])
def test_wrong_options_are_refused(linecount, options):
    with pytest.raises(ValidationError):
        linecount.LineCount(**options)


def test_the_entry_point_names_the_module(linecount):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dpp"] == {"linecount": linecount.__name__}
    assert project["dependencies"] == ["dpp>=0.1,<1"]
