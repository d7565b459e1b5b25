"""How far a chunk is: a snapshot for whoever watches the run, and Luigi's scheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dpp.models import Outcome
from dpp.snapshot import InFlight, Snapshot

FIRST_SECONDS = 0.1
SNAPSHOT_SECONDS = 0.5
SCHEDULER_SECONDS = 5.0


class Progress:
    """Keep a snapshot of what a chunk has on its way, and tell Luigi's scheduler how far it is.

    Args:
        total: Files in the chunk.
        task: The Luigi task.
        keep: Writes a snapshot down.
    """

    def __init__(self, total: int, task: Any, keep: Callable[[Snapshot], None]) -> None:
        self._total, self._task, self._keep = total, task, keep
        self._lock = threading.Lock()
        self._done = self._failed = 0
        self._told = time.monotonic()
        self._kept = self._told - SNAPSHOT_SECONDS + FIRST_SECONDS

    def count(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        with self._lock:
            self._done += 1
            self._failed += not outcome.ok
        if self._done == self._total:
            self._tell()

    def wait(self, in_flight: InFlight) -> None:
        """Take note that time passes."""
        now = time.monotonic()
        if now - self._kept > SNAPSHOT_SECONDS:
            self._kept = now
            self._keep(in_flight.snapshot())
        if now - self._told > SCHEDULER_SECONDS:
            self._told = now
            self._tell()

    def _tell(self) -> None:
        message = f"{self._done} of {self._total} files, {self._failed} failed"
        for report, value in (("set_status_message", message), ("set_progress_percentage", 100 * self._done // self._total)):
            if callable(tell := getattr(self._task, report, None)):
                tell(value)
