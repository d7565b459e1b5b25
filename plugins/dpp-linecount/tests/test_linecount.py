"""The processor ``line-count``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import dpp.testing
import pytest
from dpp.testing import file_data
from pydantic import ValidationError

import dpp_linecount
from dpp_linecount import LineCount

PROJECT = Path(__file__).parents[1]


class TestContract(dpp.testing.ProcessorSuite):
    plugin = LineCount

    @pytest.fixture
    def samples(self):
        return {"blank.txt": b"a\n\nb\n", "full.txt": b"a\n", "empty.txt": b""}

    @pytest.fixture
    def other_options(self):
        return [{"skip_blank": True}]


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
def test_lines_are_counted(tmp_path, body, lines, filled):
    path = tmp_path / "file.txt"
    path.write_bytes(body)
    assert LineCount().process(file_data(path)) == {"lines": lines}
    assert LineCount(skip_blank=True).process(file_data(path)) == {"lines": filled}


def test_a_batch_counts_lines(manifest, run_batch, results, tmp_path):
    (tmp_path / "two.txt").write_text("a\n\n")
    files = manifest([{"url": (tmp_path / "two.txt").as_uri()}])
    run = run_batch(files, "--processor", "line-count", "--options", '{"line-count": {"skip_blank": true}}')
    assert run.returncode == 0, run.stderr
    assert results()["two"]["result"] == {"lines": 1}


@pytest.mark.parametrize("options", [{"skip_blank": "perhaps"}, {"skip_blanks": True}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        LineCount(**options)


def test_the_entry_point_names_the_module():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dpp"] == {"linecount": dpp_linecount.__name__}
    assert project["dependencies"] == ["dpp>=0.1,<1"]
