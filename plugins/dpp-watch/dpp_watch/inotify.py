"""Events of folders from inotify(7).

Of the libraries for it, watchdog reads events in a thread, and a process that starts batches by fork(2) should have none; it also shows
an overflow of the queue in its log only, and a watcher must scan then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

CLOSE_WRITE, MOVED_TO, CREATE, DELETE_SELF, MOVE_SELF = 0x8, 0x80, 0x100, 0x400, 0x800
_Q_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = CLOSE_WRITE | MOVED_TO | CREATE | DELETE_SELF | MOVE_SELF | _ONLYDIR | _DONT_FOLLOW
_HEAD = struct.Struct("iIII")
_BUFFER = 256 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


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
        self.descriptor: int = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._paths: dict[int, str] = {}

    def add(self, folder: str, path: str) -> None:
        """Watch a folder; a further call for the same folder only changes its path.

        Args:
            folder: The folder.
            path: Its path below the watched folder, for events.

        Raises:
            OSError: No watches are left (ENOSPC), or there is no such folder.
        """
        self._paths[_checked(_libc.inotify_add_watch(self.descriptor, os.fsencode(folder), _MASK))] = path

    def read(self) -> Iterator[Event]:
        """Yield the events that are there, without waiting."""
        while True:
            try:
                data = os.read(self.descriptor, _BUFFER)
            except BlockingIOError:
                return
            yield from self._events(data)

    def _events(self, data: bytes) -> Iterator[Event]:
        start = 0
        while start < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, start)
            name = data[start + _HEAD.size : start + _HEAD.size + length].rstrip(b"\0")
            start += _HEAD.size + length
            if mask & _Q_OVERFLOW:
                yield Event("", is_overflow=True)
            elif mask & _IGNORED:
                self._paths.pop(watch, None)
            elif (folder := self._paths.get(watch)) is not None:
                path = os.fsdecode(name)
                yield Event(f"{folder}/{path}" if folder and path else folder or path, bool(mask & _ISDIR) or not path)

    def close(self) -> None:
        """Stop watching."""
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def why_unavailable(error: OSError) -> str:
    """Return why there are no events, and what to do."""
    if error.errno == errno.ENOSPC:
        return "no inotify watches are left (sysctl fs.inotify.max_user_watches)"
    if error.errno == errno.EMFILE:
        return "no inotify instances are left (sysctl fs.inotify.max_user_instances)"
    return f"inotify: {error.strerror}"
