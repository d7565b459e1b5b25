"""Tests of SECURITY.md: each promise names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (?!promise|---)(.+) \| (`.+`) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def test_there_are_promises():
    assert len(ROWS) > 10


@pytest.mark.parametrize("held_by", [tests for _, tests in ROWS], ids=[promise[:40] for promise, _ in ROWS])
def test_a_promise_is_held_by_a_test_that_is_there(held_by):
    for path, *names in (test.split("::") for test in re.findall(r"`([^`]+)`", held_by)):
        found = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert {*names} <= found
        assert any(name.startswith("test_") for name in names or found)


def test_it_comes_with_the_source():
    assert "include SECURITY.md" in (ROOT / "MANIFEST.in").read_text()
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
