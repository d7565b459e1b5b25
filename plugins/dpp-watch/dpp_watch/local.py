"""A local folder: its files, their versions, and whether a process writes to them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dpp_watch.inotify import Event, Inotify, why_unavailable
from dpp_watch.rules import Rules

log = logging.getLogger("dpp.watch")

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "gpfs", "beegfs", "virtiofs"})
_NO_LEASES = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK})


class FoundFile(NamedTuple):
    """A file in a watched folder.

    Attributes:
        path: Its path in the folder.
        size: Its size in bytes.
        version: Its version, as dpp calls it: size and modification time.
        age: Seconds since its last change; None if the clock of the file system is another one.
    """

    path: str
    size: int
    version: str
    age: float | None = None


class LocalFolder:
    """A folder of this machine.

    Args:
        folder: The folder, without links.
        rules: Which files are taken.
        events: Whether to watch it with inotify.
    """

    is_listed = False

    def __init__(self, folder: Path, rules: Rules, *, events: bool = True) -> None:
        self.folder = folder
        self._root = str(folder)
        self._rules = rules
        self._reported: set[str] = set()
        self._kind = file_system(folder)
        self.is_network = self._kind in NETWORK or self._kind.startswith("fuse.")
        self._inotify = self._opened() if events else None

    @property
    def descriptor(self) -> int | None:
        """Descriptor that is readable when there are events; None without events."""
        return self._inotify.descriptor if self._inotify else None

    def _opened(self) -> Inotify | None:
        if self.is_network:
            self._without_events(f"{self._kind} reports no events of other machines")
            return None
        try:
            return Inotify()
        except OSError as error:
            self._without_events(why_unavailable(error))
            return None

    def _without_events(self, reason: str) -> None:
        self.report(f"{self._root}: {reason}; the folder is only scanned, every {self._rules.scan:g} s")

    def report(self, text: str) -> None:
        """Log a warning, once."""
        if text not in self._reported:
            self._reported.add(text)
            log.warning("%s", text)

    def events(self) -> Iterator[Event]:
        """Yield the events since the last call."""
        return self._inotify.read() if self._inotify else iter(())

    def close(self) -> None:
        """Stop watching; also for a process that was forked."""
        if self._inotify:
            self._inotify.close()
            self._inotify = None

    def scan(self, below: str = "", taken: Mapping[str, str] = MappingProxyType({})) -> Iterator[FoundFile]:
        """Yield the files to take, and watch their folders.

        Args:
            below: Path of a sub-folder; all if empty.
            taken: Version of each path that was taken: such files are not yielded.

        Raises:
            OSError: The folder itself cannot be read.
        """
        waiting, now = [below], time.time()
        while waiting:
            path = waiting.pop()
            try:
                for entry in self._listed(path):
                    name = f"{path}/{entry.name}" if path else entry.name
                    if entry.is_file(follow_symlinks=False):
                        if found := self._found(name, entry, now, taken):
                            yield found
                    elif self._rules.recursive and entry.is_dir(follow_symlinks=False) and not self._rules.skips(name):
                        waiting.append(name)
            except OSError as error:
                if not path:
                    raise
                self._skipped_folder(path, error)

    def _listed(self, path: str) -> Iterator[os.DirEntry[str]]:
        folder = f"{self._root}/{path}" if path else self._root
        # In this order: what arrives after the folder was listed makes an event.
        if self._inotify:
            try:
                self._inotify.add(folder, path)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self.close()
                    self._without_events(why_unavailable(error))
        return os.scandir(folder)

    def _skipped_folder(self, path: str, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self.report(f"cannot list {path!r}: {error.strerror}; its files are skipped")

    def _found(self, path: str, entry: os.DirEntry[str], now: float, taken: Mapping[str, str]) -> FoundFile | None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        version = f"{status.st_size}-{status.st_mtime_ns}"
        return None if taken.get(path) == version or not self._takes(path) else self._made(path, status, version, now)

    def _takes(self, path: str) -> bool:
        if not self._rules.takes(path):
            return False
        if not _is_text(path):
            self.report(f"{os.fsencode(path)!r}: the name is not UTF-8, so the file is skipped; rename it")
            return False
        return True

    def _made(self, path: str, status: os.stat_result, version: str, now: float) -> FoundFile:
        # The time of the last change of the inode, unlike that of the content, cannot be set by a program that copies a file.
        age = None if self.is_network else max(0.0, now - max(status.st_ctime, min(status.st_mtime, now)))
        return FoundFile(path, status.st_size, version, age)

    def look(self, path: str) -> FoundFile | None:
        """Return a file as it is now; None if it is not one to take."""
        with suppress(OSError):
            status = os.lstat(f"{self._root}/{path}")
            if stat.S_ISREG(status.st_mode) and self._takes(path):
                return self._made(path, status, f"{status.st_size}-{status.st_mtime_ns}", time.time())
        return None

    def skipped(self, path: str = "") -> Iterator[tuple[str, str]]:
        """Yield the paths of files and folders that are not taken, each with the reason."""
        for entry in os.scandir(f"{self._root}/{path}"):
            name = f"{path}/{entry.name}" if path else entry.name
            if entry.is_symlink():
                yield name, "it is a link, and links are not followed"
            elif why := self._rules.why_skipped(name) if entry.is_file() or self._rules.skips(name) else "":
                yield name, why
            elif entry.is_dir():
                with suppress(OSError):
                    yield from self.skipped(name) if self._rules.recursive else [(name, "it is a folder (--recursive)")]
            elif not entry.is_file():
                yield name, "it is not a regular file"
            elif not _is_text(name):
                yield name, "its name is not UTF-8; rename it"

    def has(self, path: str) -> bool:
        """Whether there is a file of this path, such as a marker."""
        return os.path.lexists(f"{self._root}/{path}")

    def is_written(self, path: str) -> bool:
        """Whether a process of this machine has the file open for writing; false where the file system cannot tell."""
        try:
            descriptor = os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            # The kernel grants a read lease (fcntl(2), F_SETLEASE) only on a file that nobody has open for writing.
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            return error.errno not in _NO_LEASES
        finally:
            os.close(descriptor)
        return False

    def row(self, found: FoundFile) -> dict[str, Any]:
        """Return a file as an entry of a manifest."""
        path = Path(self._root, found.path)
        return {"url": path.as_uri(), "id": found.path, "name": path.name, "size": found.size, "expect_version": found.version}


def _is_text(path: str) -> bool:
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_system(folder: Path) -> str:
    """Return the type of the file system of a folder, such as ``ext4`` or ``nfs4``; "" if it is unknown."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return ""
