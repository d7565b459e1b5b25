"""Which files are taken, and when they are ready; no I/O."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dpp import ConfigurationError

IGNORED = (".*", "*.part", "*.tmp", "*.crdownload")
NAME = "{name}"


@dataclass(frozen=True)
class Rules:
    """The rules of a watcher.

    Attributes:
        patterns: Shell patterns of the files to take, case-sensitive; all if empty. One with a slash is for the path in the folder.
        ignored: Patterns of files and folders to skip, besides :data:`IGNORED`.
        recursive: Whether files in sub-folders are taken.
        ready: ``closed``: no process of this machine writes to the file. ``settle``: it has not changed for ``settle`` seconds, either.
            ``marker``: there is a marker for it, as well.
        settle: Seconds without a change.
        marker: Name of a file's marker, with ``{name}`` for the name of the file.
        collect: Seconds from the last change of a file to its batch, within which further files join it.
        max_files: Maximum number of files per batch.
        scan: Seconds between two scans of the folder.
        changed: What becomes of a file that is rewritten after it was taken: ``again``, ``ignore`` or ``fail``.
        give_up: Number of batches that try a file.
    """

    patterns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    recursive: bool = False
    ready: Literal["closed", "settle", "marker"] = "settle"
    settle: float = 2.0
    marker: str = "{name}.done"
    collect: float = 5.0
    max_files: int = 1000
    scan: float = 60.0
    changed: Literal["again", "ignore", "fail"] = "again"
    give_up: int = 3

    def __post_init__(self) -> None:
        if self.has_markers and (self.marker.count(NAME) != 1 or self.marker == NAME or "/" in self.marker):
            raise ConfigurationError(
                f"--marker {self.marker!r}: expected a file name with {NAME} once, and more than that, such as '{NAME}.done' for a.nc.done"
            )
        object.__setattr__(self, "_wanted", _Patterns(self.patterns))
        object.__setattr__(self, "_skipped", _Patterns((*IGNORED, *self.ignored, *([self.marker.replace(NAME, "*")] * self.has_markers))))

    @property
    def has_markers(self) -> bool:
        """Whether a file is ready only if there is a marker for it."""
        return self.ready == "marker"

    @property
    def still_seconds(self) -> float:
        """Seconds without a change after which a file may be taken."""
        return 0.0 if self.ready == "closed" else self.settle

    def takes(self, path: str) -> bool:
        """Whether a file is taken, given its path in the folder."""
        wanted: _Patterns = self._wanted  # type: ignore[attr-defined] # made from the other fields
        return not self.skips(path) and (not self.patterns or wanted.match(path))

    def skips(self, path: str) -> bool:
        """Whether a file or a folder is skipped, given its path in the folder."""
        skipped: _Patterns = self._skipped  # type: ignore[attr-defined] # as above
        return skipped.match(path)

    def why_skipped(self, path: str) -> str:
        """Return why a file is not taken; "" if it is."""
        if self.skips(path):
            return f"its name is ignored ({', '.join((*IGNORED, *self.ignored))})" if not self.marked_by(path) else "it is a marker"
        return "" if self.takes(path) else f"its name does not match {', '.join(self.patterns)}"

    def marker_of(self, path: str) -> str:
        """Return the path of a file's marker."""
        folder, slash, name = path.rpartition("/")
        return f"{folder}{slash}{self.marker.replace(NAME, name)}"

    def marked_by(self, path: str) -> str:
        """Return the path of the file whose marker this is; "" if it is no marker."""
        before, _, after = self.marker.partition(NAME)
        folder, slash, name = path.rpartition("/")
        is_marker = self.has_markers and name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
        return f"{folder}{slash}{name[len(before) : len(name) - len(after)]}" if is_marker else ""


def is_folder(place: str) -> bool:
    """Whether a watched place is a folder of this machine, whose path is absolute, and not the URL of a source."""
    return place.startswith("/")


class _Patterns:
    """Shell patterns, in one regular expression each for names and for paths: a file is matched in a microsecond."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = tuple(patterns)
        self._names = _joined(pattern for pattern in given if "/" not in pattern)
        self._paths = _joined(pattern for pattern in given if "/" in pattern)

    def match(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        return bool((self._names and self._names.match(name)) or (self._paths and self._paths.match(path)))


def _joined(patterns: Iterable[str]) -> re.Pattern[str] | None:
    texts = [fnmatch.translate(pattern) for pattern in patterns]
    return re.compile("|".join(texts)) if texts else None
