"""A processor for dpp that counts lines, and an example of a plugin package."""

from __future__ import annotations

from dpp import BaseProcessor, FileData, hookimpl

__all__ = ["LineCount", "dpp_processors"]


class LineCount(BaseProcessor):
    """Count the lines of a file like ``wc -l``, and also a last line without a line feed."""

    name = "line-count"
    version = "1"

    skip_blank: bool = False
    """Whether lines with only white space are skipped."""

    def process(self, file: FileData) -> dict[str, int]:
        """Return the number of lines as ``{"lines": number}``."""
        assert file.local_path is not None
        with file.local_path.open("rb") as stream:
            return {"lines": sum(1 for line in stream if line.strip() or not self.skip_blank)}


@hookimpl
def dpp_processors() -> list[type[BaseProcessor]]:
    """Return the processor of this package."""
    return [LineCount]
