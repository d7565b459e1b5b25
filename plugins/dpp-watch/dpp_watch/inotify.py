"""Events of folders from inotify(7), read with inotify_simple.

watchdog, which is better known, reads events in a thread, and a process that starts batches by fork(2) should have none; it also shows an
overflow of the queue in its log only, and a watcher must scan then.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from inotify_simple import INotify, flags

_MASK = flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR | flags.DONT_FOLLOW


class Event(NamedTuple):
    """An event.

    Attributes:
        path: Path of the file or folder below the watched folder; "" for the watched folder itself.
        is_folder: Whether it is a folder.
        is_overflow: Whether events were lost.
    """

    path: str
    is_folder: bool = False
    is_overflow: bool = False


class Inotify:
    """Watch folders; an event says that something was written, created, or moved there.

    Raises:
        OSError: The user has too many instances (EMFILE), or the system has no inotify.
    """

    def __init__(self) -> None:
        self._inotify = INotify()
        self._paths: dict[int, str] = {}

    @property
    def descriptor(self) -> int:
        """Descriptor that is readable when there are events."""
        return int(self._inotify.fileno())

    def add(self, folder: str, path: str) -> None:
        """Watch a folder; a further call for the same folder only changes its path.

        Args:
            folder: The folder.
            path: Its path below the watched folder, for events.

        Raises:
            OSError: No watches are left (ENOSPC), or there is no such folder.
        """
        self._paths[self._inotify.add_watch(folder, _MASK)] = path

    def read(self) -> Iterator[Event]:
        """Yield the events that are there, without waiting."""
        for watch, mask, _, name in self._inotify.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                yield Event("", is_overflow=True)
            elif mask & flags.IGNORED:
                self._paths.pop(watch, None)
            elif (folder := self._paths.get(watch)) is not None:
                yield Event(f"{folder}/{name}" if folder and name else folder or name, bool(mask & flags.ISDIR) or not name)

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()


def why_unavailable(error: OSError) -> str:
    """Return why there are no events, and what to do."""
    if error.errno == errno.ENOSPC:
        return "no inotify watches are left (sysctl fs.inotify.max_user_watches)"
    if error.errno == errno.EMFILE:
        return "no inotify instances are left (sysctl fs.inotify.max_user_instances)"
    return f"inotify: {error.strerror}"
