"""What the files of a process use up in it: descriptors, threads, memory, its standard streams.

All of it is given back when the process ends, so a worn process is replaced by another one.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import threading
from contextlib import suppress

from dpp.errors import errors_behind
from dpp.workspace.machine import current_folder, is_thread_refusal

NEEDED_DESCRIPTORS = 32
SPARE_THREADS = 256
_STANDARD_STREAMS = 3
_ROOT = os.stat("/")
# EBADF: a plugin closed descriptors that are not its own, as daemons do at their start. EFBIG: it limited the size of files.
_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBADF, errno.EFBIG})


class UsedUp(Exception):
    """End a process whose files have used up something that its other files need."""


def check_root() -> None:
    """Raise UsedUp if a step has changed the root folder of this process (chroot(2)): what is written now is not in the workspace."""
    if not os.path.samestat(os.stat("/"), _ROOT):
        raise UsedUp("a step changed the root folder of its process")


class Wear:
    """Compare this process with its state at the start; a check takes about four microseconds."""

    def __init__(self) -> None:
        self._root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        first, limit = self._free_descriptor(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._first_free = min(first, _STANDARD_STREAMS)
        self._last_free = first + (limit - first) // 2
        self._most_threads = threading.active_count() + SPARE_THREADS
        self._folder = current_folder()

    def is_worn(self) -> bool:
        """Whether half of the free descriptors are in use, many threads were left, or a standard stream was closed."""
        return (
            not self._first_free <= self._free_descriptor() <= self._last_free
            or threading.active_count() > self._most_threads
            or any(stream is not None and stream.closed for stream in (sys.stdout, sys.stderr))
        )

    def _free_descriptor(self) -> int:
        """Return the lowest free descriptor; -1 if there is none."""
        try:
            descriptor = os.dup(self._root)
        except OSError:
            return -1
        os.close(descriptor)
        return descriptor

    def restore_folder(self) -> None:
        """Return to the current folder of the start, if a plugin has changed it."""
        if self._folder and current_folder() != self._folder:
            with suppress(OSError):
                os.chdir(self._folder)

    def close(self) -> None:
        """End the comparison."""
        with suppress(OSError):
            os.close(self._root)


def starts_sound() -> bool:
    """Whether this process can open a few dozen files, of any size; otherwise the system's limits are to blame, and no file."""
    opened: list[int] = []
    try:
        opened.extend(os.open("/", os.O_PATH | os.O_CLOEXEC) for _ in range(NEEDED_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def says_used_up(error: BaseException) -> bool:
    """Whether an exception says that its process has used up its descriptors, threads or memory."""
    return any(map(_says_used_up, errors_behind(error)))


def _says_used_up(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _USED_UP
    return isinstance(error, MemoryError) or is_thread_refusal(error)
