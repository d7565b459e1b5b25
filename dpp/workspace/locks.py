"""Locks between the processes of one machine (flock(2)); each ends with the process that holds it.

BatchLock    on a batch: exclusive for its run, or shared by the processes that work on it
FolderLock   on a download: exclusive while it is made
Hold         on a download: shared while it is read
LockedFile   on a small file with a number, or one that stands for a place

flock(2) locks an open file, and a forked process has the same open file. So a process that a plugin forks, such as a pool of
workers, would keep every lock of its parent for as long as it lives. Therefore each lock is released explicitly before its file
is closed, and a forked process closes the files at once, unless it was forked inside :func:`kept_in_fork`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from dpp.errors import LockedError
from dpp.workspace.atomic import is_alive, make_folder, stops_run
from dpp.workspace.machine import no_locks

_HOLDER = "pid {pid} on {host} since {since}"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TRIES = 3
PAUSE = 0.01
FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.05
NAMED_SECONDS = 1.0


class _Forks(threading.local):
    """Whether a process that this thread forks keeps the locks."""

    keep = False


_forks = _Forks()
_open: dict[int, LockedFile] = {}


def keep_in_fork(*, keep: bool) -> None:
    """Set whether a process that this thread forks keeps the locks; the processes that it forks itself do not."""
    _forks.keep = keep


@contextmanager
def kept_in_fork() -> Iterator[None]:
    """Let a process that this thread forks in the block keep the locks."""
    keep_in_fork(keep=True)
    try:
        yield
    finally:
        keep_in_fork(keep=False)


def _close_in_fork() -> None:
    keep, _forks.keep = _forks.keep, False
    for file in [*_open.values()]:
        if not (keep and file.is_inherited):
            file.close()


os.register_at_fork(after_in_child=_close_in_fork)


class LockedFile:
    """An open file or folder that can be locked.

    Args:
        descriptor: Its descriptor, which belongs to this object from now on.
        is_inherited: Whether a process that is forked inside of :func:`kept_in_fork` keeps it.
    """

    __slots__ = ("_owner", "descriptor", "is_inherited")

    def __init__(self, descriptor: int, *, is_inherited: bool = True) -> None:
        self.descriptor = descriptor
        self.is_inherited = is_inherited
        self._owner = os.getpid()
        _open[descriptor] = self

    def lock(self, mode: int, sleep: Callable[[float], None] = time.sleep) -> None:
        """Lock the file (LOCK_EX, LOCK_SH); call ``sleep`` between the attempts, which may raise an exception to give up."""
        # A blocking flock() in a thread could not be interrupted.
        pause = FIRST_PAUSE
        while not self.try_lock(mode):
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def try_lock(self, mode: int) -> bool:
        """Lock the file (LOCK_EX, LOCK_SH), unless another holder prevents it; a lock held before may be lost then.

        Raises:
            EnvironmentStop: The file system has no locks, as some of NFS, Lustre and FUSE.
        """
        try:
            fcntl.flock(self.descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise no_locks(self.descriptor, error) from error
        return True

    def release(self) -> None:
        """Unlock and close the file; further calls do nothing. A process that was forked with the lock only closes it."""
        if self.descriptor >= 0:
            if self._owner == os.getpid():
                # A file system without locks refuses this as well.
                with suppress(OSError):
                    fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            self.close()

    def close(self) -> None:
        """Close the file without unlocking it."""
        # In this order: a process forked in between must not close a descriptor that has another meaning by then.
        del _open[self.descriptor]
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)


class _HolderLock:
    """A lock file that contains its last holder.

    Args:
        path: The lock file.
        is_inherited: Whether children that are forked inside of :func:`kept_in_fork` hold the lock, too.
    """

    def __init__(self, path: Path, *, is_inherited: bool) -> None:
        self._path = path
        with stops_run(path):
            self._file = LockedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), is_inherited=is_inherited)

    def try_exclusive(self) -> bool:
        """Take the lock exclusively, if no other process holds it; otherwise a shared lock held before is lost."""
        if not self.try_alone():
            return False
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = _HOLDER.format(pid=os.getpid(), host=socket.gethostname(), since=since)
        with stops_run(self._path):
            os.ftruncate(self._file.descriptor, 0)
            os.pwrite(self._file.descriptor, holder.encode(), 0)
        return True

    def try_alone(self) -> bool:
        """Take the lock exclusively, if no other process holds it, without recording this process as its holder."""
        return self._file.try_lock(fcntl.LOCK_EX)

    def is_held(self) -> bool:
        """Whether another process holds the lock; it is released for good, as by :meth:`release`."""
        try:
            return not self.try_alone()
        finally:
            self.release()

    def try_hard(self) -> bool:
        """Take the lock exclusively, if no other process holds it for longer than a moment, as in :meth:`try_alone`."""
        for _ in range(TRIES):
            if self.try_exclusive():
                return True
            time.sleep(PAUSE)
        return False

    def holder(self) -> str:
        """Return the last holder: "pid ... on <host> since ...", or "" if there was none."""
        return os.pread(self._file.descriptor, 1000, 0).decode(errors="replace").strip()

    def release(self) -> None:
        """Release the lock; further calls do nothing. A child that holds it together with its parent leaves it to the parent."""
        self._file.release()

    def __del__(self) -> None:
        # It is not there if the file could not be opened.
        if hasattr(self, "_file"):
            self.release()


class BatchLock(_HolderLock):
    """Lock a batch; children forked inside :func:`kept_in_fork` hold the lock, too.

    Args:
        path: The lock file.
    """

    def __init__(self, path: Path) -> None:
        with stops_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, is_inherited=True)

    def exclusive(self) -> None:
        """Take the lock exclusively, or raise LockedError with its holder."""
        if not self.try_hard():
            raise self.held_error()

    def held_error(self) -> LockedError:
        """Return an error with the holder of the lock."""
        # A process that has just taken the lock may not have written its own name yet; until then the file has the previous holder.
        deadline = time.monotonic() + NAMED_SECONDS
        while _is_over(holder := self.holder()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return held_error(f"a child process of {holder}" if holder and _is_over(holder) else holder)

    def try_shared(self) -> bool:
        """Take the lock together with others, unless another process holds it exclusively."""
        return self._file.try_lock(fcntl.LOCK_SH)

    def unlock(self) -> None:
        """Release the lock for all processes that hold it together with this one."""
        fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)


class ChunkLock(_HolderLock):
    """Lock a chunk, so that one process at a time runs it; no process that is forked holds the lock.

    It is a flock(2) of the process that supervises the chunk, which runs no plugins. A process that it forks closes the file before any
    plugin runs, so the lock ends with its holder, whatever a plugin has left running. On NFS, Linux makes it a lock that all clients
    see (flock(2), NOTES); Lustre has it with the mount option ``flock``.

    Args:
        path: The lock file, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, is_inherited=False)


