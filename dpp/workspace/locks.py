"""Locks among processes of one machine (flock(2)); each ends with the process that holds it.

BatchLock    a batch, held alone by its run, or shared by the processes that work on it
FolderLock   a download, held alone while it is made
Hold         a download, shared while it is read
open_locked  a small file that processes keep a number or a place in
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from dpp.errors import LockedError
from dpp.workspace.atomic import is_alive, make_folder, stops_run

_HOLDER = "pid {pid} on {host} since {since}"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TRIES = 3
PAUSE = 0.01
NAMED_SECONDS = 1.0


class BatchLock:
    """A lock file; children of the process that holds it hold it too.

    Args:
        path: The lock file; it says who held it last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        with stops_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def exclusive(self) -> None:
        """Hold the lock alone, or raise LockedError naming its holder.

        Tried a few times, as somebody may only be asking whether it is free.
        """
        for _ in range(TRIES):
            if self.try_exclusive():
                return
            time.sleep(PAUSE)
        raise self.held()

    def held(self) -> LockedError:
        """Return the error that names the holder.

        Who has just got the lock may not have written down yet that it has; until then the one before it stands there.
        """
        deadline = time.monotonic() + NAMED_SECONDS
        while _is_over(holder := self._holder()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        by = f"what {holder} left running" if holder and _is_over(holder) else holder or "somebody"
        return LockedError(f"this batch is being run by {by}; wait for it to end or stop it, then run the same command again")

    def _holder(self) -> str:
        return os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip()

    def try_exclusive(self) -> bool:
        """Hold the lock alone, if nobody else holds it; a shared lock held before is lost if not."""
        if not self._try(fcntl.LOCK_EX):
            return False
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = _HOLDER.format(pid=os.getpid(), host=socket.gethostname(), since=since)
        with stops_run(self._path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder.encode(), 0)
        return True

    def try_shared(self) -> bool:
        """Hold the lock with others, unless somebody holds it alone."""
        return self._try(fcntl.LOCK_SH)

    def is_free(self) -> bool:
        """Whether nobody else holds the lock; asking takes it for a moment."""
        return self._try(fcntl.LOCK_EX)

    def _try(self, mode: int) -> bool:
        try:
            fcntl.flock(self._descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let the lock go for all processes that hold it with this one."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let the lock go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _is_over(holder: str) -> bool:
    """Whether a text names no holder, or one of this machine that is no more."""
    words = holder.split()
    return len(words) < len(_HOLDER.split()) or (words[3] == socket.gethostname() and not is_alive(words[1]))


class FolderLock:
    """Hold a folder alone, among all threads and processes of this machine; say whether it is empty.

    The folder is made where it is missing. Two files with one URL, or two batches, share one download.
    """

    __slots__ = ("_descriptor", "_folder")

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> bool:
        while True:
            with stops_run(self._folder):
                make_folder(self._folder)
                try:
                    self._descriptor = os.open(self._folder, _FOLDER)
                except FileNotFoundError:
                    if Path(self._folder).is_symlink():
                        raise
                    continue  # who was done with it removed it at this moment
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                if os.fstat(self._descriptor).st_nlink:  # else it was removed while we waited
                    return not os.listdir(self._descriptor)
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def share(self) -> Hold:
        """Return what goes on holding the folder, together with others, when this lock is let go."""
        return Hold(os.dup(self._descriptor))


class Hold:
    """Hold a folder together with others, so that nobody removes what is in it.

    Args:
        descriptor: The folder, opened; closed with :meth:`release`.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Hold the folder alone, if nobody else holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let the folder go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def share_folder(folder: str) -> Hold | None:
    """Hold a folder together with others; None where it is not there."""
    with stops_run(folder), suppress(FileNotFoundError):
        return Hold(os.open(folder, _FOLDER))
    return None


def open_locked(path: Path) -> int:
    """Open a small file, made as needed, once no other process holds it; it is held until the descriptor is closed."""
    descriptor = _open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_open_locked(path: Path) -> int | None:
    """Open a small file as :func:`open_locked` does; return None where another process holds it."""
    descriptor = _open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open_private(path: Path) -> int:
    with stops_run(path):
        make_folder(str(path.parent))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
