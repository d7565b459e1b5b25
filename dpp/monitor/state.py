"""The state of a run, read from its folder: outcomes from its ledgers, files in progress from its snapshots."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from dpp import names
from dpp.batch.folder import RunFolder
from dpp.engine.activity import SHOWN_SLOWEST
from dpp.engine.snapshot import POST_PROCESS, STAGES, Slow, Snapshot, read_snapshots
from dpp.report.info import RunInfo
from dpp.report.summary import human_bytes, human_seconds
from dpp.workspace.ledger import OPEN_SUFFIX

WINDOW_SECONDS = 10.0
SLOW_SECONDS = 1.0
ENOUGH_SECONDS = 2.0
ENOUGH_FILES = 5
SHOWN_FAILURES = 5


@dataclass
class StageState:
    """Number of files that have completed a stage, are in it, wait for it, or failed in it."""

    name: str
    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0


class Failed(NamedTuple):
    """A file that failed."""

    id: str
    stage: str
    error_class: str
    message: str


@dataclass
class State:
    """The state of a run at one moment.

    Attributes:
        batch: Name of the batch.
        run: Number of the run.
        total: Files in the batch.
        ok: Files that are ok, from this run or an earlier one.
        cached: How many of those are from an earlier run.
        failed: Files that failed.
        bytes: Bytes downloaded by this run so far.
        seconds: Seconds since the start of the run.
        rate: Files per second in the last ten seconds, without those from an earlier run.
        byte_rate: Bytes per second in the last ten seconds.
        seconds_left: Estimated seconds until the end; None if there is too little data.
        stages: Number of files by stage.
        slowest: Files that have been in a stage for at least a second, the slowest first.
        failures: The last files that failed, the newest first.
    """

    batch: str
    run: int
    total: int
    ok: int = 0
    cached: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    byte_rate: float = 0.0
    seconds_left: float | None = None
    stages: list[StageState] = field(default_factory=list)
    slowest: list[Slow] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Files that have an outcome."""
        return self.ok + self.failed

    @property
    def percent(self) -> int:
        """Percentage of files that have an outcome."""
        return 100 * self.done // self.total if self.total else 100

    def line(self) -> str:
        """Return the state in one line."""
        parts = [f"{self.done:,} of {self.total:,} files ({self.percent} %), {self.failed:,} failed", *self.pace()]
        return ", ".join(parts)

    def pace(self) -> list[str]:
        """Return the rates and the remaining time, as far as they are known."""
        parts = [f"{self.rate:,.0f} files/s" if self.rate >= 1 else f"{self.rate:.2f} files/s"] if self.rate else []
        parts += [f"{human_bytes(self.byte_rate)}/s"] if self.byte_rate else []
        return parts + ([] if self.seconds_left is None else [f"{human_seconds(self.seconds_left)} left"])


