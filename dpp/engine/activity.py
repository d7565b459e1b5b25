"""Shared memory in which a process records the stage of each of its files, and the snapshots made from it.

The supervisor reads it to find the file that crashed or blocks its child, and to write snapshots for the live view.
"""

from __future__ import annotations

import math
import mmap
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dpp.engine.snapshot import STAGES, Slow, Snapshot, keep_snapshot
from dpp.models import FileData

SHOWN_SLOWEST = 5
FIRST_SECONDS = 0.1
SNAPSHOT_SECONDS = 0.5
STALL_SECONDS = 1.0
_TOTALS = 24
_HEAD = _TOTALS + 8
_SINCE = 8
_RUNNING = {stage: number + 1 for number, stage in enumerate(STAGES)}
_WAITING = {stage: number + 0x11 for number, stage in enumerate(STAGES)}
_ENDED = 0xFF
_IS_RUNNING = re.compile(rb"[\x01-\x0f]")


class Place(NamedTuple):
    """The stage that a file is in.

    Attributes:
        stage: The stage that works on the file.
        seconds: How long the stage has worked on it, in seconds.
    """

    stage: str
    seconds: float


class Board:
    """Record the stage of each file, in memory that a process shares with the children that it forks.

    Args:
        size: Maximum number of files at a time, numbered from 0 in the order in which they start.
    """

    def __init__(self, size: int) -> None:
        # Shared memory outlives a child, whatever killed it. Per file it holds one byte and one time of the
        # monotonic clock; writing both takes 0.5 microseconds.
        memory = memoryview(mmap.mmap(-1, _HEAD + size * (_SINCE + 1)))
        self._totals = memory[:_TOTALS].cast("Q")
        self._beat = memory[_TOTALS:_HEAD].cast("d")
        self._since = memory[_HEAD : _HEAD + size * _SINCE].cast("d")
        self._places = memory[_HEAD + size * _SINCE :]
        self._lock = threading.Lock()
        self.begin(size)

    def begin(self, size: int) -> None:
        """Forget all files, and expect this many, at most as many as at first."""
        self._places[:] = bytes(len(self._places))
        self._totals[0], self._totals[1], self._totals[2] = 0, 0, size
        self.beats()

    @property
    def size(self) -> int:
        """Number of files expected."""
        return self._totals[2]

    def beats(self) -> None:
        """Record that the threads of the process are running."""
        self._beat[0] = time.monotonic()

    def is_stalled(self, limit: float) -> bool:
        """Whether no thread of the process has run for a while."""
        # This happens if one thread holds the GIL: then every file looks overdue, and only one of them is to blame.
        return time.monotonic() - self._beat[0] > min(limit / 2, STALL_SECONDS)

    def runs(self, number: int, stage: str) -> None:
        """Record that a stage starts to work on a file."""
        self._since[number] = time.monotonic()
        self._places[number] = _RUNNING[stage]

    def waits(self, number: int, stage: str) -> None:
        """Record that a file waits for a stage."""
        self._places[number] = _WAITING[stage]

    def mark_suspect(self, number: int) -> None:
        """Mark a file as a possible reason for the end of its process; no time limit applies to it any more."""
        self._since[number] = math.inf

    def ended(self, number: int, *, ok: bool) -> None:
        """Record that a file has an outcome."""
        self._places[number] = _ENDED
        with self._lock:
            self._totals[0] += 1
            self._totals[1] += not ok

    def totals(self) -> tuple[int, int]:
        """Return how many files have an outcome, and how many of them failed."""
        return self._totals[0], self._totals[1]

    def running(self) -> dict[int, Place]:
        """Return the files that a stage works on, by number."""
        now, places = time.monotonic(), bytes(self._places)
        found = (match.start() for match in _IS_RUNNING.finditer(places))
        return {number: Place(STAGES[places[number] - 1], now - self._since[number]) for number in found}

    def waiting(self) -> dict[str, int]:
        """Return how many files wait for each stage."""
        places = bytes(self._places)
        return {stage: count for stage, code in _WAITING.items() if (count := places.count(code))}


class SnapshotWriter:
    """Write snapshots of a child's work from its board, twice a second.

    Args:
        path: Path of the snapshot.
        pick: Returns the files with these numbers, by number.
        received: Returns the number of bytes of a file that are downloaded so far.
    """

    def __init__(self, path: Path, pick: Callable[[Iterable[int]], Mapping[int, FileData]], received: Callable[[FileData], int]) -> None:
        self._path = path
        self._pick = pick
        self._received = received
        self._due = time.monotonic() + FIRST_SECONDS

    def write(self, board: Board) -> None:
        """Write a snapshot, if one is due."""
        if time.monotonic() > self._due:
            self._due = time.monotonic() + SNAPSHOT_SECONDS
            # If another process has ended the run, the catalog is gone, or that of the next run; that is no reason to stop the child.
            with suppress(OSError, ValueError):
                keep_snapshot(self._path, self.snapshot(board))

    def snapshot(self, board: Board) -> Snapshot:
        """Return a snapshot of the current state."""
        running = board.running()
        files = self._pick(running)
        sizes = {number: self._received(files[number]) for number, place in running.items() if place.stage == STAGES[0]}
        timed = [(number, place) for number, place in running.items() if math.isfinite(place.seconds)]
        slowest = sorted(timed, key=lambda item: -item[1].seconds)[:SHOWN_SLOWEST]
        return Snapshot(
            running=Counter(place.stage for place in running.values()),
            waiting=board.waiting(),
            slowest=[
                Slow(id=files[number].id, stage=place.stage, since=time.time() - place.seconds, bytes=sizes.get(number, 0))
                for number, place in slowest
            ],
            bytes=sum(sizes.values()),
        )
