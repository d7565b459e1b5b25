"""How far a chunk is: said in the log, and to Luigi's scheduler."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from dpp.models import Outcome

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0


class Progress:
    """Say how far a chunk is, in the log every few seconds and at its end, and to Luigi's scheduler.

    Args:
        name: What the log calls the chunk.
        total: Files in the chunk.
        task: The Luigi task.
        percent: Says how much of the whole batch is done.
    """

    def __init__(self, name: str, total: int, task: Any, percent: Callable[[], int]) -> None:
        self._name, self._total, self._task, self._percent = name, total, task, percent
        self._lock = threading.Lock()
        self._done = self._failed = 0
        self._said = time.monotonic()

    def count(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        with self._lock:
            self._done += 1
            self._failed += not outcome.ok
            if self._done == self._total:
                self._say()

    def wait(self) -> None:
        """Take note that time passes."""
        with self._lock:
            if time.monotonic() - self._said > PROGRESS_SECONDS:
                self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        message = f"{self._done} of {self._total} files, {self._failed} failed"
        log.info("%s: %s; %d %% of the batch", self._name, message, self._percent())
        for report, value in (("set_status_message", message), ("set_progress_percentage", 100 * self._done // self._total)):
            if callable(tell := getattr(self._task, report, None)):
                tell(value)
