"""Where the files are that a process has on their way: for whoever watches the run, and for the process that supervises."""

from __future__ import annotations

import math
import mmap
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dpp.engine.snapshot import STAGES, Slow, Snapshot, keep_snapshot
from dpp.models import FileData

SHOWN_SLOWEST = 5
FIRST_SECONDS = 0.1
SNAPSHOT_SECONDS = 0.5
STALL_SECONDS = 1.0
_TOTALS = 16
_HEAD = _TOTALS + 8
_SINCE = 8
_AT_WORK = re.compile(rb"[^\0]")


class Place(NamedTuple):
    """Where a file is.

    Attributes:
        stage: The stage that is at it.
        seconds: For how long.
    """

    stage: str
    seconds: float


class Board:
    """What stage is at which file, in memory that a process shares with the children that it forks.

    What a child wrote there can be read when it has died, however it did. A byte and a time of the machine's monotonic
    clock a file: 0.5 microseconds a stage.

    Args:
        size: Files at most, numbered from 0 in the order in which they are begun.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        memory = memoryview(mmap.mmap(-1, _HEAD + size * (_SINCE + 1)))
        self._totals = memory[:_TOTALS].cast("Q")
        self._beat = memory[_TOTALS:_HEAD].cast("d")
        self._since = memory[_HEAD : _HEAD + size * _SINCE].cast("d")
        self._stages = memory[_HEAD + size * _SINCE :]
        self._lock = threading.Lock()
        self.beats()

    def beats(self) -> None:
        """Take note that the threads of the process get their turns."""
        self._beat[0] = time.monotonic()

    def is_stalled(self, limit: float) -> bool:
        """Whether all threads of the process stand still, as where one holds Python's lock: one file may keep all others waiting."""
        return time.monotonic() - self._beat[0] > min(limit / 2, STALL_SECONDS)

    def runs(self, number: int, stage: str) -> None:
        """Take note that a stage begins with a file."""
        self._since[number] = time.monotonic()
        self._stages[number] = STAGES.index(stage) + 1

    def mark_suspect(self, number: int) -> None:
        """Take note that a stage is through with a file, which may be why its process ends; it can't take too long any more."""
        self._since[number] = math.inf

    def rests(self, number: int) -> None:
        """Take note that no stage is at a file."""
        self._stages[number] = 0

    def count(self, *, ok: bool) -> None:
        """Count a file that has its outcome."""
        with self._lock:
            self._totals[0] += 1
            self._totals[1] += not ok

    def totals(self) -> tuple[int, int]:
        """Return how many files have their outcome, and how many of them failed."""
        return self._totals[0], self._totals[1]

    def running(self) -> dict[int, Place]:
        """Return where the files are that a stage is at."""
        now, stages = time.monotonic(), bytes(self._stages)
        found = (match.start() for match in _AT_WORK.finditer(stages))
        return {number: Place(STAGES[stages[number] - 1], now - self._since[number]) for number in found}


class InFlight:
    """Where the files are that a process has on their way.

    Four stores into a dictionary a file, one microsecond in all.

    Args:
        received: Says how many bytes of a file are downloaded so far.
        board: Told of everything as well.
    """

    def __init__(self, received: Callable[[FileData], int], board: Board | None = None) -> None:
        self._places: dict[int, tuple[str, float, FileData]] = {}
        self._received = received
        self._board = board

    def waits(self, number: int, file: FileData, stage: str) -> None:
        """Take note that a file waits for a stage."""
        self._places[number] = (stage, 0.0, file)
        if self._board:
            self._board.rests(number)

    def runs(self, number: int, file: FileData, stage: str) -> None:
        """Take note that a stage begins with a file."""
        self._places[number] = (stage, time.time(), file)
        if self._board:
            self._board.runs(number, stage)

    def ended(self, number: int, *, ok: bool) -> None:
        """Take note that a file has its outcome."""
        self._places.pop(number, None)
        if self._board:
            self._board.rests(number)
            self._board.count(ok=ok)

    def beats(self) -> None:
        """Take note that the threads of this process get their turns."""
        if self._board:
            self._board.beats()

    def snapshot(self) -> Snapshot:
        """Return what is on its way at this moment."""
        places = list(self._places.values())  # one step of the interpreter, so that no thread comes between
        running = sorted((place for place in places if place[1]), key=lambda place: place[1])
        sizes = {file.id: self._received(file) for stage, _, file in running if stage == STAGES[0]}
        return Snapshot(
            running=Counter(stage for stage, _, _ in running),
            waiting=Counter(stage for stage, since, _ in places if not since),
            slowest=[
                Slow(id=file.id, stage=stage, since=since, bytes=sizes.get(file.id, 0)) for stage, since, file in running[:SHOWN_SLOWEST]
            ],
            bytes=sum(sizes.values()),
        )


class Keeper:
    """Keep a snapshot of what is on its way, twice a second.

    Args:
        path: The snapshot's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = time.monotonic() + FIRST_SECONDS

    def keep(self, in_flight: InFlight) -> None:
        """Write a snapshot, if it is time to."""
        if time.monotonic() > self._due:
            self._due = time.monotonic() + SNAPSHOT_SECONDS
            keep_snapshot(self._path, in_flight.snapshot())
