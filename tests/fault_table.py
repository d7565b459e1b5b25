"""The table of faults in docs/faults.md, with the observations of its tests: ``pytest -m fault --faults``.

A test of a row is marked ``@pytest.mark.fault(7)``, a test of several rows ``@pytest.mark.fault(1, 2)``; it may record what it observed
with the fixture ``seen``. A row is ok if at least one of its tests passed, and none failed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Row(NamedTuple):
    """A row of the table."""

    number: int
    fault: str
    expected: str


def read_records(page: Path) -> list[Row]:
    """Return the rows of a page's table."""
    found = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", page.read_text(), re.MULTILINE)
    return [Row(int(number), fault, expected) for number, fault, expected in found]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="print the table of faults; fail if a row has no test that passed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultTable(read_records(config.rootpath / "docs/faults.md")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the rows of each test to its report, which takes them from a worker of xdist to the table."""
    for item in items:
        item.user_properties += [("fault", number) for marker in item.iter_markers("fault") for number in marker.args]


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that records an observation of a test for the table: ``seen("tried 3 times, part continued")``."""
    return lambda text: record_property("seen", text)


class FaultTable:
    """Collect the outcomes of tests by row, and print them."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._outcomes: dict[int, list[str]] = defaultdict(list)
        self._seen: dict[int, dict[str, None]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        for number in [value for name, value in report.user_properties if name == "fault"]:
            self._outcomes[number].append(outcome)
            self._seen[number] |= {str(value): None for name, value in report.user_properties if name == "seen"}

    def _is_well(self, row: Row) -> bool:
        outcomes = set(self._outcomes[row.number])
        return "passed" in outcomes and outcomes <= {"passed", "skipped"}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not session.exitstatus and not all(map(self._is_well, self._rows)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("faults")
        fault, expected = (max(len(row[column]) for row in self._rows) for column in (1, 2))
        for row in self._rows:
            verdict = "pass" if self._is_well(row) else "FAIL"
            line = f"{row.number:2} {verdict}  {row.fault:{fault}}  {row.expected:{expected}}  {self._summary(row)}"
            terminalreporter.write_line(line, green=verdict == "pass", red=verdict == "FAIL")

    def _summary(self, row: Row) -> str:
        outcomes = self._outcomes[row.number]
        counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))
        return "; ".join([*self._seen[row.number], counts or "no test"])
