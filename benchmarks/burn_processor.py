"""A processor that burns pure Python."""

from __future__ import annotations

from burn import burn
from dpp import BaseProcessor, FileData


class Burn(BaseProcessor):
    """Burn a fixed number of loops, whatever the file holds."""

    name = "burn"
    version = "1"
    loops: int = 1

    def process(self, file: FileData) -> int:
        return burn(self.loops)
