"""A processor that uses processor time with pure Python."""

from __future__ import annotations

from burn import burn
from dpp import BaseProcessor, FileData


class Burn(BaseProcessor):
    """Run a fixed number of loops for each file."""

    name = "burn"
    version = "1"
    loops: int = 1

    def process(self, file: FileData) -> int:
        return burn(self.loops)
