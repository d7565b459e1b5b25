"""A processor that waits, like one that sends a request to a server."""

from __future__ import annotations

import time

from dpp import BaseProcessor, FileData


class Nap(BaseProcessor):
    """Wait for a fixed time for each file."""

    name = "nap"
    version = "1"
    seconds: float = 0.05

    def process(self, file: FileData) -> float:
        time.sleep(self.seconds)
        return self.seconds
