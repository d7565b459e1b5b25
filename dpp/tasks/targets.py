"""Luigi targets: files that count as existing only when they are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import luigi


class FileTarget(luigi.LocalTarget):
    """A file with a check of its own.

    Args:
        path: Where it lies.
        whole: Returns whether what lies there is complete; by default that it is there.
    """

    def __init__(self, path: Path, whole: Callable[[], bool] | None = None) -> None:
        super().__init__(str(path))
        self._whole = whole or path.exists

    def exists(self) -> bool:
        """Return whether the file is there and whole."""
        return self._whole()
