"""How far a chunk is, for Luigi's scheduler and its visualizer."""

from __future__ import annotations

import time
from typing import Any

SECONDS = 5.0


class Progress:
    """Tell Luigi's scheduler how far a chunk is, every few seconds and at the end.

    Args:
        total: Files in the chunk.
        task: The Luigi task.
    """

    def __init__(self, total: int, task: Any) -> None:
        self._total, self._task = total, task
        self._told = time.monotonic()

    def tell(self, done: int, failed: int) -> None:
        """Take note of how many files have their outcome, and how many of them failed."""
        now = time.monotonic()
        if done < self._total and now - self._told < SECONDS:
            return
        self._told = now
        message = f"{done} of {self._total} files, {failed} failed"
        for report, value in (("set_status_message", message), ("set_progress_percentage", 100 * done // self._total)):
            if callable(tell := getattr(self._task, report, None)):
                tell(value)
