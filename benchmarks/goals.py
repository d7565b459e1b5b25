"""The performance goals of the project: the case, the compared value and its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from measure import Contender

Rows = Mapping[str, Contender]


def ratio(above: str, below: str) -> Callable[[Rows], float]:
    """Return a function for the time of one row divided by that of another."""
    return lambda rows: rows[above].median / rows[below].median


def cpu_ratio(above: str, below: str) -> Callable[[Rows], float]:
    """Return a function for the processor time of one row divided by that of another."""
    return lambda rows: rows[above].cpu / rows[below].cpu


def rate(key: str) -> Callable[[Rows], float]:
    return lambda rows: rows[key].rate


def per_file(above: str, below: str) -> Callable[[Rows], float]:
    """Return a function for the time per file of one row divided by that of another."""
    return lambda rows: rows[below].rate / rows[above].rate


def memory(above: str, below: str) -> Callable[[Rows], float]:
    return lambda rows: rows[above].peak / rows[below].peak


def peak(key: str) -> Callable[[Rows], float]:
    return lambda rows: rows[key].peak


@dataclass(frozen=True)
class Goal:
    """A limit for a value of a case."""

    case: str
    text: str
    sign: str
    wanted: float
    value: Callable[[Rows], float]

    def met(self, value: float) -> bool:
        return value >= self.wanted if self.sign == ">=" else value <= self.wanted


GOALS = (
    Goal("small", "time(aria2c) / time(dpp with dpp-curl)", ">=", 1.0, ratio("aria2c", "dpp-curl")),
    Goal("small", "time(aria2c) / time(dpp with requests)", ">=", 0.35, ratio("aria2c", "dpp-requests")),
    Goal("resume", "files/s with nothing to do", ">=", 20_000, rate("nothing")),
    Goal("scale", "time per file, largest batch / a tenth of it", "<=", 1.15, per_file("whole", "tenth")),
    Goal("scale", "peak memory, largest batch / a tenth of it", "<=", 1.3, memory("whole", "tenth")),
    Goal("scale", "peak memory of the largest batch, MB", "<=", 150, peak("whole")),
    Goal("large", "time(curl) / time(dpp with dpp-curl)", ">=", 0.8, ratio("curl", "dpp-curl")),
    Goal("large", "peak memory, dpp with dpp-curl, MB", "<=", 120, peak("dpp-curl")),
    Goal("latency", "files/s with dpp-curl, of 640 at best", ">=", 0.9 * 640, rate("dpp-curl")),
    Goal("cpu", "time(--workers 1) / time(--workers 2)", ">=", 1.85, ratio("workers-1", "workers-2")),
    Goal("executors", "processor time, --executor processes / --workers 2", "<=", 1.3, cpu_ratio("processes", "workers")),
    Goal("executors", "processor time, --executor dask / --workers 2", "<=", 1.3, cpu_ratio("dask", "workers")),
    Goal("sftp", "time(sftp -b) / time(dpp)", ">=", 1.0, ratio("sftp", "dpp")),
    Goal("sftp", "time(sftp -b) / time(dpp), 1 ms away", ">=", 1.0, ratio("sftp-far", "dpp-far")),
    Goal("plugins", "time(ten plugins) / time(none)", "<=", 1.02, ratio("ten", "none")),
    Goal("view", "time(the view drawn) / time(--quiet)", "<=", 1.03, ratio("drawn", "quiet")),
)


@dataclass(frozen=True)
class Verdict:
    """A goal and the measured value."""

    goal: Goal
    value: float

    def row(self) -> dict[str, object]:
        """Return the verdict as an object for JSON."""
        goal, value = self.goal, round(self.value, 3)
        wanted, met = f"{goal.sign} {goal.wanted:g}", goal.met(self.value)
        return {"case": goal.case, "goal": goal.text, "wanted": wanted, "measured": value, "met": met}


def judge(case: str, contenders: list[Contender]) -> list[Verdict]:
    """Return the verdicts of a case, without goals whose rows were skipped."""
    rows = {contender.key: contender for contender in contenders}
    found = []
    for goal in (goal for goal in GOALS if goal.case == case):
        try:
            found.append(Verdict(goal, goal.value(rows)))
        except KeyError:
            continue
    return found
