"""The progress of a chunk, for Luigi's scheduler and its visualizer."""

from __future__ import annotations

import time
from typing import Any

SECONDS = 5.0


class Progress:
    """Report the progress of a chunk to Luigi's scheduler.

    Args:
        total: Files in the chunk.
        task: The Luigi task.
    """

    def __init__(self, total: int, task: Any) -> None:
        self._total, self._task = total, task
        self._told = time.monotonic()

    def tell(self, done: int, failed: int) -> None:
        """Report how many files have an outcome, and how many of them failed."""
        now = time.monotonic()
        # Each report is a request to the scheduler.
        if done < self._total and now - self._told < SECONDS:
            return
        self._told = now
        message = f"{done} of {self._total} files, {failed} failed"
        for report, value in (("set_status_message", message), ("set_progress_percentage", 100 * done // self._total)):
            # Luigi sets these functions only while it runs the task.
            if callable(tell := getattr(self._task, report, None)):
                tell(value)
