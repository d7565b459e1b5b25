"""Tests of the table of faults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fault_table

ROOT = Path(__file__).resolve().parents[2]
ROW = "| {0} | fault {0} | expected {0} |\n"
TESTS = """
import pytest

@pytest.mark.fault(1)
@pytest.mark.parametrize("how", ["once", "twice"])
def test_a(seen, how):
    seen(f"stopped {how}")

@pytest.mark.fault(1, 2)
def test_b(seen):
    seen("a file")
"""
FAILING = """
@pytest.mark.fault(2, 3)
def test_c(seen):
    seen("no file")
    assert False

@pytest.mark.fault(4)
def test_d():
    pytest.skip("no such server")
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs tests with a small table, and returns the lines of its rows and the exit code."""

    def run(rows, tests, *arguments):
        (pytester.path / "docs").mkdir()
        (pytester.path / "docs/faults.md").write_text("".join(ROW.format(number) for number in range(1, rows + 1)))
        pytester.makeini("[pytest]\nmarkers = fault(row): x\n")
        pytester.makepyfile(tests)
        done = pytester.runpytest_subprocess("-p", "fault_table", "--faults", *arguments)
        return [line for line in done.outlines if " expected " in line], done.ret

    monkeypatch.setenv("PYTHONPATH", str(Path(fault_table.__file__).parent))
    return run


def test_a_row_says_what_its_tests_saw(run):
    assert run(2, TESTS) == (
        [" 1 pass  fault 1  expected 1  stopped once; stopped twice; a file; 3 passed", " 2 pass  fault 2  expected 2  a file; 1 passed"],
        0,
    )


def test_a_row_fails_with_a_test_of_it_and_without_one_that_passed(run):
    lines, code = run(5, TESTS + FAILING, "--numprocesses", "2")
    assert [line[:7] for line in lines] == [" 1 pass", " 2 FAIL", " 3 FAIL", " 4 FAIL", " 5 FAIL"]
    assert [line.partition("expected ")[2][3:] for line in lines[2:]] == ["no file; 1 failed", "1 skipped", "no test"]
    assert code == 1


def marks_of_tests():
    """Yield the marks of each test, with those of its module, as source text."""
    for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]:
        tree = ast.parse(path.read_text())
        of_module = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
        marks = [mark for value in of_module for mark in getattr(value, "elts", [value])]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                yield [ast.unparse(mark) for mark in (*marks, *node.decorator_list)]


def marked(*, quick=False):
    """Return all rows that tests are marked with; with ``quick``, only those of tests that ``make test`` runs."""
    tests = [marks for marks in marks_of_tests() if not (quick and "pytest.mark.slow" in marks)]
    rows = [re.fullmatch(r"pytest\.mark\.fault\(([\d, ]+)\)", mark) for marks in tests for mark in marks]
    return {int(number) for row in rows if row for number in row[1].split(",")}


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_has_a_test_and_every_mark_a_row(quick):
    assert marked(quick=quick) == {row.number for row in fault_table.read_records(ROOT / "docs/faults.md")}
