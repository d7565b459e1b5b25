"""Locks between the processes of one machine (flock(2)); each ends with the process that holds it.

BatchLock    on a batch: exclusive for its run, or shared by the processes that work on it
FolderLock   on a download: exclusive while it is made
Hold         on a download: shared while it is read
open_locked  on a small file with a number, or one that stands for a place
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
    """Lock a batch with a lock file; children of the process that holds the lock hold it too.

    Args:
        path: The lock file; it contains the last holder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        with stops_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def exclusive(self) -> None:
        """Take the lock exclusively, or raise LockedError with its holder."""
        # Another process may hold it only for a moment, in try_alone().
        for _ in range(TRIES):
            if self.try_exclusive():
                return
            time.sleep(PAUSE)
        raise self.held_error()

    def held_error(self) -> LockedError:
        """Return an error with the holder of the lock."""
        # A process that has just taken the lock may not have written its own name yet; until then the file has the previous holder.
        deadline = time.monotonic() + NAMED_SECONDS
        while _is_over(holder := self._holder()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        by = f"a child process of {holder}" if holder and _is_over(holder) else holder or "another process"
        return LockedError(f"this batch is being run by {by}; wait for it to end or stop it, then run the same command again")

    def _holder(self) -> str:
        return os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip()

    def try_exclusive(self) -> bool:
        """Take the lock exclusively, if no other process holds it; otherwise a shared lock held before is lost."""
        if not _try_lock(self._descriptor, fcntl.LOCK_EX):
            return False
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = _HOLDER.format(pid=os.getpid(), host=socket.gethostname(), since=since)
        with stops_run(self._path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder.encode(), 0)
        return True

    def try_shared(self) -> bool:
        """Take the lock together with others, unless another process holds it exclusively."""
        return _try_lock(self._descriptor, fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        """Take the lock exclusively, if no other process holds it, without recording this process as its holder."""
        return _try_lock(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Release the lock for all processes that hold it together with this one."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def release(self) -> None:
        """Release the lock; further calls do nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _is_over(holder: str) -> bool:
    """Whether a text contains no holder, or a process of this machine that has ended."""
    words = holder.split()
    return len(words) < len(_HOLDER.split()) or (words[3] == socket.gethostname() and not is_alive(words[1]))


class FolderLock:
    """Lock a folder exclusively among all threads and processes of this machine, and return whether it is empty; create it if needed."""

    # Two files with the same URL share one download, also if they are in different batches.
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
                    # Another process that had finished removed the folder at this moment.
                    continue
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                # The folder may have been removed while this process waited; then its link count is 0.
                if os.fstat(self._descriptor).st_nlink:
                    return not os.listdir(self._descriptor)
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def share(self) -> Hold:
        """Return a shared lock on the folder, which stays when this lock is released."""
        return Hold(os.dup(self._descriptor))


class Hold:
    """A shared lock on a folder, which keeps other processes from removing its files.

    Args:
        descriptor: The open folder; :meth:`release` closes it.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Make the lock exclusive, if no other process or thread holds it."""
        return _try_lock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock; further calls do nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def share_folder(folder: str) -> Hold | None:
    """Take a shared lock on a folder; return None if the folder does not exist."""
    with stops_run(folder), suppress(FileNotFoundError):
        return Hold(os.open(folder, _FOLDER))
    return None


def open_locked(path: Path) -> int:
    """Open a small file and lock it, and wait for other holders; closing the descriptor releases it. Create the file if needed."""
    descriptor = _open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_open_locked(path: Path) -> int | None:
    """Open and lock a small file as :func:`open_locked` does; return None if another process holds it."""
    descriptor = _open_private(path)
    if _try_lock(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_private(path: Path) -> int:
    with stops_run(path):
        make_folder(str(path.parent))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
