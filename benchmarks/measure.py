"""Run commands, and measure how long they take and how much memory their largest process needs."""

from __future__ import annotations

import os
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
LIMIT = 300.0
LEFT_OUT = ("DPP_", "LUIGI_", "PYTHON", "COV_")


class BenchError(Exception):
    """A run that failed, so that its figures would mean nothing."""


@dataclass
class Contender:
    """One row of a case: a command that is run in an empty folder of its own, or in one that ``prepare`` makes."""

    key: str
    title: str
    command: Sequence[str]
    files: int
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    outputs: int | None = None
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.files / self.median

    @property
    def peak(self) -> float:
        """The largest process of all runs, in MB (10^6 bytes)."""
        return max(self.peaks) / 1e6

    def row(self) -> dict[str, object]:
        """Return the figures as JSON takes them."""
        return {
            "key": self.key,
            "title": self.title,
            "files": self.files,
            "seconds": [round(seconds, 4) for seconds in self.seconds],
            "median": round(self.median, 4),
            "files_per_second": round(self.rate, 1),
            "peak_mb": round(self.peak, 1),
        }


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without proxies and without settings of dpp, Luigi and Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT) and not name.lower().endswith("_proxy")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}", **extra}


def kill_group(pid: int) -> None:
    """Kill a process that leads its own group, and what it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def timed(command: Sequence[str], folder: Path, extra: Mapping[str, str]) -> tuple[float, int]:
    """Run a command; return its seconds and the bytes that its largest process needed.

    ``wait4`` tells of the process and of every child that it has waited for, whichever was largest. A new process
    counts as large as the one it was forked from, so that figures under this script's own size say nothing.
    """
    with (folder.parent / "log").open("w+b") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment(extra), stdout=log, stderr=log, start_new_session=True)
        killer = threading.Timer(LIMIT, kill_group, (process.pid,))
        killer.start()
        try:
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
            raise BenchError(f"{command[0]} ended with {process.returncode} after {seconds:.1f} s (limit {LIMIT:.0f} s):\n{end}")
    return seconds, usage.ru_maxrss * 1024


def count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def once(contender: Contender, folder: Path) -> None:
    """Run a contender one time; its folder is made before and removed afterwards, outside the measured time."""
    place = folder / "run" / contender.key
    if contender.prepare:
        place = folder / "kept"
        contender.prepare(place)
    else:
        place.mkdir(parents=True)
    seconds, peak = timed(contender.command, place, contender.environment)
    if contender.outputs is not None and count(place) != contender.outputs:
        raise BenchError(f"{contender.title} left {count(place)} files, expected {contender.outputs}")
    contender.seconds.append(seconds)
    contender.peaks.append(peak)
    if not contender.prepare:
        shutil.rmtree(place)


def alternate(contenders: Sequence[Contender], folder: Path, rounds: int) -> None:
    """Run all contenders in turn, ``rounds`` times, every other round in reverse, so that drift hits all alike."""
    for number in range(rounds):
        for contender in contenders[:: -1 if number % 2 else 1]:
            once(contender, folder)
            print(f"  round {number + 1} of {rounds}: {contender.title}: {contender.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