class Ledgers:
    """Follow the ledgers of a run.

    Args:
        folder: The folder of the ledgers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}
        self._seen: set[int] = set()

    def news(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the outcomes that are new since the last call, each with its line; each file only once."""
        for name, path, size in self._found():
            if size > self._offsets.get(name, 0):
                yield from self._lines(name, path)

    def _found(self) -> list[tuple[str, str, int]]:
        """Return name, path and size of each ledger, open or finished."""
        try:
            with os.scandir(self._folder) as entries:
                return [(entry.name.removesuffix(OPEN_SUFFIX), entry.path, entry.stat().st_size) for entry in entries]
        except FileNotFoundError:
            # No chunk has started, or a ledger has just got its final name.
            return []

    def _lines(self, name: str, path: str) -> Iterator[tuple[dict[str, Any], bytes]]:
        # A ledger that has just got its final name is read at the next call.
        with suppress(FileNotFoundError), open(path, "rb") as stream:
            stream.seek(self._offsets.get(name, 0))
            for line in stream:
                # A line without its end is still being written.
                if line.endswith(b"\n"):
                    self._offsets[name] = self._offsets.get(name, 0) + len(line)
                    yield from self._once(line)

    def _once(self, line: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        try:
            # Values rarely repeat: caching only the keys halves the time.
            outcome = from_json(line, cache_strings="keys")
            mark = names.mark(outcome["key"])
        except (ValueError, TypeError, KeyError):
            # Skip an invalid line, as read_records does.
            return
        if mark not in self._seen:
            self._seen.add(mark)
            yield outcome, line


class RunFollower:
    """Follow the state of a run.

    Args:
        run: The run, in progress or ended.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._ledgers = Ledgers(run.ledgers)
        self._hidden = self._without_step(run.info)
        self._state = State(run.batch, run.number, run.info.total)
        self._failed_in: Counter[str] = Counter()
        self._failures: deque[Failed] = deque(maxlen=SHOWN_FAILURES)
        self._samples: deque[tuple[float, int, int]] = deque()
        self._ended_bytes = 0

    @staticmethod
    def _without_step(info: RunInfo) -> set[str]:
        """Return the stages that have no step in the run."""
        kinds = {step.get("kind") for step in info.plugins}
        return {stage for stage, kind in (("pre-process", "pre-processor"), (POST_PROCESS, "post-processor")) if kind not in kinds}

    def look(self) -> tuple[State, list[bytes]]:
        """Return the current state of the run, and the new lines of its ledgers."""
        lines = []
        for outcome, line in self._ledgers.news():
            self._count(outcome)
            lines.append(line)
        self._place([*read_snapshots(self._run.workfile.snapshots)])
        self._pace(time.monotonic())
        self._state.seconds = self._run.info.elapsed()
        return self._state, lines

    def _count(self, outcome: dict[str, Any]) -> None:
        state = self._state
        if outcome.get("status") == "ok":
            state.ok += 1
            state.cached += bool(outcome.get("cached"))
            self._ended_bytes += 0 if outcome.get("cached") else outcome.get("bytes") or 0
            return
        state.failed += 1
        failed = Failed(*(str(outcome.get(name) or "") for name in ("id", "stage", "error_class", "message")))
        self._failures.appendleft(failed)
        self._failed_in[self._shown(failed.stage)] += 1

    def _shown(self, stage: str) -> str:
        """Return the stage under which a file is shown."""
        # Stages without a step, and dpp's own stages such as the report, are hidden: they count as process.
        return stage if stage in STAGES and stage not in self._hidden else "process"

    def _place(self, snapshots: list[Snapshot]) -> None:
        """Count the files by stage."""
        state, running, waiting = self._state, Counter[str](), Counter[str]()
        current = [snapshot for snapshot in snapshots if snapshot.is_current]
        for snapshot in snapshots:
            for stage, count in snapshot.waiting.items():
                waiting[self._shown(stage)] += count
        for snapshot in current:
            for stage, count in snapshot.running.items():
                running[self._shown(stage)] += count
        # From the last stage to the first: a file in one stage has completed all stages before it.
        passed = state.ok
        state.stages = []
        for name in reversed([stage for stage in STAGES if stage not in self._hidden]):
            state.stages.insert(0, StageState(name, min(passed, state.total), running[name], waiting[name], self._failed_in[name]))
            passed += running[name] + waiting[name] + self._failed_in[name]
        state.stages[0].waiting = max(0, state.total - passed)
        state.bytes = self._ended_bytes + sum(snapshot.bytes for snapshot in current)
        slowest = (slow for snapshot in current for slow in snapshot.slowest if time.time() - slow.since >= SLOW_SECONDS)
        state.slowest = sorted(slowest, key=lambda slow: slow.since)[:SHOWN_SLOWEST]
        state.failures = list(self._failures)

    def _pace(self, now: float) -> None:
        """Compute the rates of the last seconds and the remaining time."""
        state, samples = self._state, self._samples
        samples.append((now, state.done - state.cached, state.bytes))
        # Keep the last sample from before the window: there may be none inside it.
        while len(samples) > 1 and now - samples[1][0] > WINDOW_SECONDS:
            samples.popleft()
        began, files, size = samples[0]
        spent = now - began
        new = state.done - state.cached - files
        state.rate = new / spent if spent else 0.0
        state.byte_rate = max(0, state.bytes - size) / spent if spent else 0.0
        meaningful = spent >= ENOUGH_SECONDS and new >= ENOUGH_FILES and state.done < state.total
        state.seconds_left = (state.total - state.done) / state.rate if meaningful else None