def held_error(holder: str) -> LockedError:
    """Return the error for a batch that a process runs; "" if it is unknown which one."""
    by = holder or "another process"
    return LockedError(f"this batch is being run by {by}; wait for it to end or stop it, then run the same command again")


def _is_over(holder: str) -> bool:
    """Whether a text contains no holder, or a process of this machine that has ended."""
    words = holder.split()
    return len(words) < len(_HOLDER.split()) or (words[3] == socket.gethostname() and not is_alive(words[1]))


class FolderLock:
    """Lock a folder exclusively among all threads and processes of this machine, and return whether it is empty; create it if needed.

    Args:
        folder: Path of the folder.
        sleep: Called between two attempts with the seconds to wait; it may raise an exception to give up.
    """

    # Two files with the same URL share one download, also if they are in different batches.
    __slots__ = ("_file", "_folder", "_sleep")

    def __init__(self, folder: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._sleep = sleep

    def __enter__(self) -> bool:
        while True:
            file = self._opened()
            try:
                file.lock(fcntl.LOCK_EX, self._sleep)
                # The folder may have been removed while this process waited; then its link count is 0.
                with stops_run(self._folder):
                    names = os.listdir(file.descriptor) if os.fstat(file.descriptor).st_nlink else None
                if names is not None:
                    self._file: LockedFile | None = file
                    return not names
            except BaseException:
                file.release()
                raise
            file.release()

    def _opened(self) -> LockedFile:
        while True:
            with stops_run(self._folder):
                make_folder(self._folder)
                try:
                    return LockedFile(os.open(self._folder, _FOLDER))
                except FileNotFoundError:
                    # If it is no broken link, another process that had finished removed the folder at this moment.
                    if Path(self._folder).is_symlink():
                        raise

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.release()

    def share(self) -> Hold:
        """Make the lock a shared one, which stays at the end of the block."""
        assert self._file is not None
        # Another process may take the lock at this moment, as the change is not atomic (flock(2)).
        self._file.lock(fcntl.LOCK_SH, self._sleep)
        file, self._file = self._file, None
        return Hold(file)


class Hold:
    """A shared lock on a folder, which keeps other processes from removing its files.

    Args:
        file: The open folder, locked.
    """

    __slots__ = ("_file",)

    def __init__(self, file: LockedFile) -> None:
        self._file = file

    def try_exclusive(self) -> bool:
        """Make the lock exclusive, if no other process or thread holds it."""
        return self._file.try_lock(fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock; further calls do nothing."""
        self._file.release()


def share_folder(folder: str) -> Hold | None:
    """Take a shared lock on a folder; return None if the folder does not exist, or another process holds it exclusively."""
    with stops_run(folder), suppress(FileNotFoundError):
        file = LockedFile(os.open(folder, _FOLDER))
        if file.try_lock(fcntl.LOCK_SH):
            return Hold(file)
        file.release()
    return None


def open_locked(path: Path) -> LockedFile:
    """Open a small file and lock it exclusively, and wait for other holders. Create the file if needed."""
    file = _open_private(path)
    try:
        file.lock(fcntl.LOCK_EX)
    except BaseException:
        file.release()
        raise
    return file


def try_open_locked(path: Path) -> LockedFile | None:
    """Open and lock a small file as :func:`open_locked` does; return None if another process holds it."""
    file = _open_private(path)
    if file.try_lock(fcntl.LOCK_EX):
        return file
    file.release()
    return None


def _open_private(path: Path) -> LockedFile:
    with stops_run(path):
        make_folder(str(path.parent))
        return LockedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
