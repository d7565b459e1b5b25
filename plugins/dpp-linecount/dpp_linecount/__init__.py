"""Count lines: a processor for dpp, and an example of a plugin package."""

from __future__ import annotations

from dpp import BaseProcessor, FileData, hookimpl

__all__ = ["LineCount", "dpp_processors"]


class LineCount(BaseProcessor):
    """Count the lines of a file, as ``wc -l`` does it, but with a last line that has no line feed counted too."""

    name = "line-count"
    version = "1"

    skip_blank: bool = False
    """Skip lines that have only white space."""

    def process(self, file: FileData) -> dict[str, int]:
        """Return the number of ``lines``."""
        assert file.local_path is not None
        with file.local_path.open("rb") as stream:
            return {"lines": sum(1 for line in stream if line.strip() or not self.skip_blank)}


@hookimpl
def dpp_processors() -> list[type[BaseProcessor]]:
    """Offer the processor."""
    return [LineCount]
