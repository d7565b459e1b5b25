"""A processor that waits, as one does that asks another server."""

from __future__ import annotations

import time

from dpp import BaseProcessor, FileData


class Nap(BaseProcessor):
    """Wait for a while, whatever the file holds."""

    name = "nap"
    version = "1"
    seconds: float = 0.05

    def process(self, file: FileData) -> float:
        time.sleep(self.seconds)
        return self.seconds
