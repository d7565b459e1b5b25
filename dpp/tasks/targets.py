"""Luigi targets: files that exist for Luigi only when they are complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import luigi


class FileTarget(luigi.LocalTarget):
    """A file with its own check for completeness.

    Args:
        path: Path of the file.
        whole: Function that returns whether the file is complete; by default, whether it exists.
    """

    def __init__(self, path: Path, whole: Callable[[], bool] | None = None) -> None:
        super().__init__(str(path))
        self._whole = whole or path.exists

    def exists(self) -> bool:
        """Return whether the file exists and is complete."""
        return self._whole()
