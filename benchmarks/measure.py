"""Run commands, and measure their time and the memory of their largest process."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
LIMIT = 300.0  # seconds
ORPHAN_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36
LEFT_OUT = ("DPP_", "LUIGI_", "PYTHON", "COV_")


class BenchError(Exception):
    """A command failed, so that its measurements are invalid."""


@dataclass
class Contender:
    """One row of a case: a command that runs in a new empty folder, or in one that ``prepare`` creates."""

    key: str
    title: str
    command: Sequence[str]
    files: int
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    outputs: int | None = None
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Files per second."""
        return self.files / self.median

    @property
    def cpu(self) -> float:
        """Median of the processor time of all its processes, in seconds."""
        return statistics.median(self.processor)

    @property
    def peak(self) -> float:
        """Memory of the largest process of all runs, in MB (10^6 bytes)."""
        return max(self.peaks) / 1e6

    def row(self) -> dict[str, object]:
        """Return the measurements as an object for JSON."""
        return {
            "key": self.key,
            "title": self.title,
            "files": self.files,
            "seconds": [round(seconds, 4) for seconds in self.seconds],
            "median": round(self.median, 4),
            "files_per_second": round(self.rate, 1),
            "cpu": round(self.cpu, 3),
            "peak_mb": round(self.peak, 1),
        }


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process without proxies and settings of dpp, Luigi and Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT) and not name.lower().endswith("_proxy")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}", **extra}


def kill_group(pid: int) -> None:
    """Kill a process group by its leader's id."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def adopt_orphans() -> None:
    """Become the parent of processes whose parent ends (prctl(2), PR_SET_CHILD_SUBREAPER), so that their processor time is known."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Return the ids of the children of this process (proc(5), task/*/children)."""
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def processor_time(known: set[int]) -> float:
    """Return the processor time in seconds of all processes that have ended, once no children but the known ones are left."""
    end = time.monotonic() + ORPHAN_SECONDS
    while (orphans := children() - known) and time.monotonic() < end:
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(command: Sequence[str], folder: Path, extra: Mapping[str, str]) -> tuple[float, float, int]:
    """Run a command; return its time and its processor time in seconds, and the memory of its largest process in bytes.

    Values of memory below the size of this script are not valid: a new process has the size of the one that it was forked from.
    """
    known = children()
    spent = processor_time(known)
    with (folder.parent / "log").open("w+b") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment(extra), stdout=log, stderr=log, start_new_session=True)
        killer = threading.Timer(LIMIT, kill_group, (process.pid,))
        killer.start()
        try:
            # wait4 reports the largest of the process and the children that it has waited for
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            killer.cancel()
            if process.returncode is None:
                kill_group(process.pid)
                process.wait()
        if process.returncode:
            log.seek(0)
            end = log.read().decode(errors="replace")[-1500:]
            raise BenchError(f"{command[0]} ended with exit code {process.returncode} after {seconds:.1f} s (limit {LIMIT:.0f} s):\n{end}")
    return seconds, processor_time(known) - spent, usage.ru_maxrss * 1024


def count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def once(contender: Contender, folder: Path) -> None:
    """Run a contender once; creating and removing its folder is not measured."""
    place = folder / "run" / contender.key
    if contender.prepare:
        place = folder / "kept"
        contender.prepare(place)
    else:
        place.mkdir(parents=True)
    seconds, processor, peak = timed(contender.command, place, contender.environment)
    if contender.outputs is not None and count(place) != contender.outputs:
        raise BenchError(f"{contender.title}: expected {contender.outputs} files, got {count(place)}")
    contender.seconds.append(seconds)
    contender.processor.append(processor)
    contender.peaks.append(peak)
    if not contender.prepare:
        shutil.rmtree(place)


def alternate(contenders: Sequence[Contender], folder: Path, rounds: int) -> None:
    """Run all contenders in turn, ``rounds`` times."""
    # Every second round in reverse order, so that a drift of the machine affects all of them equally
    for number in range(rounds):
        for contender in contenders[:: -1 if number % 2 else 1]:
            once(contender, folder)
            print(f"  round {number + 1} of {rounds}: {contender.title}: {contender.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
