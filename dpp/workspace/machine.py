"""The machine that a process runs on, and the errors that are the machine's fault."""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpp import names
from dpp.errors import RESUMABLE_TEXT, EnvironmentStop

_NO_LOCKS = (
    "cannot lock {path}: {reason}. Its file system ({kind}) must support flock(2): mount it with locks, or choose another --workspace"
)
LIMITS = "check the limits with ulimit -n and ulimit -u, and the memory"
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an input/output error",
    errno.EMFILE: "this process has too many open files (see ulimit -n)",
    errno.ENFILE: "the system has too many open files",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a file is in the way",
    errno.ESTALE: "it was removed or replaced on its file server (stale file handle)",
}


@functools.cache
def process_space() -> str:
    """Return an id of the processes that this one can see: of its host name, its boot, and its PID namespace (pid_namespaces(7)).

    Process ids are unique in it. Containers may share a host name, and machines that were copied do too.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return names.digest(*parts, digits=6)


def process_name() -> str:
    """Return a name of this process that no other process has at the same time, on any machine."""
    return f"{process_space()}-{os.getpid()}"


def no_locks(descriptor: int, error: OSError) -> EnvironmentStop:
    """Return the error for a file that cannot be locked."""
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    return EnvironmentStop(_NO_LOCKS.format(path=path, reason=error.strerror, kind=_file_system(descriptor)))


def _file_system(descriptor: int) -> str:
    """Return the type of an open file's file system, such as nfs4 (proc_pid_mountinfo(5)); "unknown" if it is not mounted here."""
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields, _, more = line.partition(" - ")
            if fields.split()[2] == number:
                return more.split()[0]
    return "unknown"


def reason_of(error: OSError) -> str:
    """Return why a call of the system failed, in words for a message."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def stop_for(error: OSError) -> EnvironmentStop:
    """Return the error that stops a run for a failed call of the system, made outside of plugins."""
    reason = reason_of(error)
    if error.filename is not None:
        return EnvironmentStop(f"cannot use {os.fsdecode(error.filename)}: {reason}. {RESUMABLE_TEXT}")
    if not current_folder():
        return EnvironmentStop("the current folder was removed; change to one that exists, then run the same command again")
    # tempfile has no class of error for it.
    hint = "; set TMPDIR to a folder that can be written" if "temporary directory" in reason else ""
    return EnvironmentStop(f"the system reports: {reason}{hint}. {RESUMABLE_TEXT}")


@contextmanager
def starting(what: str = "start a child process", hint: str = LIMITS) -> Iterator[None]:
    """Turn a failure to open a file or start a process or thread into EnvironmentStop.

    Args:
        what: What the block does, for the message.
        hint: What may help.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if stop := stop_for_refusal(error, what, hint):
            raise stop from error
        raise


def stop_for_refusal(error: BaseException, what: str = "start a child process", hint: str = LIMITS) -> EnvironmentStop | None:
    """Return the error that stops a run because the system refused a process, a thread or a file; None for errors of other kinds."""
    if isinstance(error, EnvironmentStop):
        return error
    if isinstance(error, OSError):
        return EnvironmentStop(f"cannot {what}: {error.strerror or error}; {hint}. {RESUMABLE_TEXT}")
    if is_thread_refusal(error):
        return EnvironmentStop(f"cannot start a thread; {hint}. {RESUMABLE_TEXT}")
    return None


def is_thread_refusal(error: BaseException) -> bool:
    """Whether an exception says that the system refused to start a thread, for which Python has no class."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


class ends_copies:  # noqa: N801 - reads as a verb, like contextlib.suppress
    """End a copy of this process at the end of the block.

    A plugin that forks may return in both processes, also with an exception. The files belong to the first one.
    """

    __slots__ = ("_process",)

    def __enter__(self) -> None:
        self._process = os.getpid()

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._process:
            os._exit(1)


def current_folder() -> str:
    """Return the path of the current folder; "" if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
