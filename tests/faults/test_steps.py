"""Faults in the code of plugins, in batches as users run them."""

from __future__ import annotations

import json

import pytest

MODULE = """
from dpp import BaseProcessor

class Bad(BaseProcessor):
    def process(self, file):
        return self.faults()[file.id]() if file.id in self.faults() else "fine"

    def faults(self):
        return {"raises": lambda: 1 / 0, "exits": lambda: exit(3), "not-json": lambda: {1, 2}, "nan": lambda: float("nan"),
            "surrogate": lambda: "\\ud800", "recursion": self.faults_of_faults}

    def faults_of_faults(self):
        return self.faults_of_faults()
"""
EXPECTED = {"raises": "ZeroDivisionError", "exits": "SystemExit", "not-json": "result", "nan": "result", "surrogate": "result"}


@pytest.mark.fault(29)
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_a_plugin_that_raises_fails_its_file_with_a_traceback(site, manifest, run_batch, results, tmp_path, seen, chunk_size):
    (tmp_path / "mine.py").write_text(MODULE)
    expected = {**EXPECTED, "recursion": "RecursionError"}
    files = manifest([{"url": site.add(f"/{name}", name), "id": name} for name in [*expected, "a", "b", "c"]])
    run = run_batch(files, "--processor", "mine:Bad", "--chunk-size", chunk_size)
    rows = results()
    assert {name: (row["stage"], row["error_class"]) for name, row in rows.items() if row["status"] == "failed"} == {
        name: ("process", error_class) for name, error_class in expected.items()
    }
    assert run.returncode == 1, run.stderr
    assert {rows[name]["result"] for name in "abc"} == {"fine"}
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("dpp-workspace/reports/*/*/*.json")]
    traced = {report["id"]: report["traceback"] for report in reports if report["traceback"]}
    assert traced.keys() == {"raises", "exits", "recursion"}
    assert all("in process" in trace and "mine.py" in trace for trace in traced.values())
    seen("ZeroDivisionError, SystemExit, RecursionError with traceback; NaN, set: result; others ok")
