"""The progress of a task, for Luigi's scheduler and its visualizer."""

from __future__ import annotations

import time
from typing import Any

from dpp.errors import EnvironmentStop
from dpp.names import counted

SECONDS = 5.0


class Progress:
    """Report the progress of a task to Luigi's scheduler.

    Args:
        task: The Luigi task.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._told = time.monotonic()
        self._is_lost = False

    def files(self, done: int, failed: int, total: int) -> None:
        """Report how many of a chunk's files have an outcome, and how many of them failed."""
        if (done == total and not self._is_lost) or self._is_due():
            self._report("set_status_message", f"{done} of {counted(total, 'file')}, {failed} failed")
            self._report("set_progress_percentage", 100 * done // total)

    def bytes(self, count: int) -> None:
        """Report how many bytes of a file are downloaded; nothing while there are none."""
        if count and self._is_due():
            self._report("set_status_message", f"{count:,} bytes downloaded")

    def _is_due(self) -> bool:
        # Each report is a request to the scheduler.
        is_due = not self._is_lost and time.monotonic() - self._told >= SECONDS
        if is_due:
            self._told = time.monotonic()
        return is_due

    def _report(self, name: str, value: Any) -> None:
        # Luigi sets these functions only while it runs the task.
        if callable(report := getattr(self._task, name, None)):
            try:
                report(value)
            except EnvironmentStop:
                # The scheduler cannot be reached at the moment. A task does not need it before its end, and each attempt takes long.
                self._is_lost = True
